"""What a report shows of a pool: gathered in two passes over the store, so that the pool never comes together.

The driver takes in a sample of the pool and some of the picks as vectors, and of each block counts of density
factors and the few rejected candidates nearest to the first picks.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import SparkContext

from novelsum.density.factors import read_density
from novelsum.files.location import Location
from novelsum.files.source import Source
from novelsum.files.store import Block, Pool, read_block
from novelsum.formula import Array, Metric, from_squared, metric_space
from novelsum.formulas import EQUATIONS
from novelsum.groups import Group, group_of, in_order
from novelsum.report.extremes import LEFT_OUT, SELECTED_BEFORE, Extremes, Met
from novelsum.report.features import Sums, quotas
from novelsum.report.lengths import lengths, lengths_of_rows
from novelsum.report.output import copied_columns, output_name
from novelsum.report.picklist import listed
from novelsum.report.projection import Projection, points_of_rows, sample_rows
from novelsum.report.returns import returns
from novelsum.report.text import rounded
from novelsum.report.turns import told
from novelsum.rows import Integers, common_places
from novelsum.selection.rounds import Candidate
from novelsum.settings import Settings
from novelsum.spark.shared import Shared

MAP_PICKS = 600
_MOST_FIRST_PICKS = 50
_NEIGHBORS_SHOWN = 3
_BINS_PER_DECADE = 100
_BINS_SHOWN = 40
_GROUPS_SHOWN = 20
_TEXT_KEPT = 600
_CHUNK_BYTES = 32 << 20

Measure = Callable[[Array | None], list[dict[str, Any]]]
"""NovelSum of the first picks, as a report has it, given the points (n, D) of all where the driver has them."""


def survey(
    context: SparkContext,
    pool: Pool,
    factors: Location,
    settings: Settings,
    source: Source,
    picks: list[Candidate],
    before: Integers,
    selected: Location,
    measure: Measure,
) -> dict[str, Any]:
    """The data of a report's pictures, ready for JSON.

    ``factors``: where the density factors lie; ``before``: rows of the samples selected before; ``selected``: the
    file that holds the picks; ``measure``: gives NovelSum of the first of them.
    """
    blocks = context.parallelize(pool.blocks, len(pool.blocks))
    rows = np.array([pick.row for pick in picks])
    mapped = _map_places(len(picks))
    first = np.arange(min(len(picks), settings.show, _MOST_FIRST_PICKS))
    sample = sample_rows(pool, settings.seed)
    text = settings.text_column
    try:
        context.setJobDescription("novelsum report: sample of the pool")
        wanted = np.unique(np.concatenate([sample, rows[mapped], rows[first]]))
        points = points_of_rows(context, pool, wanted, settings.metric)
        at = partial(np.searchsorted, wanted)
        context.setJobDescription("novelsum report: density factors and neighbours of picks")
        query = Shared.of(
            context, _Query(rows, np.sort(before), points[at(rows[first])], sample if text else sample[:0])
        )
        surveys = blocks.map(partial(_survey_block, pool.work, factors, settings.metric, query)).collect()
        query.destroy()
        neighbors = _nearest_rejected(surveys, len(first))
        extremes = Extremes.joined([found.extremes for found in surveys])
        context.setJobDescription("novelsum report: texts")
        columns = [column for column in (settings.group_column, text) if column is not None]
        shown: list[Candidate | Met] = [
            *picks[: len(first)],
            *(neighbor for of_pick in neighbors for neighbor in of_pick),
        ]
        shown += [*extremes.lowest, *extremes.highest]
        described = _described(settings, shown, _texts(context, source, shown, list(dict.fromkeys(columns))))
        sampled = [place for found in surveys for place in found.sampled]
        lengths_of_pool = lengths_of_rows(context, source, sampled, text) if text else []
        context.setJobDescription("novelsum report: NovelSum of the first picks")
        parts = measure(points[at(rows)] if len(mapped) == len(picks) else None)
    finally:
        context.setJobDescription("")
    nearest = selected.read_parquet(["nearest_id", "nearest_distance"])
    picked = _picked_groups(settings, selected)
    list_of_picks, lengths_of_picks = listed(selected, settings, len(picks))
    cards = _first_picks(picks[: len(first)], nearest, neighbors, described)
    return {
        "novelty": returns(settings, picks, len(before), nearest.column("nearest_distance").to_numpy()),
        "novelsum": parts,
        "density": _density(settings, surveys),
        "extremes": {
            name: [{"pick": one.pick, "selected_before": one.selected_before, **next(described)} for one in of_side]
            for name, of_side in (("lowest", extremes.lowest), ("highest", extremes.highest))
        },
        **Sums.joined([found.sums for found in surveys]).for_report(pool.candidates, len(picks)),
        "quotas": quotas(settings, pool, picked),
        "groups": _groups(settings, pool, picked) if settings.group_column else None,
        "lengths": lengths(lengths_of_pool, lengths_of_picks) if text else None,
        "map": _map(points[at(sample)], points[at(rows[mapped])], mapped + 1),
        "first_picks": cards,
        "list": list_of_picks,
    }


def _map_places(picks: int) -> Integers:
    """Places of the picks on the map: all, or the first ten and others evenly spread in the order of picking."""
    spread = np.linspace(0, picks - 1, min(picks, MAP_PICKS)).round().astype(int)
    return np.unique(np.concatenate([np.arange(min(picks, 10)), spread]))


# --- tasks ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Query:
    """What is asked of a block: rows of all picks in order (n,), points of the first ones, rows of the samples
    selected before, and sampled rows (m,), both ascending.
    """

    rows: Integers
    before: Integers
    first_points: Array
    sample: Integers


@dataclass(frozen=True)
class _Rejected(Met):
    """A candidate that was never selected, and its distance to the first pick nearest to it."""

    distance: float


@dataclass(frozen=True)
class _BlockSurvey:
    """What a block answers.

    Candidates and picks of it by bin of density; for each first pick the rejected candidates nearest to it; sums of
    quality and cost; outliers and crowds; and file, row there and id of the sampled rows.
    """

    pool_bins: Counter[int]
    selected_bins: Counter[int]
    rejected: list[list[_Rejected]]
    sums: Sums
    extremes: Extremes
    sampled: list[tuple[int, int, str | int]]


def _survey_block(
    work: Location, factors: Location, metric: Metric, query: Shared[_Query], block: Block
) -> _BlockSurvey:
    asked, stored, density = query.value, read_block(work, block.name), read_density(factors, block.name).density
    order = np.argsort(asked.rows)
    here, found = common_places(stored.rows, asked.rows[order])
    place = np.full(len(stored.rows), LEFT_OUT)
    place[common_places(stored.rows, asked.before)[0]] = SELECTED_BEFORE
    place[here] = order[found]
    bins = np.floor(np.log10(density) * _BINS_PER_DECADE).astype(int)
    rejected: list[list[_Rejected]] = [[] for _ in asked.first_points]
    step = max(1, _CHUNK_BYTES // (8 * stored.vectors.shape[1]))
    for start in range(0, len(stored.rows), step):
        part = slice(start, start + step)
        points, places = metric_space(stored.vectors[part], metric), place[part]
        left = np.flatnonzero(places == LEFT_OUT)
        if len(left) and len(rejected):
            distance = _distances(asked.first_points, points[left], metric)
            closest, closest_distance = distance.argmin(axis=0), distance.min(axis=0)
            for number, of_pick in enumerate(rejected):
                own = np.flatnonzero(closest == number)
                for i in own[np.argsort(closest_distance[own], kind="stable")[:_NEIGHBORS_SHOWN]].tolist():
                    of_pick.append(
                        _Rejected(*Met.at(stored, density, start + int(left[i])), float(closest_distance[i]))
                    )
                of_pick[:] = _closest(of_pick)
    sampled, _ = common_places(stored.rows, asked.sample)
    return _BlockSurvey(
        Counter(bins.tolist()),
        Counter(bins[place >= 0].tolist()),
        rejected,
        Sums.of(stored, place >= 0),
        Extremes.of(stored, density, place),
        [(int(stored.file[at]), int(stored.file_rows[at]), stored.ids[at].as_py()) for at in sampled.tolist()],
    )


def _closest(rejected: list[_Rejected]) -> list[_Rejected]:
    return sorted(rejected, key=lambda one: (one.distance, one.row))[:_NEIGHBORS_SHOWN]


def _distances(a: Array, b: Array, metric: Metric) -> Array:
    """Distances (m, n) of points of the metric's space, by a matrix product: near enough for a picture."""
    squared = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * (a @ b.T)
    return from_squared(np.maximum(squared, 0), metric)


# --- from the answers to the data of a picture ------------------------------------------------------------


def _density(settings: Settings, surveys: Sequence[_BlockSurvey]) -> dict[str, Any]:
    """Candidates and picks by bins of the density factor, and quantiles, all from the fine bins of the blocks."""
    pool = sum((found.pool_bins for found in surveys), Counter[int]())
    selected = sum((found.selected_bins for found in surveys), Counter[int]())
    low, high = min(pool), max(pool)
    width = max(1, -(-(high - low + 1) // _BINS_SHOWN))
    starts = range(low, high + 1, width)
    return {
        "edges": rounded([10 ** (bin_ / _BINS_PER_DECADE) for bin_ in [*starts, starts[-1] + width]]),
        "pool": [sum(pool[bin_] for bin_ in range(start, start + width)) for start in starts],
        "selected": [sum(selected[bin_] for bin_ in range(start, start + width)) for start in starts],
        "pool_quantiles": _quantiles(pool),
        "selected_quantiles": _quantiles(selected),
        "typical_neighbor_distance": _typical_distance(settings, pool),
    }


_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def _quantiles(bins: Counter[int]) -> dict[str, float]:
    """Quantiles of the density factor, each the middle of its fine bin."""
    ordered = sorted(bins)
    shares = np.cumsum([bins[bin_] for bin_ in ordered]) / bins.total()
    places = [min(int(np.searchsorted(shares, quantile)), len(ordered) - 1) for quantile in _QUANTILES]
    middles = [10 ** ((ordered[place] + 0.5) / _BINS_PER_DECADE) for place in places]
    return {f"{quantile:.0%}": float(f"{middle:.3g}") for quantile, middle in zip(_QUANTILES, middles, strict=True)}


def _typical_distance(settings: Settings, pool: Counter[int]) -> float | None:
    """The mean distance of the pool's median candidate to its K neighbours, where σ tells it."""
    mean = EQUATIONS[settings.formula].mean_distance(_quantiles(pool)["50%"], settings.neighbors)
    return None if mean is None else float(f"{mean:.3g}")


def _picked_groups(settings: Settings, selected: Location) -> Counter[Group]:
    """How many picks each group has; empty without groups."""
    if settings.group_column is None:
        return Counter()
    column = output_name(settings.group_column, settings.id_column)
    return Counter(map(group_of, selected.read_parquet([column]).column(column).to_pylist()))


def _groups(settings: Settings, pool: Pool, picked: Counter[Group]) -> dict[str, Any]:
    """Rows of the largest groups in pool and selection, the smaller ones together."""
    ordered = sorted(pool.groups, key=lambda group: (-pool.groups[group], in_order(group)))
    smaller = ordered[_GROUPS_SHOWN:]
    return {
        "column": settings.group_column,
        "count": len(ordered),
        "reached": len(picked),
        "largest": [
            {"group": group and group[:_TEXT_KEPT], "pool": pool.groups[group], "selected": picked[group]}
            for group in ordered[:_GROUPS_SHOWN]
        ],
        "smaller": {
            "count": len(smaller),
            "pool": sum(pool.groups[group] for group in smaller),
            "selected": sum(picked[group] for group in smaller),
        },
    }


def _map(sample: Array, picks: Array, numbers: Integers) -> dict[str, Any]:
    """Sample and picks on the two principal axes of the sample, and what share of its variance these hold."""
    projection = Projection.of(sample)
    spread = [float(np.square(points - projection.center).sum(axis=1).mean()) for points in (sample, picks)]
    return {
        "variance_shares": rounded(projection.shares),
        "mean_squared_distance_to_center": {"pool": rounded(spread[0]), "selected": rounded(spread[1])},
        "pool": [rounded(point) for point in projection.places(sample)],
        "picks": [
            [number, *rounded(point)] for number, point in zip(numbers.tolist(), projection.places(picks), strict=True)
        ],
    }


def _nearest_rejected(surveys: Sequence[_BlockSurvey], first: int) -> list[list[_Rejected]]:
    return [_closest([one for found in surveys for one in found.rejected[place]]) for place in range(first)]


def _described(
    settings: Settings, shown: Sequence[Candidate | Met], contents: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Id, density factor, group and text of each."""
    for one, content in zip(shown, contents, strict=True):
        group, text = (content[c] if c else None for c in (settings.group_column, settings.text_column))
        yield {
            "id": one.id,
            "density": rounded(one.density),
            "group": None if group is None else str(group)[:_TEXT_KEPT],
            "text": told(text, _TEXT_KEPT),
        }


def _first_picks(
    picks: list[Candidate], nearest: pa.Table, neighbors: list[list[_Rejected]], described: Iterator[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The first picks, what is nearest to each of all selected before it, and the rejected candidates that no other
    first pick is nearer to. All of them are taken as ``described``, in this order.
    """
    found = [
        {"pick": place + 1, "novelty": rounded(pick.novelty), **next(described)} for place, pick in enumerate(picks)
    ]
    for pick, earlier, of_pick in zip(found, nearest.slice(0, len(found)).to_pylist(), neighbors, strict=True):
        pick["nearest_earlier"] = earlier["nearest_id"]
        pick["nearest_distance"] = None if earlier["nearest_id"] is None else rounded(earlier["nearest_distance"])
        pick["nearest_rejected"] = [{"distance": rounded(one.distance), **next(described)} for one in of_pick]
    return found


def _texts(
    context: SparkContext, source: Source, shown: Sequence[Candidate | Met], columns: list[str]
) -> list[dict[str, Any]]:
    """Some columns of some rows of the input."""
    if not columns or not shown:
        return [{} for _ in shown]
    table = copied_columns(context, source, [(one.file, one.file_row, one.id) for one in shown], columns)
    found: list[dict[str, Any]] = table.to_pylist()
    return found
