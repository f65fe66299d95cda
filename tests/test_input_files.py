"""Input files that are replaced while a run reads them, that cannot be read, or are something else than they seem."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SAMPLE, error_line, run_job, write_parquet

from novelsum.errors import DamageError, InputError, RunError, error_of_a_task
from novelsum.ingest import ingest
from novelsum.output import write_selected
from novelsum.selection import Candidate
from novelsum.settings import Settings
from novelsum.source import Chunk, look, open_density, open_selected, open_source, read_columns, read_rows
from novelsum.storage import Location

RNG = np.random.default_rng(0)
IDS = [f"n{i:02}" for i in range(40)]
VECTORS = RNG.standard_normal((40, 5)).astype(np.float32)
TEXTS = [f"text of {id_}" for id_ in IDS]


def put(path: Path, order: np.ndarray, **columns: list[str]) -> str:
    """Write the rows in some order beside the place and move them there."""
    beside = path.with_name("beside")
    table = pa.table({"id": IDS, "embedding": list(VECTORS), **columns}).take(pa.array(order))
    pq.write_table(table, beside, compression="none", use_dictionary=False)  # in any order it has the same size
    beside.rename(path)
    return str(path)


@pytest.fixture
def pool_file(tmp_path):
    return Path(put(tmp_path / "in.parquet", np.arange(40), text=TEXTS))


# --- replaced while they are read -------------------------------------------------------------------------


@pytest.mark.parametrize("opens", ["the input", "density factors", "samples"])
def test_a_file_that_is_replaced_after_the_first_look_is_named(pool_file, tmp_path, opens):
    """By the same rows in another order: at the footers, while a chunk is read, and where rows are fetched."""
    if opens == "density factors":
        table = pq.read_table(pool_file).append_column("density", pa.array(np.ones(40)))
        pq.write_table(table, pool_file)
    seen = look(str(pool_file))
    open_ = {
        "the input": lambda: open_source(str(pool_file), "id", "embedding", seen),
        "density factors": lambda: open_density(str(pool_file), "id", seen),
        "samples": lambda: open_selected(str(pool_file), "id", "embedding", Location.of(str(tmp_path / "out")), seen),
    }[opens]
    source = open_()
    (chunk,) = source.chunks(1000)
    assert sum(len(batch) for batch in read_columns(source, chunk, ["id"])) == 40
    reading = read_columns(source, chunk, ["id"])
    next(reading)
    put(pool_file, np.arange(40)[::-1])
    for read in (
        open_,
        lambda: list(reading),
        lambda: list(read_columns(source, chunk, ["id"])),
        lambda: read_rows(source, 0, np.array([3]), ["n03"], ["id"]),
    ):
        with pytest.raises(InputError, match=rf"{pool_file} was written again while the run read it; .* run again"):
            read()


def test_a_replaced_file_of_the_same_size_and_time_is_told_by_its_ids(pool_file, spark, tmp_path):
    """Wherever rows are fetched; no selection is written."""
    source = open_source(str(pool_file), "id", "embedding")
    before = pool_file.stat()
    picks = [Candidate(row, IDS[row], 0.0, 1.0, 0, row) for row in (7, 2)]
    write_selected(spark, source, picks, "id", Location.of(str(tmp_path / "good")))
    good = pq.read_table(tmp_path / "good" / "selected")
    assert good.column("text").to_pylist() == [TEXTS[7], TEXTS[2]]
    put(pool_file, np.arange(40)[::-1], text=TEXTS)
    os.utime(pool_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert pool_file.stat().st_size == before.st_size
    with pytest.raises(InputError, match=rf"{pool_file} was written again"):
        read_rows(source, 0, np.array([7]), ["n07"], ["text"])
    with pytest.raises(Exception, match="InputError") as raised:
        write_selected(spark, source, picks, "id", Location.of(str(tmp_path / "bad")))
    assert f"{pool_file} was written again" in str(error_of_a_task(raised.value))
    assert not (tmp_path / "bad" / "selected").exists()


def start(job: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *map(str, arguments)]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, env={**os.environ, **environment})


def run_until(file: Path, act, job: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a job to its end, and act as soon as a file is there."""
    process = start(job, *arguments, **environment)
    while not file.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    act()
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess([], process.returncode, output, errors)


@pytest.mark.more
def test_a_run_whose_input_is_replaced_ends_without_a_result(tmp_path):
    """The same rows in another order, by a rename, when the density is done: exit 3 with the name of the file."""
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(SAMPLE, source)
    file = sorted(source.glob("*.parquet"))[0]

    def replace() -> None:
        table = pq.read_table(file)
        pq.write_table(table.take(pa.array(np.arange(len(table))[::-1])), tmp_path / "beside")
        (tmp_path / "beside").rename(file)

    given = ("--input", source, "--output", output, "--budget", 60, "--text-column", "text")
    done = run_until(output / "_work/work/done/density.json", replace, "curate", *given)
    assert done.returncode == 3, done.stderr
    assert f"{file} was written again while the run read it" in error_line(done)
    assert not (output / "_MANIFEST.json").exists()
    again = run_job("curate", *given)
    assert again.returncode == 0, again.stderr
    texts = dict(zip(*(pq.read_table(source).column(name).to_pylist() for name in ("id", "text")), strict=True))
    rows = pq.read_table(output / "selected").to_pylist()
    assert len(rows) == 60
    assert all(row["text"] == texts[row["id"]] for row in rows)
