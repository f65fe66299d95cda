"""Space divided into cells, for a search that looks into the nearest ones only. NumPy only.

A cell is what lies nearer to its centroid than to any other. Centroids come from k-means over a sample; cells
that would hold more than twice their share of the sample are halved along their widest direction, and where
nothing can be halved, as among copies, several cells share a centroid and a row's hash chooses one of them.

Which cells are nearest is decided exactly, ties by number: never by the rounding of a matrix product, which
depends on what else was multiplied with it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.density.axes import Axes
from novelsum.density.neighbors import paired_squared_distances, smallest_of_each
from novelsum.density.points import Points
from novelsum.formula import Array
from novelsum.rows import Integers

_ITERATIONS = 8
_CROWDED = 2
_TILE_ROWS = 2048

Mask = NDArray[np.bool_]


def mixed(rows: Integers, salt: int) -> NDArray[np.uint64]:
    """A hash of each row (n,), another for another salt: splitmix64."""
    with np.errstate(over="ignore"):
        x = rows.astype(np.uint64) + np.uint64(salt + 1) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def sampled(rows: Integers, fraction: float, salt: int) -> Mask:
    """Which of the rows (n,) belong to a sample of about that fraction: the same whatever rows are beside them."""
    return mixed(rows, salt) < np.float64(fraction) * 2.0**64


@dataclass(frozen=True)
class Cells:
    """C cells in an order in which near ones are close together.

    ``centroids`` (C, D) float64; ``copies`` (C,) int64: how many cells from this one on share its centroid, 0 on
    the others of them; ``group`` (C,) int64, ascending: cells of a group are stored and searched together.
    """

    centroids: Array
    copies: Integers
    group: Integers

    @staticmethod
    def trained(sample: Array, wanted: int, spherical: bool, groups: int, axes: Axes) -> "Cells":
        """About ``wanted`` cells, in so many groups of about equal size, for a pool of which ``sample`` (s, D) is one.

        The sample is in the metric's space and in the order of rows; ``spherical`` if all have length 1.
        """
        centroids = _halved(sample, _k_means(sample, wanted, spherical, axes), _CROWDED * len(sample) / wanted)
        centroids = np.unique(_unit(centroids) if spherical else centroids, axis=0)
        centroids = centroids[_in_order(centroids)]
        counts = np.bincount(_nearest_one(Points.of(sample), centroids), minlength=len(centroids))
        copies = np.maximum(1, np.ceil(counts * wanted / (_CROWDED * len(sample)))).astype(np.int64)
        first = np.cumsum(copies) - copies
        of_cell = np.zeros(int(copies.sum()), dtype=np.int64)
        of_cell[first] = copies
        share = np.repeat(counts / copies / len(sample), copies)
        group = ((np.cumsum(share) - share / 2) * groups).astype(np.int64).clip(0, groups - 1)
        return Cells(np.repeat(centroids, copies, axis=0), of_cell, group)

    def assign(self, points: Points, rows: Integers) -> Integers:
        """The cell of each of m points with its row (m,): (m,)."""
        first = _nearest_one(points, self.centroids)
        return first + (mixed(rows, 2) % self.copies[first].astype(np.uint64)).astype(np.int64)

    def probed(self, points: Points, own: Integers, probes: int, sizes: Integers, needed: int) -> Mask:
        """The cells that m points are searched in: (m, C).

        The ``probes`` nearest and the point's own (m,), or as many more as it takes to hold ``needed`` points of the
        corpus; ``sizes`` (C,) says how many each cell holds.
        """
        chosen = np.empty((len(points), len(sizes)), dtype=bool)
        for start in range(0, len(points), _TILE_ROWS):
            tile = slice(start, start + _TILE_ROWS)
            of_tile = points.array(tile)
            here = np.arange(len(of_tile))
            wider = probes
            while len(here):
                mask = nearest_cells(of_tile[here], self.centroids, wider)
                mask[np.arange(len(here)), own[tile][here]] = True
                chosen[start + here] = mask
                here = here[(mask @ sizes < needed) & (wider < len(sizes))]
                wider = min(2 * wider, len(sizes))
        return chosen


class Screen:
    """Squared distances to a corpus (n, D) by a matrix product, with a bound on their error.

    The corpus and the queries go into the product less the centre of the corpus and divided by their largest
    length: points that are close together far from the origin keep their digits, and no square overflows.
    """

    def __init__(self, corpus: Array, kind: type[np.floating[Any]] = np.float32) -> None:
        self.kind = kind
        self._centre = corpus.mean(axis=0)
        residuals = corpus - self._centre
        self._norms = np.square(residuals).sum(axis=1)
        self._length = _largest(self._norms)
        residuals /= -self._length
        self._columns = residuals.astype(kind).T

    def apply(self, queries: Array) -> tuple[NDArray[np.floating[Any]], float, Array, Array]:
        """Values (m, n), unit, norms (m,) and error (m,): d² is ``values * unit + norms``, give or take ``error``."""
        residuals = queries - self._centre
        norms = np.einsum("ij,ij->i", residuals, residuals)
        length = _largest(norms)
        residuals /= length
        unit = 2.0 * length * self._length
        values = residuals.astype(self.kind) @ self._columns
        with np.errstate(over="ignore"):
            values += (self._norms / unit).astype(self.kind)
        # The product of vectors of D numbers errs by at most D roundings of |q|·|c|, twice of which is at most
        # half the square of |q| + |c|; casts, norms and sums add a few more, numbers that underflow the last term.
        dimension, number = queries.shape[1], np.finfo(self.kind)
        scale = np.square(np.sqrt(norms) + self._length)
        error = (0.6 * dimension + 10) * float(number.eps) / 2 * scale
        return values, unit, norms, error + dimension * 10 * float(number.tiny) * unit


def nearest_cells(points: Array, centroids: Array, count: int) -> Mask:
    """Which ``count`` centroids (C, D) are nearest to each point (m, D), ties to the smaller number: (m, C)."""
    if count >= len(centroids):
        return np.ones((len(points), len(centroids)), dtype=bool)
    values, unit, _, error = Screen(centroids).apply(points)
    last = np.partition(values, count - 1, axis=1)[:, count - 1].astype(np.float64)
    doubt = 2 * error / unit + 4 * float(np.finfo(np.float32).eps) * np.abs(last)
    mask: Mask = values <= (last + doubt)[:, None]
    unclear = np.flatnonzero(mask.sum(axis=1) > count)
    certain = values[unclear] < (last - doubt)[unclear, None]
    at, cell = np.nonzero(mask[unclear] & ~certain)
    squared = paired_squared_distances(points, centroids, unclear[at], cell)
    kept, _ = smallest_of_each(at, squared, count - certain.sum(axis=1))
    mask[unclear] = certain
    mask[unclear[at[kept]], cell[kept]] = True
    return mask


def _nearest_one(points: Points, centroids: Array) -> Integers:
    found = np.zeros(len(points), dtype=np.int64)
    for start in range(0, len(points), _TILE_ROWS):
        tile = slice(start, start + _TILE_ROWS)
        found[tile] = nearest_cells(points.array(tile), centroids, 1).argmax(axis=1)
    return found


def _k_means(sample: Array, wanted: int, spherical: bool, axes: Axes) -> Array:
    """At most ``wanted`` centroids (C, D) of the sample (s, D), by Lloyd's iterations in float32 along the axes."""
    points = axes.shorten(sample, np.ones(len(sample)))[:, :-1]
    start = np.sort(np.random.default_rng(0).choice(len(points), min(wanted, len(points)), replace=False))
    centroids, nearest = points[start], np.zeros(len(points), dtype=np.int64)
    for _ in range(_ITERATIONS):
        half_squares = np.square(centroids).sum(axis=1) / 2
        for first in range(0, len(points), _TILE_ROWS):
            tile = slice(first, first + _TILE_ROWS)
            nearest[tile] = np.argmax(points[tile] @ centroids.T - half_squares, axis=1)
        centroids = _means(points, nearest)
    found = _means(sample, nearest)
    return _unit(found) if spherical else found


def _means(points: NDArray[Any], part: Integers) -> NDArray[Any]:
    """The means of the points (n, D) of each part, of those that have any; ``part`` (n,) says where each belongs."""
    order = np.argsort(part, kind="stable")
    _, first, counts = np.unique(part[order], return_index=True, return_counts=True)
    sums = np.add.reduceat(points[order], first, axis=0, dtype=np.float64)
    return np.asarray((sums / counts[:, None]).astype(points.dtype))


def _unit(centroids: Array) -> Array:
    """Centroids (C, D) at length 1, as the points are; else the short ones among them would be near to all."""
    lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
    unit: Array = centroids / np.where(lengths > 0, lengths, 1.0)
    return unit


def _halved(sample: Array, centroids: Array, limit: float) -> Array:
    """The centroids, those nearest to more than ``limit`` of the sample replaced by the means of its parts."""
    nearest = _nearest_one(Points.of(sample), centroids)
    kept = [centroids]
    crowded = np.flatnonzero(np.bincount(nearest, minlength=len(centroids)) > limit)
    todo = [np.flatnonzero(nearest == cell) for cell in crowded]
    while todo:
        part = todo.pop()
        halves = _halves(sample[part]) if len(part) > limit else None
        if halves is None:
            points = sample[part]
            kept.append(points[:1] if (points == points[0]).all() else points.mean(axis=0, keepdims=True))
        else:
            todo += [part[half] for half in halves]
    return np.concatenate([np.delete(centroids, crowded, axis=0), *kept[1:]])


def _in_order(points: Array) -> Integers:
    """Their numbers, in an order in which near points (n, D) are close together."""
    todo, ordered = [np.arange(len(points))], []
    while todo:
        part = todo.pop()
        halves = _halves(points[part]) if len(part) > 1 else None
        if halves is None:
            ordered.append(part)
        else:
            todo += [part[half] for half in halves]
    return np.concatenate(ordered)


def _halves(points: Array) -> tuple[Integers, Integers] | None:
    """The places of the two halves of some points (n, D) along their widest direction; None if all are equal."""
    residuals = points - points.mean(axis=0)
    norms = np.square(residuals).sum(axis=1)
    direction = residuals[np.argmax(norms)]
    if (points == points[0]).all() or not norms.max() > 0:
        return None
    for _ in range(5):
        direction = direction / np.linalg.norm(direction)
        direction = residuals.T @ (residuals @ direction)
        if not np.linalg.norm(direction) > 0:
            return None
    order = np.argsort(residuals @ direction, kind="stable")
    return np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])


def _largest(norms: Array) -> float:
    """The root of the largest of some squares, 1 where all are zero."""
    return float(np.sqrt(norms.max(initial=0.0))) or 1.0
