"""A pool without near-copies: rows are taken in order of preference, one within ε of a row already kept is dropped.

Preferred is the greater quality, where there is one, then the smaller id. A row's *number* is its place in that order.

1. The candidates are laid out by cells, as for a search of neighbours, by their numbers.
2. *Leaders*: of the rows that are open, those that have no open row before them within ε are kept.
3. *Followers*: open rows within ε of one that was just kept are dropped. All that are open then are farther than ε from
   all that are kept, so what becomes of them depends on one another alone.
4. *The rest*: the first of the open ones, as many as fit one task, are taken one after the other. Followers of those
   are dropped, and while rows are open it goes on with 2.
5. Each dropped row finds the nearest that is kept, and the store is written again with what is kept.

A crowd of copies has one leader and is gone with it. Step 4 ends chains, in which each row waits for the one before.
What a task looks at are the cells that can hold a row within ε (:func:`~novelsum.density.within.reached`); of a row it
learns its state from a file that the step before has written, and pairs of rows are never kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import SparkContext

from novelsum.density.layout import (
    Layout,
    draw,
    group_name,
    joined,
    lay_out,
    read_axes,
    read_cells,
    read_cells_of,
    read_group,
    read_group_points,
    renumber,
    write_axes,
    write_cells,
)
from novelsum.density.near import outwards, train, training
from novelsum.density.neighbors import Sought
from novelsum.density.points import Points
from novelsum.density.within import NearestWithin, greedy, largest_squared, reached
from novelsum.files.location import DUPLICATES, Location
from novelsum.files.store import (
    Block,
    Pool,
    Traits,
    read_block,
    read_block_columns,
    write_block,
    write_duplicates,
)
from novelsum.formula import from_squared
from novelsum.rows import Integers, common_places
from novelsum.settings import Settings
from novelsum.spark.progress import collect
from novelsum.spark.shared import Shared

REST_BYTES = 128 << 20
"""Open rows that are taken one after the other in one task: as many as have their vectors in this."""
OPEN, NEW, KEPT, DROPPED = range(4)
"""States of a row: not decided, kept by the last step, kept before, dropped."""

States = NDArray[np.int8]


@dataclass(frozen=True)
class _Step:
    """What a task needs to know: where the layout is, which squared distances count, how many steps were before."""

    work: Location
    layout: Layout
    sought: Sought
    limit: float
    number: int = 0

    def states(self, group: int) -> tuple[Integers, States]:
        """The rows of a group by their numbers, ascending, and their states."""
        if not self.number:
            rows = np.sort(self.layout.file(group).read_parquet(["row"]).column("row").to_numpy())
            return rows, np.full(len(rows), OPEN, dtype=np.int8)
        table = self.folder(self.number) / group_name(group)
        rows, states = (column.to_numpy() for column in table.read_parquet(["row", "state"]).columns)
        return rows, states.copy()

    def write(self, group: int, rows: Integers, states: States) -> int:
        """Write the states of a group after this step; return how many rows are open."""
        table = pa.table({"row": rows, "state": states})
        (self.folder(self.number + 1) / group_name(group)).write_parquet(table)
        return int((states == OPEN).sum())

    def folder(self, number: int) -> Location:
        """Where the states after so many steps are."""
        return self.work / f"states-{number:06d}"


def thin(context: SparkContext, pool: Pool, settings: Settings, folder: Location, rest_bytes: int = REST_BYTES) -> Pool:
    """Write what is kept of a pool that holds all good rows, and a list of what is not, to a folder.

    Returns it as a pool. ``rest_bytes``: of vectors of open rows, in one task.
    """
    assert settings.near_duplicates is not None
    work, sought = folder / "search", Sought("paper", settings.metric, 1)
    for made in (work, folder / "store", folder / DUPLICATES):
        made.make_folder()
    order = _in_order(context, pool, work) if settings.quality_column else None
    layout = _laid_out(context, pool, sought, work, order is not None)
    step = _Step(work, layout, sought, largest_squared(settings.near_duplicates, settings.metric))
    step = _decided(context, step, max(1, rest_bytes // (pool.dimension * 12)))
    groups = context.parallelize(range(layout.groups), layout.groups)
    parts = collect(groups.map(partial(_list_dropped, step, folder, pool.integer_ids)), "near-copies: what is kept")
    dropped = np.concatenate(parts)
    thinned = _written(context, pool, folder, np.sort(dropped if order is None else order[dropped]))
    work.delete()
    return thinned


def _in_order(context: SparkContext, pool: Pool, work: Location) -> Integers:
    """Number the rows by preference for the layout; return the row of each number (N,)."""
    parts = context.parallelize(pool.blocks, len(pool.blocks)).map(partial(_qualities, pool.work)).collect()
    rows, quality = (np.concatenate(column) for column in zip(*parts, strict=True))
    order: Integers = rows[np.lexsort((rows, -quality))]
    numbers = np.empty_like(order)
    numbers[order] = np.arange(len(order))
    renumber(work, numbers, np.ones(len(order), dtype=bool))
    return order


def _qualities(work: Location, block: Block) -> tuple[Integers, NDArray[np.float64]]:
    table = read_block_columns(work, block.name, ["row", "quality"])
    return table.column("row").to_numpy(), table.column("quality").to_numpy()


def _laid_out(context: SparkContext, pool: Pool, sought: Sought, work: Location, renumbered: bool) -> Layout:
    """The candidates by cells, which are trained on a sample of them."""
    wanted = training(pool, sought)
    (sample,) = draw(context, pool, [wanted], work)
    if not len(sample.row):  # the hash of a tiny pool took none
        (sample,) = draw(context, pool, [replace(wanted, fraction=1.0)], work)
    cells, axes = train(pool, sought, sought.points(sample.vectors))
    write_cells(work, cells)
    write_axes(work, axes)
    return lay_out(context, pool, work, "cells", sought, cells, renumbered=renumbered, searched=True)


# --- which rows are kept ----------------------------------------------------------------------------------


def _decided(context: SparkContext, step: _Step, rest: int) -> _Step:
    """Go on until no row is open, with at most so many in one task; return what comes after the last step."""
    groups = range(step.layout.groups)
    left = 1
    while left:
        step, _ = _taken(context, step, _leaders, groups, "near-copies: leaders")
        step, left = _taken(context, step, _followers, groups, "near-copies: followers")
        if left:
            step, _ = _taken(context, step, _rest, [rest], "near-copies: the rest")
            step, left = _taken(context, step, _followers, groups, "near-copies: followers of the rest")
    return step


def _taken(
    context: SparkContext, step: _Step, task: Callable[[_Step, int], int], pieces: Sequence[int], what: str
) -> tuple[_Step, int]:
    """Take a step; return the next one, and how many rows are open."""
    step.folder(step.number + 1).make_folder()
    left = collect(context.parallelize(pieces, len(pieces)).map(partial(task, step)), what)
    return replace(step, number=step.number + 1), sum(left)


def _leaders(step: _Step, group: int) -> int:
    """Keep the open rows of a group that have no open row before them within the limit."""
    rows, states = step.states(group)
    asking = rows[states == OPEN]
    found = _search(step, group, asking, OPEN, by_order=True, one_is_enough=True)
    states[np.searchsorted(rows, asking[~found.found])] = NEW
    return step.write(group, rows, states)


def _followers(step: _Step, group: int) -> int:
    """Drop the open rows of a group within the limit of one that was just kept."""
    rows, states = step.states(group)
    asking = rows[states == OPEN]
    found = _search(step, group, asking, NEW, one_is_enough=True)
    states[states == NEW] = KEPT
    states[np.searchsorted(rows, asking[found.found])] = DROPPED
    return step.write(group, rows, states)


def _rest(step: _Step, most: int) -> int:
    """Decide the first open rows of all groups, at most so many."""
    of_groups = [step.states(group) for group in range(step.layout.groups)]
    first = np.sort(np.concatenate([rows[states == OPEN] for rows, states in of_groups]))[:most]
    parts = []
    for group, (rows, _) in enumerate(of_groups):
        if len(common_places(rows, first)[0]):
            stored = read_group(step.layout, group)
            parts.append(stored.take(np.flatnonzero(np.isin(stored.row, first))))
    together = joined(parts)
    kept = greedy(step.sought.of(together.vectors), together.row, step.limit, read_axes(step.work))
    left = 0
    for group, (rows, states) in enumerate(of_groups):
        states[common_places(rows, first)[0]] = DROPPED
        states[common_places(rows, np.sort(together.row[kept]))[0]] = NEW
        left += step.write(group, rows, states)
    return left


def _search(
    step: _Step, group: int, asking: Integers, among: int, by_order: bool = False, one_is_enough: bool = False
) -> NearestWithin:
    """What some rows (m,) of a group find among rows of any group in a state, in the order in which they are given.

    ``by_order``: only rows before them count.
    """
    if not len(asking):
        return NearestWithin(Points.of(np.zeros((0, 1))), step.limit, read_axes(step.work))
    stored = read_group(step.layout, group)
    order = np.argsort(stored.row)
    at = order[np.searchsorted(stored.row[order], asking)]
    points = read_group_points(step.layout, group, stored).take(at)
    before = asking if by_order else None
    search = NearestWithin(points, step.limit, read_axes(step.work), before, one_is_enough)
    cells = read_cells(step.work)
    asked = reached(points, stored.cell[at], cells, step.limit).T.copy()
    numbers = outwards(np.flatnonzero(asked.any(axis=1)), stored.cell)
    for corpus in read_cells_of(step.layout, cells, step.sought, numbers):
        rows, states = step.states(int(cells.group[corpus.numbers[0]]))
        those = corpus.take(np.flatnonzero(states[np.searchsorted(rows, corpus.rows)] == among))
        parts = [(start, end, np.flatnonzero(asked[number])) for number, start, end in those.parts()]
        search.add_parts(those.points, those.rows, parts)
    return search


# --- what is written --------------------------------------------------------------------------------------


def _list_dropped(step: _Step, folder: Location, integer_ids: bool, group: int) -> Integers:
    """Write for each dropped row of a group the nearest that is kept; return the dropped ones by their numbers."""
    rows, states = step.states(group)
    dropped: Integers = rows[states == DROPPED]
    if not len(dropped):
        return dropped
    found = _search(step, group, dropped, KEPT)
    ids = _ids_of(step, np.concatenate([dropped, found.numbers]), integer_ids)
    distances = from_squared(found.squared, step.sought.metric)
    write_duplicates(folder, group, ids[: len(dropped)], ids[len(dropped) :], distances)
    return dropped


def _ids_of(step: _Step, wanted: Integers, integer_ids: bool) -> pa.Array:
    """The ids of some rows (n,) by their numbers."""
    unique, place = np.unique(wanted, return_inverse=True)
    kind = pa.int64() if integer_ids else pa.string()
    found = np.empty(len(unique), dtype=object)
    for group in range(step.layout.groups):
        table = step.layout.file(group).read_parquet(["row", "id"])
        here, there = common_places(unique, table.column("row").to_numpy())
        found[here] = table.column("id").take(pa.array(there)).to_numpy()
    return pa.array(found[place], kind)


def _written(context: SparkContext, pool: Pool, folder: Location, dropped: Integers) -> Pool:
    """The pool without some rows, in ascending order, in a store of its own; the others are numbered anew by id."""
    message = Shared.of(context, dropped)
    blocks = context.parallelize(pool.blocks, len(pool.blocks))
    written = collect(blocks.map(partial(_write_kept, pool.work, folder, message)), "near-copies: the store")
    message.destroy()
    return replace(
        pool,
        work=folder,
        blocks=tuple(block for block, _ in written if block.rows),
        duplicates_dropped=pool.candidates - pool.distinct,
        near_duplicates_dropped=len(dropped) - (pool.candidates - pool.distinct),
        distinct=pool.candidates - len(dropped),
        **vars(Traits.joined([traits for _, traits in written])),
    )


def _write_kept(work: Location, folder: Location, dropped: Shared[Integers], block: Block) -> tuple[Block, Traits]:
    """Write what is kept of a block, if anything is; return what is to be known of it."""
    gone, stored = dropped.value, read_block(work, block.name)
    is_kept = np.ones(len(stored.rows), dtype=bool)
    is_kept[common_places(stored.rows, gone)[0]] = False
    kept = stored.take(np.flatnonzero(is_kept))
    rows = kept.rows - np.searchsorted(gone, kept.rows)
    kept = replace(kept, rows=rows, distinct=np.ones(len(rows), dtype=bool))
    if len(rows):
        write_block(folder, block.name, kept)
    return Block(block.name, len(rows)), Traits.of(kept)
