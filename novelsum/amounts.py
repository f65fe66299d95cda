"""Budgets and quotas as people give them: in picks, in what picks cost, or in % of what there is; sums of costs."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.errors import UsageError


@dataclass(frozen=True)
class Budget:
    """How many picks there are to be, as given: a number, or a share of the candidates in %."""

    number: Fraction
    is_share: bool = False

    @staticmethod
    def parse(given: int | str) -> "Budget":
        """From a number of picks, or from a share such as ``5%``; raise UsageError for anything else."""
        if isinstance(given, int) and given >= 1:
            return Budget(Fraction(given))
        share = re.fullmatch(r"(\d+(?:\.\d+)?)%", given, re.ASCII) if isinstance(given, str) else None
        if share and 0 < Fraction(share[1]) <= 100:
            return Budget(Fraction(share[1]), is_share=True)
        raise UsageError(
            "--budget must be at least 1, or a share of the candidates above 0% and at most 100% such as 5%, not "
            f"{given!r}"
        )

    def of_candidates(self, candidates: int) -> int:
        """How many picks that is; a share is rounded down, but at least 1."""
        return max(1, math.floor(self.number * candidates / 100)) if self.is_share else int(self.number)


@dataclass(frozen=True)
class CostBudget:
    """What the picks may cost together, as given: an amount, or a share of what all candidates cost in %."""

    number: Fraction
    is_share: bool = False

    @staticmethod
    def parse(given: int | float | str) -> "CostBudget":
        """From an amount such as ``50M`` or ``1.5k``, or from a share such as ``5%``; raise UsageError for others."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\+?\d{1,3})?)([kKMGT%]?)", str(given), re.ASCII)
        number = Fraction(found[1]) if found else Fraction(0)
        unit = found[2] if found else ""
        if not 0 < number < 10**300 or (unit == "%" and number > 100):
            raise UsageError(
                "--cost-budget must be an amount above 0 such as 50000, 1.5k, 50M or 2G, or a share of what all "
                f"candidates cost above 0% and at most 100% such as 5%, not {given!r}"
            )
        return CostBudget(number, True) if unit == "%" else CostBudget(number * _UNITS[unit])

    def of_costs(self, total: Fraction) -> Fraction:
        """What that is where all candidates cost so much together."""
        return self.number * total / 100 if self.is_share else self.number


_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_CLASSES = 16
"""Classes of costs in each power of two."""


@dataclass(frozen=True)
class Costs:
    """What some candidates cost: the exact sum, and how many there are in each class of costs, by its lower edge."""

    total: Fraction = Fraction(0)
    classes: Mapping[float, int] = field(default_factory=dict)
    least: float = math.inf

    @staticmethod
    def of(costs: NDArray[np.float64]) -> "Costs":
        """Of costs (n,) above 0."""
        digits, exponents = np.frexp(costs)
        edges, counts = np.unique(
            np.ldexp(np.floor(digits * _CLASSES * 2) / (_CLASSES * 2), exponents), return_counts=True
        )
        classes = dict(zip(edges.tolist(), counts.tolist(), strict=True))
        return Costs(exact_sum(costs), classes, float(costs.min(initial=math.inf)))

    @staticmethod
    def joined(parts: Iterable["Costs"]) -> "Costs":
        """Of all parts together."""
        total, classes, least = Fraction(0), Counter[float](), math.inf
        for part in parts:
            total += part.total
            classes.update(part.classes)
            least = min(least, part.least)
        return Costs(total, dict(sorted(classes.items())), least)

    def picks_within(self, budget: Fraction) -> int:
        """No more candidates than this cost no more than a budget together: the cheapest, each taken for less."""
        picks = 0
        for edge, count in sorted(self.classes.items()):
            fitting = min(count, math.floor(budget / Fraction(edge)))
            picks, budget = picks + fitting, budget - fitting * Fraction(edge)
            if fitting < count:
                break
        return picks

    def for_json(self) -> dict[str, object]:
        """As :meth:`from_json` takes it."""
        return {"total": str(self.total), "classes": list(self.classes.items()), "least": self.least}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> "Costs":
        """The same again."""
        return Costs(Fraction(fields["total"]), dict(fields["classes"]), fields["least"])


def exact_sum(numbers: NDArray[np.float64]) -> Fraction:
    """The sum of numbers (n,), without any rounding, in whatever order they are; n below 2^31."""
    digits, exponents = np.frexp(numbers)
    whole = np.ldexp(digits, 53).astype(np.int64)  # as a number of float64 has 53 digits
    total = Fraction(0)
    for exponent in np.unique(exponents).tolist():
        some = whole[exponents == exponent]
        high, low = int((some >> 32).sum()), int((some & 0xFFFFFFFF).sum())
        total += ((high << 32) + low) * Fraction(2) ** (exponent - 53)
    return total


def at_most(number: Fraction) -> float:
    """The greatest number of float64 that is no greater; one of these is at most the number if it is at most that."""
    if number > Fraction(np.finfo(np.float64).max):
        return math.inf
    near = float(number)
    return near if Fraction(near) <= number else math.nextafter(near, -math.inf)


@dataclass(frozen=True)
class Quota:
    """The least and the greatest number of picks of a group, as given: a share of the budget where it says so."""

    group: str
    least: Fraction
    most: Fraction | None
    least_is_share: bool = False
    most_is_share: bool = False

    @staticmethod
    def parse(text: str) -> "Quota":
        """From ``GROUP=LEAST:MOST`` or ``GROUP=NUMBER``; numbers, or percentages of the budget; either may be left out.

        Raises UsageError for anything else.
        """
        group, equals, bounds = text.rpartition("=")
        found = re.fullmatch(r"(?:(\d+(?:\.\d+)?%|\d+)?:(\d+(?:\.\d+)?%|\d+)?|(\d+(?:\.\d+)?%|\d+))", bounds)
        if not equals or not found:
            raise UsageError(
                f"--quota {text!r} must be GROUP=LEAST:MOST or GROUP=NUMBER, in picks or in % of the budget, such "
                "as code=100:500, chat=:20% or math=10%"
            )
        least, most, both = found.groups()
        numbers = [Fraction(n.rstrip("%")) if n else None for n in (both or least, both or most)]
        shares = [bool(n) and n.endswith("%") for n in (both or least, both or most)]
        return Quota(group, numbers[0] or Fraction(0), numbers[1], *shares)

    def of_budget(self, budget: int) -> tuple[int, int]:
        """Least and greatest number of picks. Shares are rounded apart, so that those that add up to 100% are met."""
        least = self.least * budget / 100 if self.least_is_share else self.least
        if self.most is None:
            return math.floor(least), budget
        return math.floor(least), math.ceil(self.most * budget / 100 if self.most_is_share else self.most)
