"""Compiled loops of the driver's pool: picks ranked for a contender, its sum, and what one more pick adds at most.

Slots number the contenders, places the picks. A *key* is what picks are ranked by, the distance or the mass; the share
of a pick is what the contender has by ``own`` and what the pick has by ``powered``. All decisions are made in float64.
Ranks here start at 0: ``weights[0]`` is the weight of the nearest pick. docs/algorithm.md proves the bounds.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from novelsum.compiled import compiled

CELLS = 256
"""Cells of an outlook. Each is 2^-7 of a power of two wide: as wide as 65,536 neighbouring numbers of float32."""
_CELL_BITS = 16
_BEYOND = 4
"""So many cells begin above the greatest key, for keys still to come."""
SLACK = 1e-6
"""Relative slack on what a pick adds, and the part of a key by which it may be on the other side of another."""
_SAME_MASS = 1e-11
NEAR = 1e-6
"""Squared distances below this share of the squared lengths are computed again, as a product has lost their digits."""
SETTLED, LACKS_LIST, IS_DOUBTFUL = 0, 1, 2
"""What :func:`settle` comes back with."""


class Rule(NamedTuple):
    """How distances become keys and masses, and how near two squared distances are to be told apart."""

    is_cosine: bool
    ranked_by_mass: bool
    tolerance: float


class Lists(NamedTuple):
    """The first ``ranked`` picks in order, a row for each contender that has a list, the lowest keys first.

    ``keys`` (rows, places) float64; ``order`` (rows, places) int32, which pick each is; ``ranked`` (rows,) int64.
    """

    keys: NDArray[np.float64]
    order: NDArray[np.int32]
    ranked: NDArray[np.int64]


class Outlooks(NamedTuple):
    """What is known of the ranks of picks at each contender, by cells of keys.

    ``first`` (p,) int32, the bits of the float32 at which its cells begin. ``before`` (p, CELLS) int32, how many of the
    first ``counted`` (p,) int64 picks lie in the cells before; ``lost`` (p, CELLS) float32, what the picks in the cell
    and beyond lose at least when each moves one rank down. ``doubt`` (p,) float64: how far keys may be from true ones.
    """

    first: NDArray[np.int32]
    before: NDArray[np.int32]
    lost: NDArray[np.float32]
    counted: NDArray[np.int64]
    doubt: NDArray[np.float64]


class Scores(NamedTuple):
    """Bounds and sums of the contenders, see ``contenders``; all (p,), float64 or int64."""

    own: NDArray[np.float64]
    quality: NDArray[np.float64]
    upper: NDArray[np.float64]
    sums: NDArray[np.float64]
    standing: NDArray[np.float64]
    exact_at: NDArray[np.int64]
    ranked_in: NDArray[np.int64]


class Made(NamedTuple):
    """The picks: s = σ^κ2 of each, ``lightest`` of it and all before, (places,) float64; and distances to the latest.

    ``distances`` (window, p or more): row k is of the pick at place ``first`` + k.
    """

    powered: NDArray[np.float64]
    lightest: NDArray[np.float64]
    weights: NDArray[np.float64]
    distances: NDArray[np.float64]
    first: int


class Tally(NamedTuple):
    """``evaluated`` (1,) int64, how many sums were computed."""

    evaluated: NDArray[np.int64]


# --- outlooks ---------------------------------------------------------------------------------------------


@compiled
def cell_of(key: float, first: int) -> int:
    """The cell of a key. It never falls while the key rises."""
    if key <= 0.0:
        return 0
    bits = np.float32(key).view(np.int32)
    return min(max(int((bits - first) >> _CELL_BITS), 0), CELLS - 1)


@compiled
def edge_of(cell: int, first: int) -> float:
    """The least key of a cell; that of the first, which holds all lower ones too, is 0."""
    return float(np.int32(first + (cell << _CELL_BITS)).view(np.float32)) if cell > 0 else 0.0


@compiled
def first_cell(greatest: float) -> int:
    """Where cells begin that reach a little beyond the greatest key."""
    return int(np.float32(greatest).view(np.int32)) - ((CELLS - 1 - _BEYOND) << _CELL_BITS)


@compiled
def look_out(
    keys: NDArray[np.float32], doubt: NDArray[np.float64], first: NDArray[np.int32], before: NDArray[np.int32]
) -> None:
    """Cells of candidates from their keys (m, n) of all picks, rising, and how many picks surely lie before each.

    A pick does that if its key is more than the ``doubt`` (m,) below the cell.
    """
    for i in range(len(keys)):
        first[i] = first_cell(keys[i, -1])
        rank = 0
        for cell in range(CELLS):
            edge = edge_of(cell, first[i]) - doubt[i]
            while rank < keys.shape[1] and keys[i, rank] < edge:
                rank += 1
            before[i, cell] = rank


@compiled
def add_pick(place: int, slots: tuple[int, int], rule: Rule, outlooks: Outlooks, scores: Scores, made: Made) -> None:
    """Add to the bounds of some slots, from the first to before the second, what the pick at a place adds at most.

    At the lowest rank it can take it adds w(rank) · mass. The picks that surely come after it move down, and lose what
    the outlook says, less where picks that it has not counted may have moved them before; they lose no less than if
    all had the distance of the pick, and the least share of all.
    """
    own, quality, upper = scores.own, scores.quality, scores.upper
    firsts, before, lost, counted, doubts = outlooks
    weights, powered, lightest = made.weights, made.powered[place], made.lightest[place]
    distances = made.distances[place - made.first]
    for slot in range(slots[0], slots[1]):
        if upper[slot] == -np.inf:
            continue
        distance, first = distances[slot], firsts[slot]
        mass = distance * (own[slot] + powered)
        key = mass if rule.ranked_by_mass else distance
        least = mass if rule.ranked_by_mass else distance * (own[slot] + lightest)
        doubt = doubts[slot] + SLACK * key
        rank = before[slot, cell_of(key - doubt, first)]
        loss = least * (weights[rank] - weights[place])
        cell = cell_of(key + doubt, first) + 1
        if cell < CELLS and lost[slot, cell] > 0.0:
            after = before[slot, cell]
            moved = after + place - counted[slot]
            slowed = (weights[moved] - weights[moved + 1]) / (weights[after] - weights[after + 1])
            loss = max(loss, lost[slot, cell] * slowed)
        upper[slot] += (weights[rank] * mass * (1.0 + SLACK) - loss * (1.0 - SLACK)) * quality[slot]


@compiled
def outlast(
    steps: tuple[int, int],
    drafted: NDArray[np.float64],
    tie: float,
    committed: int,
    slots: tuple[int, int],
    rule: Rule,
    outlooks: Outlooks,
    scores: Scores,
    made: Made,
) -> int:
    """The first of some steps of a draft whose score a bound reaches, or their end; the gains before it are added."""
    for step in range(steps[0], steps[1]):
        bar = drafted[step] - tie * abs(drafted[step])
        for slot in range(slots[0], slots[1]):
            if scores.upper[slot] >= bar:
                return step
        add_pick(committed + step, slots, rule, outlooks, scores, made)
    return steps[1]


# --- distances --------------------------------------------------------------------------------------------


@compiled
def to_distances(
    products: NDArray[np.float64],
    norms: NDArray[np.float64],
    others: NDArray[np.float64],
    factors: NDArray[np.float64],
    is_cosine: bool,
) -> int:
    """Turn products (m, k) of points and of others into distances; nan where a product has lost their digits.

    ``norms`` (m,) and ``others`` (k,) are squared lengths, ``factors`` (k,) what products are to be multiplied by.
    Returns how many are nan.
    """
    near = 0
    for i in range(len(norms)):
        for j in range(len(others)):
            lengths = norms[i] + others[j]
            squared = lengths - 2.0 * factors[j] * products[i, j]
            if squared < NEAR * lengths:
                near += 1
                products[i, j] = np.nan
            else:
                products[i, j] = 0.5 * squared if is_cosine else np.sqrt(squared)
    return near


# --- ranked lists -----------------------------------------------------------------------------------------


@compiled
def _merge(
    keys: NDArray[np.float64],
    order: NDArray[np.int32],
    count: int,
    new_keys: NDArray[np.float64],
    new_order: NDArray[np.int32],
) -> None:
    """Put new picks, the lowest keys first, among the ``count`` ranked ones; of equal keys the old ones go first."""
    old, new = count - 1, len(new_keys) - 1
    while new >= 0:
        to = old + new + 1
        if old >= 0 and keys[old] > new_keys[new]:
            keys[to], order[to] = keys[old], order[old]
            old -= 1
        else:
            keys[to], order[to] = new_keys[new], new_order[new]
            new -= 1


@compiled
def _rank_latest(slot: int, n: int, rule: Rule, lists: Lists, scores: Scores, made: Made) -> None:
    """Put those of the first n picks that a contender's list lacks into it; their distances are still there."""
    row = scores.ranked_in[slot]
    count = lists.ranked[row]
    new_keys, new_order = np.empty(n - count), np.empty(n - count, np.int32)
    for place in range(count, n):
        key = made.distances[place - made.first, slot]
        if rule.ranked_by_mass:
            key *= scores.own[slot] + made.powered[place]
        to = place - count
        while to > 0 and new_keys[to - 1] > key:
            new_keys[to], new_order[to] = new_keys[to - 1], new_order[to - 1]
            to -= 1
        new_keys[to], new_order[to] = key, place
    _merge(lists.keys[row], lists.order[row], count, new_keys, new_order)
    lists.ranked[row] = n


@compiled
def rank_latest(n: int, slots: NDArray[np.int64], rule: Rule, lists: Lists, scores: Scores, made: Made) -> None:
    """Bring the lists of some slots to the first n picks."""
    for slot in slots:
        row = scores.ranked_in[slot]
        if row >= 0 and lists.ranked[row] < n:
            _rank_latest(slot, n, rule, lists, scores, made)


@compiled
def _sum_up(slot: int, rule: Rule, lists: Lists, outlooks: Outlooks, scores: Scores, made: Made) -> tuple[float, bool]:
    """The sum over a contender's list, which gives a new outlook; and whether it hangs on picks too near to rank.

    In that case what they lose hangs on their order too, and is left out.
    """
    row, own, weights, powered = scores.ranked_in[slot], scores.own[slot], made.weights, made.powered
    keys, order, n = lists.keys[row], lists.order[row], lists.ranked[row]
    first = first_cell(keys[n - 1])
    before, lost_from = outlooks.before[slot], outlooks.lost[slot]
    outlooks.first[slot], outlooks.counted[slot], outlooks.doubt[slot] = first, n, SLACK * keys[n - 1]
    total = lost = mass_after = 0.0
    key_after = edge = np.inf
    is_doubtful = False
    undone = CELLS
    for rank in range(n - 1, -1, -1):
        key = keys[rank]
        mass = key if rule.ranked_by_mass else key * (own + powered[order[rank]])
        if key < edge:
            cell = cell_of(key, first)
            while undone > cell + 1:
                undone -= 1
                before[undone], lost_from[undone] = rank + 1, lost
            edge = edge_of(cell, first)
        total += weights[rank] * mass
        lost += (weights[rank] - weights[rank + 1]) * mass
        if not rule.ranked_by_mass:
            gap = 2.0 * (key_after - key) if rule.is_cosine else (key_after - key) * (key_after + key)
            if gap <= 2.0 * rule.tolerance:
                is_doubtful |= abs(mass_after - mass) > _SAME_MASS * mass
            key_after, mass_after = key, mass
    while undone > 0:
        undone -= 1
        before[undone], lost_from[undone] = 0, lost
    if is_doubtful:
        lost_from[:] = 0.0
    return total, is_doubtful


@compiled
def take_back(n: int, slots: int, rule: Rule, lists: Lists, outlooks: Outlooks, scores: Scores, made: Made) -> None:
    """Take the picks after the first n out of all lists and outlooks; whoever's list had any is exact again."""
    for slot in range(slots):
        row = scores.ranked_in[slot]
        if row >= 0 and lists.ranked[row] > n:
            keys, order = lists.keys[row], lists.order[row]
            to = 0
            for rank in range(lists.ranked[row]):
                if order[rank] < n:
                    keys[to], order[to] = keys[rank], order[rank]
                    to += 1
            lists.ranked[row] = n
            total, is_doubtful = _sum_up(slot, rule, lists, outlooks, scores, made)
            if not is_doubtful and scores.upper[slot] > -np.inf:
                scores.sums[slot], scores.upper[slot], scores.exact_at[slot] = total, total * scores.quality[slot], n
        elif outlooks.counted[slot] > n:
            outlooks.before[slot], outlooks.lost[slot], outlooks.counted[slot] = 0, 0.0, 0
        if scores.exact_at[slot] > n:
            scores.exact_at[slot] = -1


@compiled
def settle(
    n: int,
    slots: tuple[int, int],
    level: float,
    tie: float,
    standard: float,
    rule: Rule,
    lists: Lists,
    outlooks: Outlooks,
    scores: Scores,
    made: Made,
    tally: Tally,
) -> tuple[int, int]:
    """Replace bounds against n picks by exact scores until no other reaches the greatest of these, or the level.

    A state and the slot it is about. SETTLED: the one with the greatest score, -1 if none reaches the level.
    LACKS_LIST: one that may have it and has no list. IS_DOUBTFUL: one whose sum, which is in its place all the same,
    hangs on picks too near to rank.
    """
    nobody: Any = np.int64(-1)  # a plain -1 would be a type of its own, and all compiled twice
    upper, exact_at, ranked_in = scores.upper, scores.exact_at, scores.ranked_in
    while True:
        best = inexact = lacking = nobody
        exact = bound = unlisted = -np.inf
        for slot in range(slots[0], slots[1]):
            if exact_at[slot] == n:
                if upper[slot] > exact:
                    best, exact = slot, upper[slot]
            elif ranked_in[slot] >= 0:
                if upper[slot] > bound:
                    inexact, bound = slot, upper[slot]
            elif upper[slot] > unlisted:
                lacking, unlisted = slot, upper[slot]
        reached = max(level, exact)
        bar = reached - tie * abs(reached) if reached > -np.inf else reached
        if inexact >= 0 and bound >= bar:
            if _evaluate(inexact, n, standard, rule, lists, outlooks, scores, made, tally):
                return IS_DOUBTFUL, inexact
        elif lacking >= 0 and unlisted >= bar:
            return LACKS_LIST, lacking
        else:
            return SETTLED, best if exact >= bar else -1


@compiled
def _evaluate(
    slot: int,
    n: int,
    standard: float,
    rule: Rule,
    lists: Lists,
    outlooks: Outlooks,
    scores: Scores,
    made: Made,
    tally: Tally,
) -> bool:
    """Replace a bound by the exact score against n picks; whether it hangs on picks too near to rank."""
    _rank_latest(slot, n, rule, lists, scores, made)
    total, is_doubtful = _sum_up(slot, rule, lists, outlooks, scores, made)
    tally.evaluated[0] += 1
    score = total * scores.quality[slot]
    scores.sums[slot], scores.upper[slot], scores.exact_at[slot] = total, score, n
    scores.standing[slot] = score / standard
    return is_doubtful
