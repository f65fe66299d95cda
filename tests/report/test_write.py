"""A report costs a run nothing but itself."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import error_line, write_parquet

from novelsum import pipeline
from novelsum.command import main
from novelsum.errors import UsageError
from novelsum.report import write as report
from novelsum.settings import Settings


def test_a_missing_matplotlib_is_a_usage_error_before_anything_runs(monkeypatch, capsys, tmp_path):
    """One sentence and exit code 2; --no-report gets past it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    arguments = ["--input", "nowhere", "--output", str(tmp_path / "out"), "--budget", "1"]
    monkeypatch.setattr("sys.argv", ["curate.py", *arguments])
    assert main("curate", "") == 2
    done = SimpleNamespace(stderr=capsys.readouterr().err)
    assert (
        "matplotlib, which is not installed; install it (pip install matplotlib) or run with --no-report"
        in error_line(done)
    )
    with pytest.raises(UsageError):
        report.check_report(Settings())
    monkeypatch.setattr("sys.argv", ["curate.py", *arguments, "--no-report"])
    assert main("curate", "") == 3


@pytest.mark.parametrize("broken", ["survey", "write_report"])
def test_a_report_that_fails_costs_nothing_but_itself(run_here, tmp_path, monkeypatch, caplog, broken):
    """The log says why there is none; the selection is published."""

    def fail(*_):
        raise ImportError("broken on purpose")

    monkeypatch.setattr(pipeline, broken, fail)
    path = write_parquet(tmp_path / "in.parquet", range(30), np.random.default_rng(7).normal(size=(30, 3)))
    run_here("curate", input=path, output=str(tmp_path / "out"), budget=4, neighbors=3)
    assert "the selection is not affected" in caplog.text
    assert "broken on purpose" in caplog.text
    assert len(pq.read_table(tmp_path / "out" / "selected")) == 4
    names = sorted(entry.name for entry in (tmp_path / "out").iterdir())
    assert names == ["_MANIFEST.json", "_rows.parquet", "metrics.json", "selected"]


def test_nothing_but_the_page_imports_matplotlib():
    """Neither a run without a report nor an executor needs it."""
    code = "import sys, novelsum.command; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
