"""The driver's pool: the few candidates that may be picked next. Drafts come from it. NumPy only.

A draft is exact greedy selection inside this pool, lazily: every contender has an upper bound on its sum
Σ w^κ1 · mass, picks raise it by gain bounds, and only contenders whose bound reaches the best known sum are
evaluated. Distances come from float64 matrix products; where their rounding could decide (two contenders of
nearly equal novelty, two picks at nearly equal distance) values are computed again by the formula's own rule.
So no decision depends on who else is in the pool.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from novelsum import formula
from novelsum.formula import Array, Formula, Metric, from_squared, squared_distances
from novelsum.neighbors import paired_squared_distances
from novelsum.sketch import COARSE, Integers, Outlook, Single, Spread, Weights, gain_bounds

TIE = 1e-9
"""Sums closer than this, relatively, are compared again by the formula's own rule."""
_WINDOW = 512
"""So many latest picks are kept as columns of distances to the contenders."""
_TIGHTENED = 0.98
"""Contenders whose bound is above this share of the best are bounded anew before any is evaluated."""
_NEAR = 1e-6
"""Squared distances below this share of the squared norms are computed again, as a product has lost their digits."""


@dataclass(frozen=True)
class Scoring:
    """The settings that v depends on."""

    formula: Formula
    metric: Metric
    proximity_power: float
    density_power: float


@dataclass(frozen=True)
class Samples:
    """Some candidates: rows (n,) int64, points (n, D) float64 in the metric's space, σ^κ2 (n,) float64."""

    rows: Integers
    points: Array
    powered: Array

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Draft:
    """Contenders in the order they would be picked: their slots, and the sum of each when it would be."""

    slots: list[int]
    sums: list[float]


@dataclass
class _Ranked:
    """What a contender's sum is made of, against the first n picks, in order of rank."""

    keys: Array
    """(n,) squared distances; for ``released`` the weighted distances themselves."""
    powered: Array
    """(n,) σ^κ2 of the picks (``paper`` only)."""


class Contenders:
    """Candidates in slots 0 ... p - 1, and the picks, to which a draft adds for a while.

    ``upper`` (p,) float64 bounds the sum of each against the picks of the moment; -inf once picked.
    """

    def __init__(self, scoring: Scoring, weights: Weights, budget: int, dimension: int) -> None:
        self.scoring, self.weights = scoring, weights
        self.picks = 0
        self._committed = 0
        self._picked = Samples(np.empty(budget, np.int64), np.empty((budget, dimension)), np.empty(budget))
        self._picked_norms = np.empty(budget)
        self.evaluated = 0
        self.rows = np.empty(0, np.int64)
        self.points = np.empty((0, dimension))
        self.powered = np.empty(0)
        self.upper = np.empty(0)
        self._norms = np.empty(0)
        self._exact_at = np.empty(0, np.int64)
        self._standing = np.empty(0)
        self._best_sum = 0.0
        self._excess = 0.0
        self._outlook = Outlook.empty(0)
        self._outlook_error = np.empty(0, np.float32)
        self._beside = np.empty(0)
        self._columns = np.empty((0, _WINDOW))
        self._first_column = 0
        self._tolerance = 0.0
        self._ranked: dict[int, _Ranked] = {}
        self._snapshots: list[Array] = []
        self._drafted = 0

    def picked(self, part: slice) -> Samples:
        """Some of the picks, in the order of picking."""
        return Samples(self._picked.rows[part], self._picked.points[part], self._picked.powered[part])

    # --- who is in the pool -------------------------------------------------------------------------------

    def admit(self, samples: Samples, upper: Array, outlook: Outlook, error: Single) -> Integers:
        """Take candidates in whose bounds hold against the committed picks; return their slots."""
        norms = np.square(samples.points).sum(axis=1)
        columns = np.full((len(samples), _WINDOW), np.inf)
        drafted = slice(self._committed, self._committed + self._drafted)
        columns[:, self._window(drafted)] = self._squared(samples.points, norms, drafted)
        first = len(self.rows)
        self.rows = np.concatenate([self.rows, samples.rows])
        self.points = np.concatenate([self.points, samples.points])
        self.powered = np.concatenate([self.powered, samples.powered])
        self.upper = np.concatenate([self.upper, upper])
        self._norms = np.concatenate([self._norms, norms])
        self._exact_at = np.concatenate([self._exact_at, np.full(len(norms), -1)])
        self._standing = np.concatenate([self._standing, self._standing_of(upper / (1 + self._excess))])
        self._outlook = Outlook.joined([self._outlook, outlook])
        self._outlook_error = np.concatenate([self._outlook_error, error])
        self._beside = np.concatenate([self._beside, upper - outlook.part.sum(axis=1, dtype=np.float64)])
        self._columns = np.concatenate([self._columns, columns])
        greatest = max(self._norms.max(initial=0.0), self._picked_norms[: self.picks].max(initial=0.0))
        self._tolerance = float(16 * (self.points.shape[1] + 4) * np.finfo(np.float64).eps * greatest)
        return np.arange(first, len(self.rows))

    def dismiss(self, capacity: int) -> None:
        """Let go of picked candidates, and of those with the lowest standing above the capacity.

        Standing, the sum last known over the best of its time, tells better than a bound who may be picked
        soon: bounds of candidates never evaluated are the loosest.
        """
        kept = np.flatnonzero(self.upper > -np.inf)
        if len(kept) > capacity:
            kept = np.sort(kept[np.argpartition(-self._standing[kept], capacity)[:capacity]])
        for name in (
            "rows",
            "points",
            "powered",
            "upper",
            "_norms",
            "_exact_at",
            "_standing",
            "_outlook_error",
            "_beside",
        ):
            setattr(self, name, getattr(self, name)[kept])
        self._outlook = self._outlook[kept]
        self._columns = self._columns[kept]
        rows = set(self.rows.tolist())
        self._ranked = {row: ranked for row, ranked in self._ranked.items() if row in rows}

    # --- drafting -----------------------------------------------------------------------------------------

    def draft(self, length: int) -> Draft:
        """The next picks of exact greedy selection inside the pool; :meth:`commit` says how many of them stand."""
        slots: list[int] = []
        sums: list[float] = []
        everyone = np.arange(len(self.rows))
        self._snapshots = []
        self._make_room(length + 1)
        while len(slots) < length and np.any(self.upper > -np.inf):
            slot = self._best(everyone)
            self._snapshots.append(self.upper.copy())
            slots.append(slot)
            sums.append(float(self.upper[slot]))
            self._best_sum = sums[-1]
            self._push(slot)
        self._drafted = len(slots)
        return Draft(slots, sums)

    def _window(self, picks: slice) -> slice:
        """The columns of some picks."""
        return slice(picks.start - self._first_column, picks.stop - self._first_column)

    def _make_room(self, length: int) -> None:
        """Let go of the oldest columns where so many more would not fit."""
        if self._committed + length > self._first_column + _WINDOW:
            kept = slice(self._committed - min(self._committed, _WINDOW // 4), self._committed)
            columns = np.full_like(self._columns, np.inf)
            columns[:, : kept.stop - kept.start] = self._columns[:, self._window(kept)]
            self._columns, self._first_column = columns, kept.start

    def challenge(self, draft: Draft, new: Integers, steps: int) -> tuple[int, int | None]:
        """The longest prefix of at most ``steps`` of the draft that no new slot beats, and the slot that beats it."""
        drafted = self.picks
        self.picks = self._committed
        challenger = None
        for step in range(steps):
            slot, v = draft.slots[step], draft.sums[step]
            self._tighten(new[self.upper[new] >= v])
            if self._raise_to(new, v):
                equals = new[self._is_exact(new) & (self.upper[new] >= v - TIE * abs(v))]
                if len(equals):
                    best = equals[np.argmax(self.upper[equals])]
                    clear = self.upper[best] > v + TIE * abs(v)
                    winner = self._first_of(equals if clear else np.append(equals, slot))
                    if winner != slot:
                        challenger = winner
                        break
            column = self.picks - self._first_column
            self.upper[new] += self._gains(new, self._columns[new, column], self.picks)
            self.picks += 1
        stands = self.picks - self._committed
        if stands < len(draft.slots):
            old = len(self._snapshots[stands])
            self.upper[:old] = self._snapshots[stands]
            self._exact_at[:old] = -1
        assert self.picks <= drafted
        return stands, challenger

    def commit(self, challenger: int | None = None) -> float | None:
        """Make the picks that stand final, and the challenger after them; return the challenger's sum."""
        value = None
        if challenger is not None:
            value = float(self.upper[challenger])
            self._push(challenger)
        self._committed, self._drafted = self.picks, 0
        return value

    def _best(self, slots: Integers) -> int:
        """The slot with the greatest sum, the smallest row of equals. Its bound is exact afterwards."""
        best = self.upper[slots].max()
        self._tighten(slots[self.upper[slots] >= _TIGHTENED * best])
        while True:
            slot = slots[np.argmax(self.upper[slots])]
            if self._exact_at[slot] == self.picks:
                break
            self._evaluate(slot)
        v = self.upper[slot]
        self._raise_to(slots, v)
        equals = slots[self.upper[slots] >= v - TIE * abs(v)]
        return int(slot) if len(equals) == 1 else self._first_of(equals)

    def _raise_to(self, slots: Integers, v: float) -> bool:
        """Evaluate all slots whose bound reaches v within a tie; whether there were any."""
        floor = v - TIE * abs(v)
        reach = slots[self.upper[slots] >= floor]
        for slot in reach[~self._is_exact(reach)]:
            self._evaluate(slot)
        return len(reach) > 0

    def _tighten(self, slots: Integers) -> None:
        """Lower the bounds of some slots to the joint bound for all picks since their outlook."""
        since = self._outlook.counted[slots]
        slots = slots[(since >= self._first_column) & (since < self.picks) & ~self._is_exact(slots)]
        if len(slots) == 0 or self.scoring.formula == "released":
            return
        since = self._outlook.counted[slots]
        picks = slice(int(since.min()), self.picks)
        keys = from_squared(self._columns[slots, self._window(picks)], self.scoring.metric).astype(np.float32)
        keys[np.arange(picks.start, picks.stop) < since[:, None]] = np.inf
        powered = self._picked.powered[picks]
        joint = self._outlook[slots].joint_bound(keys, self._error(slots, keys), powered, self.weights)
        self.upper[slots] = np.minimum(self.upper[slots], joint + self._beside[slots])

    def _error(self, slots: Integers, keys: Single) -> Single:
        """How far keys in float32 may be on the other side of a pick in the slots' outlooks."""
        error: Single = self._outlook_error[slots] + np.float32(1e-6) * keys[:, -1]
        return error

    def _is_exact(self, slots: Integers) -> np.ndarray:
        return np.asarray(self._exact_at[slots] == self.picks)

    def _push(self, slot: int) -> None:
        """Add a contender to the picks, and to everyone's bound what that adds at most."""
        n, column = self.picks, self.picks - self._first_column
        self._picked.rows[n] = self.rows[slot]
        self._picked.points[n] = self.points[slot]
        self._picked.powered[n] = self.powered[slot]
        self._picked_norms[n] = self._norms[slot]
        self._columns[:, column] = self._squared(self.points, self._norms, slice(n, n + 1))[:, 0]
        self.upper += self._gains(np.arange(len(self.rows)), self._columns[:, column], n)
        self.upper[slot] = -np.inf
        self.picks = n + 1

    def _gains(self, slots: Integers, squared: Array, n: int) -> Array:
        """What the pick at place n adds to the sums of some slots at most, given its distances to them."""
        d = from_squared(squared, self.scoring.metric)
        powered = self._picked.powered[n : n + 1]
        spread = Spread.of(self._picked.powered[: n + 1])
        if self.scoring.formula == "released":
            keys = (d * (self.powered[slots] + powered)).astype(np.float32)[:, None]
            highest = None
        else:
            keys = d.astype(np.float32)[:, None]
            highest = self._outlook[slots].highest_weights(keys, self._error(slots, keys), self.weights)
        gains = gain_bounds(self.scoring.formula, keys, np.zeros(1), highest, powered, n, spread, self.weights)
        return gains[:, 0].astype(np.float64) * (1 + 1e-6)

    # --- exact values -------------------------------------------------------------------------------------

    def _evaluate(self, slot: int) -> None:
        """Replace a slot's bound by its exact sum against the picks of the moment."""
        self.evaluated += 1
        row = int(self.rows[slot])
        ranked = self._ranked.get(row)
        known = 0 if ranked is None else len(ranked.keys)
        if known < self._committed:
            picks = slice(known, self._committed)
            if known > self._first_column:
                squared = self._columns[slot, self._window(picks)]
            else:
                squared = self._squared(self.points[slot : slot + 1], self._norms[slot : slot + 1], picks)[0]
            ranked = self._merged(slot, ranked, squared, picks)
            self._ranked[row] = ranked
            if self.scoring.formula == "paper":
                self._look_out(slot, ranked)
        if self.picks > self._committed:
            picks = slice(self._committed, self.picks)
            ranked = self._merged(slot, ranked, self._columns[slot, self._window(picks)], picks)
        assert ranked is not None
        exact = self._sum(slot, ranked)
        if known == 0 and exact > 0 and self.upper[slot] < np.inf:
            self._excess += 0.01 * (self.upper[slot] / exact - 1 - self._excess)
        self.upper[slot] = exact
        self._standing[slot] = self._standing_of(exact)
        self._exact_at[slot] = self.picks

    def _standing_of(self, sums: Any) -> Any:
        return sums / self._best_sum if self._best_sum > 0 else sums

    def _merged(self, slot: int, ranked: _Ranked | None, squared: Array, picks: slice) -> _Ranked:
        """With further picks in their places."""
        powered = self._picked.powered[picks]
        if self.scoring.formula == "released":
            keys = from_squared(squared, self.scoring.metric) * (self.powered[slot] + powered)
            return _Ranked(
                np.sort(keys if ranked is None else np.concatenate([ranked.keys, keys]), kind="stable"), powered
            )
        if ranked is not None:
            squared = np.concatenate([ranked.keys, squared])
            powered = np.concatenate([ranked.powered, powered])
        order = np.argsort(squared, kind="stable")
        return _Ranked(squared[order], powered[order])

    def _sum(self, slot: int, ranked: _Ranked) -> float:
        if self.scoring.formula == "released":
            return float(ranked.keys @ self.weights.w[: len(ranked.keys)])
        near = np.diff(ranked.keys) <= 2 * self._tolerance
        if near.any() and np.any(near & (np.diff(ranked.powered) != 0)):
            return self._sum_by_rule(slot)
        masses = from_squared(ranked.keys, self.scoring.metric) * ranked.powered
        return float(masses @ self.weights.w[: len(masses)])

    def _sum_by_rule(self, slot: int) -> float:
        """The sum of one slot by the formula itself, from distances computed pair by pair."""
        n = self.picks
        by_row = np.argsort(self._picked.rows[:n])
        squared = squared_distances(self.points[slot : slot + 1], self._picked.points[:n][by_row])
        v = formula.novelty(
            from_squared(squared, self.scoring.metric),
            self._picked.powered[:n][by_row],
            self.powered[slot : slot + 1],
            formula=self.scoring.formula,
            proximity_power=self.scoring.proximity_power,
            density_power=1.0,
        )
        return float(v[0]) * (n if self.scoring.formula == "released" else 1)

    def _first_of(self, equals: Integers) -> int:
        """Of slots too close to tell apart, the one with the greatest sum by rule, the smallest row of equals."""
        equals = equals[np.argsort(self.rows[equals])]
        vectors = np.column_stack([self.points[equals], self.powered[equals]])
        _, first = np.unique(vectors, axis=0, return_index=True)
        different = equals[np.sort(first)]
        if len(different) > 1:
            different = different[[np.argmax([self._sum_by_rule(int(slot)) for slot in different])]]
        return int(different[0])

    def _look_out(self, slot: int, ranked: _Ranked) -> None:
        """Renew a slot's outlook from the picks in order of rank."""
        keys = from_squared(ranked.keys, self.scoring.metric)
        sums = np.zeros(len(keys) + 1)
        np.cumsum(keys * ranked.powered * self.weights.w[: len(keys)], out=sums[1:])
        low, scale = np.float32(keys[0]), np.float32(COARSE / max(1.001 * (keys[-1] - keys[0]), 1e-30))
        before = np.searchsorted(keys, np.float64(low) + np.arange(COARSE + 1) / np.float64(scale))
        before[0], before[-1] = 0, len(keys)
        outlook = self._outlook
        outlook.low[slot], outlook.scale[slot], outlook.counted[slot] = low, scale, len(keys)
        outlook.before[slot], outlook.part[slot] = before[:-1], np.diff(sums[before])
        self._outlook_error[slot], self._beside[slot] = 1e-6 * keys[-1], 1e-5 * sums[-1]

    def _squared(self, points: Array, norms: Array, picks: slice) -> Array:
        """Squared distances of points to some picks by a matrix product; pairs near one another by the rule."""
        others = self._picked.points[picks]
        sums = norms[:, None] + self._picked_norms[picks]
        squared = points @ others.T
        squared *= -2.0
        squared += sums
        at, column = np.nonzero(squared < _NEAR * sums)
        if len(at):
            squared[at, column] = paired_squared_distances(points, others, at, column)
        return np.asarray(squared)
