"""One sentence on which selection is better by what, and what to do; it follows from the measures alone."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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
    chance = _chance(strategies, formula)
    if own != "random" and "random" in strategies:
        told = (
            _beside(chance, own, by_novelsum[own]) if chance else f"a random selection has {by_novelsum['random']:.5g}"
        )
        parts.append(told)
    parts.append(_by_distances(strategies))
    sizes = {float(one["picks"]) for one in strategies.values()}
    if len(sizes) > 1:
        parts.append(
            f"the selections have {min(sizes):g} to {max(sizes):g} picks, and mean NovelSum grows with their number"
        )
    gains = chance is None or chance.side(by_novelsum[lead]) > 0
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


class _Chance(NamedTuple):
    """NovelSum of random selections: mean, standard deviation, and how many they are."""

    mean: float
    spread: float
    draws: int

    def side(self, value: float) -> int:
        """1 above and -1 below what a further random selection may have, else 0."""
        more = value - self.mean
        return 0 if abs(more) <= _APART * self.spread else 1 if more > 0 else -1


def _chance(strategies: Mapping[str, Mapping[str, Any]], formula: str) -> _Chance | None:
    """None where fewer than two random selections were made."""
    drawn = strategies.get("random")
    if drawn is None or (spread := drawn["spread"][f"novelsum_{formula}"]) is None:
        return None
    return _Chance(drawn["novelsum"][formula]["mean"], spread, drawn["selections"])


def _beside(chance: _Chance, own: str, value: float) -> str:
    """How a selection is beside what chance gives."""
    more = value - chance.mean
    edge = chance.mean + (_APART if more > 0 else -_APART) * chance.spread
    numbers = (
        f"{chance.mean:.5g} ± {chance.spread:.2g} in {chance.draws} random selections, so that another may have "
        f"{'up to' if more > 0 else 'down to'} {edge:.5g}"
    )
    side = chance.side(value)
    if not side:
        return f"by this measure {NAMES[own]} cannot be told from chance ({numbers})"
    share = f"{abs(more) / chance.mean:.1%} " if chance.mean > 0 else ""
    way = "above" if side > 0 else "below"
    return f"{NAMES[own]} is {share}{way} what chance gives, and beyond its range ({numbers})"


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
