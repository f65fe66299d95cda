"""What the first look at the input rules out, before Spark starts, and what only counting can."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import error_line, run_job, write_parquet

RNG = np.random.default_rng(11)
VECTORS = RNG.normal(size=(40, 4)).astype(np.float32)
IDS = [f"n{i:02d}" for i in range(40)]


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
    "id called like a column of the map": (
        lambda p: write_parquet(p, IDS, VECTORS, x=IDS),
        ("--id-column", "x", "--map"),
        "may not be called 'x'",
    ),
    "id called like a column of what is nearest to the rejected": (
        lambda p: write_parquet(p, IDS, VECTORS, nearest_pick=IDS),
        ("--id-column", "nearest_pick", "--explain-rejected"),
        "may not be called 'nearest_pick'",
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


def test_a_budget_above_what_duplicates_leave_is_refused(tmp_path):
    """Only counting after the drop can tell."""
    path = write_parquet(tmp_path / "in.parquet", IDS, np.repeat(VECTORS[:20], 2, axis=0))
    done = run_job("curate", "--input", path, "--output", tmp_path / "out", "--budget", 21)
    assert done.returncode == 3, done.stderr
    assert "--budget 21 is above the number of candidates, 20, that are left of the 40 rows" in error_line(done)
