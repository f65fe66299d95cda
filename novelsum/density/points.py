"""Points of a metric's space as their vectors and lengths, so that no copy in float64 is made of many. NumPy only."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.density.axes import Axes, Short
from novelsum.formula import Array
from novelsum.rows import Integers

_SUMMED = 128
"""NumPy adds up so many numbers in one go, and halves what is longer."""


@dataclass(frozen=True)
class Points:
    """n points: ``vectors`` (n, D) of any float type, divided by ``lengths`` (n,) float64.

    ``short`` (n, d + 2): the same by the axes of the search, where they are known.
    """

    vectors: NDArray[np.floating[Any]]
    lengths: Array
    short: Short | None = None

    @staticmethod
    def of(points: Array) -> "Points":
        """Points (n, D) as they are."""
        return Points(points, np.ones(len(points)))

    def __post_init__(self) -> None:
        for name in ("vectors", "lengths"):
            array = np.ascontiguousarray(getattr(self, name)).view()
            array.flags.writeable = False  # one type for the compiled loops, whether it lies in a file or not
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def inverse(self) -> NDArray[np.floating[Any]]:
        """1 / length (n,), in the type of the vectors."""
        return (1.0 / self.lengths).astype(self.vectors.dtype)

    @property
    def are_vectors(self) -> bool:
        """Whether all lengths are 1."""
        return bool((self.lengths == 1.0).all())

    def take(self, places: Integers | slice) -> "Points":
        """The points at some places."""
        return Points(self.vectors[places], self.lengths[places], None if self.short is None else self.short[places])

    def array(self, places: Integers | slice = slice(None)) -> Array:
        """The points (m, D) at some places, or all, in float64; by the formula's own division."""
        return self.vectors[places].astype(np.float64) / self.lengths[places, None]

    def shortened(self, axes: Axes) -> "Points":
        """The same with their short rows."""
        return Points(self.vectors, self.lengths, self.short_by(axes))

    def short_by(self, axes: Axes) -> Short:
        """Their short rows (n, d + 2), by the axes that ``short`` was made by, if it was."""
        return axes.shorten(self.vectors, self.lengths) if self.short is None else self.short


@cache
def summation(count: int) -> tuple[Integers, Integers, Array]:
    """How NumPy adds up so many numbers of a row: ends of the parts, sums merged after each, and room for the loops."""
    ends: list[int] = []
    merges: list[int] = []

    def part(start: int, size: int) -> None:
        if size <= _SUMMED:
            ends.append(start + size)
            merges.append(0)
            return
        half = size // 2
        half -= half % 8
        part(start, half)
        part(start + half, size - half)
        merges[-1] += 1

    part(0, count)
    return np.array(ends), np.array(merges), np.zeros((3, max(count, 64)))
