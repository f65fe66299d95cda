"""K-means: Lloyd's algorithm, then of each centroid the nearest candidate. The same for any blocks.

Centroids begin at the random selection of the seed, as many as there are to be picks. In each round every candidate
goes to its nearest centroid, the first of equally near ones, and a centroid to the mean of its candidates, weighted by
q, what a score is multiplied by (1 without quality and costs); for ``cosine`` it is brought back to length 1. Samples
selected before are centroids that stay where they are, and take candidates from the others. After ``ROUNDS`` rounds,
or when nothing moves, the centroids pick, the one with the greatest weight of candidates first: the nearest that may be
picked, by the distance over q. With a budget of costs they go round until nothing fits.

A sum that rounds depends on the order of its terms. So coordinates and weights are added as integers, in steps of
2^-61 of the greatest possible sum; and which centroid or candidate is nearest is settled by the formula's own rule
where products leave it open.
"""

import functools
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from novelsum.density.neighbors import paired_squared_distances
from novelsum.files.location import Location
from novelsum.files.store import Block
from novelsum.formula import Array, Metric, from_squared, metric_space
from novelsum.rows import Integers
from novelsum.selection.candidates import Candidates
from novelsum.spark.progress import Progress
from novelsum.spark.shared import Shared
from novelsum.strategies.common import Common, Reading
from novelsum.strategies.turn import open_places

ROUNDS = 10
_BITS = 61
_TILE_BYTES = 64 << 20
_TOGETHER = 256
"""Centroids of which sums and offers travel together."""
_OFFERED = 8
"""The nearest candidates that are looked for of each centroid at a time."""


Sums = tuple[Integers, Integers]


class _Centers(NamedTuple):
    """Centroids (c, D), the last of which are ``fixed``, and what coordinates and weights are multiplied by."""

    points: Array
    fixed: int
    scale: float
    weight_scale: float


@dataclass(frozen=True)
class _Offers:
    """The nearest candidates of each of c centroids that may be picked, by distance over q: rows (c, k), -1 for none,
    those keys (c, k), what closes them (c, k), and points (c, k, D) where near ones are closed.
    """

    rows: Integers
    keys: Array
    groups: Integers
    cost: Array
    points: Array

    def joined(self, other: "_Offers") -> "_Offers":
        """The nearest of both."""
        both = {name: np.concatenate([mine, getattr(other, name)], axis=1) for name, mine in vars(self).items()}
        order = np.lexsort((np.where(both["rows"] < 0, np.iinfo(np.int64).max, both["rows"]), both["keys"]), axis=1)
        order = order[:, :_OFFERED]
        kept = {name: values[np.arange(len(order))[:, None], order] for name, values in both.items()}
        return _Offers(**kept)


class _Asked(NamedTuple):
    """Which centroids (c, D) ask, and what may not be picked: rows that were, or are too near, groups and costs."""

    centers: Array
    closed: Integers
    groups_open: NDArray[np.bool_]
    left: float
    with_points: bool


def kmeans(common: Common, start: Integers, work: Location, rounds: int = ROUNDS) -> Integers:
    """Rows in the order of picking. ``start`` (c,): the candidates at which centroids begin.

    The folder ``work`` keeps the centroids after each round, and if it has some, these are gone on with.
    """
    centroids, weight, done = _kept(work) or (*_at(common, start), 0)
    metric, fixed = common.settings.metric, common.before()
    blocks = common.blocks().cache()
    scale, weight_scale = _scales(common, fixed)
    with Progress("k-means (rounds)", rounds) as progress:
        progress.reach(done)
        for number in range(done, rounds):
            common.context.setJobDescription(f"novelsum k-means: round {number + 1} of {rounds}")
            every = np.concatenate([centroids, fixed])
            message = Shared.of(common.context, _Centers(every, len(fixed), scale, weight_scale))
            sums = blocks.flatMap(partial(_sums, common.reading, message)).reduceByKey(_added).collect()
            message.destroy()
            before = centroids.copy()
            weight = np.zeros(len(centroids), np.int64)
            for first, (total, of_each) in sums:
                part = centroids[first : first + len(of_each)]
                moved = np.flatnonzero(of_each)
                means = total[moved] / scale / (of_each[moved, None] / weight_scale)
                lengths = np.sqrt(np.square(means).sum(axis=1, keepdims=True))
                if metric == "cosine":  # where they cancel out it stays
                    moved, means, lengths = (one[lengths[:, 0] > 0] for one in (moved, means, lengths))
                    means = means / lengths
                part[moved] = means
                weight[first : first + len(of_each)] = of_each
            _keep(work, number + 1, centroids, weight)
            progress.reach(number + 1)
            if np.array_equal(before, centroids):
                break
    picks = _picked(common, blocks, centroids[np.argsort(-weight, kind="stable")])
    common.context.setJobDescription("")
    blocks.unpersist()
    return picks


def _at(common: Common, start: Integers) -> tuple[Array, Integers]:
    points = metric_space(common.stored(start).vectors, common.settings.metric)
    return points, np.zeros(len(points), np.int64)


def _kept(work: Location) -> tuple[Array, Integers, int] | None:
    """Centroids and weights that a run has left, and the rounds that they are after."""
    files = [file for file in (work / "centroids").entries() if not file.name.startswith(".")]
    if not files:
        return None
    last = max(files, key=lambda file: file.name)
    saved = np.load(io.BytesIO(last.read_bytes()))
    return saved["centroids"], saved["weight"], int(last.name)


def _keep(work: Location, number: int, centroids: Array, weight: Integers) -> None:
    (work / "centroids").make_folder()
    content = io.BytesIO()
    np.savez(content, centroids=centroids, weight=weight)
    (work / "centroids" / f"{number:03d}").write_bytes(content.getvalue())


def _scales(common: Common, fixed: Array) -> tuple[float, float]:
    """Powers of two that coordinates times weights, and weights, are multiplied by, so that no sum is too great."""
    longest = 1.0
    if common.settings.metric == "euclidean":
        common.context.setJobDescription("novelsum k-means: greatest coordinate")
        longest = max(common.blocks().map(partial(_longest, common.reading)).collect()) or 1.0
    heaviest = max(common.blocks().map(partial(_heaviest, common.reading)).collect())
    room = _BITS - math.ceil(math.log2(max(2, common.pool.candidates)))
    exponents = (math.floor(room - math.log2(one)) for one in (longest * heaviest, heaviest))
    first, second = (math.ldexp(1.0, exponent) for exponent in exponents)
    return first, second


def _longest(reading: Reading, block: Block) -> float:
    return float(np.abs(reading.points(block).points).max(initial=0.0))


def _heaviest(reading: Reading, block: Block) -> float:
    return float(reading.traits(block)[0].quality.max(initial=0.0))


# --- rounds -----------------------------------------------------------------------------------------------


def nearest_center(points: Array, centers: Array) -> Integers:
    """Which of the centers (c, D) is nearest to each point (n, D), the first of equally near ones: (n,)."""
    nearest = np.empty(len(points), np.int64)
    single = np.ascontiguousarray(centers.T, np.float32)
    norms = np.square(centers).sum(axis=1)
    half, longest = (0.5 * norms).astype(np.float32), math.sqrt(norms.max())
    step = max(1, _TILE_BYTES // (4 * len(centers)))
    for start in range(0, len(nearest), step):
        part = np.asarray(points[start : start + step])
        scores = part.astype(np.float32) @ single
        scores -= half
        found = scores.argmax(axis=1)
        greatest = scores[np.arange(len(part)), found]
        lengths = np.sqrt(np.square(part).sum(axis=1))
        slack = (part.shape[1] + 8) * 2.0**-22 * longest * (lengths + longest)
        at, which = np.nonzero(scores >= (greatest - slack).astype(np.float32)[:, None])
        several = np.bincount(at, minlength=len(part))[at] > 1
        at, which = at[several], which[several]
        squared = paired_squared_distances(part, centers, at, which)
        order = np.lexsort((which, squared, at))
        first = order[np.unique(at[order], return_index=True)[1]]
        found[at[first]] = which[first]
        nearest[start : start + step] = found
    return nearest


def _sums(reading: Reading, message: Shared[_Centers], block: Block) -> Iterator[tuple[int, Sums]]:
    """Of some centroids together the sums (c, D) of their candidates' weighted points, and the weights, as integers."""
    columns, asked = reading.points(block), message.value
    weights = reading.traits(block)[0].quality
    nearest = nearest_center(columns.points, asked.points)
    order = np.argsort(nearest, kind="stable")
    count, dimension = len(asked.points) - asked.fixed, columns.points.shape[1]
    for first in range(0, count, _TOGETHER):
        size = min(_TOGETHER, count - first)
        low, high = np.searchsorted(nearest[order], [first, first + size])
        here = order[low:high]
        total, of_each = np.zeros((size, dimension), np.int64), np.zeros(size, np.int64)
        step = max(1, _TILE_BYTES // (16 * dimension))
        for start in range(0, len(here), step):
            some = here[start : start + step]
            at = nearest[some] - first
            starts = np.flatnonzero(np.diff(at, prepend=-1))
            values = np.rint(columns.points[some] * (weights[some, None] * asked.scale)).astype(np.int64)
            total[at[starts]] += np.add.reduceat(values, starts, axis=0)
            np.add.at(of_each, at, np.rint(weights[some] * asked.weight_scale).astype(np.int64))
        yield first, (total, of_each)


def _added(a: Sums, b: Sums) -> Sums:
    return a[0] + b[0], a[1] + b[1]


# --- picks ------------------------------------------------------------------------------------------------


class _Picks:
    """What the centroids have picked so far, and what may not be: those, samples selected before, and what is near."""

    def __init__(self, common: Common) -> None:
        self.turn, self.rows = common.turn(), list[int]()
        self.closed = set(common.begun.rows[common.begun.rows < common.pool.candidates].tolist())

    def settle(self, offers: _Offers, i: int) -> bool:
        """Let a centroid, the i-th of those that have offers, pick; False where none of its offers can be taken and
        there may be others.
        """
        for j, row in enumerate(offers.rows[i].tolist()):
            if row < 0:
                return True
            group, cost = int(offers.groups[i, j]), float(offers.cost[i, j])
            if row in self.closed or not self.turn.is_open(group, cost):
                continue
            self.closed.add(row)
            point = offers.points[i, j] if offers.points.shape[2] else None
            if point is None or not self.turn.is_near(point):
                self.turn.take(group, cost, point)
                self.rows.append(row)
                return True
        return False


def _picked(common: Common, blocks: RDD[Block], centers: Array) -> Integers:
    """What the centroids (c, D) pick in their order, again and again until there are as many picks as there may be."""
    picks, pending = _Picks(common), np.arange(len(centers))
    with_points = bool(common.closings.distance)
    while not picks.turn.is_over:
        asking = pending[:_TOGETHER] if with_points else pending
        closed = np.array(sorted(picks.closed), np.int64)
        asked = _Asked(centers[asking], closed, picks.turn.groups_open, picks.turn.left, with_points)
        message = Shared.of(common.context, asked)
        common.context.setJobDescription(f"novelsum k-means: candidates nearest to {len(asking)} centroids")
        task = partial(_offers, common.reading, message)
        offers = dict(blocks.flatMap(task).reduceByKey(_Offers.joined).collect())
        message.destroy()
        if (offers[0].rows[0] < 0).all():
            break  # nobody is left for the first that asks, and so for none
        settled = 0
        while settled < len(asking) and not picks.turn.is_over:
            if not picks.settle(offers[settled - settled % _TOGETHER], settled % _TOGETHER):
                break
            settled += 1
        pending = pending[settled:] if settled < len(pending) else np.arange(len(centers))
    return np.array(picks.rows, np.int64)


def _offers(reading: Reading, message: Shared[_Asked], block: Block) -> Iterator[tuple[int, _Offers]]:
    """What a block offers to centroids, to some of them together by the number of the first."""
    columns, asked = reading.points(block), message.value
    traits = reading.traits(block)[0]
    able = open_places(traits.groups, traits.cost, asked.groups_open, asked.left)
    able &= ~np.isin(traits.rows, asked.closed)
    at = np.flatnonzero(able)
    for first in range(0, len(asked.centers), _TOGETHER):
        centers = asked.centers[first : first + _TOGETHER]
        step = max(_OFFERED, _TILE_BYTES // (8 * len(centers)))
        parts = (at[start : start + step] for start in range(0, max(1, len(at)), step))
        metric = reading.scoring.metric
        offered = (_nearest(columns.points[part], traits[part], centers, metric, asked.with_points) for part in parts)
        yield first, functools.reduce(_Offers.joined, offered)


def _nearest(points: Array, traits: Candidates, centers: Array, metric: Metric, with_points: bool) -> _Offers:
    """The nearest of some candidates (n, D) to each of the centers (c, D)."""
    c, k, n = len(centers), _OFFERED, len(points)
    rows, keys = np.full((c, k), -1, np.int64), np.full((c, k), np.inf)
    groups, cost = np.zeros((c, k), np.int64), np.zeros((c, k))
    kept = np.zeros((c, k, points.shape[1] if with_points else 0))
    if n:
        norms, own = np.square(centers).sum(axis=1)[:, None], np.square(points).sum(axis=1)
        squared = centers @ (-2.0 * points.T)
        squared += norms
        squared += own
        slack = 1e-13 * points.shape[1] ** 0.5 * (norms + own)
        upper = _keys(squared + slack, traits.quality, metric)
        limit = np.partition(upper, min(k, n) - 1, axis=1)[:, min(k, n) - 1 : min(k, n)]
        which, at = np.nonzero(_keys(squared - slack, traits.quality, metric) <= limit)
        exact = from_squared(paired_squared_distances(centers, points, which, at), metric)
        key = _over(exact, traits.quality[at])
        order = np.lexsort((traits.rows[at], key, which))
        which, at, key = which[order], at[order], key[order]
        place = np.arange(len(which)) - np.searchsorted(which, which)
        some = place < k
        which, at, key, place = which[some], at[some], key[some], place[some]
        rows[which, place], keys[which, place] = traits.rows[at], key
        groups[which, place], cost[which, place] = traits.groups[at], traits.cost[at]
        if with_points:
            kept[which, place] = points[at]
    return _Offers(rows, keys, groups, cost, kept)


def _keys(squared: Array, quality: Array, metric: Metric) -> Array:
    return _over(from_squared(np.maximum(squared, 0.0), metric), quality)


def _over(distance: Array, quality: Array) -> Array:
    """The distance over q, infinite where q is 0, whatever the distance."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(quality > 0, distance / quality, np.inf)
