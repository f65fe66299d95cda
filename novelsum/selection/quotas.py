"""Quotas: how many of the picks a group must have, and may have at most. NumPy only.

A group is *open* while a pick from it leaves every least number within reach. With n picks to go and m of them needed
for least numbers, all groups below their greatest number are open as long as n > m, then only those that miss some.
Either way a group that closes never opens again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.amounts import Quota
from novelsum.errors import InputError
from novelsum.groups import Group, in_order, in_words
from novelsum.rows import Integers

OTHERS = "*"
"""Stands for every group that no quota names, the rows without a group among them."""


@dataclass(frozen=True)
class Quotas:
    """Groups in order with their least and greatest numbers of picks: (G,) int64 each."""

    groups: tuple[Group, ...]
    least: Integers
    most: Integers

    @staticmethod
    def of(texts: Sequence[str], candidates: dict[Group, int], budget: int) -> "Quotas":
        """Of groups with so many ``candidates`` each; raise InputError where they cannot all be met."""
        quotas: Mapping[Any, Quota] = _by_group(texts)
        names = tuple(sorted(candidates, key=in_order))
        for name in quotas:
            if name != OTHERS and name not in candidates:
                raise _no_candidate(name, f"the groups are {', '.join(in_words(group) for group in names[:20])}")
        bounds = []
        for group in names:
            quota, held = quotas.get(group, quotas.get(OTHERS)), candidates[group]
            least, most = _bounds(quota, group, budget, held) if quota else (0, budget)
            bounds.append((least, min(most, held)))
        all_least, all_most = np.array(bounds, dtype=np.int64).T
        highest = all_most.sum()
        _require_room(int(all_least.sum()), budget)
        if highest < budget:
            raise InputError(
                f"the groups may have {highest} picks together by --quota and by their candidates, below --budget "
                f"{budget}; raise the greatest numbers or lower the budget"
            )
        return Quotas(names, all_least, all_most)

    def is_open(self, picked: Integers, left: int) -> NDArray[np.bool_]:
        """From which groups (G,) the next pick may come, after ``picked`` (G,), with so many ``left`` to pick."""
        missing = np.maximum(self.least - picked, 0)
        is_below = picked < self.most
        return is_below if left > missing.sum() else is_below & (missing > 0)


def refuse_by_rows(texts: Sequence[str], rows_of: Callable[[str], int], values: str, budget: int | None) -> None:
    """Raise InputError for what :meth:`Quotas.of` will, where so many rows as a group has at most tell it already.

    ``values``: where those of the column lie, in words. A ``budget`` that is not known yet leaves all numbers open.
    """
    quotas = {name: quota for name, quota in _by_group(texts).items() if name != OTHERS}
    for name in quotas:
        if not rows_of(name):
            raise _no_candidate(name, f"the values of the column {values}")
    if budget is not None:
        least = [_bounds(quota, name, budget, rows_of(name), "at most ")[0] for name, quota in quotas.items()]
        _require_room(sum(least), budget)


def _by_group(texts: Sequence[str]) -> dict[str, Quota]:
    return {quota.group: quota for quota in map(Quota.parse, texts)}


def _no_candidate(name: str, instead: str) -> InputError:
    return InputError(f"--quota names the group {name!r}, of which there is no candidate; {instead}")


def _bounds(quota: Quota, name: Group, budget: int, candidates: int, at_most: str = "") -> tuple[int, int]:
    """The least and the greatest number of picks of a group with so many candidates, or ``at_most`` so many."""
    least, most = quota.of_budget(budget)
    if least > most:
        raise InputError(f"--quota asks for at least {least} and at most {most} picks of {_quoted(name)}; change one")
    if least > candidates:
        raise InputError(
            f"--quota asks for at least {least} picks of {_quoted(name)}, of which there are {at_most}{candidates} "
            "candidates; ask for fewer"
        )
    return least, most


def _require_room(lowest: int, budget: int) -> None:
    if lowest > budget:
        raise InputError(
            f"the least numbers of --quota add up to {lowest}, above --budget {budget}; lower them or raise the budget"
        )


def _quoted(group: Group) -> str:
    return in_words(group) if group is None else repr(group)
