"""Candidates as the search by cells keeps them: a file for each group of cells, a row group of Parquet for each cell.

Vectors lie in columns of binary, which read several times faster than lists.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark import SparkContext

from novelsum.density.axes import Axes
from novelsum.density.cells import Cells, sampled
from novelsum.density.neighbors import Sought
from novelsum.density.points import Points
from novelsum.density.reference import read_itself
from novelsum.files.location import Location
from novelsum.files.store import Pool, read_block
from novelsum.formula import Array
from novelsum.rows import Integers


@dataclass(frozen=True)
class CellRows:
    """Candidates n of a store in the order of cells, and of rows in each.

    ``row`` (n,) int64; ``id`` (n,) as in the input; ``cell`` (n,) int64;
    ``block`` and ``place`` (n,): where in the store; ``distinct`` (n,) bool;
    ``itself`` (n,) bool: whether the reference holds it too; ``vectors`` (n, D) as in the store.
    """

    row: Integers
    id: NDArray[Any]
    cell: Integers
    block: Integers
    place: Integers
    distinct: NDArray[np.bool_]
    itself: NDArray[np.bool_]
    vectors: NDArray[np.floating[Any]]

    def table(self) -> pa.Table:
        """As a table; vectors as binary, which reads several times faster than lists."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        return pa.table({**columns, "vector": binary(self.vectors)})

    def take(self, places: Integers | slice) -> "CellRows":
        """The candidates at some places."""
        return CellRows(*(getattr(self, name)[places] for name in (*_COLUMNS, "vectors")))

    @staticmethod
    def of(table: pa.Table, kind: str) -> "CellRows":
        """From a table, whose vectors are of that NumPy type."""
        columns = {name: table.column(name).to_numpy() for name in _COLUMNS}
        return CellRows(**columns, vectors=matrix(table.column("vector"), kind))


_COLUMNS = ("row", "id", "cell", "block", "place", "distinct", "itself")


def binary(vectors: NDArray[Any]) -> pa.Array:
    """Vectors (n, D) as Arrow binary of fixed size."""
    vectors = np.ascontiguousarray(vectors)
    size = vectors.shape[1] * vectors.itemsize
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(vectors), [None, pa.py_buffer(vectors)])


def matrix(column: pa.ChunkedArray, kind: str) -> NDArray[Any]:
    """The vectors (n, D) of a column that :func:`binary` made, of that NumPy type."""
    width = column.type.byte_width
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * width : (chunk.offset + len(chunk)) * width]
        for chunk in column.chunks
        if len(chunk)
    ]
    together = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint8), *parts])
    return together.view(kind).reshape(len(column), width // np.dtype(kind).itemsize)


def group_name(group: int) -> str:
    """What the file of a group is called."""
    return f"group-{group:05d}.parquet"


def write_row_groups(location: Location, rows: CellRows, of: Integers, count: int) -> None:
    """Write candidates as row groups 0 ... count - 1, ``of`` (n,) ascending saying which each is in."""
    _write_row_groups(location, rows.table(), np.searchsorted(of, np.arange(count + 1)))


def _write_row_groups(location: Location, table: pa.Table, ends: Integers) -> None:
    with (
        location.writing() as stream,
        pq.ParquetWriter(stream, table.schema, compression="none", use_dictionary=False, write_statistics=False) as to,
    ):
        for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            to.write_table(table.slice(start, end - start), row_group_size=max(1, end - start))


def read_row_group(location: Location, number: int, kind: str) -> CellRows:
    """One row group of what :func:`write_row_groups` wrote."""
    return CellRows.of(location.parse(lambda file: file.read_row_group(number)), kind)


@dataclass(frozen=True)
class Layout:
    """Candidates of a pool by cells, in files of ``folder``; what every task of the search needs to know."""

    folder: Location
    kind: str
    groups: int
    """How many groups of cells there are."""

    def file(self, group: int) -> Location:
        """The file of a group, a row group for each of its cells."""
        return self.folder / group_name(group)

    def short_file(self, group: int) -> Location:
        """The file with the short rows of a group, in the same row groups."""
        return self.folder / f"short-{group:05d}.parquet"


def write_cells(work: Location, cells: Cells) -> None:
    """Write the cells for the tasks to read."""
    table = pa.table({"copies": cells.copies, "group": cells.group, "centroid": binary(cells.centroids)})
    (work / "centroids.parquet").write_parquet(table, compression="none", use_dictionary=False)


def read_cells(work: Location) -> Cells:
    """Read them back."""
    table = (work / "centroids.parquet").read_parquet()
    centroids = matrix(table.column("centroid"), "float64")
    return Cells(centroids, table.column("copies").to_numpy(), table.column("group").to_numpy())


@dataclass(frozen=True)
class Sample:
    """About that ``fraction`` of the candidates, or of the ``distinct`` ones, by a hash of the row with a ``salt``."""

    fraction: float
    salt: int
    distinct: bool

    def of(self, rows: CellRows) -> CellRows:
        """Those of some candidates that belong to the sample."""
        taken = sampled(rows.row, self.fraction, self.salt) & (rows.distinct | (not self.distinct))
        return rows.take(np.flatnonzero(taken))


def draw(context: SparkContext, pool: Pool, samples: list[Sample], work: Location) -> list[CellRows]:
    """Samples of the candidates, in order of rows, in one pass over the store; through files, not the JVM."""
    folder = work / "sample"
    folder.make_folder()
    numbers = context.parallelize(range(len(pool.blocks)), len(pool.blocks))
    numbers.foreach(partial(_draw_block, pool, folder, samples))
    found = []
    for place in range(len(samples)):
        files = [folder / f"{place}-{block.name}" for block in pool.blocks]
        together = joined([CellRows.of(file.read_parquet(), kind_of(pool)) for file in files])
        found.append(together.take(np.argsort(together.row)))
    return found


def _draw_block(pool: Pool, folder: Location, samples: list[Sample], number: int) -> None:
    rows = _rows_of_block(pool, number)
    for place, sample in enumerate(samples):
        table = sample.of(rows).table()
        (folder / f"{place}-{pool.blocks[number].name}").write_parquet(table, compression="none", use_dictionary=False)


def _rows_of_block(pool: Pool, number: int) -> CellRows:
    """The candidates of a block."""
    name = pool.blocks[number].name
    block = read_block(pool.work, name)
    n = len(block.rows)
    zeros = np.zeros(n, dtype=np.int64)
    itself = read_itself(pool.work, name) if pool.marked else np.zeros(n, dtype=bool)
    ids = block.ids.to_numpy(zero_copy_only=False)
    return CellRows(block.rows, ids, zeros, zeros + number, np.arange(n), block.distinct, itself, block.vectors)


def renumber(work: Location, numbers: Integers, distinct: NDArray[np.bool_]) -> None:
    """Give the candidates by row other numbers, -1 to leave one out, and say anew which are distinct.

    They count for candidates that are laid out ``renumbered``.
    """
    (work / "numbers.parquet").write_parquet(pa.table({"number": numbers, "distinct": distinct}))


def _renumbered(rows: CellRows, work: Location) -> CellRows:
    """Those of the candidates that :func:`renumber` has given a number, by that number."""
    table = (work / "numbers.parquet").read_parquet()
    given, distinct = (table.column(name).to_numpy()[rows.row] for name in ("number", "distinct"))
    return replace(rows, row=given, distinct=distinct).take(np.flatnonzero(given >= 0))


def joined(parts: list[CellRows]) -> CellRows:
    """Some candidates after others."""
    if len(parts) == 1:
        return parts[0]
    return CellRows(*(np.concatenate([getattr(p, name) for p in parts]) for name in (*_COLUMNS, "vectors")))


def kind_of(pool: Pool) -> str:
    """The NumPy type of the pool's vectors."""
    return f"float{8 * pool.itemsize}"


def lay_out(
    context: SparkContext,
    pool: Pool,
    work: Location,
    name: str,
    sought: Sought,
    cells: Cells,
    renumbered: bool = False,
    searched: bool = True,
) -> Layout:
    """Write the candidates of a pool by cells into the folder of that name in ``work``, which holds the cells.

    With what is to be ``searched`` go its short rows, by the axes in ``work``.
    """
    layout = Layout(work / name, kind_of(pool), int(cells.group[-1]) + 1)
    by_block = work / f"{name}-by-block"
    for folder in (layout.folder, by_block):
        folder.make_folder()
    blocks = context.parallelize(range(len(pool.blocks)), len(pool.blocks))
    blocks.foreach(partial(_sort_block, pool, work, by_block, sought, renumbered))
    names = [block.name for block in pool.blocks]
    groups = context.parallelize(range(layout.groups), layout.groups)
    groups.foreach(partial(_gather, work, by_block, names, layout, sought if searched else None))
    by_block.delete()
    return layout


def _sort_block(pool: Pool, work: Location, by_block: Location, sought: Sought, renumbered: bool, number: int) -> None:
    """Write the candidates of a block by cells, a row group for each group of cells."""
    cells, rows = read_cells(work), _rows_of_block(pool, number)
    if renumbered:
        rows = _renumbered(rows, work)
    cell = cells.assign(sought.of(rows.vectors), rows.row)
    order = np.argsort(cell, kind="stable")
    in_order = replace(rows, cell=cell).take(order)
    write_row_groups(
        by_block / pool.blocks[number].name, in_order, cells.group[in_order.cell], int(cells.group[-1]) + 1
    )


def _gather(
    work: Location, by_block: Location, names: list[str], layout: Layout, sought: Sought | None, group: int
) -> None:
    """Write the candidates of a group from all blocks, a row group for each cell; for a search their short rows too."""
    members = np.flatnonzero(read_cells(work).group == group)
    rows = joined([read_row_group(by_block / name, group, layout.kind) for name in names])
    rows = rows.take(np.lexsort((rows.row, rows.cell)))
    first = int(members[0]) if len(members) else 0
    write_row_groups(layout.file(group), rows, rows.cell - first, len(members))
    if sought:
        points = sought.of(rows.vectors)
        table = pa.table({"length": points.lengths, "short": binary(points.short_by(read_axes(work)))})
        _write_row_groups(
            layout.short_file(group), table, np.searchsorted(rows.cell - first, np.arange(len(members) + 1))
        )


@dataclass(frozen=True)
class CorpusCells:
    """Some cells of one group as a corpus: n points that can be neighbours, with their ``rows`` (n,).

    ``numbers`` (c,) of the cells in order; the points of one are from ``ends[i]`` to ``ends[i + 1]``.
    """

    numbers: Integers
    ends: Integers
    points: Points
    rows: Integers

    def take(self, places: Integers) -> "CorpusCells":
        """The points at some places, ascending."""
        if len(places) == len(self.rows):
            return self
        ends = np.searchsorted(places, self.ends)
        return CorpusCells(self.numbers, ends, self.points.take(places), self.rows[places])

    def parts(self) -> Iterator[tuple[int, int, int]]:
        """Number, first place and end of each cell."""
        yield from zip(self.numbers.tolist(), self.ends[:-1].tolist(), self.ends[1:].tolist(), strict=True)


def read_cells_of(layout: Layout, cells: Cells, sought: Sought, numbers: Integers) -> Iterator[CorpusCells]:
    """Some cells, a group at a time, in the order in which groups and cells first appear in ``numbers``."""
    first = np.searchsorted(cells.group, np.arange(layout.groups))
    groups, appear = np.unique(cells.group[numbers], return_index=True)
    columns = ["row", "vector", *(["distinct"] if sought.among_distinct else [])]
    for group in groups[np.argsort(appear)].tolist():
        here = numbers[cells.group[numbers] == group]
        places = (here - first[group]).tolist()

        def read(
            file: pq.ParquetFile, columns: list[str] | None = None, places: list[int] = places
        ) -> tuple[Integers, pa.Table]:
            ends = np.cumsum([0] + [file.metadata.row_group(place).num_rows for place in places])
            return ends, file.read_row_groups(places, columns=columns, use_threads=False)

        ends, table = layout.file(group).parse(partial(read, columns=columns))
        rows, vectors = table.column("row").to_numpy(), matrix(table.column("vector"), layout.kind)
        corpus = CorpusCells(here, ends, points_of(layout.short_file(group).parse(read)[1], vectors), rows)
        if sought.among_distinct:
            corpus = corpus.take(np.flatnonzero(table.column("distinct").to_numpy()))
        yield corpus


def points_of(short: pa.Table, vectors: NDArray[np.floating[Any]]) -> Points:
    """The points of vectors (n, D) with what the layout has computed of them."""
    return Points(vectors, short.column("length").to_numpy(), matrix(short.column("short"), "float32"))


def write_axes(work: Location, axes: Axes) -> None:
    """Write the axes for the tasks to read."""
    table = pa.table({"centre": [axes.centre.tobytes()], "scale": [axes.scale]})
    kinds = axes.axes
    if kinds is not None:
        table = table.append_column("axes", [[kinds.tobytes()]])
    (work / "axes.parquet").write_parquet(table)


def read_axes(work: Location) -> Axes:
    """Read them back."""
    (row,) = (work / "axes.parquet").read_parquet().to_pylist()
    centre = np.frombuffer(row["centre"])
    axes = np.frombuffer(row["axes"]).reshape(len(centre), -1) if "axes" in row else None
    return Axes(centre, row["scale"], axes)


def write_points(location: Location, rows: Integers, points: Array, squared: Array) -> None:
    """Write the rows (m,) of measured candidates, their points (m, D) float64 and their distances (m, count)."""
    table = pa.table({"row": rows, "point": binary(points), "squared": binary(squared)})
    location.write_parquet(table, compression="none", use_dictionary=False)


def read_points(location: Location) -> tuple[Integers, Array, Array]:
    """Read them back."""
    table = location.read_parquet()
    return (table.column("row").to_numpy(), *(matrix(table.column(name), "float64") for name in ("point", "squared")))


def read_group(layout: Layout, group: int) -> CellRows:
    """All candidates of a group."""
    return CellRows.of(layout.file(group).read_parquet(), layout.kind)


def read_group_points(layout: Layout, group: int, rows: CellRows) -> Points:
    """Their points, with their short rows."""
    return points_of(layout.short_file(group).read_parquet(), rows.vectors)
