"""The K smallest distances of some points to a corpus that arrives in blocks. NumPy only.

A matrix product finds which pairs may be among the K smallest; those few are then computed again by
the formula's rule, :func:`novelsum.formula.squared_lengths`, one pair at a time. So the result has the same
bits whatever the blocks were.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.formula import Array, squared_lengths

_TILE_PAIRS = 4 << 20
_PAIR_BYTES = 16 << 20


class NearestDistances:
    """The ``count`` smallest squared distances of m query points to a growing corpus.

    Parameters
    ----------
    queries : (m, D) float64.
    query_rows : (m,) int64; a corpus point with the same row is the query itself, and left out. None: the
        corpus holds no query, or a query is wanted as its own neighbour.
    count : how many to keep; ``squared`` holds inf where the corpus has been smaller so far.
    """

    def __init__(self, queries: Array, count: int, query_rows: NDArray[np.int64] | None = None) -> None:
        self.squared = np.full((len(queries), count), np.inf)
        """(m, count) float64, ascending."""
        self._queries = queries
        self._rows = query_rows
        self._norms = np.square(queries).sum(axis=1)

    def add(self, corpus: Array, corpus_rows: NDArray[np.int64] | None = None) -> None:
        """Take a block of the corpus (n, D) into account; its rows (n,) are needed if the queries have rows."""
        corpus_norms = np.square(corpus).sum(axis=1)
        step = max(1, _TILE_PAIRS // max(1, len(corpus)))
        for start in range(0, len(self._queries), step):
            self._add_tile(slice(start, start + step), corpus, corpus_norms, corpus_rows)

    def _add_tile(self, tile: slice, corpus: Array, corpus_norms: Array, corpus_rows: NDArray[np.int64] | None) -> None:
        queries, best = self._queries[tile], self.squared[tile]
        count, dimension = best.shape[1], queries.shape[1]
        approximate = queries @ corpus.T
        approximate *= -2.0
        approximate += self._norms[tile, None]
        approximate += corpus_norms
        if self._rows is not None:
            assert corpus_rows is not None
            _, query_at, corpus_at = np.intersect1d(
                self._rows[tile], corpus_rows, assume_unique=True, return_indices=True
            )
            approximate[query_at, corpus_at] = np.inf
        # A matrix product errs by less than this: D + 3 roundings of terms of that size, twice over.
        scale = np.square(np.sqrt(self._norms[tile]) + np.sqrt(corpus_norms.max()))
        error = 2 * (dimension + 4) * np.finfo(np.float64).eps * scale
        limit = best[:, -1] + error
        if approximate.shape[1] > count:
            limit = np.minimum(limit, np.partition(approximate, count - 1, axis=1)[:, count - 1] + 2 * error)
        limit = np.minimum(limit, np.finfo(np.float64).max)  # below the inf that marks the query itself
        limit[best[:, -1] == 0] = -np.inf  # nothing is smaller than zero
        query_at, corpus_at = np.nonzero(approximate <= limit[:, None])
        squared = paired_squared_distances(queries, corpus, query_at, corpus_at)
        self.squared[tile] = _merged(best, query_at, squared)


def paired_squared_distances(
    a: Array, b: Array, a_at: NDArray[np.int64], b_at: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Squared distances of the pairs (a[a_at], b[b_at]), each by the formula's own rule: (pairs,) float64."""
    squared = np.empty(len(a_at))
    step = max(1, _PAIR_BYTES // (8 * max(1, a.shape[1])))
    for start in range(0, len(a_at), step):
        pairs = slice(start, start + step)
        squared[pairs] = squared_lengths(a[a_at[pairs]] - b[b_at[pairs]])
    return squared


def _merged(best: Array, at: NDArray[np.int64], values: NDArray[np.float64]) -> Array:
    """The smallest of each row of ``best`` (m, count) and the values (pairs,) found for row ``at`` (pairs,)."""
    count = best.shape[1]
    order = np.lexsort((values, at))
    at, values = at[order], values[order]
    place = np.arange(len(at)) - np.searchsorted(at, at)
    kept = place < count
    found: NDArray[Any] = np.full(best.shape, np.inf)
    found[at[kept], place[kept]] = values[kept]
    return np.sort(np.concatenate([best, found], axis=1), axis=1)[:, :count]
