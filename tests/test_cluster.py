"""Separate executor processes: the picks are the same, also when one of them is killed in the middle."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SAMPLE

pytestmark = pytest.mark.cluster
BUDGET = 400


@pytest.fixture(scope="module")
def expected(sample, oracle) -> list:
    return oracle(sample, BUDGET).picks


def start(output: Path, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, ROOT / "jobs" / "curate.py", "--input", SAMPLE, "--budget", BUDGET, "--output", output]
    command += ["--master", "local-cluster[2,1,1024]", "--block-rows", 700, *arguments]
    return subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)


def executors() -> list[int]:
    """Processes of executors, each of which has a Java of its own."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"CoarseGrainedExecutorBackend" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def picks(output: Path) -> list:
    return pq.read_table(output / "selected").column("id").to_pylist()


def test_an_executor_killed_in_the_selection_changes_no_pick(expected, tmp_path):
    """SIGKILL to its Java while rounds run: the run succeeds, with the picks of the formula."""
    output, work = tmp_path / "out", tmp_path / "work"
    process = start(output, "--work-dir", work)
    deadline = time.monotonic() + 240
    while len(list(work.glob("novelsum-*/picks/*.parquet"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    before = executors()
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert picks(output) == expected
    assert not list(work.glob("*")), "the work is removed after success"


def test_work_is_kept_when_asked(expected, tmp_path):
    """Two executors, a work directory of its own, kept: the store, the densities and the pick log are there."""
    output, work = tmp_path / "out", tmp_path / "work"
    process = start(output, "--work-dir", work, "--keep-work")
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert picks(output) == expected
    (kept,) = work.iterdir()
    assert sorted(entry.name for entry in kept.iterdir()) == ["density", "done", "picks", "store"]
    assert sorted(entry.name for entry in output.iterdir()) == [
        "_MANIFEST.json",
        "metrics.json",
        "report.html",
        "report.json",
        "selected",
    ]
