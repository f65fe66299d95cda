"""Each formula as one object, which says all that the engine asks about it. NumPy only.

:mod:`novelsum.formula` states the formulas plainly; the objects here are tested against it. With s = σ^κ2, each is a
sum over the picks x_j of w(rank)^κ1 · mass. The *mass* of a pick at a candidate x is the distance d(x, x_j) times a
*share*, and picks are ranked by a *key*, which is the distance or the mass itself:

===========  ==============  ==================  ==========
formula      key             share               sum over
===========  ==============  ==================  ==========
paper        the distance    s(x_j)              1
released     the mass        s(x) + s(x_j)       n
symmetric    the distance    s(x) + s(x_j)       1
===========  ==============  ==================  ==========

What :mod:`novelsum.selection.sketch` proves of sums it proves for either key and for any share that does not fall as
s(x_j) rises, so that a further formula is a further class here.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from novelsum.formula import Array, Formula, Metric, density_factor, from_squared, released_density


class Equation(ABC):
    """What is asked of a formula; it has no state, and travels by its name.

    ``own`` is s of candidates, ``powered`` (k,) s of picks.
    """

    name: ClassVar[Formula]
    meaning: ClassVar[str]
    """What it is, for a help text."""
    words: ClassVar[str]
    """What it is, for the report."""
    measured_as: ClassVar[Formula]
    """The formula whose density factors and NovelSum it has: itself, or that whose NovelSum it selects for."""

    # --- density ------------------------------------------------------------------------------------------

    among_distinct: ClassVar[bool]
    """Whether neighbours are searched among distinct embeddings and the nearest, the point or its like, is dropped."""

    @abstractmethod
    def space(self, metric: Metric) -> Metric:
        """The space in which neighbours are searched; see :func:`novelsum.formula.metric_space`."""

    @abstractmethod
    def density(self, squared: Array, metric: Metric) -> Array:
        """σ (m,) by the squared distances (m, K) to the neighbours in that space."""

    def kth_distance(self, squared: Array, metric: Metric) -> Array:
        """The distance (m,) to the K-th neighbour by the same."""
        return from_squared(squared[:, -1], self.space(metric))

    @abstractmethod
    def unit(self, metric: str) -> str:
        """What σ is the inverse of."""

    @abstractmethod
    def mean_distance(self, density: float, neighbors: int) -> float | None:
        """The mean distance to K neighbours where σ tells it."""

    # --- novelty ------------------------------------------------------------------------------------------

    ranked_by_mass: ClassVar[bool]
    """Whether the key is the mass: then masses rise with rank, and the order of equal keys changes no sum."""
    averaged: ClassVar[bool]
    """Whether v is the mean over the picks."""

    @abstractmethod
    def share(self, own: Any, powered: Array) -> Array:
        """What the distances to picks are multiplied by, of a shape that fits that of ``own + powered``."""

    @abstractmethod
    def weighed(self, values: Array, own: Array, powered: Array) -> Array:
        """Σ value · share over the picks, of values (m, k) or (k,), for candidates (m,) or one number for all."""

    def divisor(self, picks: Any) -> Any:
        """What Σ w^κ1 · mass over so many picks is divided by to be v."""
        return np.maximum(picks, 1) if self.averaged else 1

    # --- NovelSum -----------------------------------------------------------------------------------------

    weighs_others: ClassVar[bool]
    """Whether Σ_j w^κ1 · d · s(x_j) over the others is part of what a row adds to NovelSum."""

    @abstractmethod
    def of_row(self, powered: Array, sums: Array, averages: Array) -> Array | None:
        """What else rows (t,) add, by their own s; None: nothing.

        ``sums`` (t,) are Σ_j w^κ1 · d over the others, ``averages`` (t,) the weighted averages with the row at rank 1.
        """


class Paper(Equation):
    """The equation of the paper."""

    name: ClassVar[Formula] = "paper"
    meaning = "the published equation"
    words = "the published equation"
    measured_as = "paper"
    among_distinct = False
    ranked_by_mass = False
    averaged = False
    weighs_others = True

    def space(self, metric: Metric) -> Metric:
        return metric

    def density(self, squared: Array, metric: Metric) -> Array:
        return density_factor(from_squared(squared, metric))

    def unit(self, metric: str) -> str:
        return f"{metric} distance"

    def mean_distance(self, density: float, neighbors: int) -> float | None:
        return 1 / (density * neighbors)

    def share(self, own: Any, powered: Array) -> Array:
        return powered

    def weighed(self, values: Array, own: Array, powered: Array) -> Array:
        return np.asarray(values @ powered)

    def of_row(self, powered: Array, sums: Array, averages: Array) -> Array | None:
        return None


class _OfBoth(Equation):
    """A formula whose share is s of the candidate and s of the pick."""

    def share(self, own: Any, powered: Array) -> Array:
        return np.asarray(own + powered)

    def weighed(self, values: Array, own: Array, powered: Array) -> Array:
        return np.asarray(own * values.sum(axis=-1) + values @ powered)


class Released(_OfBoth):
    """What the authors' published code computes."""

    name = "released"
    meaning = "what the authors' code computes"
    words = "the formula of the authors’ released code"
    measured_as = "released"
    among_distinct = True
    ranked_by_mass = True
    averaged = True
    weighs_others = False

    def space(self, metric: Metric) -> Metric:
        return "euclidean"

    def density(self, squared: Array, metric: Metric) -> Array:
        return released_density(squared)

    def unit(self, metric: str) -> str:
        return "squared distance"

    def mean_distance(self, density: float, neighbors: int) -> float | None:
        return None

    def of_row(self, powered: Array, sums: Array, averages: Array) -> Array | None:
        return powered * averages


class Symmetric(_OfBoth, Paper):
    """What a candidate adds to the NovelSum of ``paper``, with the ranks taken from its side."""

    name = "symmetric"
    meaning = "what a pick adds to the NovelSum of 'paper', by its own ranks"
    words = "the symmetric form of the published equation"


EQUATIONS: dict[Formula, Equation] = {equation.name: equation for equation in (Paper(), Released(), Symmetric())}

MEASURED: tuple[Formula, ...] = tuple(name for name, equation in EQUATIONS.items() if equation.measured_as == name)
"""The formulas that have a NovelSum of their own."""


def have_same_density(one: str, other: str) -> bool:
    """Whether two formulas, by their names, have the same density factors."""
    return same_density(one) == same_density(other)


def same_density(name: str) -> str:
    """The formula whose density factors are those of the one of that name."""
    measured_as: dict[str, str] = {one: equation.measured_as for one, equation in EQUATIONS.items()}
    return measured_as.get(name, name)
