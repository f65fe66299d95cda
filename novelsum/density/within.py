"""Which points lie within a distance of others, and which of them are kept. NumPy only.

Rows are taken in order of preference, and one within ε of a row already kept is dropped. A row's *number* is its place
in that order.
"""

from collections.abc import Iterable

import numpy as np

from novelsum.density.axes import Axes
from novelsum.density.cells import Cells, Mask
from novelsum.density.loops import seek
from novelsum.density.neighbors import Screened
from novelsum.density.points import Points, summation
from novelsum.formula import Metric, from_squared
from novelsum.rows import Integers

NONE = np.iinfo(np.int64).max
"""The number of no row."""
_TILE_ROWS = 256
_REACH_ROWS = 2048
_UNIT = float(np.finfo(np.float64).eps)


def largest_squared(distance: float, metric: Metric) -> float:
    """The largest squared Euclidean distance of points of the metric's space that comes to at most that distance."""
    squared = np.array([2 * distance if metric == "cosine" else distance * distance])
    while from_squared(squared, metric)[0] > distance:
        squared = np.nextafter(squared, -np.inf)
    while from_squared(np.nextafter(squared, np.inf), metric)[0] <= distance:
        squared = np.nextafter(squared, np.inf)
    return float(squared[0])


class NearestWithin(Screened):
    """Of m query points the nearest within a distance among a growing corpus, of equally near ones the first.

    Parameters
    ----------
    limit : the largest squared distance that counts.
    axes : by which pairs are screened; the result is the same by any.
    before : (m,) int64; a corpus point counts for a query if its number is below that. None: all count.
    one_is_enough : whether any point that counts will do, in the place of the nearest.
    """

    def __init__(
        self,
        queries: Points,
        limit: float,
        axes: Axes,
        before: Integers | None = None,
        one_is_enough: bool = False,
    ) -> None:
        super().__init__(queries, axes)
        self.squared = np.full(len(queries), limit)
        """(m,) float64, the limit where nothing was found."""
        self.numbers = np.full(len(queries), NONE)
        """(m,) of the points that were found, or NONE."""
        self._before = self.numbers.copy() if before is None else before
        self._one_is_enough = one_is_enough

    @property
    def found(self) -> Mask:
        """Which queries have found one (m,)."""
        found: Mask = self.numbers != NONE
        return found

    def add(self, corpus: Points, numbers: Integers) -> None:
        """Take a block of the corpus, n points with their numbers (n,), into account, for all queries."""
        self.add_parts(corpus, numbers, [(0, len(corpus), np.arange(len(self._queries)))])

    def add_parts(self, corpus: Points, numbers: Integers, parts: Iterable[tuple[int, int, Integers]]) -> None:
        """The same of parts of a block: the first place and the end of each, and its queries."""
        if not len(corpus) or not len(self._queries):
            return
        of_queries = (self._queries.vectors, self._queries.lengths, self._queries.inverse)
        of_corpus = (corpus.vectors, corpus.lengths, corpus.inverse)
        doubts, order = self._doubts(corpus), summation(corpus.vectors.shape[1])
        found = (self.squared, self.numbers)
        for values, here, first in self._tiles(corpus, self._still_seeking(parts)):
            seek(
                *(values, here, first, self._halves, self._slack, doubts, self._before, numbers),
                self._one_is_enough,
                *(*found, *of_queries, *of_corpus, *order),
            )

    def _still_seeking(self, parts: Iterable[tuple[int, int, Integers]]) -> Iterable[tuple[int, int, Integers]]:
        for start, end, at in parts:
            yield start, end, at[~self.found[at]] if self._one_is_enough else at


def reached(points: Points, own: Integers, cells: Cells, limit: float) -> Mask:
    """Which cells may hold a point whose squared distance to each of m points in the cells ``own`` (m,) is at most
    the limit: (m, C).

    With a the centroid of the own cell and b another, f(z) = ‖z - b‖² - ‖z - a‖² changes by at most 2·‖a - b‖·t over
    a distance t, and in the cell of b it is at most zero, or what rounding makes of that.
    """
    centre = cells.centroids.mean(axis=0)
    centroids = cells.centroids - centre
    squares = np.square(centroids).sum(axis=1)
    lengths = np.sqrt(squares)
    reach = np.sqrt(limit) * (1 + 1e-9)
    between = np.sqrt(np.maximum(squares[:, None] + squares - 2 * centroids @ centroids.T, 0.0))
    unit = 4 * (centroids.shape[1] + 16) * _UNIT
    between += np.sqrt(unit) * (lengths[:, None] + lengths)  # never too small
    mask = np.empty((len(points), len(centroids)), dtype=bool)
    for start in range(0, len(points), _REACH_ROWS):
        tile = slice(start, start + _REACH_ROWS)
        of_tile, cell = points.array(tile) - centre, own[tile]
        to_centroid = squares - 2 * of_tile @ centroids.T  # less the square of the point, which is the same for all
        size = np.sqrt(np.square(of_tile).sum(axis=1))[:, None] + lengths + lengths[cell][:, None] + reach
        beyond = to_centroid - to_centroid[np.arange(len(cell)), cell][:, None]
        mask[tile] = beyond <= 2 * reach * between[cell] + unit * np.square(size)
    return mask


def greedy(points: Points, numbers: Integers, limit: float, axes: Axes) -> Mask:
    """Which of some points (n,) are kept, when they are taken in the order of their numbers: the definition, by tiles.

    A point whose squared distance to one that was kept is at most the limit is dropped.
    """
    points, order = points.shortened(axes), np.argsort(numbers)
    kept = np.zeros(len(points), dtype=bool)
    for start in range(0, len(order), _TILE_ROWS):
        here = order[start : start + _TILE_ROWS]
        search = NearestWithin(points.take(here), limit, axes, one_is_enough=True)
        before = np.sort(order[:start][kept[order[:start]]])
        for first in range(0, len(before), _REACH_ROWS):
            part = before[first : first + _REACH_ROWS]
            search.add(points.take(part), numbers[part])
        left = here[~search.found]
        while len(left):  # the first that is left is kept, and with it all that have none before them
            first_of_all = NearestWithin(points.take(left), limit, axes, numbers[left], one_is_enough=True)
            first_of_all.add(points.take(left), numbers[left])
            leaders = left[~first_of_all.found]
            kept[leaders] = True
            followers = NearestWithin(points.take(left), limit, axes, one_is_enough=True)
            followers.add(points.take(leaders), numbers[leaders])
            left = left[~followers.found]
    return kept
