"""The K smallest distances of some points to a corpus that arrives in blocks. NumPy only.

A matrix product in float32, of the points less the centre of the block, finds which pairs may be among the K
smallest; those few are then computed again by the formula's rule, :func:`novelsum.formula.squared_lengths`, one
pair at a time. So the result has the same bits whatever the blocks were.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.formula import Array, Formula, Metric, metric_space, squared_lengths
from novelsum.formulas import EQUATIONS, Equation
from novelsum.rows import Integers

_POINT_ROWS = 1024
_TILE_PAIRS = 1 << 20
_TILE_BYTES = 2 << 20
_TILE_ROWS = 256
_CORPUS_ROWS = 1 << 14
_PAIR_BYTES = 1 << 19
_CROWD = 16
"""With more candidates than this for each neighbour wanted, a finer screening is cheaper than computing them."""


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


class NearestDistances:
    """The ``count`` smallest squared distances of m query points to a growing corpus.

    Parameters
    ----------
    queries : (m, D) float64.
    query_rows : (m,) int64; a corpus point with the same row is the query itself, and left out. None: the
        corpus holds no query, or a query is wanted as its own neighbour.
    count : how many to keep; ``squared`` holds inf where the corpus has been smaller so far.
    squared : (m, count) float64, ascending: what an earlier search found.
    """

    def __init__(
        self, queries: Array, count: int, query_rows: Integers | None = None, squared: Array | None = None
    ) -> None:
        self.squared = np.full((len(queries), count), np.inf) if squared is None else squared.copy()
        """(m, count) float64, ascending."""
        self.labels = np.full((len(queries), count), -1, dtype=np.int32)
        """(m, count): the label of the part of the corpus that each distance leads to, -1 for none."""
        self._queries = queries
        self._rows = query_rows

    def add(
        self, corpus: Array, corpus_rows: Integers | None = None, *, at: Integers | None = None, label: int = 0
    ) -> None:
        """Take a block of the corpus (n, D) into account, for the queries ``at`` or all.

        Its rows (n,) tell which of its points are queries; without them none is.
        """
        at = np.arange(len(self._queries)) if at is None else at
        for first in range(0, len(corpus), _CORPUS_ROWS):
            part = corpus[first : first + _CORPUS_ROWS]
            rows = None if corpus_rows is None else corpus_rows[first : first + _CORPUS_ROWS]
            screen = Screen(part)
            by_bytes = _TILE_BYTES // (8 * max(1, part.shape[1]))
            step = max(_TILE_ROWS, min(_TILE_PAIRS // len(part), by_bytes))
            for start in range(0, len(at), step):
                self._add_tile(at[start : start + step], part, rows, screen, label)

    def _add_tile(self, at: Integers, corpus: Array, corpus_rows: Integers | None, screen: Screen, label: int) -> None:
        """For some queries: screen, compute again what may be among the smallest, merge."""
        query_at, corpus_at = self._candidates(at, corpus_rows, screen)
        if not len(query_at):
            return
        if len(query_at) > _CROWD * self.squared.shape[1] * len(at):
            if screen.kind is np.float32:
                return self._add_tile(at, corpus, corpus_rows, Screen(corpus, np.float64), label)
            half = len(corpus) // 2
            if half > self.squared.shape[1]:  # copies by the hundred: a few of them lower the limit for the rest
                for part in (slice(0, half), slice(half, None)):
                    rows = None if corpus_rows is None else corpus_rows[part]
                    self._add_tile(at, corpus[part], rows, Screen(corpus[part], np.float64), label)
                return
        squared = paired_squared_distances(self._queries, corpus, at[query_at], corpus_at)
        improved, query_at = np.unique(query_at, return_inverse=True)
        here = at[improved]
        self.squared[here], self.labels[here] = _merged(self.squared[here], self.labels[here], query_at, squared, label)

    def _candidates(self, at: Integers, corpus_rows: Integers | None, screen: Screen) -> tuple[Integers, Integers]:
        """Pairs (place in ``at``, place in the corpus) that may be among the smallest."""
        values, unit, norms, error = screen.apply(self._queries[at])
        if self._rows is not None and corpus_rows is not None:
            _, query_at, corpus_at = np.intersect1d(
                self._rows[at], corpus_rows, assume_unique=True, return_indices=True
            )
            values[query_at, corpus_at] = np.inf
        count, furthest = self.squared.shape[1], self.squared[at, -1]
        limit = (furthest + error - norms) / unit
        open_ = np.flatnonzero(np.isinf(furthest))
        if len(open_) and values.shape[1] > count:
            smallest = np.partition(values[open_], count - 1, axis=1)[:, count - 1]
            limit[open_] = smallest + 2 * error[open_] / unit
        number = np.finfo(values.dtype)
        with np.errstate(over="ignore"):
            limit += 4 * float(number.eps) * np.abs(limit)  # it is rounded below
            limit = np.minimum(limit, float(number.max)).astype(values.dtype)  # the query itself is at inf
        limit[furthest == 0] = -np.inf  # nothing is smaller than zero
        flat = np.flatnonzero(values <= limit[:, None])
        return flat // values.shape[1], flat % values.shape[1]


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


def _merged(
    best: Array, labels: NDArray[np.int32], at: Integers, values: Array, label: int
) -> tuple[Array, NDArray[np.int32]]:
    """The smallest of each row of ``best`` (m, count) and the values (pairs,) found for row ``at`` (pairs,)."""
    count = best.shape[1]
    kept, place = smallest_of_each(at, values, count)
    found: Array = np.full(best.shape, np.inf)
    found[at[kept], place] = values[kept]
    both = np.concatenate([best, found], axis=1)
    both_labels = np.concatenate([labels, np.full(found.shape, label, dtype=np.int32)], axis=1)
    order = np.argsort(both, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(both, order, axis=1), np.take_along_axis(both_labels, order, axis=1)


def _largest(norms: Array) -> float:
    """The root of the largest of some squares, 1 where all are zero."""
    return float(np.sqrt(norms.max(initial=0.0))) or 1.0
