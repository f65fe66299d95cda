"""The driver's pool: the few candidates that may be picked next. Drafts come from it. NumPy and compiled loops only.

A draft is exact greedy selection inside this pool, lazily: every contender has an upper bound on its score, the sum
Σ w^κ1 · mass times its quality, picks raise it by gain bounds, and only contenders whose bound reaches the best known
score are evaluated. Distances come from float64 matrix products; where their rounding could decide (two contenders of
nearly equal novelty, two picks at nearly equal distance) values are computed again by the formula's own rule.
So no decision depends on who else is in the pool.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.amounts import exact_sum
from novelsum.formula import Array
from novelsum.rows import Integers
from novelsum.selection import ranking
from novelsum.selection.candidates import Candidates, Columns, Units
from novelsum.selection.closings import Closings, are_near, steps_open
from novelsum.selection.picked import Picked, measured, product
from novelsum.selection.ranking import CELLS, Lists, Made, Outlooks, Rule, Scores, Tally
from novelsum.selection.scoring import Scoring
from novelsum.selection.weights import Weights

TIE = 1e-9
"""Sums closer than this, relatively, are compared again by the formula's own rule."""
_WINDOW = 384
"""Distances to so many picks are kept at most until the contenders' lists take them; above the longest draft."""
_AHEAD = 24
_MEASURED = 256
"""Distances of the pool to so many contenders that are not picked yet are kept: who was drafted may be so again."""
_CACHED_BYTES = 4 << 20
"""Of a pool of more bytes, distances to so many of the likeliest next picks are computed at once."""
_RANKED_TOGETHER, _MOST_TOGETHER = 4, 256
"""So many contenders get lists together, as a product of one alone is bound by memory; and so many where all picks have
more bytes than that, but no more than a quarter of those that can have lists."""
_KEYS_TOGETHER = 1 << 18
"""Of those nothing is known of, who must all be evaluated, more do: as many as have so many keys."""
RANKED_BYTES = 256 << 20
"""Ranked picks take no more: contenders that were evaluated the longest ago lose theirs."""


def contender_bytes(dimension: int, itemsize: int) -> int:
    """Bytes that a candidate takes in the pool, its ranked picks aside; ``itemsize`` of a value of its vector."""
    return (8 + itemsize) * dimension + 8 * _WINDOW + 8 * CELLS + 128


def list_bytes(places: int) -> int:
    """Bytes of a contender's list of that many picks."""
    return 12 * places


@dataclass(frozen=True)
class Arrivals(Columns):
    """Candidates that the pool takes in, as they are stored, and what is known of them against the committed picks.

    ``upper`` (n,) float64 bounds their sums. ``first`` (n,) and ``before`` (n, CELLS) int32: their cells, and how many
    picks surely lie before each, see :class:`~novelsum.selection.ranking.Outlooks`. ``may_be_near`` (n,) bool: who may
    be nearer to a committed pick than is allowed.
    """

    candidates: Candidates
    upper: Array
    first: NDArray[np.int32]
    before: NDArray[np.int32]
    may_be_near: NDArray[np.bool_]

    @staticmethod
    def unknown(candidates: Candidates) -> "Arrivals":
        """Of candidates nothing is known of."""
        n = len(candidates)
        cells = np.zeros(n, np.int32), np.zeros((n, CELLS), np.int32)
        return Arrivals(candidates, np.full(n, np.inf), *cells, np.ones(n, bool))


@dataclass(frozen=True)
class _Slots(Columns):
    """The contenders, and what is known of each.

    ``candidates`` in units, ``stored`` (p, D) their vectors as in the store, ``own`` (p,) their part of shares.
    ``upper`` (p,) bounds the score, which is computed, with its ``sums``, against the first ``exact_at`` picks; -1: not
    since it counted other picks, or never. ``standing``: the score last known over the level of its time.
    ``ranked_in``: the row of its list, or -1. The others are those of :class:`~novelsum.selection.ranking.Outlooks`.
    """

    candidates: Candidates
    stored: NDArray[Any]
    norms: Array
    own: Array
    upper: Array
    sums: Array
    standing: Array
    exact_at: Integers
    ranked_in: Integers
    first: NDArray[np.int32]
    before: NDArray[np.int32]
    lost: NDArray[np.float32]
    counted: Integers
    doubt: Array


@dataclass(frozen=True)
class Draft:
    """Contenders in the order they would be picked: their slots, and score and sum of each when it would be.

    ``open_until`` (G,) int64: up to which step of it, excluded, picks may come from each group. ``left``: what a pick
    may cost at most at each step and after it, if there is a budget of costs.
    """

    slots: list[int]
    scores: list[float]
    sums: list[float]
    open_until: Integers
    left: list[float]
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


class _Rows:
    """Which rows of the table of lists are free."""

    def __init__(self, rows: int) -> None:
        self._untouched = rows
        self._freed: list[int] = []

    def __len__(self) -> int:
        return len(self._freed) + self._untouched

    def take(self) -> int:
        """One of them, if possible one that had been in use, as its memory is there."""
        if self._freed:
            return self._freed.pop()
        self._untouched -= 1
        return self._untouched

    def give(self, rows: Integers) -> None:
        """They are free again."""
        self._freed += rows.tolist()


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
        closings: Closings | None = None,
    ) -> None:
        """With picks already made, as they are stored: those ``before`` the selection, which quotas and budgets do not
        count, and its ``first`` ones. ``everyone``: all other candidates, where they are contenders from the start.

        ``weights`` are of as many picks as there will be.
        """
        self.scoring, self._units = scoring, units
        self._closings = closings or Closings(len(weights.w))
        self._weights, self._sums = weights.w, weights.sums
        quotas = self._closings.quotas
        self._by_group = np.zeros(len(quotas.groups) if quotas else 1, np.int64)
        np.add.at(self._by_group, first.groups, 1)
        self.spent = exact_sum(first.cost)
        self._found_near: list[int] = []
        places = len(weights.w) - 1
        self._picked = Picked(first, places, scoring, units)
        self._picked.put(0, before)
        self._picked.put(len(before), first)
        self.picks = self._committed = self._first_column = len(before) + len(first)
        self._greatest_norm = 0.0
        self._tally = Tally(np.zeros(1, np.int64))
        rows = max(_RANKED_TOGETHER, RANKED_BYTES // list_bytes(places))
        self._lists = Lists(np.empty((rows, places)), np.empty((rows, places), np.int32), np.zeros(rows, np.int64))
        self._rows = _Rows(rows)
        self._measured: dict[int, Array] = {}
        self._room, self._distances = self._slots_of(Arrivals.unknown(first[:0])), np.empty((_WINDOW, 0))
        self._hold(0)
        self._admit(Arrivals.unknown(first[:0] if everyone is None else everyone))

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

    @property
    def evaluated(self) -> int:
        """How many exact sums were computed."""
        return int(self._tally.evaluated[0])

    def rows(self, part: slice) -> Integers:
        """Rows of some of the picks in the order of picking."""
        return self._picked.rows[: self.picks][part]

    def stored(self, slots: Sequence[int]) -> Candidates:
        """Some contenders as they are stored."""
        at = np.array(slots, np.int64)
        some = self.candidates[at]
        return replace(some, vectors=self._slots.stored[at], powered=some.powered * self._units.powered)

    @property
    def by_group(self) -> Integers:
        """How many picks are final of each of the quotas' groups (G,)."""
        return self._by_group

    def take_found_near(self) -> Integers:
        """Rows that arrived since this was asked for last, and are nearer to a pick than is allowed; sorted."""
        found, self._found_near = np.sort(np.array(self._found_near, np.int64)), []
        return found

    # --- who is in the pool -------------------------------------------------------------------------------

    def _admit(self, arrivals: Arrivals) -> slice:
        """Take candidates in; their slots."""
        new, size = self._slots_of(arrivals), len(self._slots)
        slots = slice(size, size + len(new))
        if len(new) and self._measured:
            self._measure_new(new)
        if slots.stop > len(self._room):
            room = slots.stop + (slots.stop // 4 if size else 0)
            larger, distances = new.room(room), np.empty((_WINDOW, room))
            larger[:size], distances[:, :size] = self._slots, self._distances[:, :size]
            self._room, self._distances = larger, distances
        self._room[slots] = new
        drafted = slice(self._committed, self.picks)
        if len(new) and drafted.start < drafted.stop:
            distances = self._picked.distances(new.candidates.vectors, new.norms, drafted)
            self._distances[self._window(drafted), slots] = distances.T
        self._greatest_norm = max(self._greatest_norm, float(new.norms.max(initial=0.0)), self._picked.greatest_norm)
        self._hold(slots.stop)
        if self._closings.distance and self._committed:
            self._close_arrivals(slots, slots.start + np.flatnonzero(arrivals.may_be_near))
        return slots

    def _close_arrivals(self, slots: slice, some: Integers) -> None:
        """Close those of some new slots that are too near to a committed pick, and note their rows."""
        n = self._committed
        step = max(1, _KEYS_TOGETHER // n)
        for start in range(0, len(some), step):
            part = some[start : start + step]
            points = self.candidates.vectors[part]
            distances = self._picked.distances(points, self._slots.norms[part], slice(0, n))
            near = part[self._are_near(distances, points, self._picked.points).any(axis=1)]
            self.upper[near] = -np.inf
            self._found_near += self.candidates.rows[near].tolist()

    def _are_near(self, distances: Array, points: Array, others: Callable[[Integers], Array]) -> NDArray[np.bool_]:
        """Which of points (m, D) are too near to which of others, by their distances (m, k): (m, k)."""
        return are_near(distances, points, others, self._closings.distance, self._rule.tolerance, self.scoring.metric)

    def _slots_of(self, arrivals: Arrivals) -> _Slots:
        candidates = arrivals.candidates.in_units(self.scoring.metric, self._units)
        upper = np.where(candidates.quality > 0, arrivals.upper, 0.0) * candidates.quality
        n = len(upper)
        return _Slots(
            candidates,
            stored=arrivals.candidates.vectors,
            norms=np.square(candidates.vectors).sum(axis=1),
            own=self.scoring.equation.share(candidates.powered, np.zeros(n)),
            upper=upper,
            sums=np.zeros(n),
            standing=upper / float(self._sums[self._committed]),
            exact_at=np.full(n, -1),
            ranked_in=np.full(n, -1),
            first=arrivals.first,
            before=arrivals.before,
            lost=np.zeros((n, CELLS), np.float32),
            counted=np.full(n, self._committed),
            doubt=np.zeros(n),
        )

    @property
    def _level(self) -> float:
        """What scores rise with while picks are made, roughly: the sum of the weights of all ranks."""
        return float(self._sums[self.picks])

    def likely_scores(self) -> Array:
        """The score (p,) of each against the picks of the moment if it has kept its standing; nothing hangs on it."""
        return np.minimum(self._slots.standing * self._level, self.upper)

    def _hold(self, size: int) -> None:
        """So many slots are in use: make what the loops look at."""
        slots = self._slots = self._room[:size]
        dimension = slots.stored.shape[1]
        tolerance = float(16 * (dimension + 4) * np.finfo(np.float64).eps * self._greatest_norm)
        self._rule = Rule(self.scoring.metric == "cosine", self.scoring.equation.ranked_by_mass, tolerance)
        self._outlooks = Outlooks(slots.first, slots.before, slots.lost, slots.counted, slots.doubt)
        quality, upper, sums = slots.candidates.quality, slots.upper, slots.sums
        self._scores = Scores(slots.own, quality, upper, sums, slots.standing, slots.exact_at, slots.ranked_in)

    def dismiss(self, capacity: int) -> None:
        """Let go of picked candidates, and of those with the lowest likely scores above the capacity.

        These tell better than bounds who may be picked soon: bounds of candidates never evaluated are the loosest.
        """
        assert self.picks == self._committed, "a draft is committed before anyone is let go"
        kept = np.flatnonzero(self.upper > -np.inf)
        if len(kept) > capacity:
            kept = np.sort(kept[np.argpartition(-self.likely_scores()[kept], capacity)[:capacity]])
        self._keep(kept)

    def _keep(self, kept: Integers) -> None:
        """Forget all slots but these: the last of them move to where others were."""
        is_kept = np.zeros(len(self._slots), bool)
        is_kept[kept] = True
        self._take_lists(np.flatnonzero(~is_kept))
        moved = kept[kept >= len(kept)]
        ranking.rank_latest(self.picks, moved, self._rule, self._lists, self._scores, self._made)
        free = np.flatnonzero(~is_kept[: len(kept)])
        self._room[free] = self._slots[moved]
        for distances in self._measured.values():
            distances[free] = distances[moved]
        self._hold(len(kept))
        rows = set(self.candidates.rows.tolist())
        self._measured = {row: distances[: len(kept)] for row, distances in self._measured.items() if row in rows}

    # --- drafting -----------------------------------------------------------------------------------------

    def draft(self, length: int, heavy: float = np.inf) -> Draft:
        """The next picks of exact greedy selection inside the pool.

        At most ``length``, and none after one whose σ^κ2 in units is ``heavy``: the terms of its neighbours leap, and
        these are hardly in the pool.
        """
        assert self.picks == self._committed, "a draft is committed before the next"
        draft = Draft([], [], [], np.full(len(self._by_group), length + 1), [], self, [])
        self._make_room(length + 1)
        by_group, groups, costs = self._by_group.copy(), self.candidates.groups, self.candidates.cost
        spent = self.spent
        while True:
            step = len(draft)
            is_open = self._closings.groups_open(by_group)
            if is_open is not None:
                np.minimum(draft.open_until, step, out=draft.open_until, where=~is_open)
                self.upper[~is_open[groups]] = -np.inf
            if self._closings.cost is not None:
                draft.left.append(self._closings.left(spent))
                self.upper[costs > draft.left[-1]] = -np.inf
            if step == length or (step and self.candidates.powered[draft.slots[-1]] >= heavy):
                break
            slot = self._best()
            if slot is None:
                break
            draft._snapshots.append(self.upper.copy())
            draft.slots.append(slot)
            draft.scores.append(float(self.upper[slot]))
            draft.sums.append(float(self._slots.sums[slot]))
            by_group[groups[slot]] += 1
            if self._closings.cost is not None:
                spent += Fraction(costs[slot])
            self._push(slot)
        return draft

    @property
    def _made(self) -> Made:
        """The picks as the loops look at them."""
        picked = self._picked
        return Made(picked.powered, picked.lightest, self._weights, self._distances, self._first_column)

    def _window(self, picks: slice) -> slice:
        """Where the distances to some picks are."""
        return slice(picks.start - self._first_column, picks.stop - self._first_column)

    def _make_room(self, length: int) -> None:
        """Let go of all distances where so many more would not fit; the lists take them before."""
        if self._committed + length > self._first_column + len(self._distances):
            slots = np.arange(len(self._slots))
            ranking.rank_latest(self.picks, slots, self._rule, self._lists, self._scores, self._made)
            self._first_column = self._committed

    def _challenge(self, draft: Draft, arrivals: Arrivals | None, steps: int) -> Verdict:
        """See :meth:`Draft.challenge`."""
        old = len(self._slots)
        new = self._admit(arrivals) if arrivals else slice(old, old)
        steps, drafted = min(steps, len(draft)), np.array(draft.scores)
        closes = self._closes(draft, new)
        challenger = None
        step = 0 if arrivals else steps
        while step < steps:
            self.upper[new][closes <= step] = -np.inf
            end = int(closes.min(initial=steps, where=closes > step))
            step = ranking.outlast(
                (step, end),
                drafted,
                TIE,
                self._committed,
                (new.start, new.stop),
                self._rule,
                self._outlooks,
                self._scores,
                self._made,
            )
            if step < end:
                self.picks = self._committed + step
                challenger = self._better(new, draft.slots[step], draft.scores[step])
                if challenger is not None:
                    break
                self._add_pick(self.picks, new)
                step += 1
        self.picks = self._committed + step
        self.upper[new][closes <= step] = -np.inf
        if step < len(draft):
            rejected = self._window(slice(self.picks, self._committed + len(draft)))
            self._remember(np.array(draft.slots[step:]), self._distances[rejected, : len(self._slots)].copy())
            self.upper[:old] = draft._snapshots[step]
            ranking.take_back(self.picks, old, self._rule, self._lists, self._outlooks, self._scores, self._made)
        return Verdict(draft, step, challenger)

    def _closes(self, draft: Draft, new: slice) -> Integers:
        """At which step of a draft each new slot is closed, above its last one where it is not."""
        candidates = self.candidates[new]
        closes = draft.open_until[candidates.groups]
        if draft.left:
            closes = np.minimum(closes, steps_open(candidates.cost, np.array(draft.left)))
        if self._closings.distance and len(draft) and len(candidates):
            distances = self._distances[self._window(slice(self._committed, self._committed + len(draft))), new].T
            drafted = self.candidates.vectors[np.array(draft.slots)]
            near = self._are_near(distances, candidates.vectors, drafted.__getitem__)
            closes = np.where(near.any(axis=1), np.minimum(closes, near.argmax(axis=1) + 1), closes)
        return closes

    def _better(self, slots: slice, drafted: int, v: float) -> int | None:
        """The one of some slots that is picked before the drafted one, whose score is v, if any is."""
        best = self._settle(slots, v)
        if best is None:
            return None
        bar = self.upper[best] - TIE * abs(self.upper[best])
        equals = slots.start + np.flatnonzero(self.upper[slots] >= bar)
        winner = self._first_of(np.append(equals, drafted) if v >= bar else equals)
        return None if winner == drafted else winner

    def _commit(self, verdict: Verdict) -> tuple[Candidates, list[float]]:
        """See :meth:`Verdict.commit`."""
        slots, sums = verdict.draft.slots[: verdict.stands], verdict.draft.sums[: verdict.stands]
        if verdict.challenger is not None:
            slots, sums = [*slots, verdict.challenger], [*sums, float(self._slots.sums[verdict.challenger])]
            self._push(verdict.challenger)
        np.add.at(self._by_group, self.candidates.groups[slots], 1)
        costs = self.candidates.cost[slots]
        if costs.any():
            self.spent += exact_sum(costs)
        self._committed = self.picks
        return self.stored(slots), sums

    def _best(self) -> int | None:
        """The slot with the greatest score, the smallest row of equals, if any can be picked; its bound is exact."""
        best = self._settle(slice(0, len(self._slots)), -np.inf)
        if best is None:
            return None
        v = self.upper[best]
        return self._first_of(np.flatnonzero(self.upper >= v - TIE * abs(v)))

    def _settle(self, slots: slice, level: float) -> int | None:
        """Evaluate whoever may have the greatest score of some slots, if that reaches a level; the one that has it."""
        while True:
            state, slot = ranking.settle(
                self.picks,
                (slots.start, slots.stop),
                level,
                TIE,
                self._level,
                self._rule,
                self._lists,
                self._outlooks,
                self._scores,
                self._made,
                self._tally,
            )
            if state == ranking.SETTLED:
                return int(slot) if slot >= 0 else None
            if state == ranking.LACKS_LIST:
                self._rank(slots)
            else:
                self._slots.sums[slot] = self._sum_by_rule(slot)
                self.upper[slot] = self._slots.sums[slot] * self.candidates.quality[slot]

    def _push(self, slot: int) -> None:
        """Add a contender to the picks, and to everyone's bound what that adds at most."""
        n = self.picks
        pick, vector = self.candidates, self._slots.stored[slot : slot + 1]
        self._picked.add(slice(n, n + 1), pick.rows[slot], vector, pick.powered[slot])
        self._distances[n - self._first_column, : len(self._slots)] = self._distances_to(slot)
        self.upper[slot] = -np.inf
        if self._closings.distance:
            distances = self._distances[n - self._first_column, : len(self._slots)]
            itself = pick.vectors[slot : slot + 1]
            self.upper[self._are_near(distances[:, None], pick.vectors, itself.__getitem__)[:, 0]] = -np.inf
        self._add_pick(n, slice(0, len(self._slots)))
        self.picks = n + 1

    def _add_pick(self, place: int, slots: slice) -> None:
        """Add to the bounds of some slots what the pick at a place adds at most."""
        ranking.add_pick(place, (slots.start, slots.stop), self._rule, self._outlooks, self._scores, self._made)

    def _distances_to(self, slot: int) -> Array:
        """Distances (p,) of all contenders to one; where the pool does not fit a cache, of the likeliest others too.

        One product reads the whole pool, and takes as long as that of many.
        """
        row = int(self.candidates.rows[slot])
        if row not in self._measured:
            points = self.candidates.vectors
            likeliest = _greatest(self.likely_scores(), _AHEAD if points.nbytes > _CACHED_BYTES else 1)
            likeliest = likeliest[self.upper[likeliest] > -np.inf]
            likeliest = likeliest[~np.isin(self.candidates.rows[likeliest], [row, *self._measured])]
            self._measure(np.append(slot, likeliest))
        return self._measured.pop(row)

    def _measure(self, some: Integers) -> None:
        """Remember distances of all contenders to some."""
        points, norms = self.candidates.vectors, self._slots.norms
        products = points[some] @ points.T if len(some) > 1 else product(points[some], points)
        lengths = norms[some], norms, np.ones(len(norms))
        self._remember(some, measured(products, lengths, points[some], lambda: points, self.scoring.metric))

    def _remember(self, some: Integers, distances: Array) -> None:
        """Keep distances (m, p) of all contenders to some, in the place of those kept for the longest time."""
        self._measured |= zip(self.candidates.rows[some].tolist(), distances, strict=True)
        for row in list(self._measured)[:-_MEASURED]:
            del self._measured[row]

    def _measure_new(self, new: _Slots) -> None:
        """Add distances of new contenders to those that are kept."""
        some = np.flatnonzero(np.isin(self.candidates.rows, list(self._measured)))
        points, norms, others = self.candidates.vectors[some], self._slots.norms[some], new.candidates.vectors
        lengths = norms, new.norms, np.ones(len(others))
        distances = measured(points @ others.T, lengths, points, lambda: others, self.scoring.metric)
        for row, of_row in zip(self.candidates.rows[some].tolist(), distances, strict=True):
            self._measured[row] = np.append(self._measured[row], of_row)

    # --- exact values -------------------------------------------------------------------------------------

    def _rank(self, slots: slice) -> None:
        """Make lists of all picks for the likeliest of some slots that have none and are not exact without."""
        upper, n = self.upper[slots], self.picks
        is_lacking = (self._slots.ranked_in[slots] < 0) & (self._slots.exact_at[slots] != n)
        lacking = np.flatnonzero(is_lacking & (upper > -np.inf))
        unknown = int(np.sum(upper[lacking] == np.inf))
        are_large = 8 * n * self.candidates.vectors.shape[1] > _CACHED_BYTES
        together = min(_MOST_TOGETHER, len(self._lists.ranked) // 4) if are_large else _RANKED_TOGETHER
        most = min(max(_RANKED_TOGETHER, together, min(unknown, _KEYS_TOGETHER // max(1, n))), len(self._lists.ranked))
        some = slots.start + lacking[_greatest(upper[lacking], most)]
        self._free_rows(len(some))
        keys = self._picked.distances(self.candidates.vectors[some], self._slots.norms[some], slice(0, n))
        if self._rule.ranked_by_mass:
            keys *= self._slots.own[some, None] + self._picked.powered[:n]
        for slot, of_slot in zip(some, keys, strict=True):
            row = self._rows.take()
            order = np.argsort(of_slot)
            self._lists.keys[row, :n], self._lists.order[row, :n], self._lists.ranked[row] = of_slot[order], order, n
            self._slots.ranked_in[slot] = row

    def _free_rows(self, count: int) -> None:
        """See to it that so many lists have a row; who was evaluated the longest ago may lose it."""
        if len(self._rows) < count:
            held = np.flatnonzero(self._slots.ranked_in >= 0)
            oldest = held[np.argsort(self._slots.exact_at[held])]
            self._take_lists(oldest[: max(count - len(self._rows), len(held) // 2)])

    def _take_lists(self, slots: Integers) -> None:
        """Some slots have no list any more."""
        ranked_in = self._slots.ranked_in
        self._rows.give(ranked_in[slots[ranked_in[slots] >= 0]])
        ranked_in[slots] = -1

    def _sum_by_rule(self, slot: int) -> float:
        """The sum of one slot by the formula itself, from distances computed pair by pair."""
        candidate = self.candidates[slice(slot, slot + 1)]
        v = self._picked.novelty(candidate.vectors, candidate.powered, self.picks)
        return float(v * self.scoring.equation.divisor(self.picks))

    def _first_of(self, equals: Integers) -> int:
        """Of slots too close to tell apart, the one with the greatest score by rule, the smallest row of equals."""
        if len(equals) == 1:
            return int(equals[0])
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


def _greatest(values: Array, most: int) -> Integers:
    """Where the greatest values are, at most so many of them."""
    return np.argpartition(values, -most)[-most:] if most < len(values) else np.arange(len(values))
