"""Pools with quality and groups: written to Parquet, and their picks by the formula alone."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from conftest import Outcome, write_parquet

from novelsum import formula

BUDGET = 60
FORMULAS = ["paper", "released", pytest.param("symmetric", marks=pytest.mark.more)]
"""Ranked by distance and by mass; the third is ranked as the first."""


def written(graded, folder, rows=None):
    points, names, quality = graded
    folder.mkdir(parents=True)
    rows = np.arange(len(points.ids)) if rows is None else rows
    for number, part in enumerate(np.array_split(rows, 3)):
        write_parquet(
            folder / f"part-{number}.parquet",
            [points.ids[i] for i in part],
            points.vectors[part],
            group=names[part].tolist(),
            q=quality[part],
        )
    return str(folder)


def kept(graded, duplicates):
    """Places of the candidates in the order of ids."""
    points, _, _ = graded
    return (
        np.arange(len(points.ids))
        if duplicates == "keep"
        else np.sort(np.unique(points.vectors, axis=0, return_index=True)[1])
    )


def plain_bounds(quota, name, budget):
    """Least and greatest number of picks of a group, by the words of docs/jobs/curate.md and no code of the engine."""
    of_group = {text[: text.rindex("=")]: text[text.rindex("=") + 1 :] for text in quota}
    bounds = of_group.get(name, of_group.get("*"))
    if bounds is None:
        return 0, budget
    low, high = bounds.split(":") if ":" in bounds else (bounds, bounds)

    def picks(number):
        return Fraction(number[:-1]) * budget / 100 if number.endswith("%") else Fraction(number)

    return (math.floor(picks(low)) if low else 0), (math.ceil(picks(high)) if high else budget)


def plain_may_have(name, picked, bounds, held, budget):
    """Whether a group may have the next pick: whether the picks to go can be shared out after it, so that all have
    their least and none more than its greatest number or than it holds.
    """
    then = {group: picked[group] + (group == name) for group in bounds}
    lowest = {group: max(then[group], bounds[group][0]) for group in bounds}
    highest = {group: min(bounds[group][1], held[group]) for group in bounds}
    within = all(lowest[group] <= highest[group] for group in bounds)
    return within and sum(lowest.values()) <= budget <= sum(highest.values())


def oracle_picks(graded, budget, begun=None, **settings):
    """Picks by the formula alone; ``quota``, ``quality_power`` and ``duplicates`` as in the settings."""
    points, names, quality = graded
    places = kept(graded, settings.pop("duplicates", "drop"))
    vectors, names, quality = points.vectors[places], names[places], quality[places]
    quota, power = settings.pop("quota", ()), settings.pop("quality_power", None)
    first = settings.pop("first", None)
    sigma = formula.density(vectors, 10, formula=settings.get("formula", "paper"))
    may_follow = None
    if quota:
        held = {str(name): int((names == name).sum()) for name in names}
        bounds = {name: plain_bounds(quota, name, budget) for name in held}

        def may_follow(picks):
            picked = Counter(names[picks].tolist())
            return np.isin(names, [name for name in held if plain_may_have(name, picked, bounds, held, budget)])

    found = formula.novelselect(
        vectors,
        sigma,
        budget,
        None if first is None else int(np.flatnonzero(places == points.ids.index(first))[0]),
        quality=None if power is None else quality**power,
        begun=[] if begun is None else begun,
        may_follow=may_follow,
        **settings,
    )
    return Outcome([points.ids[places[i]] for i in found.picks], found.novelty.tolist(), {}, None)
