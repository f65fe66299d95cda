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
from numpy.typing import NDArray

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
_LIKELIEST = 32
"""So many of the likeliest next picks are evaluated at first, then twice as many."""
_EVALUATED_AT_ONCE = 64
_FEW_PICKS = 64
_KEYS_AT_ONCE = 1 << 18
RANKED_BYTES = 256 << 20
"""Ranked picks of contenders take no more; those of whom has not been evaluated for the longest are forgotten."""
_SAME_MASS = 1e-11
_NEAR = 1e-6
"""Squared distances below this share of the squared norms are computed again, as a product has lost their digits."""


def contender_bytes(dimension: int, itemsize: int) -> int:
    """Bytes that a candidate takes in the pool, its ranked picks aside; ``itemsize`` of a value of its vector."""
    return (8 + itemsize) * dimension + 8 * _WINDOW + 8 * COARSE + 128


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


class _Ranking:
    """The picks ranked for some contenders: a row of the table for each, the lowest keys first.

    ``keys`` (m, w) float64; ``order`` (m, w) int32, the place of the pick that each key is of; ``count`` (m,) int64,
    how many of the first picks are ranked. What lies behind them means nothing.
    """

    def __init__(self) -> None:
        self.keys = np.empty((0, _FEW_PICKS))
        self.order, self.count = np.empty((0, _FEW_PICKS), np.int32), np.empty(0, np.int64)

    def make_room(self, rows: int, picks: int) -> int:
        """Have so many rows, as far as their bytes allow it, for so many picks; how many there are then."""
        before, width = self.keys.shape
        if picks > width:
            width = 2 * picks
        most = max(_EVALUATED_AT_ONCE, RANKED_BYTES // (12 * width))
        rows = min(max(rows, 2 * before) if rows > before else before, most)
        if (rows, width) != self.keys.shape:
            self.keys, self.order, self.count = (
                _enlarged(array, (rows, width)[: array.ndim]) for array in (self.keys, self.order, self.count)
            )
        return rows

    def insert(self, at: Integers, keys: Array, n: int) -> tuple[Array, NDArray[np.int32]]:
        """Rank the first n picks in some rows, given the keys (k, c) of the last c of them; keys and order (k, n)."""
        ranked, order = self.keys[at, :n], self.order[at, :n]
        first = n - keys.shape[1]
        places = np.arange(first, n, dtype=np.int32)
        is_new = places >= self.count[at, None]
        np.copyto(ranked[:, first:], keys, where=is_new)
        np.copyto(order[:, first:], places, where=is_new)
        by_key = np.argsort(ranked, axis=1, kind="stable")  # fast where most keys are in order
        ranked, order = np.take_along_axis(ranked, by_key, axis=1), np.take_along_axis(order, by_key, axis=1)
        self.keys[at, :n], self.order[at, :n], self.count[at] = ranked, order, n
        return ranked, order

    def back_to(self, n: int) -> None:
        """Take out the picks after the first n."""
        late = np.flatnonzero(self.count > n)
        for start in range(0, len(late), _EVALUATED_AT_ONCE):
            at = late[start : start + _EVALUATED_AT_ONCE]
            most = int(self.count[at].max())
            stays = (self.order[at, :most] < n) & (np.arange(most) < self.count[at, None])
            self.keys[at, :n] = self.keys[at, :most][stays].reshape(len(at), n)
            self.order[at, :n] = self.order[at, :most][stays].reshape(len(at), n)
            self.count[at] = n


def _enlarged(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """What of an array fits into another shape, 0 beside it."""
    larger = np.zeros(shape, array.dtype)
    kept = tuple(slice(0, min(sizes)) for sizes in zip(shape, array.shape, strict=True))
    larger[kept] = array[kept]
    return larger


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
        self._columns = np.empty((_WINDOW, 0))
        self._first_column = 0
        self._tolerance = 0.0
        self._ranking = _Ranking()
        self._ranked_in = np.empty(0, np.int64)
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
        columns = np.full((_WINDOW, len(samples)), np.inf)
        drafted = slice(self._committed, self._committed + self._drafted)
        columns[self._window(drafted)] = self._squared(samples.points, norms, drafted).T
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
        self._columns = np.concatenate([self._columns, columns], axis=1)
        self._ranked_in = np.concatenate([self._ranked_in, np.full(len(norms), -1)])
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
            "_ranked_in",
        ):
            setattr(self, name, getattr(self, name)[kept])
        self._outlook = self._outlook[kept]
        self._columns = self._columns[:, kept]
        return settled

    # --- drafting -----------------------------------------------------------------------------------------

    def draft(self, length: int, left: int) -> Draft:
        """The next picks of exact greedy selection inside the pool, ``left`` to pick in all.

        :meth:`commit` says how many of them stand.
        """
        draft = Draft([], [], [], np.full(len(self._by_group), length + 1))
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
            slot = self._best()
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
            columns[: kept.stop - kept.start] = self._columns[self._window(kept)]
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
            column = self._columns[self.picks - self._first_column, new]
            self.upper[new] += self._gains(new, column, self.picks) * self.quality[new]
            self.picks += 1
        stands = self.picks - self._committed
        if stands < len(draft.slots):
            old = len(self._snapshots[stands])
            self.upper[:old] = self._snapshots[stands]
            self._exact_at[:old] = -1
            # Those of the draft count picks that are none now.
            self._outlook[np.array(self._renewed, np.int64)] = Outlook.empty(len(self._renewed))
            self._ranking.back_to(self.picks)
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
        return value

    def _best(self) -> int:
        """The slot with the greatest score, the smallest row of equals. Its bound is exact afterwards."""
        at_once = _LIKELIEST
        while self._exact_at[np.argmax(self.upper)] != self.picks:
            likeliest = self._likeliest(at_once)
            self._evaluate(likeliest[~self._is_exact(likeliest)])
            at_once *= 2
        v = self.upper.max()
        self._raise_to(self._everyone, v)
        equals = np.flatnonzero(self.upper >= v - TIE * abs(v))
        return int(equals[0]) if len(equals) == 1 else self._first_of(equals)

    def _likeliest(self, most: int) -> Integers:
        """The slots with the greatest bounds, of those that can be picked."""
        slots = np.argpartition(self.upper, -most)[-most:] if most < len(self.upper) else self._everyone
        return np.asarray(slots[self.upper[slots] > -np.inf])

    @property
    def _everyone(self) -> Integers:
        return np.arange(len(self.rows))

    def _raise_to(self, slots: Integers, v: float) -> bool:
        """Evaluate all slots whose bound reaches v within a tie; whether there were any."""
        reach = slots[self.upper[slots] >= v - TIE * abs(v)]
        self._evaluate(reach[~self._is_exact(reach)])
        return len(reach) > 0

    def _error(self, slots: Integers | slice, keys: Single) -> Single:
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
        self._columns[column] = self._squared(self.points, self._norms, slice(n, n + 1))[:, 0]
        self.upper += self._gains(slice(None), self._columns[column], n) * self.quality
        self.upper[slot] = -np.inf
        self.picks = n + 1

    def _gains(self, slots: Integers | slice, squared: Array, n: int) -> Array:
        """What the pick at place n adds to the sums of some slots at most, given its distances to them."""
        shares = Shares.of(self.scoring.equation, self.powered[slots], self._picked.powered[: n + 1])
        picks = slice(n, n + 1)
        keys = shares.keys(from_squared(squared, self.scoring.metric)[:, None], picks).astype(np.float32)
        doubt = self._error(slots, keys)
        gains = gain_bounds(shares, picks, keys, np.zeros(1), self._outlook, slots, doubt, self.weights)
        return gains[:, 0].astype(np.float64) * (1 + 1e-6)

    # --- exact values -------------------------------------------------------------------------------------

    def _evaluate(self, slots: Integers) -> None:
        """Replace the bounds of slots by their exact scores against the picks of the moment."""
        at_once = max(_EVALUATED_AT_ONCE, _KEYS_AT_ONCE // max(1, self.picks))
        for start in range(0, len(slots), at_once):
            self._evaluate_some(slots[start : start + at_once])

    def _evaluate_some(self, slots: Integers) -> None:
        """The same for no more of them than are ranked at once."""
        self.evaluated += len(slots)
        equation = self.scoring.equation
        keys, order = self._ranked(slots)
        masses = keys
        if not equation.ranked_by_mass:
            masses = from_squared(keys, self.scoring.metric)
            is_outdated = self._outlook.counted[slots] < _OUTDATED * self.picks
            self._look_out(slots[is_outdated], masses[is_outdated])
            masses *= equation.share(self.powered[slots, None], self._picked.powered[order])
        sums = (masses * self.weights.w[: self.picks]).sum(axis=1)
        if not equation.ranked_by_mass:
            for place in self._doubtful(keys, masses):
                sums[place] = self._sum_by_rule(slots[place])
        exact = sums * self.quality[slots]
        is_met = (self._exact_at[slots] < 0) & (exact > 0) & (self.upper[slots] < np.inf)
        if is_met.any():
            excess = self.upper[slots[is_met]] / exact[is_met] - 1
            self._excess += (1 - 0.99 ** len(excess)) * (float(excess.mean()) - self._excess)
        self._sums[slots], self.upper[slots] = sums, exact
        self._standing[slots] = self._standing_of(exact)
        self._exact_at[slots] = self.picks

    def _ranked(self, slots: Integers) -> tuple[Array, NDArray[np.int32]]:
        """Keys (m, n) of all picks for slots, the lowest first, and which pick each is of."""
        self._find_places(slots)
        n, at = self.picks, self._ranked_in[slots]
        known = self._ranking.count[at]
        by_column = (known > 0) & (known >= self._first_column)
        keys, order = np.empty((len(slots), n)), np.empty((len(slots), n), np.int32)
        for some in (np.flatnonzero(by_column), np.flatnonzero(~by_column)):
            if len(some):
                part = slice(int(known[some].min()), n)
                new = self._keys(slots[some], part, by_column=bool(by_column[some[0]]))
                keys[some], order[some] = self._ranking.insert(at[some], new, n)
        return keys, order

    def _find_places(self, slots: Integers) -> None:
        """See to it that all slots have a place in the ranking; who was evaluated the longest ago may lose it."""
        ranked_in = self._ranked_in
        held = np.flatnonzero(ranked_in >= 0)
        places = self._ranking.make_room(len(held) + int((ranked_in[slots] < 0).sum()), self.picks)
        ranked_in[held[ranked_in[held] >= places]] = -1
        new = slots[ranked_in[slots] < 0]
        if not len(new):
            return
        is_free = np.ones(places, bool)
        is_free[ranked_in[ranked_in >= 0]] = False
        if is_free.sum() < len(new):
            others = np.setdiff1d(held[ranked_in[held] >= 0], slots)
            oldest = others[np.argsort(self._exact_at[others])][: max(len(new), len(others) // 2)]
            is_free[ranked_in[oldest]] = True
            ranked_in[oldest] = -1
        ranked_in[new] = np.flatnonzero(is_free)[: len(new)]
        self._ranking.count[ranked_in[new]] = 0

    def _standing_of(self, scores: Any) -> Any:
        return scores / self._best_score if self._best_score > 0 else scores

    def _keys(self, slots: Integers, picks: slice, *, by_column: bool) -> Array:
        """What some picks are ranked by for slots (m, k), from the columns that are kept or by a matrix product.

        Where they are ranked by distance, its square does.
        """
        if by_column:
            squared = self._columns[self._window(picks)][:, slots].T
        else:
            squared = self._squared(self.points[slots], self._norms[slots], picks)
        equation = self.scoring.equation
        if not equation.ranked_by_mass:
            return squared
        return from_squared(squared, self.scoring.metric) * equation.share(
            self.powered[slots, None], self._picked.powered[picks]
        )

    def _doubtful(self, keys: Array, masses: Array) -> Integers:
        """Those whose picks, ranked by keys (m, n), are too near one another to tell the first and differ in mass."""
        is_near = keys[:, 1:] - keys[:, :-1] <= 2 * self._tolerance
        at, left = np.nonzero(is_near) if is_near.any() else np.empty((2, 0), np.int64)
        one, other = masses[at, left], masses[at, left + 1]
        return np.unique(at[np.abs(other - one) > _SAME_MASS * one])

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

    def _look_out(self, slots: Integers, ranked: Array) -> None:
        """Renew what the outlooks of slots say of ranks, from their distances (m, n) to all picks, the lowest first."""
        self._outlook[slots] = Outlook.of(ranked)
        self._outlook_error[slots] = 1e-6 * ranked[:, -1]
        self._renewed += slots.tolist()

    def _squared(self, points: Array, norms: Array, picks: slice) -> Array:
        """Squared distances of points to some picks by a matrix product; pairs near one another by the rule."""
        others = self._picked.points[picks]
        sums = norms[:, None] + self._picked_norms[picks]
        squared = points @ others.T
        squared *= -2.0
        squared += sums
        sums *= _NEAR
        is_near = squared < sums
        if is_near.any():
            at, column = np.nonzero(is_near)
            squared[at, column] = paired_squared_distances(points, others, at, column)
        return np.asarray(squared)
