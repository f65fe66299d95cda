"""The jobs by their real command lines: results, refusals with their exit codes, and what is left behind."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLE, Points, error_line, run_job, write_parquet

from novelsum.density.given import load_density
from novelsum.errors import InputError
from novelsum.files.source import open_density

RNG = np.random.default_rng(11)
VECTORS = RNG.normal(size=(40, 4)).astype(np.float32)
IDS = [f"n{i:02d}" for i in range(40)]


def selected(output: Path) -> pa.Table:
    return pq.read_table(output / "selected")


def manifest(output: Path) -> dict:
    return json.loads((output / "_MANIFEST.json").read_text())


# --- results ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample curated by plain Python."""
    output = tmp_path_factory.mktemp("curated") / "out"
    arguments = ("--input", SAMPLE, "--budget", 25, "--output", output, "--text-column", "text")
    done = run_job("curate", *arguments, "--group-column", "group", "--show", 5, by="python")
    assert done.returncode == 0, done.stderr
    assert "2869 rows, 98 duplicates dropped: 2771 candidates of 384 dimensions" in done.stdout
    assert "groups by their share of the pool" in done.stdout
    return output


def test_curate_writes_the_picks_of_the_formula_with_all_other_columns(curated, sample, oracle):
    """selected/ has pick, id, novelty, density, and text and group as in the input, but no embedding."""
    table = selected(curated)
    expected = oracle(sample, 25)
    assert table.schema.names == ["pick", "id", "novelty", "density", "text", "group"]
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
        "metrics.json",
        "report.html",
        "report.json",
        "selected",
    ]


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
    done = run_job(
        "select_subset",
        "--config",
        config,
        "--density",
        density,
        "--output",
        output,
        "--budget",
        25,
    )
    assert done.returncode == 0, done.stderr
    both = selected(output), selected(curated)
    for column in ("id", "density"):
        assert both[0].column(column).to_pylist() == both[1].column(column).to_pylist()
    assert manifest(output)["input"]["fingerprint"] == manifest(curated)["input"]["fingerprint"]
    assert "<title>25 of 2,771 samples selected" in (output / "report.html").read_text()
    other = run_job(
        "select_subset",
        "--config",
        config,
        "--density",
        density,
        "--output",
        tmp_path / "o",
        "--metric",
        "euclidean",
    )
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
    assert sorted(entry.name for entry in output.iterdir()) == ["_MANIFEST.json", "metrics.json", "selected"]
    (output / "thesis.txt").write_text("mine")
    foreign = run_job("curate", *arguments, "--overwrite")
    assert foreign.returncode == 2
    assert "'thesis.txt'" in error_line(foreign)


def test_bad_rows_are_set_aside_with_a_reason_each(tmp_path):
    """--on-bad-rows drop: every kind of bad row is in rejected/, counted in the manifest, and not selected."""
    vectors = [row.tolist() for row in VECTORS]
    ids = list(IDS)
    ids[0] = None
    vectors[1] = None
    vectors[2] = [1.0, float("nan"), 0.0, 0.0]
    vectors[3] = [1.0, float("inf"), 0.0, 0.0]
    vectors[4] = [0.0] * 4
    vectors[5] = [1.0] * 3
    vectors[6] = []
    vectors[7] = [1.0, None, 2.0, 3.0]
    ids[9] = ids[8]
    ids.append(IDS[10])
    vectors.append(vectors[10])
    path = write_parquet(tmp_path / "in.parquet", ids, pa.array(vectors, pa.list_(pa.float32())))
    output = tmp_path / "out"
    done = run_job(
        "curate",
        "--input",
        path,
        "--output",
        output,
        "--budget",
        30,
        "--neighbors",
        3,
        "--on-bad-rows",
        "drop",
    )
    assert done.returncode == 0, done.stderr
    rejected = pq.read_table(output / "rejected").to_pylist()
    reasons = {row["file_row"]: row["reason"] for row in rejected}
    assert reasons == {
        0: "null id",
        1: "null embedding",
        2: "not finite",
        3: "not finite",
        4: "zero vector",
        5: "unequal length",
        6: "null embedding",
        7: "not finite",
        8: "duplicate id",
        9: "duplicate id",
        40: "duplicate id",
    }
    assert {row["file"] for row in rejected} == {path}
    assert manifest(output)["input"]["bad_rows"] == {
        "null id": 1,
        "null embedding": 2,
        "not finite": 3,
        "zero vector": 1,
        "unequal length": 1,
        "duplicate id": 3,
    }
    assert set(selected(output).column("id").to_pylist()) == set(IDS[10:])


@pytest.mark.parametrize(
    "column",
    [
        pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.reshape(-1)), 4),
        pa.array(VECTORS.tolist(), pa.large_list(pa.float64())),
        pa.array(
            [
                {"type": 1, "size": None, "indices": None, "values": row.tolist()}
                if i % 2
                else {"type": 0, "size": 4, "indices": [0, 1, 2, 3], "values": row.tolist()}
                for i, row in enumerate(VECTORS)
            ],
            pa.struct(
                [
                    ("type", pa.int8()),
                    ("size", pa.int32()),
                    ("indices", pa.list_(pa.int32())),
                    ("values", pa.list_(pa.float64())),
                ]
            ),
        ),
    ],
    ids=["fixed-size list", "large list of double", "Spark ML vector"],
)
def test_every_kind_of_embedding_gives_the_same_picks(tmp_path, engine, oracle, column):
    """As a list of float does."""
    path = write_parquet(tmp_path / "in.parquet", IDS, column)
    points = Points(IDS, VECTORS)
    assert engine(path, 10, neighbors=3).picks == oracle(points, 10, neighbors=3).picks


# --- refusals ---------------------------------------------------------------------------------------------


def lists(*rows: object) -> pa.Array:
    """Rows instead of the first of VECTORS."""
    return pa.array([*rows, *VECTORS[len(rows) :].tolist()], pa.list_(pa.float32()))


REFUSED_BY_ROWS = {
    "null id": (
        [None, *IDS[1:]],
        VECTORS,
        "1 row(s) of {path} have a null id in column 'id' (first: row 0 of {path})",
    ),
    "duplicate id": (
        ["n01", *IDS[1:]],
        VECTORS,
        "2 row(s) of {path} share their id in column 'id' with another row",
    ),
    "null vector": (
        IDS,
        lists(None),
        "null, empty or malformed in column 'embedding' (first: id 'n00', row 0 of {path})",
    ),
    "NaN": (
        IDS,
        lists([0, 1, 2, float("nan")]),
        "1 row(s) of {path} hold NaN, infinite or null values in column 'embe",
    ),
    "zero vector": (
        IDS,
        lists([0, 0, 0, -0.0]),
        "are zero vectors in column 'embedding', which have no cosine distance",
    ),
    "unequal lengths": (
        IDS,
        lists([1, 2], [1, 2, 3, 4, 5]),
        "2 row(s) of {path} have another length than most, 4, in",
    ),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory) -> tuple[Path, dict]:
    """The outcome of the jobs on each of the inputs above, on too many duplicates, and on too few densities."""
    folder = tmp_path_factory.mktemp("refused")
    commands = {}
    for case, (ids, vectors, _) in REFUSED_BY_ROWS.items():
        path = write_parquet(folder / f"{case}.parquet", ids, vectors)
        commands[case] = ("curate", "--input", path, "--output", folder / f"{case}-out", "--budget", 5)
    path = write_parquet(folder / "copies.parquet", IDS, np.repeat(VECTORS[:20], 2, axis=0))
    commands["copies"] = ("curate", "--input", path, "--output", folder / "copies-out", "--budget", 21)
    path = write_parquet(folder / "whole.parquet", IDS, VECTORS)
    density = folder / "density.parquet"
    pq.write_table(pa.table({"id": IDS[:-2], "density": np.ones(38)}), density)
    common = ("--output", folder / "density-out", "--budget", 5)
    commands["density"] = ("select_subset", "--input", path, "--density", density, *common)
    return folder, {case: run_job(*arguments) for case, arguments in commands.items()}


@pytest.mark.parametrize("case", REFUSED_BY_ROWS)
def test_rows_that_break_the_contract_are_refused(refused, case):
    """Exit code 3, one line with the column, a row id, how many rows and what to do; no output folder."""
    folder, outcomes = refused
    assert outcomes[case].returncode == 3, outcomes[case].stderr
    line = error_line(outcomes[case])
    assert REFUSED_BY_ROWS[case][2].format(path=folder / f"{case}.parquet") in line
    assert "--on-bad-rows drop" in line
    assert not (folder / f"{case}-out").exists()


def test_a_budget_above_what_duplicates_leave_is_refused(refused):
    """Only counting after the drop can tell."""
    done = refused[1]["copies"]
    assert done.returncode == 3, done.stderr
    assert "--budget 21 is above the number of candidates, 20, that are left of the 40 rows" in error_line(done)


def test_a_candidate_without_density_is_refused(refused):
    """Exit code 3, how many and the first id."""
    folder, outcomes = refused
    done = outcomes["density"]
    assert done.returncode == 3, done.stderr
    line = error_line(done)
    assert f"2 candidate(s) have no density in {folder / 'density.parquet'}; estimate it over the same input" in line
    assert "first id: 'n38'" in line
    assert not (folder / "density-out").exists()


def test_overwrite_never_touches_the_input_or_what_no_job_wrote(tmp_path):
    """Not through a link to the input, and not a folder of Parquet without a manifest."""
    real = tmp_path / "real"
    real.mkdir()
    path = Path(write_parquet(real / "part-00000.parquet", IDS, VECTORS))
    (tmp_path / "link").symlink_to(real)
    linked = run_job("curate", "--input", real, "--output", tmp_path / "link", "--budget", 5, "--overwrite")
    assert linked.returncode == 2
    assert "lie in one another" in error_line(linked)
    other = write_parquet(tmp_path / "in.parquet", IDS, VECTORS)
    unknown = run_job("curate", "--input", other, "--output", real, "--budget", 5, "--overwrite")
    assert unknown.returncode == 2
    assert "has no _MANIFEST.json" in error_line(unknown)
    assert path.exists()


def test_an_output_that_cannot_be_a_folder_is_refused(tmp_path):
    path = write_parquet(tmp_path / "in.parquet", IDS, VECTORS)
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/novelsum")):
        done = run_job("curate", "--input", path, "--output", output, "--budget", 5, "--neighbors", 3)
        assert done.returncode == 2, done.stderr
        assert str(output) in error_line(done)


def half_written(path: Path) -> str:
    content = Path(write_parquet(path, IDS, VECTORS)).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return str(path)


REFUSED_BY_FOOTERS = {
    "no such path": (lambda p: str(p), (), "in.parquet does not exist"),
    "no such glob": (lambda p: f"{p}/*.parquet", (), "*.parquet does not exist"),
    "no id column": (
        lambda p: write_parquet(p, IDS, VECTORS),
        ("--id-column", "key"),
        "in.parquet has no column 'key'; its columns are id, embedding",
    ),
    "no embedding column": (
        lambda p: write_parquet(p, IDS, VECTORS),
        ("--embedding-column", "vec"),
        "no column 'vec'",
    ),
    "embedding of text": (
        lambda p: write_parquet(p, IDS, pa.array(IDS)),
        (),
        "'embedding' of {path} has type string",
    ),
    "embedding of integers": (
        lambda p: write_parquet(p, IDS, pa.array(np.ones((40, 4), int).tolist())),
        (),
        "has type list<element: int64>, expected a list of float or double",
    ),
    "id of doubles": (
        lambda p: write_parquet(p, np.arange(40.0), VECTORS),
        (),
        "column 'id' of {path} has type double",
    ),
    "no rows": (lambda p: write_parquet(p, pa.array([], pa.string()), VECTORS[:0]), (), "has no rows"),
    "budget above the pool": (
        lambda p: write_parquet(p, IDS, VECTORS),
        ("--budget", 41),
        "--budget 41 is above",
    ),
    "K not below the pool": (
        lambda p: write_parquet(p, IDS, VECTORS),
        ("--neighbors", 40),
        "--neighbors 40 must be",
    ),
    "truncated file": (half_written, (), "in.parquet is not a whole Parquet file"),
    "id called like a column of the result": (
        lambda p: write_parquet(p, IDS, VECTORS, pick=IDS),
        ("--id-column", "pick"),
        "may not be called 'pick'",
    ),
    "embedding as text": (
        lambda p: write_parquet(p, IDS, VECTORS),
        ("--text-column", "embedding"),
        "has no column 'embedding'; its columns are id: name one of them with --text-column",
    ),
    "first of integers": (
        lambda p: write_parquet(p, np.arange(40), VECTORS),
        ("--first", "n01"),
        "--first 'n01' is not an integer",
    ),
}


@pytest.mark.parametrize("case", REFUSED_BY_FOOTERS)
def test_an_input_that_footers_rule_out_is_refused_before_spark_starts(tmp_path, case):
    """Exit code 3 and one line that names path, column and what to do."""
    make, arguments, words = REFUSED_BY_FOOTERS[case]
    path = make(tmp_path / "in.parquet")
    done = run_job("curate", "--input", path, "--output", tmp_path / "out", "--budget", 5, *arguments)
    assert done.returncode == 3, done.stderr
    assert words.format(path=path) in error_line(done)
    assert "start: done" not in done.stderr
    assert not (tmp_path / "out").exists()


def damage(path: Path, column: int) -> None:
    """Overwrite the beginning of a column's pages."""
    content = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(0).column(column).data_page_offset
    content[start : start + 200] = b"\xff" * 200
    path.write_bytes(bytes(content))


def test_damage_in_the_middle_of_a_file_is_found(tmp_path, engine):
    """The footer is whole, the pages are not: the file named, and exit code 3 also when a later stage finds it."""
    path, density = tmp_path / "in.parquet", tmp_path / "density.parquet"
    write_parquet(path, IDS, VECTORS)
    pq.write_table(pa.table({"id": IDS, "density": RNG.random(40)}), density)
    damage(density, 1)
    common = ("--output", tmp_path / "out", "--budget", 5)
    done = run_job("select_subset", "--input", path, "--density", density, *common)
    assert done.returncode == 3, done.stderr
    assert f"{density} is not a whole Parquet file" in error_line(done)
    damage(path, 1)
    with pytest.raises(InputError, match=r"in\.parquet is not a whole Parquet file"):
        engine(str(path), 5)


def test_a_power_that_leaves_the_range_of_numbers_is_refused(tmp_path, engine):
    """Instead of infinite novelties and picks by tie."""
    path = write_parquet(tmp_path / "in.parquet", IDS, VECTORS)
    with pytest.raises(InputError, match="--density-power 2000 takes density factors"):
        engine(path, 5, density_power=2000.0, neighbors=3)


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
        load_density(spark, pool, open_density(str(density), "id"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--input", "x"), "--output is missing"),
        (("--input", "x", "--output", "y"), "--budget is missing"),
        (("--input", "x", "--output", "y", "--budget", 0), "--budget must be at least 1, or a share of the candidates"),
        (("--input", "x", "--output", "y", "--budget", "many"), "such as 5%, not 'many'"),
        (("--formula", "mine"), "--formula: invalid choice: 'mine'"),
        (
            ("--input", "x", "--output", "y", "--budget", 1, "--density-power", "nan"),
            "--density-power must be a finite",
        ),
        (("--input", "x", "--output", "x", "--budget", 1), "lie in one another"),
        (("--input", "x/y", "--output", "x", "--budget", 1), "lie in one another"),
        (("--bugdet", 3), "unknown flag --bugdet; did you mean --budget?"),
        (("--config", "{config}"), "unknown key 'bugdet'; did you mean budget?"),
        (("--config", "none.toml"), "--config none.toml cannot be read"),
    ],
)
def test_bad_usage_exits_2_and_names_the_setting(tmp_path, arguments, words):
    config = tmp_path / "c.toml"
    config.write_text("bugdet = 3\n")
    done = run_job("curate", *(str(a).format(config=config) for a in arguments))
    assert done.returncode == 2, done.stderr
    assert words in error_line(done)
