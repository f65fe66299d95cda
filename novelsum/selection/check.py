"""What an executor does in a round: enter new picks into the sketches of a block, and check a draft against them.

Three levels, each paid only by candidates that survive the one before: the bound from the sketch, and gain bounds along
the draft; a bound from a copy of the sketch into which drafted picks are entered; and the sum itself, from the keys of
all picks. What reaches the driver is what the errors of float32 leave open. Neither Spark nor files.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.density.neighbors import paired_squared_distances
from novelsum.formula import Array
from novelsum.rows import Integers
from novelsum.selection import ranking, sketch
from novelsum.selection.candidates import Candidates, Picks
from novelsum.selection.closings import steps_open
from novelsum.selection.ranking import CELLS
from novelsum.selection.scoring import Scoring
from novelsum.selection.weights import Shares, Single, Weights

LONGEST_DRAFT = 256
KEPT = 512
"""Keys of so many picks that were drafted and are not final are kept: who is rejected is mostly drafted again."""
_TILE_KEYS = 1 << 19
_AT_ONCE = 256
"""So many columns of keys are computed at a time."""
_RANKED_KEYS = 1 << 19
_SUMMED = 256
"""A product is added up from parts of so many terms, so that its error can be bounded whatever their order."""
_NEAR = 0.1
_LEAST_KEY = np.float32(1e-37)
"""A key is never 0, whose sign is one of its bits."""

STATE: dict[str, tuple[Any, tuple[int, ...]]] = {
    "sketches": (sketch.SKETCH, ()),
    "kept": ("f4", (KEPT,)),
    "bound": ("f8", ()),
    "closed": ("u1", ()),
}
"""What is kept of a candidate between rounds: names, types and shapes. Nothing grows with the picks.

``kept``: keys of picks that were drafted, which need not be computed again when these are drafted again or final.
``bound``: of its sum over the picks that the sketch holds. ``closed``: whether it may be picked any more, see
:data:`~novelsum.selection.sketch.CLOSED`; a pick may not.
"""
MARKS: dict[str, int] = {"kept_rows": KEPT, "asked_at": KEPT}
"""What is kept of a block, int64: names and lengths. -1 where there is nothing.

``kept_rows``: which pick's keys each column of ``kept`` holds. ``asked_at``: how many picks were final when it was last
drafted.
"""

STATE_BYTES: int = sum(np.dtype(kind).itemsize * int(np.prod(shape)) for kind, shape in STATE.values())
"""Bytes of a candidate's state."""


def empty(state: dict[str, NDArray[Any]]) -> None:
    """Make sketches those of no picks."""
    state["sketches"][:] = np.zeros(1, sketch.SKETCH)
    state["sketches"]["beyond"] = np.inf
    state["closed"][:], state["bound"][:] = sketch.OPEN, 0.0
    for name in MARKS:
        state[name][:] = -1


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
    ``heaviest``: Σ w · σ^κ2 over all of them in the order of σ^κ2, the greatest first.
    ``open_until`` (G,): up to which step of the draft, excluded, picks may come from each group.
    ``pool``: sorted rows that the driver watches itself. Candidates whose score may reach its bar at some step, the
    last of ``bars`` (steps + 1,) after the draft, are reported too, so that the driver may draft them next. At most
    ``most`` are reported from a block.
    ``left`` (steps + 1,): what a pick may cost at each step and after the draft. ``distance``: what is nearer to a pick
    is closed, and so are sorted rows ``closed``, of which the driver has found that out.
    """

    committed: int
    scores: Array
    heaviest: float
    pool: Integers
    bars: Array
    most: int = 1 << 62
    open_until: Integers = field(default_factory=lambda: np.array([1 << 62]))
    left: Array | None = None
    distance: float = 0.0
    closed: Integers = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class Findings:
    """Candidates of a block that the driver has to look at: places (k,), and bounds (k,) on their sums.

    ``first`` (k,) and ``before`` (k, CELLS): what is known of ranks, see :class:`~novelsum.selection.ranking.Outlooks`.
    ``may_be_near`` (k,): who may be nearer to a final pick than is allowed.

    ``safe_steps``: up to which step of the draft no candidate that is *not* reported can beat it.
    ``bounds``, ``evaluated``: how many bounds were computed from sketches, and of how many candidates the sum.
    ``multiplied``: how many picks had their products with all candidates of the block computed.
    """

    places: Integers
    upper: Array
    first: NDArray[np.int32]
    before: NDArray[np.int32]
    may_be_near: NDArray[np.bool_]
    safe_steps: int
    bounds: int
    evaluated: int
    multiplied: int


class BlockCheck:
    """A block's candidates and their state, which :meth:`check` brings forward.

    ``state`` holds the arrays of :data:`STATE` and :data:`MARKS`.
    """

    def __init__(
        self,
        candidates: BlockCandidates,
        state: dict[str, NDArray[Any]],
        scoring: Scoring,
        weights: Weights,
        picks: Picks,
    ) -> None:
        self.candidates, self.state, self.scoring, self.picks = candidates, state, scoring, picks
        equation = scoring.equation
        self.rule = sketch.Rule(weights.w, weights.sums, weights.squares, equation.ranked_by_mass)
        self._shares = Shares.of(equation, candidates.powered, picks.powered)
        self.traits, self._powered = self._traits(weights)

    def _error(self) -> Array:
        """How far a distance (n,) may be from the true one.

        Of a product of D terms: its roundings in whatever order each part is added up, and those of its factors.
        """
        dimension = self.candidates.vectors.shape[1]
        relative = 1.01 * (min(dimension, _SUMMED) + -(-dimension // _SUMMED) + 16) * 2.0**-24
        sums = self.candidates.norms.astype(np.float64) + self.picks.norms.max()
        return np.asarray(relative * (0.5 * sums if self.scoring.metric == "cosine" else np.sqrt(sums / (4 * _NEAR))))

    def _traits(self, weights: Weights) -> tuple[NDArray[Any], Single]:
        """What the loops need to know of each candidate, and the picks' part of the shares (k,).

        Where picks are ranked by mass, the key is the mass, and its share 1.
        """
        shares, candidates, n = self._shares, self.candidates, len(self.picks)
        equation, error = shares.equation, self._error()
        traits = np.zeros(len(candidates.rows), sketch.TRAITS)
        traits["least"], traits["greatest"] = shares.least[:, 0], shares.greatest[:, 0]
        traits["quality"] = candidates.quality
        if equation.ranked_by_mass:
            traits["error"] = 1.5 * error * traits["greatest"]
            return traits, np.ones(n, np.float32)
        traits["own"], traits["error"] = equation.share(candidates.powered, np.zeros(1)), error
        return traits, self.picks.powered.astype(np.float32)

    def check(self, question: Question, known: int, release: Callable[[slice], None] = lambda tile: None) -> Findings:
        """Enter what the sketches, which hold the first ``known`` picks, miss, and check the draft against them.

        ``release`` is called with each tile that is done.
        """
        n, steps, powered = question.committed, len(question.scores), self._powered
        scores = np.append(question.scores, np.inf)
        bars = np.minimum(question.bars, scores)
        is_eligible = self._eligible(question, known)
        closes = question.open_until[self.candidates.groups]
        if question.left is not None:
            closes = np.minimum(closes, steps_open(self.candidates.cost, question.left))
        self.traits["closes"] = np.where(is_eligible, closes, 0)
        own = self._shares.equation.share(self.candidates.powered, np.zeros(1))
        self.traits["missing"] = self._error() * (own * self.rule.sums[n + steps] + question.heaviest) + 1e-30
        rows = self.picks.rows[known : n + steps]
        columns, drafted = self._columns(rows, n - known, n)
        to_keep = np.where(columns[n - known :] < 0, drafted, -1)
        reached, upper = np.empty(len(self.traits), np.int64), np.empty(len(self.traits))
        bounds = 0
        for tile in self._tiles():
            sketches, traits = np.asarray(self.state["sketches"][tile]), self.traits[tile]
            keys = self._enter(tile, sketches, slice(known, n), columns, question.distance)
            column = keys.shape[1] - steps
            self._close_near(tile, keys, n - column, n, question.distance)
            draft = (keys, powered[n - column : n + steps], column, scores, bars)
            found = (reached[tile], upper[tile], np.asarray(self.state["bound"][tile]))
            bounds += sketch.check(sketches, traits, n, self.rule, *draft, *found)
            sketch.keep(np.asarray(self.state["kept"][tile]), to_keep, keys[:, column:])
            release(tile)
        near = np.flatnonzero((reached >= 0) & (reached < steps))
        self._sum(near, drafted, scores, bars, n, reached, upper)
        self.state["bound"][near] = upper[near]
        wanted = np.flatnonzero(reached >= 0)
        safe = steps
        if len(wanted) > question.most:
            quality = self.candidates.quality[wanted]
            soonest = np.lexsort((-np.where(quality > 0, upper[wanted], 0.0) * quality, reached[wanted]))
            safe = int(reached[wanted[soonest[question.most :]]].min(initial=steps))
            wanted = wanted[soonest[: question.most]]
        may_be_near = np.asarray(self.state["closed"][wanted] == sketch.DOUBTFUL)
        effort = bounds, len(near), int(np.sum(columns < 0))
        return Findings(wanted, upper[wanted], *self._ranks(wanted, n), may_be_near, safe, *effort)

    def _sum(
        self, at: Integers, columns: Integers, scores: Array, bars: Array, n: int, reached: Integers, upper: Array
    ) -> None:
        """Compute the sums of some candidates and check the draft, whose keys are in some columns, with them."""
        powered, steps = self._powered, len(scores) - 1
        at_once = max(64, _RANKED_KEYS // max(1, n))
        for start in range(0, len(at), at_once):
            part = at[start : start + at_once]
            order = self._keys(part, slice(0, n)).view(np.uint32).astype(np.uint64)
            order <<= np.uint64(32)
            order |= np.arange(n, dtype=np.uint64)
            order.sort(axis=1)
            drafted = np.asarray(self.state["kept"][part][:, columns])
            found = np.empty(len(part), np.int64), np.empty(len(part))
            draft = (drafted, powered[n : n + steps], scores, bars)
            sketch.check_ranked(order, powered, self.traits[part], n, self.rule, *draft, *found)
            reached[part], upper[part] = found

    def _ranks(self, at: Integers, n: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """What the sketches of some candidates, which hold n picks, tell of ranks."""
        first, before = np.zeros(len(at), np.int32), np.zeros((len(at), CELLS), np.int32)
        at_once = max(64, _RANKED_KEYS // max(1, n))
        for start in range(0, len(at), at_once):
            part = slice(start, start + at_once)
            keys = np.empty((len(at[part]), n), np.float32)
            sketch.keys_at_most(np.asarray(self.state["sketches"][at[part]]), n, keys)
            ranking.look_out(keys, 2 * self.traits["error"][at[part]], first[part], before[part])
        return first, before

    def _columns(self, rows: Integers, final: int, n: int) -> tuple[Integers, Integers]:
        """In which columns keys of picks with these rows (k,) are kept, -1: in none; and where those of the drafted go.

        The first ``final`` of them are final, as n in all are, and their columns become free. The others get those that
        were asked for the longest ago.
        """
        kept, asked_at = self.state["kept_rows"], self.state["asked_at"]
        column_of = {row: column for column, row in enumerate(kept.tolist()) if row >= 0}
        columns = np.array([column_of.get(row, -1) for row in rows.tolist()], np.int64)
        is_final = np.isin(kept, rows[:final])
        kept[is_final] = asked_at[is_final] = -1
        drafted = columns[final:].copy()
        oldest = np.argsort(asked_at, kind="stable")
        is_new = drafted < 0
        drafted[is_new] = oldest[~np.isin(oldest, drafted)][: is_new.sum()]
        kept[drafted], asked_at[drafted] = rows[final:], n
        return columns, drafted

    def _enter(self, tile: slice, sketches: NDArray[Any], picks: slice, columns: Integers, distance: float) -> Single:
        """Enter what the sketches miss of the picks, but for the latest; keys (m, k) of these and of the drafted ones.

        ``columns``: where the keys of all these are kept, or -1. Who is nearer to an entered one than ``distance`` is
        closed.
        """
        start, bounds = picks.start, np.asarray(self.state["bound"][tile])
        while picks.stop - start > _AT_ONCE:
            keys = self._keys_of(tile, start, columns[start - picks.start :][:_AT_ONCE])
            powered = self._powered[start:]
            self._close_near(tile, keys, start, picks.stop, distance)
            sketch.enter(sketches, self.traits[tile], start, self.rule, keys, powered, _AT_ONCE, bounds)
            start += _AT_ONCE
        return self._keys_of(tile, start, columns[start - picks.start :])

    def _close_near(self, tile: slice, keys: Single, start: int, final: int, distance: float) -> None:
        """Close who is nearer than a distance to picks from a place on, of which there are keys (m, k).

        Those before the place ``final`` are final.
        """
        if distance > 0:
            equation, powered = self._shares.equation, self.picks.powered[start : start + keys.shape[1]]
            own = equation.share(self.candidates.powered[tile], np.zeros(1))
            traits, closed = self.traits[tile], np.asarray(self.state["closed"][tile])
            by_mass = equation.ranked_by_mass
            args = (own, powered, final - start, distance, by_mass, closed, traits["closes"])
            sketch.close_near(keys, traits, *args)

    def _keys_of(self, tile: slice, start: int, columns: Integers) -> Single:
        """Keys (m, k) of as many picks from a place on as there are columns: from these, or computed for -1."""
        is_missing = columns < 0
        if is_missing.all():
            return self._keys(tile, slice(start, start + len(columns)))
        keys = np.empty((tile.stop - tile.start, len(columns)), np.float32)
        sketch.take(np.asarray(self.state["kept"][tile]), columns, keys)
        if is_missing.any():
            keys[:, is_missing] = self._keys(tile, start + np.flatnonzero(is_missing))
        return keys

    def _eligible(self, question: Question, known: int) -> NDArray[np.bool_]:
        """Who may be picked and is not watched by the driver already; the first ``known`` picks are marked.

        Of candidates with equal embeddings only the one with the smallest row can be picked next.
        """
        closed, rows = self.state["closed"], self.candidates.rows
        closed[np.isin(rows, self.picks.rows[known : question.committed])] = sketch.CLOSED
        if len(question.closed):
            closed[np.isin(rows, question.closed)] = sketch.CLOSED
        watched: NDArray[np.bool_] = np.isin(rows, question.pool) | (closed == sketch.CLOSED)
        eligible = ~watched
        if self.candidates.twin is not None:
            twin = self.candidates.twin
            eligible &= (twin < 0) | watched[twin]
        return eligible

    # --- keys ---------------------------------------------------------------------------------------------

    def _tiles(self) -> list[slice]:
        step = max(64, _TILE_KEYS // _AT_ONCE)
        n = len(self.candidates.rows)
        return [slice(start, min(start + step, n)) for start in range(0, n, step)]

    def _keys(self, at: slice | Integers, part: slice | Integers) -> Single:
        """What the picks of a part are ranked by at some candidates, (m, k) float32, by a matrix product."""
        candidates, picks = self.candidates, self.picks
        points, others, norms = candidates.vectors[at], picks.vectors[part], candidates.norms[at]
        keys = _products(points, others)
        keys *= (-2 * candidates.factor[at])[:, None]
        keys += norms[:, None]
        keys += picks.norms[part]
        if self.scoring.metric == "cosine":
            keys *= np.float32(0.5)
        else:
            is_near = keys < np.float32(_NEAR) * (norms[:, None] + picks.norms[part])
            if is_near.any():
                near, column = np.nonzero(is_near)
                space = points * candidates.factor[at][:, None].astype(np.float64)
                keys[is_near] = paired_squared_distances(space, others.astype(np.float64), near, column)
            np.maximum(keys, 0, out=keys)
            np.sqrt(keys, out=keys)
        np.maximum(keys, _LEAST_KEY, out=keys)
        return np.asarray(self._shares[at].keys(keys, part), dtype=np.float32)


def _products(points: Single, others: Single) -> Single:
    """Inner products (m, k) of points (m, D) and others (k, D), float32, no part of more than so many terms at once."""
    products: Single = points[:, :_SUMMED] @ others[:, :_SUMMED].T
    for start in range(_SUMMED, points.shape[1], _SUMMED):
        products += points[:, start : start + _SUMMED] @ others[:, start : start + _SUMMED].T
    return products
