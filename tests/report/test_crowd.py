"""Picks in crowds of near-copies: told in log, manifest and report, with a distance that makes one row of each."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLE, Points, run_job

from novelsum.formula import METRICS

NOISE = 1e-5


@pytest.fixture
def with_crowd(sample, tmp_path):
    """The sample and, of one prompt, eleven copies as they come from other batches; ids of all twelve, and the path."""
    rng = np.random.default_rng(4)
    place = sample.ids.index("ifbench:103")
    copies = sample.vectors[place] + NOISE * rng.normal(size=(11, sample.vectors.shape[1])).astype(np.float32)
    ids = [f"copy {i:02d}" for i in range(11)]
    path = Points([*sample.ids, *ids], np.concatenate([sample.vectors, copies])).write(tmp_path / "in")
    return ["ifbench:103", *ids], path


def manifest_of(output):
    return json.loads((output / "_MANIFEST.json").read_text())


def warnings_of(done):
    assert done.returncode == 0, done.stderr
    return re.findall(r".*lie in crowds of near-copies.*", done.stderr)


@pytest.mark.more
@pytest.mark.parametrize("metric", METRICS)
def test_eleven_copies_of_a_prompt_are_warned_of_and_the_suggested_distance_leaves_one(with_crowd, tmp_path, metric):
    ids, path = with_crowd
    arguments = ["--input", path, "--budget", 60, "--metric", metric, "--first", "copy 03"]
    found = run_job("curate", *arguments, "--output", tmp_path / "before")
    (told,) = warnings_of(found)
    crowded = manifest_of(tmp_path / "before")["selected"]["crowded"]
    assert crowded["picks"] >= 1
    assert crowded["greatest_ratio"] > 100
    suggested = str(crowded["suggested_near_duplicates"])
    assert f"--near-duplicates {suggested} " in told
    assert f"--near-duplicates {suggested}</code>" in (tmp_path / "before" / "report.html").read_text()
    metrics = json.loads((tmp_path / "before" / "metrics.json").read_text())
    assert metrics["selected.crowded.picks"] == crowded["picks"]

    arguments[-1] = "copy 00"  # the smallest id of the crowd
    after = run_job("curate", *arguments, "--output", tmp_path / "after", "--near-duplicates", suggested)
    assert not warnings_of(after)
    manifest = manifest_of(tmp_path / "after")
    assert manifest["input"]["near_duplicates_dropped"] == 11
    assert "11 near-copies dropped" in after.stdout
    dropped = pq.read_table(tmp_path / "after" / "duplicates").to_pylist()
    assert {row["id"] for row in dropped if row["distance"] > 0} == set(ids) - {"copy 00"}
    assert {row["kept"] for row in dropped if row["distance"] > 0} == {"copy 00"}
    assert manifest["selected"]["crowded"]["picks"] == 0
    assert "near-copies</b>" not in (tmp_path / "after" / "report.html").read_text()


@pytest.mark.more
def test_of_the_shipped_sample_nothing_is_warned_of(tmp_path):
    done = run_job("curate", "--input", SAMPLE, "--budget", 200, "--output", tmp_path / "out")
    assert not warnings_of(done)
    crowded = manifest_of(tmp_path / "out")["selected"]["crowded"]
    assert crowded["picks"] == 0
    assert crowded["greatest_ratio"] < 100
    assert "suggested_near_duplicates" not in crowded
