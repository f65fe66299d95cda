"""What closes candidates: quotas of their groups, a cost that no longer fits, a pick that is too near. NumPy only.

A candidate is *open* while it may be the next pick. One that closes never opens again: what is left of the cost budget
only shrinks, the nearest pick only gets nearer, and groups close for good too (:mod:`~novelsum.selection.quotas`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from novelsum.amounts import at_most
from novelsum.density.neighbors import paired_squared_distances
from novelsum.formula import Array, Metric, from_squared
from novelsum.rows import Integers
from novelsum.selection.quotas import Quotas


@dataclass(frozen=True)
class Closings:
    """What a selection closes candidates by.

    ``picks``: how many there may be at most, as quotas count. ``cost``: what they may cost together, if anything says
    so. ``distance``: nothing nearer than that to a pick is picked; in the units of the selection.
    """

    picks: int
    quotas: Quotas | None = None
    cost: Fraction | None = None
    distance: float = 0.0

    def groups_open(self, picked: Integers) -> NDArray[np.bool_] | None:
        """Which groups (G,) are open after so many picks of each (G,); None: all."""
        return self.quotas.is_open(picked, self.picks - int(picked.sum())) if self.quotas else None

    def left(self, spent: Fraction) -> float:
        """What the next pick may cost at most, when so much is spent: a cost fits if it is no more than that."""
        return np.inf if self.cost is None else at_most(self.cost - spent)


def steps_open(costs: Array, left: Array) -> Integers:
    """Up to which step of a draft, excluded, costs (n,) fit in what is left at each (steps + 1,), which never rises."""
    return np.asarray(np.searchsorted(-left, -costs, side="right"))


def are_near(
    distances: Array,
    points: Array,
    others: Callable[[Integers], Array],
    distance: float,
    tolerance: float,
    metric: Metric,
) -> NDArray[np.bool_]:
    """Whether points (m, D) are nearer than a distance to others, by their ``distances`` (m, k): (m, k).

    Where these, whose squares may be off by the ``tolerance``, leave it open, it is decided by the formula's own rule.
    ``others`` gives the points of some columns.
    """
    near = np.asarray(distances < distance)
    if metric == "cosine":  # half the square
        gap, about = 2 * np.abs(distances - distance), 2 * distance
    else:
        gap, about = np.abs(np.square(distances) - distance**2), distance**2
    at, column = np.nonzero(gap <= 2 * tolerance + 1e-12 * about)
    if len(at):
        columns, which = np.unique(column, return_inverse=True)
        squared = paired_squared_distances(points, others(columns), at, which)
        near[at, column] = from_squared(squared, metric) < distance
    return near
