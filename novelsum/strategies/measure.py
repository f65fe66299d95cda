"""How good selections from one pool are: by NovelSum, by distances, by the groups they reach and by what they cost.

Samples selected before belong to each of them where distances count, as they did when it was made; picks, groups, costs
and quality are those of the picks alone.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import SparkContext

from novelsum.amounts import exact_sum
from novelsum.density.exact import estimate_density
from novelsum.density.factors import read_density
from novelsum.density.reference import mark_itself
from novelsum.diversity.novelsum import Densities, Grid, values
from novelsum.diversity.onepass import DataSet, coverage, draw_rows, run_pass
from novelsum.files.location import Location
from novelsum.files.store import Block, Pool, StoredBlock, read_block, write_block
from novelsum.formula import Array, Formula, from_squared
from novelsum.formulas import EQUATIONS, MEASURED
from novelsum.groups import Group, in_words
from novelsum.rows import Integers, common_places
from novelsum.settings import Settings
from novelsum.spark.shared import Shared
from novelsum.strategies.common import Common

EXACT_LIMIT = 100_000
"""Selections above this are measured by a sample of their rows."""
SAMPLE_ROWS = 5_000
COVERED_ROWS = 20_000
"""Of no more candidates the distance to the nearest selected sample is looked for: a seeded sample of a larger pool."""
_ALL = "all"
"""The folder of what is in any of the selections."""
_EARLIER = "earlier"
"""The block of samples selected before that lie outside the pool."""


@dataclass(frozen=True)
class Measures:
    """Of a selection: ``novelsum`` by each formula, sum and mean; ``mean_nearest_distance`` of a sample of it to the
    nearest other; ``coverage``, the mean distance of a candidate to the nearest sample of it; ``by_group``, its picks
    of each group that it reaches; what the picks cost, and their mean quality.
    """

    picks: int
    novelsum: dict[Formula, dict[str, float]]
    mean_nearest_distance: float
    coverage: float
    by_group: dict[str, int] | None
    cost: float | None
    mean_quality: float | None


class _Asked(NamedTuple):
    """Selections by name: all their rows, ascending, those selected before among them, and the rows of the picks."""

    members: dict[str, Integers]
    picks: dict[str, Integers]


class _Part(NamedTuple):
    """What a block has of a selection: its own block of the selection's store, σ of those in it, and of the picks what
    counts.
    """

    name: str
    block: Block
    places: Integers
    density: Array
    groups: Counter[Group]
    cost: Array
    quality: Array


def measured(
    common: Common, corpus: Pool | None, selections: Mapping[str, Integers], ids: list[Any], work: Location
) -> dict[str, Measures]:
    """Measure selections by name, each the rows of its picks (n,), in the folder ``work``.

    ``corpus``: where neighbours are searched, if not in the pool; ``ids``: of the samples selected before.
    """
    context, pool, settings = common.context, common.pool, common.settings
    begun = common.begun.rows
    members = {name: np.unique(np.concatenate([begun, rows])) for name, rows in selections.items()}
    members[_ALL] = np.unique(np.concatenate(list(members.values())))
    parts = _written(common, members, selections, ids, work)
    stores = {name: DataSet(work / name, tuple(part.block for part in parts if part.name == name)) for name in members}
    own = EQUATIONS[settings.formula].measured_as
    density = {own: _density(parts, _ALL, len(members[_ALL]))}
    for formula in MEASURED:
        if formula != own and settings.neighbors < (corpus or pool).distinct:
            density[formula] = _estimated(context, pool, corpus, settings, formula, stores[_ALL])
    covered = _covered(common, {name: stores[name] for name in selections})
    found = {}
    for name in selections:
        of_all = common_places(members[_ALL], members[name])[0]
        of_each = {formula: values_[of_all] for formula, values_ in density.items()}
        novelsum, nearest = _novelsum(context, pool, settings, stores[name], of_each)
        mine = [part for part in parts if part.name == name]
        groups = sum((part.groups for part in mine), Counter[Group]())
        count = len(selections[name])
        costs = np.concatenate([part.cost for part in mine])
        quality = np.concatenate([part.quality for part in mine])
        found[name] = Measures(
            count,
            novelsum,
            nearest,
            covered[name],
            {in_words(group): picks for group, picks in groups.items()} if settings.group_column else None,
            float(exact_sum(costs)) if settings.cost_column else None,
            float(exact_sum(quality)) / count if settings.quality_column else None,
        )
    return found


# --- the selections as stores of their own ----------------------------------------------------------------


def _written(
    common: Common, members: dict[str, Integers], picks: Mapping[str, Integers], ids: list[Any], work: Location
) -> list[_Part]:
    for name in members:
        (work / name / "store").make_folder()
    sorted_picks = {name: np.sort(rows) for name, rows in picks.items()}
    message = Shared.of(common.context, _Asked(members, sorted_picks))
    common.context.setJobDescription("novelsum: selections to compare")
    parts = common.blocks().flatMap(partial(_write, common.pool.work, common.factors, work, message)).collect()
    message.destroy()
    outside = np.flatnonzero(common.begun.rows >= common.pool.candidates)
    if len(outside):
        kind = pa.int64() if common.pool.integer_ids else pa.string()
        begun, power, count = common.begun[outside], common.settings.density_power, len(outside)
        density = begun.powered ** (1 / power) if power else np.ones(count)
        nothing = (Counter[Group](), np.zeros(0), np.zeros(0))
        for name, rows in members.items():
            places = np.searchsorted(rows, begun.rows)
            block = StoredBlock(
                places,
                pa.array([ids[place] for place in outside.tolist()], kind),
                begun.vectors,
                np.ones(count, np.bool_),
                np.zeros(count, np.int64),
                np.zeros(count, np.int64),
            )
            write_block(work / name, _EARLIER, block)
            parts.append(_Part(name, Block(_EARLIER, count), places, density, *nothing))
    return parts


def _write(
    work: Location, factors: Location, target: Location, message: Shared[_Asked], block: Block
) -> Iterator[_Part]:
    """Write those of a block that are in a selection as a block of it, their rows counted among those of it."""
    content, asked, density = read_block(work, block.name), message.value, read_density(factors, block.name).density
    plain = replace(content, quality=None, groups=None, cost=None)
    for name, members in asked.members.items():
        at, places = common_places(content.rows, members)
        if not len(at):
            continue
        write_block(target / name, block.name, replace(plain.take(at), rows=places))
        picked = common_places(content.rows, asked.picks.get(name, np.zeros(0, np.int64)))[0]
        groups = Counter(content.groups.take(pa.array(picked)).to_pylist() if content.groups is not None else [])
        cost, quality = (np.zeros(0) if one is None else one[picked] for one in (content.cost, content.quality))
        yield _Part(name, Block(block.name, len(at)), places, density[at], groups, cost, quality)


def _density(parts: list[_Part], name: str, count: int) -> Array:
    """σ (count,) of the samples of a selection, in their order."""
    density = np.empty(count)
    for part in parts:
        if part.name == name:
            density[part.places] = part.density
    return density


def _estimated(
    context: SparkContext, pool: Pool, corpus: Pool | None, settings: Settings, formula: Formula, store: DataSet
) -> Array:
    """σ by another formula than the run's, over the pool or its reference: (n,) of all that is in a selection."""
    chosen, searched = replace(settings, formula=formula), corpus or pool
    queries = mark_itself(context, replace(pool, work=store.work, blocks=store.blocks), searched, chosen)
    estimate_density(context, queries, chosen, store.work, searched)
    density = np.empty(store.rows)
    for block in store.blocks:
        density[read_block(store.work, block.name).rows] = read_density(store.work, block.name).density
    return density


# --- measures ---------------------------------------------------------------------------------------------


def _novelsum(
    context: SparkContext, pool: Pool, settings: Settings, store: DataSet, density: dict[Formula, Array]
) -> tuple[dict[Formula, dict[str, float]], float]:
    """NovelSum by each formula that there are density factors for, and the mean distance to the nearest other."""
    grid = Grid.of_run(settings, tuple(density))
    sample = None
    if store.rows > EXACT_LIMIT:
        sample = draw_rows(context, store, SAMPLE_ROWS, settings.seed)
    of_grid: Densities = {
        (formula, settings.neighbors): of_each if sample is None else of_each[sample]
        for formula, of_each in density.items()
    }
    found = run_pass(context, store, grid, sample, work=pool.work)
    novelsum = {one.formula: {"sum": one.sum, "mean": one.mean} for one in values(grid, found, of_grid, store.rows)}
    return novelsum, float(from_squared(found.nearest_own, settings.metric).mean())


def _covered(common: Common, stores: dict[str, DataSet]) -> dict[str, float]:
    """The mean distance of a candidate to the nearest sample of each selection."""
    data, settings = DataSet(common.pool.work, common.pool.blocks), common.settings
    rows = draw_rows(common.context, data, min(data.rows, COVERED_ROWS), settings.seed)
    found = coverage(common.context, data, rows, list(stores.values()), settings.metric)
    return dict(zip(stores, found, strict=True))
