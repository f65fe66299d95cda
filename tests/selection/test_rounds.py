"""The rounds of a selection: exact over all settings, whatever the drafts, and what they say of themselves."""

import itertools
import re

import numpy as np
import pytest
from conftest import Points, assert_same

from novelsum import formula
from novelsum.selection import rounds


@pytest.fixture(autouse=True)
def in_rounds(request) -> None:
    """All pools here are small, and selected from in rounds all the same unless a test asks for both ways."""
    if "either_way" not in request.fixturenames:
        request.getfixturevalue("with_rounds")


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


def test_jobs_are_described_by_round_and_picks(clustered, engine, spark, tmp_path):
    """What the Spark UI shows."""
    engine(clustered.write(tmp_path / "in"), 30, neighbors=4)
    jobs = spark._jsc.sc().statusStore().jobsList(None)
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


def test_sums_that_tie_to_the_last_digit_go_to_the_smallest_id(engine, oracle, tmp_path):
    """Points of a lattice: distances tie by the hundred, in every rank and between candidates."""
    grid = np.array(list(itertools.product([0.0, 1.0, 2.0], repeat=5)))
    points = Points([f"g{i:03d}" for i in np.random.default_rng(4).permutation(len(grid))], grid)
    order = np.argsort(points.ids)
    points = Points([points.ids[i] for i in order], points.vectors[order])
    settings = {"metric": "euclidean", "neighbors": 5}
    assert_same(engine(points.write(tmp_path / "in"), 60, block_rows=100, **settings), oracle(points, 60, **settings))
