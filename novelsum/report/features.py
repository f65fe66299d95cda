"""What a run was asked for beside picks, and what it got: means of quality and cost, quotas. For the survey."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.amounts import Quota, exact_sum
from novelsum.files.store import Pool, StoredBlock
from novelsum.groups import Group
from novelsum.report.text import rounded
from novelsum.selection.quotas import OTHERS, Quotas
from novelsum.settings import Settings

_QUOTAS_SHOWN = 60


@dataclass(frozen=True)
class Sums:
    """Exact sums of quality and cost over candidates and over picks, None where the run knows none."""

    quality: tuple[Fraction, Fraction] | None
    cost: tuple[Fraction, Fraction] | None

    @staticmethod
    def of(stored: StoredBlock, is_picked: NDArray[np.bool_]) -> "Sums":
        """Of a block."""

        def both(values: NDArray[np.float64] | None) -> tuple[Fraction, Fraction] | None:
            return None if values is None else (exact_sum(values), exact_sum(values[is_picked]))

        return Sums(both(stored.quality), both(stored.cost))

    @staticmethod
    def joined(parts: Sequence["Sums"]) -> "Sums":
        """Of all blocks."""

        def together(found: list[tuple[Fraction, Fraction] | None]) -> tuple[Fraction, Fraction] | None:
            known = [one for one in found if one is not None]
            return (sum((a for a, _ in known), Fraction()), sum((b for _, b in known), Fraction())) if known else None

        return Sums(together([part.quality for part in parts]), together([part.cost for part in parts]))

    def for_report(self, candidates: int, picks: int) -> dict[str, Any]:
        """Means of pool and picks; of costs the sums too."""
        found: dict[str, Any] = {"quality": None, "cost": None}
        for name, sums in (("quality", self.quality), ("cost", self.cost)):
            if sums is not None:
                means = {"pool_mean": sums[0] / candidates, "selected_mean": sums[1] / picks}
                found[name] = {key: rounded(float(value)) for key, value in means.items()}
        if self.cost is not None:
            found["cost"] |= {"pool": rounded(float(self.cost[0])), "selected": rounded(float(self.cost[1]))}
        return found


def quotas(settings: Settings, pool: Pool, picked: Counter[Group]) -> dict[str, Any] | None:
    """Of each group with a quota of its own what was asked and what was picked, and of all others together; None
    without quotas.
    """
    if not settings.quota:
        return None
    bounds = Quotas.of(settings.quota, pool.groups, settings.picks(pool.candidates))
    asked = {
        group: (least, most)
        for group, least, most in zip(bounds.groups, bounds.least.tolist(), bounds.most.tolist(), strict=True)
    }
    given = {quota.group: text.rpartition("=")[2] for text in settings.quota for quota in [Quota.parse(text)]}
    named = [group for group in bounds.groups if group is not None and group in given and group != OTHERS]
    others = [group for group in bounds.groups if group not in named]
    rows = [
        {
            "group": group,
            "given": given[group],
            "least": asked[group][0],
            "most": asked[group][1],
            "candidates": pool.groups[group],
            "picks": picked[group],
        }
        for group in sorted(named, key=lambda group: (-picked[group], group))
    ]
    found: dict[str, Any] = {"count": len(rows), "groups": rows[:_QUOTAS_SHOWN], "others": None}
    if others and OTHERS in given:
        found["others"] = {
            "given": given[OTHERS],
            "count": len(others),
            "fewest_picks": min(picked[group] for group in others),
            "most_picks": max(picked[group] for group in others),
        }
    missed = [group for group, (least, _) in asked.items() if picked[group] < least]
    filled = [group for group in asked if (group in named or OTHERS in given) and picked[group] == asked[group][1]]
    found["at_their_most"], found["below_their_least"] = len(filled), len(missed)
    return found
