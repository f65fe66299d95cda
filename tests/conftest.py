"""What the tests share: the sample, one lazy Spark, the engine called as a function, the jobs as commands."""

import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway

from novelsum import formula, pipeline
from novelsum.density.exact import estimate_density
from novelsum.density.factors import read_density, require_finite_powers
from novelsum.density.reference import mark_itself
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.source import look, open_source
from novelsum.files.store import read_block
from novelsum.files.workplace import selected_before
from novelsum.rows import lot
from novelsum.selection import rounds
from novelsum.selection.already import log_already_selected
from novelsum.selection.rounds import first_row, select
from novelsum.settings import Settings
from novelsum.spark import session
from novelsum.strategies.select import select_by

# Short runs spend their time starting Java: one fast compiler, one simple collector and no web page.
os.environ.setdefault(
    "JAVA_TOOL_OPTIONS",
    "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dspark.ui.enabled=false -Dspark.sql.adaptive.enabled=false",
)
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
os.environ["PYSPARK_PYTHON"] = sys.executable

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
SAMPLE = DATA / "sample"
LOGGING = (ROOT / "conf" / "log4j2.properties").as_uri()


ELSEWHERE = {
    "host": "elsewhere",
    "boot": "b",
    "namespace": "n",
    "pid": 1,
    "started": "1",
    "since": "2026-01-01T00:00:00Z",
}
"""What a claim holds that a run on another machine has written."""


@dataclass(frozen=True)
class Points:
    """Ids in order and their vectors (n, D)."""

    ids: list[Any]
    vectors: np.ndarray

    def distinct(self) -> "Points":
        """Without all but the smallest id of equal vectors."""
        _, first = np.unique(self.vectors + 0, axis=0, return_index=True)
        kept = sorted(first)
        return Points([self.ids[i] for i in kept], self.vectors[kept])

    def write(self, path: Path, order: np.ndarray | None = None, rows_per_file: int | None = None) -> str:
        """Write them as Parquet in some order, in files of so many rows."""
        path.mkdir(parents=True)
        order = np.arange(len(self.ids)) if order is None else order
        size = rows_per_file or len(order)
        for start in range(0, len(order), size):
            part = order[start : start + size]
            write_parquet(path / f"part-{start:07d}.parquet", [self.ids[i] for i in part], self.vectors[part])
        return str(path)


def write_parquet(path: Path, ids: Any, vectors: Any, **columns: Any) -> str:
    """Write ids and embeddings, given as an array or as an Arrow column, and other columns to one file."""
    if isinstance(vectors, np.ndarray):
        flat = pa.array(vectors.reshape(-1))
        vectors = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]).cast(pa.list_(flat.type))
    pq.write_table(pa.table({"id": ids, "embedding": vectors, **columns}), path)
    return str(path)


def numbered(vectors: np.ndarray) -> Points:
    """Vectors as float32, their numbers as ids."""
    return Points([f"x{i:05d}" for i in range(len(vectors))], np.asarray(vectors, dtype=np.float32))


def read_points(*folders: Path) -> Points:
    """All rows of some folders, sorted by id."""
    tables = [ds.dataset(folder).to_table(["id", "embedding"]) for folder in folders]
    table = pa.concat_tables(tables).sort_by("id").combine_chunks()
    ids = table.column("id").to_pylist()
    return Points(ids, np.array(table.column("embedding").chunk(0).flatten()).reshape(len(ids), -1))


@pytest.fixture(scope="session")
def prompts() -> Points:
    """The 6,339 prompts with different embeddings, on which the authors' code was run."""
    return read_points(SAMPLE, DATA / "sample-rest").distinct()


@pytest.fixture(scope="session")
def sample() -> Points:
    """The shipped sample, duplicates and all."""
    return read_points(SAMPLE)


@pytest.fixture(scope="session")
def repeated(sample: Points) -> Points:
    """600 prompts, 100 of them copies of others."""
    rng = np.random.default_rng(8)
    vectors = np.concatenate([sample.vectors[:500], sample.vectors[rng.integers(0, 40, 100)]])
    return numbered(vectors[rng.permutation(600)])


@pytest.fixture(scope="session")
def clustered() -> Points:
    """400 points: clusters, 40 exact copies, near copies, one far point, and scales apart."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(12, 16))
    vectors = centres[rng.integers(0, 12, 400)] + 0.3 * rng.normal(size=(400, 16))
    vectors[300:340] = vectors[rng.integers(0, 8, 40)]
    vectors[340:360] = vectors[:20] + 1e-6 * rng.normal(size=(20, 16))
    vectors[360] *= 300
    order = rng.permutation(400)
    return Points([f"c{i:03d}" for i in range(400)], vectors[order].astype(np.float32))


@pytest.fixture(scope="session")
def graded() -> tuple[Points, np.ndarray, np.ndarray]:
    """Points with ids, groups of unequal size and qualities, zeros among them; some points twice."""
    rng = np.random.default_rng(11)
    centers = rng.normal(size=(6, 12))
    group = rng.choice(6, 700, p=[0.5, 0.2, 0.13, 0.08, 0.05, 0.04])
    vectors = (centers[group] + 0.7 * rng.normal(size=(700, 12))).astype(np.float32)
    vectors[::35] = vectors[1::35]
    names = np.array(["web", "chat", "code", 'a "b" 100%', "math=1", "\u00e4"])[group]
    quality = np.round(rng.uniform(0, 2, 700), 1)
    quality[::35] = 0.3
    return Points([f"w{i:03d}" for i in range(700)], vectors), names, quality


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    started = session.start("tests", "local[2]")
    yield started
    started.stop()


@dataclass(frozen=True)
class Outcome:
    """What the engine found: picks and novelty in order, density by id, the pool, and what the selection took."""

    picks: list[Any]
    novelty: list[float]
    density: dict[Any, float]
    pool: Any
    effort: Any = None


def assert_same(found: Outcome, expected: Outcome) -> None:
    """The same picks; novelties may differ by rounding, however small they are."""
    assert found.picks == expected.picks
    assert found.novelty == pytest.approx(expected.novelty, rel=1e-9, abs=1e-300)


@pytest.fixture
def engine(spark: Any, tmp_path: Path) -> Callable[..., Outcome]:
    """Run ingest, density and selection on a path, without the command line around them."""
    runs = iter(range(100))

    def run(path: str, budget: int | str, **settings: Any) -> Outcome:
        chosen = replace(Settings(input=path, budget=budget), **settings)
        work = Location.of(str(tmp_path / f"work-{next(runs)}"))
        pool = ingest(spark, open_source(path, chosen.id_column, chosen.embedding_column), chosen, work)
        estimate_density(spark, pool, chosen, work)
        require_finite_powers(pool, work, chosen)
        density = {}
        for block in pool.blocks:
            values = read_density(work, block.name).density.tolist()
            density.update(zip(read_block(work, block.name).ids.to_pylist(), values, strict=True))
        first, begun = None, 0
        if chosen.already_selected:
            source = open_source(path, chosen.id_column, chosen.embedding_column)
            before = selected_before(look(chosen.already_selected), work)
            begun = log_already_selected(spark, source, pool, None, work, None, chosen, before, work)["samples"]
        else:
            first = first_row(spark, pool, chosen)
        by = select if chosen.strategy == "novelselect" else select_by
        picks, effort = by(spark, pool, work, work, chosen, first, begun)
        return Outcome([pick.id for pick in picks], [pick.novelty for pick in picks], density, pool, effort)

    return run


@pytest.fixture
def with_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small a pool is, the selection has rounds."""
    monkeypatch.setattr(rounds, "WHOLE_BYTES", 0)


@pytest.fixture(params=["rounds", "no rounds"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with rounds, and once with all candidates in the driver's pool."""
    monkeypatch.setattr(rounds, "WHOLE_BYTES", 0 if request.param == "rounds" else 1 << 40)


@pytest.fixture
def density(spark: Any, tmp_path: Path):
    """Density by id and the report of a run of ingest and density alone."""
    runs = iter(range(100))

    def run(path: str, reference: str | None = None, **settings: Any) -> tuple[dict[Any, float], dict[str, Any]]:
        chosen = replace(Settings(input=path, reference=reference, density_method="approximate"), **settings)
        work = Location.of(str(tmp_path / f"work-{next(runs)}"))
        pools = []
        for number, source in enumerate(filter(None, (path, reference))):
            pools.append(ingest(spark, open_source(source, "id", "embedding"), chosen, work / str(number)))
        if reference:
            pools[0] = mark_itself(spark, *pools, chosen)
        report = estimate_density(spark, pools[0], chosen, work, pools[1] if reference else None)
        found = {}
        for block in pools[0].blocks:
            ids = read_block(pools[0].work, block.name).ids.to_pylist()
            found.update(zip(ids, read_density(work, block.name).density.tolist(), strict=True))
        return found, report

    return run


@pytest.fixture
def run_here(spark: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a job from end to end in this process, in the session of the tests, which outlives it."""

    def run(job: Any, **settings: Any) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(SparkContext, "stop", lambda self: None)
            pipeline.run(job, Settings(**settings))

    return run


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A module of tests/evidence by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "evidence"))

    def of(name: str) -> ModuleType:
        return importlib.import_module(name)

    return of


def density_by_formula(points: Points, **settings: Any) -> dict[Any, float]:
    """Density by id, by the formula alone."""
    chosen = replace(Settings(), **settings)
    if chosen.duplicates == "drop":
        points = points.distinct()
    sigma = formula.density(points.vectors, chosen.neighbors, formula=chosen.formula, metric=chosen.metric)
    return dict(zip(points.ids, sigma.tolist(), strict=True))


def _oracle(points: Points, budget: int, first: Any = None, seed: int = 42, **settings: Any) -> Outcome:
    """The same by the formula alone."""
    chosen = replace(Settings(), **settings)
    if chosen.duplicates == "drop":
        points = points.distinct()
    sigma = formula.density(points.vectors, chosen.neighbors, formula=chosen.formula, metric=chosen.metric)
    if first is None:
        first = min(points.ids, key=lambda id_: lot(seed, id_))
    selection = formula.novelselect(
        points.vectors,
        sigma,
        budget,
        points.ids.index(first),
        formula=chosen.formula,
        metric=chosen.metric,
        proximity_power=chosen.proximity_power,
        density_power=chosen.density_power,
        min_distance=chosen.min_distance,
    )
    picks = [points.ids[i] for i in selection.picks]
    return Outcome(picks, selection.novelty.tolist(), dict(zip(points.ids, sigma.tolist(), strict=True)), None)


_ENTRY = {"python": [sys.executable], "spark-submit": [str(Path(sys.executable).parent / "spark-submit")]}


def run_job(name: str, *arguments: object, by: str = "gateway") -> subprocess.CompletedProcess[str]:
    """Run a job by its real command line: by "python" or "spark-submit", which each start Java, or by "gateway".

    The last is what spark-submit does once its Java runs: it starts the job as a process of its own and hands it
    the port of that Java. Here one Java serves many jobs in turn, so that its start is paid only once.
    """
    command = [*_ENTRY.get(by, _ENTRY["python"]), str(ROOT / "jobs" / f"{name}.py"), *map(str, arguments)]
    environment = served() if by == "gateway" else None
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


def served() -> dict[str, str]:
    """An environment in which a job uses the one Java that serves many, as a child of spark-submit would."""
    return {**os.environ, **_gateway()}


@functools.cache
def _gateway() -> dict[str, str]:
    """What spark-submit tells its child of the Java it runs in; that Java ends with this process."""
    settings = {"spark.master": "local[2]", "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={LOGGING}"}
    gateway = launch_gateway(SparkConf(loadDefaults=False).setAll(list(settings.items())))
    server = gateway.java_parameters
    return {"PYSPARK_GATEWAY_PORT": str(server.port), "PYSPARK_GATEWAY_SECRET": server.auth_token}


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error; no traceback may be beside it."""
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture(scope="session")
def oracle() -> Callable[..., Outcome]:
    """The formula alone, as a function of points, budget and settings."""
    return _oracle
