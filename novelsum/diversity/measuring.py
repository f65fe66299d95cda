"""NovelSum of one data set on Spark: its neighbours, if density counts, one pass over its distances, and its spread."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pyspark import SparkContext

from novelsum.density.factors import require_finite_power
from novelsum.diversity.novelsum import Densities, Grid, Leading, Tally, Value, densities, values, variance
from novelsum.diversity.onepass import Asked, DataSet, coverage, draw_rows, match_reference, nearest_in, run_passes
from novelsum.diversity.ranking import NORMAL_QUANTILE, Figures, Spread
from novelsum.errors import InputError
from novelsum.files.location import Location
from novelsum.formula import Metric, from_squared
from novelsum.formulas import EQUATIONS
from novelsum.rows import Integers
from novelsum.settings import MeasureSettings

COVERED_ROWS = 10_000
"""Rows of the reference whose distance to the nearest of a set is measured, at most."""


@dataclass(frozen=True)
class Measured:
    """What was measured of a data set of ``rows`` from ``measured`` of them.

    ``figures`` are the values' means, and how the set is spread.
    """

    rows: int
    measured: int
    mean_nearest_distance: float
    values: list[Value]
    figures: Figures


@dataclass(frozen=True)
class Corpus:
    """The reference, and those of its rows whose nearest of a set is looked for, ascending."""

    data: DataSet
    covered: Integers

    @staticmethod
    def of(context: SparkContext, data: DataSet, seed: int) -> "Corpus":
        """The seed draws the rows."""
        return Corpus(data, draw_rows(context, data, min(data.rows, COVERED_ROWS), seed))


def measure_pool(
    context: SparkContext,
    settings: MeasureSettings,
    data: DataSet,
    reference: DataSet | None = None,
    work: Location | None = None,
) -> Measured:
    """NovelSum of one data set over the grid of the settings. ``work``: what scratch is named for, if not its store."""
    corpus = None if reference is None else Corpus(reference, np.zeros(0, dtype=np.int64))
    own = own_rows(context, settings, data, corpus)
    return measured(context, settings, [(data, own)], corpus, work or data.work)[0]


def own_rows(context: SparkContext, settings: MeasureSettings, data: DataSet, corpus: Corpus | None) -> Integers | None:
    """The row of the reference that each row (n,) of a data set is, negative if none; None where nobody asks."""
    if corpus is None or not any(settings.density_powers):
        return None
    return match_reference(context, data, corpus.data, by_id=settings.duplicates == "keep")


def measured(
    context: SparkContext,
    settings: MeasureSettings,
    sets: Sequence[tuple[DataSet, Integers | None]],
    corpus: Corpus | None,
    work: Location,
) -> list[Measured]:
    """The same of several data sets, each with its :func:`own_rows`, at once."""
    grid = Grid(
        settings.formula, settings.metric, settings.neighbors, settings.proximity_power, settings.density_powers
    )
    asked = []
    for data, own in sets:
        sampled = data.rows > settings.exact_limit and data.rows > settings.sample_rows
        sample = draw_rows(context, data, settings.sample_rows, settings.seed) if sampled else None
        asked.append(Asked(data, sample, own=own))
    found: list[Densities] = [{} for _ in asked]
    if grid.weighs_density:
        for one in asked:
            _check_neighbors(settings, grid, one, corpus)
        nearest = nearest_in(context, asked, grid, None if corpus is None else corpus.data)
        found = [densities(grid, *of_set) for of_set in nearest]
        for density in (density for of_set in found for density in of_set.values()):
            for power in settings.density_powers:
                require_finite_power(density, power)
    asked = [
        one if one.sample is not None else replace(one, leading=_leading(grid, density, one.data.rows))
        for one, density in zip(asked, found, strict=True)
    ]
    tallies = run_passes(context, asked, grid, work=work)
    covered: list[float | None] = [None for _ in asked]
    if corpus is not None and len(corpus.covered):
        together = [one.data for one in asked]
        covered = list(coverage(context, corpus.data, corpus.covered, together, settings.metric))
    return [
        _of_tally(settings.metric, grid, one, of_set, density, distance)
        for one, of_set, density, distance in zip(asked, tallies, found, covered, strict=True)
    ]


def _check_neighbors(settings: MeasureSettings, grid: Grid, one: Asked, corpus: Corpus | None) -> None:
    """Refuse a K that a row of the data set which is one of the reference too cannot have."""
    if corpus is None or one.own is None or not grid.among_all:
        return
    if max(settings.neighbors) >= corpus.data.rows and (one.own >= 0).any():
        raise InputError(
            f"--neighbors {max(settings.neighbors)} must be below the number of rows of {settings.reference}, "
            f"{corpus.data.rows}, as rows of the data set are among them; ask for fewer"
        )


def _of_tally(
    metric: Metric, grid: Grid, asked: Asked, found: Tally, density: Densities, covered: float | None
) -> Measured:
    """What a pass has found of a data set."""
    rows = asked.data.rows
    results = values(grid, found, density, rows)
    if asked.leading is None:
        of_mean = ((results[0].mean_high - results[0].mean) / NORMAL_QUANTILE) ** 2
    else:
        of_mean = variance(found, asked.leading)
    nearest = float(from_squared(found.nearest_own, metric).mean())
    pair = float(found.totals.mean()) / max(1, rows - 1)
    spread = Spread(nearest, pair, *_of_densities(grid, found, density), coverage=covered)
    figures = Figures(rows, tuple(value.mean for value in results), of_mean, spread)
    return Measured(rows, len(found.rows), nearest, results, figures)


def _leading(grid: Grid, density: Densities, rows: int) -> Leading:
    """The setting by which sets are ranked: the first of each kind."""
    formula, power = grid.formulas[0], grid.density_powers[0]
    powered = density[formula, grid.neighbors[0]] ** power if power else np.ones(rows)
    return Leading.of(EQUATIONS[formula], grid.proximity_powers[0], powered)


def _of_densities(grid: Grid, found: Tally, density: Densities) -> tuple[float | None, float | None]:
    """The median density factor, and what the densest 1% of the rows contribute in the first setting that counts it."""
    power = next(filter(None, grid.density_powers), None)
    if power is None:
        return None, None
    formula = grid.formulas[0]
    of_rows = density[formula, grid.neighbors[0]]
    mass = found.mass[:, 0].sum(axis=0) if EQUATIONS[formula].weighs_others else found.averages[:, 0]
    shares = mass * of_rows**power
    most = np.argsort(-of_rows, kind="stable")[: max(1, len(of_rows) // 100)]
    total = float(shares.sum())
    return float(np.median(of_rows)), float(shares[most].sum()) / total if total else None
