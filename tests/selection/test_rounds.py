"""The selection engine: exactness over all settings, whatever the drafts, and what it says and survives."""

import itertools
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Points

from novelsum import formula
from novelsum.errors import RunError
from novelsum.files.store import Block
from novelsum.selection import contenders, rounds
from novelsum.settings import Settings


@pytest.fixture(scope="module")
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


@pytest.fixture(autouse=True)
def in_rounds(request) -> None:
    """All pools here are small, and selected from in rounds all the same unless a test asks for both ways."""
    if "either_way" not in request.fixturenames:
        request.getfixturevalue("with_rounds")


def assert_same(found, expected) -> None:
    assert found.picks == expected.picks
    assert found.novelty == pytest.approx(expected.novelty, rel=1e-9, abs=1e-300)


@pytest.mark.exact
@pytest.mark.parametrize("κ2", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("κ1", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("method", formula.FORMULAS)
@pytest.mark.parametrize("metric", formula.METRICS)
@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_every_setting_gives_the_picks_of_the_formula(
    clustered, engine, oracle, tmp_path, either_way, duplicates, metric, method, κ1, κ2
):
    settings = {
        "formula": method,
        "metric": metric,
        "duplicates": duplicates,
        "proximity_power": κ1,
        "density_power": κ2,
        "neighbors": 4,
    }
    path = clustered.write(tmp_path / "in")
    assert_same(engine(path, 100, block_rows=130, **settings), oracle(clustered, 100, **settings))


@pytest.mark.parametrize("method", formula.FORMULAS)
def test_without_rounds_few_ranked_picks_are_kept_and_many_forgotten(
    clustered, engine, oracle, tmp_path, monkeypatch, method
):
    """There is room for 64 contenders' only, and columns of distances reach back some 20 picks."""
    monkeypatch.setattr(rounds, "WHOLE_BYTES", 1 << 40)
    monkeypatch.setattr(contenders, "RANKED_BYTES", 0)
    monkeypatch.setattr(contenders, "_KEYS_AT_ONCE", 0)
    monkeypatch.setattr(contenders, "_WINDOW", 90)
    settings = {"duplicates": "keep", "neighbors": 4, "formula": method}
    path = clustered.write(tmp_path / "in")
    assert_same(engine(path, 120, block_rows=200, **settings), oracle(clustered, 120, **settings))


def test_a_small_pool_is_selected_from_by_the_driver_alone(
    clustered, engine, oracle, spark, tmp_path, monkeypatch, caplog
):
    """No round, no scratch, no Spark job; the limit is what the candidates take there."""
    taken = 360 * contenders.contender_bytes(16, 4)
    caplog.set_level("INFO", "novelsum")
    path = clustered.write(tmp_path / "in")
    for limit, has_rounds in ((taken, False), (taken - 1, True)):
        monkeypatch.setattr(rounds, "WHOLE_BYTES", limit)
        caplog.clear()
        found = engine(path, 70, neighbors=4)
        assert_same(found, oracle(clustered, 70, neighbors=4))
        assert (found.effort.rounds > 0) == has_rounds
        (line,) = (text for text in caplog.messages if text.startswith("selection: 70 of"))
        told = r"about \d+ MiB of memory in the driver, which has all candidates in its pool, 8.06e\+05 distance"
        assert bool(re.search(r"; 0 MiB of scratch on 0 host\(s\), " + told, line)) != has_rounds
        jobs = spark.sparkContext._jsc.sc().statusStore().jobsList(None)
        latest = jobs.apply(0).description()
        assert (latest.isDefined() and latest.get().startswith("novelsum selection: ")) == has_rounds


def test_a_selection_without_rounds_that_is_cut_goes_on(clustered, oracle, run_here, tmp_path, monkeypatch, either_way):
    """From its log, which has a file for every 64 picks or so; so does one in rounds."""
    options = {"input": clustered.write(tmp_path / "in"), "output": str(tmp_path / "out"), "budget": 200}
    options |= {"neighbors": 4, "report": False}
    log, written = rounds._Selection.log, []

    def log_and_die(self) -> None:
        log(self)
        written.append(self.picked)
        if len(written) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rounds._Selection, "log", log_and_die)
        with pytest.raises(KeyboardInterrupt):
            run_here("curate", **options)
    assert not (tmp_path / "out" / "selected").exists()
    run_here("curate", **options)
    assert (
        pq.read_table(tmp_path / "out" / "selected").column("id").to_pylist()
        == oracle(clustered, 200, neighbors=4).picks
    )
    manifest = json.loads((tmp_path / "out" / "_MANIFEST.json").read_text())["selected"]
    assert manifest["resumed_picks"] == written[1] < 200


@pytest.mark.parametrize(
    ("capacity", "longest", "share", "budget"),
    [(2, 256, 1, 40), (8, 40, 1, 60), (64, 3, 16, 60)],
    ids=["tiny pool", "long", "short"],
)
def test_drafts_of_any_length_from_pools_of_any_size_give_the_same_picks(
    clustered, engine, oracle, tmp_path, monkeypatch, capacity, longest, share, budget
):
    """Most drafts of a pool of two are rejected, and some rounds accept nothing at first."""
    monkeypatch.setattr(rounds, "CAPACITY", capacity)
    monkeypatch.setattr(rounds, "LONGEST_DRAFT", longest)
    monkeypatch.setattr(rounds, "_DRAFT_SHARE", share)
    settings = {"duplicates": "keep", "neighbors": 4}
    path = clustered.write(tmp_path / "in")
    assert_same(engine(path, budget, block_rows=200, **settings), oracle(clustered, budget, **settings))


@pytest.mark.more
def test_a_thousand_copies_do_not_widen_the_pool(engine, oracle, tmp_path):
    """Of equal embeddings only the one with the smallest id is reported at a time."""
    rng = np.random.default_rng(8)
    vectors = np.concatenate([np.repeat(rng.normal(size=(2, 8)), 600, axis=0), rng.normal(size=(60, 8))])
    points = Points([f"k{i:04d}" for i in range(1260)], vectors[rng.permutation(1260)])
    settings = {"duplicates": "keep", "neighbors": 3, "density_power": 0.0}
    found = engine(points.write(tmp_path / "in"), 70, block_rows=700, **settings)
    assert_same(found, oracle(points, 70, **settings))
    assert found.effort.reported < 300


@pytest.mark.more
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_lengths_beyond_float32_give_the_same_picks(clustered, engine, oracle, tmp_path, scale):
    """Squares of such lengths neither overflow nor vanish."""
    points = Points(clustered.ids, clustered.vectors.astype(np.float64) * scale)
    settings = {"metric": "euclidean", "neighbors": 4}
    assert_same(engine(points.write(tmp_path / "in"), 60, **settings), oracle(points, 60, **settings))


def test_lost_scratch_is_rebuilt_from_the_store_and_the_pick_log(clustered, engine, oracle, tmp_path, monkeypatch):
    """All scratch of the run is removed again and again, as if every executor were lost."""
    advance = rounds._Selection.advance
    removed = []

    def round_and_loss(self) -> None:
        advance(self)
        if self.effort.rounds % 7 == 0:
            removed.extend(_scratch(self.run.id))
            for folder in removed[-1:]:
                shutil.rmtree(folder)

    monkeypatch.setattr(rounds._Selection, "advance", round_and_loss)
    found = engine(clustered.write(tmp_path / "in"), 80, block_rows=200, neighbors=4)
    assert removed
    assert_same(found, oracle(clustered, 80, neighbors=4))


def test_a_state_left_half_changed_is_started_over(clustered, engine, oracle, tmp_path, monkeypatch):
    """A task that dies in the middle leaves its mark; what it left is not believed."""
    advance = rounds._Selection.advance
    spoiled = []

    def round_and_death(self) -> None:
        advance(self)
        if self.effort.rounds % 9 == 0:
            for folder in _scratch(self.run.id):
                for block in folder.iterdir():
                    head = np.load(block / "head.npy", mmap_mode="r+")
                    head[0] = 1
                    np.load(block / "state-upper.npy", mmap_mode="r+")[:] = -1.0
                    spoiled.append(block)

    monkeypatch.setattr(rounds._Selection, "advance", round_and_death)
    found = engine(clustered.write(tmp_path / "in"), 80, block_rows=200, neighbors=4)
    assert spoiled
    assert_same(found, oracle(clustered, 80, neighbors=4))


def _scratch(run: str) -> list[Path]:
    """The scratch folders of a run under Spark's local directories of this machine."""
    import tempfile

    root = Path(os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()))
    local = [folder for kind in ("spark-*", "blockmgr-*") for folder in root.glob(kind)]
    return [
        Path(folder) / f"novelsum-{run}"
        for top in local
        for folder, names, _ in os.walk(top)
        if f"novelsum-{run}" in names
    ]


def test_jobs_are_described_by_round_and_picks(clustered, engine, spark, tmp_path):
    """What the Spark UI shows."""
    engine(clustered.write(tmp_path / "in"), 30, neighbors=4)
    jobs = spark.sparkContext._jsc.sc().statusStore().jobsList(None)
    described = [jobs.apply(i).description() for i in range(jobs.size())]
    described = [text.get() for text in described if text.isDefined()]
    assert any(text.startswith("novelsum selection: round 3, picks ") for text in described), described


def test_what_a_selection_takes_is_told_before_its_first_round(clustered, engine, tmp_path, caplog):
    """Scratch, memory of a task, and distance operations: 2 · 360 · 5 · 16 here."""
    caplog.set_level("INFO", "novelsum")
    engine(clustered.write(tmp_path / "in"), 5, neighbors=4)
    (line,) = (record.getMessage() for record in caplog.records if record.getMessage().startswith("selection: 5 of"))
    assert re.fullmatch(
        r"selection: 5 of 360 candidates; \d+ MiB of scratch on 1 host\(s\), about \d+ MiB of memory for each of "
        r"2 task\(s\) at a time, 5.76e\+04 distance operations",
        line,
    )


def test_a_scratch_disk_that_is_too_small_is_refused_before_the_first_round(clustered, engine, spark, tmp_path):
    """With how much is needed, where, and how much is free."""
    pool = engine(clustered.write(tmp_path / "in"), 2, neighbors=4).pool
    huge = replace(pool, blocks=tuple(Block(block.name, 10**13) for block in pool.blocks))
    with pytest.raises(RunError, match=r"needs [\d.]+ GiB of scratch in .* free; .* run again to go on"):
        rounds.select(spark, huge, Settings(budget=2), 0)


def test_sums_that_tie_to_the_last_digit_go_to_the_smallest_id(engine, oracle, tmp_path):
    """Points of a lattice: distances tie by the hundred, in every rank and between candidates."""
    grid = np.array(list(itertools.product([0.0, 1.0, 2.0], repeat=5)))
    points = Points([f"g{i:03d}" for i in np.random.default_rng(4).permutation(len(grid))], grid)
    order = np.argsort(points.ids)
    points = Points([points.ids[i] for i in order], points.vectors[order])
    settings = {"metric": "euclidean", "neighbors": 5}
    assert_same(engine(points.write(tmp_path / "in"), 60, block_rows=100, **settings), oracle(points, 60, **settings))
