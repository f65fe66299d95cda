"""DataFrames in and DataFrames out, in a session of the caller's that goes on living as it was."""

import datetime
import decimal
import glob
import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLE, Points
from embedding_server import serving
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.types import (
    ArrayType,
    ByteType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

import novelsum
from novelsum import api
from novelsum.spark import session as spark_session


@pytest.fixture(scope="module")
def session(spark: Any) -> SparkSession:
    return SparkSession.builder.getOrCreate()


@pytest.fixture(scope="module")
def prompts_in_spark(session: SparkSession) -> DataFrame:
    """The shipped sample, its rows in an order and in partitions of their own."""
    rows = session.read.parquet(SAMPLE.as_uri()).repartition(5, F.length("text"))
    return rows.sortWithinPartitions(F.reverse("id"))


def temporary_of(session: SparkSession) -> list[str]:
    return glob.glob(f"{api._temporary_folder(session.sparkContext)}/novelsum-*/inputs")


def told_by(session: SparkSession) -> dict[str, Any]:
    """What a session has that a call might change."""
    context = session.sparkContext
    return {
        "conf": {row.key: row.value for row in session.sql("SET").collect()},
        "properties": sorted(context.getConf().getAll()),
        "description": context.getLocalProperty("spark.job.description"),
        "group": context.getLocalProperty("spark.jobGroup.id"),
        "environment": dict(context.environment),
        "python": context.pythonExec,
        "level": str(context._jvm.org.apache.logging.log4j.LogManager.getRootLogger().getLevel()),
        "handlers": (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)),
    }


def test_picks_of_a_dataframe_and_of_a_path_are_those_of_the_formula(session, prompts_in_spark, sample, oracle):
    """With all other columns, whatever the order of rows; the session is as it was, and what is printed is nothing."""
    expected = oracle(sample, 25)
    session.sparkContext.setJobDescription("mine")
    session.sparkContext.setJobGroup("mine", "of the caller")
    before = told_by(session)
    picks, manifest = novelsum.select(prompts_in_spark, budget=25)
    assert told_by(session) == before
    for data in (picks, novelsum.select(str(SAMPLE), 25).data):
        rows = data.collect()
        assert data.columns == ["pick", "id", "novelty", "density", "nearest_id", "nearest_distance", "text", "group"]
        assert [row.id for row in rows] == expected.picks
        assert [row.density for row in rows] == [expected.density[id_] for id_ in expected.picks]
        assert [row.novelty for row in rows] == pytest.approx(expected.novelty, rel=1e-9, abs=0)
    texts = {row["id"]: row["text"] for row in pq.read_table(SAMPLE, columns=["id", "text"]).to_pylist()}
    assert all(row.text == texts[row.id] for row in rows)
    assert (manifest["job"], manifest["input"]["path"], manifest["input"]["candidates"]) == (
        "curate",
        "DataFrame",
        2771,
    )
    assert prompts_in_spark.count() == 2869
    assert told_by(session) == before
    assert temporary_of(session) == []


@pytest.mark.more
def test_density_of_a_dataframe_serves_a_selection_and_diversity_measures_several(session, prompts_in_spark):
    """A result is known by its manifest when it is an input; any other DataFrame is taken by its columns."""
    density, manifest = novelsum.density(prompts_in_spark, neighbors=5)
    assert density.columns == ["id", "density", "kth_distance"]
    assert density.count() == manifest["input"]["candidates"]
    expected = [row.id for row in novelsum.select(prompts_in_spark, budget=5, neighbors=5).data.collect()]
    for given in (density, density.filter("density > 0").drop("kth_distance")):
        found, manifest = novelsum.select(prompts_in_spark, budget=5, neighbors=5, density=given)
        assert manifest["job"] == "select_subset"
        assert [row.id for row in found.collect()] == expected
    with pytest.raises(novelsum.InputError, match="was estimated with neighbors = 5"):
        novelsum.select(prompts_in_spark, budget=5, density=density)
    few = prompts_in_spark.limit(300)
    measured, manifest = novelsum.diversity([few, str(SAMPLE)], neighbors=[5, 10], formula="paper")
    assert [(row.input, row.neighbors) for row in measured.collect()] == [
        (name, neighbors) for name in ("DataFrame 1", str(SAMPLE)) for neighbors in (5, 10)
    ]
    assert [row["path"] for row in manifest["inputs"]] == ["DataFrame 1", str(SAMPLE)]
    assert sorted(row["name"] for row in manifest["ranking"]) == ["DataFrame 1", SAMPLE.name]
    assert [sentence.startswith("DataFrame 1 is ") for sentence in manifest["told"]["random"]] == [True]


@pytest.mark.more
def test_a_selection_begins_with_picks_of_another_as_a_dataframe(session, prompts_in_spark, sample, oracle):
    whole = oracle(sample, 12)
    begun = novelsum.select(prompts_in_spark, budget=5).data
    for before in (begun, begun.select("id")):
        found = novelsum.select(prompts_in_spark, budget=7, already_selected=before)
        assert [row.id for row in found.data.collect()] == whole.picks[5:]


HOSTILE = StructType(
    [
        StructField("pick", TimestampType()),
        StructField("the key", IntegerType()),
        StructField("a.b `c`", StructType([StructField("when", TimestampType()), StructField("x y", FloatType())])),
        StructField("days", ArrayType(DateType())),
        StructField("price", DecimalType(12, 2)),
        StructField("tiny", ByteType()),
        StructField("map", MapType(StringType(), DoubleType())),
    ]
)


def test_columns_of_a_dataframe_come_back_in_their_types_under_odd_names(session, sample, oracle):
    """Times, nested ones too, decimals, bytes, maps, Spark ML vectors, beside names with dots, quotes and spaces."""
    points = Points(list(range(30)), sample.vectors[:30])
    day = datetime.datetime(2026, 3, 29, 2, 30, 0, 123456)
    rows = [
        (
            day + datetime.timedelta(hours=number),
            number,
            {"when": day, "x y": 0.5} if number % 2 else None,
            [day.date(), None],
            decimal.Decimal(number) / 4,
            number - 15,
            {"a": 0.1},
        )
        for number in points.ids
    ]
    plain = session.createDataFrame(rows, HOSTILE)
    vectors = [(number, Vectors.dense(vector)) for number, vector in zip(points.ids, points.vectors, strict=True)]
    data = plain.join(session.createDataFrame(vectors, ["key", "features"]), F.col("the key") == F.col("key")).drop(
        "key"
    )
    names = {"id_column": "the key", "embedding_column": "features"}
    before = told_by(session)
    picks = novelsum.select(data, budget=8, neighbors=3, **names).data
    assert told_by(session) == before
    expected = oracle(Points(points.ids, points.vectors.astype(float)), 8, neighbors=3)
    assert [row["the key"] for row in picks.collect()] == expected.picks
    ours = (
        picks.drop("pick", "novelty", "density")
        .withColumnRenamed("input_pick", "pick")
        .select(*(F.col("`" + name.replace("`", "``") + "`") for name in plain.columns))
    )
    assert [field.dataType for field in ours.schema] == [field.dataType for field in HOSTILE]
    of_key: dict[int, Row] = {row["the key"]: row for row in plain.collect()}
    assert [tuple(row) for row in ours.collect()] == [tuple(of_key[id_]) for id_ in expected.picks]


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({}, novelsum.UsageError, "budget is missing"),
        ({"budget": 0}, novelsum.UsageError, "budget must be at least 1"),
        (
            {"budget": 3, "bugdet": 3},
            novelsum.UsageError,
            "novelsum.select has no setting 'bugdet'; did you mean budget?",
        ),
        ({"budget": 3, "neighbors": 2.5}, novelsum.UsageError, "neighbors must be a value of type int, not float 2.5"),
        ({"budget": 3, "metric": "cos"}, novelsum.UsageError, "^metric must be one of cosine, euclidean"),
        ({"budget": 3, "quota": ["a=1"]}, novelsum.UsageError, "^quota is about groups; name .* with group_column"),
        ({"budget": 3, "master": "local"}, novelsum.UsageError, "a session has its master already"),
        ({"budget": 3, "density": 5}, novelsum.UsageError, "a Spark DataFrame or a path, not int"),
        ({"budget": 3, "id_column": "key"}, novelsum.InputError, "^DataFrame has no column 'key'; .* with id_column"),
        ({"budget": 99}, novelsum.InputError, "^budget 99 is above the number of rows of DataFrame, 40; ask for fewer"),
        ({"budget": 3, "first": "zz"}, novelsum.InputError, "^first 'zz' is not among the candidates"),
        ({"budget": 3, "embedding_column": "bad"}, novelsum.InputError, "^column 'bad' of DataFrame has type"),
        ({"budget": 3, "reference": "nowhere"}, novelsum.InputError, "^nowhere does not exist"),
    ],
)
def test_what_is_wrong_is_an_exception_in_the_words_of_python(session, settings, kind, words):
    vectors = np.random.default_rng(3).normal(size=(40, 4)).tolist()
    data = session.createDataFrame(
        [(f"n{i:02d}", vector, "no") for i, vector in enumerate(vectors)], ["id", "embedding", "bad"]
    )
    with pytest.raises(kind, match=words):
        novelsum.select(data, **settings)
    assert temporary_of(session) == []


def test_a_bad_row_of_a_dataframe_is_named_by_its_id(session):
    data = session.createDataFrame(
        [("a", [1.0, 2.0]), ("b", [1.0, float("nan")]), ("c", [2.0, 1.0])], ["id", "embedding"]
    )
    with pytest.raises(novelsum.InputError, match=r"'b'.* on_bad_rows"):
        novelsum.select(data, budget=1, neighbors=1)
    picks, manifest = novelsum.select(data, budget=1, neighbors=1, on_bad_rows="drop")
    assert picks.count() == 1
    assert sum(manifest["input"]["bad_rows"].values()) == 1


@pytest.mark.more
def test_an_output_is_kept_and_is_what_the_job_writes(session, prompts_in_spark, tmp_path):
    """Patterns in its name are none; the same again of a path is not done again, and with another seed refused."""
    output = tmp_path / "a [b] {c}*"
    picks, _ = novelsum.select(prompts_in_spark, budget=5, output=output)
    assert sorted(entry.name for entry in output.iterdir()) == [
        *("_MANIFEST.json", "_rows.parquet", "duplicates", "metrics.json", "report.html", "report.json", "selected")
    ]
    assert picks.count() == 5
    with pytest.raises(novelsum.UsageError, match=r"whether this DataFrame is that of before .* overwrite=True"):
        novelsum.select(prompts_in_spark, budget=5, output=output)
    of_path = tmp_path / "of a path"
    first = novelsum.select(SAMPLE, budget=5, output=of_path, report=False)
    assert novelsum.select(SAMPLE, budget=5, output=of_path, report=False).manifest == first.manifest
    words = r"another run: seed was 42 and is 6; .*replace it with overwrite=True"
    with pytest.raises(novelsum.UsageError, match=words):
        novelsum.select(SAMPLE, budget=5, output=of_path, report=False, seed=6)
    longer = novelsum.select(SAMPLE, budget=6, output=of_path, report=False)
    assert (longer.manifest["selected"]["picks"], longer.manifest["selected"]["resumed_picks"]) == (6, 5)


@pytest.mark.more
def test_texts_of_a_dataframe_are_embedded_and_its_columns_come_back(session, tmp_path):
    """Chats in a column of structs, without an id; other columns are what they were, in their types."""
    chats = [[Row(role="user", content=f"question {n}"), Row(role="assistant", content="answer")] for n in range(40)]
    data = session.createDataFrame([Row(messages=chat, text=[n], tokens=n + 0.5) for n, chat in enumerate(chats)])
    with serving() as server:
        picks, manifest = novelsum.select(data, budget=3, model="test-model", server=server.url)
    assert dict(picks.dtypes)["input_text"] == "array<bigint>"
    assert manifest["text"]["records"] == 40
    for row in picks.collect():
        (n,) = row.input_text
        assert (row.text, row.tokens, row.messages) == (f"question {n}\nanswer", n + 0.5, chats[n])


def test_tasks_have_one_blas_thread_within_a_call_and_their_scratch_is_gone_after(session, with_rounds):
    context = session.sparkContext

    def threads() -> list[str | None]:
        return context.parallelize([0], 1).map(lambda _: os.environ.get("OPENBLAS_NUM_THREADS")).collect()

    (local,) = context.parallelize([0], 1).map(lambda _: os.environ["SPARK_LOCAL_DIRS"]).collect()
    before = threads()
    with spark_session.lent(context):
        assert threads() == ["1"]
    assert threads() == before
    left = set(glob.glob(f"{local}/novelsum-*"))
    assert novelsum.select(str(SAMPLE), budget=30).data.count() == 30
    assert set(glob.glob(f"{local}/novelsum-*")) == left


def test_a_cluster_needs_a_folder_that_executors_reach(session, monkeypatch):
    """Copies of DataFrames lie beside it then."""
    monkeypatch.setattr(session.sparkContext, "master", "yarn")
    with pytest.raises(novelsum.UsageError, match="Spark runs on yarn, where all executors must reach what is written"):
        novelsum.select(str(SAMPLE), budget=3)
    place = api._Place.of(session.sparkContext, "s3://bucket/out", None)
    assert place.inputs.uri.startswith("s3://bucket/out-novelsum-")
    assert api._Place.of(session.sparkContext, None, "s3://bucket/w").output.uri.startswith("s3://bucket/w/novelsum-")


def test_spark_connect_is_refused(monkeypatch, session):
    kind = type("DataFrame", (), {"__module__": "pyspark.sql.connect.dataframe"})
    with pytest.raises(novelsum.UsageError, match="one of Spark Connect, which has no RDDs"):
        novelsum.density(kind())
    monkeypatch.setenv("SPARK_REMOTE", "sc://host")
    with pytest.raises(novelsum.UsageError, match="SPARK_REMOTE is set"):
        novelsum.density(str(SAMPLE))


def test_rooms_of_the_engine_that_share_a_name_with_a_function_are_both():
    assert novelsum.density.exact.estimate_density
    assert list(inspect.signature(novelsum.density)._parameters) == list(inspect.signature(api.density).parameters)
    assert list(inspect.signature(novelsum.diversity).parameters) == list(inspect.signature(api.diversity).parameters)


def run_program(program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_package_is_imported_without_spark_and_numpy():
    program = (
        "import sys, novelsum; from novelsum import UsageError; novelsum.density; assert 'pyspark' not in sys.modules"
    )
    done = run_program(program + "; from novelsum import formula; assert 'pyspark' not in sys.modules")
    assert done.returncode == 0, done.stderr


WITHOUT_A_SESSION = """
import sys, novelsum
picks, manifest = novelsum.select(sys.argv[1], budget=5)
from pyspark.sql import SparkSession
spark = SparkSession.getActiveSession()
print(spark.range(3).count(), picks.count(), picks.inputFiles()[0])
"""


@pytest.mark.more
def test_without_a_session_one_is_started_and_left_to_the_caller_and_files_go_when_python_ends(tmp_path):
    """Nothing is told that was not asked for."""
    done = run_program(WITHOUT_A_SESSION, SAMPLE, SPARK_LOCAL_DIRS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    counted, picked, file = done.stdout.split()
    assert (counted, picked) == ("3", "5")
    assert Path(file.removeprefix("file:")).is_relative_to(tmp_path)
    assert list(tmp_path.glob("novelsum-*")) == []
    assert [line for line in done.stderr.splitlines() if "Picked up JAVA" not in line] == []


INTERRUPTED = """
import glob, logging, os, signal, sys, threading, time
import novelsum
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[2]").getOrCreate()
spark.sparkContext.setLogLevel("OFF")
if sys.argv[3] == "notebook":  # what IPython's kernel does while it runs a cell
    signal.signal(signal.SIGINT, signal.default_int_handler)
data = spark.read.parquet(sys.argv[1])

class Interrupts(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith(sys.argv[2]):
            threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()

log = logging.getLogger("novelsum")
log.setLevel("INFO")
handler = Interrupts()
log.addHandler(handler)
started = time.monotonic()
try:
    novelsum.select(data, budget=2700)
    print("not interrupted")
except KeyboardInterrupt:
    print("interrupted")
log.removeHandler(handler)
jobs = [j for j in spark.sparkContext.statusTracker().getActiveJobsIds()]
threads = [t for t in threading.enumerate() if "Inheritable" in type(t).__name__]
print(jobs, threads, glob.glob(os.environ["SPARK_LOCAL_DIRS"] + "/novelsum-*"))
print(data.count(), [row.pick for row in novelsum.select(data, budget=3).data.collect()])
"""


@pytest.mark.restart
@pytest.mark.parametrize("handler", ["notebook", "spark"])
@pytest.mark.parametrize("at", ["curate: ", "stage=ingest", "stage=density"])
def test_an_interrupt_ends_the_call_and_not_the_session(tmp_path, at, handler):
    """In a stage that waits for Spark and in one that computes in the driver; nothing of the call lives on."""
    done = run_program(INTERRUPTED, SAMPLE, at, handler, SPARK_LOCAL_DIRS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["interrupted", "[] [] []", "2869 [1, 2, 3]"], done.stderr
