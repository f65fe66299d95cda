"""A selection by another strategy than NovelSelect: its picks, and v of each when it was picked."""

import logging
import math
import time
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
from pyspark import SparkContext

from novelsum.files.location import Location
from novelsum.files.store import Pool
from novelsum.formula import Array, from_squared, metric_space, novelty, squared_distances
from novelsum.rows import Integers
from novelsum.selection import picklog
from novelsum.selection.closings import Closings
from novelsum.selection.earlier import Earlier
from novelsum.selection.rounds import (
    Candidate,
    Disk,
    Outcome,
    closings_of,
    described,
    details,
    free_scratch,
    most_picks,
    require_room,
)
from novelsum.selection.scoring import Scoring
from novelsum.selection.scratch import compared_bytes, selections_bytes
from novelsum.settings import Settings
from novelsum.spark.progress import collect
from novelsum.strategies.common import Common
from novelsum.strategies.farthest import farthest_first
from novelsum.strategies.kmeans import kmeans
from novelsum.strategies.lots import draw

logger = logging.getLogger("novelsum")

OTHERS = ("random", "farthest-first", "k-means")
"""The strategies beside NovelSelect."""
_TILE = 256
"""Picks of which a task computes v, at most."""
_TILE_BYTES = 64 << 20


def select_by(
    context: SparkContext,
    pool: Pool,
    factors: Location,
    log: Location,
    settings: Settings,
    first: int | None,
    begun: int = 0,
    earlier: Earlier | None = None,
) -> tuple[list[Candidate], Outcome]:
    """Pick candidates of the pool by ``settings.strategy``, as :func:`novelsum.selection.rounds.select` does.

    The novelty of a pick is v over all that was selected before it, by the formula and the density factors in
    ``factors``.
    """
    (log / "picks").make_folder()
    asked, outcome = closings_of(pool, settings), Outcome()
    closings = replace(asked, picks=most_picks(pool, asked))
    logged = _logged(log, begun)[: closings.picks]
    common = Common.of(context, pool, factors, settings, closings, log, begun)
    _preflight(common)
    kept = 0
    made = logged if len(logged) or earlier is None else earlier.rows
    outcome.resumed_picks = len(made)
    started = time.perf_counter()

    def keep(rows: Integers) -> None:
        """Log some more picks, but for those that are there."""
        nonlocal kept
        new = rows[max(0, len(logged) - kept) :]
        if len(new):
            picklog.append(log, begun + max(kept, len(logged)), common.stored(new), np.zeros(len(new)))
        kept += len(rows)

    if settings.strategy == "farthest-first":
        keep(made)
        rows = farthest_first(common, first, log, made, keep)
    else:
        rows = rows_by(settings.strategy, common, first, log, settings.seed)
        keep(rows)
    outcome.seconds["pick"] = time.perf_counter() - started
    stored = common.stored(rows) if len(rows) else common.begun[:0]
    spent = sum((Fraction(cost) for cost in stored.cost.tolist()), Fraction(0))
    by_group = np.bincount(stored.groups, minlength=len(closings.quotas.groups) if closings.quotas else 1)
    taken = len(rows) + int(np.sum(common.begun.rows < pool.candidates))
    outcome.end(asked, pool, len(rows), taken, spent, by_group, begun, bool(settings.budget))
    started = time.perf_counter()
    found = _novelty(context, log, common.reading.scoring, begun, begun + len(rows))
    outcome.seconds["novelty"] = time.perf_counter() - started
    parts = common.blocks().map(partial(details, pool.work, factors, np.sort(rows))).collect()
    return described(rows, found.tolist(), parts), outcome


def rows_by(strategy: str, common: Common, first: int | None, work: Location, seed: int) -> Integers:
    """The rows that a strategy picks, in its order.

    ``first``: the first pick of a selection that begins with nothing; ``work``: a folder to work in.
    """
    if strategy == "random":
        return draw(common, seed, None if common.settings.first is None else first)
    if strategy == "farthest-first":
        return farthest_first(common, first, work, np.zeros(0, np.int64))
    plain = replace(common, closings=Closings(_centroids(common)), reading=replace(common.reading, groups=()))
    return kmeans(common, draw(plain, seed), work)


def _centroids(common: Common) -> int:
    """As many as there can be picks, and no more than a budget of costs has room for at the mean cost."""
    closings, pool = common.closings, common.pool
    if closings.cost is None or pool.costs is None:
        return closings.picks
    return max(1, min(closings.picks, math.floor(closings.cost * pool.candidates / pool.costs.total)))


def _logged(log: Location, begun: int) -> Integers:
    """The picks that the log holds after so many samples selected before."""
    recovered = picklog.recover(log)
    return recovered[0].rows[begun:] if recovered else np.zeros(0, np.int64)


def _preflight(common: Common) -> None:
    """Tell what the selection will take; raise RunError where a scratch disk cannot hold it."""
    needed: dict[Disk, int] = defaultdict(int)
    free: dict[Disk, tuple[int, str]] = {}
    pool = common.pool
    for host, device, available, folder, rows in (
        common.blocks().map(partial(free_scratch, common.reading.run)).collect()
    ):
        needed[host, device] += compared_bytes(rows, pool.dimension)
        free[host, device] = (available, folder)
    for disk in needed:
        needed[disk] += selections_bytes(common.closings.picks, pool.dimension) if common.settings.compare else 0
    logger.info(
        "selection by %s: up to %d of %d candidates; %.1f GiB of scratch on %d host(s)",
        common.settings.strategy,
        common.closings.picks,
        pool.candidates,
        sum(needed.values()) / 2**30,
        len({host for host, _ in needed}),
    )
    require_room(needed, free)


# --- novelty of picks that were made ----------------------------------------------------------------------


def _novelty(context: SparkContext, log: Location, scoring: Scoring, begun: int, places: int) -> Array:
    """v (places - begun,) of the picks of a log, each over all that was selected before it."""
    size = max(1, min(_TILE, _TILE_BYTES // (8 * places), -(-(places - begun) // (2 * context.defaultParallelism))))
    tiles = [(start, min(start + size, places)) for start in range(begun, places, size)]
    context.setJobDescription("novelsum: novelty of the picks")
    # The last tile takes longest: the more comes before it.
    found = collect(context.parallelize(tiles[::-1], len(tiles)).map(partial(_novelty_of, log, scoring)), "novelty")
    context.setJobDescription("")
    return np.concatenate([of_tile for _, of_tile in sorted(found, key=lambda one: one[0])])


def _novelty_of(log: Location, scoring: Scoring, tile: tuple[int, int]) -> tuple[int, Array]:
    """v of the picks at the places of a tile, and its first place."""
    start, stop = tile
    own = picklog.read(log, start, stop)
    points = metric_space(own.vectors, scoring.metric)
    d, powered, rows = np.empty((len(own), stop)), np.empty(stop), np.empty(stop, np.int64)
    step = max(1, _TILE_BYTES // (8 * points.shape[1]))
    for first in range(0, stop, step):
        part = slice(first, min(first + step, stop))
        before = picklog.read(log, part.start, part.stop)
        d[:, part] = from_squared(
            squared_distances(points, metric_space(before.vectors, scoring.metric)), scoring.metric
        )
        powered[part], rows[part] = before.powered, before.rows
    found = np.zeros(len(own))
    for i, place in enumerate(range(start, stop)):
        by_id = np.argsort(rows[:place])
        found[i] = novelty(
            d[i : i + 1, :place][:, by_id],
            powered[:place][by_id],
            own.powered[i : i + 1],
            formula=scoring.formula,
            proximity_power=scoring.proximity_power,
            density_power=1.0,
        )[0]
    return start, found
