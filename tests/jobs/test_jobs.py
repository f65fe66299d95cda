"""The jobs by their real command lines, from end to end: results, and what is left behind."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLE, error_line, run_job, write_parquet

RNG = np.random.default_rng(11)
VECTORS = RNG.normal(size=(40, 4)).astype(np.float32)
IDS = [f"n{i:02d}" for i in range(40)]


def selected(output: Path) -> pa.Table:
    return pq.read_table(output / "selected")


def manifest(output: Path) -> dict:
    return json.loads((output / "_MANIFEST.json").read_text())


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample curated by plain Python."""
    output = tmp_path_factory.mktemp("curated") / "out"
    arguments = ("--input", SAMPLE, "--budget", 25, "--output", output, "--text-column", "text")
    done = run_job("curate", *arguments, "--group-column", "group", "--show", 5, by="python")
    assert done.returncode == 0, done.stderr
    assert "2869 rows, 98 duplicates dropped: 2771 candidates of 384 dimensions" in done.stdout
    assert "groups by their share of the pool" in done.stdout
    assert "incubator" not in done.stderr
    assert "log level" not in done.stderr
    return output


def test_curate_writes_the_picks_of_the_formula_with_all_other_columns(curated, sample, oracle):
    """selected/ has pick, id, novelty, density, what is nearest, text and group as in the input, but no embedding."""
    table = selected(curated)
    expected = oracle(sample, 25)
    assert table.schema.names == ["pick", "id", "novelty", "density", "nearest_id", "nearest_distance", "text", "group"]
    assert table.column("pick").to_pylist() == list(range(1, 26))
    assert table.column("id").to_pylist() == expected.picks
    assert table.column("novelty").to_pylist() == pytest.approx(expected.novelty, rel=1e-9, abs=0)
    assert table.column("density").to_pylist() == [expected.density[id_] for id_ in expected.picks]
    rows = {row["id"]: row for row in pq.read_table(SAMPLE, columns=["id", "text", "group"]).to_pylist()}
    for row in table.to_pylist():
        assert (row["text"], row["group"]) == (rows[row["id"]]["text"], rows[row["id"]]["group"])


def test_the_manifest_says_what_was_done_and_nothing_else_is_left(curated):
    """Settings, fingerprint, counts, seed, versions, seconds for each stage; no work directory."""
    content = manifest(curated)
    assert content["settings"]["budget"] == 25
    assert content["input"]["duplicates_dropped"] == 98
    assert content["input"]["candidates"] == 2771
    assert len(content["input"]["fingerprint"]) == 24
    assert content["selected"]["seed"] == 42
    assert {"novelsum", "pyspark", "numpy", "pyarrow", "python"} <= set(content["versions"])
    assert {"ingest", "density", "selection", "write", "total"} <= set(content["seconds"])
    assert sorted(entry.name for entry in curated.iterdir()) == [
        "_MANIFEST.json",
        "_rows.parquet",
        "duplicates",
        "metrics.json",
        "report.html",
        "report.json",
        "selected",
    ]
    copies = pq.read_table(curated / "duplicates").to_pydict()
    assert len(set(copies["id"])) == 98
    assert not set(copies["id"]) & set(copies["kept"])
    assert set(copies["distance"]) == {0.0}


@pytest.mark.more
def test_two_jobs_under_spark_submit_equal_the_one(curated, tmp_path):
    """estimate_density then select_subset under spark-submit, settings from a file, give curate's picks."""
    config = tmp_path / "settings.toml"
    config.write_text(f"input = {json.dumps(str(SAMPLE))}\nbudget = 999\nneighbors = 10\n")
    density, output = tmp_path / "density", tmp_path / "out"
    done = run_job("estimate_density", "--config", config, "--output", density, by="spark-submit")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(list(density.glob("part-*.parquet")))
    assert table.schema.names == ["id", "density", "kth_distance"]
    assert len(table) == 2771
    assert manifest(density)["job"] == "estimate_density"
    select = partial(run_job, "select_subset", "--config", config, "--density", density)
    done = select("--output", output, "--budget", 25)
    assert done.returncode == 0, done.stderr
    both = selected(output), selected(curated)
    for column in ("id", "density"):
        assert both[0].column(column).to_pylist() == both[1].column(column).to_pylist()
    assert manifest(output)["input"]["fingerprint"] == manifest(curated)["input"]["fingerprint"]
    assert "<title>25 of 2,771 samples selected" in (output / "report.html").read_text()
    other = select("--output", tmp_path / "o", "--metric", "euclidean")
    assert other.returncode == 3
    assert "was estimated with metric = 'cosine'" in error_line(other)


def test_strange_ids_texts_and_columns_come_through(tmp_path):
    """Quotes, newlines, HTML, folders that carry a value, a column only some files have, a list column."""
    ids = ['a"b', "line\nbreak", "<b>", "comma,", "naïve 😀", "'; DROP TABLE x", "", " "]
    folder = tmp_path / "in"
    for night in (1, 2):
        (folder / f"night={night}").mkdir(parents=True)
    texts = ["<script>alert(1)</script>"] * 4
    write_parquet(folder / "night=1" / "a.parquet", ids[:4], VECTORS[:4], text=texts, pick=texts)
    write_parquet(folder / "night=2" / "b.parquet", ids[4:], VECTORS[4:8], tags=[["x"], [], None, ["y", "z"]])
    (folder / "_SUCCESS").write_text("")
    (folder / ".hidden.parquet").write_text("not Parquet")
    output = tmp_path / "out"
    done = run_job("curate", "--input", folder, "--output", output, "--budget", 8, "--neighbors", 2)
    assert done.returncode == 0, done.stderr
    rows = {row["id"]: row for row in selected(output).to_pylist()}
    assert set(rows) == set(ids)
    assert rows['a"b']["text"] == "<script>alert(1)</script>"
    assert rows['a"b']["night"] == 1
    assert rows['a"b']["input_pick"] == texts[0]
    assert rows[" "]["tags"] == ["y", "z"]
    assert rows[" "]["text"] is None
    assert rows[" "]["night"] == 2


@pytest.mark.more
def test_a_second_run_needs_overwrite_and_a_failed_one_leaves_the_first_result(curated, tmp_path):
    """Refused without --overwrite; a run that fails late touches nothing; --overwrite replaces it all."""
    output = tmp_path / "out"
    shutil.copytree(curated, output)
    before = manifest(output)
    path = write_parquet(tmp_path / "in.parquet", IDS, VECTORS)
    arguments = ("--input", path, "--output", output, "--neighbors", 3, "--budget", 6)
    again = run_job("curate", *arguments)
    assert again.returncode == 2
    assert "holds the result of another run" in error_line(again)
    failed = run_job("curate", *arguments, "--overwrite", "--first", "n99")
    assert failed.returncode == 3
    assert "--first 'n99' is not among the candidates" in error_line(failed)
    assert manifest(output) == before
    assert selected(output).num_rows == 25
    replaced = run_job("curate", *arguments, "--overwrite", "--first", "n07", "--no-report")
    assert replaced.returncode == 0, replaced.stderr
    assert selected(output).column("id").to_pylist()[0] == "n07"
    assert selected(output).num_rows == 6
    names = ["_MANIFEST.json", "_rows.parquet", "metrics.json", "selected"]
    assert sorted(entry.name for entry in output.iterdir()) == names
    (output / "thesis.txt").write_text("mine")
    foreign = run_job("curate", *arguments, "--overwrite")
    assert foreign.returncode == 2
    assert "'thesis.txt'" in error_line(foreign)


def test_what_a_job_set_aside_is_no_data_of_its_result(run_here, tmp_path):
    """estimate_density drops bad rows; select_subset takes its output, and a selection that is named whole."""
    vectors = VECTORS.copy()
    vectors[3, 1] = np.nan
    path = write_parquet(tmp_path / "in.parquet", IDS, vectors)
    density, outputs = tmp_path / "density", (tmp_path / "first", tmp_path / "second")
    common = {"input": path, "neighbors": 3, "on_bad_rows": "drop", "report": False}
    run_here("estimate_density", output=str(density), **common)
    assert [row["id"] for row in pq.read_table(density / "rejected").to_pylist()] == ["n03"]
    common |= {"density": str(density), "budget": 5}
    run_here("select_subset", output=str(outputs[0]), **common)
    assert len(pq.read_table(outputs[0] / "rejected")) == 1
    run_here("select_subset", output=str(outputs[1]), already_selected=str(outputs[0]), **common)
    first, second = (set(selected(output).column("id").to_pylist()) for output in outputs)
    assert (len(first), len(second), first & second) == (5, 5, set())
