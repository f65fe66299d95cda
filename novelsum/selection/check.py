"""What an executor does in a round: check a draft against every candidate of a block. NumPy only.

Three levels, each paid only by candidates that survive the one before: the bound of an earlier round plus gain
bounds; a bound recomputed from the sketch; and, in the driver's pool, the exact sum. A sketch is brought up to
date only when its candidate reaches the second level.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.formula import Array
from novelsum.rows import Integers, common_places
from novelsum.selection.candidates import Candidates, Dismissed, Picks
from novelsum.selection.scoring import Scoring
from novelsum.selection.sketch import CELLS, COARSE, Outlook, Shares, Single, Sketch, Weights, gain_bounds, list_bound

LISTED = 64
"""Up to so many picks a bound comes from all keys; a sketch would cost more."""
_TILE_KEYS = 1 << 19
_SEGMENTS, _SEGMENT = 8, 8
_NEAR = 0.1
_LOOSE = 1e-3
_RENEWED = 1.5

_STATE: dict[str, tuple[str, tuple[int, ...]]] = {
    "upper": ("f8", ()),
    "proposed": ("f8", ()),
    "counted": ("i4", ()),
    "laid_at": ("i4", ()),
    "outgrown": ("u1", ()),
    "coarse_low": ("f4", ()),
    "coarse_scale": ("f4", ()),
    "coarse_before": ("i4", (COARSE,)),
    "coarse_counted": ("i4", ()),
    "coarse_part": ("f4", (COARSE,)),
    "low": ("f4", ()),
    "scale": ("f4", ()),
    "least": ("f4", ()),
    "greatest": ("f4", ()),
    "loose": ("f4", ()),
    "count": ("f4", (CELLS,)),
    "mass": ("f4", (CELLS,)),
    "doubtful": ("u2", (CELLS,)),
}

_SKETCH = tuple(Sketch.__dataclass_fields__)


def state_of(dimension: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What is kept of a candidate between rounds: names, types and shapes. Nothing grows with the picks.

    ``recent``: keys of the latest picks, so that no product is computed twice while they matter most. A product costs
    more the longer vectors are; a quarter of a vector's size is what it takes to save most of them.
    """
    return {**_STATE, "recent": ("f4", (max(256, dimension // 4),))}


def state_bytes(dimension: int) -> int:
    """Bytes of a candidate's state."""
    return sum(np.dtype(kind).itemsize * int(np.prod(shape)) for kind, shape in state_of(dimension).values())


@dataclass(frozen=True)
class BlockCandidates(Candidates):
    """A block's n candidates, in units in which no float32 overflows; their vectors are float32 and as in the store.

    ``factor`` (n,) float32 takes each to the metric's space; ``norms`` (n,) float32, squared lengths there. ``twin``
    (n,) int64: the place of the candidate with the next smaller row of those that are equal in all this, or -1; None:
    there are none.
    """

    factor: Single
    norms: Single
    twin: Integers | None = None


@dataclass(frozen=True)
class Question:
    """What a round asks of every block.

    ``committed``: how many picks are final; the drafted ones follow, with the score of each in ``scores``.
    ``open_until`` (G,): up to which step of the draft, excluded, picks may come from each group.
    ``pool``: sorted rows that the driver watches itself. ``threshold``: candidates whose score may reach it
    after the draft are reported too. At most ``most`` are reported from a block. The bounds of the ``dismissed`` hold
    against the committed picks.
    """

    committed: int
    scores: Array
    pool: Integers
    threshold: float
    most: int = 1 << 62
    dismissed: Dismissed = field(default_factory=Dismissed.nobody)
    open_until: Integers = field(default_factory=lambda: np.array([1 << 62]))


@dataclass(frozen=True)
class Findings:
    """Candidates of a block that the driver has to look at: places (k,), bounds (k,), and their outlooks.

    ``safe_steps``: up to which step of the draft no candidate that is *not* reported can beat it.
    ``recomputed``: how many bounds the check computed anew.
    """

    places: Integers
    upper: Array
    outlook: Outlook
    error: Single
    safe_steps: int
    recomputed: int


class BlockCheck:
    """A block's candidates and their state, which :meth:`check` brings forward.

    ``state`` holds the arrays of :func:`state_of`, and ``recent_rows`` (R,) int64: which pick's keys each column of
    ``recent`` (n, R) holds. That of the pick at place p is column p mod R.
    """

    def __init__(
        self,
        candidates: BlockCandidates,
        state: dict[str, NDArray[Any]],
        scoring: Scoring,
        weights: Weights,
        picks: Picks,
    ) -> None:
        self.candidates, self.state, self.scoring, self.weights, self.picks = candidates, state, scoring, weights, picks
        self._outlook = Outlook(*(state[f"coarse_{name}"] for name in Outlook.__dataclass_fields__))
        self._shares = Shares.of(scoring.equation, candidates.powered, picks.powered)
        self._sketched = np.empty(len(candidates.rows))
        self._kept = slice(0, 0)
        self._columns = state["recent"].shape[1]
        # Of a product of D terms: its roundings, taken as random in sign (four times √(D/3)), and those of its factors.
        relative = (2.5 * np.sqrt(candidates.vectors.shape[1]) + 8) * 2.0**-24
        sums = candidates.norms + picks.norms.max()
        per_pair = 0.5 * sums if scoring.metric == "cosine" else np.sqrt(sums / (4 * _NEAR))
        self.error = (relative * per_pair).astype(np.float32)
        """(n,) how far a distance may be from the true one."""

    def check(self, question: Question, start: int, release: Callable[[slice], None] = lambda tile: None) -> Findings:
        """Bring the bounds, which hold against the first ``start`` picks, up to date; check the draft against them.

        ``release`` is called with each tile that is done.
        """
        n, steps = question.committed, len(question.scores)
        state, upper = self.state, self.state["upper"]
        eligible = self._eligible(question)
        segments = [
            (first, min(first + length, steps))
            for length in [max(_SEGMENT, -(-steps // _SEGMENTS))]
            for first in range(0, steps, length)
        ]
        lowest = np.array([question.scores[first:end].min() for first, end in segments])
        found: list[tuple[Integers, Array, Integers]] = []
        recomputed = 0
        settled = self._settled(question)
        known = self._kept_before(n)
        first_kept = max(known.start if start <= known.stop else start, n + steps - self._columns)
        for tile in self._tiles(n + steps - start):
            self._kept = known
            keys = self._keys(tile, slice(start, n + steps))
            self._keep(tile, keys, start)
            self._kept = slice(first_kept, n)
            gains = self._gains(tile, keys, start)
            upper[tile] += gains[:, : n - start].sum(axis=1, dtype=np.float64)
            np.minimum(upper[tile], settled[tile], out=upper[tile])
            drafted = gains[:, n - start :]
            along = upper[tile].copy()
            reach = np.zeros(len(along), bool)
            closes = self._closes(tile, question)
            for (first, end), low in zip(segments, lowest, strict=True):
                along += drafted[:, first:end].sum(axis=1, dtype=np.float64)
                reach |= (self._scores(tile, along) >= low) & (closes > first)
            reach |= (self._scores(tile, along) >= question.threshold) & (closes > steps)
            near = np.flatnonzero(reach & eligible[tile])
            if len(near):
                at = near + tile.start
                self._bound(at, n)
                recomputed += len(at)
                step, along[near] = self._first_step(at, keys[near][:, n - start :], question, segments)
                wanted = (self._scores(at, along[near]) >= question.threshold) & (closes[near] > steps)
                wanted |= step < steps
                found.append((at[wanted], upper[at[wanted]], step[wanted]))
            state["proposed"][tile] = along
            release(tile)
        kept = np.arange(max(start, n + steps - self._columns), n + steps)
        state["recent_rows"][kept % self._columns] = self.picks.rows[kept]
        return self._report(found, steps, question.most, recomputed)

    def _first_step(
        self, at: Integers, keys: Single, question: Question, segments: list[tuple[int, int]]
    ) -> tuple[Integers, Array]:
        """The first step at which each candidate may beat the draft, the draft's length if none; its bound at the end.

        ``keys`` (m, steps) of the drafted picks. At the start of a segment the bound is the joint one where that
        is lower; within it gain bounds are added.
        """
        n, steps = question.committed, len(question.scores)
        closes = self._closes(at, question)[:, None]
        first_step = np.full(len(at), steps)
        bound = self.state["upper"][at]
        outlook, error, shares = self._outlook[at], self.error[at], self._shares[at]
        surplus = self._sketched[at] - bound
        beside = self._sketched[at] - outlook.part.sum(axis=1, dtype=np.float64)
        for first, end in segments:
            if first and not shares.equation.ranked_by_mass:
                added = slice(n, n + first)
                joint = outlook.joint_bound(shares, added, keys[:, :first], error, self.weights, surplus)
                bound = np.minimum(bound, joint + beside)
            along = np.zeros((len(at), end - first + 1))
            np.cumsum(self._gains(at, keys[:, first:end], n + first), axis=1, out=along[:, 1:])
            along += bound[:, None]
            beats = self._scores(at, along[:, :-1]) >= question.scores[first:end]
            beats &= closes > np.arange(first, end)
            at_first = np.where(beats.any(axis=1), first + beats.argmax(axis=1), steps)
            first_step = np.minimum(first_step, at_first)
            bound = along[:, -1]
        return first_step, bound

    def _eligible(self, question: Question) -> NDArray[np.bool_]:
        """Who may be picked and is not watched by the driver already.

        Of candidates with equal embeddings only the one with the smallest row can be picked next.
        """
        watched = np.isin(self.candidates.rows, question.pool)
        watched |= np.isin(self.candidates.rows, self.picks.rows[: question.committed])
        eligible = ~watched
        if self.candidates.twin is not None:
            twin = self.candidates.twin
            eligible &= (twin < 0) | watched[twin]
        return eligible

    def _scores(self, at: slice | Integers, sums: Array) -> Array:
        """What sums (m,) or (m, k) of some candidates are as scores."""
        quality = self.candidates.quality[at].reshape(-1, *[1] * (sums.ndim - 1))
        return np.where(quality > 0, sums, 0.0) * quality

    def _closes(self, at: slice | Integers, question: Question) -> Integers:
        """The step (m,) of the draft from which on candidates cannot be picked because of their groups."""
        return np.asarray(question.open_until[self.candidates.groups[at]])

    def _settled(self, question: Question) -> Array:
        """The driver's bounds of the block's candidates, inf where it gives none."""
        bounds = np.full(len(self.candidates.rows), np.inf)
        place, dismissed = common_places(self.candidates.rows, question.dismissed.rows)
        bounds[place] = question.dismissed.upper[dismissed]
        return bounds

    def _report(
        self, found: list[tuple[Integers, Array, Integers]], steps: int, most: int, recomputed: int
    ) -> Findings:
        nothing = (np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))
        places, upper, first = (np.concatenate(part) for part in zip(nothing, *found, strict=True))
        safe = steps
        if len(places) > most:
            order = np.lexsort((-self._scores(places, upper), first))
            safe = int(first[order[most:]].min(initial=steps))
            places, upper = places[order[:most]], upper[order[:most]]
        return Findings(places, upper, self._outlook[places], self.error[places], safe, recomputed)

    # --- keys and gains -----------------------------------------------------------------------------------

    def _tiles(self, columns: int) -> list[slice]:
        step = max(64, _TILE_KEYS // max(1, columns))
        n = len(self.candidates.rows)
        return [slice(start, min(start + step, n)) for start in range(0, n, step)]

    def _kept_before(self, n: int) -> slice:
        """The latest of the first n picks whose keys earlier rounds have left: those of a draft that stood."""
        places = np.arange(max(0, n - self._columns), n)
        is_kept = self.state["recent_rows"][places % self._columns] == self.picks.rows[places]
        stop = int(places[is_kept][-1]) + 1 if is_kept.any() else 0
        gaps = places[~is_kept & (places < stop)]
        return slice(int(gaps[-1]) + 1 if len(gaps) else int(places[0]) if stop else 0, stop)

    def _keep(self, tile: slice, keys: Single, start: int) -> None:
        """Keep the keys (m, k) of the picks from place ``start`` on, the latest if not all fit."""
        latest = keys[:, -self._columns :]
        places = start + keys.shape[1] - latest.shape[1] + np.arange(latest.shape[1])
        self.state["recent"][tile, places % self._columns] = latest

    def _keys(self, at: slice | Integers, part: slice) -> Single:
        """What the picks of a part are ranked by at some candidates, (m, k); from those kept where possible."""
        first, stop = max(part.start, self._kept.start), min(part.stop, self._kept.stop)
        if first >= stop:
            return self._products(at, part)
        columns = np.arange(first, stop) % self._columns
        recent = self.state["recent"]
        kept = recent[at][:, columns] if isinstance(at, slice) else recent[at[:, None], columns]
        before, after = slice(part.start, first), slice(stop, part.stop)
        beside = [self._products(at, other) if other.start < other.stop else kept[:, :0] for other in (before, after)]
        return np.concatenate([beside[0], kept, beside[1]], axis=1)

    def _products(self, at: slice | Integers, part: slice) -> Single:
        """Keys by a matrix product, which gives distances."""
        candidates, picks = self.candidates, self.picks
        points, others, norms = candidates.vectors[at], picks.vectors[part], candidates.norms[at]
        keys = points @ others.T
        keys *= (-2 * candidates.factor[at])[:, None]
        keys += norms[:, None]
        keys += picks.norms[part]
        if self.scoring.metric == "cosine":
            keys *= np.float32(0.5)
        else:
            near, column = np.nonzero(keys < np.float32(_NEAR) * (norms[:, None] + picks.norms[part]))
            for start in range(0, len(near), 4096):
                pair = slice(start, start + 4096)
                difference = points[near[pair]] * candidates.factor[at][near[pair], None] - others[column[pair]]
                keys[near[pair], column[pair]] = np.square(difference).sum(axis=1)
            np.maximum(keys, 0, out=keys)
            np.sqrt(keys, out=keys)
        np.maximum(keys, 0, out=keys)
        return np.asarray(self._shares[at].keys(keys, part), dtype=np.float32)

    def _gains(self, at: slice | Integers, keys: Single, start: int) -> Single:
        """Bounds on what the picks from place ``start`` on add, given their keys (m, k)."""
        picks, error = slice(start, start + keys.shape[1]), self.error[at]
        return gain_bounds(self._shares[at], picks, keys, error, self._outlook, at, error, self.weights)

    # --- bounds -------------------------------------------------------------------------------------------

    def _bound(self, at: Integers, n: int) -> None:
        """Compute bounds and outlooks of some candidates anew, against the first n picks; lower bounds stay."""
        state = self.state
        if n <= LISTED:
            for part in _parts(at, n):
                self._bound_from_list(part, n)
            return
        counted, laid_at = state["counted"][at], state["laid_at"][at]
        renew = counted == 0
        worn = (state["loose"][at] > _LOOSE * state["upper"][at]) | (state["outgrown"][at] > 0)
        renew |= worn & (n > _RENEWED * laid_at)
        for part in _parts(at[renew], n):
            self._bound_from_sketch(part, np.zeros(len(part), np.int64), n)
        at, counted = at[~renew], counted[~renew]
        # Those that miss about as many products get them together: a product of few rows is bound by memory.
        missing = np.maximum(self._kept.start - counted, 0)
        alike = np.ceil(2 * np.log2(missing + 1))
        for level in np.unique(alike):
            same = np.flatnonzero(alike == level)
            for part in _parts(same, n - int(counted[same].min())):
                self._bound_from_sketch(at[part], counted[part], n)

    def _bound_from_list(self, at: Integers, n: int) -> None:
        keys = self._keys(at, slice(0, n))
        bound, outlook = list_bound(self._shares[at], keys, self.error[at], self.weights)
        self._lower(at, bound, outlook, n)

    def _bound_from_sketch(self, at: Integers, known: Integers, n: int) -> None:
        """From sketches that hold the first ``known`` (m,) picks; all 0: from new ones."""
        state, first, shares = self.state, int(known.min()), self._shares[at]
        keys = self._keys(at, slice(first, n))
        if known.any():
            sketch = Sketch(*(state[name][at] for name in _SKETCH))
        else:
            sketch = Sketch.over(keys, self.error[at])
            state["laid_at"][at] = n
        if n > first:
            is_new = np.arange(first, n) >= known[:, None]
            sketch.add(shares, slice(first, n), keys, is_new, self.error[at], self.weights)
            for name in _SKETCH:
                state[name][at] = getattr(sketch, name)
            state["counted"][at] = n
            state["outgrown"][at] = sketch.outgrown()
        bound, outlook = sketch.upper_bound(shares, self.error[at], self.weights)
        self._lower(at, bound, outlook, n)

    def _lower(self, at: Integers, bound: Array, outlook: Outlook, n: int) -> None:
        """Take a new bound, with what errors of keys add to it, and its outlook."""
        heaviest_first = np.sort(self.picks.powered[:n])[::-1]
        shares = self._shares[at]
        missing = self.error[at] * shares.equation.weighed(self.weights.w[:n], shares.own, heaviest_first)
        self._sketched[at] = bound + missing + 1e-30
        self.state["upper"][at] = np.minimum(self.state["upper"][at], self._sketched[at])
        self._outlook[at] = outlook


def _parts(at: Integers, columns: int) -> list[Integers]:
    """Candidates in parts whose keys fit the processor's cache."""
    step = max(32, (1 << 18) // max(1, columns))
    return [at[start : start + step] for start in range(0, len(at), step)]
