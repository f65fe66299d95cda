"""Compiled loops over one row of distances, before and after it is sorted.

A key is a distance in fixed point, shifted left, with the row of the other point below it; see ``novelsum``. n points,
n - 1 others; ranks are places, the nearest first.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.compiled import compiled, reordered

INTEGER = 2.0**52
"""Added to a number below it, it leaves the number, rounded, in the lowest bits."""
_INTEGER_BITS = np.uint64(0x433 << 52)

Row = NDArray[Any]
Table = NDArray[Any]


@compiled
def to_keys(products: Row, norms: Row, offset: Any, is_cosine: bool, rows: Row, shift: Any) -> None:
    """Make scaled, negative products (n,) float64 keys, in their place; ``rows`` (n,) uint64."""
    for k in range(products.shape[0]):
        value = products[k] + (offset + INTEGER) if is_cosine else (products[k] + norms[k]) + (offset + INTEGER)
        products[k] = value if value > INTEGER else INTEGER
    keys = products.view(np.uint64)
    for k in range(products.shape[0]):
        keys[k] = (keys[k] << shift) | rows[k]


@compiled
def from_keys(keys: Row, shift: Any, inverse: Any, is_cosine: bool, others: Row) -> None:
    """Make keys (n - 1,) distances, in their place, and write the rows of the others (n - 1,) int64."""
    mask = (np.uint64(1) << shift) - np.uint64(1)
    for r in range(keys.shape[0]):
        key = keys[r]
        others[r] = np.int64(key & mask)
        keys[r] = (key >> shift) | _INTEGER_BITS
    d = keys.view(np.float64)
    for r in range(d.shape[0]):
        value = (d[r] - INTEGER) * inverse
        d[r] = value if is_cosine else np.sqrt(value)


@reordered
def add_up(d: Row, weights: Table, sums: Row, shifted: Row) -> Any:
    """Σ w·d for each row of ``weights`` (p, n), and the same with each weight that of one rank later, and Σ d."""
    total = 0.0
    for r in range(d.shape[0]):
        total += d[r]
    for power in range(weights.shape[0]):
        one, other = 0.0, 0.0
        for r in range(d.shape[0]):
            one += weights[power, r] * d[r]
            other += weights[power, r + 1] * d[r]
        sums[power], shifted[power] = one, other
    return total


@compiled
def spread(others: Row, d: Row, weights: Table, column: Row, mass: Table) -> None:
    """Add w·d of each other point to its mass (m, p); ``column`` (n,): its place there, negative if it has none."""
    for r in range(d.shape[0]):
        at = column[others[r]]
        if at >= 0:
            for power in range(weights.shape[0]):
                mass[at, power] += weights[power, r] * d[r]


@compiled
def leave_out(others: Row, d: Row, weights: Row, of_row: Any, of_column: Row, without: Row) -> Any:
    """The sum of a row's terms w·d·of_row·of_column, returned, and how it changes without each other point.

    Without it, its own term is gone, and each farther one has the weight of the rank before its own.
    """
    total, gained = 0.0, 0.0
    for r in range(d.shape[0] - 1, -1, -1):
        other = others[r]
        value = d[r] * of_column[other] * of_row
        term = weights[r] * value
        without[other] += gained - term
        total += term
        if r:
            gained += (weights[r - 1] - weights[r]) * value
    return total
