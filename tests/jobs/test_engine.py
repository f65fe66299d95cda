"""Ingest, density and selection on Spark equal the formula, pick for pick and bit for bit, whatever the layout."""

import itertools

import numpy as np
import pytest
from conftest import Points

from novelsum import formula


@pytest.fixture(scope="module")
def few(sample: Points) -> Points:
    """700 prompts, 120 of them copies of others: real duplicates are rarer."""
    rng = np.random.default_rng(0)
    vectors = np.concatenate([sample.vectors[:580], sample.vectors[rng.integers(0, 40, 120)]])
    order = rng.permutation(700)
    return Points([f"p{i:04d}" for i in range(700)], vectors[order])


def assert_equal(found, expected) -> None:
    assert found.picks == expected.picks
    assert found.density == expected.density
    assert found.novelty == pytest.approx(expected.novelty, rel=1e-9, abs=0)


SETTINGS = [
    pytest.param(method, metric, duplicates, marks=[pytest.mark.more] * (case > 0 and method == "symmetric"))
    for case, (metric, duplicates) in enumerate(itertools.product(formula.METRICS, ["keep", "drop"]))
    for method in formula.FORMULAS
]


@pytest.mark.parametrize(("method", "metric", "duplicates"), SETTINGS)
def test_spark_equals_the_formula(few, engine, oracle, tmp_path, either_way, method, metric, duplicates):
    """Picks, novelty and density have the bits of the oracle, for all formulas and metrics."""
    settings = {"formula": method, "metric": metric, "duplicates": duplicates, "first": "p0123"}
    if duplicates == "drop":
        settings["first"] = few.distinct().ids[100]
    path = few.write(tmp_path / "in", rows_per_file=300)
    found = engine(path, 25, block_rows=150, **settings)
    assert len(found.pool.blocks) > 3
    assert_equal(found, oracle(few, 25, **settings))
    assert found.pool.duplicates_dropped == (700 - len(few.distinct().ids) if duplicates == "drop" else 0)


@pytest.mark.more
@pytest.mark.parametrize(("κ1", "κ2"), [(0.0, 0.0), (0.5, 1.0), (2.0, 0.5)])
def test_spark_equals_the_formula_for_other_powers(few, engine, oracle, tmp_path, κ1, κ2):
    settings = {"proximity_power": κ1, "density_power": κ2, "neighbors": 3}
    path = few.write(tmp_path / "in")
    assert_equal(engine(path, 15, **settings), oracle(few, 15, **settings))


def test_rows_in_any_order_in_any_files_in_any_blocks_give_the_same(few, engine, oracle, tmp_path):
    """Also the first pick, which the seed draws, and the fingerprint of the input."""
    expected = oracle(few, 12, seed=7)
    reversed_ = few.write(tmp_path / "reversed", np.arange(700)[::-1], rows_per_file=111)
    shuffled = few.write(tmp_path / "shuffled", np.random.default_rng(9).permutation(700))
    fingerprints = set()
    for path, block_rows in ((reversed_, None), (shuffled, 90), (shuffled, 1000)):
        found = engine(path, 12, seed=7, block_rows=block_rows)
        assert_equal(found, expected)
        fingerprints.add(found.pool.fingerprint)
    assert len(fingerprints) == 1


def test_another_seed_draws_another_first_pick(few, engine, tmp_path):
    path = few.write(tmp_path / "in")
    firsts = {engine(path, 1, seed=seed, neighbors=1).picks[0] for seed in range(4)}
    assert len(firsts) > 1


def test_integer_ids_are_ordered_as_numbers(few, engine, oracle, tmp_path):
    """10 is after 9, for ties and for the id that stays of duplicates."""
    points = Points(list(range(-50, 650)), few.vectors)
    path = points.write(tmp_path / "in", np.random.default_rng(1).permutation(700))
    assert_equal(engine(path, 10), oracle(points, 10))


def test_doubles_are_not_rounded_to_floats(engine, oracle, tmp_path):
    """Two vectors that differ by less than a float can tell are two candidates."""
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(60, 5))
    vectors[30:] = vectors[:30] * (1 + 1e-12)
    points = Points([f"d{i:02d}" for i in range(60)], vectors)
    found = engine(points.write(tmp_path / "in"), 20, metric="euclidean", neighbors=3)
    assert found.pool.candidates == 60
    assert_equal(found, oracle(points, 20, metric="euclidean", neighbors=3))


def test_the_whole_pool_can_be_selected(engine, oracle, tmp_path):
    """Budget equal to the candidates, K one less, dimension 1, one row per file."""
    points = Points(list("gfedcba")[::-1], np.array([[1.0], [2], [4], [8], [16], [32], [-1]]))
    path = points.write(tmp_path / "in", rows_per_file=1)
    settings = {"metric": "euclidean", "neighbors": 6}
    assert_equal(engine(path, 7, **settings), oracle(points, 7, **settings))


def test_the_released_formula_on_all_prompts_gives_the_authors_first_picks(prompts, engine, tmp_path):
    """On Spark too: 40 of the 250 picks, by the 6,339 densities."""
    import json

    from conftest import DATA

    values = json.loads((DATA / "released_code_values.json").read_text())["novelselect"]
    found = engine(prompts.write(tmp_path / "in"), 40, formula="released", first=values["first"])
    assert found.picks == values["picks"][:40]
