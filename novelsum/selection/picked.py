"""All picks as the driver holds them: as in the store, and measured from there. NumPy only."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum import formula
from novelsum.density.neighbors import paired_squared_distances
from novelsum.formula import Array, Metric, from_squared, metric_space, squared_distances
from novelsum.rows import Integers
from novelsum.selection.candidates import Candidates, Units
from novelsum.selection.ranking import to_distances
from novelsum.selection.scoring import Scoring

_SERIAL = 1 << 18
"""Of products of no more multiplications BLAS makes none in threads, which cost more than they save."""
_THREADED = 1 << 24
"""From so many on its threads are worth it."""
_TILE_BYTES = 1 << 21
"""Vectors of so many bytes, in float64, are multiplied at a time."""


def pick_bytes(dimension: int, itemsize: int) -> int:
    """Bytes that a pick takes; ``itemsize`` of a value of its vector."""
    return itemsize * dimension + 40


class Picked:
    """Picks by their places, with room for all that there will be; those after the ones made mean nothing.

    ``rows`` (places,) int64; ``vectors`` (places, D) as in the store; ``powered`` (places,) float64, σ^κ2 in units, and
    ``lightest``, the least of it up to each place.
    """

    def __init__(self, like: Candidates, places: int, scoring: Scoring, units: Units) -> None:
        self._scoring, self._units = scoring, units
        self.rows = np.empty(places, np.int64)
        self.vectors = np.empty((places, like.vectors.shape[1]), like.vectors.dtype)
        self.powered, self.lightest = np.empty(places), np.empty(places)
        self._norms, self._factors = np.empty(places), np.empty(places)
        self.greatest_norm = 0.0
        self._tile = max(16, _TILE_BYTES // (8 * self.vectors.shape[1]))
        self._others = np.empty((self._tile, self.vectors.shape[1]))

    def put(self, place: int, picks: Candidates) -> None:
        """Picks as they are stored, from a place on."""
        for tile in self._tiles(slice(place, place + len(picks))):
            part = picks[tile.start - place : tile.stop - place]
            self.add(tile, part.rows, part.vectors, part.powered / self._units.powered)

    def add(self, at: slice, rows: Any, vectors: NDArray[Any], powered: Any) -> None:
        """Picks by rows (k,), vectors (k, D) as they are stored, and σ^κ2 (k,) in units; no more than fit a tile."""
        self.rows[at], self.vectors[at], self.powered[at] = rows, vectors, powered
        before = self.lightest[at.start - 1] if at.start else np.inf
        self.lightest[at] = np.minimum(np.minimum.accumulate(self.powered[at]), before)
        points = self.points(at)
        self._norms[at] = np.square(points).sum(axis=1)
        lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1))
        self._factors[at] = 1 / (lengths if self._scoring.metric == "cosine" else self._units.length)
        self.greatest_norm = max(self.greatest_norm, float(self._norms[at].max()))

    def points(self, at: slice | Integers) -> Array:
        """Some picks as float64 points of the metric's space, in units."""
        points: Array = metric_space(self.vectors[at], self._scoring.metric) / self._units.length
        return points

    def distances(self, points: Array, norms: Array, picks: slice) -> Array:
        """Distances (m, k) of points with these squared lengths (m,) to some picks, by matrix products."""
        distances = np.empty((len(points), picks.stop - picks.start))
        are_many = distances.size * points.shape[1] > _THREADED
        for tile in self._tiles(picks):
            others = self._others[: tile.stop - tile.start]
            others[:] = self.vectors[tile]
            products = points @ others.T if are_many else product(points, others)
            lengths = (norms, self._norms[tile], self._factors[tile])
            columns = slice(tile.start - picks.start, tile.stop - picks.start)
            distances[:, columns] = measured(
                products, lengths, points, partial(self.points, tile), self._scoring.metric
            )
        return distances

    def novelty(self, point: Array, own: Array, n: int) -> float:
        """v of a candidate (1, D), with σ^κ2 (1,) in units, against the first n picks by the formula itself."""
        by_row = np.argsort(self.rows[:n])
        squared = np.empty((1, n))
        for tile in self._tiles(slice(0, n)):
            squared[:, tile] = squared_distances(point, self.points(tile))
        v = formula.novelty(
            from_squared(squared, self._scoring.metric)[:, by_row],
            self.powered[by_row],
            own,
            formula=self._scoring.formula,
            proximity_power=self._scoring.proximity_power,
            density_power=1.0,
        )
        return float(v[0])

    def _tiles(self, picks: slice) -> list[slice]:
        starts = range(picks.start, picks.stop, self._tile)
        return [slice(start, min(start + self._tile, picks.stop)) for start in starts]


def measured(
    products: Array, lengths: tuple[Array, Array, Array], points: Array, others: Callable[[], Array], metric: Metric
) -> Array:
    """Distances from the products (m, k) of points (m, D) and others, in their place; pairs near one another by rule.

    ``lengths``: the squared ones (m,), those of the others (k,), and what their products are to be multiplied by (k,).
    """
    if to_distances(products, *lengths, metric == "cosine"):
        at, column = np.nonzero(np.isnan(products))
        squared = paired_squared_distances(points, others(), at, column)
        products[at, column] = from_squared(squared, metric)
    return products


def product(points: Array, others: Array) -> Array:
    """The scalar products (m, k) of points and others, a few of them at a time on one thread."""
    products = np.empty((len(points), len(others)))
    step = max(16, _SERIAL // max(1, points.size))
    for start in range(0, len(others), step):
        np.matmul(points, others[start : start + step].T, out=products[:, start : start + step])
    return products
