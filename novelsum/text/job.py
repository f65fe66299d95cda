"""From records of text to embeddings: the job embed_text, and the first step of a selection that begins with texts.

The job also takes vectors that exist already: of the same records, or with nothing but ids.

Both plan (:mod:`~novelsum.text.plan`), embed (:mod:`~novelsum.text.embedding`), and go on with the pieces that are not
embedded yet when they are run again. What is planned lies in the work directory; so do the embeddings of a selection,
those of the job lie in the stage until all are there, and are published together.
"""

import importlib.metadata
import json
import logging
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from pyspark import SparkContext

from novelsum.errors import DamageError, UsageError
from novelsum.files.location import MANIFEST, REJECTED, Location
from novelsum.files.source import Look, look
from novelsum.files.workplace import Workplace, check_output, identity, read_manifest
from novelsum.report.output import metrics, now, versions
from novelsum.settings import EmbedSettings, Settings
from novelsum.spark import session
from novelsum.spark.stages import Stages
from novelsum.text.embedders import Model, model_of
from novelsum.text.embedding import OWN, Facts, Work, embed
from novelsum.text.given import (
    Given,
    counted,
    in_order,
    look_for_ids,
    look_for_vectors,
    open_vectors,
    read_ids,
    require_as_many,
)
from novelsum.text.plan import Plan, make_plan
from novelsum.text.reading import Wanted
from novelsum.text.records import look_for_text, open_files
from novelsum.text.withids import write_with_ids

logger = logging.getLogger("novelsum")

_PLAN, _PLANNED, _PARTS = "plan.json", "_plan", "parts"
_PACKAGES = ("torch", "transformers", "sentence-transformers")


def embed_text(settings: EmbedSettings) -> None:
    """Run the job; raise UsageError or InputError where the user has to change something."""
    started = time.monotonic()
    session.require_classic(settings.master)
    model = None if settings.embeddings else the_model(settings)
    read = [path for path in (settings.input, settings.embeddings, settings.ids) if path]
    output = check_output(settings.output, read)
    seen: dict[str, Look] = {}
    if settings.input:
        seen["input"] = look_for_text(settings.input, output)
    if settings.embeddings:
        seen["embeddings"] = look_for_vectors(settings.embeddings, output)
    if settings.ids:
        seen["ids"] = look_for_ids(settings.ids)
    place = Workplace.of(output, None, identity("embed_text", settings.for_manifest(), seen))
    if place.is_complete(settings.overwrite):
        logger.info("%s holds the result of this very run already; there is nothing to do", output)
        place.tidy(False)
        return
    with place.held(settings.overwrite, False) as lock:
        manifest = place.staged()
        if manifest is None:
            manifest = _run(settings, model or seen["embeddings"], seen, place, started)
        place.publish(lock)
    _print(manifest, output)


@dataclass(frozen=True)
class Texts:
    """Texts of a selection's input that were embedded, if it has any: what the manifest is to say of them, the look at
    their embeddings, by the path of the texts, and Spark, if it had to be started.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    seen: Look | None = None
    context: SparkContext | None = None


def embed_input(settings: Settings, place: Workplace, seen: Look, clock: Stages) -> Texts:
    """Embed the texts of a selection's input, as they were ``seen``, unless an earlier try has done it."""
    context = None
    place.check_steps()
    content, parts = place.done("embed"), place.folder("embed") / _PARTS
    if content is None:
        model = the_model(settings)
        with clock.time("start"):
            context = session.start("curate", settings.master)
        folder = place.begun("embed")
        if "embedded" in (read_manifest(place.output) or {}):
            logger.info(
                "the embeddings of the result in %s are gone, so its texts are embedded again; --keep-work leaves "
                "them, and embed_text makes them once for many selections",
                place.output,
            )
        content = _embed(context, settings, seen, model, folder, parts, folder / REJECTED, clock)
        place.finish("embed", content)
    return Texts(content, replace(look(str(parts)), path=seen.path), context)


def the_model(settings: Settings | EmbedSettings) -> Model:
    """The model that the settings name; raise UsageError where there can be none."""
    assert settings.model is not None
    return model_of(settings.model, settings.backend, settings.max_tokens, settings.server, settings.in_flight)


def _run(
    settings: EmbedSettings, vectors: Model | Look, seen: dict[str, Look], place: Workplace, started: float
) -> dict[str, Any]:
    """The manifest of embeddings that lie in the stage: of a model, or of files of ``vectors``."""
    clock = Stages()
    with clock.time("start"):
        context = session.start("embed_text", settings.master)
    try:
        folder, result = place.begun("embed"), place.result
        if isinstance(vectors, Look) and settings.ids:
            content = _with_ids(context, settings, vectors, settings.ids, result, clock)
        else:
            content = _embed(context, settings, seen["input"], vectors, folder, result, result / REJECTED, clock)
    finally:
        session.stop(context)
    clock.seconds["total"] = round(time.monotonic() - started, 3)
    manifest = {
        "job": "embed_text",
        "finished": now(),
        "settings": settings.for_manifest(),
        **content,
        "versions": {**versions(), **_versions()},
        "seconds": clock.seconds,
    }
    (place.result / "_metrics.json").write_bytes(metrics(manifest))
    place.stage_manifest(manifest)
    return manifest


def _embed(
    context: SparkContext,
    settings: Settings | EmbedSettings,
    seen: Look,
    vectors: Model | Look,
    folder: Location,
    parts: Location,
    rejected: Location,
    clock: Stages,
) -> dict[str, Any]:
    """Plan and embed; return what the manifest is to say of it."""
    wanted = _wanted(settings)
    planned = folder / _PLANNED
    with clock.time("plan") as facts:
        plan = _planned(folder)
        if plan is None:
            for old in (planned, parts, rejected):
                old.delete()
            planned.make_folder()
            files = open_files(seen)
            if isinstance(vectors, Look):
                files = in_order(files)
            plan = make_plan(context, seen.path, files, wanted, settings.on_bad_rows == "drop", planned)
            (folder / _PLAN).write_bytes(json.dumps(plan.for_json()).encode())
        facts.update(records=plan.records, pieces=len(plan.pieces))
    if getattr(settings, "export", None) and len({file.format == "parquet" for file in plan.files}) == 2:
        raise UsageError(
            f"{seen.path} holds JSON and Parquet, whose records do not go into one training file as they came in; name "
            "those of one kind with a glob, or leave --export out"
        )
    if plan.bad:
        logger.warning("plan: %d of %d records are bad and set aside: %s", plan.bad_records, plan.records, plan.bad)
    parts.make_folder()
    rejected.make_folder()
    with clock.time("embed") as facts:
        began = time.monotonic()
        source = vectors if isinstance(vectors, Model) else _given(context, vectors, plan)
        found = embed(context, Work(plan, planned, wanted, source, parts, rejected))
        seconds = time.monotonic() - began
        facts.update(rows=found.rows)
    rejected.delete_if_empty()
    repeated = plan.repeats if plan.ids == "content" else 0
    return {
        "text": {
            "path": str(Location.of(seen.path)),
            "files": len(plan.files),
            "records": plan.records,
            "bad_rows": plan.bad,
            "repeats": plan.repeats,
            "repeats_left_out": repeated,
            "ids": plan.ids,
        },
        "embedded": {
            "rows": found.rows,
            "dimension": found.dimension,
            "columns": plan.columns,
            **(_of_model(vectors, found) if isinstance(vectors, Model) else _of_files(vectors)),
            "seconds": round(seconds, 3),
            "rows_per_second": round(found.fresh / seconds, 1),
        },
    }


def _of_model(model: Model, found: Facts) -> dict[str, Any]:
    return {
        "model": model.name,
        "backend": model.backend,
        "max_tokens": found.limit,
        "tokens": found.tokens,
        "truncated": found.truncated,
        "truncated_share": round(found.truncated / max(1, found.rows), 6),
    }


def _of_files(vectors: Look) -> dict[str, Any]:
    return {"path": str(Location.of(vectors.path)), "files": len(vectors.files)}


# --- vectors that exist already ---------------------------------------------------------------------------


def _counted(context: SparkContext, seen: Look) -> Given:
    files = open_vectors(seen)
    return Given(tuple(context.parallelize(files, len(files)).map(counted).collect()))


def _given(context: SparkContext, seen: Look, plan: Plan) -> Given:
    """The vectors of the records of a plan; raise InputError where there are not as many."""
    given = _counted(context, seen)
    records: Counter[int] = Counter()
    for piece in plan.pieces:
        records[piece.file] += piece.records
    of_texts = [(file.location, records[number]) for number, file in enumerate(plan.files)]
    require_as_many(seen.path, of_texts, [(file.location, file.rows or 0) for file in given.files])
    return given


def _with_ids(
    context: SparkContext, settings: EmbedSettings, seen: Look, ids: str, to: Location, clock: Stages
) -> dict[str, Any]:
    """Write vectors that have ids and no texts; return what the manifest is to say of it."""
    with clock.time("embed") as facts:
        given = _counted(context, seen)
        to.make_folder()
        rows = write_with_ids(context, seen.path, given, read_ids(ids), settings.id_column, to)
        facts.update(rows=rows)
    return {"embedded": {"rows": rows, "dimension": given.dimension, **_of_files(seen)}}


def _planned(folder: Location) -> Plan | None:
    """The plan of an earlier try, None where there is none that can be used."""
    file = folder / _PLAN
    try:
        return Plan.from_json(file.read_json()) if file.exists() else None
    except DamageError:
        return None


def _wanted(settings: Settings | EmbedSettings) -> Wanted:
    """What is to be read of each record: the columns that are named, as columns or by a setting that uses them."""
    used = [getattr(settings, f"{name}_column", None) for name in ("text", "group", "quality", "cost")]
    columns = dict.fromkeys(name for name in (*settings.columns, *used) if name is not None)
    own = (settings.id_column, *OWN)
    return Wanted(
        text_field=settings.text_field,
        id_field=settings.id_column,
        content_ids=settings.content_ids,
        columns=tuple(name for name in columns if name not in own),
    )


def _versions() -> dict[str, str]:
    """Versions of what embeds, as far as it is installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cut_line(embedded: dict[str, Any]) -> list[str]:
    if "truncated_share" not in embedded:
        return []
    return [f"{embedded['truncated_share']:.1%} of the texts were cut after {embedded['max_tokens']} tokens"]


def _print(manifest: dict[str, Any], output: Location) -> None:
    embedded = manifest["embedded"]
    text = manifest.get("text", {"records": embedded["rows"], "bad_rows": {}, "repeats_left_out": 0})
    bad = [f"{count} {reason}" for reason, count in text["bad_rows"].items()]
    left_out = [f"{text['repeats_left_out']} repeat a text"] if text["repeats_left_out"] else []
    lines = [
        f"{', '.join([str(text['records']) + ' records', *bad, *left_out])}: {embedded['rows']} embeddings of "
        f"{embedded['dimension']} dimensions",
        *_cut_line(embedded),
        "",
        f"embeddings {output}",
        *([f"rejected   {output / REJECTED}"] if bad else []),
        f"manifest   {output / MANIFEST}",
    ]
    print("\n".join(lines), file=sys.stdout)
