"""What a run changes in a state: a night's rows come, rows go. :mod:`novelsum.density.state` says what a state is.

1. Ids that are taken out leave their rows. Ids and digests of the new rows meet those that stay: which are known
   already, which embeddings are equal. A row without any id is gone.
2. The new rows are laid out by the cells of the state; files that held rows that are gone are written again without.
3. Rows with one that is gone within their K-th distance are affected: all such ones pass by each group. They and the
   new rows are sought: each says which cells it probes.
4. A task a group of cells lets all rows that are sought in its cells pass by: for these it finds the nearest in the
   group, and its old rows take the new ones into account.
5. What the groups found for a row is merged, and the lists of all rows are written.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark import RDD, SparkContext

from novelsum.density.axes import Axes
from novelsum.density.cells import Cells, sampled
from novelsum.density.layout import (
    CellRows,
    Layout,
    binary,
    group_name,
    joined,
    lay_out,
    matrix,
    read_cells,
    read_group,
    read_points,
    renumber,
    write_cells,
    write_points,
)
from novelsum.density.lists import Lists, counts_of, ids_name, ids_of, in_order, lists_of, write_rows
from novelsum.density.near import MEASURING, compare, logger
from novelsum.density.neighbors import NearestDistances, Sought
from novelsum.density.points import Points
from novelsum.errors import InputError
from novelsum.files.embeddings import digests
from novelsum.files.location import Location
from novelsum.files.store import Block, Pool, read_block, read_equal
from novelsum.formula import Array
from novelsum.formulas import EQUATIONS
from novelsum.rows import Integers
from novelsum.spark.matching import search
from novelsum.spark.progress import collect
from novelsum.spark.shared import Shared

_NO_DISTANCE = 1e-10
"""A centroid whose squared distance to a point is this part of the point's squared length tells what the point is."""


def _sought(content: dict[str, Any]) -> Sought:
    return Sought(*(content["settings"][name] for name in ("formula", "metric", "neighbors")))


# --- a change ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What is done to the state in ``folder`` with that ``content``, for its generation ``number``.

    ``ids`` are taken out, and all that came in some ``nights``; then the rows of ``pool`` come, if there is one.
    """

    folder: Location
    content: dict[str, Any]
    number: int
    work: Location
    pool: Pool | None
    ids: frozenset[Any] = frozenset()
    nights: frozenset[int] = frozenset()

    @property
    def takes_out(self) -> bool:
        """Whether any id goes."""
        return bool(self.ids or self.nights)

    @property
    def last(self) -> Location:
        """Where lists and ids of all rows are."""
        return self.folder / f"generation-{self.content['generation']:05d}"

    @property
    def left(self) -> Location:
        """Where the ids are that are not taken out."""
        return self.work / "ids" if self.takes_out else self.last

    def ids_left(self, group: int) -> pa.Table:
        """The ids of a group that are not taken out."""
        return (self.left / ids_name(group)).read_parquet()


@dataclass(frozen=True)
class Outcome:
    """What a change has made of a state.

    ``said``: for the manifest; ``content``: what changes in that of the state; ``parts``: folders of rows, as they are
    now; ``known``: how many of the ids to be taken out were there; ``touched``: the nights they had come in.
    """

    said: dict[str, Any]
    content: dict[str, Any]
    known: int
    touched: frozenset[int]


@dataclass(frozen=True)
class Task:
    """What every task of a change needs to know; new rows have the numbers from ``first`` on."""

    state: Location
    work: Location
    last: Location
    left: Location
    number: int
    has_new: bool
    parts: tuple[str, ...]
    sought: Sought
    layout: Layout
    dimension: int
    sizes: Integers
    probes: int
    first: int
    fraction: float
    result: Location
    id_column: str

    @property
    def next(self) -> Location:
        """Where lists and ids of all rows go."""
        return self.state / f"generation-{self.number:05d}"

    def part(self, name: str, group: int) -> CellRows:
        """The rows of a group in a folder of the state."""
        return read_group(replace(self.layout, folder=self.state / name), group)

    def rows(self, group: int) -> CellRows:
        """All rows of a group, old and new, in the order of their numbers."""
        rows = joined([self.part(name, group) for name in self.parts])
        return rows if (np.diff(rows.row) > 0).all() else rows.take(np.argsort(rows.row))

    def new(self, group: int) -> CellRows:
        """The new rows of a group."""
        if self.has_new:
            return read_group(self.layout, group)
        none, no_flags = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
        vectors = np.zeros((0, self.dimension), dtype=self.layout.kind)
        return CellRows(none, none, none, none, none, no_flags, no_flags, vectors)

    def sought_rows(self, group: int) -> CellRows:
        """The rows of a group that are sought."""
        return read_group(replace(self.layout, folder=self.work / "sought"), group)

    def leaving(self, group: int) -> CellRows:
        """The rows of a group that are gone and were possible neighbours."""
        return read_group(replace(self.layout, folder=self.work / "leaving"), group)

    def is_gone(self, rows: Integers) -> NDArray[np.bool_]:
        """Which of some rows are gone."""
        return np.isin(rows, _column(self.work / "gone.parquet", "row"))

    def lists(self, group: int) -> Lists:
        """The lists of the old rows of a group that stay."""
        lists = Lists.read(self.last / group_name(group))
        return lists.take(np.flatnonzero(~self.is_gone(lists.row)))

    def space(self, rows: CellRows) -> Array:
        """Their points (n, D) float64."""
        return self.sought.points(rows.vectors)


def _column(location: Location, name: str) -> NDArray[Any]:
    values: NDArray[Any] = location.read_parquet([name]).column(0).to_numpy()
    return values


def change(context: SparkContext, what: Change, id_column: str, result: Location) -> Outcome:
    """Change a state; write the density factors of all its rows to ``result``.

    Files of the next generation are written into its folder. Raises InputError where that cannot be.
    """
    content, work, pool = what.content, what.work, what.pool
    sought, cells = _sought(content), read_cells(what.last)
    groups = int(cells.group[-1]) + 1
    numbers = context.parallelize(range(groups), groups)
    known, touched, leaving = _take_out(context, what, groups)
    if what.ids and not known:
        raise InputError(
            f"none of the {len(what.ids)} ids of --remove is in the state {what.folder} (first id: {min(what.ids)!r}); "
            "name the right state or the right ids"
        )
    admitted = _admit(context, what, groups, leaving)
    admitted.write(work, content["integer_ids"])
    write_cells(work, cells)
    layout = Layout(work / "night", content["kind"], groups)
    if pool:
        layout = lay_out(context, pool, work, "night", sought, cells, renumbered=True, searched=False)
    for name in ("leaving", "sought", "probed", "partial", "updated", "measured"):
        (work / name).make_folder()
    result.make_folder()
    job = Task(
        state=what.folder,
        work=work,
        last=what.last,
        left=what.left,
        number=what.number,
        has_new=pool is not None,
        parts=tuple(content["parts"]),
        sought=sought,
        layout=layout,
        dimension=content["dimension"],
        sizes=np.array(content["sizes"]),
        probes=content["probes"],
        first=content["numbers"],
        fraction=content["fraction"],
        result=result,
        id_column=id_column,
    )
    job, exposed = _place(job, numbers, admitted)
    write_cells(work, _moved(job, numbers, cells, exposed))
    moved = read_cells(work)
    write_cells(job.next, moved)
    affected = numbers.map(partial(_seek, job, bool(admitted.gone))).collect()
    measured = _measure(job, groups, np.any([part[1] for part in affected], axis=0))
    axes = Shared.of(context, Axes.of(moved.centroids))
    parts = collect(numbers.mapPartitions(partial(_update_group, job, axes)), "new rows against old and new")
    axes.destroy()
    merged = numbers.map(partial(_merge_group, job)).collect()
    rows = content["rows"] - len(admitted.gone) + admitted.added
    said = {
        "method": "update",
        "rows": rows,
        "added": admitted.added,
        "equal_to_older": (pool.candidates if pool else 0) - admitted.added,
        "removed": len(admitted.gone),
        "searched_again": sum(part[0] for part in affected),
        "cells": len(job.sizes),
        "probes": job.probes,
        **_compare(job, content, measured, [part[0] for part in parts], merged),
    }
    changed = {
        "rows": rows,
        "numbers": content["numbers"] + admitted.added,
        "sizes": job.sizes.tolist(),
        "parts": list(job.parts),
    }
    return Outcome(said, changed, known, touched)


def _compare(
    job: Task,
    content: dict[str, Any],
    measured: tuple[Integers, Array, Array],
    parts: list[Array],
    merged: list[tuple[Integers, Array]],
) -> dict[str, Any]:
    """Write the measured rows with their exact distances; recall and errors of what was found for them."""
    rows, points, known = measured
    squared = np.sort(np.concatenate([known, *parts], axis=1), axis=1)[:, : job.sought.count]
    write_points(job.next / "measured.parquet", rows, points, squared)
    found_rows, found = (np.concatenate(columns) for columns in zip(*merged, strict=True))
    if not len(rows):
        return {"measured": 0}
    found = found[np.argsort(found_rows)]
    report = compare(job.sought, job.sought.of_neighbors(squared), job.sought.of_neighbors(found))
    target = content["settings"]["target_recall"]
    if report["recall"] < target:
        logger.warning(
            "density: recall %.4f is below the %g the state was made for; make it again", report["recall"], target
        )
    return report


# --- ids --------------------------------------------------------------------------------------------------


def _take_out(
    context: SparkContext, what: Change, groups: int
) -> tuple[int, frozenset[int], dict[int, tuple[bytes, Any]]]:
    """Write the ids that stay; how many of those to go were there, the nights these came in, and the rows left bare.

    Of the latter, by number, the digest and an id.
    """
    if not what.takes_out:
        return 0, frozenset(), {}
    (what.work / "ids").make_folder()
    going = Shared.of(context, (what.ids, what.nights))
    numbers = context.parallelize(range(groups), groups)
    found = numbers.map(partial(_take_out_of_group, what.last, what.work, going)).collect()
    going.destroy()
    leaving = {number: (digest, id_) for _, _, rows in found for number, digest, id_ in rows}
    return sum(known for known, _, _ in found), frozenset().union(*(nights for _, nights, _ in found)), leaving


def _take_out_of_group(
    last: Location, work: Location, going: Shared[tuple[frozenset[Any], frozenset[int]]], group: int
) -> tuple[int, set[int], list[tuple[int, bytes, Any]]]:
    named, nights = going.value
    ids = (last / ids_name(group)).read_parquet()
    row, night, of_row = ids.column("row").to_numpy(), ids.column("night").to_numpy(), ids.column("id").to_pylist()
    is_named = np.array([id_ in named for id_ in of_row], dtype=bool)
    goes = is_named | np.isin(night, list(nights))
    (work / "ids" / ids_name(group)).write_parquet(ids.filter(pa.array(~goes)))
    lists = Lists.read(last / group_name(group))
    bare = np.setdiff1d(row, row[~goes])
    digest = lists.digest[np.searchsorted(lists.row, bare)]
    first = [of_row[place] for place in np.searchsorted(row, bare).tolist()]
    left_bare = list(zip(bare.tolist(), digest.tolist(), first, strict=True))
    return int(is_named.sum()), set(night[is_named].tolist()), left_bare


@dataclass(frozen=True)
class Admitted:
    """What becomes of old and new rows.

    ``added``: how many new numbers there are; ``came``: number and id of what came, ids of older rows' copies too;
    ``gone``: old rows that go, and whether their points do; ``heirs``: old rows that are distinct from now on.
    """

    added: int
    came: list[tuple[int, Any]]
    gone: dict[int, bool] = field(default_factory=dict)
    heirs: list[int] = field(default_factory=list)

    def write(self, work: Location, integer_ids: bool) -> None:
        """Write all of it for the tasks."""
        rows, ids = zip(*self.came, strict=True) if self.came else ((), ())
        (work / "came.parquet").write_parquet(ids_of(rows, ids, [0] * len(rows), integer_ids))
        gone = pa.array(list(self.gone), pa.int64())
        (work / "gone.parquet").write_parquet(
            pa.table({"row": gone, "leaves": pa.array(list(self.gone.values()), pa.bool_())})
        )
        (work / "heirs.parquet").write_parquet(pa.table({"row": pa.array(self.heirs, pa.int64())}))


@dataclass(frozen=True)
class _New:
    """The new rows in their order: ids (n,), digests (n,), distinctness (n,), and ids of dropped copies by digest."""

    ids: list[Any]
    digest: list[bytes]
    distinct: NDArray[np.bool_]
    equal: dict[bytes, list[Any]]


def _new_rows(context: SparkContext, pool: Pool | None) -> _New:
    if pool is None:
        return _New([], [], np.zeros(0, dtype=bool), {})
    parts = context.parallelize(pool.blocks, len(pool.blocks)).map(partial(_keys_of_block, pool.work)).collect()
    rows, ids, digest, distinct = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(rows)
    return _New(ids[order].tolist(), digest[order].tolist(), distinct[order], read_equal(pool.work))


def _keys_of_block(work: Location, block: Block) -> tuple[Integers, NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Rows, ids, digests and distinctness of a block's candidates."""
    stored = read_block(work, block.name)
    ids = stored.ids.to_numpy(zero_copy_only=False).astype(object)
    return stored.rows, ids, np.array(digests(stored.vectors), dtype=object), stored.distinct


def _admit(context: SparkContext, what: Change, groups: int, leaving: dict[int, tuple[bytes, Any]]) -> Admitted:
    """Number the new rows. Where duplicates are dropped, ids of equal embeddings, old or new, share a row.

    A row that was left bare stays if a new one is equal to it, in its id too where duplicates are kept. Raises
    InputError where the state has an id of the pool already, or too few rows are left.
    """
    pool, content = what.pool, what.content
    if pool and pool.dimension != content["dimension"]:
        raise InputError(
            f"the new embeddings have {pool.dimension} dimensions, but those of the state {what.folder} have "
            f"{content['dimension']}; embed them with the same model"
        )
    new = _new_rows(context, pool)
    holders = _holders(context, what, groups, new, {digest for digest, _ in leaving.values()})
    if content["settings"]["duplicates"] == "drop":
        at = [holders.get(digest, [None])[0] for digest in new.digest]
    else:
        bare = {of_row: number for number, of_row in leaving.items()}
        at = [bare.get(key) for key in zip(new.digest, new.ids, strict=True)]
    added = np.array([number is None for number in at], dtype=bool)
    numbers = np.where(added, content["numbers"] + np.cumsum(added) - 1, -1)
    came = []
    for number, place, id_, digest in zip(numbers.tolist(), at, new.ids, new.digest, strict=True):
        row = number if place is None else place
        came += [(row, one) for one in (id_, *new.equal.get(digest, ()))]
    gone = set(leaving) - set(at)
    left = {digest: [row for row in rows if row not in gone] for digest, rows in holders.items()}
    if pool:
        renumber(what.work, numbers, new.distinct & np.array([not left.get(key) for key in new.digest], dtype=bool))
    among_distinct = EQUATIONS[content["settings"]["formula"]].among_distinct
    leaves, heirs = {}, []
    for number in sorted(gone):
        digest = leaving[number][0]
        was_distinct = number == holders[digest][0]  # of equal ones the row with the smallest number
        leaves[number] = not among_distinct or (was_distinct and not left[digest])
        if was_distinct and left[digest]:
            heirs.append(left[digest][0])
    return Admitted(int(added.sum()), came, leaves, heirs)


def _holders(context: SparkContext, what: Change, groups: int, new: _New, wanted: set[bytes]) -> dict[bytes, list[int]]:
    """The old rows that have a digest of a new row or a ``wanted`` one, by digest, smallest number first."""
    came = {*new.ids, *(id_ for ids in new.equal.values() for id_ in ids)}
    keys = frozenset[Any]([*came, *wanted, *new.digest])
    met = search(context, range(groups), keys, partial(_met, what))
    known = sorted(id_ for of_group, _ in met for id_ in of_group)
    if known:
        raise InputError(
            f"{len(known)} row(s) have an id that the state {what.folder} holds already (first id: {known[0]!r}); "
            "leave them out, or take the old ones out with --remove"
        )
    holders: dict[bytes, list[int]] = {}
    for number, digest in sorted(row for _, of_group in met for row in of_group):
        holders.setdefault(digest, []).append(number)
    return holders


def _met(what: Change, wanted: frozenset[Any], group: int) -> Iterator[tuple[list[Any], list[tuple[int, bytes]]]]:
    """The wanted ids that the group has, and number and digest of its rows with a wanted digest."""
    lists = Lists.read(what.last / group_name(group))
    rows = zip(lists.row.tolist(), lists.digest.tolist(), strict=True)
    left = what.ids_left(group).column("id").to_pylist()
    yield [id_ for id_ in left if id_ in wanted], [row for row in rows if row[1] in wanted]


# --- rows -------------------------------------------------------------------------------------------------


def _place(job: Task, numbers: "RDD[int]", admitted: Admitted) -> tuple[Task, list[int]]:
    """Write the new rows into the state, and again those that lie in one folder with what is gone or inherits.

    Returns the task with the folders of rows and the sizes of cells as they are then, and the cells whose centroid is
    the point of a row that is gone.
    """
    sizes, rewritten, exposed = job.sizes, set(), []
    if admitted.gone:
        placed = numbers.map(partial(_part_from, job)).collect()
        sizes = sizes + np.sum([size for size, _, _ in placed], axis=0)
        rewritten = {name for _, names, _ in placed for name in names}
        exposed = [cell for _, _, cells in placed for cell in cells]
    name = f"rows-{job.number:05d}"
    counted = numbers.map(partial(_write_part, job, name, [part for part in job.parts if part in rewritten])).collect()
    sizes = sizes + np.sum(counted, axis=0)
    needed = job.sought.neighbors + 1
    if sizes.sum() < needed:
        raise InputError(
            f"{sizes.sum()} rows of the state {job.state} would be left, but {job.sought.neighbors} neighbours take "
            f"{needed}; take out fewer"
        )
    probes = len(sizes) if job.probes >= len(sizes) else job.probes
    kept = [part for part in job.parts if part not in rewritten]
    return replace(job, parts=(*kept, name), sizes=sizes, probes=probes), exposed


def _part_from(job: Task, group: int) -> tuple[Integers, list[str], list[int]]:
    """Write the points of a group that leave.

    Returns how its cells change in size, which folders must be written again, and which cells have one of the points
    for their centroid.
    """
    gone = (job.work / "gone.parquet").read_parquet()
    numbers, leaves = (gone.column(name).to_numpy() for name in ("row", "leaves"))
    heirs = _column(job.work / "heirs.parquet", "row")
    cells, among_distinct = len(job.sizes), job.sought.among_distinct
    size, rewritten, left, exposed = np.zeros(cells, dtype=np.int64), [], [], []
    centroids = read_cells(job.work).centroids
    for name in job.parts:
        rows = job.part(name, group)
        goes, inherits = np.isin(rows.row, numbers), np.isin(rows.row, heirs)
        if goes.any() or inherits.any():
            rewritten.append(name)
        going = rows.take(np.flatnonzero(goes))
        size -= counts_of(going, among_distinct, cells)
        points = job.space(going)
        away = np.square(points - centroids[going.cell]).sum(axis=1)
        exposed += going.cell[away <= _NO_DISTANCE * np.square(points).sum(axis=1)].tolist()
        if among_distinct:
            size += np.bincount(rows.cell[inherits], minlength=cells)
        left.append(rows.take(np.flatnonzero(np.isin(rows.row, numbers[leaves]))))
    write_rows(job.work / "leaving" / group_name(group), joined(left))
    return size, rewritten, exposed


def _moved(job: Task, numbers: "RDD[int]", cells: Cells, exposed: list[int]) -> Cells:
    """The cells, with other centroids where one is the point of a row that is gone, as it is that of a lone row.

    It becomes the mean of what the cell holds, or of other centroids.
    """
    if not exposed:
        return cells
    centroids, shown = cells.centroids.copy(), np.unique(cells.centroids[exposed], axis=0)
    of_cell = (cells.centroids[:, None] == shown[None]).all(axis=2)
    parts = numbers.map(partial(_sums_of_group, job, of_cell)).collect()
    sums, counts = (np.sum([part[i] for part in parts], axis=0) for i in (0, 1))
    others = centroids[~of_cell.any(axis=1)]
    elsewhere = others.mean(axis=0) if len(others) else np.zeros(centroids.shape[1])
    for number in range(len(shown)):
        mean = sums[number] / counts[number] if counts[number] else elsewhere
        length = float(np.linalg.norm(mean)) if job.sought.space == "cosine" else 1.0
        centroids[of_cell[:, number]] = mean / (length or 1.0)
    return replace(cells, centroids=centroids)


def _sums_of_group(job: Task, of_cell: NDArray[np.bool_], group: int) -> tuple[Array, Integers]:
    """Sums (s, D) and counts (s,) of the rows of a group that lie in s sets of cells (C, s)."""
    rows = job.rows(group)
    points, within = job.space(rows), of_cell[rows.cell]
    return within.T.astype(np.float64) @ points, within.sum(axis=0)


def _write_part(job: Task, name: str, rewritten: list[str], group: int) -> Integers:
    """Write the new rows of a group, and those that stay of other folders; how many new points its cells hold."""
    new, heirs = job.new(group), _column(job.work / "heirs.parquet", "row")
    parts = []
    for other in rewritten:
        rows = job.part(other, group)
        rows = rows.take(np.flatnonzero(~job.is_gone(rows.row)))
        parts.append(replace(rows, distinct=rows.distinct | np.isin(rows.row, heirs)))
    write_rows(job.state / name / group_name(group), joined([*parts, new]))
    return counts_of(new, job.sought.among_distinct, len(job.sizes))


def _seek(job: Task, some_are_gone: bool, group: int) -> tuple[int, NDArray[np.bool_]]:
    """Write the rows of a group that are sought, which cells they probe, and the new measured ones.

    Returns how many are affected by what is gone, and which of the old measured rows are, by points of this group.
    """
    new, affected, measured = job.new(group), 0, np.zeros(0, dtype=bool)
    rows = new
    if some_are_gone:
        again = _affected(job, group)
        affected, rows = len(again.row), joined([again, new])
        _, points, squared = read_points(job.last / "measured.parquet")
        measured = _within(points, squared, [job.space(job.leaving(group))])
    write_rows(job.work / "sought" / group_name(group), rows)
    to_seek = job.sought.of(rows.vectors)
    mask = read_cells(job.work).probed(to_seek, rows.cell, job.probes, job.sizes, job.sought.neighbors + 1)
    table = pa.table({"cells": binary(np.packbits(mask, axis=1))})
    (job.work / "probed" / group_name(group)).write_parquet(table)
    drawn = np.flatnonzero(sampled(new.row, job.fraction, MEASURING))
    nothing = np.full((len(drawn), job.sought.count), np.inf)
    write_points(job.work / "measured" / group_name(group), new.row[drawn], job.space(new.take(drawn)), nothing)
    return affected, measured


def _affected(job: Task, group: int) -> CellRows:
    """The old rows of a group that may have had one that is gone among their nearest."""
    rows, lists = job.rows(group), job.lists(group)
    old = rows.take(np.flatnonzero(rows.row < job.first))
    leaving = (job.space(job.leaving(other)) for other in range(job.layout.groups))
    return old.take(np.flatnonzero(_within(job.space(old), lists.squared, leaving)))


def _within(points: Array, squared: Array, leaving: Iterable[Array]) -> NDArray[np.bool_]:
    """Which points (m, D) with lists (m, count) have any that leaves at most as far as the last in their list."""
    above = np.nextafter(squared[:, -1:], np.inf)
    nearest = NearestDistances(points, 1, squared=above)
    for part in leaving:
        nearest.add(part)
    return (nearest.squared < above)[:, 0] | np.isinf(squared[:, -1])


def _measure(job: Task, groups: int, affected: NDArray[np.bool_]) -> tuple[Integers, Array, Array]:
    """Old and new measured rows, their points and the distances known of them; also written for the tasks.

    Of new and of affected ones none are known.
    """
    old_rows, old_points, known = read_points(job.last / "measured.parquet")
    known = np.where(affected[:, None], np.inf, known) if len(affected) else known
    stay = ~job.is_gone(old_rows)
    parts = [(old_rows[stay], old_points[stay], known[stay])]
    parts += [read_points(job.work / "measured" / group_name(group)) for group in range(groups)]
    rows, points, squared = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(rows)
    rows, points, squared = rows[order], points[order], squared[order]
    write_points(job.work / "measured.parquet", rows, points, squared)
    return rows, points, squared


@dataclass(frozen=True)
class _Group:
    """All rows of a group of cells as points, by the ``axes`` of the search, and those that can be neighbours.

    ``corpus`` are the latter in the order of cells, with their ``rows``: those of cell ``cells[i]`` from ``ends[i]`` to
    ``ends[i + 1]``. ``olds`` are the places of the old rows of each of these cells among all old ones.
    """

    axes: Axes
    points: Points
    corpus: Points
    rows: Integers
    cells: Integers
    ends: Integers
    olds: list[Integers]

    @staticmethod
    def of(job: Task, here: CellRows, cells: Integers, axes: Axes) -> "_Group":
        """The rows of a group in the order of their numbers, and which cells it has."""
        points = job.sought.of(here.vectors).shortened(axes)
        order = np.argsort(here.cell, kind="stable")
        order = order[(here.distinct | (not job.sought.among_distinct))[order]]
        ends = np.searchsorted(here.cell[order], np.append(cells, cells[-1:] + 1))
        of_old = here.cell[here.row < job.first]
        olds = [np.flatnonzero(of_old == cell) for cell in cells.tolist()]
        return _Group(axes, points, points.take(order), here.row[order], cells, ends, olds)


def _update_group(job: Task, axes: Shared[Axes], groups: Iterable[int]) -> Iterator[tuple[Array]]:
    """Search all that is sought in the cells of a group, and its old rows among the new ones that probe their cell.

    Yields the distances (m, count) of the measured rows to what is new to them in the group.
    """
    for number in groups:
        cells, here, lists = read_cells(job.work), job.rows(number), job.lists(number)
        group = _Group.of(job, here, np.flatnonzero(cells.group == number), axes.value)
        old = group.points.take(slice(int((here.row < job.first).sum())))
        of_old = NearestDistances(old, job.sought.count, squared=lists.squared, axes=group.axes)
        _search_sought(job, number, group, of_old)
        replace(lists, squared=of_old.squared).write(job.work / "updated" / group_name(number))
        yield (_search_measured(job, group),)


def _search_sought(job: Task, number: int, group: _Group, of_old: NearestDistances) -> None:
    """Compare what is sought, a group of it at a time, with the cells of this group that it probes.

    New rows are compared both ways.
    """
    location = job.work / "partial" / group_name(number)
    with location.writing() as stream, pq.ParquetWriter(stream, _PARTIAL) as to:
        for other in range(job.layout.groups):
            queries = job.sought_rows(other)
            packed = matrix((job.work / "probed" / group_name(other)).read_parquet().column("cells"), "uint8")
            probed = np.unpackbits(packed, axis=1, count=len(job.sizes)).astype(bool)
            points = job.sought.of(queries.vectors).shortened(group.axes)
            rows = None if job.sought.holds_queries else queries.row
            nearest = NearestDistances(points, job.sought.count, rows, axes=group.axes)
            at = [np.flatnonzero(probed[:, cell]) for cell in group.cells.tolist()]
            spans = list(pairwise(group.ends.tolist()))
            parts = [(start, end, sought, 0) for (start, end), sought in zip(spans, at, strict=True)]
            nearest.add_parts(group.corpus, group.rows, parts)
            is_new = (queries.row >= job.first) & (queries.distinct | (not job.sought.among_distinct))
            new = [sought[is_new[sought]] for sought in at]
            spans = list(pairwise(np.cumsum([0, *(len(of_cell) for of_cell in new)]).tolist()))
            parts = [(start, end, olds, 0) for (start, end), olds in zip(spans, group.olds, strict=True)]
            of_old.add_parts(points.take(np.concatenate([np.zeros(0, dtype=np.int64), *new])), None, parts)
            squared = [row.tobytes() for row in nearest.squared]
            to.write_table(pa.table({"squared": pa.array(squared, pa.binary())}, schema=_PARTIAL), max(1, len(squared)))


_PARTIAL = pa.schema([("squared", pa.binary())])


def _search_measured(job: Task, group: _Group) -> Array:
    """Distances of measured rows of which none are known to all of a group, and of others to its new rows."""
    rows, measured, known = read_points(job.work / "measured.parquet")
    own = None if job.sought.holds_queries else rows
    nearest = NearestDistances(measured, job.sought.count, own, axes=group.axes)
    is_unknown = np.isinf(known[:, 0])
    nearest.add(group.corpus, group.rows, at=np.flatnonzero(is_unknown))
    new = np.flatnonzero(group.rows >= job.first)
    nearest.add(group.corpus.take(new), group.rows[new], at=np.flatnonzero(~is_unknown))
    return nearest.squared


def _write_result(folder: Location, group: int, sought: Sought, id_column: str, lists: Lists, ids: pa.Table) -> None:
    density, kth = sought.density(sought.of_neighbors(lists.squared))
    _, first = np.unique(ids.column("row").to_numpy(), return_index=True)
    of_rows = ids.column("id").take(pa.array(first))
    table = pa.table({id_column: of_rows, "density": density, "kth_distance": kth})
    (folder / f"part-{group:05d}.parquet").write_parquet(table)


def _merge_group(job: Task, group: int) -> tuple[Integers, Array]:
    """Write the lists, ids and result of a group's rows, old and new; return those of the measured ones."""
    rows = job.sought_rows(group)
    squared = np.full((len(rows.row), job.sought.count), np.inf)
    for other in range(job.layout.groups):
        location = job.work / "partial" / group_name(other)
        found = location.parse(lambda file: file.read_row_group(group)).column("squared").to_pylist()
        part = np.frombuffer(b"".join(found)).reshape(squared.shape)
        squared = np.sort(np.concatenate([squared, part], axis=1), axis=1)[:, : job.sought.count]
    old, sought = Lists.read(job.work / "updated" / group_name(group)), lists_of(rows, squared)
    again = sought.row < job.first
    of_old = old.squared.copy()
    of_old[np.searchsorted(old.row, sought.row[again])] = sought.squared[again]
    old = replace(old, squared=of_old)
    added = sought.take(np.flatnonzero(~again))
    lists = Lists(*(np.concatenate([getattr(part, name.name) for part in (old, added)]) for name in fields(Lists)))
    lists.write(job.next / group_name(group))
    ids = _merge_ids(job, group, lists.row)
    _write_result(job.result, group, job.sought, job.id_column, lists, ids)
    measured = np.flatnonzero(sampled(lists.row, job.fraction, MEASURING))
    return lists.row[measured], lists.squared[measured]


def _merge_ids(job: Task, group: int, rows: Integers) -> pa.Table:
    """Write the ids of a group's rows, and return them."""
    ids = (job.left / ids_name(group)).read_parquet()
    came = (job.work / "came.parquet").read_parquet()
    came = came.filter(pa.array(np.isin(came.column("row").to_numpy(), rows)))
    night = came.schema.get_field_index("night")
    came = came.set_column(night, "night", pa.array(np.full(len(came), job.number)))
    ids = in_order(pa.concat_tables([ids, came]))
    (job.next / ids_name(group)).write_parquet(ids)
    return ids
