"""Budgets and quotas as people give them: in picks, or in % of what there is."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

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
