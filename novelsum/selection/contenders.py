"""The driver's pool: the few candidates that may be picked next. Drafts come from it. NumPy only.

A draft is exact greedy selection inside this pool, lazily: every contender has an upper bound on its score, the sum
Σ w^κ1 · mass times its quality, picks raise it by gain bounds, and only contenders whose bound reaches the best known
score are evaluated. Distances come from float64 matrix products; where their rounding could decide (two contenders of
nearly equal novelty, two picks at nearly equal distance) values are computed again by the formula's own rule.
So no decision depends on who else is in the pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum import formula
from novelsum.density.neighbors import paired_squared_distances
from novelsum.formula import Array, from_squared, squared_distances
from novelsum.rows import Integers
from novelsum.selection.candidates import Candidates, Columns, Dismissed, Picks, Units
from novelsum.selection.quotas import Quotas
from novelsum.selection.scoring import Scoring
from novelsum.selection.sketch import COARSE, Outlook, Shares, Single, Weights, gain_bounds

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
"""Ranked picks take no more: contenders that were evaluated the longest ago lose theirs."""
_SAME_MASS = 1e-11
_NEAR = 1e-6
"""Squared distances below this share of the squared norms are computed again, as a product has lost their digits."""


def contender_bytes(dimension: int, itemsize: int) -> int:
    """Bytes that a candidate takes in the pool, its ranked picks aside; ``itemsize`` of a value of its vector."""
    return (8 + itemsize) * dimension + 8 * _WINDOW + 8 * COARSE + 128


@dataclass(frozen=True)
class Arrivals(Columns):
    """Candidates that the pool takes in, as they are stored, and what is known of them against the committed picks.

    ``upper`` (n,) float64 bounds their sums; ``error`` (n,) float32: how far distances in their ``outlook`` may be from
    the true ones.
    """

    candidates: Candidates
    upper: Array
    outlook: Outlook
    error: Single

    @staticmethod
    def unknown(candidates: Candidates) -> "Arrivals":
        """Of candidates nothing is known of."""
        n = len(candidates)
        return Arrivals(candidates, np.full(n, np.inf), Outlook.empty(n), np.zeros(n, np.float32))


@dataclass(frozen=True)
class _Slots(Columns):
    """The contenders, and what is known of each.

    ``candidates`` in units, ``stored`` (p, D) their vectors as in the store. ``upper`` (p,) bounds the score, which is
    computed, with its ``sums``, against the first ``exact_at`` picks; -1: not since it counted other picks, or never.
    ``standing``: the score last known over the best of its time. ``ranked_in``: the row of the ranking, or -1.
    """

    candidates: Candidates
    stored: NDArray[Any]
    norms: Array
    upper: Array
    sums: Array
    exact_at: Integers
    standing: Array
    ranked_in: Integers
    outlook: Outlook
    outlook_error: Single


@dataclass(frozen=True)
class Draft:
    """Contenders in the order they would be picked: their slots, and score and sum of each when it would be.

    ``open_until`` (G,) int64: up to which step of it, excluded, picks may come from each group.
    """

    slots: list[int]
    scores: list[float]
    sums: list[float]
    open_until: Integers
    _pool: "Contenders"
    _snapshots: list[Array]

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def picks(self) -> Candidates:
        """The drafted, as they are stored."""
        return self._pool.stored(self.slots)

    def challenge(self, arrivals: Arrivals | None, steps: int) -> "Verdict":
        """Take candidates in; the longest prefix of at most ``steps`` that none of them beats, and who does."""
        return self._pool._challenge(self, arrivals, steps)


@dataclass(frozen=True)
class Verdict:
    """How many picks of a draft stand, and the slot of the challenger that is picked after them."""

    draft: Draft
    stands: int
    challenger: int | None

    @property
    def is_whole(self) -> bool:
        """Whether the draft stands as it is."""
        return self.stands == len(self.draft) and self.challenger is None

    def commit(self) -> tuple[Candidates, list[float]]:
        """Make these picks final; as they are stored, with the sum of each when it was picked."""
        return self.draft._pool._commit(self)


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

    The order of things is that of the types: :meth:`draft` gives a :class:`Draft`, whose ``challenge``, in which
    arrivals are admitted, gives a :class:`Verdict`, which alone can be committed; between one commit and the next
    draft :meth:`dismiss` makes room.
    """

    def __init__(
        self,
        scoring: Scoring,
        units: Units,
        weights: Weights,
        before: Candidates,
        first: Candidates,
        everyone: Candidates | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        """With picks already made, as they are stored: those ``before`` the selection, which quotas do not count, and
        its ``first`` ones. ``everyone``: all other candidates, where they are contenders from the start.

        ``weights`` are of as many picks as there will be.
        """
        self.scoring, self.weights = scoring, weights
        self._units, self._quotas = units, quotas
        self._by_group = np.zeros(len(quotas.groups) if quotas else 1, np.int64)
        np.add.at(self._by_group, first.groups, 1)
        picked = Picks.measured(Candidates.joined([before, first]).in_units(scoring.metric, units))
        self._picked = picked.room(len(weights.w) - 1)
        self._picked[: len(picked)] = picked
        self.picks = self._committed = self._first_column = len(picked)
        self.evaluated = 0
        self._best_score = self._excess = self._tolerance = 0.0
        self._columns = np.empty((_WINDOW, 0))
        self._ranking = _Ranking()
        self._renewed: list[int] = []
        self._slots = self._slots_of(Arrivals.unknown(before[:0]))
        self._admit(Arrivals.unknown(before[:0] if everyone is None else everyone))

    @property
    def candidates(self) -> Candidates:
        """Of all slots, in units."""
        return self._slots.candidates

    @property
    def upper(self) -> Array:
        """Bounds on the score of each against the picks of the moment; -inf once it cannot be picked."""
        return self._slots.upper

    @property
    def powered(self) -> Array:
        """σ^κ2 of the picks of the moment, in units."""
        return self._picked.powered[: self.picks]

    def picked(self, part: slice) -> Candidates:
        """Some of the picks in the order of picking, in units."""
        return self._picked[part]

    def stored(self, slots: Sequence[int]) -> Candidates:
        """Some contenders as they are stored."""
        at = np.array(slots, np.int64)
        some = self.candidates[at]
        return replace(some, vectors=self._slots.stored[at], powered=some.powered * self._units.powered)

    # --- who is in the pool -------------------------------------------------------------------------------

    def _admit(self, arrivals: Arrivals) -> Integers:
        """Take candidates in; their slots."""
        new = self._slots_of(arrivals)
        columns = np.full((_WINDOW, len(new)), np.inf)
        drafted = slice(self._committed, self.picks)
        columns[self._window(drafted)] = self._squared(new.candidates.vectors, new.norms, drafted).T
        first = len(self._slots)
        self._slots = _Slots.joined([self._slots, new])
        self._columns = np.concatenate([self._columns, columns], axis=1)
        greatest = max(self._slots.norms.max(initial=0.0), self._picked.norms[: self.picks].max(initial=0.0))
        self._tolerance = float(16 * (new.stored.shape[1] + 4) * np.finfo(np.float64).eps * greatest)
        return np.arange(first, len(self._slots))

    def _slots_of(self, arrivals: Arrivals) -> _Slots:
        candidates = arrivals.candidates.in_units(self.scoring.metric, self._units)
        upper = np.where(candidates.quality > 0, arrivals.upper, 0.0) * candidates.quality
        nowhere = np.full(len(upper), -1)
        return _Slots(
            candidates,
            stored=arrivals.candidates.vectors,
            norms=np.square(candidates.vectors).sum(axis=1),
            upper=upper,
            sums=np.zeros(len(upper)),
            exact_at=nowhere,
            standing=self._standing_of(upper / (1 + self._excess)),
            ranked_in=nowhere.copy(),
            outlook=arrivals.outlook,
            outlook_error=arrivals.error,
        )

    def dismiss(self, capacity: int) -> Dismissed:
        """Let go of picked candidates, and of those with the lowest standing above the capacity.

        What is known of the latter is for the executors to go on with.

        Standing, the score last known over the best of its time, tells better than a bound who may be picked
        soon: bounds of candidates never evaluated are the loosest.
        """
        assert self.picks == self._committed, "a draft is committed before anyone is let go"
        candidates, upper = self.candidates, self.upper
        kept = np.flatnonzero(upper > -np.inf)
        gone = kept[:0]
        if len(kept) > capacity:
            by_standing = np.argpartition(-self._slots.standing[kept], capacity)
            kept, gone = np.sort(kept[by_standing[:capacity]]), kept[by_standing[capacity:]]
        gone = gone[np.argsort(candidates.rows[gone])]
        gone = gone[candidates.quality[gone] > 0]
        self._slots, self._columns = self._slots[kept], self._columns[:, kept]
        return Dismissed(candidates.rows[gone], upper[gone] / candidates.quality[gone] * (1 + 2 * TIE))

    # --- drafting -----------------------------------------------------------------------------------------

    def draft(self, length: int, left: int) -> Draft:
        """The next picks of exact greedy selection inside the pool, ``left`` to pick in all."""
        assert self.picks == self._committed, "a draft is committed before the next"
        draft = Draft([], [], [], np.full(len(self._by_group), length + 1), self, [])
        self._make_room(length + 1)
        by_group, groups = self._by_group.copy(), self.candidates.groups
        while True:
            step = len(draft)
            if self._quotas:
                is_open = self._quotas.is_open(by_group, left - step)
                np.minimum(draft.open_until, step, out=draft.open_until, where=~is_open)
                self.upper[~is_open[groups]] = -np.inf
            if step == length or not np.any(self.upper > -np.inf):
                break
            slot = self._best()
            draft._snapshots.append(self.upper.copy())
            draft.slots.append(slot)
            draft.scores.append(float(self.upper[slot]))
            draft.sums.append(float(self._slots.sums[slot]))
            self._best_score = draft.scores[-1]
            by_group[groups[slot]] += 1
            self._push(slot)
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

    def _challenge(self, draft: Draft, arrivals: Arrivals | None, steps: int) -> Verdict:
        """See :meth:`Draft.challenge`."""
        new = self._admit(arrivals) if arrivals else np.empty(0, np.int64)
        groups, quality, upper = self.candidates.groups[new], self.candidates.quality[new], self.upper
        self.picks = self._committed
        challenger = None
        for step in range(min(steps, len(draft))):
            slot, v = draft.slots[step], draft.scores[step]
            able = new[draft.open_until[groups] > step]
            if self._raise_to(able, v):
                equals = able[self._is_exact(able) & (upper[able] >= v - TIE * abs(v))]
                if len(equals):
                    best = equals[np.argmax(upper[equals])]
                    clear = upper[best] > v + TIE * abs(v)
                    winner = self._first_of(equals if clear else np.append(equals, slot))
                    if winner != slot:
                        challenger = winner
                        break
            column = self._columns[self.picks - self._first_column, new]
            upper[new] += self._gains(new, column, self.picks) * quality
            self.picks += 1
        stands = self.picks - self._committed
        if stands < len(draft):
            old = len(draft._snapshots[stands])
            upper[:old] = draft._snapshots[stands]
            self._slots.exact_at[:old] = -1
            # Those of the draft count picks that are none now.
            self._slots.outlook[np.array(self._renewed, np.int64)] = Outlook.empty(len(self._renewed))
            self._ranking.back_to(self.picks)
        return Verdict(draft, stands, challenger)

    def _commit(self, verdict: Verdict) -> tuple[Candidates, list[float]]:
        """See :meth:`Verdict.commit`."""
        slots, sums = verdict.draft.slots[: verdict.stands], verdict.draft.sums[: verdict.stands]
        if verdict.challenger is not None:
            slots, sums = [*slots, verdict.challenger], [*sums, float(self._slots.sums[verdict.challenger])]
            self._push(verdict.challenger)
        np.add.at(self._by_group, self.candidates.groups[slots], 1)
        self._committed, self._renewed = self.picks, []
        return self.stored(slots), sums

    def _best(self) -> int:
        """The slot with the greatest score, the smallest row of equals. Its bound is exact afterwards."""
        at_once = _LIKELIEST
        while self._slots.exact_at[np.argmax(self.upper)] != self.picks:
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
        return np.arange(len(self._slots))

    def _raise_to(self, slots: Integers, v: float) -> bool:
        """Evaluate all slots whose bound reaches v within a tie; whether there were any."""
        reach = slots[self.upper[slots] >= v - TIE * abs(v)]
        self._evaluate(reach[~self._is_exact(reach)])
        return len(reach) > 0

    def _error(self, slots: Integers | slice, keys: Single) -> Single:
        """How far keys in float32 may be on the other side of a pick in the slots' outlooks."""
        error: Single = self._slots.outlook_error[slots] + np.float32(1e-6) * keys[:, -1]
        return error

    def _is_exact(self, slots: Integers) -> np.ndarray:
        return np.asarray(self._slots.exact_at[slots] == self.picks)

    def _push(self, slot: int) -> None:
        """Add a contender to the picks, and to everyone's bound what that adds at most."""
        n, column = self.picks, self.picks - self._first_column
        slots = self._slots
        self._picked[n : n + 1] = Picks.measured(slots.candidates[slot : slot + 1])
        self._columns[column] = self._squared(slots.candidates.vectors, slots.norms, slice(n, n + 1))[:, 0]
        slots.upper[:] += self._gains(slice(None), self._columns[column], n) * slots.candidates.quality
        self.upper[slot] = -np.inf
        self.picks = n + 1

    def _gains(self, slots: Integers | slice, squared: Array, n: int) -> Array:
        """What the pick at place n adds to the sums of some slots at most, given its distances to them."""
        shares = Shares.of(self.scoring.equation, self.candidates.powered[slots], self._picked.powered[: n + 1])
        picks = slice(n, n + 1)
        keys = shares.keys(from_squared(squared, self.scoring.metric)[:, None], picks).astype(np.float32)
        doubt = self._error(slots, keys)
        gains = gain_bounds(shares, picks, keys, np.zeros(1), self._slots.outlook, slots, doubt, self.weights)
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
            is_outdated = self._slots.outlook.counted[slots] < _OUTDATED * self.picks
            self._look_out(slots[is_outdated], masses[is_outdated])
            masses *= equation.share(self.candidates.powered[slots, None], self._picked.powered[order])
        sums = (masses * self.weights.w[: self.picks]).sum(axis=1)
        if not equation.ranked_by_mass:
            for place in self._doubtful(keys, masses):
                sums[place] = self._sum_by_rule(slots[place])
        exact = sums * self.candidates.quality[slots]
        is_met = (self._slots.exact_at[slots] < 0) & (exact > 0) & (self.upper[slots] < np.inf)
        if is_met.any():
            excess = self.upper[slots[is_met]] / exact[is_met] - 1
            self._excess += (1 - 0.99 ** len(excess)) * (float(excess.mean()) - self._excess)
        self._slots.sums[slots], self.upper[slots] = sums, exact
        self._slots.standing[slots] = self._standing_of(exact)
        self._slots.exact_at[slots] = self.picks

    def _ranked(self, slots: Integers) -> tuple[Array, NDArray[np.int32]]:
        """Keys (m, n) of all picks for slots, the lowest first, and which pick each is of."""
        self._find_places(slots)
        n, at = self.picks, self._slots.ranked_in[slots]
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
        ranked_in = self._slots.ranked_in
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
            oldest = others[np.argsort(self._slots.exact_at[others])][: max(len(new), len(others) // 2)]
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
            squared = self._squared(self.candidates.vectors[slots], self._slots.norms[slots], picks)
        equation = self.scoring.equation
        if not equation.ranked_by_mass:
            return squared
        return from_squared(squared, self.scoring.metric) * equation.share(
            self.candidates.powered[slots, None], self._picked.powered[picks]
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
        squared = squared_distances(self.candidates.vectors[slot : slot + 1], self._picked.vectors[:n][by_row])
        v = formula.novelty(
            from_squared(squared, self.scoring.metric),
            self._picked.powered[:n][by_row],
            self.candidates.powered[slot : slot + 1],
            formula=self.scoring.formula,
            proximity_power=self.scoring.proximity_power,
            density_power=1.0,
        )
        return float(v[0] * self.scoring.equation.divisor(n))

    def _first_of(self, equals: Integers) -> int:
        """Of slots too close to tell apart, the one with the greatest score by rule, the smallest row of equals."""
        equals = equals[np.argsort(self.candidates.rows[equals])]
        vectors = np.column_stack(
            [self.candidates.vectors[equals], self.candidates.powered[equals], self.candidates.quality[equals]]
        )
        _, first = np.unique(vectors, axis=0, return_index=True)
        different = equals[np.sort(first)]
        if len(different) > 1:
            scores = [self._sum_by_rule(int(slot)) * self.candidates.quality[slot] for slot in different]
            different = different[[np.argmax(scores)]]
        return int(different[0])

    def _look_out(self, slots: Integers, ranked: Array) -> None:
        """Renew what the outlooks of slots say of ranks, from their distances (m, n) to all picks, the lowest first."""
        self._slots.outlook[slots] = Outlook.of(ranked)
        self._slots.outlook_error[slots] = 1e-6 * ranked[:, -1]
        self._renewed += slots.tolist()

    def _squared(self, points: Array, norms: Array, picks: slice) -> Array:
        """Squared distances of points to some picks by a matrix product; pairs near one another by the rule."""
        others = self._picked.vectors[picks]
        sums = norms[:, None] + self._picked.norms[picks]
        squared = points @ others.T
        squared *= -2.0
        squared += sums
        sums *= _NEAR
        is_near = squared < sums
        if is_near.any():
            at, column = np.nonzero(is_near)
            squared[at, column] = paired_squared_distances(points, others, at, column)
        return np.asarray(squared)
