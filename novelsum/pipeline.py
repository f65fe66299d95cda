"""The jobs from end to end: input, store, density, rounds, selected rows.

The way of a vector: :mod:`~novelsum.source` reads it, :mod:`~novelsum.ingest` checks it and writes it to
the :mod:`~novelsum.store`, :mod:`~novelsum.density` finds its neighbours, :mod:`~novelsum.selection` picks
it or not, :mod:`~novelsum.output` writes what was picked.
"""

import logging
import re
import time
from typing import Any

from pyspark.sql import SparkSession

from novelsum import session
from novelsum.density import (
    estimate_density,
    load_density,
    require_enough_neighbors,
    require_finite_powers,
    write_density_result,
)
from novelsum.errors import InputError
from novelsum.ingest import ingest
from novelsum.output import (
    OUTPUT_COLUMNS,
    RESULT,
    WORK,
    check_output,
    discard,
    now,
    publish,
    read_manifest,
    start_work,
    versions,
    work_location,
    write_selected,
)
from novelsum.selection import Candidate, Effort, first_row, select
from novelsum.settings import Job, Settings
from novelsum.source import Source, open_density, open_source
from novelsum.stages import Stages
from novelsum.storage import Location
from novelsum.store import Pool
from novelsum.strategies import Comparison, compare, for_manifest, print_comparison
from novelsum.summary import print_result

logger = logging.getLogger("novelsum")


def run(job: Job, settings: Settings) -> None:
    """Run a job; raise UsageError or InputError where the user has to change something."""
    started = time.monotonic()
    inputs = [settings.input, settings.density] if job == "select_subset" else [settings.input]
    output = check_output(settings.output, inputs, settings.overwrite)
    source = open_source(settings.input, settings.id_column, settings.embedding_column)
    given = open_density(settings.density, settings.id_column) if job == "select_subset" else None
    _check_sizes(job, settings, source, given)
    stage = output / WORK
    work = work_location(settings.work_dir, output)
    stages = Stages()
    comparison: dict[str, Comparison] = {}
    logger.info(
        "%s: %d rows in %d file(s) of %s; result to %s", job, source.rows, len(source.files), source.path, output
    )
    try:
        start_work(work, stage)
        with stages.time("start"):
            spark = session.start(job, settings.master)
        try:
            with stages.time("ingest"):
                pool = ingest(spark, source, settings, work, stage)
            _check_candidates(job, settings, source, pool)
            if job == "estimate_density":
                _estimate(spark, settings, pool, stage, stages)
                picks: list[Candidate] = []
                effort = None
            else:
                picks, effort = _select(spark, settings, source, given, pool, stage, stages)
            if settings.compare:
                with stages.time("compare"):
                    rows = [pick.row for pick in picks]
                    comparison = compare(spark, pool, settings, rows, stages.seconds["selection"])
        finally:
            spark.stop()
        stages.seconds["total"] = round(time.monotonic() - started, 3)
        manifest = _manifest(job, settings, source, pool, picks, effort, stages)
        if comparison:
            manifest["comparison"] = for_manifest(comparison)
        publish(output, stage, manifest)
        if not (settings.keep_work and stage.contains(work)):
            stage.delete()
        if not settings.keep_work:
            work.delete()
    except BaseException:
        discard(output, work, stage)
        raise
    print_result(job, settings, pool, output)
    if comparison:
        print_comparison(comparison)


def _check_sizes(job: Job, settings: Settings, source: Source, given: Source | None) -> None:
    """Refuse before Spark starts what the footers already rule out."""
    if job != "estimate_density" and settings.budget > source.rows:
        raise InputError(
            f"--budget {settings.budget} is above the number of rows of {settings.input}, {source.rows}; ask for fewer"
        )
    if job != "select_subset" and settings.neighbors >= source.rows:
        raise InputError(
            f"--neighbors {settings.neighbors} must be below the number of rows of {settings.input}, {source.rows}; "
            "ask for fewer"
        )
    _check_columns(job, settings, source)
    if settings.first is not None and source.integer_ids and not re.fullmatch(r"[+-]?\d+", settings.first):
        raise InputError(
            f"--first {settings.first!r} is not an integer, as the ids of {settings.input} are; give one of them"
        )
    if given is not None and given.integer_ids != source.integer_ids:
        raise InputError(
            f"column {settings.id_column!r} holds integers in one of {settings.input} and {settings.density} and "
            "strings in the other; estimate the density over this input"
        )
    if given is not None:
        _check_density_settings(settings)


def _check_columns(job: Job, settings: Settings, source: Source) -> None:
    """Refuse an id column that would be taken for one of the result, and columns to print that are not there."""
    reserved = ("density", "kth_distance") if job == "estimate_density" else OUTPUT_COLUMNS
    if settings.id_column in reserved:
        raise InputError(
            f"the id column of {settings.input} may not be called {settings.id_column!r}, as a column of the result "
            "is; rename it"
        )
    for option, column in (
        ("--text-column", settings.text_column),
        ("--group-column", settings.group_column),
    ):
        if column is not None and column not in source.schema.names:
            raise InputError(
                f"{settings.input} has no column {column!r}; its columns are {', '.join(source.schema.names)}: name "
                f"one of them with {option} or leave it out"
            )


def _check_density_settings(settings: Settings) -> None:
    """Refuse a density that its manifest says was estimated with other settings than the selection's."""
    estimated = read_manifest(Location.of(settings.density))
    for name, value in (estimated["settings"] if estimated else {}).items():
        if name in ("formula", "metric", "neighbors", "duplicates") and value != getattr(settings, name):
            raise InputError(
                f"{settings.density} was estimated with {name} = {value!r}, but the selection is to have "
                f"{getattr(settings, name)!r}; estimate it again or select with --{name} {value}"
            )


def _check_candidates(job: Job, settings: Settings, source: Source, pool: Pool) -> None:
    """Refuse before any costly work what only the checked rows can tell."""
    if job != "select_subset":
        require_enough_neighbors(pool, settings)
    if job != "estimate_density" and settings.budget > pool.candidates:
        raise InputError(
            f"--budget {settings.budget} is above the number of candidates, {pool.candidates}, that are left of the "
            f"{source.rows} rows after dropping {sum(pool.bad_rows.values())} bad rows and "
            f"{pool.duplicates_dropped} duplicates; ask for fewer"
        )
    estimated = read_manifest(Location.of(settings.density)) if job == "select_subset" else None
    if estimated and estimated["input"]["fingerprint"] != pool.fingerprint:
        logger.warning("%s was estimated over another input than %s", settings.density, settings.input)


def _estimate(spark: SparkSession, settings: Settings, pool: Pool, stage: Location, stages: Stages) -> None:
    with stages.time("density"):
        estimate_density(spark, pool, settings)
    with stages.time("write"):
        write_density_result(spark, pool, settings.id_column, stage / RESULT)


def _select(
    spark: SparkSession,
    settings: Settings,
    source: Source,
    given: Source | None,
    pool: Pool,
    stage: Location,
    stages: Stages,
) -> tuple[list[Candidate], Effort]:
    first = first_row(spark, pool, settings)
    with stages.time("density"):
        if given is None:
            estimate_density(spark, pool, settings)
        else:
            load_density(spark, pool, given)
        require_finite_powers(pool, settings)
    with stages.time("selection"):
        picks, effort = select(spark, pool, settings, first)
    with stages.time("write"):
        write_selected(spark, source, picks, settings.id_column, stage / RESULT)
    return picks, effort


def _manifest(
    job: Job,
    settings: Settings,
    source: Source,
    pool: Pool,
    picks: list[Candidate],
    effort: Effort | None,
    stages: Stages,
) -> dict[str, Any]:
    manifest: dict[str, Any] = {
        "job": job,
        "finished": now(),
        "settings": settings.for_manifest(job),
        "input": {
            "path": str(Location.of(source.path)),
            "files": len(source.files),
            "fingerprint": pool.fingerprint,
            **pool.counts(),
        },
        "versions": versions(),
        "seconds": stages.seconds,
    }
    if effort:
        manifest["selected"] = {
            "picks": len(picks),
            "first": picks[0].id,
            "seed": settings.seed,
            **effort.for_manifest(),
        }
    return manifest
