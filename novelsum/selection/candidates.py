"""One record of candidates wherever they are: in a block, in the driver's pool, among the picks, in their log.

What a rule asks of a candidate is a field of :class:`Candidates` and travels with the others: it is made of the columns
of the store in :meth:`Candidates.of` and used where the rule is. NumPy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from novelsum.formula import Array, Metric, metric_space
from novelsum.groups import Group
from novelsum.rows import Integers
from novelsum.selection.scoring import Scoring


@dataclass(frozen=True)
class Columns:
    """Arrays, or columns of them, that have a value for each of the same things."""

    def _columns(self) -> list[Any]:
        return list(vars(self).values())

    def __len__(self) -> int:
        return len(self._columns()[0])

    def __getitem__(self, at: slice | Integers) -> Self:
        return type(self)(*(column[at] for column in self._columns()))

    def __setitem__(self, at: slice | Integers, other: Self) -> None:
        for column, values in zip(self._columns(), other._columns(), strict=True):
            column[at] = values

    def room(self, n: int) -> Self:
        """For n of the same kind."""
        return type(self)(*(_room(column, n) for column in self._columns()))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Those of all parts, one after the other."""
        return cls(*(_joined(columns) for columns in zip(*(part._columns() for part in parts), strict=True)))


def _room(column: Any, n: int) -> Any:
    return column.room(n) if isinstance(column, Columns) else np.empty((n, *column.shape[1:]), column.dtype)


def _joined(columns: Sequence[Any]) -> Any:
    return type(columns[0]).joined(columns) if isinstance(columns[0], Columns) else np.concatenate(columns)


@dataclass(frozen=True)
class Units:
    """Powers of two that lengths and σ^κ2 are divided by, so that float32 holds them. They change no digit."""

    length: float = 1.0
    powered: float = 1.0

    @staticmethod
    def of(longest: float, heaviest: float, metric: Metric) -> "Units":
        """For points and σ^κ2 up to these; the cosine's points have length 1 already."""
        lengths = 1.0 if metric == "cosine" else longest
        return Units(*(2.0 ** np.ceil(np.log2(greatest)) if greatest > 0 else 1.0 for greatest in (lengths, heaviest)))


@dataclass(frozen=True)
class Candidates(Columns):
    """n candidates, or picks in their order, as stored or in the units of a selection.

    Parameters
    ----------
    rows : (n,) int64.
    vectors : (n, D), as in the store; in units, points of the metric's space.
    powered : (n,) float64, σ^κ2.
    quality : (n,) float64, q^γ, over the power of the cost, which multiplies the sum.
    groups : (n,) int64, numbers of the quotas' groups.
    cost : (n,) float64, what it costs.
    """

    rows: Integers
    vectors: NDArray[Any]
    powered: Array
    quality: Array
    groups: Integers
    cost: Array

    @staticmethod
    def plain(rows: Integers, vectors: NDArray[Any], powered: Array) -> "Candidates":
        """Candidates that no rule asks more of."""
        n = len(rows)
        return Candidates(rows, vectors, powered, np.ones(n), np.zeros(n, np.int64), np.zeros(n))

    @staticmethod
    def of(
        rows: Integers,
        vectors: NDArray[Any],
        density: Array,
        quality: Array | None,
        groups: Sequence[Group] | None,
        cost: Array | None,
        scoring: Scoring,
        names: Sequence[Group],
    ) -> "Candidates":
        """Of the columns of the store and density factors. ``names``: of the groups of quotas, in order, if any."""
        plain = Candidates.plain(rows, vectors, density**scoring.density_power)
        if quality is not None:
            plain = replace(plain, quality=quality**scoring.quality_power)
        if cost is not None:
            plain = replace(plain, quality=plain.quality / cost**scoring.cost_power, cost=cost)
        if names and groups is not None:
            number_of = {name: number for number, name in enumerate(names)}
            plain = replace(plain, groups=np.array([number_of[group] for group in groups], np.int64))
        return plain

    def in_units(self, metric: Metric, units: Units) -> "Candidates":
        """Of these as they are stored, float64 points of the metric's space and σ^κ2 in units."""
        points = metric_space(self.vectors, metric) / units.length if len(self) else self.vectors.astype(np.float64)
        return Candidates(self.rows, points, self.powered / units.powered, self.quality, self.groups, self.cost)


@dataclass(frozen=True)
class Picks(Candidates):
    """Picks in units, with the squared lengths (n,) of their points."""

    norms: NDArray[Any]

    @staticmethod
    def measured(candidates: Candidates) -> "Picks":
        """Of candidates in units."""
        return Picks(**vars(candidates), norms=np.square(candidates.vectors).sum(axis=1))

    def single(self) -> "Picks":
        """With points and their squared lengths in float32."""
        return replace(self, vectors=self.vectors.astype(np.float32), norms=self.norms.astype(np.float32))
