"""What a state knows of the rows of a group of cells beside their vectors: nearest distances, digests and ids."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from novelsum.density.layout import CellRows, binary, matrix
from novelsum.files.embeddings import digests
from novelsum.files.location import Location
from novelsum.formula import Array
from novelsum.rows import Integers


@dataclass(frozen=True)
class Lists:
    """Rows of a group in the order of their numbers, without vectors.

    ``row`` (n,) int64; ``digest`` (n,) bytes of the vector; ``squared`` (n, count) to the nearest.
    """

    row: Integers
    digest: NDArray[Any]
    squared: Array

    def write(self, location: Location) -> None:
        """Write them."""
        columns = [pa.array(self.row), pa.array(self.digest.tolist(), pa.binary()), binary(self.squared)]
        location.write_parquet(pa.table(columns, names=["row", "digest", "squared"]))

    def take(self, places: Integers) -> "Lists":
        """The rows at some places."""
        return Lists(self.row[places], self.digest[places], self.squared[places])

    @staticmethod
    def read(location: Location) -> "Lists":
        """Read them."""
        table = location.read_parquet()
        row, digest = (table.column(name).to_numpy() for name in ("row", "digest"))
        return Lists(row, digest, matrix(table.column("squared"), "float64"))


def ids_of(row: Any, ids: Any, night: Any, integer_ids: bool) -> pa.Table:
    """All ids of some rows, those with equal embeddings too, and the nights that brought them; in order of row and id.

    ``row``, ``ids`` and ``night`` (m,). The first id of a row stands for it.
    """
    kinds = (pa.int64(), pa.int64() if integer_ids else pa.string(), pa.int64())
    columns = [pa.array(values, kind) for values, kind in zip((row, ids, night), kinds, strict=True)]
    return in_order(pa.table(columns, names=["row", "id", "night"]))


def in_order(ids: pa.Table) -> pa.Table:
    """Ids by row, and those of a row in order."""
    return ids.sort_by([("row", "ascending"), ("id", "ascending")]).combine_chunks()


def ids_name(group: int) -> str:
    """What the file with the ids of a group is called."""
    return f"ids-{group:05d}.parquet"


def write_rows(location: Location, rows: CellRows) -> None:
    """Write rows of a group for a state: its numbers stay, so that no id and no place in a store is written."""
    nothing = np.zeros(len(rows.row), dtype=np.int64)
    plain = replace(rows, id=nothing, block=nothing, place=nothing)
    location.write_parquet(plain.table(), compression="none", use_dictionary=False)


def counts_of(rows: CellRows, among_distinct: bool, cells: int) -> Integers:
    """How many possible neighbours lie in each cell."""
    return np.bincount(rows.cell[rows.distinct | (not among_distinct)], minlength=cells)


def lists_of(rows: CellRows, squared: Array) -> Lists:
    """Lists of some rows, in the order of their numbers, with what was found for them."""
    order = np.argsort(rows.row)
    digest = np.array([*digests(rows.vectors), None], dtype=object)[:-1]
    return Lists(rows.row[order], digest[order], squared[order])
