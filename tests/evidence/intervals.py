"""Statistics of a handful of starts: intervals by Student's t, rank correlation."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

T975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
"""The 97.5% quantile of t with 1, 2, … degrees of freedom."""


class Interval(NamedTuple):
    """A mean and half the width of its 95% interval."""

    mean: float
    half: float

    @property
    def sign(self) -> int:
        """1 if all of it is above zero, -1 if all is below, else 0."""
        return int(self.mean - self.half > 0) - int(self.mean + self.half < 0)


def interval(values: Sequence[float]) -> Interval:
    """Of 2 to 10 values."""
    if not 2 <= len(values) <= len(T975) + 1:
        raise ValueError(f"an interval of {len(values)} values; there are quantiles for 2 to {len(T975) + 1}")
    half = T975[len(values) - 2] * np.std(values, ddof=1) / np.sqrt(len(values))
    return Interval(float(np.mean(values)), float(half))


def ranks(values: Sequence[float]) -> np.ndarray:
    """1 for the least; equal values share the mean of their ranks."""
    _, group, counts = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]


def rank_correlation(some: Sequence[float], others: Sequence[float]) -> float:
    """Spearman's: the correlation of ranks; nan if either is all equal."""
    a, b = (ranks(values) - (len(values) + 1) / 2 for values in (some, others))
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length else float("nan")
