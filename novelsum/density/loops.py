"""The loops of the search for the nearest, compiled: which pairs may be among the smallest, and what those come to.

A *point* is a row of ``vectors`` (n, D) float32 or float64 divided by its length; *inverse* (n,) of the same type has
1 / length, for estimates. A query has its K smallest squared distances ``squared`` (m, K) ascending with their
``labels``, its K smallest upper bounds ``upper`` (m, K) ascending, and ``counts`` (m,) pairs ``kept`` (m, r) for it,
with lower bounds ``lows`` (m, r).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.compiled import compiled, reordered

_STRIDE = 32
"""So many values are looked at together: mostly none of them is large enough."""
_VANISHED = 1e-27
"""More than the numbers too small for float32 come to, of points up to a million times as long as most."""

Row = NDArray[Any]
Table = NDArray[Any]


@reordered
def estimate(a: Row, a_inverse: Any, b: Row, b_inverse: Any) -> Any:
    """The squared distance of two points, in the precision of the vectors (D,) and in any order of summation."""
    total = a_inverse * 0 + b_inverse * 0
    for k in range(a.shape[0]):
        difference = a[k] * a_inverse - b[k] * b_inverse
        total += difference * difference
    return total


@compiled
def added(terms: Row, ends: Row, merges: Row, sums: Row) -> Any:
    """Σ of terms (D,) with the bits of NumPy's sum along a row.

    It adds up parts of at most 128, in eight sums each, and the parts pair by pair: ``ends`` (p,) says where the parts
    end, ``merges`` (p,) how many pairs of sums are added after each; ``sums`` is room for them.
    """
    start, top = 0, 0
    for part in range(ends.shape[0]):
        total = 0.0
        if ends[part] - start >= 8:
            a = b = c = d = e = f = g = h = 0.0
            while ends[part] - start >= 8:
                a, b, c, d = a + terms[start], b + terms[start + 1], c + terms[start + 2], d + terms[start + 3]
                e, f, g, h = e + terms[start + 4], f + terms[start + 5], g + terms[start + 6], h + terms[start + 7]
                start += 8
            total = ((a + b) + (c + d)) + ((e + f) + (g + h))
        while start < ends[part]:
            total += terms[start]
            start += 1
        sums[top] = total
        top += 1
        for _ in range(merges[part]):
            top -= 1
            sums[top - 1] += sums[top]
    return sums[0]


@compiled
def insert(smallest: Row, value: float) -> Any:
    """Put a value that is below the last into its place in an ascending list; return the place."""
    place = smallest.shape[0] - 1
    while place > 0 and smallest[place - 1] > value:
        smallest[place] = smallest[place - 1]
        place -= 1
    smallest[place] = value
    return place


@compiled
def settle(
    row: int, kept: Row, lows: Row, count: int, squared: Table, labels: Table, upper: Table,
    a: Row, a_length: float, b: Table, b_lengths: Row, of_corpus: Row, ends: Row, merges: Row, room: Table,
) -> None:  # fmt: skip
    """Compute the pairs kept for a query by the formula's rule, and take in what is smaller than what it has.

    ``a`` (D,) is its vector, ``b`` (n, D) are those of the corpus, and ``of_corpus`` (n,) their labels; ``room`` (3, D)
    is for the point, for squares and for sums.
    """
    last = squared.shape[1] - 1
    point, squares = room[0], room[1]
    for k in range(a.shape[0]):
        point[k] = a[k] / a_length
    for i in range(count):
        if lows[i] > upper[row, last] or squared[row, last] <= 0.0:
            continue
        j = kept[i]
        for k in range(a.shape[0]):
            difference = point[k] - b[j, k] / b_lengths[j]
            squares[k] = difference * difference
        found = added(squares[: a.shape[0]], ends, merges, room[2])
        if found < squared[row, last]:
            place = insert(squared[row], found)
            for k in range(last, place, -1):
                labels[row, k] = labels[row, k - 1]
            labels[row, place] = of_corpus[j]
    for k in range(last + 1):
        upper[row, k] = squared[row, k]


@compiled
def settle_all(
    kept: Table, lows: Table, counts: Row, squared: Table, labels: Table, upper: Table,
    a: Table, a_lengths: Row, b: Table, b_lengths: Row, of_corpus: Row, ends: Row, merges: Row, room: Table,
) -> None:  # fmt: skip
    """Compute the pairs kept for all queries."""
    for row in range(counts.shape[0]):
        if counts[row]:
            settle(
                *(row, kept[row], lows[row], counts[row], squared, labels, upper, a[row], a_lengths[row]),
                *(b, b_lengths, of_corpus, ends, merges, room),
            )
            counts[row] = 0


@compiled
def screen(
    values: Table, at: Row, first: int, halves: Row, scale: float, doubts: Row, query_rows: Row, corpus_rows: Row,
    kept: Table, lows: Table, counts: Row, squared: Table, labels: Table, upper: Table,
    a: Table, a_lengths: Row, a_inverse: Row, b: Table, b_lengths: Row, b_inverse: Row,
    of_corpus: Row, ends: Row, merges: Row, room: Table,
) -> None:  # fmt: skip
    """Look through the products of queries ``at`` (m,) with corpus points ``first`` and after: values (m, n) float32.

    ``halves`` - value, divided by ``scale``, is a lower bound on the squared distance. Where it is at most the K-th
    smallest upper bound of the query, the pair is estimated in full, and kept unless the estimate, less its error, is
    above that too. The bounds fall as pairs come. ``doubts`` has the relative and the absolute error of the root of
    an estimate, and the largest that counts.
    """
    last = squared.shape[1] - 1
    width = values.shape[1]
    for i in range(at.shape[0]):
        row, value = at[i], values[i]
        if squared[row, last] <= 0.0:  # nothing is smaller
            continue
        least = below(halves[row] - upper[row, last] * scale)
        for start in range(0, width, _STRIDE):
            end = min(start + _STRIDE, width)
            some = False
            for j in range(start, end):
                some |= value[j] >= least
            if not some:
                continue
            for j in range(start, end):
                c = first + j
                if value[j] < least or query_rows[row] == corpus_rows[c]:
                    continue
                root = np.sqrt(np.float64(estimate(a[row], a_inverse[row], b[c], b_inverse[c])))
                low, high = 0.0, np.inf
                if root < doubts[2]:
                    low = max(0.0, root * (1 - doubts[0]) - doubts[1]) ** 2
                    high = (root * (1 + doubts[0]) + doubts[1]) ** 2
                if low > upper[row, last]:
                    continue
                if counts[row] == kept.shape[1]:
                    settle(
                        *(row, kept[row], lows[row], counts[row], squared, labels, upper, a[row], a_lengths[row]),
                        *(b, b_lengths, of_corpus, ends, merges, room),
                    )
                    counts[row] = 0
                kept[row, counts[row]] = c
                lows[row, counts[row]] = low
                counts[row] += 1
                if high < upper[row, last]:
                    insert(upper[row], high)
                least = below(halves[row] - upper[row, last] * scale)


@compiled
def seek(
    values: Table, at: Row, first: int, halves: Row, scale: float, doubts: Row, before: Row, corpus_numbers: Row,
    one_is_enough: bool, squared: Row, numbers: Row,
    a: Table, a_lengths: Row, a_inverse: Row, b: Table, b_lengths: Row, b_inverse: Row,
    ends: Row, merges: Row, room: Table,
) -> None:  # fmt: skip
    """Look through the products of queries ``at`` (m,) with corpus points ``first`` and after: values (m, n) float32.

    ``squared`` (q,) and ``numbers`` (q,) of each query are the least squared distance so far and the number of the
    point it leads to, or the largest that counts and a number above all; of equal distances the smallest number wins. A
    point counts for a query whose number is in ``before`` (q,) below it. Where ``one_is_enough``, a query that has
    found one seeks no more. The rest is as in :func:`screen`, but that a pair is decided at once.
    """
    width = values.shape[1]
    point, squares = room[0], room[1]
    for i in range(at.shape[0]):
        row, value = at[i], values[i]
        if one_is_enough and numbers[row] < before[row]:
            continue
        is_ready = False
        least = below(halves[row] - squared[row] * scale)
        for start in range(0, width, _STRIDE):
            end = min(start + _STRIDE, width)
            some = False
            for j in range(start, end):
                some |= value[j] >= least
            if not some:
                continue
            for j in range(start, end):
                c = first + j
                if value[j] < least or corpus_numbers[c] >= before[row]:
                    continue
                root = np.sqrt(np.float64(estimate(a[row], a_inverse[row], b[c], b_inverse[c])))
                if root < doubts[2] and max(0.0, root * (1 - doubts[0]) - doubts[1]) ** 2 > squared[row]:
                    continue
                if not is_ready:
                    for k in range(a.shape[1]):
                        point[k] = a[row, k] / a_lengths[row]
                    is_ready = True
                for k in range(a.shape[1]):
                    difference = point[k] - b[c, k] / b_lengths[c]
                    squares[k] = difference * difference
                found = added(squares[: a.shape[1]], ends, merges, room[2])
                if found < squared[row] or (found == squared[row] and corpus_numbers[c] < numbers[row]):
                    squared[row], numbers[row] = found, corpus_numbers[c]
                    least = below(halves[row] - squared[row] * scale)
                    if one_is_enough:
                        break
            if one_is_enough and numbers[row] < before[row]:
                break


@compiled
def below(value: float) -> Any:
    """A float32 below a float64, by as much as what vanishes in a product too; -inf where that is out of range."""
    if value < -1e37:
        return np.float32(-np.inf)
    return np.float32(value - 1.2e-7 * abs(value) - _VANISHED)
