"""Density factors by a search of the cells nearest to each candidate, with its recall measured.

1. Two samples are drawn by a hash of the row: one trains the cells, the other measures.
2. Each block writes its candidates in the order of their cells, then each group of cells gathers its own from all
   blocks: near cells lie together, see :mod:`~novelsum.density.layout`. Every group is searched, exactly, for the
   neighbours of the measured candidates.
3. Which cells those lie in tells how many must be probed: the driver takes the smallest number at which half of
   the measured candidates find enough, and at which their density is near enough.
4. A task a group searches its candidates in the cells they probe, reading one group at a time. The other half of the
   measured candidates says what recall that had; if too little, more cells are probed.

Vectors go from file to file and never through the JVM.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import SparkContext

from novelsum.density.axes import SAMPLE_ROWS, Axes, evenly
from novelsum.density.cells import Cells, nearest_cells, sampled
from novelsum.density.factors import BlockDensity, write_density
from novelsum.density.layout import (
    CellRows,
    Layout,
    Sample,
    binary,
    draw,
    group_name,
    lay_out,
    read_axes,
    read_cells,
    read_cells_of,
    read_group,
    read_group_points,
    read_points,
    write_axes,
    write_cells,
    write_points,
)
from novelsum.density.neighbors import NearestDistances, Sought
from novelsum.density.points import Points
from novelsum.files.location import Location
from novelsum.files.store import Pool
from novelsum.formula import Array
from novelsum.rows import Integers
from novelsum.spark.progress import collect

logger = logging.getLogger("novelsum")

TRAINED_BYTES = 384 << 20
GROUP_BYTES = 192 << 20
SMALL_GROUPS, SMALL_GROUP_CELLS = 8, 16
"""A small pool still has so many groups, if each has so many cells."""
MEASURED = (500, 2000)
"""About how many candidates are searched exactly, at least and at most; a fortieth of them in between. Half of them
choose the probes, half tell the recall."""
OVERHEAD = 4e11
"""What the additional Spark jobs take, in multiplications."""
_TRAINED_OF_CELL = 32
_SURELY = 0.8
"""Probes are chosen for this part of the error that is allowed, as other rows tell what it is."""
_TRAINING, MEASURING = 0, 1


def approximate_density(
    context: SparkContext, pool: Pool, corpus: Pool, sought: Sought, target: float, work: Location
) -> dict[str, Any]:
    """Write the density factor of every candidate of ``pool`` over ``corpus``, and all on the way to it, to ``work``.

    At least ``target`` of the K nearest are found, by the measured candidates; 1 means to probe all cells.
    Returns what the manifest says of it.
    """
    for name in ("found", "density"):
        (work / name).make_folder()
    fraction = measured_fraction(pool.candidates)
    sample, measured = _draw(context, pool, corpus, fraction, sought, work)
    cells, axes = train(corpus, sought, sought.points(sample.vectors))
    write_cells(work, cells)
    write_axes(work, axes)
    points = sought.points(measured.vectors)
    layout = lay_out(context, corpus, work, "cells", sought, cells)
    queries = layout if corpus is pool else lay_out(context, pool, work, "queries", sought, cells)
    sizes, squared, where = search_measured(context, layout, work, sought, measured.row, points)
    near = squared[:, : sought.count]
    exact = sought.of_neighbors(near, measured.itself)
    write_points(work / "measured.parquet", measured.row, points, near)
    tells = np.arange(len(points)) % 2 == 1
    chooses = ~tells
    if not tells.any():  # a single candidate does both
        tells = chooses
    ranks = probes_needed(cells, points[chooses], measured.row[chooses], where[chooses])
    probes = choose_probes(sought, ranks, squared[chooses], measured.itself[chooses], target)
    probes = len(sizes) if probes is None else probes
    while True:
        job = SearchJob(work, layout, queries, sought, sizes, probes, fraction)
        numbers = context.parallelize(range(layout.groups), layout.groups)
        parts = collect(numbers.mapPartitions(partial(_search, job)), f"search of {probes} of {len(sizes)} cells each")
        rows, found = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        report = compare(sought, exact[tells], found[np.argsort(rows)][tells])
        logger.info(
            "density: recall %.4f of %d measured; error of density median %.2g, p99 %.2g; %d of %d cells probed",
            *(report[name] for name in ("recall", "measured", "sigma_error_median", "sigma_error_p99")),
            *(probes, len(sizes)),
        )
        enough = report["recall"] >= target and report["sigma_error_p99"] <= sigma_error_allowed(target)
        if enough or probes == len(sizes):
            break
        probes = min(len(sizes), probes + max(1, probes // 4))
    _write_densities(context, pool, layout.groups, work)
    return {"method": "approximate", "cells": len(sizes), "probes": probes, "measured_fraction": fraction, **report}


def measured_fraction(candidates: int) -> float:
    """The share of the candidates that is searched exactly."""
    return min(1.0, max(MEASURED[0], min(MEASURED[1], candidates / 40)) / candidates)


def approximate_is_cheaper(pool: Pool, corpus: Pool) -> bool:
    """Whether a search of cells is likely faster than the exact one, counted in multiplications."""
    cells = 2 * corpus.candidates**0.5
    likely = pool.candidates * (0.15 * corpus.candidates + 20 * cells) + MEASURED[1] * corpus.candidates
    return bool(likely + OVERHEAD / pool.dimension < pool.candidates * corpus.candidates)


# --- cells ------------------------------------------------------------------------------------------------


def _draw(
    context: SparkContext, pool: Pool, corpus: Pool, fraction: float, sought: Sought, work: Location
) -> tuple[CellRows, CellRows]:
    """A sample of the corpus that fits into the driver, to train cells, and the candidates to measure."""
    trains, measures = training(corpus, sought), Sample(fraction, MEASURING, False)
    if corpus is pool:
        sample, measured = draw(context, pool, [trains, measures], work)
    else:
        (sample,), (measured,) = draw(context, corpus, [trains], work), draw(context, pool, [measures], work)
    if not len(sample.row):  # the hash of a tiny pool took none
        (sample,) = draw(context, corpus, [replace(trains, fraction=1.0)], work)
    return sample, measured


def training(corpus: Pool, sought: Sought) -> Sample:
    """The sample that cells for the corpus are trained on."""
    wanted, fitting = _wanted(corpus, sought)
    points = corpus.distinct if sought.among_distinct else corpus.candidates
    return Sample(min(_TRAINED_OF_CELL * wanted, fitting) / points, _TRAINING, sought.among_distinct)


def _wanted(corpus: Pool, sought: Sought) -> tuple[int, int]:
    """How many cells there are to be, and how many points for their training fit."""
    points = corpus.distinct if sought.among_distinct else corpus.candidates
    fitting = TRAINED_BYTES // (8 * corpus.dimension)
    return max(1, min(round(2 * points**0.5), points // 4, fitting // (_TRAINED_OF_CELL // 2))), fitting


def train(corpus: Pool, sought: Sought, sample: Array) -> tuple[Cells, Axes]:
    """Cells and axes for the corpus, of a sample (s, D) of its points."""
    wanted, _ = _wanted(corpus, sought)
    size = corpus.candidates * corpus.dimension * corpus.itemsize
    groups = max(1, min(SMALL_GROUPS, wanted // SMALL_GROUP_CELLS), min(wanted, -(-size // GROUP_BYTES)))
    axes = Axes.of(sample[evenly(len(sample), SAMPLE_ROWS)])
    return Cells.trained(sample, min(wanted, len(sample)), sought.space == "cosine", groups, axes), axes


# --- search -----------------------------------------------------------------------------------------------


def search_measured(
    context: SparkContext, layout: Layout, work: Location, sought: Sought, rows: Integers, points: Array
) -> tuple[Integers, Array, NDArray[np.int32]]:
    """Search all cells for the neighbours of some points (m, D) with their rows (m,).

    Returns how many possible neighbours each cell holds (C,), the squared distances (m, c) ascending to as many as are
    wanted and some more, and the cells they are in (m, c).
    """
    write_points(work / "measured.parquet", rows, points, np.full((len(rows), sought.count), np.inf))
    groups = context.parallelize(range(layout.groups), layout.groups)
    parts = collect(groups.map(partial(_search_group, work, layout, sought)), "exact search of the measured")
    squared, labels = (np.concatenate([part[i] for part in parts], axis=1) for i in (1, 2))
    order = np.lexsort((labels, squared), axis=1)[:, : _more(sought)]
    sizes = np.concatenate([part[0] for part in parts])
    return sizes, np.take_along_axis(squared, order, axis=1), np.take_along_axis(labels, order, axis=1)


def _more(sought: Sought) -> int:
    """How many distances are known of a measured point: what a search finds where it misses some of the nearest."""
    return sought.count + sought.neighbors


def _search_group(
    work: Location, layout: Layout, sought: Sought, group: int
) -> tuple[Integers, Array, NDArray[np.int32]]:
    cells = read_cells(work)
    rows, points, _ = read_points(work / "measured.parquet")
    nearest = NearestDistances(points, _more(sought), None if sought.holds_queries else rows, axes=read_axes(work))
    sizes = [np.zeros(0, dtype=np.int64)]
    members = np.flatnonzero(cells.group == group)
    for corpus in read_cells_of(layout, cells, sought, members):
        sizes.append(np.diff(corpus.ends))
        likely = members[nearest_cells(points, cells.centroids[members], 1).argmax(axis=1)]
        for is_likely in (True, False):  # then few in the other cells are near enough
            parts = [
                (start, end, np.flatnonzero((likely == number) == is_likely), number)
                for number, start, end in corpus.parts()
            ]
            nearest.add_parts(corpus.points, corpus.rows, parts)
    return np.concatenate(sizes), nearest.squared, nearest.labels


def probes_needed(cells: Cells, points: Array, rows: Integers, where: NDArray[np.int32]) -> Integers:
    """How many cells points (m, D) with their rows (m,) must probe to find what lies in the cells ``where`` (m, c)."""
    squared = np.square(points).sum(axis=1)[:, None] - 2 * points @ cells.centroids.T
    squared += np.square(cells.centroids).sum(axis=1)
    own = cells.assign(Points.of(points), rows)
    squared[np.arange(len(points)), own] = -np.inf
    ranks = np.argsort(np.argsort(squared, axis=1, kind="stable"), axis=1, kind="stable")
    return np.take_along_axis(ranks, where.astype(np.int64), axis=1) + 1


def choose_probes(
    sought: Sought, needed: Integers, squared: Array, itself: NDArray[np.bool_], target: float
) -> int | None:
    """The smallest number of probes with which points surely find ``target`` of their neighbours; None if only all do.

    ``squared`` (m, c) are distances to more than the K nearest, ``needed`` (m, c) the probes to find each; ``itself``
    (m,) as for ``Sought.of_neighbors``. Surely: by two standard errors. And the error of σ, had they found what the
    probes hold, is well below what is allowed.
    """
    if target >= 1:
        return None
    exact = sought.of_neighbors(squared[:, : sought.count], itself)
    for probes in range(1, int(needed.max(initial=1)) + 1):
        is_found = needed <= probes
        found = is_found[:, : sought.count].mean(axis=1)
        if found.mean() - 2 * found.std() / len(found) ** 0.5 < target:
            continue
        instead = np.sort(np.where(is_found, squared, squared[:, -1:]), axis=1)[:, : sought.count]
        likely = compare(sought, exact, sought.of_neighbors(instead, itself))
        if likely["sigma_error_p99"] <= _SURELY * sigma_error_allowed(target):
            return probes
    return None


def sigma_error_allowed(target: float) -> float:
    """The relative error of σ that at most one in a hundred measured rows may exceed."""
    return 2 * (1 - target)


@dataclass(frozen=True)
class SearchJob:
    """What a task of the search needs to know."""

    work: Location
    corpus: Layout
    queries: Layout
    sought: Sought
    sizes: Integers
    probes: int
    measured: float


def _search(job: SearchJob, groups: Iterable[int]) -> Iterator[tuple[Integers, Array]]:
    """Search the candidates of a group in the cells they probe; yield rows and distances of the measured ones."""
    for group in groups:
        cells = read_cells(job.work)
        queries = read_group(job.queries, group)
        squared = np.empty((0, job.sought.count))
        if len(queries.row):
            squared = search_cells(job, cells, queries, read_group_points(job.queries, group, queries))
        neighbors = job.sought.of_neighbors(squared, queries.itself)
        density, kth = job.sought.density(neighbors)
        columns = {"block": queries.block, "place": queries.place, "density": density, "kth_distance": kth}
        table = pa.table({**columns, "row": queries.row, "squared": binary(squared)})
        (job.work / "found" / group_name(group)).write_parquet(table)
        measured = np.flatnonzero(sampled(queries.row, job.measured, MEASURING))
        yield queries.row[measured], neighbors[measured]


def search_cells(job: SearchJob, cells: Cells, queries: CellRows, points: Points) -> Array:
    """The smallest squared distances (m, count) of candidates of one group to the points of the cells they probe."""
    sought = job.sought
    probed = cells.probed(points, queries.cell, job.probes, job.sizes, sought.neighbors + 1).T.copy()
    nearest = NearestDistances(
        points, sought.count, None if sought.holds_queries else queries.row, axes=read_axes(job.work)
    )
    for corpus in read_cells_of(job.corpus, cells, sought, np.unique(queries.cell)):
        parts = []
        for number, start, end in corpus.parts():
            at = np.flatnonzero(queries.cell == number)  # the own cell first: then few elsewhere are near enough
            parts.append((start, end, at, number))
            probed[number, at] = False
        nearest.add_parts(corpus.points, corpus.rows, parts)
    others = outwards(np.flatnonzero(probed.any(axis=1) & (job.sizes > 0)), queries.cell)
    for corpus in read_cells_of(job.corpus, cells, sought, others):
        parts = [(start, end, np.flatnonzero(probed[number]), number) for number, start, end in corpus.parts()]
        nearest.add_parts(corpus.points, corpus.rows, parts)
    return nearest.squared


def outwards(numbers: Integers, own: Integers) -> Integers:
    """Cells, those next to the group's own in the order of cells first."""
    away = np.maximum(own.min() - numbers, numbers - own.max())
    return numbers[np.argsort(away, kind="stable")]


# --- what was found ---------------------------------------------------------------------------------------


def compare(sought: Sought, exact: Array, found: Array) -> dict[str, Any]:
    """Recall and relative error of σ by squared distances (m, K) to the true and to the found neighbours.

    Recall is the share of found distances that are not above the true one to the K-th neighbour.
    """
    recall = float((found <= exact[:, -1:]).mean())
    error = np.abs(sought.density(found)[0] / sought.density(exact)[0] - 1)
    return {
        "measured": len(exact),
        "recall": round(recall, 6),
        "sigma_error_median": float(np.median(error)),
        "sigma_error_p99": float(np.quantile(error, 0.99)),
    }


def _write_densities(context: SparkContext, pool: Pool, groups: int, work: Location) -> None:
    """Put what the groups found into files for each block; only numbers travel."""
    numbers = context.parallelize(range(groups), groups)
    by_block = numbers.flatMap(partial(_found, work)).groupByKey(len(pool.blocks))
    by_block.foreach(partial(_write_block_density, pool, work))


def _found(work: Location, group: int) -> Iterator[tuple[int, tuple[Integers, Array, Array]]]:
    table = (work / "found" / group_name(group)).read_parquet(["block", "place", "density", "kth_distance"])
    block, *columns = (column.to_numpy() for column in table.columns)
    for number in np.unique(block).tolist():
        place, density, kth = (column[block == number] for column in columns)
        yield number, (place, density, kth)


def _write_block_density(
    pool: Pool, work: Location, of_block: tuple[int, Iterable[tuple[Integers, Array, Array]]]
) -> None:
    number, parts = of_block
    place, density, kth = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(place)
    write_density(work, pool.blocks[number].name, BlockDensity(density[order], kth[order]))
