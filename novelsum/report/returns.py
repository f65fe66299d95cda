"""How returns go: the novelty of picks as the samples selected double, and one verdict that reads all of that curve.

Where samples were selected before the run, S holds them at the first pick, and a doubling is one of S with them.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from novelsum.formula import Array
from novelsum.formulas import EQUATIONS
from novelsum.report.text import percent, rounded
from novelsum.rows import Integers
from novelsum.selection.rounds import Candidate
from novelsum.settings import Settings

CURVE_PICKS = 240
FLAT = 0.05
"""Returns are called flat where twice the samples raise novelty by less than this."""
_FIRST_SURE = 16
"""Below so many samples a doubling tells nothing."""
_LAST_PART = 0.9
"""Returns that are flat only after this part of the picks are not called so."""
_CHANCE = 0.02
"""By how much a doubling may differ from ``FLAT`` by chance."""
_TREND = 3
"""Doublings that tell whether returns flatten."""

Verdict = Literal["flat", "falling", "flattening", "growing", "uneven", "unknown", "unordered"]
"""What the curve shows.

``flat``: from some pick to the end a doubling adds less than ``FLAT``; ``falling``: each takes away more than that;
``flattening``: each of the last adds less than that before it; ``growing``: they do not; ``uneven``: up and down, flat
at first and no longer at the end; ``unknown``: there are too few doublings; ``unordered``: picks without an order.
"""


def curve_places(picks: int) -> Integers:
    """Places of the picks that the curves are drawn through: all, or closer together at the start."""
    if picks <= CURVE_PICKS:
        return np.arange(picks)
    half = CURVE_PICKS // 2
    return (
        np.unique(np.concatenate([np.geomspace(1, picks, half), np.linspace(1, picks, half)]).round()).astype(int) - 1
    )


def returns(settings: Settings, picks: Sequence[Candidate], begun: int, nearest: Array) -> dict[str, Any]:
    """Novelty when picked against pick number, and how it grows as the samples selected double.

    ``begun``: how many samples were selected before the first pick; ``nearest`` (picks,): distances to the nearest
    selected before, NaN where there is none. A mean over S is taken times its size: a sum, for any formula.
    """
    curve = curve_places(len(picks))
    divisor = EQUATIONS[settings.formula].divisor(begun + np.arange(len(picks)))
    summed = np.array([pick.novelty for pick in picks]) * divisor
    flat, doublings = doublings_of(summed, begun)
    for row in doublings:
        about = nearest[curve[np.abs(curve + 1 - row["pick"]) <= row["selected"] / 20]]
        about = about[~np.isnan(about)]
        row["nearest_earlier"] = rounded(about.mean()) if len(about) else None
    seen = "unordered" if getattr(settings, "strategy", "novelselect") == "k-means" else verdict(flat, doublings)
    tenth = -(-len(picks) // 10)
    return {
        "pick": (curve + 1).tolist(),
        "novelty": rounded(summed[curve]),
        "nearest_earlier": rounded(nearest[curve]),
        "selected_before": begun,
        "flat_below_growth": FLAT,
        "flat_from_pick": flat if seen in ("flat", "falling") else None,
        "verdict": seen,
        "first_and_last_tenth": rounded([summed[:tenth].mean(), summed[-tenth:].mean()]),
        "doublings": doublings,
    }


def doublings_of(novelty: Array, begun: int = 0) -> tuple[int | None, list[dict[str, Any]]]:
    """From which pick on to the end a doubling raises novelty (n,) by less than ``FLAT``, and what each doubling does.

    With the pick at which S has N samples that at N/2 is compared, if it is one of the run. A pick's novelty is taken
    as the mean over the picks within 5% of N, so that one pick decides nothing. The first of all samples is left out:
    its novelty is 0 by definition.
    """
    count = len(novelty)
    numbers = np.arange(1, count + 1)
    sizes = begun + numbers
    reach = sizes // 20
    low, high = np.maximum(numbers - reach, 1 if begun else 2), np.minimum(numbers + reach, count)
    sums = np.concatenate([[0.0], np.cumsum(novelty)])
    smooth = np.where(high >= low, (sums[high] - sums[low - 1]) / np.maximum(high - low + 1, 1), novelty)
    half = sizes // 2 - begun
    is_known = half >= 1
    before = smooth[np.maximum(half, 1) - 1]
    growth = np.where(is_known & (before > 0), smooth / np.where(before > 0, before, 1) - 1, np.inf)
    steep = np.flatnonzero((growth >= FLAT) | (sizes < _FIRST_SURE))
    flat = int(numbers[steep[-1]]) + 1 if len(steep) else 1
    at = [begun + count]
    while at[-1] // 2 - begun >= (1 if begun else 2) and len(at) < 8:
        at.append(at[-1] // 2)
    rows = [
        {
            "pick": size - begun,
            "selected": size,
            "novelty": rounded(smooth[size - begun - 1]),
            "growth": rounded(growth[size - begun - 1]) if size > 3 else None,
        }
        for size in reversed(at)
    ]
    return (flat if flat <= count else None), rows


def verdict(flat: int | None, doublings: Sequence[dict[str, Any]]) -> Verdict:
    """What all doublings together show, see :data:`Verdict`."""
    known = _sure(doublings)
    if not known:
        return "unknown"
    last = known[-1]["pick"]
    if flat is not None and flat <= max(_LAST_PART * last, 1):
        since = [row["growth"] for row in known if row["pick"] >= flat]
        return "falling" if since and max(since) < -FLAT else "flat"
    growths = [row["growth"] for row in known]
    if len(known) < 2:
        return "unknown"
    if growths[-1] >= FLAT and min(growths[:-1]) < FLAT - _CHANCE:
        return "uneven"
    trend = growths[-_TREND:]
    if all(b < a for a, b in pairwise(trend)):
        return "flattening"
    return "growing" if growths[-1] >= FLAT else "uneven"


def _sure(doublings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that tell something."""
    return [row for row in doublings if row["selected"] >= _FIRST_SURE and row["growth"] is not None]


def returns_in_words(found: dict[str, Any]) -> str:
    """What the curve shows, as HTML."""
    begun, seen, below = found["selected_before"], found["verdict"], f"{found['flat_below_growth']:.0%}"
    twice = f"twice the samples in S, the {begun:,} from before among them," if begun else "twice the picks"
    growths = [
        row["growth"] for row in found["doublings"] if row["selected"] >= _FIRST_SURE and row["growth"] is not None
    ]
    trend = _listed([percent(growth) for growth in growths[-_TREND:]])
    if seen == "unordered":
        return (
            "<b>Returns cannot be read off these picks</b>: k-means chooses them together, so that a smaller budget "
            "would have others."
        )
    if seen == "flat":
        return (
            f"<b>Returns are flat from pick {found['flat_from_pick']:,} on</b>: from there to the end, {twice} raise "
            f"the novelty of the next one by less than {below}."
        )
    if seen == "falling":
        return (
            f"<b>Returns fall from pick {found['flat_from_pick']:,} on</b>: from there to the end, {twice} lower the "
            f"novelty of the next one ({trend} over the last doublings)."
        )
    if seen == "flattening" and _sure(found["doublings"])[-1]["growth"] < found["flat_below_growth"]:
        return (
            f"<b>Returns are just becoming flat</b>: the last doublings changed novelty by {trend}, only the last of "
            f"them by less than {below}, which counts as flat."
        )
    if seen == "flattening":
        return (
            f"<b>Returns are flattening, but not flat yet</b>: the last doublings changed novelty by {trend}, each by "
            f"less than the one before; below {below} counts as flat."
        )
    if seen == "growing":
        return (
            f"<b>Returns have not flattened yet</b>: the last doublings changed novelty by {trend}, and below {below} "
            "counts as flat."
        )
    if seen == "uneven":
        return (
            f"<b>Returns take no single course</b>: the last doublings changed novelty by {trend}, up and down. Read "
            "the curve; a quota or a cost that closes a part of the pool bends it."
        )
    return _unknown(found)


def _unknown(found: dict[str, Any]) -> str:
    begun, last = found["selected_before"], found["doublings"][-1]["selected"]
    early, late = found["first_and_last_tenth"]
    if not begun:
        return "The budget is too small to tell where returns flatten."
    change = f"; the last tenth of the picks was {_compared(late / early - 1)} the first" if early and late else ""
    much = "less than twice as many" if last < 2 * begun else "too few doublings"
    return (
        f"<b>Where returns flatten cannot be told</b>: S held {begun:,} samples before the first pick and holds "
        f"{last:,} now, {much}{change}."
    )


def _compared(change: float) -> str:
    if abs(change) < 0.005:
        return "as novel as"
    return f"{abs(change):.1%} {'more' if change > 0 else 'less'} novel than"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1] if words else ""]))
