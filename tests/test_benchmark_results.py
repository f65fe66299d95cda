"""What benchmarks keep is what docs/benchmarks.md shows, and nothing that was not measured."""

import importlib
import json
import re
from pathlib import Path

import made
import pytest
from conftest import ROOT

results = importlib.import_module("results")
KEPT = sorted((ROOT / "tests" / "benchmarks" / "results").glob("*.json"))


def test_every_benchmark_of_the_makefile_keeps_its_figures():
    """By a name that the page knows; each name is kept by some benchmark."""
    targets = re.findall(r"^(bench[a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {one.target for one in results.BENCHMARKS.values()} == set(targets)
    sources = "".join(path.read_text() for path in (ROOT / "tests" / "benchmarks").glob("*.py"))
    kept = {name for call in re.findall(r"\bkeep\(([^,]+),", sources) for name in re.findall(r'"([a-z-]+)"', call)}
    assert kept == set(results.BENCHMARKS)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_result_says_when_where_and_by_what_it_was_measured(path: Path):
    result = results.Result.read(path)
    assert path.stem in results.BENCHMARKS
    assert result.command.endswith(f"make {results.BENCHMARKS[path.stem].target}")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", result.date)
    assert {"cores", "memory_gib", "processor"} == set(result.machine)
    assert {"novelsum", "python", "pyspark", "numpy"} <= set(result.versions)
    assert result.tables
    for table in result.tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}


def test_what_was_kept_is_read_again_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the settings of the environment that changed it; a benchmark without a result is shown as not measured."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(made, "FOLDER", tmp_path)
    for name in results.CHANGES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROWS", "5000")
    results.keep("text", results.Table(["what", "seconds"], [["import", 1234.56], ["export", 0.123]], "in and out"))
    assert [path.name for path in tmp_path.iterdir()] == ["text.json"]
    page = made.benchmarks()
    shown = page.partition("## Texts in and out")[2].partition("\n## ")[0]
    assert "`ROWS=5000 make bench-text`" in shown
    assert f"{json.loads((tmp_path / 'text.json').read_text())['date']}, " in shown
    assert "in and out\n\n| what | seconds |" in shown
    assert "| import | 1,235 |" in shown
    assert "| export | 0.12 |" in shown
    assert page.count("Not measured yet: `make bench") == len(results.BENCHMARKS) - 1
    assert made.costs("") == "Not measured yet: `make bench-curate`."
