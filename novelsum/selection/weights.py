"""Weights of ranks, and what distances are multiplied by. NumPy only.

What key, mass and share of a pick are says the formula's object, see :mod:`novelsum.formulas`. All bounds are of the
sum Σ w^κ1 · mass: what it is divided by to be v changes no comparison.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.formula import Array, proximity_weights
from novelsum.formulas import Equation
from novelsum.rows import Integers

Single = NDArray[np.float32]


@dataclass(frozen=True)
class Weights:
    """Proximity weights of the ranks 1 ... budget + 1, and their sums.

    ``w`` (budget + 1,): w[r] is the weight of rank r + 1; ``sums`` (budget + 2,): sums[t] is H(t), the sum of
    the first t weights, and ``squares`` that of their squares. All float64.
    """

    w: Array
    sums: Array
    squares: Array

    @staticmethod
    def of(budget: int, proximity_power: float) -> "Weights":
        """For a selection of that many picks."""
        w = proximity_weights(budget + 1, proximity_power)
        sums, squares = (np.concatenate([[0.0], np.cumsum(values)]) for values in (w, np.square(w)))
        return Weights(w, sums, squares)


@dataclass(frozen=True)
class Shares:
    """What the distances of m candidates to n picks are multiplied by, see :mod:`novelsum.formulas`.

    ``own`` (m,) and ``powered`` (n,): σ^κ2 of candidates and picks. ``least``, ``greatest``: of the shares of all those
    picks, (m, 1), or (1, 1) where all candidates have the same.
    """

    equation: Equation
    own: Array
    powered: Array
    least: Array
    greatest: Array

    @staticmethod
    def of(equation: Equation, own: Array, powered: Array) -> "Shares":
        """As the share does not fall as σ^κ2 of the pick rises, its ends are those of the lightest and heaviest."""
        ends = equation.share(own[:, None], np.array([powered.min(), powered.max()])).reshape(-1, 2)
        return Shares(equation, own, powered, ends[:, :1], ends[:, 1:])

    def __getitem__(self, at: slice | Integers) -> "Shares":
        ends = (self.least, self.greatest) if len(self.least) == 1 else (self.least[at], self.greatest[at])
        return Shares(self.equation, self.own[at], self.powered, *ends)

    def to(self, picks: slice | Integers) -> Array:
        """The shares of some picks: (m, k), or (k,) where all candidates have the same."""
        return self.equation.share(self.own[:, None], self.powered[picks])

    def keys(self, d: NDArray[Any], picks: slice | Integers) -> NDArray[Any]:
        """What some picks are ranked by, from their distances (m, k), which are overwritten."""
        if self.equation.ranked_by_mass:
            d *= self.to(picks).astype(d.dtype)
        return d

    def masses(self, keys: NDArray[Any], picks: slice) -> NDArray[Any]:
        """Their masses (m, k) from their keys."""
        return keys if self.equation.ranked_by_mass else keys * self.to(picks).astype(keys.dtype)
