"""What the other strategies select under the same rules, and which selection is better by what."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from pyspark import SparkContext

from novelsum.errors import InputError, RunError
from novelsum.files.location import Location
from novelsum.files.store import Pool
from novelsum.report.summary import aligned
from novelsum.rows import Integers
from novelsum.selection import picklog
from novelsum.selection.already import ids_of_logged
from novelsum.selection.rounds import Candidate, closings_of, most_picks, select
from novelsum.settings import Settings
from novelsum.strategies.common import Common
from novelsum.strategies.measure import COVERED_ROWS, Measures, measured
from novelsum.strategies.select import OTHERS, rows_by
from novelsum.strategies.verdict import NUMBERS, verdict

logger = logging.getLogger("novelsum")

_ORDER = ("novelselect", *OTHERS)
RANDOM_SEEDS = 5
"""So many random selections, from the seed of the run on."""


def compare(
    context: SparkContext,
    pool: Pool,
    corpus: Pool | None,
    factors: Location,
    log: Location,
    settings: Settings,
    first: int | None,
    begun: int,
    picks: list[Candidate],
    seconds: float,
    work: Location,
) -> dict[str, Any]:
    """What the manifest says of a selection and the others: measures of each, what was left out, and a verdict.

    The others obey what it obeyed and pick as many, or for as much where there is a budget of costs. ``corpus``: where
    neighbours are searched, if not in the pool; ``log``: the pick log, which begins with ``begun`` samples;
    ``seconds``: what the selection took; ``work``: the folder to work in.
    """
    closings = closings_of(pool, settings)
    closings = replace(closings, picks=len(picks) if closings.cost is None else most_picks(pool, closings))
    common = Common.of(context, pool, factors, settings, closings, log, begun)
    own = np.array([pick.row for pick in picks], np.int64)
    others = partial(_rows, common, log, first, begun, len(picks), work)
    itself = _random(settings.seed) if settings.strategy == "random" else str(settings.strategy)
    selections, took, left_out = {itself: own}, {itself: seconds}, dict[str, str]()
    for name, select_rows in _others(settings, others).items():
        started = time.monotonic()
        try:
            selections[name] = select_rows()
        except (InputError, RunError) as error:
            left_out[name] = str(error)
            logger.warning("compare: %s is left out: %s", name, error)
            continue
        took[name] = time.monotonic() - started
        logger.info("compare: %s selected in %.1f s", name, took[name])
    found = measured(
        common, corpus, selections, ids_of_logged(context, pool, log, common.begun.rows), work / "measured"
    )
    strategies = _together({name: _plain(one, took[name]) for name, one in found.items()}, settings.strategy)
    comparison: dict[str, Any] = {
        "strategies": strategies,
        "left_out": left_out,
        "already_selected": begun,
        "covered_candidates": min(pool.candidates, COVERED_ROWS),
    }
    return {**comparison, "verdict": verdict(strategies, settings)}


def _random(seed: int) -> str:
    return f"random-{seed}"


def _others(settings: Settings, rows: Callable[[str, int], Integers]) -> dict[str, Callable[[], Integers]]:
    """All strategies but that of the run, by the name of what they select."""
    seeds = range(settings.seed, settings.seed + RANDOM_SEEDS)
    named: dict[str, Callable[[], Integers]] = {
        name: partial(rows, name, settings.seed) for name in _ORDER if name not in (settings.strategy, "random")
    }
    own = settings.seed if settings.strategy == "random" else None
    return named | {_random(seed): partial(rows, "random", seed) for seed in seeds if seed != own}


def _rows(
    common: Common, log: Location, first: int | None, begun: int, picks: int, work: Location, strategy: str, seed: int
) -> Integers:
    """What another strategy selects."""
    folder = work / strategy
    folder.make_folder()
    if strategy != "novelselect":
        return rows_by(strategy, common, first, folder, seed)
    settings = replace(common.settings, strategy="novelselect", compare=False)
    if common.closings.cost is None and picks != settings.picks(common.pool.candidates):
        settings = replace(settings, budget=picks)
    (folder / "picks").make_folder()
    if begun:
        picklog.append(folder, 0, picklog.read(log, 0, begun), np.zeros(begun))
    found, _ = select(common.context, common.pool, common.factors, folder, settings, first, begun)
    return np.array([pick.row for pick in found], np.int64)


def _plain(one: Measures, seconds: float) -> dict[str, Any]:
    """As the manifest has it; what the run did not ask for is left out."""
    fields = {name: value for name, value in asdict(one).items() if value is not None}
    if one.by_group is not None:
        fields["groups"] = len(one.by_group)
    return {**fields, "seconds": round(seconds, 3)}


def _together(found: dict[str, dict[str, Any]], own: str) -> dict[str, dict[str, Any]]:
    """The selections by strategy, random ones as one."""
    strategies = {name: one for name, one in found.items() if not name.startswith("random-")}
    drawn = [one for name, one in found.items() if name.startswith("random-")]
    if drawn:
        spread = {name: _spread([number(one) for one in drawn]) for name, number in NUMBERS.items()}
        strategies["random"] = {**_mean(drawn), "spread": spread, "selections": len(drawn)}
    return {name: {"own": name == own, **strategies[name]} for name in _ORDER if name in strategies}


def _mean(found: list[Any]) -> Any:
    """The mean of numbers, or of each part of what has parts; a part that is missing, as a group that is not reached,
    counts as 0.
    """
    if isinstance(found[0], dict):
        names = dict.fromkeys(name for one in found for name in one)
        return {name: _mean([one.get(name, 0) for one in found]) for name in names}
    return float(np.mean(found))


def _spread(values: list[float | None]) -> float | None:
    """Their standard deviation, None where there are none."""
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None


def print_comparison(comparison: dict[str, Any]) -> None:
    """Print the strategies, the most diverse by NovelSum first, and the verdict."""
    strategies = comparison["strategies"]
    formulas = list(next(iter(strategies.values()))["novelsum"])
    with_groups = any("groups" in one for one in strategies.values())
    heads = ["strategy", "picks", *(f"mean NovelSum, {formula}" for formula in formulas), "mean nearest", "coverage"]
    cells = [[*heads, *(["groups"] if with_groups else []), "seconds"]]
    for name, one in sorted(strategies.items(), key=lambda item: -item[1]["novelsum"][formulas[0]]["mean"]):
        numbers = [*(one["novelsum"][formula]["mean"] for formula in formulas)]
        numbers += [one["mean_nearest_distance"], one["coverage"]]
        row = [name, f"{one['picks']:g}", *(f"{number:.6g}" for number in numbers)]
        cells.append([*row, *([f"{one['groups']:g}"] if with_groups else []), f"{one['seconds']:.1f}"])
    lines = ["", "selections under the same rules", *aligned(cells)]
    lines += [f"{name} is left out: {reason}" for name, reason in comparison["left_out"].items()]
    print("\n".join([*lines, comparison["verdict"]]), file=sys.stdout)
