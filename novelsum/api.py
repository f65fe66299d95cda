"""The jobs as functions of a program: a Spark DataFrame or a path in, a DataFrame and the manifest out.

They run on the caller's Spark session, which goes on living as it was. A DataFrame is written to Parquet first, by
Spark, which is what the engine reads: so whatever Spark can open can be selected from. From there on the job itself
runs, :mod:`~novelsum.pipeline` or :mod:`~novelsum.diversity.job`, and what it has published is read back by Spark.
"""

import atexit
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from pyspark import SparkContext
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.types import StructField, StructType

from novelsum import pipeline
from novelsum.diversity.job import measure
from novelsum.errors import InputError, RunError, UsageError, error_of_a_task
from novelsum.files.location import MANIFEST, Location
from novelsum.files.workplace import WORK, read_manifest
from novelsum.report.output import output_name
from novelsum.settings import SELECTING, Job, MeasureSettings, Settings, given
from novelsum.spark import interrupt, session

Data = DataFrame | str | os.PathLike[str]

_TIMESTAMPS = "spark.sql.parquet.outputTimestampType"
_FUNCTIONS = {
    "curate": "select",
    "select_subset": "select",
    "estimate_density": "density",
    "measure_diversity": "diversity",
}
_WRITTEN: WeakKeyDictionary[DataFrame, str] = WeakKeyDictionary()
"""Where the results lie that were given back: their DataFrame as an input is that folder, manifest and all."""


class Result(NamedTuple):
    """What a job found, to be unpacked: its rows, in files that Spark reads as they are asked for, and its manifest."""

    data: DataFrame
    manifest: dict[str, Any]


def select(
    data: Data,
    budget: int | str | None = None,
    *,
    density: Data | None = None,
    already_selected: Data | None = None,
    reference: Data | None = None,
    output: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Result:
    """Select ``budget`` rows, or a share of them such as ``"5%"``, by NovelSelect: the job ``curate``.

    ``density``: density factors estimated before, of the same rows; then it is the job ``select_subset``. ``output``: a
    folder to keep, as the job writes it; otherwise the result is in a temporary one until Python ends. ``settings`` are
    those of the job, by the names that its flags have: ``neighbors=20``, ``quota=["code=10%"]``.

    The result has a row for each pick: ``pick`` (1, 2, …), the id, ``novelty``, ``density``, and all columns of the
    data but the embedding. Raises UsageError, InputError or RunError.
    """
    data_of = {"input": data, "density": density, "already_selected": already_selected, "reference": reference}
    job: Job = "curate" if density is None else "select_subset"
    return _Call(job, data_of, {"budget": budget, **settings}, output).result()


def density(
    data: Data | None = None,
    *,
    reference: Data | None = None,
    remove: Data | None = None,
    output: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Result:
    """Estimate the density factor of every row: the job ``estimate_density``.

    The result has the id, ``density`` and ``kth_distance`` of each, and serves :func:`select` as its ``density``.
    ``output``, ``settings`` and errors are as there; ``data`` is left out only to ``remove`` ids from a state.
    """
    data_of = {"input": data, "reference": reference, "remove": remove}
    return _Call("estimate_density", data_of, settings, output).result()


def diversity(
    data: Data | Sequence[Data],
    *,
    reference: Data | None = None,
    output: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Result:
    """Measure how diverse data sets are, one or a list of them, by NovelSum: the job ``measure_diversity``.

    The result has a row for each of them and each combination of the settings, of which several can be lists:
    ``neighbors=[5, 10]``. ``output``, ``settings`` and errors are as in :func:`select`.
    """
    sets = list(data) if isinstance(data, list | tuple) else data
    return _Call("measure_diversity", {"input": sets, "reference": reference}, settings, output).result()


# --- a call from end to end -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """A job with its data by the names of their settings, all other settings, and the folder to keep, if any."""

    job: Job
    data: Mapping[str, Any]
    values: Mapping[str, Any]
    output: str | os.PathLike[str] | None

    def result(self) -> Result:
        """Run the job, on the session of its data."""
        session.require_classic(None)
        spark = _session_of(frame for of_setting in self.data.values() for frame in _frames(of_setting))
        if "master" in self.values:
            raise UsageError("a session has its master already; build it with that one instead of giving master")
        context = spark.sparkContext
        place = _Place.of(context, self.output, self.values.get("work_dir"))
        copies = _Copies(place.inputs)
        with _in_python(copies), _removed(place):
            paths = {name: copies.path_of(name, value) for name, value in self.data.items() if value is not None}
            if copies.names and self.output is not None and not self.values.get("overwrite"):
                _require_new(place.output)
            settings = self._settings(paths, str(place.output))
            with session.lent(context):
                interrupt.apart(context, partial(self._run, copies, settings))
            manifest = read_manifest(place.output) or {}
            found = self._read(spark, settings, place.output, copies, manifest)
        _WRITTEN[found] = str(place.output)
        return Result(found, copies.named(manifest))

    def _settings(self, paths: Mapping[str, Any], output: str) -> Settings | MeasureSettings:
        draws = self.job in SELECTING or self.job == "measure_diversity"
        report = {"report": False} if draws and self.output is None else {}
        plain = {name: _plain(value) for name, value in self.values.items()}
        return given(self.job, {**report, **plain, **paths, "output": output}, f"novelsum.{_FUNCTIONS[self.job]}")

    def _run(self, copies: "_Copies", settings: Settings | MeasureSettings) -> None:
        copies.write(settings, with_others=self.job in SELECTING)
        if isinstance(settings, MeasureSettings):
            measure(settings, is_told=False, names=copies.names)
        else:
            pipeline.run(self.job, settings, is_told=False)

    def _read(
        self,
        spark: SparkSession,
        settings: Settings | MeasureSettings,
        output: Location,
        copies: "_Copies",
        manifest: dict[str, Any],
    ) -> DataFrame:
        """What the job has published, in the types that the columns of a DataFrame had."""
        if self.job == "measure_diversity":
            found = spark.read.parquet(_for_spark(spark, output / "diversity.parquet"))
            names: dict[Any, Any] = dict(copies.names)
            return found.replace(names, subset=["input"]) if names else found
        if self.job == "estimate_density":
            return spark.read.parquet(f"{_for_spark(spark, output)}/part-*.parquet")
        selected = _for_spark(spark, output / "selected")
        found = spark.read.parquet(selected)
        data = self.data["input"]
        if not isinstance(data, DataFrame):
            return found
        of_data = {field.name: field.dataType for field in data.schema}
        came_in = manifest.get("embedded", {}).get("columns") or {name: name for name in of_data}
        kinds = {output_name(name, settings.id_column): of_data[came_in[name]] for name in came_in}
        kinds = {**kinds, **{name: found.schema[name].dataType for name in ("pick", "novelty", "density")}}
        schema = StructType([StructField(field.name, kinds.get(field.name, field.dataType)) for field in found.schema])
        return spark.read.schema(schema).parquet(selected)


def _require_new(output: Location) -> None:
    """Raise UsageError where a folder has a result or unfinished work: nobody knows if a DataFrame is the same."""
    if any(entry.name in (MANIFEST, WORK) for entry in output.entries()):
        raise UsageError(
            f"--output {output} holds a result or an unfinished run, and whether this DataFrame is that of before "
            "cannot be known; give a path to go on from it, name another folder, or replace it with --overwrite"
        )


def _frames(value: Any) -> list[DataFrame]:
    """The DataFrames of a setting; raise UsageError where it is neither one nor a path."""
    frames = []
    for one in value if isinstance(value, list) else [value]:
        if type(one).__module__.startswith("pyspark.sql.connect."):
            raise UsageError(
                "this DataFrame is one of Spark Connect, which has no RDDs to run on; use a classic session, on "
                "Databricks a cluster of dedicated access mode"
            )
        if isinstance(one, DataFrame):
            frames.append(one)
        elif one is not None and not isinstance(one, str | os.PathLike):
            raise UsageError(f"data must be a Spark DataFrame or a path, not {type(one).__name__}")
    return frames


def _session_of(frames: Iterator[DataFrame]) -> SparkSession:
    """The session of the first DataFrame, or the one that is active, or else a new one, which is the caller's then."""
    first = next(iter(list(frames)), None)
    if first is not None:
        spark = first.sparkSession
        if spark.sparkContext._jsc is None:
            raise UsageError("the Spark session of this DataFrame was stopped; read it again with one that lives")
        return spark
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    if SparkContext._active_spark_context is None:
        session.start("from Python", None)
    return SparkSession.builder.getOrCreate()


def _plain(value: Any) -> Any:
    """A value of NumPy's, or a path, as Python's own."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.item() if hasattr(value, "item") else value


# --- where all lies ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """The output, whether it is ``kept`` for the caller, and where copies of the inputs lie while the job runs."""

    output: Location
    kept: bool
    inputs: Location

    @staticmethod
    def of(context: SparkContext, output: str | os.PathLike[str] | None, work_dir: Any) -> "_Place":
        """Where all executors reach it: on one machine its temporary folder, else beside what the caller names."""
        name = f"novelsum-{uuid.uuid4().hex}"
        kept = Location.of(os.fspath(output)) if output is not None else None
        if str(context.master).startswith("local"):
            temporary = Location.of(_temporary_folder(context)) / name
        elif work_dir is not None:
            temporary = Location.of(os.fspath(work_dir)) / name
        elif kept is not None:
            temporary = kept.parent / f"{kept.name}-{name}"
        else:
            raise UsageError(
                f"Spark runs on {context.master}, where all executors must reach what is written: name a folder on "
                "storage that they share with output, or with work_dir"
            )
        return _Place(kept or temporary / "result", kept is not None, temporary / "inputs")


def _temporary_folder(context: SparkContext) -> str:
    """Where Spark has its own temporary files on this machine: the first place of them."""
    named = os.environ.get("SPARK_LOCAL_DIRS") or context.getConf().get("spark.local.dir") or ""
    return named.split(",")[0] or tempfile.gettempdir()


@contextmanager
def _removed(place: _Place) -> Iterator[None]:
    """Remove the copies of inputs at the end, and a result that nobody keeps when Python ends, or now if it failed."""
    temporary = place.inputs.parent
    temporary.make_folder(private=True)
    try:
        yield
    except BaseException:
        _remove(temporary)
        raise
    if place.kept:
        _remove(temporary)
    else:
        _remove(place.inputs)
        atexit.register(_remove, temporary)


def _remove(folder: Location) -> None:
    with suppress(Exception):
        shutil.rmtree(folder.path) if folder.is_local else folder.delete()


def _for_spark(spark: SparkSession, location: Location) -> str:
    """A location as Spark takes it: names are no patterns, and a disk is not to be taken for the default storage."""
    text = re.sub(r"([\\{}\[\]*?])", r"\\\1", location.uri)
    if location.is_local:
        return f"file://{text}"
    knows_s3 = spark.sparkContext._jsc.hadoopConfiguration().get("fs.s3.impl")
    return text if knows_s3 else re.sub(r"^s3://", "s3a://", text)


# --- DataFrames as files ----------------------------------------------------------------------------------


class _Copies:
    """The DataFrames of a call as Parquet in ``folder``."""

    def __init__(self, folder: Location) -> None:
        self._folder = folder
        self._frames: list[tuple[str, Location, DataFrame]] = []
        self.names: dict[str, str] = {}

    def path_of(self, setting: str, value: Any) -> Any:
        """The path of the data of a setting, or a list of them: where it is, or where :meth:`write` will write it."""
        if isinstance(value, list):
            return [self._path(setting, one, f"DataFrame {number}") for number, one in enumerate(value, start=1)]
        return self._path(setting, value, "DataFrame" if setting == "input" else f"DataFrame of {setting}")

    def _path(self, setting: str, value: DataFrame | str | os.PathLike[str], name: str) -> str:
        if not isinstance(value, DataFrame):
            return os.fspath(value)
        if value in _WRITTEN:
            return _WRITTEN[value]
        place = self._folder / str(len(self._frames))
        self._frames.append((setting, place, value))
        self.names[str(place)] = name
        return str(place)

    def write(self, settings: Settings | MeasureSettings, with_others: bool) -> None:
        """Write them all, of each the columns that the job uses; of the input all, if it is to be ``with_others``.

        Raises InputError where one has no such column, or Parquet does not have its kind.
        """
        named = {field.name for field in fields(settings) if field.name.endswith("_column")}
        options = sorted(named - {"record_column"})  # which a DataFrame need not have
        columns = {option: getattr(settings, option) for option in options if getattr(settings, option) is not None}
        of_texts = isinstance(settings, Settings) and settings.model is not None
        for setting, place, frame in self._frames:
            if setting == "input" and of_texts:
                continue  # which of its columns are what is told where its texts are read
            needed = {"input": options, "reference": ["id_column", "embedding_column"]}.get(setting, ["id_column"])
            for option, column in columns.items():
                if option in needed and column not in frame.columns:
                    raise InputError(
                        f"{self.names[str(place)]} has no column {column!r}; its columns are "
                        f"{', '.join(frame.columns)}: name the right one with {option}"
                    )
        for setting, place, frame in self._frames:
            spark, name = frame.sparkSession, self.names[str(place)]
            spark.sparkContext.setJobDescription(f"novelsum: {name} to Parquet")
            if not (setting == "input" and with_others):
                used = dict.fromkeys([*columns.values(), "density"])
                frame = frame.select(*(_column(column) for column in used if column in frame.columns))
            try:
                with _timestamps_of_parquet(spark, frame):
                    frame.write.option("compression", "snappy").parquet(_for_spark(spark, place))
            except AnalysisException as error:
                told = str(error).split("\n")[0]
                raise InputError(f"{name} cannot be written as Parquet: {told}") from None

    def named(self, value: Any) -> Any:
        """A manifest with the names of DataFrames for the places of their copies."""
        if isinstance(value, dict):
            return {key: self.named(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.named(one) for one in value]
        return self.names.get(value, value) if isinstance(value, str) else value

    def told(self, message: str) -> str:
        """A message with the names of DataFrames for the places and files of their copies."""
        for place, name in self.names.items():
            message = re.sub(rf"{re.escape(place)}(/part-[^\s:;,]*)?(?![\w/])", name, message)
        return message


def _column(name: str) -> Any:
    return F.col("`" + name.replace("`", "``") + "`")


@contextmanager
def _timestamps_of_parquet(spark: SparkSession, frame: DataFrame) -> Iterator[None]:
    """Let Spark write times as Parquet has them, and not as Hive once did, in nanoseconds that only few then read.

    There is no option for it but one of the session, which gets back what it had.
    """
    if "timestamp" not in frame.schema.json():
        yield
        return
    before = spark.conf.get(_TIMESTAMPS, None)
    spark.conf.set(_TIMESTAMPS, "TIMESTAMP_MICROS")
    try:
        yield
    finally:
        if before is None:
            spark.conf.unset(_TIMESTAMPS)
        else:
            spark.conf.set(_TIMESTAMPS, before)


# --- errors -----------------------------------------------------------------------------------------------


@contextmanager
def _in_python(copies: _Copies) -> Iterator[None]:
    """Raise what can be told in a sentence as such, in the words of a program: of keywords, and of DataFrames."""
    try:
        yield
    except UsageError as error:
        raise UsageError(_by_keyword(copies.told(str(error)))) from None
    except (InputError, RunError) as error:
        raise type(error)(_by_keyword(copies.told(str(error)))) from None
    except Exception as error:
        told = error_of_a_task(error)
        if told is None:
            raise
        raise type(told)(_by_keyword(copies.told(str(told)))) from error


_SWITCHES = {f.name for kind in (Settings, MeasureSettings) for f in fields(kind) if f.type is bool}
_NAMES = {f.name for kind in (Settings, MeasureSettings) for f in fields(kind)}


def _by_keyword(message: str) -> str:
    """A message about flags as one about keywords: ``--id-column`` is ``id_column``, ``--overwrite`` is set to True."""

    def keyword(found: re.Match[str]) -> str:
        name = found[1].replace("-", "_")
        if name.removeprefix("no_") in _SWITCHES:
            return f"{name.removeprefix('no_')}={not name.startswith('no_')}"
        if name == "input":
            return "data"
        return name if name in _NAMES else found[0]

    return re.sub(r"--([a-z][a-z-]*[a-z])", keyword, message)
