"""What a selection in rounds costs, as a model with few terms that is fitted to measured cases. NumPy only.

How much there is to do follows from N candidates, budget B and dimension D:

    rounds    least_rounds(B), as if every draft stood    drafted, multiplied    B
    bounds    N · rounds                                  summed, evaluated      B
    reported  B

each times a power law in N, B and D that the measured counts give, near 1 where all goes as planned; ``summed`` times a
number. What that takes:

    start       1,  N · D / cores
    executors   rounds · latency of their tasks,  N · multiplied · 2 D / (cores · operations a second),
                summed · B / 2 · 2 D / (cores · operations a second),
                N · drafted / cores,  N · rounds / cores,  bounds / cores
    driver      B,  evaluated · B,  reported · B · D

each times a number of seconds that is not negative, so that relative errors of measured seconds are least.
"""

from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from timed import Timed

from novelsum.selection import rounds

PHASES = ("start", "executors", "driver")
COUNTS = ("rounds", "drafted", "multiplied", "bounds", "summed", "evaluated", "reported")
TERMS = {
    "start": ("start of a selection", "scratch is made"),
    "executors": (
        "Spark's latency",
        "products of picks",
        "products of near ones with all picks",
        "pairs entered",
        "state passes through memory",
        "bounds",
    ),
    "driver": ("picks", "contenders evaluated", "products of reported"),
}
FEW = "summed"
"""A few hundred in a whole case, and mostly chance: a multiple of what is planned, and no power."""
ROUND_OF_TASKS = 1
"""Tasks for each core, as the engine makes them where there are blocks enough."""


@dataclass(frozen=True)
class Latency:
    """Seconds of a Spark job that does nothing: ``base``, and more for each task, in the driver and where it runs."""

    base: float
    in_driver: float
    in_worker: float

    def of(self, tasks: int, cores: int) -> float:
        """Of so many tasks on so many cores."""
        return self.base + tasks * self.in_driver + tasks / cores * self.in_worker


@dataclass(frozen=True)
class Case:
    """A selection on so many cores; ``operations``: multiplications and additions that a core does in a second."""

    rows: int
    dimension: int
    budget: int
    cores: int
    tasks: int
    operations: float

    @staticmethod
    def of(timed: Timed, cores: int) -> "Case":
        """One that was measured."""
        products = 2.0 * timed.rows * timed.budget * timed.dimension
        operations = products / float(np.median(timed.floor)) / cores
        return Case(timed.rows, timed.dimension, timed.budget, cores, timed.tasks, operations)

    @property
    def sizes(self) -> np.ndarray:
        """1, and the logarithms of N, B and D."""
        return np.array([1.0, *np.log([self.rows, self.budget, self.dimension])])


def seconds_of(timed: Timed) -> dict[str, float]:
    """Measured seconds by phase."""
    spent = timed.effort["seconds"]
    driver = sum(spent.values()) - spent["verify"]
    return {"start": timed.selection - sum(spent.values()), "executors": spent["verify"], "driver": driver}


def least_rounds(budget: int) -> int:
    """Rounds where every draft stands: drafts grow fourfold, up to a share of the picks and a greatest length."""
    picks, length, found = 1, 1, 0
    while picks < budget:
        picks += length
        found += 1
        length = max(1, min(4 * length, picks // rounds._DRAFT_SHARE, rounds.LONGEST_DRAFT))
    return found


@dataclass(frozen=True)
class Model:
    """Power laws of the counts, and seconds for each term of each phase."""

    laws: dict[str, np.ndarray]
    seconds: dict[str, np.ndarray]
    latency: Latency

    @staticmethod
    def fitted(measured: list[Timed], cores: int, latency: Latency) -> "Model":
        """To cases that were measured on so many cores."""
        cases = [Case.of(timed, cores) for timed in measured]
        sizes = np.array([case.sizes for case in cases])
        laws = {}
        for name in COUNTS:
            expected = [_expected(case, timed.effort)[name] for case, timed in zip(cases, measured, strict=True)]
            counted = [max(1, timed.effort[name]) for timed in measured]
            of = sizes if name != FEW else sizes[:, :1]
            law = np.linalg.lstsq(of, np.log(np.array(counted) / expected), rcond=None)[0]
            laws[name] = np.append(law, np.zeros(sizes.shape[1] - len(law)))
        seconds = {}
        for phase in PHASES:
            amounts = [
                _amounts(case, timed.effort, latency)[phase] for case, timed in zip(cases, measured, strict=True)
            ]
            seconds[phase] = nonnegative(np.array(amounts), np.array([seconds_of(timed)[phase] for timed in measured]))
        return Model(laws, seconds, latency)

    def counts(self, case: Case) -> dict[str, float]:
        """How much there is to do, by the power laws."""
        found: dict[str, float] = {}
        for name in COUNTS:  # rounds first: bounds are counted by round
            factor = float(np.exp(self.laws[name] @ case.sizes))
            if name in ("rounds", "drafted", "multiplied"):
                factor = max(factor, 1.0)
            found[name] = factor * _expected(case, found)[name]
        return found

    def predicted(self, case: Case) -> dict[str, dict[str, float]]:
        """Seconds by phase and term."""
        amounts = _amounts(case, self.counts(case), self.latency)
        return {
            phase: dict(zip(TERMS[phase], (self.seconds[phase] * amounts[phase]).tolist(), strict=True))
            for phase in PHASES
        }

    def total(self, case: Case) -> float:
        """Seconds in all."""
        return sum(sum(terms.values()) for terms in self.predicted(case).values())

    def for_json(self) -> dict[str, Any]:
        """All its numbers."""
        return {
            "laws": {name: law.tolist() for name, law in self.laws.items()},
            "seconds": {phase: dict(zip(TERMS[phase], self.seconds[phase].tolist(), strict=True)) for phase in PHASES},
            "latency": asdict(self.latency),
        }


def _expected(case: Case, counts: dict[str, Any]) -> dict[str, float]:
    """What the counts would be if all went as planned; bounds are counted by the rounds there are."""
    return {
        "rounds": least_rounds(case.budget),
        "drafted": case.budget,
        "multiplied": case.budget,
        "bounds": case.rows * counts.get("rounds", 1.0),
        "summed": case.budget,
        "evaluated": case.budget,
        "reported": case.budget,
    }


def _amounts(case: Case, counts: dict[str, Any], latency: Latency) -> dict[str, np.ndarray]:
    """What each term is a multiple of."""
    N, B, D, cores = float(case.rows), float(case.budget), float(case.dimension), case.cores
    pairs, products = N * counts["drafted"] / cores, N * counts["multiplied"] / cores
    return {
        "start": np.array([1.0, N * D / cores]),
        "executors": np.array(
            [
                counts["rounds"] * latency.of(case.tasks, cores),
                products * 2 * D / case.operations,
                counts["summed"] * B * D / cores / case.operations,
                pairs,
                N * counts["rounds"] / cores,
                counts["bounds"] / cores,
            ]
        ),
        "driver": np.array([B, counts["evaluated"] * B, counts["reported"] * B * D]),
    }


def nonnegative(amounts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """The least squares of relative errors with no number below 0: of all choices of terms the best that has none."""
    relative = amounts / seconds[:, None]
    best, least = np.zeros(amounts.shape[1]), np.inf
    for chosen in product([False, True], repeat=amounts.shape[1]):
        columns = np.flatnonzero(chosen)
        scale = relative[:, columns].max(axis=0, initial=1e-300)
        found = np.linalg.lstsq(relative[:, columns] / scale, np.ones(len(seconds)), rcond=None)[0] / scale
        error = float(np.square(relative[:, columns] @ found - 1).sum())
        if (found >= 0).all() and error < least:
            best, least = np.zeros(amounts.shape[1]), error
            best[columns] = found
    return best


def exponent(sizes: list[int], seconds: list[float]) -> tuple[float, float]:
    """p and c of the line c · size^p through the logarithms."""
    p, log_c = np.polyfit(np.log(sizes), np.log(seconds), 1)
    return float(p), float(np.exp(log_c))
