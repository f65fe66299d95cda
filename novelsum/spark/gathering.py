"""Chosen rows of an input, read by executors and put in an order that need not be that of the input.

Neither a task nor the driver holds more of them than some megabytes (:mod:`~novelsum.files.runs`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark import SparkContext

from novelsum.files.location import Location
from novelsum.files.runs import Run, write_runs
from novelsum.files.source import RowGroup, Source, read_others
from novelsum.rows import Integers
from novelsum.spark.progress import collect

_READ_BYTES = 16 << 20
_RUN_BYTES = 32 << 20
"""What a task holds before it writes a run, about."""
_TASKS_PER_CORE = 4

Sized = tuple[Integers, pa.Table]
"""Bytes of rows (n,), about, and the rows."""
Make = Callable[[pa.Table, Integers], Sized]
"""Makes of rows as they are read, and of their numbers in their file (n,), those to be written."""


@dataclass(frozen=True)
class _Piece:
    """What one task reads: row groups, and of each the chosen rows in it, ascending, with their positions."""

    number: int
    groups: tuple[tuple[RowGroup, Integers, Integers], ...]


def gather(
    context: SparkContext,
    source: Source,
    columns: list[str],
    chosen: tuple[Integers, Integers, Integers],
    make: Make,
    folder: Location,
    stage: str,
) -> list[Run]:
    """Write what ``make`` makes of some columns of n chosen rows to runs in ``folder``.

    ``chosen``: their files (n,), their rows there (n,), and their positions in the order to come (n,).
    """
    folder.delete()
    folder.make_folder()
    pieces = _pieces(source, chosen, _TASKS_PER_CORE * context.defaultParallelism)
    work = partial(_write, source, columns, make, folder)
    return [run for of_task in collect(context.parallelize(pieces, len(pieces)).map(work), stage) for run in of_task]


def as_they_are(chosen: pa.Table, rows: Integers) -> Sized:
    """Rows as they are read."""
    return np.full(len(rows), max(1, chosen.nbytes // len(rows))), chosen


def _pieces(source: Source, chosen: tuple[Integers, Integers, Integers], tasks: int) -> list[_Piece]:
    order = np.lexsort((chosen[1], chosen[0]))
    files, rows, positions = (values[order] for values in chosen)
    found: list[tuple[RowGroup, Integers, Integers]] = []
    for group in source.row_groups:
        low, high = np.searchsorted(files, (group.file, group.file + 1))
        start, end = low + np.searchsorted(rows[low:high], (group.first_row, group.first_row + group.rows))
        if end > start:
            found.append((group, rows[start:end], positions[start:end]))
    size = -(-sum(group.rows for group, _, _ in found) // tasks)
    pieces: list[list[tuple[RowGroup, Integers, Integers]]] = [[]]
    read = 0
    for one in found:
        if read >= size:
            pieces.append([])
            read = 0
        pieces[-1].append(one)
        read += one[0].rows
    return [_Piece(number, tuple(groups)) for number, groups in enumerate(pieces)]


def _write(source: Source, columns: list[str], make: Make, folder: Location, piece: _Piece) -> list[Run]:
    def tables() -> Iterator[tuple[Integers, Integers, pa.Table]]:
        for group, rows, positions in piece.groups:
            start = group.first_row
            for batch in read_others(source, group, columns, _READ_BYTES):
                low, high = np.searchsorted(rows, (start, start + len(batch)))
                if high > low:
                    taken = batch.take(pa.array(rows[low:high] - start)).combine_chunks()
                    sizes, made = make(taken, rows[low:high])
                    yield positions[low:high], sizes, made
                start += len(batch)

    return list(write_runs(folder, f"run-{piece.number:05d}", tables(), _RUN_BYTES))
