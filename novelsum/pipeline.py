"""The jobs from end to end, a numbered plan that the code below follows in order.

 1. Look at all inputs: which files they mean, and whether the output holds the result of this very run already.
 2. Hold the output, and the state if there is one. Results that an earlier try has staged are published at once (11).
 3. Where the input is texts, embed them to ``0-embed/`` (:mod:`~novelsum.text.job`): their embeddings are the input.
    Open the inputs, and refuse what their footers rule out (:mod:`~novelsum.preflight`).

The steps write to a folder of their own in the work directory (:mod:`~novelsum.files.workplace`), read what those
before them have left, and are skipped where an earlier try has done them:

 4. Ingest, to ``1-ingest/``: check the rows of input and reference, write the candidates to the store, set bad rows
    aside. Then thin, to ``2-thin/``: with ``--near-duplicates`` a store without near-copies takes the place of that
    one. What only the checked rows can tell is refused here.
 5. Density, from 4 to ``3-density/``: the density factor of every candidate. With a state, those of all its rows.
 6. Begin, from 4 and 5 to ``4-begin/``: the pick log, with the samples selected before.
 7. Select, from 4, 5 and 6: go on with that log, the only thing written to, until the budget is picked; by NovelSelect
    or another strategy (:mod:`novelsum.strategies`).
 8. Write the results to the stage: density factors, or the rows of the picks with what is nearest to each of all
    selected before it, and their records for a training file; on request what is nearest to the candidates left out,
    and where all lie on the map.
 9. Compare, from 4, 5, 6 and 7 to ``5-compare/``: what other strategies select under the same rules.
10. Report, from 4, 5 and 7: survey pool and picks, and draw.
11. Publish: the manifest is staged, the training file is written, and the results move from the stage to the output.
    Last comes the state.

The way of a vector: :mod:`~novelsum.files.source` reads it, :mod:`~novelsum.files.ingest` checks it and writes it to
the :mod:`~novelsum.files.store` (4), :mod:`~novelsum.density.exact` finds its neighbours (5),
:mod:`~novelsum.selection.rounds` picks it or not (7), :mod:`~novelsum.report.output` writes what was picked (8).
"""

import dataclasses
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark import SparkContext

from novelsum.density.exact import estimate_density
from novelsum.density.factors import require_finite_powers, write_density_result
from novelsum.density.given import load_density
from novelsum.density.reference import mark_itself
from novelsum.density.state import State, state_of, tidy_state
from novelsum.density.thin import thin
from novelsum.diversity.parts import PARTS, novelsum_of_parts
from novelsum.errors import UsageError, error_of_a_task
from novelsum.files.ingest import ingest
from novelsum.files.location import DUPLICATES, MAP, REJECTED, REJECTED_NEAR, Location
from novelsum.files.lock import Held
from novelsum.files.reuse import estimated_on
from novelsum.files.source import Look, Source, look, open_density, open_source
from novelsum.files.store import Pool
from novelsum.files.workplace import SelectedBefore, Workplace, check_output, identity, read_manifest, selected_before
from novelsum.preflight import check_pool, check_sources
from novelsum.report.crowd import crowded
from novelsum.report.output import input_for_manifest, metrics, now, versions, write_selected
from novelsum.report.projection import write_map
from novelsum.report.summary import print_result
from novelsum.report.survey import survey
from novelsum.report.write import check_report, write_report
from novelsum.selection import picklog
from novelsum.selection.already import log_already_selected
from novelsum.selection.earlier import Earlier, earlier_picks
from novelsum.selection.nearest import Selected, nearest_earlier, write_rejected_near
from novelsum.selection.rounds import Candidate, first_row, select
from novelsum.settings import SELECTING, Job, Settings
from novelsum.spark import interrupt, session
from novelsum.spark.local import remove_dead
from novelsum.spark.stages import Stages
from novelsum.strategies.compare import compare, print_comparison
from novelsum.strategies.select import select_by
from novelsum.text.export import TrainingFile, finish, is_prepared, prepare
from novelsum.text.job import Texts, embed_input, the_model
from novelsum.text.records import look_for_text

logger = logging.getLogger("novelsum")


def run(job: Job, settings: Settings, is_told: bool = True) -> None:
    """Run a job; raise UsageError or InputError where the user has to change something.

    A run that was cut goes on from the steps it has done, and one that is complete is not done again. The result is
    printed where it ``is_told``.
    """
    started = time.monotonic()
    session.require_classic(settings.master)
    if settings.model:
        settings = dataclasses.replace(settings, text_column=settings.text_column or "text")
    place, seen, before = _look(job, settings)
    complete, file = place.is_complete(settings.overwrite), TrainingFile.of(settings)
    owed = file is not None and file.is_owed(place, complete, settings.overwrite)
    if complete and not owed:
        logger.info("%s holds the result of this very run already; there is nothing to do", place.output)
        place.tidy(settings.keep_work)
        for path in _states(settings):
            tidy_state(path)
        return
    if settings.model and not complete:
        the_model(settings)  # or what it needs is told before the output is touched
    with state_of(settings, place) as state, place.held(settings.overwrite, settings.keep_work) as lock:
        manifest = read_manifest(place.output) if complete else _staged(settings, place, state)
        if manifest is None:
            clock, texts = Stages(), Texts()
            if settings.model:
                texts = embed_input(settings, place, seen["input"], clock)
                seen["input"] = texts.seen or seen["input"]
            inputs = _open(job, settings, seen, before, state)
            manifest = _Steps(job, settings, place, inputs, state, clock, texts).run(started)
        if file:
            _export(job, settings, place, file, manifest)
        _publish(place, lock, state)
        if file:
            file.forget(place)
        pool = _pools(place)[0] if settings.input and place.done("ingest") else None
    if complete or not is_told:
        return
    print_result(job, settings, pool, place.output)
    if "comparison" in manifest:
        print_comparison(manifest["comparison"])


# --- 1. look ----------------------------------------------------------------------------------------------


def _look(job: Job, settings: Settings) -> tuple[Workplace, dict[str, Look], SelectedBefore | None]:
    """Where the run works and publishes, its inputs by their settings, and what ``already_selected`` means."""
    if job in SELECTING:
        check_report(settings)
    named = ("input", "density", "reference", "already_selected", "remove")
    inputs = {name: getattr(settings, name) for name in named if getattr(settings, name)}
    output = check_output(settings.output, [*inputs.values(), *_states(settings)], settings.work_dir)
    if file := TrainingFile.of(settings):
        file.check_place(output, list(inputs.values()), settings.work_dir)
    with_texts = ("input",) if settings.model else ()
    seen = {name: (look_for_text if name in with_texts else look)(path, output) for name, path in inputs.items()}
    before = selected_before(seen["already_selected"], output) if settings.already_selected else None
    if before:
        seen["already_selected"] = before.seen
    place = Workplace.of(output, settings.work_dir, identity(job, settings.for_manifest(job), seen))
    return place, seen, before


def _states(settings: Settings) -> list[str]:
    return [path for path in (settings.update, settings.save_state) if path]


# --- 2. hold ----------------------------------------------------------------------------------------------


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


# --- 3. open ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Inputs:
    """All inputs, open: ``given`` density factors, ids ``removed`` from a state, samples selected ``before``."""

    source: Source | None
    reference: Source | None
    given: Source | None
    removed: frozenset[Any]
    before: SelectedBefore | None


def _open(
    job: Job, settings: Settings, seen: dict[str, Look], before: SelectedBefore | None, state: State | None
) -> _Inputs:
    """Open all inputs, as they were ``seen``; refuse, before Spark starts, what their footers already rule out."""
    columns = settings.id_column, settings.embedding_column
    about = settings.group_column if settings.quota else None
    source = open_source(settings.input, *columns, seen["input"], about) if settings.input else None
    reference = open_source(settings.reference, *columns, seen["reference"]) if settings.reference else None
    if state and source:
        source = state.check_source(source)
    if source and reference:
        wide = source.wide or reference.wide
        source, reference = (dataclasses.replace(one, wide=wide) for one in (source, reference))
    removed = state.ids_to_remove(settings, seen.get("remove")) if state else frozenset()
    given = open_density(settings.density, settings.id_column, seen["density"]) if job == "select_subset" else None
    if source:
        check_sources(job, settings, source, given, reference, state)
        if file := TrainingFile.of(settings):
            file.column(source)
    return _Inputs(source, reference, given, removed, before)


# --- the steps --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Steps:
    """The steps of a job, from its inputs to results in the stage."""

    job: Job
    settings: Settings
    place: Workplace
    inputs: _Inputs
    state: State | None
    clock: Stages = field(default_factory=Stages)
    texts: Texts = field(default_factory=Texts)

    @property
    def source(self) -> Source:
        """The input of a run that has one."""
        assert self.inputs.source is not None
        return self.inputs.source

    @property
    def _files(self) -> int:
        """How many files the input has: of texts, where they were embedded."""
        files: int = self.texts.facts.get("text", {}).get("files", len(self.source.files))
        return files

    def run(self, started: float) -> dict[str, Any]:
        """Do all steps; return the manifest, which lies in the stage with the results."""
        source, removed, place = self.inputs.source, self.inputs.removed, self.place
        read = f"{source.rows} rows in {self._files} file(s) of {source.path}" if source else "no input"
        taken = f", {len(removed)} ids of {self.settings.remove} to take out" if removed else ""
        logger.info("%s: %s%s; result to %s", self.job, read, taken, place.output)
        place.check_steps()
        place.start_results()
        context = self.texts.context
        if context is None:
            with self.clock.time("start"):
                context = session.start(self.job, self.settings.master)
        try:
            remove_dead(context, self._store)
            manifest, shown = self._with_spark(context)
        finally:
            session.stop(context)
        self._draw(manifest, shown)
        self.clock.seconds["total"] = round(time.monotonic() - started, 3)
        name = "metrics.json" if self.job in SELECTING else "_metrics.json"  # there it lies beside Parquet files
        (place.result / name).write_bytes(metrics(manifest))
        if source:
            place.stage_aside(place.folder("embed"), REJECTED)
            place.stage_aside(place.folder("ingest"), REJECTED)
        if source and not self.state:  # of equal embeddings in a night and before it, the state knows
            place.stage_aside(self._store, DUPLICATES)
        place.stage_manifest(manifest, self.state.following(place.key) if self.state else None)
        return manifest

    def _with_spark(self, context: SparkContext) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The manifest of results that lie in the stage, and what a report is to show."""
        if self.state and not self.inputs.source:
            return self._manifest(None, None, self._change_state(context, self.state, None)), None
        self._ingest(context)
        self._thin(context)
        pool, corpus = _pools(self.place)
        check_pool(self.job, self.settings, self.source, pool, corpus, self.state)
        if self.job in SELECTING:
            return self._select_all(context, pool, corpus)
        if self.state:
            density = self._change_state(context, self.state, pool)
        else:
            density, factors = self._density(context, pool, corpus)
            self._write(context, pool, factors)
        return self._manifest(pool, corpus, density), None

    def _select_all(
        self, context: SparkContext, pool: Pool, corpus: Pool | None
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The manifest of a selection, whose rows lie in the stage, and what its report is to show."""
        settings = self.settings
        first = None if settings.already_selected else first_row(context, pool, settings)
        density, factors = self._density(context, pool, corpus)
        median = require_finite_powers(pool, factors, settings)
        begun, log = self._begin(context, pool, corpus, factors)
        earlier = self._earlier(context, pool, factors, density, first)
        picks, selected = self._select(context, pool, factors, log, first, begun, earlier)
        nearest = self._nearest(context, pool, factors, log, picks, begun)
        selected["crowded"] = crowded(context, pool, settings, picks, median)
        self._write(context, pool, factors, picks, nearest)
        self._export(context)
        manifest = {**self._manifest(pool, corpus, density), "selected": selected}
        if settings.compare:
            with _spared("the comparison cannot be made"):
                manifest["comparison"] = self._compare(context, pool, corpus, factors, log, first, begun, picks)
        return manifest, self._survey(context, pool, factors, log, picks, begun["samples"])

    # --- 4. ingest ----------------------------------------------------------------------------------------

    @property
    def _store(self) -> Location:
        """Where the store of the candidates lies."""
        return self.place.folder("ingest" if self.settings.near_duplicates is None else "thin")

    def _ingest(self, context: SparkContext) -> None:
        """The good rows, and the reference as a pool of its own if there is one."""
        settings, reference = self.settings, self.inputs.reference
        if settings.near_duplicates is not None:  # which of equal embeddings stays is decided with their near-copies
            settings = dataclasses.replace(settings, duplicates="keep")

        def step(folder: Location) -> dict[str, Any]:
            with self.clock.time("ingest") as facts:
                pool, corpus = ingest(context, self.source, settings, folder), None
                if reference:
                    corpus = ingest(context, reference, settings.of_corpus(reference.path), folder / _REFERENCE)
                    pool = mark_itself(context, pool, corpus, settings)
                facts.update(rows=pool.input_rows, candidates=pool.candidates, dimension=pool.dimension)
            return {"pool": pool.for_json(), "corpus": corpus and corpus.for_json()}

        self.place.do("ingest", step)

    def _thin(self, context: SparkContext) -> None:
        """The candidates, where they are fewer than the good rows."""

        def step(folder: Location) -> dict[str, Any]:
            if self.settings.near_duplicates is None:
                return {}
            with self.clock.time("thin") as facts:
                pool = thin(context, _pools(self.place)[0], self.settings, folder)
                dropped = pool.duplicates_dropped + pool.near_duplicates_dropped
                facts.update(copies=pool.duplicates_dropped, dropped=dropped, candidates=pool.candidates)
            return {"pool": pool.for_json()}

        self.place.do("thin", step)

    # --- 5. density ---------------------------------------------------------------------------------------

    def _density(self, context: SparkContext, pool: Pool, corpus: Pool | None) -> tuple[dict[str, Any], Location]:
        """What the manifest says of the density factors of all candidates, and where they lie."""

        def step(folder: Location) -> dict[str, Any]:
            with self.clock.time("density") as facts:
                if self.inputs.given is None:
                    density = estimate_density(context, pool, self.settings, folder, corpus)
                else:
                    load_density(context, pool, self.inputs.given, folder)
                    density = {"method": "given"}
                facts.update(method=density["method"])
            return density

        on = estimated_on(pool, corpus, self.settings)
        return self.place.do("density", step, on), self.place.folder("density")

    def _change_state(self, context: SparkContext, state: State, pool: Pool | None) -> dict[str, Any]:
        """Density factors of all rows of a state, as a result. Never skipped: what it is to become is not on disk."""
        with self.clock.time("density"):
            folder = self.place.emptied("density")
            return state.add(context, pool, self.inputs.removed, self.settings, folder, self.place)

    # --- 6. begin -----------------------------------------------------------------------------------------

    def _begin(
        self, context: SparkContext, pool: Pool, corpus: Pool | None, factors: Location
    ) -> tuple[dict[str, Any], Location]:
        """How many samples selected before the pick log begins with, of which selections; and where the log lies."""
        given, before = self.inputs.given, self.inputs.before

        def step(folder: Location) -> dict[str, Any]:
            with self.clock.time("begin") as facts:
                begun: dict[str, Any] = {"samples": 0}
                if before:
                    begun = log_already_selected(
                        context, self.source, pool, corpus, factors, given, self.settings, before, folder
                    )
                facts.update(samples=begun["samples"])
            return begun

        return self.place.do("begin", step), self.place.folder("begin")

    # --- 7. select ----------------------------------------------------------------------------------------

    def _earlier(
        self, context: SparkContext, pool: Pool, factors: Location, density: dict[str, Any], first: int | None
    ) -> Earlier | None:
        """The picks of this run's result with another budget, if the output has it and nobody asks to do them anew."""
        settings, output = self.settings, self.place.output
        earlier = None if settings.overwrite else self.place.earlier()
        if earlier is None:
            return None
        before = earlier["input"]
        if (before["fingerprint"], before["candidates"]) != (pool.fingerprint, pool.candidates):
            logger.warning("the candidates of the result in %s were others; the selection begins anew", output)
            return None
        if earlier["density"] != density:
            logger.warning("the density in %s was estimated in another way; the selection begins anew", output)
            return None
        most = settings.picks(pool.candidates)
        had = earlier["selected"]["picks"]
        kept = f"the first {most:,} of the {had:,}" if most < had else f"the {had:,}"
        logger.info("going on from %s picks of the result in %s", kept, output)
        return earlier_picks(context, pool, factors, output / "selected", settings.id_column, first, most)

    def _select(
        self,
        context: SparkContext,
        pool: Pool,
        factors: Location,
        log: Location,
        first: int | None,
        begun: dict[str, Any],
        earlier: Earlier | None,
    ) -> tuple[list[Candidate], dict[str, Any]]:
        """The picks, and what the manifest says of them."""
        with self.clock.time("selection") as facts:
            by = select if self.settings.strategy == "novelselect" else select_by
            picks, effort = by(context, pool, factors, log, self.settings, first, begun["samples"], earlier)
            told = effort.for_manifest()
            facts.update(picks=len(picks), **{"rounds": told["rounds"]} if "rounds" in told else {})
        selected = {
            "strategy": self.settings.strategy,
            "picks": len(picks),
            "already_selected": begun["samples"],
            **{name: value for name, value in begun.items() if name != "samples"},
            "first": picks[0].id,
            "seed": self.settings.seed,
            **told,
        }
        return picks, selected

    # --- 8. write -----------------------------------------------------------------------------------------

    def _nearest(
        self,
        context: SparkContext,
        pool: Pool,
        factors: Location,
        log: Location,
        picks: list[Candidate],
        begun: dict[str, Any],
    ) -> tuple[pa.Array, pa.Array]:
        """Of each pick the id of the nearest sample selected before it, and the distance; others are written."""
        settings = self.settings
        with self.clock.time("nearest"):
            selected = Selected.of(context, pool, log, picks, begun["samples"])
            if settings.explain_rejected:
                folder = self.place.result / REJECTED_NEAR
                write_rejected_near(context, pool, factors, log, selected, settings, folder)
            return nearest_earlier(context, pool, log, selected, settings.metric).of(selected)

    def _write(
        self,
        context: SparkContext,
        pool: Pool,
        factors: Location,
        picks: list[Candidate] | None = None,
        nearest: tuple[pa.Array, pa.Array] | None = None,
    ) -> None:
        """Write the rows of the picks, or where none were to be made the density factors of all candidates."""
        column, result = self.settings.id_column, self.place.result
        with self.clock.time("write"):
            if picks is None or nearest is None:
                write_density_result(context, pool, factors, column, result)
                return
            write_selected(context, self.source, picks, nearest, column, result)
            if self.settings.map:
                write_map(context, pool, self.settings, picks, result / MAP)

    def _export(self, context: SparkContext) -> None:
        """Write the records of the picks to the stage, where a training file is asked for."""
        if file := TrainingFile.of(self.settings):
            with self.clock.time("export"):
                embedded = _embedded(self.settings, self.texts.facts or None)
                prepare(context, file, self.place, self.settings.id_column, embedded)

    # --- 9. compare ---------------------------------------------------------------------------------------

    def _compare(
        self,
        context: SparkContext,
        pool: Pool,
        corpus: Pool | None,
        factors: Location,
        log: Location,
        first: int | None,
        begun: dict[str, Any],
        picks: list[Candidate],
    ) -> dict[str, Any]:
        """What the manifest says of other ways to select under the same rules."""
        seconds = self.clock.seconds["selection"]
        with self.clock.time("compare"):
            folder = self.place.emptied("compare")
            begun_with = (first, begun["samples"], picks, seconds)
            return compare(context, pool, corpus, factors, log, self.settings, *begun_with, folder)

    # --- 10. report ---------------------------------------------------------------------------------------

    def _survey(
        self, context: SparkContext, pool: Pool, factors: Location, log: Location, picks: list[Candidate], begun: int
    ) -> dict[str, Any] | None:
        """What the report is to show, or None where there is to be none."""
        if not self.settings.report:
            return None
        selected = self.place.result / "selected" / "part-00000.parquet"
        with _spared("the report cannot be made"), self.clock.time("survey"):
            measure = partial(novelsum_of_parts, context, pool, self.settings, picks, self.place.stage / PARTS)
            before = picklog.rows(log, begun)
            return survey(context, pool, factors, self.settings, self.source, picks, before, selected, measure)
        return None

    def _draw(self, manifest: dict[str, Any], shown: dict[str, Any] | None) -> None:
        if shown is None:
            return
        with _spared("the report cannot be drawn"), self.clock.time("report"):
            write_report(self.place.result, manifest, shown)

    # --- 11. publish --------------------------------------------------------------------------------------

    def _manifest(self, pool: Pool | None, corpus: Pool | None, density: dict[str, Any]) -> dict[str, Any]:
        manifest: dict[str, Any] = {
            "job": self.job,
            "finished": now(),
            "settings": self.settings.for_manifest(self.job),
            **self.texts.facts,
        }
        if pool:
            manifest["input"] = {**input_for_manifest(self.source, pool), "files": self._files}
        manifest |= {"density": density, "versions": versions(), "seconds": self.clock.seconds}
        if corpus and self.inputs.reference:
            manifest["reference"] = input_for_manifest(self.inputs.reference, corpus)
        return manifest


_REFERENCE = "reference"
"""Where ingest keeps the reference in its folder."""


def _pools(place: Workplace) -> tuple[Pool, Pool | None]:
    """The candidates that ingest has left, thinned where they are to be; and the reference if there is one."""
    ingested, thinned = place.done("ingest"), place.done("thin")
    assert ingested is not None
    folder = place.folder("ingest")
    corpus = Pool.from_json(folder / _REFERENCE, ingested["corpus"]) if ingested["corpus"] else None
    if thinned:
        return Pool.from_json(place.folder("thin"), thinned["pool"]), corpus
    return Pool.from_json(folder, ingested["pool"]), corpus


def _embedded(settings: Settings, manifest: dict[str, Any] | None) -> dict[str, Any] | None:
    """What is told of the input where it was texts: by this run, or by the job that wrote the input."""
    told = manifest if settings.model else read_manifest(Location.of(settings.input))
    embedded: dict[str, Any] | None = (told or {}).get("embedded")
    return embedded


def _export(job: Job, settings: Settings, place: Workplace, file: TrainingFile, manifest: dict[str, Any]) -> None:
    """Write the training file of a selection that is staged or published, and enter it into the manifest.

    Spark starts again only where the records do not lie in the stage already: where the selection was made before.
    """
    if not is_prepared(file, place):
        context = session.start(job, settings.master)
        try:
            prepare(context, file, place, settings.id_column, _embedded(settings, manifest))
        finally:
            session.stop(context)
    exported = finish(file, place)
    place.note("exported", exported)
    logger.info("%s records, %s bytes, to %s", exported["records"], exported["bytes"], file.target)


def _publish(place: Workplace, lock: Held, state: State | None) -> None:
    """Move the results from the stage to the output; then the state becomes what they were computed for."""
    if place.is_staged():
        place.publish(lock)
    if state:
        state.commit(place.next_state() or {})
        place.settle()


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
