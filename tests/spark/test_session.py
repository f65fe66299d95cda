"""Spark Connect is refused before anything else; what workers say when they are cut off is kept from the user."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, SAMPLE, error_line, run_job

from novelsum.errors import UsageError
from novelsum.spark import session


@pytest.mark.parametrize(
    ("variable", "value", "found"),
    [
        ("SPARK_REMOTE", "sc://host:15002", "SPARK_REMOTE is set"),
        ("SPARK_REMOTE", "local", "SPARK_REMOTE is set"),
        ("SPARK_API_MODE", "connect", "SPARK_API_MODE"),
        ("SPARK_CONNECT_MODE", "1", "SPARK_API_MODE"),
    ],
)
def test_spark_connect_is_refused_before_anything_else(variable, value, found, monkeypatch):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=rf"cannot run on Spark Connect, which has no RDDs \({found}|{found} or"):
        session.require_classic(None)


def test_a_master_that_is_a_connect_server_is_refused():
    with pytest.raises(UsageError, match="sc://host is a server of it"):
        session.require_classic("sc://host")


@pytest.mark.parametrize("job", ["curate", "measure_diversity"])
def test_a_job_under_spark_remote_ends_with_one_sentence(job, monkeypatch, tmp_path):
    monkeypatch.setenv("SPARK_REMOTE", "sc://localhost:1")
    more = ("--budget", 1) if job == "curate" else ()
    done = run_job(job, "--input", SAMPLE, "--output", tmp_path / "out", *more, by="python")
    assert done.returncode == 2
    assert "SPARK_REMOTE is set" in error_line(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.more
def test_spark_submit_in_connect_mode_ends_with_one_sentence(tmp_path):
    submit = shutil.which("spark-submit", path=os.path.dirname(sys.executable))
    job = (ROOT / "jobs" / "curate.py", "--input", SAMPLE, "--output", tmp_path / "out", "--budget", 1)
    command = [str(submit), "--conf", "spark.api.mode=connect", *map(str, job)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    told = [line for line in done.stdout.splitlines() if line]  # where spark-submit sends what a job says
    assert len(told) == 1
    assert told[0].startswith("error: this cannot run on Spark Connect")
    assert "spark.api.mode=connect" in told[0]


HANG_UP = """
import os, socket, sys
from novelsum.spark import session

def hang_up(rows):
    for number in map(int, os.listdir("/proc/self/fd")):
        link = f"/proc/self/fd/{number}"
        if os.path.islink(link) and os.readlink(link).startswith("socket:"):
            socket.socket(fileno=os.dup(number)).shutdown(socket.SHUT_RDWR)
    print("Traceback (most recent call last):\\n  File 'mine.py', line 1\\nValueError: of my own", file=sys.stderr)
    return rows

context = session.start("curate", "local[1]")
try:
    context.parallelize([1], 1).mapPartitions(hang_up).collect()
except Exception as error:
    print(type(error).__name__)
session.stop(context)
"""


def test_a_worker_that_is_cut_off_shows_no_traceback_of_the_daemon():
    """Its connection is closed while it has something to say; other tracebacks are shown."""
    done = subprocess.run([sys.executable, "-c", HANG_UP], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["Py4JJavaError"]
    assert "daemon.py" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    told = [line for line in done.stderr.splitlines() if not line.startswith("Picked up JAVA")]
    assert told == ["Traceback (most recent call last):", "  File 'mine.py', line 1", "ValueError: of my own"]
