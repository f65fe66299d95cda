"""The job that measures data sets: input, store, a pass over the distances of each, a ranking, tables and a page.

:mod:`~novelsum.files.ingest` reads each data set as it does for a selection, :mod:`~novelsum.diversity.measuring`
measures it, :mod:`~novelsum.diversity.comparing` ranks the sets, also beside random subsets of the pool, and
:mod:`~novelsum.diversity.answer` and :mod:`~novelsum.diversity.page` say what comes of it.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from novelsum.diversity.answer import as_table, lines_of, names_of, print_answer, rows_of, tell
from novelsum.diversity.comparing import Comparing
from novelsum.diversity.measuring import Corpus, Measured
from novelsum.diversity.onepass import DataSet
from novelsum.diversity.page import PAGE, check_page, draw_page
from novelsum.diversity.ranking import for_manifest
from novelsum.errors import InputError
from novelsum.files.ingest import ingest
from novelsum.files.location import DUPLICATES, MANIFEST, REJECTED
from novelsum.files.source import Source, look, open_source, require_same_ids
from novelsum.files.store import Pool
from novelsum.files.workplace import Workplace, check_output, identity
from novelsum.formulas import EQUATIONS
from novelsum.report.output import input_for_manifest, metrics, now, versions
from novelsum.settings import MeasureSettings
from novelsum.spark import session
from novelsum.spark.local import remove_dead
from novelsum.spark.stages import Stages

logger = logging.getLogger("novelsum")


def measure(settings: MeasureSettings, is_told: bool = True, names: Mapping[str, str] | None = None) -> None:
    """Run the job; raise UsageError or InputError where the user has to change something.

    The result is printed where it ``is_told``. ``names``: what the data of some paths is called.
    """
    started = time.monotonic()
    session.require_classic(settings.master)
    if settings.report:
        check_page()
    paths = [*settings.input, *([settings.reference] if settings.reference else [])]
    output = check_output(settings.output, paths, settings.work_dir)
    inputs = [f"input {number + 1}" for number in range(len(settings.input))] + ["reference"]
    seen = {name: look(path, output) for name, path in zip(inputs, paths, strict=False)}
    place = Workplace.of(output, settings.work_dir, identity("measure_diversity", settings.for_manifest(), seen))
    if place.is_complete(settings.overwrite):
        logger.info("%s holds the result of this very run already; there is nothing to do", output)
        return
    columns = settings.id_column, settings.embedding_column
    sources = [open_source(path, *columns, seen_of) for path, seen_of in zip(paths, seen.values(), strict=True)]
    _check_sizes(settings, sources)
    with place.held(settings.overwrite, settings.keep_work, goes_on=False) as lock:
        lines = _measure(settings, place, paths, sources, names_of(settings.input, names), started)
        place.publish(lock)
    if is_told:
        lines += ["", f"result     {output / 'diversity.json'}"]
        lines += [f"page       {output / PAGE}"] if settings.report else []
        print_answer([*lines, f"manifest   {output / MANIFEST}"])


def _measure(
    settings: MeasureSettings,
    place: Workplace,
    paths: list[str],
    sources: list[Source],
    names: list[str],
    started: float,
) -> list[str]:
    """Measure all data sets; leave the results in the stage, and return what to print."""
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
        sets = [DataSet(pool.work, pool.blocks) for pool in pools]
        with clock.time("diversity"):
            corpus = Corpus.of(context, sets.pop(), settings.seed) if settings.reference else None
            comparing = Comparing(context, settings, names, sets, corpus, pools[0].dimension, folder)
            found = comparing.whole()
        with clock.time("comparison"):
            ranked, pool_rows = comparing.ranked(found)
    finally:
        session.stop(context)
    for pool in pools:
        for name in (REJECTED, DUPLICATES):
            place.stage_aside(pool.work, name, f"{name}/{pool.work.name}")
    rows = rows_of(settings, pools, found, ranked)
    told = tell(settings, found, ranked, pool_rows)
    (place.result / "diversity.parquet").write_parquet(as_table(rows))
    (place.result / "diversity.json").write_bytes((json.dumps(rows, indent=1, ensure_ascii=False) + "\n").encode())
    manifest = {
        **_manifest(settings, sources, pools, found, clock),
        "pool_rows": pool_rows,
        "ranking": for_manifest(ranked, settings.input),
        "told": dataclasses.asdict(told),
    }
    if settings.report:
        with clock.time("report"):
            (place.result / PAGE).write_bytes(draw_page(manifest, rows, ranked, found[0].values).encode())
    clock.seconds["total"] = round(time.monotonic() - started, 3)
    (place.result / "metrics.json").write_bytes(metrics({**manifest, "diversity": rows}))
    place.stage_manifest(manifest)
    return lines_of(ranked, found, told)


# --- refusals ---------------------------------------------------------------------------------------------


def _check_sizes(settings: MeasureSettings, sources: list[Source]) -> None:
    """Refuse before Spark starts what the footers already rule out."""
    if not any(settings.density_powers):
        return
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
    most = max(settings.neighbors) if any(settings.density_powers) else 0
    for path, pool in list(zip(paths, pools, strict=True))[-1 if settings.reference else 0 :]:
        for formula in settings.formula:
            among_distinct = EQUATIONS[formula].among_distinct
            points = pool.distinct if among_distinct else pool.candidates
            # A point is not its own neighbour, but of a reference corpus it may be no part.
            if most and most >= points + (not among_distinct and settings.reference is not None):
                kind = "distinct embeddings" if among_distinct else "rows left"
                raise InputError(
                    f"--neighbors {most} must be below the number of {kind} of {path}, which is {points}: a point is "
                    "not its own neighbour; ask for fewer"
                )


def _manifest(
    settings: MeasureSettings, sources: list[Source], pools: list[Pool], found: list[Measured], clock: Stages
) -> dict[str, Any]:
    inputs = [
        {**input_for_manifest(source, pool), "files": len(source.files)}
        for source, pool in zip(sources, pools, strict=True)
    ]
    return {
        "job": "measure_diversity",
        "finished": now(),
        "settings": settings.for_manifest(),
        "inputs": inputs[: len(found)],
        "reference": inputs[-1] if settings.reference else None,
        "measured_rows": [result.measured for result in found],
        "versions": versions(),
        "seconds": clock.seconds,
    }
