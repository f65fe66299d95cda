"""From what was measured to an answer: which data set is the more diverse, how surely, and what speaks against it.

Data sets are compared by the mean of NovelSum in one setting, the *leading* one, all at the same number of rows m: the
mean row, Σ_j w^κ1·d·σ^κ2, grows with the set as Σ_{r < m} r^-κ1 does, so that neither sums nor means of sets of
different sizes can be compared. A set with more rows stands for itself by random subsets of m rows.

The interval of a set says how far its mean could have been another had its rows been others of their kind. With V the
variance of the mean of m rows by the jackknife, it is V for a set of m rows, and V · (m/n + (1 - m/n)/R) for one of n,
measured by R random subsets: what hangs on its n rows, and what on the draw. (To first order the mean over all its
subsets of m rows is a mean over its n rows, of a variance m times V.) Of random subsets of a pool it is known how much
they differ: they have been drawn.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

from novelsum.diversity.novelsum import Value
from novelsum.report.text import number

NORMAL_QUANTILE = 1.959964
"""The normal distribution at 97.5%."""
_T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)
"""Student's t at 97.5% with 1, 2, … degrees of freedom."""
_SAME = 1e-9
"""Figures that differ by no more than this share are the same."""
_APART = 1.05
"""Figures that explain a contradiction differ by this factor at least."""
_CROWDED = 0.05
"""The densest 1% of the rows are a crowd where they carry more than this share of NovelSum."""


@dataclass(frozen=True)
class Spread:
    """How a set is spread, beside NovelSum: distances to the nearest other row and to all others, and the densities.

    ``densest_share``: what the 1% of rows with the greatest density factors contribute to NovelSum, in the first
    setting with κ2 > 0; ``density``: the median factor there. ``coverage``: the mean distance of the rows of
    the reference to the nearest of the set. None where it does not apply.
    """

    nearest: float
    pair: float
    density: float | None = None
    densest_share: float | None = None
    coverage: float | None = None

    @staticmethod
    def mean(of_all: Sequence["Spread"]) -> "Spread":
        """Each figure's mean over some subsets."""
        found: dict[str, float | None] = {}
        for name in vars(of_all[0]):
            values = [getattr(one, name) for one in of_all]
            found[name] = None if None in values else fmean(values)
        return Spread(**found)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Figures:
    """What is measured of rows of a set: NovelSum at every point of the grid, the spread, the variance of the first."""

    rows: int
    values: tuple[float, ...]
    variance: float
    spread: Spread


@dataclass(frozen=True)
class Standing:
    """A data set at a number of rows: by itself, or by the means over ``draws`` random subsets."""

    rows: int
    draws: int
    values: tuple[float, ...]
    spread: Spread
    variance: float

    @staticmethod
    def of(whole: int, found: Sequence[Figures]) -> "Standing":
        """A set of ``whole`` rows by the figures of all its rows, or those of some random subsets."""
        one, draws = found[0], len(found)
        means = tuple(fmean(values) for values in zip(*(part.values for part in found), strict=True))
        share = one.rows / whole
        variance = fmean(part.variance for part in found) * (share + (1 - share) / draws)
        return Standing(one.rows, draws, means, Spread.mean([part.spread for part in found]), variance)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the first value."""
        half = NORMAL_QUANTILE * math.sqrt(self.variance)
        return max(0.0, self.values[0] - half), self.values[0] + half


@dataclass(frozen=True)
class Yardstick:
    """Random subsets of the pool, of so many rows: the mean of each value over them, and their standard deviation."""

    rows: int
    draws: int
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    @staticmethod
    def of(found: Sequence[Figures]) -> "Yardstick":
        """Two subsets at least."""
        values = list(zip(*(part.values for part in found), strict=True))
        return Yardstick(found[0].rows, len(found), tuple(map(fmean, values)), tuple(map(stdev, values)))

    def above(self, standing: Standing, at: int = 0) -> float | None:
        """By how many standard deviations a set is above; None where random subsets are all the same."""
        if self.deviations[at] <= _SAME * self.means[at]:
            return None
        return (standing.values[at] - self.means[at]) / self.deviations[at]

    @property
    def expected(self) -> float:
        """So many standard deviations from their mean a further random subset would be, at most, in 95 of 100 cases."""
        t = _T_QUANTILES[self.draws - 2] if self.draws < len(_T_QUANTILES) + 2 else 2.13
        return t * math.sqrt(1 + 1 / self.draws)


@dataclass(frozen=True)
class Ranked:
    """A data set in the ranking, at the size that all are compared at, and beside random subsets of its own size.

    ``number``: which of the inputs it is. ``rank``: 1, and one more for each set whose interval
    is wholly above its own. ``own``: at the yardstick's size.
    """

    number: int
    name: str
    rows: int
    compared: Standing
    own: Standing | None = None
    yardstick: Yardstick | None = None
    rank: int = 1

    @property
    def above_random(self) -> float | None:
        """By how many standard deviations it is above random subsets."""
        return None if self.yardstick is None or self.own is None else self.yardstick.above(self.own)


def in_order(sets: Sequence[Ranked]) -> list[Ranked]:
    """The most diverse first, each with its rank."""
    found = []
    for one in sorted(sets, key=lambda one: -one.compared.values[0]):
        above = sum(other.compared.interval[0] > one.compared.interval[1] for other in sets)
        found.append(replace(one, rank=1 + above))
    return found


def are_apart(one: Ranked, other: Ranked) -> bool:
    """Whether the intervals of two sets do not overlap."""
    (low, high), (other_low, other_high) = one.compared.interval, other.compared.interval
    return low > other_high or other_low > high


# --- in words ---------------------------------------------------------------------------------------------


def setting_in_words(value: Value, leading: Value | None = None) -> str:
    """A point of the grid; with ``leading`` only where it differs from that."""
    parts = {
        "formula": value.formula,
        "neighbors": f"K = {value.neighbors}",
        "proximity_power": f"κ1 = {value.proximity_power:g}",
        "density_power": f"κ2 = {value.density_power:g}",
    }
    if not value.density_power:
        del parts["neighbors"]
    if leading is not None:
        parts = {name: said for name, said in parts.items() if getattr(value, name) != getattr(leading, name)}
    return ", ".join(parts.values())


def verdict(ranked: Sequence[Ranked], leading: Value) -> str:
    """Which set leads, and which cannot be told apart; of several sets in their order."""
    first, others = ranked[0], ranked[1:]
    measure = f"mean NovelSum ({setting_in_words(leading)})"
    size = f" at {first.compared.rows:,} rows each" if any(one.compared.draws > 1 for one in ranked) else ""
    if not others:
        return f"{first.name} has {measure} {_with_interval(first)}."
    near = [one for one in others if not are_apart(first, one)]
    if not near:
        told = f"By {measure}{size} {first.name} is the most diverse, {_with_interval(first)}"
        return f"{told}; {others[0].name} comes next, {_with_interval(others[0])}.{_not_apart(others)}"
    names = _listed([one.name for one in [first, *near]])
    names = f"{names}, which are all sets," if near == others and len(near) > 1 else names
    return (
        f"By {measure}{size} no set leads: {names} cannot be told apart, as their 95% intervals overlap."
        f"{_not_apart([one for one in others if one not in near])}"
    )


def _with_interval(one: Ranked) -> str:
    low, high = one.compared.interval
    return f"{number(one.compared.values[0], 4)} ({number(low, 4)} to {number(high, 4)})"


def _not_apart(others: Sequence[Ranked]) -> str:
    pairs = [f"{a.name} and {b.name}" for a, b in combinations(others, 2) if not are_apart(a, b)]
    if not pairs:
        return ""
    more = f" and {len(pairs) - 3} more pairs" if len(pairs) > 3 else ""
    return f" Not told apart either: {'; '.join(pairs[:3])}{more}."


def against_random(one: Ranked, pool: str) -> str:
    """How a set is beside random subsets of the pool; it has a yardstick."""
    assert one.yardstick is not None
    assert one.own is not None
    above, yardstick = one.above_random, one.yardstick
    size = f"{yardstick.draws} random subsets of {yardstick.rows:,} rows of {pool}"
    mean, value = number(yardstick.means[0], 4), number(one.own.values[0], 4)
    if one.own.draws > 1:
        value += f" at as many of its {one.rows:,}"
    if above is None:
        return f"{one.name}: {size} all have the mean {mean}; it has {value}."
    if abs(above) <= yardstick.expected:
        judged = "as diverse as a random subset"
    else:
        judged = "more diverse than random" if above > 0 else "less diverse than random"
    way = "above" if above >= 0 else "below"
    return (
        f"{one.name} is {judged}: {value}, {number(abs(above), 2)} sd {way} {size} ({mean} ± "
        f"{number(yardstick.deviations[0], 2)})."
    )


def contradictions(ranked: Sequence[Ranked], grid: Sequence[Value], alone: Sequence[float]) -> list[str]:
    """A sentence for each other measure that orders two sets otherwise which the leading one tells apart, and why.

    ``grid``: the settings of the values, the leading first; ``alone``: by input, NovelSum's mean of all rows of each of
    the sets in the order of ``ranked``.
    """
    pairs = [(a, b) for a, b in combinations(ranked, 2) if are_apart(a, b)]
    measures: list[tuple[str, Callable[[Ranked], float | None], Callable[[Ranked, Ranked], str]]] = []
    for at, value in enumerate(grid[1:], start=1):
        measures.append(
            (
                f"NovelSum with {setting_in_words(value, grid[0])}",
                lambda one, at=at: one.compared.values[at],  # type: ignore[misc]
                lambda a, b, value=value: _why_other_setting(a, b, value, grid[0]),  # type: ignore[misc]
            )
        )
    measures.append(("mean distance to the nearest other row", lambda one: one.compared.spread.nearest, _why_nearest))
    measures.append(("coverage of the reference", lambda one: _negative(one.compared.spread.coverage), _why_coverage))
    found = []
    for name, figure, why in measures:
        broken = [(gap, a, b) for a, b in pairs if (gap := _reversed_by(figure(a), figure(b))) > _SAME]
        if broken:
            _, a, b = max(broken, key=lambda one: one[0])
            figures = " against ".join(number(abs(figure(one) or 0.0), 4) for one in (b, a))
            others = f" ({len(broken) - 1} more pairs)" if len(broken) > 1 else ""
            found.append(f"By {name} {b.name} is ahead of {a.name}, {figures}{others}: {why(a, b)}.")
    found += _by_size(pairs, dict(zip((one.number for one in ranked), alone, strict=True)))
    return found


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _reversed_by(above: float | None, below: float | None) -> float:
    """By which share of both a figure is greater of the set below; 0 where there is none."""
    if above is None or below is None:
        return 0.0
    return (below - above) / max(abs(above), abs(below), 1e-300)


def _by_size(pairs: Sequence[tuple[Ranked, Ranked]], alone: dict[int, float]) -> list[str]:
    broken = [(a, b) for a, b in pairs if b.rows > a.rows and alone[b.number] > alone[a.number]]
    if not broken:
        return []
    a, b = max(broken, key=lambda pair: pair[1].rows / pair[0].rows)
    return [
        f"By the mean over all its rows {b.name} is ahead of {a.name}, {number(alone[b.number], 4)} against "
        f"{number(alone[a.number], 4)}: it has {b.rows:,} rows against {a.rows:,}, and the mean grows with "
        "their number."
    ]


def _why_other_setting(a: Ranked, b: Ranked, value: Value, leading: Value) -> str:
    if value.density_power and (value.density_power != leading.density_power or value.formula != leading.formula):
        why = _why_density(a, b)
        if why:
            return why
    return _near_and_wide(a, b)


def _why_density(a: Ranked, b: Ranked) -> str:
    """What the density factors say, if anything."""
    one, other = a.compared.spread, b.compared.spread
    if one.densest_share is not None and other.densest_share is not None:
        low, high = sorted((one.densest_share, other.densest_share))
        if high > _CROWDED and high > 2 * low:
            crowded = a if one.densest_share == high else b
            return (
                f"crowds of near-copies do it, as the densest 1% of the rows carry {_percent(high)} of NovelSum in "
                f"{crowded.name} and {_percent(low)} in the other"
            )
    if one.density is not None and other.density is not None:
        low, high = sorted((one.density, other.density))
        if high > _APART * low:
            dense = a if one.density == high else b
            return (
                f"the rows of {dense.name} lie in denser places (median density factor {number(high)} against "
                f"{number(low)}), which κ2 > 0 counts for more"
            )
    return ""


def _why_nearest(a: Ranked, b: Ranked) -> str:
    return _near_and_wide(a, b)


def _near_and_wide(a: Ranked, b: Ranked) -> str:
    """What the distances say of a set above another that is behind it in other figures."""
    one, other = a.compared.spread, b.compared.spread
    if one.pair > other.pair and one.nearest < other.nearest:
        return (
            f"{a.name} is wider as a whole (two rows are {number(one.pair)} apart against {number(other.pair)}), but "
            f"its rows have nearer copies ({number(one.nearest)} against {number(other.nearest)})"
        )
    if one.pair < other.pair and one.nearest > other.nearest:
        return (
            f"{b.name} is wider as a whole (two rows are {number(other.pair)} apart against {number(one.pair)}), but "
            f"its rows have nearer copies ({number(other.nearest)} against {number(one.nearest)})"
        )
    return _why_density(a, b) or "the distances and densities measured here do not say why"


def _why_coverage(a: Ranked, b: Ranked) -> str:
    one, other = a.compared.spread, b.compared.spread
    if one.nearest > other.nearest or one.pair > other.pair:
        which = (one.nearest, other.nearest) if one.nearest > other.nearest else (one.pair, other.pair)
        what = "from the nearest other" if one.nearest > other.nearest else "from one another"
        return (
            f"the rows of {a.name} lie farther {what} ({number(which[0])} against {number(which[1])}), as outliers do, "
            "and stand for fewer rows of the reference"
        )
    return f"{a.name} is not wider, but leaves parts of the reference out"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.1f}%"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def for_manifest(ranked: Sequence[Ranked], paths: Sequence[str]) -> list[dict[str, Any]]:
    """The ranking, the most diverse first; ``paths`` of the inputs."""
    return [
        {
            "input": paths[one.number],
            "name": one.name,
            "rank": one.rank,
            "rows": one.rows,
            "compared_rows": one.compared.rows,
            "subsets": one.compared.draws if one.compared.rows < one.rows else 0,
            "mean": one.compared.values[0],
            "low": one.compared.interval[0],
            "high": one.compared.interval[1],
            "random": None
            if one.yardstick is None
            else {
                "rows": one.yardstick.rows,
                "subsets": one.yardstick.draws,
                "mean": one.yardstick.means[0],
                "deviation": one.yardstick.deviations[0],
                "above": one.above_random,
            },
        }
        for one in ranked
    ]
