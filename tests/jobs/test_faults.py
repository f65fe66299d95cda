"""Runs whose input is replaced, or whose disk does not read: what they say, and how they go on."""

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

RNG = np.random.default_rng(0)
IDS = [f"n{i:02}" for i in range(40)]
VECTORS = RNG.standard_normal((40, 5)).astype(np.float32)


@pytest.fixture
def pool_file(tmp_path):
    return Path(write_parquet(tmp_path / "in.parquet", IDS, VECTORS))


def run_until(file: Path, act, job: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a job to its end, and act as soon as a file is there."""
    process = start(job, *arguments, **environment)
    while not file.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    act()
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess([], process.returncode, output, errors)


def start(job: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *map(str, arguments)]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, env={**os.environ, **environment})


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
    done = run_until(output / "_work/work/3-density/done.json", replace, "curate", *given)
    assert done.returncode == 3, done.stderr
    assert f"{file} was written again while the run read it" in error_line(done)
    assert not (output / "_MANIFEST.json").exists()
    again = run_job("curate", *given)
    assert again.returncode == 0, again.stderr
    texts = dict(zip(*(pq.read_table(source).column(name).to_pylist() for name in ("id", "text")), strict=True))
    rows = pq.read_table(output / "selected").to_pylist()
    assert len(rows) == 60
    assert all(row["text"] == texts[row["id"]] for row in rows)


FAULTY_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Reads of files whose path holds FAULTY fail while the file FAULTY_WHILE is there. */
static int fails(int fd) {
  char link[64], path[4096];
  const char *mark = getenv("FAULTY"), *given = getenv("FAULTY_WHILE");
  if (!mark || !given || access(given, F_OK)) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size <= 0) return 0;
  path[size] = 0;
  return strstr(path, mark) != NULL;
}
#define FAULTY(name, declared, passed) \
  ssize_t name declared { \
    ssize_t (*real) declared = dlsym(RTLD_NEXT, #name); \
    if (fails(fd)) { errno = EIO; return -1; } \
    return real passed; \
  }
FAULTY(read, (int fd, void *to, size_t size), (fd, to, size))
FAULTY(pread, (int fd, void *to, size_t size, off_t at), (fd, to, size, at))
FAULTY(pread64, (int fd, void *to, size_t size, off64_t at), (fd, to, size, at))
"""


@pytest.fixture(scope="session")
def faulty_disk(tmp_path_factory):
    """The environment of a process whose system fails to read the files that ``FAULTY`` says, compiled here."""
    compiler = shutil.which("gcc")
    if compiler is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)("this machine has no gcc")
    folder = tmp_path_factory.mktemp("disk")
    (folder / "disk.c").write_text(FAULTY_DISK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "disk.so", folder / "disk.c", "-ldl"], check=True)
    return {"LD_PRELOAD": str(folder / "disk.so")}


READS = """
import sys
from pathlib import Path
from novelsum.selection import picklog
from novelsum.settings import Settings
from novelsum.files.source import open_source, read_columns
from novelsum.density.state import state_of
from novelsum.files.location import Location
from novelsum.files.store import read_block
from novelsum.files.workplace import Workplace

path, work, fails = sys.argv[1], Location(sys.argv[2]), Path(sys.argv[3])
source = open_source(path, "id", "embedding")
reads = {
    "footer": lambda: open_source(path, "id", "embedding"),
    "pages": lambda: [list(read_columns(source, chunk, ["id"])) for chunk in source.chunks(100)],
    "block": lambda: read_block(work, "b.parquet"),
    "log": lambda: picklog.recover(work),
    "state": lambda: state_of(Settings(update=str(work)), None).__enter__(),
    "run": lambda: Workplace.of(work, None, {}).held(overwrite=True, keep_work=False).__enter__(),
}
fails.touch()
for name, read in reads.items():
    try:
        read()
    except Exception as error:
        print(name, type(error).__name__, error)
fails.unlink()
print(len(reads["pages"]()), len(reads["log"]()[0]))
"""


def test_a_disk_that_cannot_read_is_not_told_as_damage(faulty_disk, pool_file, tmp_path):
    """EIO: of the input, the store, the pick log, a state and unfinished work; afterwards all are as they were."""
    work = tmp_path / "work"
    for folder in ("store", "picks", "_work/work/1-ingest"):
        (work / folder).mkdir(parents=True)
    (work / "_work" / "run.json").write_text("{}")
    (work / "_work" / "work" / "1-ingest" / "done.json").write_text("{}")
    shutil.copy(pool_file, work / "store" / "b.parquet")
    numbers = {name: [1.0] for name in ("powered", "quality", "cost", "novelty")}
    picked = {"rows": [4], **numbers, "groups": [0], "vector": [[1.0, 2.0]]}
    log = pa.table(picked).cast(pa.schema([*list(pa.table(picked).schema)[:-1], ("vector", pa.list_(pa.float32(), 2))]))
    pq.write_table(log, work / "picks" / "000000000.parquet")
    (work / "_STATE.json").write_text("{}")
    environment = {**os.environ, **faulty_disk, "FAULTY": str(tmp_path), "FAULTY_WHILE": str(tmp_path / "fails")}
    command = [sys.executable, "-c", READS, str(pool_file), str(work), str(tmp_path / "fails")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    footer, pages, block, log, state, run, after = done.stdout.splitlines()
    for line, file in (
        (footer, pool_file),
        (pages, pool_file),
        (block, work / "store" / "b.parquet"),
        (log, work / "picks" / "000000000.parquet"),
    ):
        assert f" RunError {file} cannot be read: " in line
        assert "Input/output error" in line
    assert f"state OSError [Errno 5] Input/output error: '{work}/_STATE.json'" in state
    assert f"run OSError [Errno 5] Input/output error: '{work}/_work/run.json'" in run
    assert (work / "_work" / "work" / "1-ingest" / "done.json").exists()
    assert after == "1 1"


@pytest.mark.more
@pytest.mark.parametrize("what", ["input", "store"])
def test_a_run_goes_on_when_the_disk_reads_again(faulty_disk, tmp_path, what):
    """EIO once the density is done: exit 1 with path and cause, and the same command ends with the same picks."""
    source, output, fails = tmp_path / "in", tmp_path / "out", tmp_path / "fails"
    shutil.copytree(SAMPLE, source)
    given = ("--input", source, "--output", output, "--budget", 60, "--text-column", "text", "--no-report")
    mark = {"input": source, "store": output / "_work/work/1-ingest/store"}[what]
    environment = {**faulty_disk, "FAULTY": str(mark), "FAULTY_WHILE": str(fails)}
    failed = run_until(output / "_work/work/3-density/done.json", fails.touch, "curate", *given, **environment)
    assert failed.returncode == 1, failed.stderr
    assert str(mark) in error_line(failed)
    assert "Input/output error" in error_line(failed)
    fails.unlink()
    done = run_job("curate", *given)
    assert done.returncode == 0, done.stderr
    assert "going on after" in done.stderr
    assert run_job("curate", *given[:2], "--output", tmp_path / "whole", *given[4:]).returncode == 0
    assert pq.read_table(output / "selected").equals(pq.read_table(tmp_path / "whole" / "selected"))


def test_a_file_that_may_not_be_read_is_named_with_the_reason(tmp_path, pool_file):
    """Exit 1: the same command goes on once the permission is there. The job runs without root's right to read all."""
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    pool_file.chmod(0)
    if not shutil.which("setpriv") or subprocess.run([*bound, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine has no setpriv, or does not allow it")
    command = [sys.executable, str(ROOT / "jobs" / "curate.py"), "--input", str(pool_file)]
    command = [*bound, *command, "--output", str(tmp_path / "out"), "--budget", "5"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1, failed.stderr
    assert f"{pool_file} cannot be read: permission denied; run again to go on" in error_line(failed)
