"""Vectors that exist already and their ids, without texts, as Parquet: what all other jobs take."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark import SparkContext

from novelsum.errors import InputError
from novelsum.files.location import Location
from novelsum.spark.progress import collect
from novelsum.text.given import Given, Matrix

_PART_BYTES = 64 << 20
_GROUP_ROWS = 1024


def write_with_ids(context: SparkContext, path: str, given: Given, ids: pa.Array, id_column: str, to: Location) -> int:
    """Write vectors of ``path`` with their ids (n,) to a folder, in files of about 64 MiB; return their number.

    Raises InputError where there are not as many ids as vectors, or a vector is none.
    """
    if len(ids) != given.rows:
        raise InputError(
            f"--embeddings {path} has {given.rows} vectors and --ids {len(ids)} ids; write both from the same records"
        )
    parts = list(enumerate(_parts(given)))
    pieces = [(number, start, ids.take(pa.array(np.arange(start, stop)))) for number, (start, stop) in parts]
    work = partial(_write, given, id_column, to)
    return sum(collect(context.parallelize(pieces, len(pieces)).map(work), "import"))


def _parts(given: Given) -> Iterator[tuple[int, int]]:
    """Rows that are written to a file each; none crosses a file of the input."""
    size = max(1, _PART_BYTES // (np.dtype(given.dtype).itemsize * max(1, given.dimension)))
    begin = 0
    for file in given.files:
        end = begin + (file.rows or 0)
        yield from ((start, min(start + size, end)) for start in range(begin, end, size))
        begin = end


def as_column(vectors: Matrix) -> pa.Array:
    """Vectors (n, D) as a column of lists."""
    rows, dimension = vectors.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * dimension)
    return pa.ListArray.from_arrays(offsets, pa.array(vectors.reshape(-1)))


def _write(given: Given, id_column: str, to: Location, piece: tuple[int, int, pa.Array]) -> int:
    number, start, ids = piece
    vectors = given.vectors(np.arange(start, start + len(ids)))
    table = pa.table({id_column: ids, "embedding": as_column(vectors)})
    (to / f"part-{number:05d}.parquet").write_parquet(table, row_group_size=_GROUP_ROWS)
    return len(ids)
