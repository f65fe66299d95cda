"""The K smallest distances of some points to a corpus that arrives in blocks. NumPy only.

A matrix product in float32, of the points less the centre of the block, finds which pairs may be among the K
smallest; those few are then computed again by the formula's rule, :func:`novelsum.formula.squared_lengths`, one
pair at a time. So the result has the same bits whatever the blocks were.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.density.axes import Axes, evenly
from novelsum.density.loops import screen, settle_all
from novelsum.density.points import Points, summation
from novelsum.formula import Array, Formula, Metric, metric_space, squared_lengths
from novelsum.formulas import EQUATIONS, Equation
from novelsum.rows import Integers

_POINT_ROWS = 1024
_TILE_COLUMNS = 1024
_TILE_PAIRS = 1 << 18
_TILE_ROWS = 64
_ROOM = 4
"""Room for so many pairs that may be among the smallest, for each that is wanted."""
_AXES_ROWS = 1024
_NO_QUERY, _NO_CORPUS = -1, -2
_PAIR_BYTES = 1 << 19


@dataclass(frozen=True)
class Sought:
    """What is looked for: K neighbours by a formula and a metric, among the points themselves or in a ``reference``."""

    formula: Formula
    metric: Metric
    neighbors: int
    reference: bool = False

    @property
    def space(self) -> Metric:
        """The space whose squared Euclidean distances are compared; see :func:`novelsum.formula.metric_space`."""
        return self.equation.space(self.metric)

    @property
    def equation(self) -> Equation:
        """The formula's object."""
        return EQUATIONS[self.formula]

    @property
    def among_distinct(self) -> bool:
        """Whether the corpus is the distinct points, a query among them."""
        return self.equation.among_distinct

    @property
    def holds_queries(self) -> bool:
        """Whether a query may find itself, so that one more distance is kept than K."""
        return self.among_distinct or self.reference

    @property
    def count(self) -> int:
        """How many distances are kept of a point."""
        return self.neighbors + self.holds_queries

    def points(self, vectors: NDArray[np.floating[Any]]) -> Array:
        """The points (n, D) float64 of vectors (n, D) in that space, made a few rows at a time."""
        points = np.empty(vectors.shape)
        for start in range(0, len(vectors), _POINT_ROWS):
            points[start : start + _POINT_ROWS] = metric_space(vectors[start : start + _POINT_ROWS], self.space)
        return points

    def of(self, vectors: NDArray[np.floating[Any]]) -> Points:
        """The same points by vectors (n, D) and lengths."""
        lengths = np.ones(len(vectors))
        if self.space == "cosine":
            for start in range(0, len(vectors), _POINT_ROWS):
                rows = vectors[start : start + _POINT_ROWS].astype(np.float64)
                lengths[start : start + _POINT_ROWS] = np.sqrt(np.square(rows).sum(axis=1))
        return Points(vectors, lengths)

    def of_neighbors(self, squared: Array, itself: NDArray[np.bool_] | None = None) -> Array:
        """Squared distances (m, K) to the neighbours, of those kept (m, count).

        Among distinct points the nearest is dropped. In a reference a point that is ``itself`` (m,) there is at
        distance zero.
        """
        if self.among_distinct or not self.reference:
            return squared[:, 1:] if self.among_distinct else squared
        assert itself is not None
        return np.where((itself & (squared[:, 0] == 0))[:, None], squared[:, 1:], squared[:, :-1])

    def density(self, neighbors: Array) -> tuple[Array, Array]:
        """Density factor (m,) and distance to the K-th neighbour (m,) by the squared distances (m, K)."""
        return self.equation.density(neighbors, self.metric), self.equation.kth_distance(neighbors, self.metric)


class Screened:
    """Query points, and the products of their short rows with those of a corpus, which bound the distances."""

    def __init__(self, queries: Points, axes: Axes) -> None:
        self._queries, self._axes = queries, axes
        self._short, self._halves = axes.sought(queries.short_by(axes))
        self._slack = (1 + 1e-9) / (2 * axes.scale) / axes.scale

    def _tiles(
        self, corpus: Points, parts: Iterable[tuple[int, int, Integers]]
    ) -> Iterator[tuple[NDArray[np.float32], Integers, int]]:
        """Of each part of a corpus, from one place to another, and its queries: products (m, n) of some queries (m,)
        with n points, and the place of the first of these.
        """
        short = corpus.short_by(self._axes)
        for start, end, at in parts:
            for first in range(start, end, _TILE_COLUMNS):
                columns = short[first : min(first + _TILE_COLUMNS, end)].T
                step = max(_TILE_ROWS, _TILE_PAIRS // columns.shape[1])
                for tile in range(0, len(at), step):
                    here = at[tile : tile + step]
                    yield self._short[here] @ columns, here, first

    def _doubts(self, corpus: Points) -> Array:
        """Of an estimated distance: its relative error, its absolute error, and above what it says nothing."""
        kinds = {self._queries.vectors.dtype.type, corpus.vectors.dtype.type}
        number = np.finfo(np.float32 if np.float32 in kinds else np.float64)
        dimension, unit = corpus.vectors.shape[1], float(number.eps) / 2
        # A coordinate of a point of length 1 has two roundings, of 1 / length and of the product; each counts twice.
        of_points = 0.0 if self._queries.are_vectors and corpus.are_vectors else 4.2 * unit
        vanished = float(np.sqrt(4 * dimension * float(number.tiny)))
        return np.array([1.1 * (dimension + 8) * unit, of_points + vanished, float(number.max) ** 0.5 / 16])


class NearestDistances(Screened):
    """The ``count`` smallest squared distances of m query points to a growing corpus.

    Parameters
    ----------
    queries : m points, or (m, D) float64.
    query_rows : (m,) int64; a corpus point with the same row is the query itself, and left out. None: the
        corpus holds no query, or a query is wanted as its own neighbour.
    count : how many to keep; ``squared`` holds inf where the corpus has been smaller so far.
    squared : (m, count) float64, ascending: what an earlier search found.
    axes : by which pairs are screened; None: by all coordinates. The result is the same by any.
    """

    def __init__(
        self,
        queries: "Points | Array",
        count: int,
        query_rows: Integers | None = None,
        squared: Array | None = None,
        axes: Axes | None = None,
    ) -> None:
        queries = queries if isinstance(queries, Points) else Points.of(queries)
        super().__init__(queries, axes or Axes.all(queries.array(evenly(len(queries), _AXES_ROWS))))
        self.squared = np.full((len(self._queries), count), np.inf) if squared is None else squared.copy()
        """(m, count) float64, ascending."""
        self.labels = np.full((len(self._queries), count), -1, dtype=np.int32)
        """(m, count): the label of the point, or of its part of the corpus, that a distance leads to, -1 for none."""
        self._rows = np.full(len(self._queries), _NO_QUERY) if query_rows is None else query_rows
        self._room = np.empty((len(self._queries), _ROOM * count + _ROOM), dtype=np.int32)
        self._upper = self.squared.copy()
        self._lows = np.empty(self._room.shape)
        self._kept = np.zeros(len(self._queries), dtype=np.int64)

    def add(
        self,
        corpus: "Points | Array",
        corpus_rows: Integers | None = None,
        *,
        at: Integers | None = None,
        label: int | Integers = 0,
    ) -> None:
        """Take a block of the corpus, n points or (n, D), into account, for the queries ``at`` or all.

        Its rows (n,) tell which of its points are queries; without them none is. ``label``: of all, or of each (n,).
        """
        at = np.arange(len(self._queries)) if at is None else at
        self.add_parts(corpus, corpus_rows, [(0, len(corpus), at, label)])

    def add_parts(
        self,
        corpus: "Points | Array",
        corpus_rows: Integers | None,
        parts: Iterable[tuple[int, int, Integers, int | Integers]],
    ) -> None:
        """The same of parts of a block: the first place and the end of each, its queries and its label.

        Of points at one distance the first that was added counts.
        """
        corpus = corpus if isinstance(corpus, Points) else Points.of(corpus)
        if not len(corpus) or not len(self._queries):
            return
        rows = np.full(len(corpus), _NO_CORPUS) if corpus_rows is None else corpus_rows
        parts, labels = list(parts), np.zeros(len(corpus), dtype=np.int32)
        for start, end, at, label in parts:
            self._upper[at] = self.squared[at]
            labels[start:end] = label
        order = summation(corpus.vectors.shape[1])
        found = (self._room, self._lows, self._kept, self.squared, self.labels, self._upper)
        of_queries = (self._queries.vectors, self._queries.lengths)
        of_corpus = (corpus.vectors, corpus.lengths)
        inverse = (self._queries.inverse, corpus.inverse)
        doubts = self._doubts(corpus)
        for values, here, first in self._tiles(corpus, ((start, end, at) for start, end, at, _ in parts)):
            screen(
                *(values, here, first, self._halves, self._slack, doubts, self._rows, rows, *found),
                *(*of_queries, inverse[0], *of_corpus, inverse[1]),
                *(labels, *order),
            )
        settle_all(*found, *of_queries, *of_corpus, labels, *order)


def paired_squared_distances(a: Array, b: Array, a_at: Integers, b_at: Integers) -> Array:
    """Squared distances of the pairs (a[a_at], b[b_at]), each by the formula's own rule: (pairs,) float64."""
    squared = np.empty(len(a_at))
    step = max(1, _PAIR_BYTES // (8 * max(1, a.shape[1])))
    for start in range(0, len(a_at), step):
        pairs = slice(start, start + step)
        squared[pairs] = squared_lengths(a[a_at[pairs]] - b[b_at[pairs]])
    return squared


def smallest_of_each(at: Integers, values: Array, count: int | Integers) -> tuple[Integers, Integers]:
    """Of values (pairs,) found for rows ``at`` (pairs,) the ``count`` smallest of each row, ties by position.

    Returns their positions, by row and ascending in each, and their places in their row, from 0.
    """
    order = np.lexsort((values, at))
    sorted_at = at[order]
    place = np.arange(len(at)) - np.searchsorted(sorted_at, sorted_at)
    kept = place < (count if isinstance(count, int) else count[sorted_at])
    return order[kept], place[kept]
