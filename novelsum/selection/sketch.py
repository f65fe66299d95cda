"""The rank sketch: bounds on a candidate's novelty in memory that does not grow with the selection. Compiled loops.

Exact novelty needs the sorted distances of a candidate to all n picks. The sketch keeps the nearest picks one by one,
and of all others how many lie in each of some cells of distances, with their mass and its squares. Keys, what picks are
ranked by, are float32 and known within an error only; the bounds hold for the true keys all the same. docs/algorithm.md
has the proofs, and the loops read like it: float32 is what is kept, sums and bounds are float64.
"""
# mypy: disable-error-code="no-any-return, return-value, assignment, arg-type, operator, call-overload"

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from novelsum.compiled import compiled, reordered

NEAREST = 32
"""So many nearest picks are kept one by one."""
CELLS = 256
_FINEST, _WIDEST = 15, 19
"""A cell spans 2^shift float32 numbers: of an octave, which has 2^23, at most a 16th and at least a 256th."""
_DOUBT = 2
"""A key may change places with another that is no more than so many errors away."""
_HEADROOM = 1.08
_MANY = 255
OPEN, DOUBTFUL, CLOSED = 0, 1, 2
"""What is known of whether a candidate may be picked: nothing against it; nearly too near to a pick; or never more."""
_ROUNDING = 2.0**-24

SKETCH = np.dtype(
    [
        ("nearest", "f4", NEAREST),
        ("shares", "f4", NEAREST),
        ("count", "i4", CELLS),
        ("mass", "f4", CELLS),
        ("square", "f4", CELLS),
        ("doubtful", "u1", CELLS),
        ("beyond", "f4"),
        ("first", "i4"),
        ("shift", "i4"),
    ]
)
"""The sketch of a candidate.

``nearest``, ``shares``: keys of the nearest picks, rising, and their shares less the candidate's own. ``count``,
``mass``, ``square``: picks in each cell, Σ mass and Σ mass². A key lies in the cell (its bits − ``first``) >>
``shift``; 0: no cell has been laid. ``beyond``: the least key in the cells. ``doubtful``: keys so near the lower edge
of a cell that they may lie on its other side.
"""

TRAITS = np.dtype(
    [(name, "f8") for name in ("own", "error", "missing", "least", "greatest", "quality")] + [("closes", "i8")]
)
"""What the loops know of a candidate.

``own``: its part of the shares. ``error``: how far a key may be from the true one. ``missing``: what that adds to a sum
at most. ``least``, ``greatest``: of the shares of all picks. ``quality``: what its sum is multiplied by. ``closes``:
the step of the draft from which on it cannot be picked; 0: at no step.
"""


class Rule(NamedTuple):
    """What sums depend on: w (t,) of the ranks from 1; Σ w and Σ w² of the first ones (t + 1,); the order of picks."""

    w: NDArray[np.float64]
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    by_mass: bool


# --- entering picks ---------------------------------------------------------------------------------------


@compiled
def enter(sketches: Any, traits: Any, n: int, rule: Rule, keys: Any, powered: Any, count: int, bounds: Any) -> None:
    """Enter the picks of the first columns of keys (m, k) after the first n, and add what they add to ``bounds`` (m,).

    ``powered`` (k,): the picks' part of the shares. Bounds are of sums over the picks entered.
    """
    before, gains = np.empty(CELLS, np.int64), np.empty(count)
    for i in range(len(bounds)):
        bounds[i] += _advance(sketches[i], traits[i], n, rule, keys[i], powered, before, gains)


@compiled
def _advance(sketch: Any, trait: Any, n: int, rule: Rule, keys: Any, powered: Any, before: Any, gains: Any) -> float:
    """Enter as many picks into one as there are gains; what they add at most."""
    _gains(sketch, trait, n, rule, keys, powered, 0, before, gains)
    _enter(sketch, trait, n, keys, powered, 0, len(gains))
    return np.sum(gains)


@compiled
def take(kept: Any, columns: Any, keys: Any) -> None:
    """Fill those columns of keys (m, k) that are kept in ``columns`` (k,), none of the others, which are below 0."""
    for i in range(len(keys)):
        for j in range(len(columns)):
            if columns[j] >= 0:
                keys[i, j] = kept[i, columns[j]]


@compiled
def keep(kept: Any, columns: Any, keys: Any) -> None:
    """Put columns of keys (m, k) where they are to be kept; who is below 0 is not."""
    for i in range(len(keys)):
        for j in range(len(columns)):
            if columns[j] >= 0:
                kept[i, columns[j]] = keys[i, j]


@compiled
def _enter(sketch: Any, trait: Any, n: int, keys: Any, powered: Any, start: int, stop: int) -> None:
    """Each is put among the nearest, or into a cell; who is no more among the nearest goes into a cell."""
    nearest, shares, beyond = sketch.nearest, sketch.shares, sketch.beyond
    count, mass, square, doubtful = sketch.count, sketch.mass, sketch.square, sketch.doubtful
    first, shift = np.int64(sketch.first), np.int64(sketch.shift)
    own, doubt = trait.own, _DOUBT * trait.error
    for j in range(start, stop):
        key, share = keys[j], powered[j]
        held = min(n + j - start, NEAREST)
        if held < NEAREST or key < nearest[NEAREST - 1]:
            last, last_share = nearest[NEAREST - 1], shares[NEAREST - 1]
            insert(nearest, shares, min(held, NEAREST - 1), key, share)
            if held < NEAREST:
                continue
            key, share = last, last_share
        beyond = min(beyond, key)
        if first == 0:
            first, shift = _laid(nearest, key, trait.error)
        cell = (_bits(key) - first) >> shift
        if cell >= CELLS:
            by = ((_bits(np.float32(key * _HEADROOM)) - first) >> shift) - (CELLS - 1)
            _move_down(count, mass, square, doubtful, by)
            first += by << shift
            cell -= by
        cell = max(cell, 0)
        term = np.float64(key) * (own + share)
        count[cell] += 1
        mass[cell] += np.float32(term)
        square[cell] += np.float32(term * term)
        if cell > 0 and key - _edge(first, shift, cell) <= doubt and doubtful[cell] < _MANY:
            doubtful[cell] += 1
        if cell + 1 < CELLS and _edge(first, shift, cell + 1) - key <= doubt and doubtful[cell + 1] < _MANY:
            doubtful[cell + 1] += 1
    sketch.beyond, sketch.first, sketch.shift = beyond, first, shift


@compiled
def insert(ranked: Any, shares: Any, n: int, key: Any, share: Any) -> None:
    """Put a pick among n ranked ones."""
    place = n
    while place > 0 and ranked[place - 1] > key:
        ranked[place] = ranked[place - 1]
        shares[place] = shares[place - 1]
        place -= 1
    ranked[place] = key
    shares[place] = share


@compiled
def _laid(nearest: Any, key: Any, error: float) -> Any:
    """Where cells begin, and how wide they are: from somewhat above the greatest key known down to nearly the least.

    If that is less than an octave they are as narrow as may be. They begin where they are four errors wide, or above.
    """
    top = _bits(np.float32(max(key, nearest[NEAREST - 1]) * _HEADROOM + 1e-30))
    low = _bits(nearest[4])
    shift = _FINEST
    while shift < _WIDEST and top - (CELLS << shift) > low:
        shift += 1
    return max(top - (CELLS << shift), _bits(np.float32(error * 2.0 ** (25 - shift) + 1e-30))), shift


@compiled
def _move_down(count: Any, mass: Any, square: Any, doubtful: Any, by: int) -> None:
    """Make room above the cells: each becomes the one so many below, and the lowest become one."""
    for old in range(1, CELLS):
        new = max(old - by, 0)
        count[new] += count[old]
        mass[new] += mass[old]
        square[new] += square[old]
        if new > 0:
            doubtful[new] = doubtful[old]
        count[old], mass[old], square[old], doubtful[old] = 0, 0, 0, 0


@compiled
def _bits(key: Any) -> int:
    """The bits of a float32 that is not negative; they rise with it."""
    return np.int64(np.float32(key).view(np.int32))


@compiled
def _edge(first: int, shift: int, cell: int) -> float:
    """The lower edge of a cell."""
    return np.float64(np.int32(first + (cell << shift)).view(np.float32))


# --- bounds -----------------------------------------------------------------------------------------------


@compiled
def bounds(sketches: Any, traits: Any, n: int, rule: Rule, out: Any) -> None:
    """Upper bounds (m,) float64 of the sums over the n picks entered."""
    for i in range(len(out)):
        out[i] = _bound(sketches[i], traits[i], n, rule)


@compiled
def _bound(sketch: Any, trait: Any, n: int, rule: Rule) -> float:
    """The same of one candidate."""
    nearest, error = sketch.nearest, trait.error
    bound = _sum(nearest, sketch.shares, min(n, NEAREST), trait.own, error, rule)
    if n <= NEAREST:
        return bound + trait.missing
    last = np.float64(nearest[NEAREST - 1])
    if not rule.by_mass and sketch.beyond - last <= _DOUBT * error:
        bound += _passing(sketch, error, rule) * trait.greatest * (last + _DOUBT * error)
    before = np.empty(CELLS + 1, np.int64)
    before[0] = NEAREST
    for cell in range(CELLS):
        before[cell + 1] = before[cell] + sketch.count[cell]
    if rule.by_mass:
        return bound + _rising(sketch, before, rule) + trait.missing
    bound += _in_cells(sketch, before, rule)
    most = 0
    for cell in range(1, CELLS):
        most = max(most, sketch.doubtful[cell])
    if most > 1:
        for cell in range(1, CELLS):
            if sketch.doubtful[cell] > 1:
                bound += _crossing(sketch, trait, cell, before[cell], n, rule)
    return bound * (1 + 1e-9) + trait.missing


@reordered
def _in_cells(sketch: Any, before: Any, rule: Rule) -> float:
    """At most the sum over the cells, in each of which masses and weights have a mean and a spread about it."""
    sums, squares, bound = rule.sums, rule.squares, 0.0
    for cell in range(CELLS):
        first, last = before[cell], before[cell + 1]
        count = np.float64(max(last - first, 1))
        mass, square = np.float64(sketch.mass[cell]), np.float64(sketch.square[cell])
        weights = sums[last] - sums[first]
        of_masses = square - mass * mass / count + (4 * count + 8) * _ROUNDING * square
        of_weights = squares[last] - squares[first] - weights * weights / count
        bound += mass / count * weights * (1 + (count + 4) * _ROUNDING)
        bound += np.sqrt(max(of_masses, 0.0) * max(of_weights, 0.0))
    return bound


@reordered
def _rising(sketch: Any, before: Any, rule: Rule) -> float:
    """The same where masses rise with rank while weights fall: the sum is at most that of the means."""
    bound = 0.0
    for cell in range(CELLS):
        first, last = before[cell], before[cell + 1]
        count = np.float64(max(last - first, 1))
        weights = rule.sums[last] - rule.sums[first]
        bound += np.float64(sketch.mass[cell]) / count * weights * (1 + (count + 4) * _ROUNDING)
    return bound * (1 + 1e-9)


@compiled
def _passing(sketch: Any, error: float, rule: Rule) -> float:
    """By how much weights in the cells may rise because picks there are truly nearer than some of the nearest."""
    cell, cells = max((_bits(sketch.beyond) - np.int64(sketch.first)) >> np.int64(sketch.shift), 0), 0
    for each in range(cell, min(cell + 2, CELLS)):
        cells += np.int64(sketch.count[each])
    start = place(sketch.nearest, NEAREST, sketch.beyond - _DOUBT * error)
    sums = rule.sums
    return (sums[start + cells] - sums[start]) - (sums[NEAREST + cells] - sums[NEAREST])


@compiled
def _crossing(sketch: Any, trait: Any, cell: int, before: int, n: int, rule: Rule) -> float:
    """By how much a sum may be greater because keys near a cell's lower edge are truly on its other side."""
    doubtful = np.int64(sketch.doubtful[cell])
    if doubtful == _MANY:
        doubtful = np.int64(sketch.count[cell - 1]) + np.int64(sketch.count[cell])
    first, last = max(before + 2 - doubtful, 1), min(before + doubtful - 1, n)
    edge, doubt = _edge(np.int64(sketch.first), np.int64(sketch.shift), cell), _DOUBT * trait.error
    unlike = trait.greatest * (edge + doubt) - trait.least * max(edge - doubt, 0.0)
    return (doubtful // 2) * (rule.w[first - 1] - rule.w[last - 1]) * unlike


@compiled
def _sum(ranked: Any, shares: Any, n: int, own: float, error: float, rule: Rule) -> float:
    """Σ w · mass of n ranked picks, each at the lowest rank that errors of keys leave it."""
    total, lowest = 0.0, 0
    for rank in range(n):
        while ranked[lowest] < ranked[rank] - _DOUBT * error:
            lowest += 1
        total += rule.w[rank if rule.by_mass else lowest] * ranked[rank] * (own + shares[rank])
    return total * (1 + 4 * _ROUNDING)


# --- a draft against candidates ---------------------------------------------------------------------------


@compiled
def check(
    sketches: Any, traits: Any, n: int, rule: Rule, keys: Any, powered: Any, column: int, scores: Any, bars: Any,
    reached: Any, upper: Any, bounds: Any,
) -> int:  # fmt: skip
    """At which step (m,) of a draft each candidate may reach the score there: ``reached``; how many bounds that took.

    Their number stands for a candidate that may reach a bar only, -1 for one that reaches neither. ``keys`` (m, k) and
    ``powered`` (k,) are of the picks that are missing, the last of the n, which are entered first, and from ``column``
    on of the draft; ``scores`` and ``bars``, no higher, (steps + 1,), the last after the draft. ``bounds`` (m,) are of
    the sums over the picks entered. One that with gains along the draft reaches a score or bar is computed anew, and
    then by a copy of the sketch into which drafted picks are entered. ``upper`` (m,) bounds sums over the n picks of
    those that reach one.
    """
    steps, computed = len(scores) - 1, 0
    copy = np.zeros(1, sketches.dtype)
    before, missing, gains = np.empty(CELLS, np.int64), np.empty(column), np.empty(steps)
    for i in range(len(reached)):
        trait = traits[i]
        reached[i] = -1
        if column > 0:
            bounds[i] += _advance(sketches[i], trait, n - column, rule, keys[i], powered, before, missing)
        if trait.closes == 0:
            continue
        _gains(sketches[i], trait, n, rule, keys[i], powered, column, before, gains)
        if not _reaches(bounds[i], trait, gains, bars):
            continue
        bound = upper[i] = bounds[i] = min(_bound(sketches[i], trait, n, rule), bounds[i])
        computed += 1
        entered = -1
        for step in range(steps + 1):
            bar = bars[step] if reached[i] < 0 else scores[step]
            if step < trait.closes and (reached[i] < 0 or reached[i] == steps) and _score(bound, trait) >= bar:
                if step > max(entered, 0):
                    if entered < 0:
                        copy[0] = sketches[i]
                        entered = 0
                    _enter(copy[0], trait, n + entered, keys[i], powered, column + entered, column + step)
                    entered = step
                    bound = min(bound, _bound(copy[0], trait, n + step, rule))
                    computed += 1
                if _score(bound, trait) >= scores[step]:
                    reached[i] = step
                elif _score(bound, trait) >= bar:
                    reached[i] = steps
            if step < steps:
                bound += gains[step]
    return computed


@compiled
def close_near(
    keys: Any,
    traits: Any,
    own: Any,
    powered: Any,
    column: int,
    distance: float,
    by_mass: bool,
    closed: Any,
    closes: Any,
) -> None:
    """Close candidates that are nearer than a distance to a pick, from their keys (m, k).

    The picks of the columns before ``column`` are final: who is surely near to one is ``closed`` (m,) for good, and who
    may be, within errors of keys, is doubtful. The others are drafted: who is surely near to one ``closes`` (m,) at the
    step after it. ``own`` (m,) or (1,) and ``powered`` (k,): the parts of shares, where keys are masses.
    """
    for i in range(len(keys)):
        doubt = _DOUBT * traits[i].error
        for j in range(keys.shape[1]):
            if closed[i] == CLOSED or (j >= column and j - column + 1 >= closes[i]):
                break
            bar = distance * (own[i % len(own)] + powered[j]) if by_mass else distance
            if keys[i, j] - doubt > bar * (1 + 8 * _ROUNDING):
                continue
            is_surely_near = keys[i, j] + doubt < bar * (1 - 8 * _ROUNDING)
            if is_surely_near and j < column:
                closed[i], closes[i] = CLOSED, 0
            elif is_surely_near:
                closes[i] = j - column + 1
            elif j < column:
                closed[i] = DOUBTFUL


@compiled
def _reaches(bound: float, trait: Any, gains: Any, bars: Any) -> bool:
    """Whether a bound, to which gains are added one after the other, reaches a bar."""
    for step in range(min(len(bars), trait.closes)):
        if _score(bound, trait) >= bars[step]:
            return True
        if step < len(gains):
            bound += gains[step]
    return False


@compiled
def keys_at_most(sketches: Any, n: int, keys: Any) -> None:
    """Keys (m, n) of all picks, rising, as far as sketches tell: those in a cell lie at its upper edge or below."""
    for i in range(len(keys)):
        sketch, rank = sketches[i], min(n, NEAREST)
        for place in range(rank):
            keys[i, place] = sketch.nearest[place]
        for cell in range(CELLS):
            edge = _edge(np.int64(sketch.first), np.int64(sketch.shift), cell + 1)
            for _ in range(sketch.count[cell]):
                keys[i, rank] = edge
                rank += 1


@compiled
def _gains(
    sketch: Any, trait: Any, n: int, rule: Rule, keys: Any, powered: Any, column: int, before: Any, gains: Any
) -> None:
    """What each pick of a draft adds to a sum at most, by the lowest rank it can have; ``before``: room for counts."""
    nearest, own, least, error, w = sketch.nearest, trait.own, trait.least, trait.error, rule.w
    count, first, shift, last = sketch.count, np.int64(sketch.first), np.int64(sketch.shift), np.float64(0)
    if n > NEAREST and not rule.by_mass:
        last = np.float64(nearest[NEAREST - 1])
        rank = NEAREST
        for cell in range(CELLS):
            before[cell] = rank
            rank += count[cell]
    for step in range(len(gains)):
        key, share, weight = np.float64(keys[column + step]), own + powered[column + step], w[n + step]
        surely = key - _DOUBT * error
        if rule.by_mass:
            gains[step] = gain(key + error, share, least, weight, weight)
        elif n > NEAREST and surely > last:
            cell = (_bits(surely * (1 - 4 * _ROUNDING)) - first) >> shift
            gains[step] = gain(key + error, share, least, w[before[min(max(cell, 0), CELLS - 1)]], weight)
        else:
            rank = place(nearest, min(n, NEAREST), surely)
            gains[step] = gain(key + error, share, least, w[rank], weight)


@compiled
def gain(key: float, share: float, least: float, weight: float, last: float) -> float:
    """What one more pick adds to a sum at most, which gets the ``weight`` of its rank while others move down.

    ``last`` is the weight of the rank after all, which is all that counts where masses rise with rank.
    """
    return key * ((share - least) * weight + least * last) * (1 + 4 * _ROUNDING)


@compiled
def place(ranked: Any, n: int, key: float) -> int:
    """How many of n keys, rising, are less than one."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if ranked[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _score(bound: float, trait: Any) -> float:
    return bound * trait.quality if trait.quality > 0 else 0.0


@compiled
def check_ranked(
    order: Any, shares: Any, traits: Any, n: int, rule: Rule, keys: Any, powered: Any, scores: Any, bars: Any,
    reached: Any, upper: Any,
) -> None:  # fmt: skip
    """The same from all picks, ranked, for candidates that have reached a score.

    ``order`` (m, n) uint64, rising: the bits of a key above, which pick it is of below; ``shares`` (n,) float32, of
    those less the candidates' own. ``upper`` (m,) becomes their sums over the n picks but for what errors of keys may
    change.
    """
    steps = len(scores) - 1
    ranked, ranked_shares = np.empty(n + steps, np.float32), np.empty(n + steps, np.float32)
    for i in range(len(reached)):
        trait = traits[i]
        own, error = trait.own, trait.error
        reached[i] = -1
        for rank in range(n):
            ranked[rank] = np.uint32(order[i, rank] >> np.uint64(32)).view(np.float32)
            ranked_shares[rank] = shares[np.int64(order[i, rank] & np.uint64(0xFFFFFFFF))]
        bound = upper[i] = _sum(ranked, ranked_shares, n, own, error, rule) + trait.missing
        entered = 0
        for step in range(min(steps + 1, trait.closes)):
            bar = bars[step] if reached[i] < 0 else scores[step]
            if _score(bound, trait) >= bar:
                if step > entered:
                    for j in range(entered, step):
                        insert(ranked, ranked_shares, n + j, keys[i, j], powered[j])
                    entered = step
                    bound = min(bound, _sum(ranked, ranked_shares, n + step, own, error, rule) + trait.missing)
                if _score(bound, trait) >= scores[step]:
                    reached[i] = step
                    break
                if _score(bound, trait) >= bar:
                    reached[i] = steps
            if step < steps:
                key, last = np.float64(keys[i, step]), rule.w[n + step]
                weight = last if rule.by_mass else rule.w[place(ranked, n + entered, key - _DOUBT * error)]
                bound += gain(key + error, own + powered[step], trait.least, weight, last)
