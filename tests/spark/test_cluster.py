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
    command = [sys.executable, ROOT / "tests" / "with_rounds.py", "curate", "--input", SAMPLE, "--budget", BUDGET]
    command += ["--output", output]
    command += ["--master", "local-cluster[2,1,1024]", "--block-rows", 700, *arguments]
    return subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)


def executors(of: int) -> list[int]:
    """Processes of executors, each of which has a Java of its own, among those that process ``of`` has started."""
    parents, found = {}, []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if b"CoarseGrainedExecutorBackend" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        except OSError:
            continue

    def is_below(process: int) -> bool:
        parent = parents.get(process, 0)
        return parent == of or (parent > 0 and is_below(parent))

    return sorted(process for process in found if is_below(process))


def picks(output: Path) -> list:
    return pq.read_table(output / "selected").column("id").to_pylist()


def test_no_process_of_anybody_else_is_taken_for_an_executor():
    """One that is started by a process between counts, one beside it does not, whatever it is called."""
    wait = "import time; time.sleep(60)"
    looks_so = [sys.executable, "-c", wait, "CoarseGrainedExecutorBackend"]
    starts_one = f"import subprocess; subprocess.run({looks_so!r})"
    own = subprocess.Popen([sys.executable, "-c", wait])
    foreign = subprocess.Popen(looks_so)
    between = subprocess.Popen([sys.executable, "-c", starts_one])
    started = [own, foreign, between]
    inner: list[int] = []
    try:
        deadline = time.monotonic() + 20
        while not inner and time.monotonic() < deadline:
            time.sleep(0.05)
            inner = [process for process in executors(os.getpid()) if process not in (foreign.pid, between.pid)]
        assert executors(own.pid) == []
        assert executors(between.pid) == inner
        assert foreign.pid in executors(os.getpid())
    finally:
        for process in [*inner, *(one.pid for one in started)]:
            os.kill(process, signal.SIGKILL)
        for one in started:
            one.wait()


def test_an_executor_killed_in_the_selection_changes_no_pick(expected, tmp_path):
    """SIGKILL to its Java while rounds run: the run succeeds, with the picks of the formula."""
    output, work = tmp_path / "out", tmp_path / "work"
    process = start(output, "--work-dir", work)
    deadline = time.monotonic() + 240
    while len(list(work.glob("novelsum-*/4-begin/picks/*.parquet"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    before = executors(process.pid)
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
    assert sorted(entry.name for entry in kept.iterdir()) == ["1-ingest", "2-thin", "3-density", "4-begin"]
    assert sorted(entry.name for entry in output.iterdir()) == [
        "_MANIFEST.json",
        "_rows.parquet",
        "duplicates",
        "metrics.json",
        "report.html",
        "report.json",
        "selected",
    ]
