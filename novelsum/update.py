"""A night's new rows against the rows of a state: :mod:`novelsum.state` says what that is.

1. Ids and digests of the new rows meet those of the state: which are known already, which embeddings are equal.
2. The new rows are laid out by the cells of the state, and each says which cells it probes.
3. A task a group of cells holds its rows, old and new, and lets all new rows that probe its cells pass by: for these
   it finds the nearest in the group, and its old rows take them into account.
4. What the groups found for a new row is merged, and the lists of all rows are written.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from novelsum.cells import sampled
from novelsum.errors import InputError
from novelsum.formula import Array
from novelsum.layout import (
    CellRows,
    Layout,
    binary,
    digests,
    group_name,
    joined,
    lay_out,
    matrix,
    read_cells,
    read_group,
    read_points,
    renumber,
    write_points,
)
from novelsum.neighbors import Index, NearestDistances, Sought
from novelsum.partition import MEASURING, compare, logger
from novelsum.progress import collect
from novelsum.shared import Shared
from novelsum.storage import Location
from novelsum.store import Block, Pool, read_block


def _sought(content: dict[str, Any]) -> Sought:
    return Sought(*(content["settings"][name] for name in ("formula", "metric", "neighbors")))


# --- the rows of a group ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lists:
    """Rows of a group in the order of their numbers, without vectors.

    ``row`` (n,) int64; ``id`` (n,); ``digest`` (n,) bytes of the vector; ``squared`` (n, count) to the nearest.
    """

    row: Index
    id: NDArray[Any]
    digest: NDArray[Any]
    squared: Array

    def write(self, location: Location) -> None:
        """Write them."""
        columns = {"row": self.row, "id": self.id, "digest": self.digest, "squared": binary(self.squared)}
        location.write_parquet(pa.table(columns))

    @staticmethod
    def read(location: Location) -> "Lists":
        """Read them."""
        table = location.read_parquet()
        row, ids, digest = (table.column(name).to_numpy() for name in ("row", "id", "digest"))
        return Lists(row, ids, digest, matrix(table.column("squared"), "float64"))


def _write_result(folder: Location, group: int, sought: Sought, id_column: str, lists: Lists) -> None:
    density, kth = sought.density(sought.of_neighbors(lists.squared))
    table = pa.table({id_column: lists.id, "density": density, "kth_distance": kth})
    (folder / f"part-{group:05d}.parquet").write_parquet(table)


def counts_of(rows: CellRows, released: bool, cells: int) -> list[int]:
    """How many possible neighbours lie in each cell."""
    counted: list[int] = np.bincount(rows.cell[rows.distinct | (not released)], minlength=cells).tolist()
    return counted


def lists_of(rows: CellRows, squared: Array) -> Lists:
    """Lists of some rows, in the order of their numbers, with what was found for them."""
    order = np.argsort(rows.row)
    digest = np.array(digests(rows.vectors), dtype=object)
    return Lists(rows.row[order], rows.id[order], digest[order], squared[order])


# --- a night more -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Night:
    """What every task of an update needs to know; new rows have the numbers from ``first`` on."""

    state: Location
    work: Location
    night: int
    sought: Sought
    layout: Layout
    sizes: Index
    probes: int
    first: int
    fraction: float
    renamed: dict[int, Any]
    result: Location
    id_column: str

    def new(self, group: int) -> CellRows:
        """The new rows of a group."""
        return read_group(self.layout, group)

    def old(self, group: int) -> CellRows:
        """The old rows of a group, in the order of their numbers."""
        nights = [self.state / f"night-{number:05d}" for number in range(self.night)]
        rows = joined([read_group(replace(self.layout, folder=folder), group) for folder in nights])
        return rows.take(np.argsort(rows.row))

    def space(self, rows: CellRows) -> Array:
        """Their points (n, D) float64."""
        return self.sought.points(rows.vectors)


def update(
    spark: SparkSession,
    pool: Pool,
    folder: Location,
    content: dict[str, Any],
    night: int,
    id_column: str,
    result: Location,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Add the pool to the state in ``folder`` as that ``night``; write the density factors of all rows to ``result``.

    Returns what the manifest says, and what changes in the content of the state.
    """
    context = spark.sparkContext
    if pool.dimension != content["dimension"]:
        raise InputError(
            f"the new embeddings have {pool.dimension} dimensions, but those of the state {folder} have "
            f"{content['dimension']}; embed them with the same model"
        )
    sought, cells = _sought(content), read_cells(folder)
    groups = int(cells.group[-1]) + 1
    renamed, added = _admit(spark, pool, folder, content, groups)
    (pool.work / "centroids.parquet").write_bytes((folder / "centroids.parquet").read_bytes())
    layout = lay_out(spark, replace(pool, renumbered=True), pool.work, "night", sought, cells)
    numbers = context.parallelize(range(groups), groups)
    count = partial(_place_group, layout, folder / f"night-{night:05d}", len(cells.group), sought)
    counted = numbers.map(count).collect()
    sizes = np.array(content["sizes"]) + np.sum(counted, axis=0)
    probes = len(sizes) if content["probes"] >= len(sizes) else content["probes"]
    for name in ("probed", "partial", "updated", "measured"):
        (pool.work / name).make_folder()
    result.make_folder()
    job = Night(
        state=folder,
        work=pool.work,
        night=night,
        sought=sought,
        layout=layout,
        sizes=sizes,
        probes=probes,
        first=content["numbers"],
        fraction=content["fraction"],
        renamed=renamed,
        result=result,
        id_column=id_column,
    )
    numbers.foreach(partial(_probe, job))
    known = _measure(job, groups)
    parts = collect(numbers.mapPartitions(partial(_update_group, job)), "new rows against old and new")
    merged = numbers.map(partial(_merge_group, job)).collect()
    squared = np.sort(np.concatenate([known[2], *(part[0] for part in parts)], axis=1), axis=1)[:, : sought.count]
    write_points(folder / f"generation-{night:05d}" / "measured.parquet", *known[:2], squared)
    found_rows, found = (np.concatenate(columns) for columns in zip(*merged, strict=True))
    found = found[np.argsort(found_rows)]
    report = compare(sought, sought.of_neighbors(squared), sought.of_neighbors(found))
    target = content["settings"]["target_recall"]
    if report["recall"] < target:
        logger.warning(
            "density: recall %.4f is below the %g the state was made for; make it again", report["recall"], target
        )
    changed = {
        "rows": content["rows"] + added,
        "numbers": content["numbers"] + added,
        "sizes": sizes.tolist(),
    }
    said = {
        "method": "update",
        "rows": content["rows"] + added,
        "added": added,
        "equal_to_older": pool.candidates - added,
        "cells": len(sizes),
        "probes": probes,
        **report,
    }
    return said, changed


def _admit(
    spark: SparkSession, pool: Pool, folder: Location, content: dict[str, Any], groups: int
) -> tuple[dict[int, Any], int]:
    """Number the new rows; of equal embeddings, old or new, only the smallest id stays where duplicates are dropped.

    Returns the new ids of old rows, by number, and how many rows are added. Raises InputError where the state has an
    id of the pool already.
    """
    context, last = spark.sparkContext, folder / f"generation-{content['generation']:05d}"
    parts = context.parallelize(pool.blocks, len(pool.blocks)).map(partial(_keys_of_block, pool.work)).collect()
    rows, ids, digest, distinct = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(rows)
    ids, digest, distinct = ids[order], digest[order], distinct[order]
    keys = Shared.of(context, (set(ids.tolist()), set(digest.tolist())))
    met = context.parallelize(range(groups), groups).map(lambda group: _met(last, keys.value, group)).collect()
    keys.destroy()
    known = sorted(id_ for of_group, _ in met for id_ in of_group)
    if known:
        raise InputError(
            f"{len(known)} row(s) have an id that the state {folder} holds already (first id: {known[0]!r}); "
            "leave them out"
        )
    older = {key: (number, id_) for _, of_group in met for number, id_, key in of_group}
    again = np.array([key in older for key in digest.tolist()], dtype=bool)
    renamed = {}
    if content["settings"]["duplicates"] == "drop":
        for place in np.flatnonzero(again).tolist():
            number, id_ = older[digest[place]]
            if ids[place] < id_:
                renamed[number] = ids[place]
        added = ~again
    else:
        added = np.ones(len(ids), dtype=bool)
    numbers = np.where(added, content["numbers"] + np.cumsum(added) - 1, -1)
    renumber(pool.work, numbers, distinct & ~again)
    return renamed, int(added.sum())


def _keys_of_block(work: Location, block: Block) -> tuple[Index, NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Rows, ids, digests and distinctness of a block's candidates."""
    stored = read_block(work, block.name)
    ids = stored.ids.to_numpy(zero_copy_only=False).astype(object)
    return stored.rows, ids, np.array(digests(stored.vectors), dtype=object), stored.distinct


def _met(
    folder: Location, keys: tuple[set[Any], set[bytes]], group: int
) -> tuple[list[Any], list[tuple[int, Any, bytes]]]:
    """Ids of the group that are new ones too, and number, id and digest of its rows with an embedding of a new one."""
    lists = Lists.read(folder / group_name(group))
    rows = zip(lists.row.tolist(), lists.id.tolist(), lists.digest.tolist(), strict=True)
    same = [row for row in rows if row[2] in keys[1]]
    return [id_ for id_ in lists.id.tolist() if id_ in keys[0]], same


def _place_group(layout: Layout, folder: Location, cells: int, sought: Sought, group: int) -> list[int]:
    """Copy the new rows of a group into the state; return how many possible neighbours it has in each cell."""
    (folder / group_name(group)).write_bytes(layout.file(group).read_bytes())
    return counts_of(read_group(layout, group), sought.released, cells)


def _probe(job: Night, group: int) -> None:
    """Write which cells the new rows of a group probe, and those of them that are measured."""
    rows = job.new(group)
    points = job.space(rows)
    needed = job.sought.neighbors + 1
    mask = read_cells(job.work).probed(points, rows.cell, job.probes, job.sizes, needed)
    table = pa.table({"cells": binary(np.packbits(mask, axis=1))})
    (job.work / "probed" / group_name(group)).write_parquet(table)
    measured = sampled(rows.row, job.fraction, MEASURING)
    nothing = np.full((int(measured.sum()), job.sought.count), np.inf)
    write_points(job.work / "measured" / group_name(group), rows.row[measured], points[measured], nothing)


def _measure(job: Night, groups: int) -> tuple[Index, Array, Array]:
    """Old and new measured rows, their points and the distances known of them; also written for the tasks."""
    files = [job.state / f"generation-{job.night - 1:05d}" / "measured.parquet"]
    files += [job.work / "measured" / group_name(group) for group in range(groups)]
    rows, points, squared = (np.concatenate(column) for column in zip(*map(read_points, files), strict=True))
    order = np.argsort(rows)
    rows, points, squared = rows[order], points[order], squared[order]
    write_points(job.work / "measured.parquet", rows, points, squared)
    return rows, points, squared


def _update_group(job: Night, groups: Iterable[int]) -> Iterator[tuple[Array]]:
    """Search all new rows in the cells of a group, and its old rows among the new ones that probe their cell.

    Yields the distances (m, count) of the measured rows to what is new to them in the group.
    """
    for group in groups:
        cells = read_cells(job.work)
        old, new = job.old(group), job.new(group)
        here = joined([old, new])
        points = job.space(here)
        lists = Lists.read(job.state / f"generation-{job.night - 1:05d}" / group_name(group))
        of_old = NearestDistances(points[: len(old.row)], job.sought.count, squared=lists.squared)
        members = np.flatnonzero(cells.group == group)
        wanted = here.distinct | (not job.sought.released)
        corpus = {cell: np.flatnonzero((here.cell == cell) & wanted) for cell in members.tolist()}
        olds = {cell: np.flatnonzero(old.cell == cell) for cell in members.tolist()}
        _search_new(job, group, here, points, corpus, olds, of_old)
        ids = np.array([job.renamed.get(row, id_) for row, id_ in zip(lists.row.tolist(), lists.id, strict=True)])
        replace(lists, id=ids if len(ids) else lists.id, squared=of_old.squared).write(
            job.work / "updated" / group_name(group)
        )
        yield (_search_measured(job, here, points, corpus),)


def _search_new(
    job: Night,
    group: int,
    here: CellRows,
    points: Array,
    corpus: dict[int, Index],
    olds: dict[int, Index],
    of_old: NearestDistances,
) -> None:
    """Compare the new rows, a group of them at a time, with the cells of this group that they probe, both ways."""
    location = job.work / "partial" / group_name(group)
    with location.writing() as stream, pq.ParquetWriter(stream, _PARTIAL) as to:
        for other in range(job.layout.groups):
            queries = job.new(other)
            packed = matrix((job.work / "probed" / group_name(other)).read_parquet().column("cells"), "uint8")
            probed = np.unpackbits(packed, axis=1, count=len(job.sizes)).astype(bool)
            of_queries = job.space(queries)
            nearest = NearestDistances(of_queries, job.sought.count, None if job.sought.holds_queries else queries.row)
            for cell, places in corpus.items():
                at = np.flatnonzero(probed[:, cell])
                if not len(at):
                    continue
                nearest.add(points[places], here.row[places], at=at)
                useful = at[queries.distinct[at]] if job.sought.released else at
                of_old.add(of_queries[useful], at=olds[cell])
            squared = [row.tobytes() for row in nearest.squared]
            to.write_table(pa.table({"squared": pa.array(squared, pa.binary())}, schema=_PARTIAL), max(1, len(squared)))


_PARTIAL = pa.schema([("squared", pa.binary())])


def _search_measured(job: Night, here: CellRows, points: Array, corpus: dict[int, Index]) -> Array:
    """Distances of new measured rows to all of a group, and of old ones to its new rows."""
    rows, measured, _ = read_points(job.work / "measured.parquet")
    nearest = NearestDistances(measured, job.sought.count, None if job.sought.holds_queries else rows)
    before, after = np.flatnonzero(rows < job.first), np.flatnonzero(rows >= job.first)
    for places in corpus.values():
        nearest.add(points[places], here.row[places], at=after)
        added = places[here.row[places] >= job.first]
        nearest.add(points[added], here.row[added], at=before)
    return nearest.squared


def _merge_group(job: Night, group: int) -> tuple[Index, Array]:
    """Write the lists and the result of a group's rows, old and new; return those of the measured ones."""
    new = job.new(group)
    squared = np.full((len(new.row), job.sought.count), np.inf)
    for other in range(job.layout.groups):
        location = job.work / "partial" / group_name(other)
        found = location.parse(lambda file: file.read_row_group(group)).column("squared").to_pylist()
        part = np.frombuffer(b"".join(found)).reshape(squared.shape)
        squared = np.sort(np.concatenate([squared, part], axis=1), axis=1)[:, : job.sought.count]
    old, added = Lists.read(job.work / "updated" / group_name(group)), lists_of(new, squared)
    names = [column.name for column in fields(Lists)]
    lists = Lists(*(np.concatenate([getattr(old, name), getattr(added, name)]) for name in names))
    lists.write(job.state / f"generation-{job.night:05d}" / group_name(group))
    _write_result(job.result, group, job.sought, job.id_column, lists)
    measured = np.flatnonzero(sampled(lists.row, job.fraction, MEASURING))
    return lists.row[measured], lists.squared[measured]
