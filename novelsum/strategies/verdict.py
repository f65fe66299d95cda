"""One sentence on which selection is better by what, and what to do; it follows from the measures alone."""

from collections.abc import Callable, Mapping
from typing import Any

from novelsum.formulas import EQUATIONS
from novelsum.report.comparison import NAMES
from novelsum.settings import Settings

NUMBERS: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "novelsum_paper": lambda one: one["novelsum"].get("paper", {}).get("mean"),
    "novelsum_released": lambda one: one["novelsum"].get("released", {}).get("mean"),
    "mean_nearest_distance": lambda one: one["mean_nearest_distance"],
    "coverage": lambda one: one["coverage"],
}
"""The measures of a selection that strategies are compared by. All but the coverage are better if they are greater."""

_APART = 3.04
"""Standard deviations of five random selections within which another falls 95 times of 100: t(97.5%, 4)·√(1 + 1/5)."""
_SAME = 0.0005
"""Relative difference below which two numbers are said to be equal."""


def verdict(strategies: Mapping[str, Mapping[str, Any]], settings: Settings) -> str:
    """The sentence about the strategies of a comparison, of which one is the run's own."""
    own = next(name for name, one in strategies.items() if one["own"])
    formula = EQUATIONS[settings.formula].measured_as
    by_novelsum = {name: one["novelsum"][formula]["mean"] for name, one in strategies.items()}
    lead = max(by_novelsum, key=lambda name: (by_novelsum[name], name == own))
    parts = [_about_novelsum(own, lead, by_novelsum, formula)]
    if own != "random" and "random" in strategies:
        parts.append(_beside_random(own, strategies, by_novelsum, formula))
    parts.append(_by_distances(strategies))
    sizes = {float(one["picks"]) for one in strategies.values()}
    if len(sizes) > 1:
        parts.append(
            f"the selections have {min(sizes):g} to {max(sizes):g} picks, and mean NovelSum grows with their number"
        )
    gains = _is_above_chance(lead, strategies, by_novelsum, formula)
    return "; ".join(parts) + _advice(own, lead, settings, gains) + "."


def _about_novelsum(own: str, lead: str, by_novelsum: Mapping[str, float], formula: str) -> str:
    of_own, of_lead = by_novelsum[own], by_novelsum[lead]
    if lead != own:
        return (
            f"By NovelSum ({formula}) {NAMES[lead]} leads with a mean of {of_lead:.5g}, {_above(of_lead, of_own)} this "
            f"selection by {NAMES[own]} ({of_own:.5g})"
        )
    second = max((name for name in by_novelsum if name != own), key=by_novelsum.__getitem__, default=None)
    follows = f", {_above(of_own, by_novelsum[second])} {NAMES[second]} ({by_novelsum[second]:.5g})" if second else ""
    return f"By NovelSum ({formula}) this selection by {NAMES[own]} leads with a mean of {of_own:.5g}{follows}"


def _above(great: float, small: float) -> str:
    if small <= 0:
        return "above"
    more = great / small - 1
    return "as much as" if more < _SAME else f"{more:.1%} above"


def _beside_random(
    own: str, strategies: Mapping[str, Mapping[str, Any]], by_novelsum: Mapping[str, float], formula: str
) -> str:
    drawn = strategies["random"]
    mean, spread = by_novelsum["random"], drawn["spread"][f"novelsum_{formula}"]
    more = by_novelsum[own] - mean
    if spread is None:
        return f"a random selection has {mean:.5g}"
    edge = mean + (_APART if more > 0 else -_APART) * spread
    numbers = (
        f"{mean:.5g} ± {spread:.2g} in {drawn['selections']} random selections, so that another may have "
        f"{'up to' if more > 0 else 'down to'} {edge:.5g}"
    )
    if abs(more) <= _APART * spread:
        return f"by this measure {NAMES[own]} cannot be told from chance ({numbers})"
    share = f"{abs(more) / mean:.1%} " if mean > 0 else ""
    side = "above" if more > 0 else "below"
    return f"{NAMES[own]} is {share}{side} what chance gives, and beyond its range ({numbers})"


def _is_above_chance(
    name: str, strategies: Mapping[str, Mapping[str, Any]], by_novelsum: Mapping[str, float], formula: str
) -> bool:
    """Whether a strategy has more than a further random selection would; True where chance was not measured."""
    if "random" not in strategies:
        return True
    spread = strategies["random"]["spread"][f"novelsum_{formula}"]
    return spread is None or by_novelsum[name] - by_novelsum["random"] > _APART * spread


def _by_distances(strategies: Mapping[str, Mapping[str, Any]]) -> str:
    """Which strategy leads by the other measures."""
    nearest = max(strategies, key=lambda name: strategies[name]["mean_nearest_distance"])
    covers = min(strategies, key=lambda name: strategies[name]["coverage"])
    if covers == nearest:
        return f"{NAMES[covers]} covers the pool best and keeps its picks farthest apart"
    return f"{NAMES[covers]} covers the pool best and {NAMES[nearest]} keeps its picks farthest apart"


def _advice(own: str, lead: str, settings: Settings, gains: bool) -> str:
    """``gains``: whether the leader has more NovelSum than chance gives."""
    by_symmetric = own == "novelselect" and settings.formula != "symmetric"
    if not gains:
        other = ", or try --formula symmetric, which selects for it" if by_symmetric else ""
        return f": no strategy is shown to gain NovelSum here, so choose by coverage, distances or cost{other}"
    if lead == own:
        return ": keep it where NovelSum is what you want"
    instead = f"--strategy {lead}"
    if by_symmetric:
        instead += ", or --formula symmetric, which selects for it,"
    return f": where NovelSum is what you want, take {instead} instead"
