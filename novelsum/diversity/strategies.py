"""Other ways to select as many, and how diverse their selections are beside NovelSelect's.

- ``random``: the candidates with the smallest lots that the seed draws from their ids.
- ``farthest_first``: k-center greedy: after the same first pick, always the candidate farthest from its nearest pick,
  ties to the smallest row. Exact.
- ``kmeans``: Lloyd's algorithm from the random selection, as many centroids as picks, unit ones for ``cosine``; then
  of each centroid the nearest candidate that no centroid before it took.

Farthest-first goes in rounds: distances to the nearest pick only shrink. Every block reports its farthest candidates;
the driver picks among them while what it picks is farther than the last that any block reported, as no candidate
that was not reported can be farther. So a Spark job yields many picks, and every one is the argmax.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
from pyspark import SparkContext

from novelsum.density.factors import read_density
from novelsum.density.neighbors import NearestDistances
from novelsum.diversity.novelsum import Densities, Grid, values
from novelsum.diversity.onepass import DataSet, draw_rows, mapped_points, run_pass, save
from novelsum.files.location import Location
from novelsum.files.store import Block, Pool, read_block, write_block
from novelsum.formula import Array, Formula, Metric, from_squared, squared_distances
from novelsum.formulas import EQUATIONS
from novelsum.report.summary import aligned
from novelsum.rows import Integers, common_places
from novelsum.settings import Settings
from novelsum.spark.local import folder_of, new_run
from novelsum.spark.progress import Progress
from novelsum.spark.shared import Shared

logger = logging.getLogger("novelsum")

EXACT_LIMIT = 100_000
"""Selections above this are measured by a sample of their rows."""
SAMPLE_ROWS = 5_000
KMEANS_ROUNDS = 10
_REPORTED = 1024
"""Candidates that all blocks together report in a round of farthest-first, at least."""
_LOGGED_AT_ONCE = 2048
_TILE_BYTES = 64 << 20
_CENTROIDS_TOGETHER = 256
_NEAREST_TO_CENTROID = 4


@dataclass(frozen=True)
class Comparison:
    """How diverse a selection is, and the seconds it took to make (not to measure)."""

    novelsum_sum: float
    novelsum_mean: float
    mean_nearest_distance: float
    seconds: float


def compare(
    context: SparkContext,
    pool: Pool,
    factors: Location,
    settings: Settings,
    picks: list[int],
    seconds: float,
    work: Location,
) -> dict[str, Comparison]:
    """Select as many as ``picks`` (rows in order of picking) in the other ways, and measure all selections.

    ``factors``: where the density factors lie, which are those of the selection; ``seconds``: what NovelSelect took;
    ``work``: the folder to work in.
    """
    budget, data = len(picks), DataSet(pool.work, pool.blocks)
    strategies: dict[str, Callable[[], Integers]] = {
        "novelselect": lambda: np.array(picks, dtype=np.int64),
        "random": lambda: draw_rows(context, data, budget, settings.seed),
        "farthest_first": lambda: farthest_first(context, data, settings.metric, budget, picks[0], work),
        "kmeans": lambda: kmeans(context, data, settings.metric, budget, settings.seed),
    }
    results = {}
    for name, strategy in strategies.items():
        started = time.monotonic()
        rows = strategy()
        took = seconds if name == "novelselect" else time.monotonic() - started
        results[name] = _measured(context, data, factors, settings, np.sort(rows), took, work / name)
        logger.info("compare: %s selected in %.1f s and measured", name, took)
    return results


def for_manifest(comparison: dict[str, Comparison]) -> dict[str, dict[str, float]]:
    """As it goes into the manifest."""
    return {name: {**asdict(one), "seconds": round(one.seconds, 3)} for name, one in comparison.items()}


def print_comparison(comparison: dict[str, Comparison], formula: Formula) -> None:
    """Print the strategies, the most diverse by NovelSum first. ``formula``: by which NovelSelect picked."""
    cells = [["strategy", "NovelSum", "mean", "nearest other", "seconds"]]
    for name, one in sorted(comparison.items(), key=lambda item: -item[1].novelsum_sum):
        numbers = [one.novelsum_sum, one.novelsum_mean, one.mean_nearest_distance]
        cells.append([name, *(f"{number:.6g}" for number in numbers), f"{one.seconds:.1f}"])
    measured_as = EQUATIONS[formula].measured_as
    of_other = f"; novelselect by {formula}, NovelSum by {measured_as}" if measured_as != formula else ""
    print("\n".join(["", f"selections of the same size{of_other}", *aligned(cells)]), file=sys.stdout)


# --- how diverse a selection is ---------------------------------------------------------------------------


def _measured(
    context: SparkContext,
    data: DataSet,
    factors: Location,
    settings: Settings,
    rows: Integers,
    seconds: float,
    work: Location,
) -> Comparison:
    """NovelSum of some sorted rows of the pool, by the density factors they have in the pool."""
    (work / "store").make_folder()
    message = Shared.of(context, rows)
    blocks = context.parallelize(data.blocks, len(data.blocks))
    written = blocks.flatMap(partial(_write_selected, data.work, factors, work, message)).collect()
    message.destroy()
    selection = DataSet(work, tuple(block for block, _, _ in written))
    density = np.empty(len(rows))
    for _, places, of_block in written:
        density[places] = of_block
    grid = Grid(
        (settings.formula,),
        settings.metric,
        (settings.neighbors,),
        (settings.proximity_power,),
        (settings.density_power,),
    )
    sample = None
    if len(rows) > EXACT_LIMIT:
        sample = draw_rows(context, selection, SAMPLE_ROWS, settings.seed)
        density = density[sample]
    found = run_pass(context, selection, grid, sample, work=data.work)
    densities: Densities = {(settings.formula, settings.neighbors): density}
    value = values(grid, found, densities, len(rows))[0]
    nearest = float(from_squared(found.nearest_own, settings.metric).mean())
    return Comparison(value.sum, value.mean, nearest, seconds)


def _write_selected(
    work: Location, factors: Location, target: Location, message: Shared[Integers], block: Block
) -> Iterator[tuple[Block, Integers, Array]]:
    """Write those of a block that were selected as a block of their own, their rows counted among the selected."""
    content, selected = read_block(work, block.name), message.value
    places, rows = common_places(content.rows, selected)
    if len(places):
        write_block(target, block.name, replace(content.take(places), rows=rows))
        yield Block(block.name, len(places)), rows, read_density(factors, block.name).density[places]


# --- farthest first ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Farthest:
    """A block's candidates farthest from their nearest pick: rows (k,), squared distances, points (k, D).

    ``all``: whether the block has no others.
    """

    rows: Integers
    squared: Array
    points: Array
    all: bool


@dataclass(frozen=True)
class _Picked:
    """Picks in order, from place ``since`` on: rows (p,) and points (p, D); those before lie in the log."""

    since: int
    rows: Integers
    points: Array


def farthest_first(
    context: SparkContext, data: DataSet, metric: Metric, budget: int, first: int, work: Location
) -> Integers:
    """K-center greedy: ``budget`` rows in the order of picking, logged in the folder ``work``."""
    run = new_run(data.work)
    log = work / "farthest" / run
    log.make_folder()
    blocks = context.parallelize(data.blocks, len(data.blocks)).cache()
    most = max(16, -(-_REPORTED // len(data.blocks)))
    points = next(iter(blocks.flatMap(partial(_point_of, run, data.work, metric, first)).collect()))[None]
    picks = [first]
    news: list[Array] = [points[0]]
    logged = 0
    with Progress("farthest-first (picks)", budget) as progress:
        while len(picks) < budget:
            new = _Picked(logged, np.array(picks[logged:], dtype=np.int64), np.stack(news))
            message = Shared.of(context, new)
            context.setJobDescription(f"novelsum farthest-first: pick {len(picks) + 1} of {budget}")
            reports = blocks.map(partial(_farthest, run, data.work, metric, log, most, message)).collect()
            message.destroy()
            if len(new.rows) >= _LOGGED_AT_ONCE:
                (log / f"{logged:09d}").write_bytes(new.rows.tobytes() + new.points.tobytes())
                logged, news = len(picks), []
            for row, point in _certain(reports, budget - len(picks)):
                picks.append(row)
                news.append(point)
            progress.reach(len(picks))
    context.setJobDescription("")
    blocks.unpersist()
    return np.array(picks, dtype=np.int64)


def _certain(reports: list[_Farthest], most: int) -> Iterator[tuple[int, Array]]:
    """The picks that no candidate outside the reports can come before, at most ``most``: row and point of each."""
    rows, squared = (np.concatenate([getattr(r, name) for r in reports]) for name in ("rows", "squared"))
    points = np.concatenate([report.points for report in reports])
    by_row = np.argsort(rows)
    rows, squared, points = rows[by_row], squared[by_row], points[by_row]
    # Whatever a block did not report comes after the last it did: nearer, or as far and of a greater row.
    limit = min(((-float(r.squared[-1]), int(r.rows[-1])) for r in reports if not r.all), default=(np.inf, 0))
    for _ in range(most):
        at = int(np.argmax(squared))
        if squared[at] < 0 or (-float(squared[at]), int(rows[at])) > limit:
            return
        yield int(rows[at]), points[at]
        np.minimum(squared, squared_distances(points, points[at : at + 1])[:, 0], out=squared)
        squared[at] = -1.0


def _point_of(run: str, work: Location, metric: Metric, row: int, block: Block) -> Iterator[Array]:
    columns = mapped_points(run, work, block.name, metric)
    for place in np.flatnonzero(columns.rows == row):
        yield np.array(columns.points[place])


def _farthest(
    run: str, work: Location, metric: Metric, log: Location, most: int, message: Shared[_Picked], block: Block
) -> _Farthest:
    """Bring a block's distances to the nearest pick up to date and report the farthest.

    The distances lie in scratch with the number of picks they are for; where they are missing all picks are read.
    """
    columns, new = mapped_points(run, work, block.name, metric), message.value
    path = folder_of(run) / f"{block.name}.nearest.npy"
    known, squared = 0, np.full(len(columns.rows), np.inf)
    if path.exists():
        saved = np.load(path)
        if saved[0] <= new.since + len(new.rows):
            known, squared = int(saved[0]), saved[1:]
    nearest = NearestDistances(columns.points, 1)
    nearest.squared[:, 0] = squared
    for picked in _picks_since(log, known, new):
        nearest.add(picked.points)
        nearest.squared[np.isin(columns.rows, picked.rows)] = -1.0
    squared = nearest.squared[:, 0]
    save(path, np.concatenate([[new.since + len(new.rows)], squared]))
    order = np.lexsort((columns.rows, -squared))[:most]
    return _Farthest(columns.rows[order], squared[order], columns.points[order], len(order) == len(columns.rows))


def _picks_since(log: Location, known: int, new: _Picked) -> Iterator[_Picked]:
    """The picks from place ``known`` on, in parts: from the log where the broadcast has them no more."""
    dimension = new.points.shape[1]
    if known < new.since:
        for file in log.entries():
            start = int(file.name)
            content = file.read_bytes()
            count = len(content) // (8 * (dimension + 1))
            if start + count > known:
                rows = np.frombuffer(content, np.int64, count)
                yield _Picked(start, rows, np.frombuffer(content, offset=8 * count).reshape(count, dimension))
    skip = max(0, known - new.since)
    yield _Picked(known, new.rows[skip:], new.points[skip:])


# --- k-means ----------------------------------------------------------------------------------------------


def kmeans(
    context: SparkContext, data: DataSet, metric: Metric, budget: int, seed: int, rounds: int = KMEANS_ROUNDS
) -> Integers:
    """The nearest candidate to each of ``budget`` centroids, all distinct: rows (budget,)."""
    run = new_run(data.work)
    blocks = context.parallelize(data.blocks, len(data.blocks)).cache()
    start = draw_rows(context, data, budget, seed)
    found = dict(blocks.flatMap(partial(_points_of, run, data.work, metric, start)).collect())
    centroids = np.stack([found[row] for row in start.tolist()])
    with Progress("k-means (rounds)", rounds) as progress:
        for number in range(rounds):
            context.setJobDescription(f"novelsum k-means: round {number + 1} of {rounds}")
            message = Shared.of(context, centroids)
            sums = blocks.flatMap(partial(_sums, run, data.work, metric, message)).reduceByKey(_added).collect()
            message.destroy()
            before = centroids.copy()
            for first, (total, count) in sums:
                part = centroids[first : first + len(count)]
                part[count > 0] = total[count > 0] / count[count > 0, None]
            if metric == "cosine":
                lengths = np.sqrt(np.square(centroids).sum(axis=1))
                centroids = np.where(lengths[:, None] > 0, centroids / np.maximum(lengths, 1e-300)[:, None], before)
            progress.advance()
            if np.array_equal(before, centroids):
                break
    picks = np.full(budget, -1, dtype=np.int64)
    while (picks < 0).any():
        open_ = np.flatnonzero(picks < 0)
        context.setJobDescription(f"novelsum k-means: candidates nearest to {len(open_)} centroids")
        centers = Shared.of(context, (centroids[open_], picks[picks >= 0]))
        offers = blocks.map(partial(_nearest_to, run, data.work, metric, centers)).collect()
        centers.destroy()
        _take_nearest(picks, open_, offers)
    context.setJobDescription("")
    blocks.unpersist()
    return picks


def _take_nearest(picks: Integers, open_: Integers, offers: list[tuple[Integers, Array]]) -> None:
    """Give each open centroid the nearest of its offers that none before it took, while it is sure there is no nearer.

    An offer is sure when some of those offered are left: what a block did not offer is farther than all it did.
    """
    rows = np.concatenate([rows for rows, _ in offers], axis=1)
    squared = np.concatenate([squared for _, squared in offers], axis=1)
    last = np.full(len(open_), np.inf)
    for _, of_block in offers:
        last = np.minimum(last, of_block[:, -1])
    taken: set[int] = set()
    for i, centroid in enumerate(open_.tolist()):
        for at in np.lexsort((rows[i], squared[i])).tolist():
            row = int(rows[i, at])
            if row >= 0 and row not in taken:
                if squared[i, at] <= last[i] or not taken:
                    taken.add(row)
                    picks[centroid] = row
                break
        if picks[centroid] < 0:
            return


def _points_of(run: str, work: Location, metric: Metric, rows: Integers, block: Block) -> Iterator[tuple[int, Array]]:
    columns = mapped_points(run, work, block.name, metric)
    for place in common_places(columns.rows, rows)[0]:
        yield int(columns.rows[place]), np.array(columns.points[place])


def _sums(
    run: str, work: Location, metric: Metric, message: Shared[Array], block: Block
) -> Iterator[tuple[int, tuple[Array, Integers]]]:
    """Sums of a block's points nearest to each centroid and their numbers, for some centroids together."""
    columns, centroids = mapped_points(run, work, block.name, metric), message.value
    nearest = np.empty(len(columns.rows), dtype=np.int64)
    single, half = centroids.T.astype(np.float32), (0.5 * np.square(centroids).sum(axis=1)).astype(np.float32)
    step = max(1, _TILE_BYTES // (4 * len(centroids)))
    for start in range(0, len(nearest), step):
        scores = columns.points[start : start + step].astype(np.float32) @ single
        scores -= half
        nearest[start : start + step] = scores.argmax(axis=1)
    order = np.argsort(nearest, kind="stable")
    for first in range(0, len(centroids), _CENTROIDS_TOGETHER):
        size = min(_CENTROIDS_TOGETHER, len(centroids) - first)
        low, high = np.searchsorted(nearest[order], [first, first + size])
        here = order[low:high]
        counts = np.bincount(nearest[here] - first, minlength=size)
        sums = np.zeros((size, centroids.shape[1]))
        starts = np.cumsum(counts) - counts
        if len(here):
            sums[counts > 0] = np.add.reduceat(columns.points[here], starts[counts > 0], axis=0)
        yield first, (sums, counts)


def _added(a: tuple[Array, Integers], b: tuple[Array, Integers]) -> tuple[Array, Integers]:
    return a[0] + b[0], a[1] + b[1]


def _nearest_to(
    run: str, work: Location, metric: Metric, message: Shared[tuple[Array, Integers]], block: Block
) -> tuple[Integers, Array]:
    """The block's nearest candidates to each centroid, but for those taken: rows (c, k) and squared distances.

    Row -1 at distance inf where there are no more.
    """
    columns = mapped_points(run, work, block.name, metric)
    centroids, taken = message.value
    free = ~np.isin(columns.rows, taken)
    k = _NEAREST_TO_CENTROID
    rows, squared = np.full((len(centroids), 2 * k), -1, dtype=np.int64), np.full((len(centroids), 2 * k), np.inf)
    norms = np.square(centroids).sum(axis=1)
    step = max(k, _TILE_BYTES // (8 * len(centroids)))
    for start in range(0, len(columns.rows), step):
        part = slice(start, start + step)
        points = columns.points[part]
        distance = centroids @ (-2.0 * points.T)
        distance += np.square(points).sum(axis=1)
        distance += norms[:, None]
        np.maximum(distance, 0.0, out=distance)
        distance[:, ~free[part]] = np.inf
        count = min(k, len(points))
        at = np.argpartition(distance, count - 1, axis=1)[:, :count]
        rows[:, k : k + count] = columns.rows[part][at]
        squared[:, k : k + count] = np.take_along_axis(distance, at, axis=1)
        rows[~np.isfinite(squared)] = -1
        order = np.lexsort((rows, squared), axis=1)
        rows, squared = np.take_along_axis(rows, order, axis=1), np.take_along_axis(squared, order, axis=1)
        rows[:, k:], squared[:, k:] = -1, np.inf
    return rows[:, :k], squared[:, :k]
