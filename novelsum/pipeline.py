"""The jobs from end to end: input, store, density, rounds, selected rows.

The way of a vector: :mod:`~novelsum.files.source` reads it, :mod:`~novelsum.files.ingest` checks it and writes it to
the :mod:`~novelsum.files.store`, :mod:`~novelsum.density.exact` finds its neighbours,
:mod:`~novelsum.selection.rounds` picks it or not, :mod:`~novelsum.report.output` writes what was picked.
"""

import dataclasses
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.sql import SparkSession

from novelsum.density.exact import estimate_density
from novelsum.density.factors import require_finite_powers, write_density_result
from novelsum.density.given import load_density
from novelsum.density.reference import mark_itself
from novelsum.density.state import State, state_of, tidy_state
from novelsum.diversity.strategies import Comparison, compare, for_manifest, print_comparison
from novelsum.errors import UsageError, error_of_a_task
from novelsum.files.ingest import ingest
from novelsum.files.location import REJECTED, Location
from novelsum.files.source import Look, Source, look, open_density, open_source
from novelsum.files.store import Pool
from novelsum.files.workplace import SelectedBefore, Workplace, check_output, identity, read_manifest, selected_before
from novelsum.preflight import check_pool, check_sources
from novelsum.report.output import metrics, now, versions, write_selected
from novelsum.report.summary import print_result
from novelsum.report.survey import survey
from novelsum.report.write import check_report, write_report
from novelsum.selection.already import log_already_selected
from novelsum.selection.rounds import Candidate, first_row, select
from novelsum.settings import SELECTING, Job, Settings
from novelsum.spark import interrupt, session
from novelsum.spark.local import remove_dead
from novelsum.spark.stages import Stages

logger = logging.getLogger("novelsum")


def run(job: Job, settings: Settings) -> None:
    """Run a job; raise UsageError or InputError where the user has to change something.

    A run that was cut goes on from the steps it has done, and one that is complete is not done again.
    """
    started = time.monotonic()
    session.require_classic(settings.master)
    if job in SELECTING:
        check_report(settings)
    named = ("input", "density", "reference", "already_selected", "remove")
    inputs = {name: getattr(settings, name) for name in named if getattr(settings, name)}
    states = [path for path in (settings.update, settings.save_state) if path]
    output = check_output(settings.output, [*inputs.values(), *states], settings.work_dir)
    seen = {name: look(path, output) for name, path in inputs.items()}
    before = selected_before(seen["already_selected"], output) if settings.already_selected else None
    if before:
        seen["already_selected"] = before.seen
    place = Workplace.of(output, settings.work_dir, identity(job, settings.for_manifest(job), seen))
    if place.is_complete(settings.overwrite):
        logger.info("%s holds the result of this very run already; there is nothing to do", output)
        place.tidy(settings.keep_work)
        for path in states:
            tidy_state(path)
        return
    with state_of(settings, place) as state, place.held(settings.overwrite, settings.keep_work) as lock:
        manifest = _staged(settings, place, state)
        if manifest is None:
            manifest = _Work(job, settings, place, seen, before, state).run(started)
        if place.is_staged():
            place.publish(lock)
        if state:
            state.commit(place.next_state() or {})
            place.settle()
        ingested = place.done("ingest")
        pool = Pool.from_json(place.work, ingested["pool"]) if ingested and settings.input else None
    print_result(job, settings, pool, output)
    if "comparison" in manifest:
        print_comparison({name: Comparison(**values) for name, values in manifest["comparison"].items()})


def _staged(settings: Settings, place: Workplace, state: State | None) -> dict[str, Any] | None:
    """The manifest of results that an earlier try of this run has finished, published or not, if they can be used.

    Raises UsageError where the state can no longer become what a published result was computed for.
    """
    manifest = place.staged()
    if state is None or (manifest is None and place.is_staged()):  # nothing to lose, or what was staged is lost
        return manifest
    following = place.next_state()
    if following is None or state.may_become(following):
        return manifest or (read_manifest(place.output) if following else None)
    if manifest is None and not settings.overwrite:
        raise UsageError(
            f"--output {place.output} holds a result whose rows are not in the state {state.folder}, which another run "
            "has changed since; run it again with --overwrite"
        )
    return None


class _Work:
    """The steps of a job, from its inputs to results in the stage; each is skipped where an earlier try has done it."""

    def __init__(
        self,
        job: Job,
        settings: Settings,
        place: Workplace,
        seen: dict[str, Look],
        before: SelectedBefore | None,
        state: State | None,
    ) -> None:
        """Open all inputs, as they were ``seen``; refuse, before Spark starts, what their footers already rule out."""
        self.job, self.settings, self.place, self.before, self.stages = job, settings, place, before, Stages()
        columns = settings.id_column, settings.embedding_column
        about = settings.group_column if settings.quota else None
        self._source = open_source(settings.input, *columns, seen["input"], about) if settings.input else None
        self.reference = open_source(settings.reference, *columns, seen["reference"]) if settings.reference else None
        self.state = state
        if self.state and self._source:
            self._source = self.state.check_source(self._source)
        if self.reference:
            wide = self.source.wide or self.reference.wide
            self._source, self.reference = (
                dataclasses.replace(source, wide=wide) for source in (self.source, self.reference)
            )
        self.removed = self.state.ids_to_remove(settings, seen.get("remove")) if self.state else frozenset()
        self.given = (
            open_density(settings.density, settings.id_column, seen["density"]) if job == "select_subset" else None
        )
        if self._source:
            check_sources(job, settings, self._source, self.given, self.reference, self.state)

    @property
    def source(self) -> Source:
        """The input of a run that has one."""
        assert self._source is not None
        return self._source

    def run(self, started: float) -> dict[str, Any]:
        """Do all steps; return the manifest, which lies in the stage with the results."""
        source, place = self._source, self.place
        read = f"{source.rows} rows in {len(source.files)} file(s) of {source.path}" if source else "no input"
        taken = f", {len(self.removed)} ids of {self.settings.remove} to take out" if self.removed else ""
        logger.info("%s: %s%s; result to %s", self.job, read, taken, place.output)
        place.check_steps()
        place.start_results()
        with self.stages.time("start"):
            spark = session.start(self.job, self.settings.master)
        try:
            remove_dead(spark.sparkContext, place.work)
            manifest, found = self._run(spark)
        finally:
            session.stop(spark)
        self._write_report(manifest, found)
        self.stages.seconds["total"] = round(time.monotonic() - started, 3)
        name = "metrics.json" if self.job in SELECTING else "_metrics.json"  # there it lies beside Parquet files
        (place.result / name).write_bytes(metrics(manifest))
        place.stage_manifest(manifest, self.state.following(place.key) if self.state else None)
        return manifest

    def _run(self, spark: SparkSession) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The manifest of results that lie in the stage, and what a report is to show."""
        if self.state and not self._source:
            return self._manifest(None, None, self._change_state(spark, self.state, None)), None
        pool, corpus = self._ingest(spark)
        check_pool(self.job, self.settings, self.source, pool, corpus, self.state)
        if self.job == "estimate_density":
            return self._manifest(pool, corpus, self._estimate(spark, pool, corpus)), None
        return self._select(spark, pool, corpus)

    def _ingest(self, spark: SparkSession) -> tuple[Pool, Pool | None]:
        place, settings = self.place, self.settings
        done = place.done("ingest")
        if done is None:
            with self.stages.time("ingest") as facts:
                place.restart()
                (place.stage / REJECTED).delete()
                (place.work / "store").make_folder()
                pool = ingest(spark, self.source, settings, place.work, place.stage)
                corpus = None
                if self.reference:
                    corpus = _ingest_reference(spark, settings, self.reference, pool)
                    pool = mark_itself(spark, pool, corpus, settings)
                facts.update(rows=pool.input_rows, candidates=pool.candidates, dimension=pool.dimension)
            done = {"pool": pool.for_json(), "corpus": corpus and corpus.for_json()}
            place.finish("ingest", done)
        reference = place.work / "reference"
        return (
            Pool.from_json(place.work, done["pool"]),
            Pool.from_json(reference, done["corpus"]) if done["corpus"] else None,
        )

    def _estimate(self, spark: SparkSession, pool: Pool, corpus: Pool | None) -> dict[str, Any]:
        """Density factors of all candidates, as a result."""
        if self.state:
            return self._change_state(spark, self.state, pool)
        density = self._density(spark, pool, corpus)
        with self.stages.time("write"):
            write_density_result(spark, pool, self.settings.id_column, self.place.result)
        return density

    def _change_state(self, spark: SparkSession, state: State, pool: Pool | None) -> dict[str, Any]:
        """Density factors of all rows of a state, as a result."""
        with self.stages.time("density"):
            self.place.restart("store", "equal")
            return state.add(spark, pool, self.removed, self.settings, self.place)

    def _density(self, spark: SparkSession, pool: Pool, corpus: Pool | None) -> dict[str, Any]:
        """Density factors of all candidates, beside the store; what the manifest says of them."""
        done = self.place.done("density")
        if done is None:
            with self.stages.time("density") as facts:
                self.place.restart("store", "reference", "itself")
                if self.given is None:
                    done = estimate_density(spark, pool, self.settings, corpus)
                else:
                    load_density(spark, pool, self.given)
                    done = {"method": "given"}
                facts.update(method=done["method"])
            self.place.finish("density", done)
        return done

    def _select(
        self, spark: SparkSession, pool: Pool, corpus: Pool | None
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The manifest of a selection, whose rows lie in the stage, and what its report is to show."""
        settings, place, stages = self.settings, self.place, self.stages
        first = None if settings.already_selected else first_row(spark, pool, settings)
        density = self._density(spark, pool, corpus)
        require_finite_powers(pool, settings)
        begun = self._begin(spark, pool, corpus)
        samples = int(begun.pop("samples"))
        with stages.time("selection") as facts:
            picks, effort = select(spark, pool, settings, first, samples)
            facts.update(picks=len(picks), rounds=effort.rounds)
        with stages.time("write"):
            write_selected(spark, self.source, picks, settings.id_column, place.result)
        manifest = self._manifest(pool, corpus, density)
        manifest["selected"] = {
            "picks": len(picks),
            "already_selected": samples,
            **begun,
            "first": picks[0].id,
            "seed": settings.seed,
            **effort.for_manifest(),
        }
        if settings.compare:
            with _spared("the comparison cannot be made"), stages.time("compare"):
                rows = [pick.row for pick in picks]
                manifest["comparison"] = for_manifest(compare(spark, pool, settings, rows, stages.seconds["selection"]))
        return manifest, self._survey(spark, pool, picks)

    def _begin(self, spark: SparkSession, pool: Pool, corpus: Pool | None) -> dict[str, Any]:
        """How many samples selected before the pick log begins with, and of which selections they are."""
        done = self.place.done("begin")
        if done is None:
            with self.stages.time("begin") as facts:
                for folder in ("picks", "already"):
                    (pool.work / folder).delete()
                (pool.work / "picks").make_folder()
                done = {"samples": 0}
                if self.before:
                    done = log_already_selected(
                        spark, self.source, pool, corpus, self.given, self.settings, self.before
                    )
                facts.update(samples=done["samples"])
            self.place.finish("begin", done)
        return done

    def _survey(self, spark: SparkSession, pool: Pool, picks: list[Candidate]) -> dict[str, Any] | None:
        """What the report is to show, or None where there is to be none."""
        if not self.settings.report:
            return None
        selected = self.place.result / "selected" / "part-00000.parquet"
        with _spared("the report cannot be made"), self.stages.time("survey"):
            return survey(spark, pool, self.settings, self.source, picks, selected)
        return None

    def _write_report(self, manifest: dict[str, Any], found: dict[str, Any] | None) -> None:
        if found is None:
            return
        with _spared("the report cannot be drawn"), self.stages.time("report"):
            write_report(self.place.result, manifest, found)

    def _manifest(self, pool: Pool | None, corpus: Pool | None, density: dict[str, Any]) -> dict[str, Any]:
        manifest: dict[str, Any] = {
            "job": self.job,
            "finished": now(),
            "settings": self.settings.for_manifest(self.job),
        }
        if pool:
            manifest["input"] = {
                "path": str(Location.of(self.source.path)),
                "files": len(self.source.files),
                **_table(self.source),
                "fingerprint": pool.fingerprint,
                **pool.counts(),
            }
        manifest |= {"density": density, "versions": versions(), "seconds": self.stages.seconds}
        if corpus:
            manifest["reference"] = {
                "path": str(Location.of(self.settings.reference or "")),
                **_table(self.reference),
                "fingerprint": corpus.fingerprint,
                **corpus.counts(),
            }
        return manifest


def _table(source: Source | None) -> dict[str, Any]:
    """What a manifest says of the table that an input is, if it is one."""
    return {"table": source.table} if source and source.table else {}


def _ingest_reference(spark: SparkSession, settings: Settings, reference: Source, pool: Pool) -> Pool:
    """The reference as a pool of its own, its bad rows left out as those of the input are."""
    work = pool.work / "reference"
    (work / "store").make_folder()
    return ingest(spark, reference, dataclasses.replace(settings, input=reference.path, group_column=None), work, work)


@contextmanager
def _spared(what: str) -> Iterator[None]:
    """Log a failure of what a selection can do without. A signal, whatever Spark makes of it, still ends the run."""
    try:
        yield
    except Exception as error:
        if interrupt.came():
            raise
        told = error_of_a_task(error)
        logger.error("%s; the selection is not affected: %s", what, told or type(error).__name__, exc_info=not told)
