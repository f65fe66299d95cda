"""Rows from all over the input in the order of a file, in bounded memory: sorted runs, as of an external sort.

A task writes the rows that it reads in runs of a few megabytes, each in the order of the file; the driver reads all
runs side by side, from their begin to their end, and puts the rows together in blocks. It knows of each row in which
run it lies and how long it is, and holds no more rows than those of a block and a small batch of each run.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from novelsum.errors import RunError, first_line
from novelsum.files.location import Location
from novelsum.rows import Integers

_BATCH_BYTES = 256 << 10
"""Of a run that the driver holds."""
_MOST_OPEN = 256
"""Runs that are open at the same time; others are opened again for each batch."""


@dataclass(frozen=True)
class Run:
    """A run that was written: the positions (n,) of its rows in the file, ascending, and their bytes (n,), about."""

    name: str
    positions: Integers
    sizes: Integers
    schema: bytes


def write_runs(
    folder: Location, name: str, tables: Iterable[tuple[Integers, Integers, pa.Table]], most: int
) -> Iterator[Run]:
    """Write positions (n,), sizes (n,) and rows as runs of about ``most`` bytes, whose names begin with ``name``."""
    held: list[tuple[Integers, Integers, pa.Table]] = []
    size = number = 0
    for positions, sizes, table in tables:
        held.append((positions, sizes, table))
        size += int(sizes.sum())
        if size >= most:
            yield _write(folder, f"{name}-{number:05d}.arrow", held)
            held, size, number = [], 0, number + 1
    if held:
        yield _write(folder, f"{name}-{number:05d}.arrow", held)


def _write(folder: Location, name: str, held: list[tuple[Integers, Integers, pa.Table]]) -> Run:
    positions, sizes = (np.concatenate([part[column] for part in held]) for column in (0, 1))
    order = np.argsort(positions)
    table = unified([part[2] for part in held])
    if (np.diff(order) != 1).any():
        table = table.take(pa.array(order))
    rows = max(1, len(order) * _BATCH_BYTES // max(1, int(sizes.sum())))
    with (folder / name).writing() as stream, pa.ipc.new_file(stream, table.schema) as file:
        file.write_table(table.combine_chunks(), max_chunksize=rows)
    return Run(name, positions[order], sizes[order], table.schema.serialize().to_pybytes())


@contextmanager
def told_unfit() -> Iterator[None]:
    """Raise RunError where records are no rows of one table."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, OverflowError) as error:
        raise RunError(
            f"the records do not fit into the columns of one Parquet file ({first_line(error)}); run again with "
            "--export to a .jsonl file, which goes on from the picks"
        ) from None


def unified(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of several; raise RunError where their columns cannot be of one type."""
    schema = one_schema([table.schema for table in tables])
    with told_unfit():
        return pa.concat_tables([table.cast(schema) for table in tables])


def one_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The schema that rows of all can be cast to; raise RunError where there is none."""
    distinct = [schema for place, schema in enumerate(schemas) if schema not in schemas[:place][-1:]]
    with told_unfit():
        return distinct[0] if len(distinct) == 1 else pa.unify_schemas(distinct, promote_options="permissive")


@dataclass(frozen=True)
class Runs:
    """All runs of a file of n rows. ``run`` (n,): the number of the run that each lies in; ``sizes`` (n,)."""

    folder: Location
    names: tuple[str, ...]
    run: NDArray[np.int32]
    sizes: Integers

    @staticmethod
    def of(folder: Location, runs: Sequence[Run], rows: int) -> "Runs":
        """Of runs that hold each of so many positions once."""
        run, sizes = np.full(rows, -1, dtype=np.int32), np.zeros(rows, dtype=np.int64)
        for number, one in enumerate(runs):
            run[one.positions], sizes[one.positions] = number, one.sizes
        assert (run >= 0).all()
        return Runs(folder, tuple(one.name for one in runs), run, sizes)

    def blocks(self, most: int) -> Iterator[pa.Table]:
        """The rows in the order of the file, in tables of ``most`` bytes, about, or of a single row."""

        @functools.lru_cache(_MOST_OPEN)
        def opened(number: int) -> Any:
            place = self.folder / self.names[number]
            return pa.ipc.open_file(place.filesystem.open_input_file(place.path))

        read = [_Reading(functools.partial(opened, number)) for number in range(len(self.names))]
        ends, start = np.cumsum(self.sizes), 0
        while start < len(ends):
            before = int(ends[start - 1]) if start else 0
            end = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
            runs = self.run[start:end]
            counts = np.bincount(runs)
            pieces = [read[number].next(int(counts[number])) for number in np.flatnonzero(counts)]
            table = unified([piece for of_run in pieces for piece in of_run])
            order = np.argsort(runs, kind="stable")
            if (np.diff(order) != 1).any():
                table = table.take(pa.array(np.argsort(order)))
            yield table
            start = end


class _Reading:
    """A run that is read from its begin to its end."""

    def __init__(self, opened: Callable[[], Any]) -> None:
        self._opened = opened
        self._batch = 0
        self._left: pa.Table | None = None

    def next(self, rows: int) -> list[pa.Table]:
        """The next rows, in pieces."""
        pieces = []
        while rows:
            if self._left is None or not len(self._left):
                self._left = pa.Table.from_batches([self._opened().get_batch(self._batch)])
                self._batch += 1
            pieces.append(self._left.slice(0, rows))
            self._left = self._left.slice(rows)
            rows -= len(pieces[-1])
        return pieces
