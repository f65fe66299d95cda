"""The driver's pool: the few candidates that may be picked next. Drafts come from it. NumPy only.

A draft is exact greedy selection inside this pool, lazily: every contender has an upper bound on its score, the sum
Σ w^κ1 · mass times its quality, picks raise it by gain bounds, and only contenders whose bound reaches the best known
score are evaluated. Distances come from float64 matrix products; where their rounding could decide (two contenders of
nearly equal novelty, two picks at nearly equal distance) values are computed again by the formula's own rule.
So no decision depends on who else is in the pool.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from novelsum import formula
from novelsum.density.neighbors import paired_squared_distances
from novelsum.formula import Array, from_squared, squared_distances
from novelsum.selection.quotas import Quotas
from novelsum.selection.scoring import Scoring
from novelsum.selection.sketch import COARSE, Integers, Outlook, Shares, Single, Weights, gain_bounds

TIE = 1e-9
"""Sums closer than this, relatively, are compared again by the formula's own rule."""
_WINDOW = 512
"""So many latest picks are kept as columns of distances to the contenders."""
_OUTDATED = 0.9
_MET_AT_ONCE = 64
_SAME_MASS = 1e-11
_NEAR = 1e-6
"""Squared distances below this share of the squared norms are computed again, as a product has lost their digits."""


@dataclass(frozen=True)
class Samples:
    """Some candidates: rows (n,) int64, points (n, D) float64 in the metric's space, σ^κ2 (n,) float64.

    ``quality`` (n,) float64, q^γ, which multiplies the sum; ``groups`` (n,) int64, numbers of the quotas' groups.
    """

    rows: Integers
    points: Array
    powered: Array
    quality: Array
    groups: Integers

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Draft:
    """Contenders in the order they would be picked: their slots, and score and sum of each when it would be.

    ``open_until`` (G,) int64: up to which step of it, excluded, picks may come from each group.
    """

    slots: list[int]
    scores: list[float]
    sums: list[float]
    open_until: Integers


class _Ranked:
    """What a contender's sum is made of: its keys and masses against the first ``count`` picks, in order of rank.

    ``doubtful`` counts picks that are too near to a neighbour in rank to tell which comes first.
    """

    def __init__(self, budget: int, tolerance: float) -> None:
        self.count = 0
        self._keys, self._masses = np.empty(budget + 2), np.empty(budget)
        self._keys[:2] = -np.inf, np.inf  # one sentinel before the first key, one after the last
        self._tolerance = tolerance
        self._doubtful = 0
        self._inserted: list[tuple[Integers, Integers, int]] = []

    @property
    def keys(self) -> Array:
        """(count,) ascending."""
        return self._keys[1 : self.count + 1]

    def insert(self, keys: Array, masses: Array) -> None:
        """Put further picks (k,) into their places."""
        order = np.argsort(keys)
        n, k = self.count, len(keys)
        keys = keys[order]
        places = self.keys.searchsorted(keys)
        places += np.arange(k)
        old = np.ones(n + k, bool)
        old[places] = False
        inner = self._keys[1 : n + k + 1]
        inner[old] = self.keys.copy()
        inner[places] = keys
        self._keys[n + k + 1] = np.inf
        self._masses[: n + k][old] = self._masses[:n].copy()
        self._masses[places] = masses[order]
        doubtful = self._doubts(places)
        self._doubtful += doubtful
        self._inserted.append((order + n, places, doubtful))
        self.count = n + k

    def _doubts(self, places: Integers) -> int:
        """How many of the picks at some places cannot be told in rank from a neighbour, where that matters."""
        here = self._keys[places + 1]
        before, after = here - self._keys[places], self._keys[places + 2] - here
        if before.min() > self._tolerance and after.min() > self._tolerance:
            return 0
        doubtful = 0
        for left in (places[before <= self._tolerance] - 1, places[after <= self._tolerance]):
            unlike = np.abs(self._masses[left + 1] - self._masses[left]) > _SAME_MASS * self._masses[left]
            doubtful += int(unlike.sum())
        return doubtful

    def back_to(self, count: int) -> bool:
        """Take out the picks after the first ``count``; whether it was remembered where they are."""
        while self.count > count and self._inserted:
            picks, places, doubtful = self._inserted.pop()
            kept = np.ones(self.count, bool)
            kept[places] = False
            if picks.min() < count:
                # Some of these stay. Their places are not remembered, so they are put in again.
                stay = places[picks < count]
                keys, masses = self.keys[stay], self._masses[stay]
            else:
                keys = masses = np.empty(0)
            self._keys[1 : kept.sum() + 1] = self.keys[kept]
            self._masses[: kept.sum()] = self._masses[: self.count][kept]
            self.count = int(kept.sum())
            self._keys[self.count + 1] = np.inf
            self._doubtful -= doubtful
            if len(keys):
                self.insert(keys, masses)
        return self.count == count

    def settle(self) -> None:
        """The picks inserted so far stay."""
        self._inserted = []

    @property
    def is_doubtful(self) -> bool:
        """Whether the order of some picks, and with it the sum, is uncertain."""
        return self._doubtful > 0

    def total(self, weights: Weights) -> float:
        """Σ w · mass."""
        return float(self._masses[: self.count] @ weights.w[: self.count])


class Contenders:
    """Candidates in slots 0 ... p - 1, and the picks, to which a draft adds for a while.

    ``upper`` (p,) float64 bounds the score of each against the picks of the moment; -inf once it cannot be picked.
    """

    def __init__(
        self, scoring: Scoring, weights: Weights, places: int, dimension: int, quotas: Quotas | None = None
    ) -> None:
        """``places``: how many picks there will be, those before the start included."""
        self.scoring, self.weights = scoring, weights
        self.picks = 0
        self._committed = 0
        self._picked = Samples(
            np.empty(places, np.int64),
            np.empty((places, dimension)),
            np.empty(places),
            np.empty(places),
            np.empty(places, np.int64),
        )
        self._picked_norms = np.empty(places)
        self._quotas = quotas
        self._by_group = np.zeros(len(quotas.groups) if quotas else 1, np.int64)
        self.evaluated = 0
        self.rows = np.empty(0, np.int64)
        self.points = np.empty((0, dimension))
        self.powered = np.empty(0)
        self.quality = np.empty(0)
        self.groups = np.empty(0, np.int64)
        self.upper = np.empty(0)
        self._sums = np.empty(0)
        self._norms = np.empty(0)
        self._exact_at = np.empty(0, np.int64)
        self._standing = np.empty(0)
        self._best_score = 0.0
        self._excess = 0.0
        self._outlook = Outlook.empty(0)
        self._outlook_error = np.empty(0, np.float32)
        self._columns = np.empty((0, _WINDOW))
        self._first_column = 0
        self._tolerance = 0.0
        self._ranked: dict[int, _Ranked] = {}
        self._snapshots: list[Array] = []
        self._drafted = 0
        self._renewed: list[int] = []

    def picked(self, part: slice) -> Samples:
        """Some of the picks, in the order of picking."""
        return Samples(*(getattr(self._picked, name)[part] for name in Samples.__dataclass_fields__))

    def begin(self, samples: Samples, *, counts: bool) -> None:
        """Take samples for the first picks, before there are contenders; ``counts``: by quotas, too."""
        part = slice(self.picks, self.picks + len(samples))
        for name in Samples.__dataclass_fields__:
            getattr(self._picked, name)[part] = getattr(samples, name)
        self._picked_norms[part] = np.square(samples.points).sum(axis=1)
        if counts:
            np.add.at(self._by_group, samples.groups, 1)
        self.picks = self._committed = self._first_column = part.stop

    # --- who is in the pool -------------------------------------------------------------------------------

    def admit(self, samples: Samples, upper: Array, outlook: Outlook, error: Single) -> Integers:
        """Take candidates in, whose sums ``upper`` bounds against the committed picks; return their slots."""
        norms = np.square(samples.points).sum(axis=1)
        columns = np.full((len(samples), _WINDOW), np.inf)
        drafted = slice(self._committed, self._committed + self._drafted)
        columns[:, self._window(drafted)] = self._squared(samples.points, norms, drafted)
        first = len(self.rows)
        self.rows = np.concatenate([self.rows, samples.rows])
        self.points = np.concatenate([self.points, samples.points])
        self.powered = np.concatenate([self.powered, samples.powered])
        self.quality = np.concatenate([self.quality, samples.quality])
        self.groups = np.concatenate([self.groups, samples.groups])
        upper = np.where(samples.quality > 0, upper, 0.0) * samples.quality
        self.upper = np.concatenate([self.upper, upper])
        self._sums = np.concatenate([self._sums, np.zeros(len(upper))])
        self._norms = np.concatenate([self._norms, norms])
        self._exact_at = np.concatenate([self._exact_at, np.full(len(norms), -1)])
        self._standing = np.concatenate([self._standing, self._standing_of(upper / (1 + self._excess))])
        self._outlook = Outlook.joined([self._outlook, outlook])
        self._outlook_error = np.concatenate([self._outlook_error, error])
        self._columns = np.concatenate([self._columns, columns])
        greatest = max(self._norms.max(initial=0.0), self._picked_norms[: self.picks].max(initial=0.0))
        self._tolerance = float(16 * (self.points.shape[1] + 4) * np.finfo(np.float64).eps * greatest)
        return np.arange(first, len(self.rows))

    def dismiss(self, capacity: int) -> tuple[Integers, Array]:
        """Let go of picked candidates, and of those with the lowest standing above the capacity.

        Returns the rows of these, ascending, and bounds of their sums, often exact, for the executors to go on with.

        Standing, the score last known over the best of its time, tells better than a bound who may be picked
        soon: bounds of candidates never evaluated are the loosest.
        """
        kept = np.flatnonzero(self.upper > -np.inf)
        gone = kept[:0]
        if len(kept) > capacity:
            by_standing = np.argpartition(-self._standing[kept], capacity)
            kept, gone = np.sort(kept[by_standing[:capacity]]), kept[by_standing[capacity:]]
        gone = gone[np.argsort(self.rows[gone])]
        gone = gone[self.quality[gone] > 0]
        settled = self.rows[gone], self.upper[gone] / self.quality[gone] * (1 + 2 * TIE)
        for name in (
            "rows",
            "points",
            "powered",
            "quality",
            "groups",
            "upper",
            "_sums",
            "_norms",
            "_exact_at",
            "_standing",
            "_outlook_error",
        ):
            setattr(self, name, getattr(self, name)[kept])
        self._outlook = self._outlook[kept]
        self._columns = self._columns[kept]
        rows = set(self.rows.tolist())
        self._ranked = {row: ranked for row, ranked in self._ranked.items() if row in rows}
        return settled

    # --- drafting -----------------------------------------------------------------------------------------

    def draft(self, length: int, left: int) -> Draft:
        """The next picks of exact greedy selection inside the pool, ``left`` to pick in all.

        :meth:`commit` says how many of them stand.
        """
        draft = Draft([], [], [], np.full(len(self._by_group), length + 1))
        everyone = np.arange(len(self.rows))
        self._snapshots = []
        self._make_room(length + 1)
        by_group = self._by_group.copy()
        while True:
            step = len(draft.slots)
            if self._quotas:
                is_open = self._quotas.is_open(by_group, left - step)
                np.minimum(draft.open_until, step, out=draft.open_until, where=~is_open)
                self.upper[~is_open[self.groups]] = -np.inf
            if step == length or not np.any(self.upper > -np.inf):
                break
            slot = self._best(everyone)
            self._snapshots.append(self.upper.copy())
            draft.slots.append(slot)
            draft.scores.append(float(self.upper[slot]))
            draft.sums.append(float(self._sums[slot]))
            self._best_score = draft.scores[-1]
            by_group[self.groups[slot]] += 1
            self._push(slot)
        self._drafted = len(draft.slots)
        return draft

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
            slot, v = draft.slots[step], draft.scores[step]
            able = new[draft.open_until[self.groups[new]] > step]
            if self._raise_to(able, v):
                equals = able[self._is_exact(able) & (self.upper[able] >= v - TIE * abs(v))]
                if len(equals):
                    best = equals[np.argmax(self.upper[equals])]
                    clear = self.upper[best] > v + TIE * abs(v)
                    winner = self._first_of(equals if clear else np.append(equals, slot))
                    if winner != slot:
                        challenger = winner
                        break
            column = self.picks - self._first_column
            self.upper[new] += self._gains(new, self._columns[new, column], self.picks) * self.quality[new]
            self.picks += 1
        stands = self.picks - self._committed
        if stands < len(draft.slots):
            old = len(self._snapshots[stands])
            self.upper[:old] = self._snapshots[stands]
            self._exact_at[:old] = -1
            # Those of the draft count picks that are none now.
            self._outlook[np.array(self._renewed, np.int64)] = Outlook.empty(len(self._renewed))
            self._ranked = {
                row: ranked for row, ranked in self._ranked.items() if ranked.back_to(min(ranked.count, self.picks))
            }
        assert self.picks <= drafted
        return stands, challenger

    def commit(self, challenger: int | None = None) -> float | None:
        """Make the picks that stand final, and the challenger after them; return the challenger's sum."""
        value = None
        if challenger is not None:
            value = float(self._sums[challenger])
            self._push(challenger)
        np.add.at(self._by_group, self._picked.groups[self._committed : self.picks], 1)
        self._committed, self._drafted, self._renewed = self.picks, 0, []
        for ranked in self._ranked.values():
            ranked.settle()
        return value

    def _best(self, slots: Integers) -> int:
        """The slot with the greatest score, the smallest row of equals. Its bound is exact afterwards."""
        while True:
            slot = slots[np.argmax(self.upper[slots])]
            if self._exact_at[slot] == self.picks:
                break
            if int(self.rows[slot]) not in self._ranked:
                likely = min(_MET_AT_ONCE, len(slots))
                self._meet(slots[np.argpartition(self.upper[slots], -likely)[-likely:]])
            self._evaluate(slot)
        v = self.upper[slot]
        self._raise_to(slots, v)
        equals = slots[self.upper[slots] >= v - TIE * abs(v)]
        return int(slot) if len(equals) == 1 else self._first_of(equals)

    def _raise_to(self, slots: Integers, v: float) -> bool:
        """Evaluate all slots whose bound reaches v within a tie; whether there were any."""
        floor = v - TIE * abs(v)
        reach = slots[self.upper[slots] >= floor]
        stale = reach[~self._is_exact(reach)]
        self._meet(stale)
        for slot in stale:
            self._evaluate(slot)
        return len(reach) > 0

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
        self._picked.quality[n] = self.quality[slot]
        self._picked.groups[n] = self.groups[slot]
        self._picked_norms[n] = self._norms[slot]
        self._columns[:, column] = self._squared(self.points, self._norms, slice(n, n + 1))[:, 0]
        self.upper += self._gains(np.arange(len(self.rows)), self._columns[:, column], n) * self.quality
        self.upper[slot] = -np.inf
        self.picks = n + 1

    def _gains(self, slots: Integers, squared: Array, n: int) -> Array:
        """What the pick at place n adds to the sums of some slots at most, given its distances to them."""
        shares = Shares.of(self.scoring.equation, self.powered[slots], self._picked.powered[: n + 1])
        picks = slice(n, n + 1)
        keys = shares.keys(from_squared(squared, self.scoring.metric)[:, None], picks).astype(np.float32)
        doubt = self._error(slots, keys)
        gains = gain_bounds(shares, picks, keys, np.zeros(1), self._outlook, slots, doubt, self.weights)
        return gains[:, 0].astype(np.float64) * (1 + 1e-6)

    # --- exact values -------------------------------------------------------------------------------------

    def _evaluate(self, slot: int) -> None:
        """Replace a slot's bound by its exact score against the picks of the moment."""
        self.evaluated += 1
        ranked = self._ranked_of(slot)
        known = ranked.count
        if known < self.picks:
            ranked.insert(*self._terms(slot, slice(known, self.picks)))
        self._sums[slot] = self._sum_by_rule(slot) if ranked.is_doubtful else ranked.total(self.weights)
        exact = self._sums[slot] * self.quality[slot]
        if self._exact_at[slot] < 0 and exact > 0 and self.upper[slot] < np.inf:
            self._excess += 0.01 * (self.upper[slot] / exact - 1 - self._excess)
        if not self.scoring.equation.ranked_by_mass and self._outlook.counted[slot] < _OUTDATED * self.picks:
            self._look_out(slot, ranked)
        self.upper[slot] = exact
        self._standing[slot] = self._standing_of(exact)
        self._exact_at[slot] = self.picks

    def _meet(self, slots: Integers) -> None:
        """Rank the committed picks for slots that are to be evaluated, by one matrix product and not one by one."""
        slots = np.array([slot for slot in slots if int(self.rows[slot]) not in self._ranked], np.int64)
        picks = slice(0, self._committed)
        for start in range(0, len(slots), _MET_AT_ONCE):
            some = slots[start : start + _MET_AT_ONCE]
            for slot, squared in zip(some, self._squared(self.points[some], self._norms[some], picks), strict=True):
                self._ranked_of(slot).insert(*self._terms_of(slot, squared, picks))

    def _ranked_of(self, slot: int) -> _Ranked:
        """A slot's record, empty if it has none yet."""
        row = int(self.rows[slot])
        if row not in self._ranked:
            tolerance = -1.0 if self.scoring.equation.ranked_by_mass else 2 * self._tolerance
            self._ranked[row] = _Ranked(len(self._picked), tolerance)
        return self._ranked[row]

    def _standing_of(self, scores: Any) -> Any:
        return scores / self._best_score if self._best_score > 0 else scores

    def _terms(self, slot: int, picks: slice) -> tuple[Array, Array]:
        """Keys and masses of some picks for a slot: (k,) each."""
        if picks.start > 0 and self._first_column <= picks.start:
            squared = self._columns[slot, self._window(picks)]
        else:
            squared = self._squared(self.points[slot : slot + 1], self._norms[slot : slot + 1], picks)[0]
        return self._terms_of(slot, squared, picks)

    def _terms_of(self, slot: int, squared: Array, picks: slice) -> tuple[Array, Array]:
        """The same from squared distances (k,)."""
        equation = self.scoring.equation
        masses = from_squared(squared, self.scoring.metric)
        masses *= equation.share(self.powered[slot], self._picked.powered[picks])
        return masses if equation.ranked_by_mass else squared, masses

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
        return float(v[0] * self.scoring.equation.divisor(n))

    def _first_of(self, equals: Integers) -> int:
        """Of slots too close to tell apart, the one with the greatest score by rule, the smallest row of equals."""
        equals = equals[np.argsort(self.rows[equals])]
        vectors = np.column_stack([self.points[equals], self.powered[equals], self.quality[equals]])
        _, first = np.unique(vectors, axis=0, return_index=True)
        different = equals[np.sort(first)]
        if len(different) > 1:
            scores = [self._sum_by_rule(int(slot)) * self.quality[slot] for slot in different]
            different = different[[np.argmax(scores)]]
        return int(different[0])

    def _look_out(self, slot: int, ranked: _Ranked) -> None:
        """Renew what a slot's outlook says of ranks."""
        keys = from_squared(ranked.keys, self.scoring.metric)
        low = np.float32(keys[0])
        scale = np.float32(COARSE / (1.001 * (keys[-1] - keys[0]) + 1e-6 * keys[-1] + 1e-30))
        before = np.searchsorted(keys, np.float64(low) + np.arange(COARSE) / np.float64(scale))
        before[0] = 0  # keys below the first cell are looked up in it
        outlook = self._outlook
        outlook.low[slot], outlook.scale[slot], outlook.counted[slot] = low, scale, self._committed
        outlook.before[slot] = before
        self._renewed.append(slot)
        self._outlook_error[slot] = 1e-6 * keys[-1]

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
