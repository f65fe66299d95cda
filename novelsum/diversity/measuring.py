"""NovelSum of one data set on Spark: its neighbours, if density counts, one pass over its distances, and its spread."""

from dataclasses import dataclass

import numpy as np
from pyspark import SparkContext

from novelsum.density.factors import require_finite_power
from novelsum.diversity.novelsum import Densities, Grid, Leading, Tally, Value, densities, values, variance
from novelsum.diversity.onepass import DataSet, Reference, coverage, draw_rows, match_reference, nearest_in, run_pass
from novelsum.diversity.ranking import NORMAL_QUANTILE, Figures, Spread
from novelsum.errors import InputError
from novelsum.files.location import Location
from novelsum.formula import from_squared
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
    own = match_reference(context, data, reference, by_id=settings.duplicates == "keep").own if reference else None
    corpus = None if reference is None else Corpus(reference, np.zeros(0, dtype=np.int64))
    return measured(context, settings, data, corpus, own, work or data.work)


def measured(
    context: SparkContext,
    settings: MeasureSettings,
    data: DataSet,
    corpus: Corpus | None,
    own: Integers | None,
    work: Location,
) -> Measured:
    """The same. ``own`` (n,): the row of the reference that each row is, negative if none; None: it is not needed."""
    grid = Grid(
        settings.formula, settings.metric, settings.neighbors, settings.proximity_power, settings.density_powers
    )
    sampled = data.rows > settings.exact_limit and data.rows > settings.sample_rows
    sample = draw_rows(context, data, settings.sample_rows, settings.seed) if sampled else None
    density: Densities = {}
    if grid.weighs_density:
        reference = Reference(data, np.arange(data.rows)) if corpus is None else Reference(corpus.data, _known(own))
        if grid.among_all and max(settings.neighbors) >= reference.data.rows and (reference.own >= 0).any():
            raise InputError(
                f"--neighbors {max(settings.neighbors)} must be below the number of rows of {settings.reference}, "
                f"{reference.data.rows}, as rows of the data set are among them; ask for fewer"
            )
        density = densities(grid, *nearest_in(context, reference, data, grid, sample))
        for of_grid in density.values():
            for power in settings.density_powers:
                require_finite_power(of_grid, power)
    leading = None if sampled else _leading(grid, density, data.rows)
    found = run_pass(context, data, grid, sample, leading, work=work)
    results = values(grid, found, density, data.rows)
    if leading is None:
        spread = (results[0].mean_high - results[0].mean) / NORMAL_QUANTILE
        variance_ = spread * spread
    else:
        variance_ = variance(found, leading)
    nearest = float(from_squared(found.nearest_own, settings.metric).mean())
    covered = None
    if corpus is not None and len(corpus.covered):
        covered = coverage(context, corpus.data, corpus.covered, data, settings.metric)
    spread_of = Spread(
        nearest,
        float(found.totals.mean()) / max(1, data.rows - 1),
        *_of_densities(grid, found, density),
        coverage=covered,
    )
    figures = Figures(data.rows, tuple(value.mean for value in results), variance_, spread_of)
    return Measured(data.rows, len(found.rows), nearest, results, figures)


def _known(own: Integers | None) -> Integers:
    assert own is not None
    return own


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
