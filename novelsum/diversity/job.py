"""The job that measures data sets: input, store, one pass over the distances, a table of NovelSum.

:mod:`~novelsum.files.ingest` reads each data set as it does for a selection, :mod:`~novelsum.diversity.onepass`
measures it, and :mod:`~novelsum.diversity.novelsum` turns what was found into NovelSum for every combination of the
settings.
"""

import dataclasses
import json
import logging
import sys
import time
from typing import Any

import pyarrow as pa
from pyspark import SparkContext

from novelsum.density.factors import require_finite_power
from novelsum.diversity.novelsum import Grid, Value, densities, values
from novelsum.diversity.onepass import DataSet, draw_rows, match_reference, run_pass
from novelsum.errors import InputError
from novelsum.files.ingest import ingest
from novelsum.files.location import DUPLICATES, MANIFEST, REJECTED, Location
from novelsum.files.source import Source, look, open_source, require_same_ids
from novelsum.files.store import Pool
from novelsum.files.workplace import Workplace, check_output, identity
from novelsum.formula import from_squared
from novelsum.formulas import EQUATIONS
from novelsum.report.output import input_for_manifest, metrics, now, versions
from novelsum.report.summary import aligned
from novelsum.settings import MeasureSettings
from novelsum.spark import session
from novelsum.spark.local import remove_dead
from novelsum.spark.stages import Stages

logger = logging.getLogger("novelsum")


@dataclasses.dataclass(frozen=True)
class Measured:
    """NovelSum of a data set of ``rows`` from ``measured`` of them, and the mean distance to the nearest other row."""

    rows: int
    measured: int
    mean_nearest_distance: float
    values: list[Value]


def measure(settings: MeasureSettings, is_told: bool = True) -> None:
    """Run the job; raise UsageError or InputError where the user has to change something.

    The result is printed where it ``is_told``.
    """
    started = time.monotonic()
    session.require_classic(settings.master)
    paths = [*settings.input, *([settings.reference] if settings.reference else [])]
    output = check_output(settings.output, paths, settings.work_dir)
    names = [f"input {number + 1}" for number in range(len(settings.input))] + ["reference"]
    seen = {name: look(path, output) for name, path in zip(names, paths, strict=False)}
    place = Workplace.of(output, settings.work_dir, identity("measure_diversity", settings.for_manifest(), seen))
    if place.is_complete(settings.overwrite):
        logger.info("%s holds the result of this very run already; there is nothing to do", output)
        return
    columns = settings.id_column, settings.embedding_column
    sources = [open_source(path, *columns, seen_of) for path, seen_of in zip(paths, seen.values(), strict=True)]
    _check_sizes(settings, sources)
    with place.held(settings.overwrite, settings.keep_work, goes_on=False) as lock:
        rows = _measure(settings, place, paths, sources, started)
        place.publish(lock)
    if is_told:
        _print(rows, output)


def _measure(
    settings: MeasureSettings, place: Workplace, paths: list[str], sources: list[Source], started: float
) -> list[dict[str, Any]]:
    """Measure all data sets; leave the results in the stage and return their rows."""
    clock = Stages()
    place.start_results()
    with clock.time("start"):
        context = session.start("measure_diversity", settings.master)
    try:
        folder = place.emptied("ingest")
        remove_dead(context, folder)
        with clock.time("ingest"):
            pools = [
                ingest(context, source, settings.of_data_set(source.path), folder / f"input-{number:03d}")
                for number, source in enumerate(sources, start=1)
            ]
        _check_pools(settings, paths, pools)
        with clock.time("diversity"):
            results = _measure_all(context, settings, pools, folder)
    finally:
        session.stop(context)
    for pool in pools:
        for name in (REJECTED, DUPLICATES):
            place.stage_aside(pool.work, name, f"{name}/{pool.work.name}")
    rows = _rows(settings, pools, results)
    (place.result / "diversity.parquet").write_parquet(pa.Table.from_pylist(rows))
    (place.result / "diversity.json").write_bytes((json.dumps(rows, indent=1, ensure_ascii=False) + "\n").encode())
    clock.seconds["total"] = round(time.monotonic() - started, 3)
    manifest = _manifest(settings, sources, pools, results, clock)
    (place.result / "metrics.json").write_bytes(metrics({**manifest, "diversity": rows}))
    place.stage_manifest(manifest)
    return rows


def _measure_all(context: SparkContext, settings: MeasureSettings, pools: list[Pool], work: Location) -> list[Measured]:
    reference = DataSet(pools[-1].work, pools[-1].blocks) if settings.reference else None
    return [
        measure_pool(context, settings, DataSet(pool.work, pool.blocks), reference, work)
        for pool in pools[: len(settings.input)]
    ]


def measure_pool(
    context: SparkContext,
    settings: MeasureSettings,
    data: DataSet,
    reference: DataSet | None = None,
    work: Location | None = None,
) -> Measured:
    """NovelSum of one data set over the grid of the settings. ``work``: what scratch is named for, if not its store."""
    grid = Grid(settings.formula, settings.metric, settings.neighbors, settings.proximity_power, settings.density_power)
    sampled = data.rows > settings.exact_limit and data.rows > settings.sample_rows
    sample = draw_rows(context, data, settings.sample_rows, settings.seed) if sampled else None
    matched = None
    if reference is not None:
        matched = match_reference(context, data, reference, by_id=settings.duplicates == "keep")
        if grid.among_all and max(settings.neighbors) >= reference.rows and (matched.own >= 0).any():
            raise InputError(
                f"--neighbors {max(settings.neighbors)} must be below the number of rows of {settings.reference}, "
                f"{reference.rows}, as rows of the data set are among them; ask for fewer"
            )
    found = run_pass(context, data, grid, sample, matched, work=work or data.work)
    density = densities(grid, found.nearest, found.nearest_raw)
    for of_grid in density.values():
        for power in settings.density_power:
            require_finite_power(of_grid, power)
    nearest = from_squared(found.nearest_own, settings.metric)
    return Measured(data.rows, len(found.rows), float(nearest.mean()), values(grid, found, density, data.rows))


# --- refusals ---------------------------------------------------------------------------------------------


def _check_sizes(settings: MeasureSettings, sources: list[Source]) -> None:
    """Refuse before Spark starts what the footers already rule out."""
    most = max(settings.neighbors)
    searched = sources[-1:] if settings.reference else sources
    for source in searched:
        if most >= source.rows + bool(settings.reference):
            raise InputError(
                f"--neighbors {most} must be below the number of rows of {source.path}, {source.rows}; ask for fewer"
            )
    if settings.reference and settings.duplicates == "keep":
        require_same_ids(settings.id_column, {one.path: one.integer_ids for one in (sources[0], sources[-1])})


def _check_pools(settings: MeasureSettings, paths: list[str], pools: list[Pool]) -> None:
    """Refuse before any costly work what only the checked rows can tell."""
    for path, pool in zip(paths, pools, strict=True):
        if pool.dimension != pools[0].dimension:
            raise InputError(
                f"{path} has embeddings of {pool.dimension} dimensions and {paths[0]} of {pools[0].dimension}; embed "
                "all data sets with one model"
            )
    most = max(settings.neighbors)
    for path, pool in list(zip(paths, pools, strict=True))[-1 if settings.reference else 0 :]:
        for formula in settings.formula:
            among_distinct = EQUATIONS[formula].among_distinct
            points = pool.distinct if among_distinct else pool.candidates
            # A point is not its own neighbour, but of a reference corpus it may be no part.
            if most >= points + (not among_distinct and settings.reference is not None):
                kind = "distinct embeddings" if among_distinct else "rows left"
                raise InputError(
                    f"--neighbors {most} must be below the number of {kind} of {path}, which is {points}: a point is "
                    "not its own neighbour; ask for fewer"
                )


# --- results ----------------------------------------------------------------------------------------------


def _rows(settings: MeasureSettings, pools: list[Pool], results: list[Measured]) -> list[dict[str, Any]]:
    """A row for each data set and combination of settings."""
    return [
        {
            "input": path,
            "rows": result.rows,
            "duplicates_dropped": pool.duplicates_dropped,
            "measured_rows": result.measured,
            "mean_nearest_distance": result.mean_nearest_distance,
            "formula": value.formula,
            "neighbors": value.neighbors,
            "proximity_power": value.proximity_power,
            "density_power": value.density_power,
            "novelsum_sum": value.sum,
            "novelsum_mean": value.mean,
            "mean_low": value.mean_low,
            "mean_high": value.mean_high,
        }
        for path, pool, result in zip(settings.input, pools, results, strict=False)
        for value in result.values
    ]


def _manifest(
    settings: MeasureSettings, sources: list[Source], pools: list[Pool], results: list[Measured], clock: Stages
) -> dict[str, Any]:
    inputs = [
        {**input_for_manifest(source, pool), "files": len(source.files)}
        for source, pool in zip(sources, pools, strict=True)
    ]
    return {
        "job": "measure_diversity",
        "finished": now(),
        "settings": settings.for_manifest(),
        "inputs": inputs[: len(results)],
        "reference": inputs[-1] if settings.reference else None,
        "measured_rows": [result.measured for result in results],
        "versions": versions(),
        "seconds": clock.seconds,
    }


def _print(rows: list[dict[str, Any]], output: Location) -> None:
    cells = [["formula", "K", "κ1", "κ2", "NovelSum", "mean", "95% interval", "nearest", "rows", "input"]]
    for row in rows:
        exact = row["measured_rows"] == row["rows"]
        cells.append(
            [
                row["formula"],
                str(row["neighbors"]),
                f"{row['proximity_power']:g}",
                f"{row['density_power']:g}",
                f"{row['novelsum_sum']:.6g}",
                f"{row['novelsum_mean']:.6g}",
                "exact" if exact else f"{row['mean_low']:.6g} to {row['mean_high']:.6g}",
                f"{row['mean_nearest_distance']:.6g}",
                str(row["rows"]),
                row["input"],
            ]
        )
    lines = [*aligned(cells), "", f"result     {output / 'diversity.json'}", f"manifest   {output / MANIFEST}"]
    print("\n".join(lines), file=sys.stdout)
