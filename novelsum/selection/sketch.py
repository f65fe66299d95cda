"""The rank sketch: bounds on a candidate's novelty in memory that does not grow with the selection. NumPy only.

Exact novelty needs the sorted distances of a candidate to all n picks. The sketch keeps, for each candidate,
G cells over the range of those distances, each with the count c and the mass m of the picks in it. What key, mass
and share of a pick are says the formula's object, see :mod:`novelsum.formulas`.

All functions bound the sum Σ w^κ1 · mass. What it is divided by to be v changes no comparison.

Keys are float32 from matrix products, so each is known within ``error`` only. The bounds hold for the true
keys all the same. docs/algorithm.md proves each.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.formula import Array, proximity_weights
from novelsum.formulas import Equation
from novelsum.rows import Integers
from novelsum.selection.candidates import Columns

Single = NDArray[np.float32]

CELLS = 256
COARSE = 64
"""Cells of an outlook, each of CELLS / COARSE cells of the sketch."""
SLACK = 1e-5
"""Relative slack on every upper bound, for float32 arithmetic on single keys and masses."""
_MARGIN_BELOW, _MARGIN_ABOVE = 0.3, 0.05
"""A grid reaches this share of the range seen beyond its ends, for keys still to come."""
_WIDEST_DOUBT = 4
"""A cell is at least so many times as wide as a key is uncertain to one side."""
_MANY = np.iinfo(np.uint16).max
_ROWS_AT_ONCE = 64
_TINY = np.float32(1e-30)
_ROUNDING = 2.0**-23


@dataclass(frozen=True)
class Weights:
    """Proximity weights of the ranks 1 ... budget + 1, and their sums.

    ``w`` (budget + 1,): w[r] is the weight of rank r + 1; ``sums`` (budget + 2,): sums[t] is H(t), the sum of
    the first t weights, and ``squares`` that of their squares. All float64.
    """

    w: Array
    sums: Array
    squares: Array
    single: Single
    """w in float32."""

    @staticmethod
    def of(budget: int, proximity_power: float) -> "Weights":
        """For a selection of that many picks."""
        w = proximity_weights(budget + 1, proximity_power)
        sums, squares = (np.concatenate([[0.0], np.cumsum(values)]) for values in (w, np.square(w)))
        return Weights(w, sums, squares, w.astype(np.float32))


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

    def to(self, picks: slice) -> Array:
        """The shares of some picks: (m, k), or (k,) where all candidates have the same."""
        return self.equation.share(self.own[:, None], self.powered[picks])

    def keys(self, d: NDArray[Any], picks: slice) -> NDArray[Any]:
        """What some picks are ranked by, from their distances (m, k), which are overwritten."""
        if self.equation.ranked_by_mass:
            d *= self.to(picks).astype(d.dtype)
        return d

    def masses(self, keys: NDArray[Any], picks: slice) -> NDArray[Any]:
        """Their masses (m, k) from their keys."""
        return keys if self.equation.ranked_by_mass else keys * self.to(picks).astype(keys.dtype)


# --- what further picks do to a sum -----------------------------------------------------------------------


@dataclass(frozen=True)
class Outlook(Columns):
    """For each of m candidates and COARSE cells of keys: the ranks there, and what its picks add to the sum.

    ``low``, ``scale`` (m,) float32 place the cells, in the unit of keys and its inverse. ``before`` (m, COARSE)
    int32: how many picks lie in the cells before; ``counted`` (m,) int32: how many in all. ``part`` (m, COARSE)
    float32: a bound on the terms of the picks in the cell. Ranks only grow while picks are added and weights
    fall with rank: what an old outlook says of ranks stays a bound.
    """

    low: Single
    scale: Single
    before: NDArray[np.int32]
    counted: NDArray[np.int32]
    part: Single

    @staticmethod
    def empty(m: int) -> "Outlook":
        """Of candidates nothing is known of: every rank is the first."""
        zeros = np.zeros(m, np.float32)
        cells = np.zeros((m, COARSE), np.float32)
        return Outlook(zeros, zeros, cells.astype(np.int32), zeros.astype(np.int32), cells)

    @staticmethod
    def of(keys: NDArray[Any], terms: NDArray[Any] | None = None) -> "Outlook":
        """From all keys (m, n) of the picks themselves, and bounds on their terms (m, n); without them no ``part``."""
        m, n = keys.shape
        least, greatest = keys.min(axis=1), keys.max(axis=1)
        low = least.astype(np.float32)
        scale = (COARSE / (1.001 * (greatest - least) + 1e-6 * greatest + _TINY)).astype(np.float32)
        cell = np.clip((keys - low[:, None]) * scale[:, None], 0, COARSE - 1).astype(np.int64)
        cell += np.arange(m)[:, None] * COARSE
        count = np.bincount(cell.reshape(-1), minlength=m * COARSE).reshape(m, COARSE)
        part = np.zeros((m, COARSE), np.float32)
        if terms is not None:
            sums = np.bincount(cell.reshape(-1), weights=terms.reshape(-1), minlength=m * COARSE)
            part[:] = sums.reshape(m, COARSE)
        return Outlook(low, scale, _before(count), np.full(m, n, np.int32), part)

    def _cells(self, keys: Single, shift: Single) -> NDArray[np.int32]:
        """The cell of each key (m, n) moved by ``shift`` (m,), in the flat order of all candidates' cells."""
        position = keys + (shift - self.low)[:, None]
        position *= self.scale[:, None]
        position += np.copysign(np.float32(COARSE * 2e-7), shift)[:, None]
        np.clip(position, 0, np.float32(COARSE - 1), out=position)
        cell = position.astype(np.int32)
        cell += (np.arange(len(keys), dtype=np.int32) * COARSE)[:, None]
        return cell

    def highest_weights(self, keys: Single, error: Single, weights: Weights) -> Single:
        """The weight of the lowest rank that each new key (m, n), known within ``error`` (m,), can take."""
        rank = np.take(self.before.reshape(-1), self._cells(keys, -2 * error))
        return np.asarray(weights.single[rank])

    def joint_bound(
        self, shares: Shares, picks: slice, keys: Single, error: Single, weights: Weights, surplus: Array
    ) -> Array:
        """The sum (m,) float64 after all of some picks are added, less what the bound has beside ``part``.

        ``keys`` (m, k) of the picks, inf where one is not to be added; they are ranked by distance. ``surplus`` (m,):
        by how much the bound that ``part`` belongs to is above another that is known.

        All terms of a cell fall at least as much as its last rank does, by the picks that surely go before the
        cell; the new picks take the lowest ranks they can have beside one another. Where the surplus lies is not
        known, so it falls as the terms that fall most.
        """
        m = len(keys)
        beyond = np.bincount(self._cells(keys, 2 * error).reshape(-1), minlength=m * COARSE)
        shift = _before(beyond.reshape(m, COARSE))
        end = np.concatenate([self.before[:, 1:], self.counted[:, None]], axis=1)
        last = np.maximum(end - 1, 0)
        falls = weights.w[last + shift] / weights.w[last]
        rank = np.take((self.before + shift).reshape(-1), self._cells(keys, -2 * error))
        new = weights.w[rank]
        new *= np.where(keys < np.inf, keys + error[:, None], 0)
        added = shares.equation.weighed(new, shares.own, shares.powered[picks])
        grown = ((self.part * falls).sum(axis=1) + added) * (1 + SLACK)
        return np.asarray(grown - surplus * falls.min(axis=1))


def _before(count: NDArray[Any]) -> NDArray[np.int32]:
    """How many are counted (m, G) in the cells before each."""
    before = np.cumsum(count, axis=1, dtype=np.int32)
    before -= count.astype(np.int32)
    return before


def gain_bounds(
    shares: Shares,
    picks: slice,
    keys: Single,
    error: NDArray[Any],
    outlook: Outlook,
    at: slice | Integers,
    doubt: Single,
    weights: Weights,
) -> Single:
    """Upper bounds on what each of k picks adds to the sums of m candidates: (m, k) float32.

    Parameters
    ----------
    shares : at the candidates, of these picks and all before them.
    picks : the places of these, added one after the other.
    keys : (m, k) of these.
    error : (m,) or (1,), how far a distance may be from the true one.
    outlook, at : which of all outlooks are those of the candidates.
    doubt : (m,), how far a key may be on the other side of one in the outlook.

    Ranked by distance: d · [(share_y − share_min) · w(r) + share_min · w(n + 1)]. Ranked by mass: key · w(n + 1).
    """
    last, share = weights.w[picks], shares.to(picks)
    if shares.equation.ranked_by_mass:
        largest = keys + error[:, None] * share.astype(np.float32)
        return np.asarray(largest * (last * (1 + SLACK)).astype(np.float32))
    gains = outlook[at].highest_weights(keys, doubt, weights)
    gains *= ((share - shares.least) * (1 + SLACK)).astype(np.float32)
    gains += (shares.least * (1 + SLACK) * last).astype(np.float32)
    gains *= keys + error[:, None]
    return gains
