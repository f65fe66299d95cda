"""The jobs from end to end: input, store, density, rounds, selected rows.

The way of a vector: :mod:`~novelsum.source` reads it, :mod:`~novelsum.ingest` checks it and writes it to
the :mod:`~novelsum.store`, :mod:`~novelsum.density` finds its neighbours, :mod:`~novelsum.selection` picks
it or not, :mod:`~novelsum.output` writes what was picked.
"""

import dataclasses
import logging
import re
import time
from typing import Any

from pyspark.sql import SparkSession

from novelsum import session
from novelsum.density import (
    estimate_density,
    load_density,
    mark_itself,
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
from novelsum.report import check_report, write_report
from novelsum.selection import Candidate, Effort, first_row, select
from novelsum.settings import Job, Settings
from novelsum.source import Source, open_density, open_source
from novelsum.stages import Stages
from novelsum.state import State, open_state
from novelsum.storage import Location
from novelsum.store import Pool
from novelsum.strategies import Comparison, compare, for_manifest, print_comparison
from novelsum.summary import print_result
from novelsum.survey import survey

logger = logging.getLogger("novelsum")


def run(job: Job, settings: Settings) -> None:
    """Run a job; raise UsageError or InputError where the user has to change something."""
    started = time.monotonic()
    if job != "estimate_density":
        check_report(settings)
    others = (
        [settings.density] if job == "select_subset" else [settings.reference, settings.update, settings.save_state]
    )
    output = check_output(settings.output, [settings.input, *filter(None, others)], settings.overwrite)
    state = open_state(settings) if settings.update or settings.save_state else None
    source = open_source(settings.input, settings.id_column, settings.embedding_column)
    reference = (
        open_source(settings.reference, settings.id_column, settings.embedding_column) if settings.reference else None
    )
    if state:
        source = state.check_source(source)
    if reference:
        wide = source.wide or reference.wide
        source, reference = dataclasses.replace(source, wide=wide), dataclasses.replace(reference, wide=wide)
    given = open_density(settings.density, settings.id_column) if job == "select_subset" else None
    _check_sizes(job, settings, source, given, reference, state)
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
                corpus = _ingest_reference(spark, settings, reference, pool) if reference else None
            _check_candidates(job, settings, source, pool, corpus, state)
            picks: list[Candidate] = []
            effort, density = None, {"method": "given"}
            if state:
                with stages.time("density"):
                    density = state.add(spark, pool, settings, stage / RESULT)
            elif job == "estimate_density":
                density = _estimate(spark, settings, pool, corpus, stage, stages)
            else:
                picks, effort, density = _select(spark, settings, source, given, pool, corpus, stage, stages)
            if settings.compare:
                with stages.time("compare"):
                    rows = [pick.row for pick in picks]
                    comparison = compare(spark, pool, settings, rows, stages.seconds["selection"])
            found = _survey(spark, settings, source, pool, picks, stage, stages)
        finally:
            spark.stop()
        manifest = _manifest(job, settings, source, pool, corpus, density, picks, effort, stages)
        if comparison:
            manifest["comparison"] = for_manifest(comparison)
        _write_report(manifest, found, stage, stages)
        stages.seconds["total"] = round(time.monotonic() - started, 3)
        publish(output, stage, manifest)
        if state:
            state.commit()
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


def _ingest_reference(spark: SparkSession, settings: Settings, reference: Source, pool: Pool) -> Pool:
    """The reference as a pool of its own, its bad rows left out as those of the input are."""
    work = pool.work / "reference"
    (work / "store").make_folder()
    corpus = ingest(
        spark, reference, dataclasses.replace(settings, input=reference.path, group_column=None), work, work
    )
    mark_itself(spark, pool, corpus, settings)
    return corpus


def _check_sizes(
    job: Job,
    settings: Settings,
    source: Source,
    given: Source | None,
    reference: Source | None,
    state: State | None,
) -> None:
    """Refuse before Spark starts what the footers already rule out."""
    if job != "estimate_density" and settings.budget > source.rows:
        raise InputError(
            f"--budget {settings.budget} is above the number of rows of {settings.input}, {source.rows}; ask for fewer"
        )
    corpus = reference or source
    if job != "select_subset" and settings.neighbors >= corpus.rows + (state.rows if state else 0):
        raise InputError(
            f"--neighbors {settings.neighbors} must be below the number of rows of {corpus.path}, {corpus.rows}; "
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


def _check_candidates(
    job: Job, settings: Settings, source: Source, pool: Pool, corpus: Pool | None, state: State | None
) -> None:
    """Refuse before any costly work what only the checked rows can tell."""
    if job != "select_subset" and not (state and state.rows):
        require_enough_neighbors(corpus or pool, settings)
    if job != "estimate_density" and settings.budget > pool.candidates:
        raise InputError(
            f"--budget {settings.budget} is above the number of candidates, {pool.candidates}, that are left of the "
            f"{source.rows} rows after dropping {sum(pool.bad_rows.values())} bad rows and "
            f"{pool.duplicates_dropped} duplicates; ask for fewer"
        )
    estimated = read_manifest(Location.of(settings.density)) if job == "select_subset" else None
    if estimated and estimated["input"]["fingerprint"] != pool.fingerprint:
        logger.warning("%s was estimated over another input than %s", settings.density, settings.input)


def _estimate(
    spark: SparkSession, settings: Settings, pool: Pool, corpus: Pool | None, stage: Location, stages: Stages
) -> dict[str, Any]:
    with stages.time("density"):
        density = estimate_density(spark, pool, settings, corpus)
    with stages.time("write"):
        write_density_result(spark, pool, settings.id_column, stage / RESULT)
    return density


def _select(
    spark: SparkSession,
    settings: Settings,
    source: Source,
    given: Source | None,
    pool: Pool,
    corpus: Pool | None,
    stage: Location,
    stages: Stages,
) -> tuple[list[Candidate], Effort, dict[str, Any]]:
    first = first_row(spark, pool, settings)
    with stages.time("density"):
        if given is None:
            density = estimate_density(spark, pool, settings, corpus)
        else:
            load_density(spark, pool, given)
            density = {"method": "given"}
        require_finite_powers(pool, settings)
    with stages.time("selection"):
        picks, effort = select(spark, pool, settings, first)
    with stages.time("write"):
        write_selected(spark, source, picks, settings.id_column, stage / RESULT)
    return picks, effort, density


def _survey(
    spark: SparkSession,
    settings: Settings,
    source: Source,
    pool: Pool,
    picks: list[Candidate],
    stage: Location,
    stages: Stages,
) -> dict[str, Any] | None:
    """What the report is to show, or None where there is to be none. A failure never costs the selection."""
    if not (picks and settings.report):
        return None
    try:
        with stages.time("survey"):
            return survey(spark, pool, settings, source, picks, stage / RESULT / "selected" / "part-00000.parquet")
    except Exception:
        logger.exception("the report cannot be made; the selection is not affected")
        return None


def _write_report(manifest: dict[str, Any], found: dict[str, Any] | None, stage: Location, stages: Stages) -> None:
    if found is None:
        return
    try:
        with stages.time("report"):
            write_report(stage / RESULT, manifest, found)
    except Exception:
        logger.exception("the report cannot be drawn; the selection is not affected")


def _manifest(
    job: Job,
    settings: Settings,
    source: Source,
    pool: Pool,
    corpus: Pool | None,
    density: dict[str, Any],
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
        "density": density,
        "versions": versions(),
        "seconds": stages.seconds,
    }
    if corpus:
        manifest["reference"] = {
            "path": str(Location.of(settings.reference or "")),
            "fingerprint": corpus.fingerprint,
            **corpus.counts(),
        }
    if effort:
        manifest["selected"] = {
            "picks": len(picks),
            "first": picks[0].id,
            "seed": settings.seed,
            **effort.for_manifest(),
        }
    return manifest
