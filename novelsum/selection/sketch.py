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
    the first t weights. Both float64.
    """

    w: Array
    sums: Array
    single: Single
    """w in float32."""

    @staticmethod
    def of(budget: int, proximity_power: float) -> "Weights":
        """For a selection of that many picks."""
        w = proximity_weights(budget + 1, proximity_power)
        return Weights(w, np.concatenate([[0.0], np.cumsum(w)]), w.astype(np.float32))


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


# --- the sketch -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sketch(Columns):
    """Sketches of m candidates.

    Parameters
    ----------
    low, scale : (m,) float32, where a candidate's grid begins and its cells per unit of key.
    least, greatest : (m,) float32, the extreme keys seen; they may lie outside the grid.
    count, mass : (m, CELLS) float32.
    loose : (m,) float32, what the bound may be short of because of keys whose cell is uncertain.
    doubtful : (m, CELLS) uint16, keys so near the lower edge of a cell that they may lie on its other side.
    """

    low: Single
    scale: Single
    least: Single
    greatest: Single
    loose: Single
    count: Single
    mass: Single
    doubtful: NDArray[np.uint16]

    @staticmethod
    def over(keys: Single, error: Single) -> "Sketch":
        """Empty, with grids fit for keys like those given (m, n) and some more beyond them.

        A cell is so wide that a key cannot truly lie farther than in the next one.
        """
        m = len(keys)
        least, greatest = keys.min(axis=1), keys.max(axis=1)
        narrowest = np.float32(CELLS * _WIDEST_DOUBT) * error + np.abs(greatest) * np.float32(1e-6)
        reach = np.maximum(greatest - least, narrowest) + _TINY
        return Sketch(
            low=least - np.float32(_MARGIN_BELOW) * reach,
            scale=np.float32(CELLS / (1 + _MARGIN_BELOW + _MARGIN_ABOVE)) / reach,
            least=np.full(m, np.inf, np.float32),
            greatest=np.full(m, -np.inf, np.float32),
            loose=np.zeros(m, np.float32),
            count=np.zeros((m, CELLS), np.float32),
            mass=np.zeros((m, CELLS), np.float32),
            doubtful=np.zeros((m, CELLS), np.uint16),
        )

    def add(
        self,
        shares: Shares,
        picks: slice,
        keys: Single,
        is_new: NDArray[np.bool_],
        error: Single,
        weights: Weights,
    ) -> None:
        """Count some picks with these keys (m, n) into the cells, where they are new.

        Ranked by distance, v jumps where two keys change places, as masses do not follow keys. So a key within
        rounding of a cell's edge makes the bound looser by what the jump can be at most.
        """
        np.minimum(self.least, keys.min(axis=1, initial=np.inf, where=is_new), out=self.least)
        np.maximum(self.greatest, keys.max(axis=1, initial=-np.inf, where=is_new), out=self.greatest)
        position = keys - self.low[:, None]
        position *= self.scale[:, None]
        np.maximum(position, 0, out=position)
        np.minimum(position, np.float32(CELLS - 0.01), out=position)
        cell = position.astype(np.int64)
        flat = (cell + (np.arange(len(self)) * CELLS)[:, None])[is_new]
        np.add.at(self.count.reshape(-1), flat, np.float32(1))
        np.add.at(self.mass.reshape(-1), flat, shares.masses(keys, picks)[is_new])
        if not shares.equation.ranked_by_mass:
            position -= cell
            self._loosen(shares, keys, position, cell, is_new, error, weights)

    def _loosen(
        self,
        shares: Shares,
        keys: Single,
        within: Single,
        cell: Integers,
        is_new: NDArray[np.bool_],
        error: Single,
        weights: Weights,
    ) -> None:
        """Make room for keys so near to an edge that they may truly lie beyond it.

        Such a key may change places with the others near that edge, whose terms are as large as its own but for
        their shares, and with no one else.
        """
        doubt = (2 * error * self.scale + np.float32(CELLS * 2e-7))[:, None]
        at, column = np.nonzero(((within < doubt) | (within > 1 - doubt)) & is_new)
        below = cell[at, column] - (within[at, column] < 0.5)
        inner = (below >= 0) & (below + 1 < CELLS)
        at, column, below = at[inner], column[inner], below[inner]
        edges, of_key, new = np.unique(at * CELLS + below + 1, return_inverse=True, return_counts=True)
        doubtful = self.doubtful.reshape(-1)
        near = doubtful[edges] + new
        doubtful[edges] = np.minimum(near, _MANY)
        others = np.where(near < _MANY, near - 1, len(weights.w))[of_key]
        at, column, below, others = (values[others > 0] for values in (at, column, below, others))
        if not len(at):
            return
        candidates, inverse = np.unique(at, return_inverse=True)
        before = np.cumsum(self.count[candidates], axis=1, dtype=np.float64)
        first = (before - self.count[candidates])[inverse, below].astype(np.int64)
        last = np.minimum(first + others, len(weights.w) - 1)
        least, greatest = (ends[:, 0].astype(np.float32) for ends in (shares[at].least, shares[at].greatest))
        largest = greatest * (keys[at, column] + 2 * error[at])
        smallest = least * np.maximum(keys[at, column] - 4 * error[at], 0)
        jump = (weights.w[first] - weights.w[last]) * (largest - smallest)
        np.add.at(self.loose, at, (jump * (1 + SLACK)).astype(np.float32))

    def outgrown(self) -> NDArray[np.bool_]:
        """Whether picks that lie beyond the grid share its first cell, or crowd its last (m,)."""
        below = (self.least < self.low) & (self.count[:, 0] > 1)
        return np.asarray(below | (self.count[:, -1] > np.maximum(4, self.count.sum(axis=1) / 32)))

    def upper_bound(self, shares: Shares, error: Single, weights: Weights) -> tuple[Array, Outlook]:
        """At least Σ w^κ1 · mass of the picks counted, up to what errors of the keys add to masses: (m,) float64.

        With the outlook that goes with it.
        """
        m = len(self)
        bound = np.empty(m)
        part = np.empty((m, COARSE), np.float32)
        for start in range(0, m, _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            some = self[rows]
            terms = (
                some._rising_terms(weights)
                if shares.equation.ranked_by_mass
                else some._terms(shares[rows], error[rows], weights)
            )
            terms *= 1 + SLACK
            bound[rows] = terms.sum(axis=1)
            np.sum(terms.reshape(len(terms), COARSE, -1), axis=2, out=part[rows])
        bound += self.loose
        count = self.count.reshape(m, COARSE, -1).sum(axis=2)
        before = _before(count)
        counted = before[:, -1] + count[:, -1].astype(np.int32)
        return bound, Outlook(self.low, self.scale * np.float32(COARSE / CELLS), before, counted, part)

    def _masses(self) -> Array:
        """At least the true masses: a float32 sum of c terms may have lost c roundings."""
        masses = self.count * _ROUNDING
        masses += 1
        return np.asarray(self.mass * masses, dtype=np.float64)

    def _rising_terms(self, weights: Weights) -> Array:
        """Masses rise with rank while weights fall: the sum of products is at most that of the cell's means."""
        before = np.zeros((len(self), CELLS + 1), np.int64)
        np.cumsum(self.count, axis=1, out=before[:, 1:], dtype=np.int64)
        in_cell = np.diff(weights.sums[before], axis=1)
        in_cell *= self._masses()
        in_cell /= np.maximum(self.count, 1)
        return np.asarray(in_cell)

    def _terms(self, shares: Shares, error: Single, weights: Weights) -> Array:
        """In a cell, k terms at the largest value stand in front, the rest at the smallest behind."""
        before = np.zeros((len(self), CELLS + 1), np.int64)
        np.cumsum(self.count, axis=1, out=before[:, 1:], dtype=np.int64)
        first = before[:, :-1]
        sums = weights.sums[before]
        edges = np.arange(CELLS + 1) / self.scale[:, None].astype(np.float64)
        edges += self.low[:, None]
        edges[:, 0], edges[:, -1] = np.minimum(self.least, edges[:, 0]), np.maximum(self.greatest, edges[:, -1])
        doubt = (2 * error + 1e-6 * np.abs(self.greatest)).astype(np.float64)[:, None]
        small = np.maximum(edges[:, :-1], self.least[:, None])
        small -= doubt
        np.maximum(small, 0, out=small)
        small *= shares.least
        room = np.minimum(edges[:, 1:], self.greatest[:, None])
        room += doubt
        room *= shares.greatest
        room -= small
        np.maximum(room, 0, out=room)
        k = self._masses()
        k -= self.count * small
        k /= np.maximum(room, _TINY)
        np.maximum(k, 0, out=k)
        np.minimum(k, self.count, out=k)
        whole = k.astype(np.int64)
        k -= whole
        whole += first
        front = weights.sums[whole]
        k *= weights.w[whole]
        front += k
        front -= sums[:, :-1]
        front *= room
        small *= np.diff(sums, axis=1)
        front += small
        return np.asarray(front)


# --- while the list of all keys is shorter than a sketch --------------------------------------------------


def list_bound(shares: Shares, keys: Single, error: Single, weights: Weights) -> tuple[Array, Outlook]:
    """The same from all keys (m, n) of the first n picks themselves."""
    order = np.argsort(keys, axis=1)
    ranked = np.take_along_axis(keys, order, axis=1)
    if shares.equation.ranked_by_mass:
        return np.asarray(ranked @ weights.w[: keys.shape[1]]) * (1 + SLACK), Outlook.empty(len(keys))
    # Keys too close to tell apart are each given the lowest rank that any of them can have.
    rank = np.tile(np.arange(keys.shape[1]), (len(keys), 1))
    rank[:, 1:][np.diff(ranked, axis=1) <= 2 * error[:, None]] = 0
    np.maximum.accumulate(rank, axis=1, out=rank)
    terms = weights.w[rank]
    terms *= ranked
    terms *= np.take_along_axis(np.broadcast_to(shares.to(slice(keys.shape[1])), keys.shape), order, axis=1)
    terms *= 1 + SLACK
    return np.asarray(terms.sum(axis=1)), Outlook.of(ranked, terms)
