"""Which candidates may be picked next, by quotas, costs and distances, after the picks so far. NumPy only."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from novelsum.density.neighbors import paired_squared_distances
from novelsum.formula import Array, Metric, from_squared
from novelsum.rows import Integers
from novelsum.selection.closings import Closings

_SLACK = 1e-11
"""By so much of the squares of its points a squared distance may be off that comes from a product in float64."""


class Turn:
    """The picks of a strategy as far as they close candidates; one that closes never opens again.

    ``before`` (begun, D): points of the metric's space that were selected before.
    """

    def __init__(self, closings: Closings, metric: Metric, before: Array) -> None:
        self.closings, self._metric = closings, metric
        self.picked, self.spent = 0, Fraction(0)
        self.by_group = np.zeros(len(closings.quotas.groups) if closings.quotas else 1, np.int64)
        self._points, self._count = np.array(before, np.float64), len(before)

    @property
    def is_over(self) -> bool:
        """Whether there are as many picks as there may be."""
        return self.picked >= self.closings.picks

    @property
    def missing(self) -> int:
        """How many picks there may still be, at most."""
        return self.closings.picks - self.picked

    @property
    def left(self) -> float:
        """What the next pick may cost at most."""
        return self.closings.left(self.spent)

    @property
    def groups_open(self) -> NDArray[np.bool_]:
        """From which groups (G,) the next pick may come."""
        found = self.closings.groups_open(self.by_group)
        return np.ones(len(self.by_group), np.bool_) if found is None else found

    def is_open(self, group: int, cost: float) -> bool:
        """Whether the next pick may be of that group and cost so much."""
        return bool(cost <= self.left and self.groups_open[group])

    def is_near(self, point: Array) -> bool:
        """Whether a point (D,) is nearer to a pick, or to a sample selected before, than the selection allows."""
        limit, taken = self.closings.distance, self._points[: self._count]
        if not limit or not len(taken):
            return False
        squared, norms = (limit * 2 if self._metric == "cosine" else limit**2), np.square(taken).sum(axis=1)
        own = float(point @ point)
        about = norms + own - 2 * (taken @ point)
        at = np.flatnonzero(about <= squared + _SLACK * (norms + own))
        exact = paired_squared_distances(point[None], taken, np.zeros(len(at), np.int64), at)
        return bool((from_squared(exact, self._metric) < limit).any())

    def take(self, group: int, cost: float, point: Array | None) -> None:
        """Count a pick. ``point`` (D,): where it lies, if others may not be near to it."""
        self.picked += 1
        self.by_group[group] += 1
        self.spent += Fraction(cost)
        if self.closings.distance and point is not None:
            if self._count == len(self._points):
                room = np.empty((max(16, 2 * self._count), len(point)))
                room[: self._count] = self._points
                self._points = room
            self._points[self._count] = point
            self._count += 1


def open_places(groups: Integers, costs: Array, groups_open: NDArray[np.bool_], left: float) -> NDArray[np.bool_]:
    """Which of some candidates (n,) may be picked, by group and cost."""
    return groups_open[groups] & (costs <= left)
