"""From records of text to embeddings: the job embed_text, and the first step of a selection that begins with texts.

Both plan (:mod:`~novelsum.text.plan`), embed (:mod:`~novelsum.text.embedding`), and go on with the pieces that are not
embedded yet when they are run again. What is planned lies in the work directory; so do the embeddings of a selection,
those of the job lie in the stage until all are there, and are published together.
"""

import importlib.metadata
import json
import logging
import sys
import time
from dataclasses import dataclass, field, replace
from typing import Any

from pyspark import SparkContext

from novelsum.errors import DamageError
from novelsum.files.location import MANIFEST, REJECTED, Location
from novelsum.files.source import Look, look
from novelsum.files.workplace import Workplace, check_output, identity
from novelsum.report.output import metrics, now, versions
from novelsum.settings import EmbedSettings, Settings
from novelsum.spark import session
from novelsum.spark.stages import Stages
from novelsum.text.embedders import Model, model_of
from novelsum.text.embedding import OWN, Work, embed
from novelsum.text.plan import Plan, make_plan
from novelsum.text.reading import Wanted
from novelsum.text.records import look_for_text, open_files

logger = logging.getLogger("novelsum")

_PLAN, _PLANNED, _PARTS = "plan.json", "_plan", "parts"
_PACKAGES = ("torch", "transformers", "sentence-transformers")


def embed_text(settings: EmbedSettings) -> None:
    """Run the job; raise UsageError or InputError where the user has to change something."""
    started = time.monotonic()
    session.require_classic(settings.master)
    model = the_model(settings)
    output = check_output(settings.output, [settings.input])
    seen = look_for_text(settings.input, output)
    place = Workplace.of(output, None, identity("embed_text", settings.for_manifest(), {"input": seen}))
    if place.is_complete(settings.overwrite):
        logger.info("%s holds the result of this very run already; there is nothing to do", output)
        place.tidy(False)
        return
    with place.held(settings.overwrite, False) as lock:
        manifest = place.staged()
        if manifest is None:
            manifest = _run(settings, model, seen, place, started)
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
        content = _embed(context, settings, model, seen, folder, parts, folder / REJECTED, clock)
        place.finish("embed", content)
    return Texts(content, replace(look(str(parts)), path=seen.path), context)


def the_model(settings: Settings | EmbedSettings) -> Model:
    """The model that the settings name; raise UsageError where there can be none."""
    assert settings.model is not None
    return model_of(settings.model, settings.backend, settings.max_tokens, settings.server, settings.in_flight)


def _run(settings: EmbedSettings, model: Model, seen: Look, place: Workplace, started: float) -> dict[str, Any]:
    """The manifest of embeddings that lie in the stage."""
    clock = Stages()
    with clock.time("start"):
        context = session.start("embed_text", settings.master)
    try:
        folder, result = place.begun("embed"), place.result
        content = _embed(context, settings, model, seen, folder, result, result / REJECTED, clock)
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
    model: Model,
    seen: Look,
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
            plan = make_plan(context, seen.path, open_files(seen), wanted, settings.on_bad_rows == "drop", planned)
            (folder / _PLAN).write_bytes(json.dumps(plan.for_json()).encode())
        facts.update(records=plan.records, pieces=len(plan.pieces))
    if plan.bad:
        logger.warning("plan: %d of %d records are bad and set aside: %s", plan.bad_records, plan.records, plan.bad)
    parts.make_folder()
    rejected.make_folder()
    with clock.time("embed") as facts:
        began = time.monotonic()
        found = embed(context, Work(plan, planned, wanted, model, parts, rejected))
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
            "model": model.name,
            "backend": model.backend,
            "max_tokens": found.limit,
            "dimension": found.dimension,
            "tokens": found.tokens,
            "truncated": found.truncated,
            "truncated_share": round(found.truncated / max(1, found.rows), 6),
            "seconds": round(seconds, 3),
            "rows_per_second": round(found.fresh / seconds, 1),
        },
    }


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


def _print(manifest: dict[str, Any], output: Location) -> None:
    text, embedded = manifest["text"], manifest["embedded"]
    bad = [f"{count} {reason}" for reason, count in text["bad_rows"].items()]
    left_out = [f"{text['repeats_left_out']} repeat a text"] if text["repeats_left_out"] else []
    lines = [
        f"{', '.join([str(text['records']) + ' records', *bad, *left_out])}: {embedded['rows']} embeddings of "
        f"{embedded['dimension']} dimensions",
        f"{embedded['truncated_share']:.1%} of the texts were cut after {embedded['max_tokens']} tokens",
        "",
        f"embeddings {output}",
        *([f"rejected   {output / REJECTED}"] if bad else []),
        f"manifest   {output / MANIFEST}",
    ]
    print("\n".join(lines), file=sys.stdout)
