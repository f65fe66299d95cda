"""What a report shows of a pool: gathered in two passes over the store, so that the pool never comes together.

The driver takes in a sample of the pool and some of the picks as vectors, and of each block counts of density
factors, distances of those picks to earlier ones, and the few rejected candidates nearest to the first picks.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import SparkContext

from novelsum.density.factors import read_density
from novelsum.files.location import Location
from novelsum.files.source import Source
from novelsum.files.store import Block, Pool, read_block, read_block_columns
from novelsum.formula import Array, Metric, from_squared, metric_space
from novelsum.formulas import EQUATIONS
from novelsum.groups import group_of, in_order
from novelsum.report.output import copied_columns, output_name
from novelsum.report.text import cut
from novelsum.rows import Integers, common_places
from novelsum.selection.rounds import Candidate
from novelsum.settings import Settings
from novelsum.spark.shared import Shared

MAP_POOL = 2000
"""Candidates drawn at random for the map, which its axes are found from."""
MAP_PICKS = 600
CURVE_PICKS = 240
FLAT = 0.05
"""Returns are called flat where twice the picks raise novelty by less than this."""
_FIRST_SURE = 16
"""Before this pick a doubling tells nothing."""
_MOST_FIRST_PICKS = 50
_NEIGHBORS_SHOWN = 3
_BINS_PER_DECADE = 100
_BINS_SHOWN = 40
_GROUPS_SHOWN = 20
_TEXT_KEPT = 600
_CHUNK_BYTES = 32 << 20


def survey(
    context: SparkContext,
    pool: Pool,
    factors: Location,
    settings: Settings,
    source: Source,
    picks: list[Candidate],
    selected: Location,
) -> dict[str, Any]:
    """The data of a report's pictures, ready for JSON.

    ``factors``: where the density factors lie; ``selected``: the file that holds the picks.
    """
    blocks = context.parallelize(pool.blocks, len(pool.blocks))
    rows = np.array([pick.row for pick in picks])
    curve, mapped = _curve_places(len(picks)), _map_places(len(picks))
    first = np.arange(min(len(picks), settings.show, _MOST_FIRST_PICKS))
    sample = np.sort(np.random.default_rng(settings.seed).choice(pool.candidates, _sample_size(pool), replace=False))
    try:
        context.setJobDescription("novelsum report: sample of the pool")
        wanted = np.unique(np.concatenate([sample, rows[curve], rows[mapped], rows[first]]))
        points = points_of_rows(context, pool, settings.metric, wanted)
        at = partial(np.searchsorted, wanted)
        context.setJobDescription("novelsum report: density factors and neighbours of picks")
        query = Shared.of(context, _Query(rows, curve, points[at(rows[curve])], points[at(rows[first])]))
        surveys = blocks.map(partial(_survey_block, pool.work, factors, settings.metric, query)).collect()
        query.destroy()
        neighbors = _nearest_rejected(surveys, len(first))
        context.setJobDescription("novelsum report: texts")
        columns = [column for column in (settings.group_column, settings.text_column) if column is not None]
        shown = [picks[place] for place in first] + [neighbor for of_pick in neighbors for neighbor in of_pick]
        texts = _texts(context, source, shown, list(dict.fromkeys(columns)))
    finally:
        context.setJobDescription("")
    nearest = np.min([found.nearest for found in surveys], axis=0)
    return {
        "novelty": _novelty(settings, picks, curve, nearest),
        "density": _density(settings, surveys),
        "groups": _groups(settings, pool, selected) if settings.group_column else None,
        "map": _map(points[at(sample)], points[at(rows[mapped])], mapped + 1),
        "first_picks": _first_picks(settings, [picks[place] for place in first], neighbors, texts),
    }


def _curve_places(picks: int) -> Integers:
    """Places of the picks that the curves are drawn through: all, or closer together at the start."""
    if picks <= CURVE_PICKS:
        return np.arange(picks)
    half = CURVE_PICKS // 2
    return (
        np.unique(np.concatenate([np.geomspace(1, picks, half), np.linspace(1, picks, half)]).round()).astype(int) - 1
    )


def _map_places(picks: int) -> Integers:
    """Places of the picks on the map: all, or the first ten and others evenly spread in the order of picking."""
    spread = np.linspace(0, picks - 1, min(picks, MAP_PICKS)).round().astype(int)
    return np.unique(np.concatenate([np.arange(min(picks, 10)), spread]))


def _sample_size(pool: Pool) -> int:
    return min(pool.candidates, MAP_POOL)


# --- tasks ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Query:
    """What is asked of a block: rows of all picks in order (n,), places (c,) and points (c, D) of those on the
    curve, and points of the first ones.
    """

    rows: Integers
    curve: Integers
    curve_points: Array
    first_points: Array


@dataclass(frozen=True)
class _Rejected:
    """A candidate that was not picked: distance to the first pick nearest to it, and where it is."""

    distance: float
    row: int
    id: str | int
    density: float
    file: int
    file_row: int


@dataclass(frozen=True)
class _BlockSurvey:
    """What a block answers.

    Candidates and picks of it by bin of density; for each pick on the curve (c,) the least distance to an earlier
    pick in the block, infinite if there is none; for each first pick the rejected candidates nearest to it.
    """

    pool_bins: Counter[int]
    selected_bins: Counter[int]
    nearest: Array
    rejected: list[list[_Rejected]]


def _vectors_of_rows(work: Location, wanted: Integers, block: Block) -> Iterator[tuple[Integers, NDArray[np.floating]]]:
    """Those of some sorted rows that the block has, and their vectors."""
    rows = read_block_columns(work, block.name, ["row"]).column("row").to_numpy()
    at, _ = common_places(rows, wanted)
    if len(at):
        yield rows[at], read_block(work, block.name).vectors[at]


def _survey_block(
    work: Location, factors: Location, metric: Metric, query: Shared[_Query], block: Block
) -> _BlockSurvey:
    asked, stored, density = query.value, read_block(work, block.name), read_density(factors, block.name).density
    order = np.argsort(asked.rows)
    here, found = common_places(stored.rows, asked.rows[order])
    place = np.full(len(stored.rows), -1)
    place[here] = order[found]
    bins = np.floor(np.log10(density) * _BINS_PER_DECADE).astype(int)
    nearest = np.full(len(asked.curve), np.inf)
    rejected: list[list[_Rejected]] = [[] for _ in asked.first_points]
    step = max(1, _CHUNK_BYTES // (8 * stored.vectors.shape[1]))
    for start in range(0, len(stored.rows), step):
        part = slice(start, start + step)
        points, places = metric_space(stored.vectors[part], metric), place[part]
        picked = np.flatnonzero(places >= 0)
        if len(picked):
            distance = _distances(asked.curve_points, points[picked], metric)
            distance[places[picked] >= asked.curve[:, None]] = np.inf
            np.minimum(nearest, distance.min(axis=1), out=nearest)
        left = np.flatnonzero(places < 0)
        if len(left) and len(rejected):
            distance = _distances(asked.first_points, points[left], metric)
            closest, closest_distance = distance.argmin(axis=0), distance.min(axis=0)
            for number, of_pick in enumerate(rejected):
                own = np.flatnonzero(closest == number)
                for i in own[np.argsort(closest_distance[own], kind="stable")[:_NEIGHBORS_SHOWN]].tolist():
                    at = start + int(left[i])
                    id_, value = stored.ids[at].as_py(), float(density[at])
                    where = int(stored.file[at]), int(stored.file_rows[at])
                    of_pick.append(_Rejected(float(closest_distance[i]), int(stored.rows[at]), id_, value, *where))
                of_pick[:] = _closest(of_pick)
    selected_bins = Counter(bins[place >= 0].tolist())
    return _BlockSurvey(Counter(bins.tolist()), selected_bins, nearest, rejected)


def _closest(rejected: list[_Rejected]) -> list[_Rejected]:
    return sorted(rejected, key=lambda one: (one.distance, one.row))[:_NEIGHBORS_SHOWN]


def _distances(a: Array, b: Array, metric: Metric) -> Array:
    """Distances (m, n) of points of the metric's space, by a matrix product: near enough for a picture."""
    squared = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * (a @ b.T)
    return from_squared(np.maximum(squared, 0), metric)


# --- from the answers to the data of a picture ------------------------------------------------------------


def points_of_rows(context: SparkContext, pool: Pool, metric: Metric, wanted: Integers) -> Array:
    """The points in the metric's space of some candidates by their rows (m,), ascending: (m, D)."""
    blocks = context.parallelize(pool.blocks, len(pool.blocks))
    found = blocks.flatMap(partial(_vectors_of_rows, pool.work, wanted)).collect()
    order = np.argsort(np.concatenate([rows for rows, _ in found]))
    return metric_space(np.concatenate([vectors for _, vectors in found])[order], metric)


def _novelty(settings: Settings, picks: list[Candidate], curve: Integers, nearest: Array) -> dict[str, Any]:
    """Novelty when picked against pick number, and how it grows as picks double.

    A mean over the picks before is taken times their number: a sum, for any formula.
    """
    summed = np.array([pick.novelty for pick in picks]) * EQUATIONS[settings.formula].divisor(np.arange(len(picks)))
    flat, doublings = _returns(summed)
    for row in doublings:
        about = nearest[(np.abs(curve + 1 - row["pick"]) <= row["pick"] / 20) & (curve > 0)]
        row["nearest_earlier"] = rounded(about.mean()) if len(about) else None
    return {
        "pick": (curve + 1).tolist(),
        "novelty": rounded(summed[curve]),
        "nearest_earlier": [None, *rounded(nearest[1:])],
        "flat_below_growth": FLAT,
        "flat_from_pick": flat,
        "doublings": doublings,
    }


def _returns(novelty: Array) -> tuple[int | None, list[dict[str, Any]]]:
    """From which pick on a doubling raises novelty by less than ``FLAT``, and the picks at halves of the budget.

    A pick's novelty is taken as the mean over the picks within 5% of its number, so that one pick decides nothing.
    """
    count = len(novelty)
    numbers = np.arange(1, count + 1)
    reach = numbers // 20
    low, high = np.maximum(numbers - reach, 2), np.minimum(numbers + reach, count)
    sums = np.concatenate([[0.0], np.cumsum(novelty)])
    smooth = np.where(high >= low, (sums[high] - sums[low - 1]) / np.maximum(high - low + 1, 1), novelty)
    half = np.maximum(numbers // 2, 1)
    before = smooth[half - 1]
    growth = np.where(before > 0, smooth / np.where(before > 0, before, 1) - 1, np.inf)
    steep = np.flatnonzero((growth >= FLAT) | (numbers < _FIRST_SURE))
    flat = int(numbers[steep[-1]]) + 1 if len(steep) else 1
    at = [count]
    while at[-1] // 2 >= 2 and len(at) < 8:
        at.append(at[-1] // 2)
    rows = [
        {"pick": n, "novelty": rounded(smooth[n - 1]), "growth": rounded(growth[n - 1]) if n > 3 else None}
        for n in reversed(at)
    ]
    return (flat if flat <= count else None), rows


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


def _groups(settings: Settings, pool: Pool, selected: Location) -> dict[str, Any]:
    """Rows of the largest groups in pool and selection, the smaller ones together."""
    column = output_name(str(settings.group_column), settings.id_column)
    picked = Counter(map(group_of, selected.read_parquet([column]).column(column).to_pylist()))
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
    center = sample.mean(axis=0)
    axes, shares = principal_axes(sample - center)
    spread = [float(np.square(points - center).sum(axis=1).mean()) for points in (sample, picks)]
    return {
        "variance_shares": rounded(shares),
        "mean_squared_distance_to_center": {"pool": rounded(spread[0]), "selected": rounded(spread[1])},
        "pool": [rounded(point) for point in (sample - center) @ axes.T],
        "picks": [
            [number, *rounded(point)] for number, point in zip(numbers.tolist(), (picks - center) @ axes.T, strict=True)
        ],
    }


def principal_axes(centered: Array) -> tuple[Array, Array]:
    """The two directions (2, D) in which centred points (n, D) vary most, and their shares of all variance (2,).

    The greatest coordinate of an axis is positive, so that a map is never mirrored by chance. Of points that vary
    in fewer directions, the missing axes are zero.
    """
    rows, dimension = centered.shape
    wide = rows <= dimension
    values, vectors = np.linalg.eigh(centered @ centered.T if wide else centered.T @ centered)
    total = max(float(np.square(centered).sum()), np.finfo(float).tiny)
    axes, shares = np.zeros((2, dimension)), np.zeros(2)
    for place in range(min(2, len(values))):
        share = float(values[-1 - place]) / total
        if share > np.finfo(float).eps * max(rows, dimension):
            axis = vectors[:, -1 - place] @ centered if wide else vectors[:, -1 - place]
            axis = axis / np.sqrt(np.square(axis).sum())
            axes[place], shares[place] = axis * np.sign(axis[np.abs(axis).argmax()]), share
    return axes, shares


def _nearest_rejected(surveys: Sequence[_BlockSurvey], first: int) -> list[list[_Rejected]]:
    return [_closest([one for found in surveys for one in found.rejected[place]]) for place in range(first)]


def _first_picks(
    settings: Settings, picks: list[Candidate], neighbors: list[list[_Rejected]], texts: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The first picks and, for each, the rejected candidates that no other first pick is nearer to."""
    remaining = iter(texts)

    def described(one: Candidate | _Rejected) -> dict[str, Any]:
        content = next(remaining)
        group, text = (content[c] if c else None for c in (settings.group_column, settings.text_column))
        return {"id": one.id, "density": rounded(one.density), "group": group, "text": text}

    found = [
        {"pick": place + 1, "novelty": rounded(pick.novelty), **described(pick)} for place, pick in enumerate(picks)
    ]
    for pick, of_pick in zip(found, neighbors, strict=True):
        pick["nearest_rejected"] = [{"distance": rounded(one.distance), **described(one)} for one in of_pick]
    return found


def _texts(
    context: SparkContext, source: Source, shown: Sequence[Candidate | _Rejected], columns: list[str]
) -> list[dict[str, Any]]:
    """Some columns of some rows of the input as text, cut where it is long."""
    if not columns or not shown:
        return [{} for _ in shown]
    table = copied_columns(context, source, [(one.file, one.file_row, one.id) for one in shown], columns)
    return [
        {name: None if value is None else cut(str(value), _TEXT_KEPT) for name, value in row.items()}
        for row in table.to_pylist()
    ]


def rounded(values: Any) -> Any:
    """A number or numbers with six digits, null where infinite or not a number."""
    if np.ndim(values):
        return [rounded(value) for value in values]
    return float(f"{values:.6g}") if np.isfinite(values) else None
