"""The part of a report that sets a selection against those of other strategies."""

from collections.abc import Callable
from functools import partial
from typing import Any

from novelsum.formula import Formula
from novelsum.formulas import EQUATIONS
from novelsum.report.text import escaped, number

NAMES = {
    "novelselect": "NovelSelect",
    "random": "random",
    "farthest-first": "farthest-first",
    "k-means": "k-means",
}
"""Strategies as a reader sees them."""

_OPTIONAL = (("groups", "groups", 3), ("mean_quality", "mean quality", 3), ("cost", "cost", 4))
"""Measures that only some runs ask for: key, heading, and digits."""


def compared(manifest: dict[str, Any], formula: Formula) -> dict[str, Any]:
    """What a report has of the comparison in a manifest: the strategies as rows, the greatest NovelSum first; empty
    where there is none. ``formula``: that of the selection.
    """
    if not manifest:
        return {}
    by = EQUATIONS[formula].measured_as
    rows = [{"strategy": strategy, "name": NAMES[strategy], **one} for strategy, one in manifest["strategies"].items()]
    rows.sort(key=lambda row: -row["novelsum"][by]["mean"])
    return {**manifest, "measured_as": by, "strategies": rows}


def table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Measures beside each other: the headings, and of each measure its name and what every strategy has."""
    strategies = found["strategies"]
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("picks", lambda one: f"{one['picks']:,g}"),
        *((f"mean NovelSum, {formula}", partial(_novelsum, formula)) for formula in strategies[0]["novelsum"]),
        ("mean nearest", partial(_measure, "mean_nearest_distance")),
        ("coverage", partial(_measure, "coverage")),
    ]
    asked = [measure for measure in _OPTIONAL if any(measure[0] in one for one in strategies)]
    rows += [(name, partial(_plain, key, digits)) for key, name, digits in asked]
    rows.append(("seconds", lambda one: f"{one['seconds']:,.1f}"))
    heads = ["", *(escaped(one["name"], 40) for one in strategies)]
    return heads, [[name, *(f"<bdi>{cell(one)}</bdi>" for one in strategies)] for name, cell in rows]


def _novelsum(formula: str, row: dict[str, Any]) -> str:
    return number(row["novelsum"][formula]["mean"], 4) + _spread(row, f"novelsum_{formula}")


def _measure(key: str, row: dict[str, Any]) -> str:
    return number(row[key], 4) + _spread(row, key)


def _plain(key: str, digits: int, row: dict[str, Any]) -> str:
    return number(row.get(key), digits)


def _spread(row: dict[str, Any], key: str) -> str:
    """The standard deviation of a measure where there are several selections."""
    spread = row.get("spread", {}).get(key)
    return "" if spread is None else f" ± {number(spread, 2)}"


def caption(found: dict[str, Any], metric: str) -> str:
    """What the picture shows, and how its numbers are to be read."""
    rows, by = found["strategies"], EQUATIONS[found["measured_as"]].words
    before = " Samples selected before count as part of each selection." if found["already_selected"] else ""
    drawn = next((row["selections"] for row in rows if "selections" in row), 0)
    random = f" Random is the mean of {drawn} selections, and ± their standard deviation." if drawn else ""
    left_out = "".join(
        f" {escaped(NAMES.get(name, name))} is left out: {escaped(reason)}."
        for name, reason in found["left_out"].items()
    )
    return (
        "What each strategy selects under the same rules, this selection solid. Mean NovelSum of a sample by "
        f"{by}, and mean {metric} distance of a sample to the nearest other one selected: longer is more diverse. "
        f"Coverage, the mean distance of {found['covered_candidates']:,} candidates to the nearest selected: shorter "
        f"is better.{random}{before}{left_out}"
    )
