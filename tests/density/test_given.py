"""A density that is given: every candidate has one, once, and positive."""

import json
from contextlib import nullcontext

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_parquet

from novelsum.density.given import load_density
from novelsum.errors import InputError
from novelsum.files.source import open_density
from novelsum.preflight import _check_density_settings
from novelsum.settings import Settings

RNG = np.random.default_rng(11)
VECTORS = RNG.normal(size=(40, 4)).astype(np.float32)
IDS = [f"n{i:02d}" for i in range(40)]


def test_a_candidate_without_density_is_refused(run_here, tmp_path):
    """With how many they are and the first id."""
    path, density, output = tmp_path / "in.parquet", tmp_path / "density.parquet", tmp_path / "out"
    write_parquet(path, IDS, VECTORS)
    pq.write_table(pa.table({"id": IDS[:-2], "density": np.ones(38)}), density)
    with pytest.raises(InputError) as refused:
        run_here("select_subset", input=str(path), density=str(density), output=str(output), budget=5)
    assert f"2 candidate(s) have no density in {density}; estimate it over the same input" in str(refused.value)
    assert "first id: 'n38'" in str(refused.value)
    assert not output.exists()


@pytest.mark.parametrize(("selected_by", "fits"), [("paper", True), ("symmetric", True), ("released", False)])
def test_a_density_of_paper_serves_the_formulas_that_have_the_same(tmp_path, selected_by, fits):
    (tmp_path / "_MANIFEST.json").write_text(json.dumps({"settings": {"formula": "paper", "neighbors": 10}}))
    words = "was estimated with formula = 'paper', but the selection is to have 'released'"
    with nullcontext() if fits else pytest.raises(InputError, match=words):
        _check_density_settings(Settings(density=str(tmp_path), formula=selected_by))


@pytest.mark.more
def test_picks_by_the_density_of_another_formula_that_has_the_same_are_those_of_curate(run_here, tmp_path):
    path, density = write_parquet(tmp_path / "in.parquet", IDS, VECTORS), str(tmp_path / "density")
    options = {"input": path, "neighbors": 3, "report": False}
    run_here("estimate_density", output=density, **options)
    run_here("curate", output=str(tmp_path / "a"), budget=9, formula="symmetric", **options)
    options |= {"density": density, "budget": 9}
    run_here("select_subset", output=str(tmp_path / "b"), formula="symmetric", **options)
    one, other = (pq.read_table(tmp_path / name / "selected") for name in "ab")
    assert one.equals(other)


@pytest.mark.parametrize(
    ("ids", "values", "words"),
    [
        ([*IDS, "n03"], np.ones(41), "1 candidate.s. have more than one density in .*n03"),
        (IDS, np.r_[0.0, np.ones(39)], "1 candidate.s. have a density in .* not a positive finite number.*n00"),
        (IDS, np.r_[np.ones(39), np.inf], "not a positive finite number.*n39"),
    ],
    ids=["repeated", "zero", "infinite"],
)
def test_a_density_that_cannot_be_used_is_refused(spark, engine, tmp_path, ids, values, words):
    """How many candidates, and the first id."""
    density = tmp_path / "density.parquet"
    pq.write_table(pa.table({"id": ids, "density": values}), density)
    pool = engine(write_parquet(tmp_path / "in.parquet", IDS, VECTORS), 1, neighbors=3).pool
    with pytest.raises(InputError, match=words):
        load_density(spark, pool, open_density(str(density), "id"), pool.work)
