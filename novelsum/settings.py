"""Settings of the jobs: one dataclass, filled from a TOML file and from flags; flags win.

Every field is a key of the file (``proximity_power``) and a flag (``--proximity-power``). A job offers only
the fields it uses.
"""

import argparse
import dataclasses
import difflib
import math
import re
import tomllib
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from novelsum.errors import UsageError
from novelsum.files.schemes import require_reachable
from novelsum.formula import FORMULAS, Formula, Metric
from novelsum.formulas import EQUATIONS
from novelsum.selection.quotas import Quota

_MINIMUM = {
    "budget": 1,
    "neighbors": 1,
    "block_rows": 1,
    "show": 0,
    "seed": 0,
    "exact_limit": 1,
    "sample_rows": 100,
}

_PATHS = ("input", "output", "density", "already_selected", "reference", "save_state", "update", "remove", "work_dir")

Job = Literal["estimate_density", "select_subset", "curate", "measure_diversity"]
ALL: tuple[Job, ...] = ("estimate_density", "select_subset", "curate")
ESTIMATING: tuple[Job, ...] = ("estimate_density", "curate")
SELECTING: tuple[Job, ...] = ("select_subset", "curate")


def setting(
    description: str,
    default: Any = None,
    *,
    jobs: tuple[Job, ...] = ALL,
    required: bool = False,
    unless: str | None = None,
) -> Any:
    """A field of :class:`Settings`: its help text, default, and the jobs that use it.

    A ``required`` one may be left out where the setting ``unless`` is given.
    """
    metadata = {"help": description, "jobs": jobs, "required": required, "unless": unless}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of a run. Values are checked by :meth:`check`, which names the one that is wrong."""

    input: str = setting("Parquet file, folder or glob with one embedding a row", "", required=True, unless="remove")
    output: str = setting("folder to write the result to", "", required=True)
    density: str = setting(
        "what estimate_density wrote: Parquet with the id and density",
        "",
        jobs=("select_subset",),
        required=True,
    )
    budget: int = setting("how many samples to select", 0, jobs=SELECTING, required=True)
    already_selected: str | None = setting(
        "samples selected before, from which the picks are to differ too: Parquet with their ids, and with their "
        "embeddings where they may lie outside the input",
        jobs=SELECTING,
    )
    quality_column: str | None = setting("column of quality q, at least 0; the score is v(x)·q^γ", jobs=SELECTING)
    quality_power: float = setting("γ, the power of the quality", 1.0, jobs=SELECTING)
    quota: tuple[str, ...] = setting(
        "least and greatest number of picks of a group of --group-column: GROUP=LEAST:MOST or GROUP=NUMBER, in picks "
        "or in % of the budget; the group * is all others, and the rows that have none",
        (),
        jobs=SELECTING,
    )
    first: str | None = setting("id of the first pick (default: drawn from the ids by --seed)", jobs=SELECTING)
    seed: int = setting("draws the first pick when --first is not given", 42, jobs=SELECTING)
    id_column: str = setting("column of unique ids, integer or string", "id")
    embedding_column: str = setting("column of embeddings: list of float or double, or Spark ML vector", "embedding")
    formula: Formula = setting("; ".join(f"'{each.name}': {each.meaning}" for each in EQUATIONS.values()), "paper")
    metric: Metric = setting("distance between samples: 'cosine' (1 - cos) or 'euclidean'", "cosine")
    neighbors: int = setting("K, the nearest neighbours in a density factor", 10)
    proximity_power: float = setting("κ1, the power of the proximity weight 1/rank", 1.0)
    density_power: float = setting("κ2, the power of the density factor", 0.5)
    duplicates: Literal["drop", "keep"] = setting(
        "'drop' all but the smallest id of rows with equal embeddings, or 'keep' them", "drop"
    )
    density_method: Literal["exact", "approximate", "auto"] = setting(
        "'exact' search of all pairs, 'approximate' search of near cells with its recall measured, or 'auto': "
        "whichever is likely faster",
        "auto",
        jobs=ESTIMATING,
    )
    target_recall: float = setting(
        "share of the K nearest neighbours that the approximate search must find; 1 probes all cells",
        0.95,
        jobs=ESTIMATING,
    )
    reference: str | None = setting(
        "corpus to search the neighbours in: Parquet file, folder or glob (default: the input itself)", jobs=ESTIMATING
    )
    save_state: str | None = setting(
        "folder to write a state to, so that --update can add rows to it later", jobs=("estimate_density",)
    )
    update: str | None = setting(
        "state to add the input to: the result holds all its rows, old and new", jobs=("estimate_density",)
    )
    remove: str | None = setting(
        "ids to take out of the state that --update names, before the input is added, if there is one: Parquet",
        jobs=("estimate_density",),
    )
    on_bad_rows: Literal["fail", "drop"] = setting(
        "'fail' when a row breaks the input contract, or 'drop' it into <output>/rejected", "fail"
    )
    overwrite: bool = setting("replace an earlier result in the output folder", False)
    compare: bool = setting(
        "also select as many at random, farthest-first and by k-means, and compare their diversity",
        False,
        jobs=("curate",),
    )
    show: int = setting("how many picks to print at the end and to show in the report", 10, jobs=SELECTING)
    text_column: str | None = setting("column whose text is shown beside the first picks", jobs=SELECTING)
    group_column: str | None = setting("column whose shares in pool and selection are shown", jobs=SELECTING)
    report: bool = setting("write report.html and report.json beside the selection", True, jobs=SELECTING)
    block_rows: int | None = setting(
        "rows of a block, the unit of parallel work (default: by pool and cores; never changes the result)"
    )
    work_dir: str | None = setting(
        "folder for the store and the pick log, which all executors reach (default: inside the output)"
    )
    keep_work: bool = setting("leave the store and the pick log when the run has succeeded", False)
    master: str | None = setting("Spark master, when not started by spark-submit (default: local[*,4])")

    def check(self, job: Job) -> None:
        """Raise UsageError naming the first setting of the job that has a bad value."""
        for field in fields_of(job):
            value = getattr(self, field.name)
            if value == field.default and field.metadata["unless"] and getattr(self, field.metadata["unless"]):
                continue
            for one in value if isinstance(value, tuple) else (value,):
                _check_value(field, one)
        for text in self.quota:
            Quota.parse(text)
        if self.quota and self.group_column is None:
            raise UsageError("--quota is about groups; name their column with --group-column")
        if self.update and self.save_state:
            raise UsageError("--update changes the state it names; leave --save-state out")
        if self.remove and not self.update:
            raise UsageError("--remove takes ids out of a state; name it with --update")
        if self.reference and (self.update or self.save_state):
            raise UsageError("a state holds the density of rows over themselves; leave --reference out")
        if self.already_selected and self.first is not None:
            raise UsageError("--first begins a selection, but --already-selected has begun it; leave one out")

    def for_manifest(self, job: Job) -> dict[str, Any]:
        """The settings the job uses, as they go into the manifest."""
        return {field.name: getattr(self, field.name) for field in fields_of(job)}


MEASURING: tuple[Job, ...] = ("measure_diversity",)


def _shared(name: str, default: Any = None) -> Any:
    """A field of :class:`MeasureSettings` that means what it means for the other jobs."""
    field = Settings.__dataclass_fields__[name]
    return setting(field.metadata["help"], field.default if default is None else default, jobs=MEASURING)


@dataclasses.dataclass(frozen=True)
class MeasureSettings:
    """All settings of measure_diversity, where several of a kind make a grid. Fields and checks as in Settings."""

    input: tuple[str, ...] = setting(
        "Parquet file, folder or glob of a data set; give it once for each", (), jobs=MEASURING, required=True
    )
    output: str = setting("folder to write the result to", "", jobs=MEASURING, required=True)
    reference: str | None = setting(
        "corpus in which nearest neighbours are searched (default: each data set itself)", jobs=MEASURING
    )
    formula: tuple[Formula, ...] = _shared("formula", FORMULAS)
    metric: Metric = _shared("metric")
    neighbors: tuple[int, ...] = _shared("neighbors", (10,))
    proximity_power: tuple[float, ...] = _shared("proximity_power", (1.0,))
    density_power: tuple[float, ...] = _shared("density_power", (0.5,))
    exact_limit: int = setting("rows up to which all are measured; above it, a sample", 100_000, jobs=MEASURING)
    sample_rows: int = setting("rows of the sample, each against the whole data set", 5_000, jobs=MEASURING)
    seed: int = setting("draws the sample from the ids", 42, jobs=MEASURING)
    id_column: str = _shared("id_column")
    embedding_column: str = _shared("embedding_column")
    duplicates: Literal["drop", "keep"] = _shared("duplicates")
    on_bad_rows: Literal["fail", "drop"] = _shared("on_bad_rows")
    overwrite: bool = _shared("overwrite")
    block_rows: int | None = _shared("block_rows")
    work_dir: str | None = _shared("work_dir")
    keep_work: bool = _shared("keep_work")
    master: str | None = _shared("master")

    def check(self) -> None:
        """Raise UsageError naming the first setting that has a bad value."""
        for field in fields_of("measure_diversity"):
            value = getattr(self, field.name)
            if isinstance(value, tuple) and not value:
                raise UsageError(f"{flag(field)} must not be empty: {field.metadata['help']}")
            for one in value if isinstance(value, tuple) else (value,):
                _check_value(field, one)

    def of_data_set(self, path: str) -> Settings:
        """What the other stages need to know to read one data set."""
        names = ("id_column", "embedding_column", "metric", "duplicates", "on_bad_rows", "block_rows")
        return Settings(input=path, output=self.output, **{name: getattr(self, name) for name in names})

    def for_manifest(self) -> dict[str, Any]:
        """The settings as they go into the manifest."""
        return {field.name: getattr(self, field.name) for field in fields_of("measure_diversity")}


def _check_value(field: dataclasses.Field[Any], value: Any) -> None:
    """Raise UsageError when a value of a setting is bad."""
    choices = _choices(field)
    if choices and value not in choices:
        raise UsageError(f"{flag(field)} must be one of {', '.join(choices)}, not {value!r}")
    if field.name in _MINIMUM and value is not None and value < _MINIMUM[field.name]:
        raise UsageError(f"{flag(field)} must be at least {_MINIMUM[field.name]}, not {value}")
    if _value_type(field) is float and not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{flag(field)} must be a finite number of at least 0, not {value}")
    if field.name == "target_recall" and not 0 < value <= 1:
        raise UsageError(f"{flag(field)} must be above 0 and at most 1, not {value}")
    if isinstance(value, str) and re.match(r"[a-z0-9]+://[^/@]*:[^@]*@", value):
        raise UsageError(
            f"{flag(field)} has credentials in its path, where logs and manifests would show them; give them in the "
            "environment of the job"
        )
    if field.name in _PATHS and value:
        require_reachable(flag(field), value)
    if value == "" and field.name != "first":
        raise UsageError(f"{flag(field)} must not be empty: {field.metadata['help']}")


def fields_of(job: Job) -> list[dataclasses.Field[Any]]:
    """The settings that a job uses."""
    if job == "measure_diversity":
        return list(dataclasses.fields(MeasureSettings))
    return [field for field in dataclasses.fields(Settings) if job in field.metadata["jobs"]]


def flag(field: dataclasses.Field[Any]) -> str:
    """The command-line flag of a setting."""
    return "--" + field.name.replace("_", "-")


def parse(job: Job, description: str, arguments: Sequence[str] | None = None) -> Settings:
    """Settings of ``job`` from ``arguments`` (default: the command line) over the file they may name.

    Raises UsageError for an unknown key, a value of the wrong type, or a missing or bad setting.
    """
    settings = Settings(**_with_tuples(_parsed(job, description, arguments)))
    settings.check(job)
    return settings


def parse_measure(description: str, arguments: Sequence[str] | None = None) -> MeasureSettings:
    """Settings of measure_diversity, as :func:`parse`."""
    settings = MeasureSettings(**_with_tuples(_parsed("measure_diversity", description, arguments)))
    settings.check()
    return settings


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _parsed(job: Job, description: str, arguments: Sequence[str] | None) -> dict[str, Any]:
    """The settings that flags and the file give, flags first."""
    parser = Parser(prog=f"{job}.py", description=description, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE.toml", help="read settings from this file; flags win over it")
    for field in fields_of(job):
        parser.add_argument(flag(field), **_argument(field))
    given = vars(parser.parse_args(arguments))
    path = given.pop("config", None)
    values = read_config(path, job) if path else {}
    values.update({name: value for name, value in given.items() if value is not None})
    for field in fields_of(job):
        if field.metadata["required"] and field.name not in values and not values.get(field.metadata["unless"]):
            raise UsageError(f"{flag(field)} is missing: {field.metadata['help']}")
    return values


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
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(known)}"
            raise UsageError(f"{path} has an unknown key {key!r}; {hint}")
        expected, several = _value_type(known[key]), _is_several(known[key])
        found = value if several and isinstance(value, list) else [value]
        if expected is float:
            found = [float(one) if type(one) is int else one for one in found]
        if key == "first" and type(value) is int:
            found = [str(value)]
        for one in found if key in used else ():
            if type(one) is not expected:
                raise UsageError(
                    f"{path}: {key} must be a value of type {expected.__name__}, not {type(one).__name__} {one!r}"
                )
        values[key] = found if several else found[0]
    return {key: value for key, value in values.items() if key in used}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UsageErrors of one sentence, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with argparse's message and where to read more."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def _argument(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """Arguments of add_argument for a setting; the default None tells a flag that was not given."""
    if field.type is bool:
        return {"action": argparse.BooleanOptionalAction, "help": field.metadata["help"]}
    note = "" if field.default in (None, "", ()) or field.metadata["required"] else f" (default: {field.default})"
    if _is_several(field) and field.default and not field.metadata["required"]:
        default: Any = field.default
        note = f" (several make a grid; default: {' '.join(map(str, default))})"
    argument: dict[str, Any] = {"type": _value_type(field), "help": (field.metadata["help"] + note).replace("%", "%%")}
    if _is_several(field):
        argument |= {"nargs": "+", "action": "extend"}
    choices = _choices(field)
    argument["metavar"] = "|".join(choices) if choices else _METAVARS[_value_type(field)]
    if choices:
        argument["choices"] = choices
    return argument


_METAVARS = {int: "N", float: "X", str: "VALUE"}


def _is_several(field: dataclasses.Field[Any]) -> bool:
    return typing.get_origin(field.type) is tuple


def _choices(field: dataclasses.Field[Any]) -> tuple[str, ...]:
    kind = typing.get_args(field.type)[0] if _is_several(field) else field.type
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def _value_type(field: dataclasses.Field[Any]) -> type:
    """The Python type of a setting's value: int, float, str or bool."""
    if _choices(field):
        return str
    alternatives = [kind for kind in typing.get_args(field.type) if kind not in (type(None), ...)]
    kind = alternatives[0] if alternatives else field.type
    assert isinstance(kind, type)
    return kind


def at_least(minimum: int) -> Callable[[str], int]:
    """An argument type: an integer of at least ``minimum``."""

    def parse_integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected an integer, not {text!r}") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, not {value}")
        return value

    return parse_integer


def non_negative(text: str) -> float:
    """An argument type: a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"must be a finite number of at least 0, not {text!r}")
    return value
