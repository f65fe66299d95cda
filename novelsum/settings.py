"""Settings of the jobs: a dataclass for each kind of job, filled from a TOML file and from flags; flags win.

Every field is a key of the file (``proximity_power``) and a flag (``--proximity-power``), and holds the rules for its
value. A job offers only the fields it uses.
"""

import argparse
import dataclasses
import difflib
import functools
import math
import re
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from novelsum.amounts import Budget, CostBudget, Quota
from novelsum.errors import UsageError
from novelsum.formula import FORMULAS, Formula, Metric
from novelsum.formulas import EQUATIONS, MEASURED
from novelsum.schemes import require_reachable

Job = Literal["estimate_density", "select_subset", "curate", "measure_diversity", "explain_novelty", "embed_text"]
ALL: tuple[Job, ...] = ("estimate_density", "select_subset", "curate")
ESTIMATING: tuple[Job, ...] = ("estimate_density", "curate")
SELECTING: tuple[Job, ...] = ("select_subset", "curate")
MEASURING: tuple[Job, ...] = ("measure_diversity",)
EXPLAINING: tuple[Job, ...] = ("explain_novelty",)
EMBEDDING: tuple[Job, ...] = ("embed_text",)

Strategy = Literal["novelselect", "k-means", "farthest-first", "random"]

Group = Literal["required", "common", "advanced"]
"""Under which heading of ``--help`` a setting stands; a required one must be given."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a setting means and what holds for its value, beside its type.

    A number is at least ``minimum``, greater than ``above`` and at most ``maximum``. ``holds``: whether a text is a
    path, or an id, which may be empty. ``parse`` raises UsageError for a malformed value. A required setting may be
    left out where one of ``unless`` is given. ``needs`` and ``excludes``: other settings that must be given with this
    one, or must not (``name=value``: not with that value), and what to tell where that is broken. ``refuses``: values
    of its type that the job does not take, and what to tell.
    """

    help: str
    jobs: tuple[Job, ...] = ALL
    group: Group = "common"
    unless: tuple[str, ...] = ()
    minimum: float = -math.inf
    above: float = -math.inf
    maximum: float = math.inf
    holds: Literal["path", "id"] | None = None
    parse: Callable[[Any], object] | None = None
    needs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    excludes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    refuses: Mapping[str, str] = dataclasses.field(default_factory=dict)


def setting(description: str, default: Any = None, **rules: Any) -> Any:
    """A field of a dataclass of settings: its help text, its default, and its :class:`Rules`."""
    return dataclasses.field(default=default, metadata={"rules": Rules(description, **rules)})


def rules_of(field: dataclasses.Field[Any]) -> Rules:
    """The rules of a setting."""
    rules: Rules = field.metadata["rules"]
    return rules


def _of_texts(description: str, default: Any = None, **rules: Any) -> Any:
    """A setting of curate that only goes with texts."""
    about = {"model": f"this is a setting for texts: {description}; name a model with --model, or leave it out"}
    return setting(description, default, jobs=("curate",), needs={**about, **rules.pop("needs", {})}, **rules)


def _meanings(*formulas: Formula) -> str:
    """What some formulas are, for a help text."""
    return "; ".join(f"'{name}': {EQUATIONS[name].meaning}" for name in formulas)


EXPORTS = ("jsonl", "jsonl.gz", "json", "parquet")
"""Kinds of a training file, by the end of its name."""


def export_kind(path: str) -> str:
    """The kind of a training file of that name; raise UsageError where there is none."""
    for kind in EXPORTS:
        if path.lower().endswith(f".{kind}"):
            return kind
    raise UsageError(f"--export must end in .{', .'.join(EXPORTS[:-1])} or .{EXPORTS[-1]}, not {path!r}")


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of a run that estimates or selects."""

    input: str = setting(
        "Parquet file, folder or glob with one embedding a row",
        "",
        group="required",
        unless=("remove",),
        holds="path",
    )
    output: str = setting("folder to write the result to", "", group="required", holds="path")
    density: str = setting(
        "what estimate_density wrote: Parquet with the id and density",
        "",
        jobs=("select_subset",),
        group="required",
        holds="path",
    )
    budget: int | str = setting(
        "how many samples to select, or which share of the candidates, such as 5%: rounded down, but at least 1; "
        "candidates are the rows left without bad ones and dropped duplicates",
        0,
        jobs=SELECTING,
        group="required",
        unless=("cost_budget", "min_distance"),
        parse=Budget.parse,
    )
    cost_column: str | None = setting(
        "column of what a sample costs, such as its tokens: numbers above 0",
        jobs=SELECTING,
    )
    cost_budget: int | float | str | None = setting(
        "what the picks may cost together: 50000, 1.5k, 50M, 2G, or a share of what all candidates cost such as 5%; "
        "the best whose cost still fits is picked until none does",
        jobs=SELECTING,
        parse=CostBudget.parse,
        needs={"cost_column": "--cost-budget is about costs; name their column with --cost-column"},
    )
    cost_power: float = setting(
        "γ of the cost: the score is v(x)/cost^γ",
        0.0,
        jobs=SELECTING,
        group="advanced",
        minimum=0,
        needs={"cost_column": "--cost-power is about costs; name their column with --cost-column"},
    )
    min_distance: float = setting(
        "nothing nearer than that to a pick, or to a sample selected before, is picked; the selection ends when "
        "nothing is left",
        0.0,
        jobs=SELECTING,
        minimum=0,
    )
    already_selected: str | None = setting(
        "samples selected before, from which the picks are to differ too: Parquet with their ids, and with their "
        "embeddings where they may lie outside the input; a glob may name all nights",
        jobs=SELECTING,
        holds="path",
        excludes={"first": "--first begins a selection, but --already-selected has begun it; leave one out"},
    )
    quality_column: str | None = setting(
        "column of quality q, at least 0; the score is v(x)·q^γ, and of near-copies the greatest stays"
    )
    quality_power: float = setting("γ, the power of the quality", 1.0, jobs=SELECTING, group="advanced", minimum=0)
    quota: tuple[str, ...] = setting(
        "least and greatest number of picks of a group of --group-column: GROUP=LEAST:MOST or GROUP=NUMBER, in picks "
        "or in % of the budget, such as code=100:500, chat=:20% or math=10%; the group * is all others, and the rows "
        "that have none",
        (),
        jobs=SELECTING,
        parse=Quota.parse,
        needs={
            "group_column": "--quota is about groups; name their column with --group-column",
            "budget": "--quota counts the picks of a budget; give --budget too",
        },
    )
    first: str | None = setting(
        "id of the first pick (default: drawn from the ids by --seed)",
        jobs=SELECTING,
        group="advanced",
        holds="id",
        excludes={"strategy=k-means": "--strategy k-means picks what is nearest to centroids; leave --first out"},
    )
    seed: int = setting(
        "draws the first pick from the ids, random picks, and where k-means begins; row order and files do not matter",
        42,
        jobs=SELECTING,
        group="advanced",
        minimum=0,
    )
    id_column: str = setting("column of unique ids, integer or string", "id")
    embedding_column: str = setting("column of embeddings: list of float or double, or Spark ML vector", "embedding")
    formula: Formula = setting(_meanings(*FORMULAS), "paper")
    metric: Metric = setting("distance between samples: 'cosine' (1 - cos) or 'euclidean'", "cosine")
    neighbors: int = setting("K, the nearest neighbours in a density factor", 10, minimum=1)
    proximity_power: float = setting("κ1, the power of the proximity weight 1/rank", 1.0, group="advanced", minimum=0)
    density_power: float = setting("κ2, the power of the density factor", 0.5, group="advanced", minimum=0)
    duplicates: Literal["drop", "keep"] = setting(
        "'drop' all but the smallest id of rows with equal embeddings, or 'keep' them", "drop"
    )
    near_duplicates: float | None = setting(
        "a distance ε: rows are taken by quality, if there is one, then by id, and one within ε of a row already kept "
        "is dropped before density is estimated",
        minimum=0,
        excludes={
            "duplicates": "--near-duplicates drops equal embeddings too; leave --duplicates keep out",
            "reference": "--near-duplicates drops rows of the input, but near-copies in a reference would stay "
            "neighbours; leave --reference out",
            **dict.fromkeys(
                ("update", "save_state"),
                "--near-duplicates drops rows by all others, but a state takes in rows that it has not seen; drop them "
                "before, or leave it out",
            ),
        },
    )
    density_method: Literal["exact", "approximate", "auto"] = setting(
        "'exact' search of all pairs, 'approximate' search of near cells with its recall measured, or 'auto': "
        "whichever is likely faster",
        "auto",
        jobs=ESTIMATING,
    )
    target_recall: float = setting(
        "share of the K nearest neighbours that the approximate search must find, with an error of σ to match; 1 "
        "probes all cells",
        0.95,
        jobs=ESTIMATING,
        group="advanced",
        above=0,
        maximum=1,
    )
    reference: str | None = setting(
        "corpus to search the neighbours in: Parquet file, folder or glob (default: the input itself)",
        jobs=ESTIMATING,
        group="advanced",
        holds="path",
        excludes=dict.fromkeys(
            ("update", "save_state"), "a state holds the density of rows over themselves; leave --reference out"
        ),
    )
    save_state: str | None = setting(
        "folder to write a state to, so that --update can add rows to it later",
        jobs=("estimate_density",),
        holds="path",
    )
    update: str | None = setting(
        "state to add the input to: the result holds all its rows, old and new",
        jobs=("estimate_density",),
        holds="path",
        excludes={"save_state": "--update changes the state it names; leave --save-state out"},
    )
    remove: str | None = setting(
        "ids to take out of the state that --update names, before the input is added, if there is one: Parquet",
        jobs=("estimate_density",),
        holds="path",
        needs={"update": "--remove takes ids out of a state; name it with --update"},
    )
    on_bad_rows: Literal["fail", "drop"] = setting(
        "'fail' when a row breaks the input contract, or 'drop' it into <output>/rejected, with the reason", "fail"
    )
    overwrite: bool = setting("replace an earlier result in the output folder", False)
    strategy: Strategy = setting(
        "by what to select: 'novelselect'; 'k-means': what is nearest to as many centroids; 'farthest-first': always "
        "what is farthest from all that is selected; 'random'",
        "novelselect",
        jobs=("curate",),
    )
    compare: bool = setting(
        "also select by the other strategies under the same rules, and say which selection is better by what",
        False,
        jobs=("curate",),
    )
    show: int = setting(
        "how many picks to print at the end and to show in the report, there 50 at most",
        10,
        jobs=SELECTING,
        group="advanced",
        minimum=0,
    )
    text_column: str | None = setting("column of texts, or of chats, to show and measure in the report", jobs=SELECTING)
    group_column: str | None = setting("column whose shares in pool and selection are shown", jobs=SELECTING)
    explain_rejected: bool = setting(
        "also write, of every candidate left out, which selected sample is nearest, to <output>/rejected_near",
        False,
        jobs=SELECTING,
        group="advanced",
    )
    map: bool = setting(
        "also write where every candidate lies on the map of the report, to <output>/map",
        False,
        jobs=SELECTING,
        group="advanced",
    )
    model: str | None = setting(
        "model that embeds the texts of the input, which is then JSON lines, JSON arrays or Parquet with texts: a name "
        "of Hugging Face, a folder, or what --server calls it",
        jobs=("curate",),
    )
    backend: Literal["auto", "sentence-transformers", "transformers", "server"] = _of_texts(
        "'sentence-transformers': as such a model says; 'transformers': any model, causal ones too, by the mean of its "
        "last hidden layer; 'server': by --server; 'auto': as the model's files say",
        "auto",
    )
    server: str | None = _of_texts("URL of a server with OpenAI's /v1/embeddings; its key is taken from OPENAI_API_KEY")
    in_flight: int = _of_texts(
        "requests to the server at the same time, at most",
        4,
        group="advanced",
        minimum=1,
        needs={"server": "--in-flight is about requests to a server; name it with --server"},
    )
    max_tokens: int = _of_texts("tokens of a text that are embedded; the rest is cut off", 256, minimum=1)
    text_field: str | None = _of_texts(
        "field of a record that holds its text or its turns (default: messages, conversations, text, instruction with "
        "input and output, or prompt with completion or response)"
    )
    content_ids: bool = _of_texts("make ids of the texts, whatever ids the records have", False)
    columns: tuple[str, ...] = _of_texts(
        "fields of JSON records to copy as columns; one that another flag names is copied anyway", ()
    )
    export: str | None = setting(
        "file to write the chosen records to as they came in, for training: .jsonl, .jsonl.gz, .json or .parquet",
        jobs=SELECTING,
        holds="path",
        parse=export_kind,
    )
    export_order: Literal["picks", "input"] = setting(
        "order of the records in the file of --export: of 'picks', or as in the 'input'",
        "picks",
        jobs=SELECTING,
        group="advanced",
        needs={"export": "--export-order is about the file of --export; name it"},
    )
    record_column: str = setting(
        "column of text that holds whole records for --export; without it a record is the columns but the embedding",
        "record",
        jobs=SELECTING,
        group="advanced",
        needs={"export": "--record-column is for the file of --export; name it"},
    )
    report: bool = setting(
        "write report.html and report.json beside the selection", True, jobs=SELECTING, group="advanced"
    )
    block_rows: int | None = setting(
        "rows of a block, the unit of parallel work (default: by pool and cores; never changes the result)",
        group="advanced",
        minimum=1,
    )
    work_dir: str | None = setting(
        "folder for the store and the pick log, which all executors reach (default: inside the output)",
        group="advanced",
        holds="path",
    )
    keep_work: bool = setting("leave the store and the pick log when the run has succeeded", False, group="advanced")
    master: str | None = setting(
        "Spark master, when not started by spark-submit (default: local[*,4])", group="advanced"
    )

    def picks(self, candidates: int) -> int:
        """How many picks the budget is of a pool of so many candidates, all of them where there is none."""
        return candidates if self.budget == 0 else Budget.parse(self.budget).of_candidates(candidates)

    def of_corpus(self, path: str) -> "Settings":
        """What there is to know to read rows that are not selected from."""
        return dataclasses.replace(self, input=path, quality_column=None, group_column=None, cost_column=None)

    def for_manifest(self, job: Job) -> dict[str, Any]:
        """The settings the job uses, as they go into the manifest."""
        return {field.name: getattr(self, field.name) for field in fields_of(job)}


def _shared(name: str, jobs: tuple[Job, ...], default: Any = None, description: str = "", **changed: Any) -> Any:
    """A field of another kind of job that means what it means in :class:`Settings`, and has its rules but for some."""
    field = Settings.__dataclass_fields__[name]
    rules = dataclasses.replace(rules_of(field), jobs=jobs, help=description or rules_of(field).help, **changed)
    return dataclasses.field(default=field.default if default is None else default, metadata={"rules": rules})


_for_measuring = functools.partial(_shared, jobs=MEASURING)
_for_explaining = functools.partial(_shared, jobs=EXPLAINING)


@dataclasses.dataclass(frozen=True)
class MeasureSettings:
    """All settings of measure_diversity, where several of a kind make a grid."""

    input: tuple[str, ...] = _for_measuring(
        "input", default=(), description="Parquet file, folder or glob of a data set; give it once for each"
    )
    output: str = _for_measuring("output")
    reference: str | None = _for_measuring(
        "reference",
        description="corpus in which nearest neighbours are searched (default: each data set itself), and of which "
        "random subsets are drawn to compare with (default: of all data sets together)",
    )
    formula: tuple[Formula, ...] = _for_measuring(
        "formula",
        default=("paper",),
        description=_meanings(*MEASURED),
        refuses={
            name: f"--formula {name} is a way to select, and the NovelSum that it raises is that of "
            f"{EQUATIONS[name].measured_as}; measure with --formula {EQUATIONS[name].measured_as}"
            for name in FORMULAS
            if name not in MEASURED
        },
    )
    metric: Metric = _for_measuring("metric")
    neighbors: tuple[int, ...] = _for_measuring("neighbors", default=(10,))
    proximity_power: tuple[float, ...] = _for_measuring("proximity_power", default=(1.0,))
    density_power: tuple[float, ...] = _for_measuring(
        "density_power",
        default=(),
        description="κ2, the power of the density factor; several make a grid (default: 0.5 with --reference, else 0, "
        "as in a data set that is its own reference density counts what is unusual there for little)",
        group="common",
    )
    random_subsets: int = setting(
        "random subsets of the pool to compare each data set with, as large as it is; 0: none",
        5,
        jobs=MEASURING,
        minimum=0,
        refuses={1: "--random-subsets 1 does not say how much random subsets differ; ask for 2 or more, or for 0"},
    )
    exact_limit: int = setting(
        "rows up to which all are measured; above it, a sample", 100_000, jobs=MEASURING, group="advanced", minimum=1
    )
    sample_rows: int = setting(
        "rows of the sample, each against the whole data set", 5_000, jobs=MEASURING, group="advanced", minimum=100
    )
    seed: int = _for_measuring(
        "seed", description="draws the sample and random subsets from the ids; row order and files do not matter"
    )
    id_column: str = _for_measuring("id_column")
    embedding_column: str = _for_measuring("embedding_column")
    duplicates: Literal["drop", "keep"] = _for_measuring("duplicates")
    on_bad_rows: Literal["fail", "drop"] = _for_measuring("on_bad_rows")
    overwrite: bool = _for_measuring("overwrite")
    report: bool = _for_measuring("report", description="write diversity.html beside the tables")
    block_rows: int | None = _for_measuring("block_rows")
    work_dir: str | None = _for_measuring("work_dir")
    keep_work: bool = _for_measuring("keep_work")
    master: str | None = _for_measuring("master")

    def of_data_set(self, path: str) -> Settings:
        """What the other stages need to know to read one data set."""
        names = ("id_column", "embedding_column", "metric", "duplicates", "on_bad_rows", "block_rows")
        return Settings(input=path, output=self.output, **{name: getattr(self, name) for name in names})

    @property
    def density_powers(self) -> tuple[float, ...]:
        """κ2, as given or as it is by default: nobody has said of a set without a reference how it should be spread."""
        return self.density_power or ((0.5,) if self.reference else (0.0,))

    def for_manifest(self) -> dict[str, Any]:
        """The settings as they go into the manifest."""
        found = {field.name: getattr(self, field.name) for field in fields_of("measure_diversity")}
        return {**found, "density_power": self.density_powers}


@dataclasses.dataclass(frozen=True)
class ExplainSettings:
    """All settings of explain_novelty, which needs no file of them."""

    distances: str = setting(
        "CSV file of a labelled square table: a header row, a label first", "", jobs=EXPLAINING, group="required"
    )
    formula: Formula = _for_explaining(
        "formula",
        description=_meanings("paper", "symmetric"),
        refuses={
            "released": "--formula released takes density factors from the vectors, which a table of distances does "
            "not have; use paper or symmetric"
        },
    )
    neighbors: int = _for_explaining("neighbors")
    proximity_power: float = _for_explaining("proximity_power")
    density_power: float = _for_explaining("density_power")
    first: str | None = _for_explaining(
        "first", description="label of the first pick (default: the first point of the table)"
    )
    budget: int | None = setting("how many to pick (default: all)", jobs=EXPLAINING, minimum=1)
    json: bool = setting("print data instead of text", False, jobs=EXPLAINING)


_for_embedding = functools.partial(_shared, jobs=EMBEDDING)
_OF_RECORDS: dict[str, Any] = {
    "needs": {},
    "excludes": {"ids": "with --ids no records are read; leave out what is about them, or name them by --input"},
}


@dataclasses.dataclass(frozen=True)
class EmbedSettings:
    """All settings of embed_text."""

    input: str = _for_embedding(
        "input", description="JSON lines, JSON arrays or Parquet with texts: a file, folder or glob", unless=("ids",)
    )
    output: str = _for_embedding("output")
    model: str = _for_embedding(
        "model",
        default="",
        description="model that embeds the texts: a name of Hugging Face, a folder, or what --server calls it",
        group="required",
        unless=("embeddings",),
    )
    embeddings: str | None = setting(
        "vectors that exist already, in place of a model: .npy or JSON, a file, folder or glob, one for each record in "
        "its order; files named by numbers, as those of the authors, go by these",
        jobs=EMBEDDING,
        holds="path",
        excludes={"model": "--embeddings and --model both say where embeddings come from; leave one of them out"},
    )
    ids: str | None = setting(
        "file of the ids of these vectors, where there are no texts, in place of --input: .npy, .txt, .json or .jsonl",
        jobs=EMBEDDING,
        holds="path",
        needs={"embeddings": "--ids are those of vectors that exist already; name these with --embeddings"},
        excludes={"input": "--ids and --input both give ids to the vectors; leave one of them out"},
    )
    backend: Literal["auto", "sentence-transformers", "transformers", "server"] = _for_embedding("backend")
    server: str | None = _for_embedding("server")
    in_flight: int = _for_embedding("in_flight")
    max_tokens: int = _for_embedding("max_tokens")
    text_field: str | None = _for_embedding("text_field", **_OF_RECORDS)
    id_column: str = _for_embedding(
        "id_column", description="field of unique ids, integers or strings, if there is one"
    )
    content_ids: bool = _for_embedding("content_ids", **_OF_RECORDS)
    columns: tuple[str, ...] = _for_embedding("columns", **_OF_RECORDS)
    on_bad_rows: Literal["fail", "drop"] = _for_embedding(
        "on_bad_rows",
        description="'fail' when a record cannot be embedded, or 'drop' it into <output>/rejected, with file, line and "
        "reason",
        **_OF_RECORDS,
    )
    overwrite: bool = _for_embedding("overwrite")
    master: str | None = _for_embedding("master")

    def for_manifest(self) -> dict[str, Any]:
        """The settings as they go into the manifest."""
        return {field.name: getattr(self, field.name) for field in fields_of("embed_text")}


def fields_of(job: Job) -> list[dataclasses.Field[Any]]:
    """The settings that a job uses."""
    kinds: dict[str, Any] = {
        "measure_diversity": MeasureSettings,
        "explain_novelty": ExplainSettings,
        "embed_text": EmbedSettings,
    }
    kind = kinds.get(job, Settings)
    return [field for field in dataclasses.fields(kind) if job in rules_of(field).jobs]


def flag(field: dataclasses.Field[Any]) -> str:
    """The command-line flag of a setting."""
    return "--" + field.name.replace("_", "-")


def meaning(field: dataclasses.Field[Any], job: Job) -> str:
    """What ``--help`` of the job says of a setting beside its default: what it is, what it needs, what replaces it."""
    rules, flags = rules_of(field), {other.name: flag(other) for other in fields_of(job)}
    needed = [flags[name] for name in rules.needs if name in flags and flags[name] not in rules.help]
    instead = [flags[name] for name in rules.unless if name in flags]
    told = [f"; needs {' and '.join(needed)}"] if needed else []
    told += [f"; may be left out with {' or '.join(instead)}"] if instead else []
    return rules.help + "".join(told)


# --- the rules kept ---------------------------------------------------------------------------------------


def check(settings: Settings | MeasureSettings | ExplainSettings | EmbedSettings, job: Job) -> None:
    """Raise UsageError naming the first setting of the job that has a bad value, or goes with another or without it."""
    fields = fields_of(job)
    given = {field.name for field in fields if getattr(settings, field.name) != field.default}
    given |= {f"{name}={getattr(settings, name)}" for name in given}
    for field in fields:
        value, rules = getattr(settings, field.name), rules_of(field)
        if field.name not in given and given.intersection(rules.unless):
            continue
        if value == () and (field.default or rules.group == "required"):
            raise UsageError(f"{flag(field)} must not be empty: {rules.help}")
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None:
                _check_value(field, one)
    for field in fields:
        if field.name in given:
            rules = rules_of(field)
            broken = [told for other, told in rules.needs.items() if other not in given]
            broken += [told for other, told in rules.excludes.items() if other in given]
            if broken:
                raise UsageError(broken[0])
    if "strategy=k-means" in given and not given.intersection(("budget", "cost_budget")):
        raise UsageError("--strategy k-means has a centroid for each pick; say how many by --budget or --cost-budget")


def _check_value(field: dataclasses.Field[Any], value: Any) -> None:
    rules, choices = rules_of(field), _choices(field)
    if choices and value not in choices:
        raise UsageError(f"{flag(field)} must be one of {', '.join(_taken(field))}, not {value!r}")
    if value in rules.refuses:
        raise UsageError(rules.refuses[value])
    if isinstance(value, str):
        _check_text(field, value)
    elif not (rules.minimum <= value <= rules.maximum and rules.above < value and math.isfinite(value)):
        bounds = (("at least", rules.minimum), ("above", rules.above), ("at most", rules.maximum))
        words = " and ".join(f"{word} {bound}" for word, bound in bounds if math.isfinite(bound))
        kind = "a finite number of " if isinstance(value, float) and math.isinf(rules.maximum) else ""
        raise UsageError(f"{flag(field)} must be {kind}{words}, not {value}")
    if rules.parse:
        rules.parse(value)


def _check_text(field: dataclasses.Field[Any], value: str) -> None:
    rules = rules_of(field)
    if re.match(r"[a-z0-9]+://[^/@]*:[^@]*@", value):
        raise UsageError(
            f"{flag(field)} has credentials in its path, where logs and manifests would show them; give them in the "
            "environment of the job"
        )
    if value == "" and rules.holds != "id":
        raise UsageError(f"{flag(field)} must not be empty: {rules.help}")
    if rules.holds == "path":
        require_reachable(flag(field), value)


# --- from the command line and a file ---------------------------------------------------------------------


def parse(job: Job, description: str, arguments: Sequence[str] | None = None, program: str = "") -> Settings:
    """Settings of ``job`` from ``arguments`` (default: the command line) over the file they may name.

    ``description``: what ``--help`` says of the job; ``program``: what was started, if not its script. Raises
    UsageError for an unknown key or flag, a value of the wrong type, or a missing or bad setting.
    """
    settings = Settings(**_parsed(job, description, arguments, program))
    check(settings, job)
    return settings


def parse_measure(description: str, arguments: Sequence[str] | None = None, program: str = "") -> MeasureSettings:
    """Settings of measure_diversity, as :func:`parse`."""
    settings = MeasureSettings(**_parsed("measure_diversity", description, arguments, program))
    check(settings, "measure_diversity")
    return settings


def parse_embed(description: str, arguments: Sequence[str] | None = None, program: str = "") -> EmbedSettings:
    """Settings of embed_text, as :func:`parse`."""
    settings = EmbedSettings(**_parsed("embed_text", description, arguments, program))
    check(settings, "embed_text")
    return settings


def parse_explain(description: str, arguments: Sequence[str] | None = None, program: str = "") -> ExplainSettings:
    """Settings of explain_novelty, as :func:`parse`, but from the command line alone."""
    settings = ExplainSettings(**_parsed("explain_novelty", description, arguments, program))
    check(settings, "explain_novelty")
    return settings


def given(job: Job, values: Mapping[str, Any], where: str) -> Settings | MeasureSettings:
    """Settings of ``job`` that a program gives to a function ``where``; None, for any, is its default.

    Raises UsageError as :func:`parse`.
    """
    used = {field.name: field for field in fields_of(job)}
    found = {}
    for name, value in values.items():
        if name not in used:
            hint = _meant(name, used) or f"it has {', '.join(used)}"
            raise UsageError(f"{where} has no setting {name!r}; {hint}")
        if value is not None:
            found[name] = _typed(used[name], value, where)
    kind: Any = MeasureSettings if job in MEASURING else Settings
    settings: Settings | MeasureSettings = kind(**_complete(job, found))
    check(settings, job)
    return settings


def _complete(job: Job, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with which settings can be made; raise UsageError where a required one is missing."""
    for field in fields_of(job):
        rules = rules_of(field)
        if rules.group == "required" and field.name not in values and not any(map(values.get, rules.unless)):
            raise UsageError(f"{flag(field)} is missing: {meaning(field, job)}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _parsed(job: Job, description: str, arguments: Sequence[str] | None, program: str) -> dict[str, Any]:
    """The settings that flags and the file give, flags first."""
    fields = fields_of(job)
    required = [field for field in fields if rules_of(field).group == "required"]
    parser = _Parser(program or f"{job}.py", description, " ".join(f"{flag(f)} {_metavar(f)}" for f in required))
    for name in typing.get_args(Group):
        group = parser.add_argument_group(f"{name} settings")
        for field in fields:
            if rules_of(field).group == name:
                group.add_argument(flag(field), **_argument(field, meaning(field, job)))
        if name == "common" and job not in EXPLAINING:
            group.add_argument("--config", metavar="FILE.toml", help="read settings from this file; flags win over it")
    by_flags = parser.given(arguments)
    path = by_flags.pop("config", None)
    return _complete(job, {**(read_config(path, job) if path else {}), **by_flags})


def read_config(path: str, job: Job) -> dict[str, Any]:
    """The settings in a TOML file, each checked to be a known key with a value of the right type.

    A key of another job is allowed, so that one file can serve all jobs, and left out of the result.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not valid TOML: {error}") from None
    used = {field.name: field for field in fields_of(job)}
    known = {field.name: field for kind in (MeasureSettings, Settings) for field in dataclasses.fields(kind)} | used
    for key in values:
        if key not in known:
            hint = _meant(key, known) or f"known keys are {', '.join(known)}"
            raise UsageError(f"{path} has an unknown key {key!r}; {hint}")
    return {key: _typed(used[key], value, path) for key, value in values.items() if key in used}


def _typed(field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    """A value of a file, or of Python, as the setting has it: an integer will do for a fraction or an id."""
    expected, several = _value_types(field), _is_several(field)
    found = list(value) if several and isinstance(value, list | tuple) else [value]
    if expected == (float,):
        found = [float(one) if type(one) is int else one for one in found]
    if rules_of(field).holds == "id":
        found = [str(one) if type(one) is int else one for one in found]
    for one in found:
        if type(one) not in expected:
            types = " or ".join(kind.__name__ for kind in expected)
            raise UsageError(f"{where}: {field.name} must be a value of type {types}, not {type(one).__name__} {one!r}")
    return found if several else found[0]


def _meant(word: str, known: Iterable[str]) -> str:
    """The question whether the closest of the known words was meant; empty where none is close."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else ""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UsageErrors of one sentence, like all others."""

    def __init__(self, program: str, description: str, required: str) -> None:
        """``program``: what was started. ``description``: a paragraph, and after an empty line what is shown last."""
        does, _, example = description.partition("\n\n")
        super().__init__(
            prog=program,
            usage=f"{program} {required} [other settings]".replace("%", "%%"),
            description=does,
            epilog=example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )

    def given(self, arguments: Sequence[str] | None) -> dict[str, Any]:
        """The settings that arguments give, by name."""
        found, others = self.parse_known_args(arguments)
        unknown = next((word.partition("=")[0] for word in others if word.startswith("--")), None)
        if unknown:
            hint = _meant(unknown, self._option_string_actions) or f"see {self.prog} --help"
            raise UsageError(f"unknown flag {unknown}; {hint}")
        if others:
            self.error(f"unexpected argument {others[0]!r}")
        return vars(found)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with argparse's message and where to read more."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def _argument(field: dataclasses.Field[Any], told: str) -> dict[str, Any]:
    """Arguments of add_argument for a setting, of which ``told`` is told."""
    if field.type is bool:
        return {"action": argparse.BooleanOptionalAction, "help": told}
    note, default = "", field.default
    if default not in (None, "", ()) and rules_of(field).group != "required":
        note = f" (default: {default})"
        if isinstance(default, tuple):
            note = f" (several make a grid; default: {' '.join(map(str, default))})"
    types = _value_types(field)
    argument: dict[str, Any] = {
        "type": types[0] if len(types) == 1 else _number_or_text,
        "help": (told + note).replace("%", "%%"),
        "metavar": _metavar(field),
    }
    if _is_several(field):
        argument |= {"nargs": "+", "action": "extend"}
    if choices := _choices(field):
        argument["choices"] = choices
    return argument


_METAVARS = {(int,): "N", (float,): "X", (str,): "VALUE", (int, str): "N|SHARE%", (int, float, str): "X|SHARE%"}


def _metavar(field: dataclasses.Field[Any]) -> str:
    return "|".join(_taken(field)) or _METAVARS[_value_types(field)]


def _number_or_text(text: str) -> int | str:
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else text


def _is_several(field: dataclasses.Field[Any]) -> bool:
    return typing.get_origin(field.type) is tuple


def _choices(field: dataclasses.Field[Any]) -> tuple[str, ...]:
    kind = typing.get_args(field.type)[0] if _is_several(field) else field.type
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def _taken(field: dataclasses.Field[Any]) -> list[str]:
    """The choices that the job takes."""
    return [choice for choice in _choices(field) if choice not in rules_of(field).refuses]


def _value_types(field: dataclasses.Field[Any]) -> tuple[type, ...]:
    """The Python types of a setting's value, of int, float, str and bool."""
    if _choices(field):
        return (str,)
    alternatives = typing.get_args(field.type) or (field.type,)
    return tuple(kind for kind in alternatives if kind not in (type(None), ...))
