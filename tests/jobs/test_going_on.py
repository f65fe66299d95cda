"""Another budget for a run, finished or not, and steps that are used again where what changed does not matter."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from novelsum.errors import UsageError
from novelsum.files.reuse import of_step
from novelsum.selection import rounds


@pytest.fixture
def curate(run_here, clustered, tmp_path, caplog):
    """Run curate on one input; the picks' ids and v, what the manifest says of them, and what the log does."""
    path = clustered.write(tmp_path / "in")

    def run(output, **settings):
        caplog.clear()
        caplog.set_level("INFO", "novelsum")
        given = {"input": path, "output": str(tmp_path / output), "neighbors": 4, "report": False, **settings}
        run_here("curate", **given)
        table = pq.read_table(tmp_path / output / "selected")
        selected = json.loads((tmp_path / output / "_MANIFEST.json").read_text())["selected"]
        return table.column("id").to_pylist(), table.column("novelty").to_pylist(), selected, caplog.text

    return run


@pytest.mark.parametrize("formula", ["paper", pytest.param("released", marks=pytest.mark.more)])
def test_another_budget_for_a_finished_run_goes_on_from_its_picks_or_has_the_first_of_them(curate, formula, either_way):
    more = {"formula": formula, "min_distance": 0.01}
    ids, novelty, _, _ = curate("fresh", budget=100, **more)
    _, first, _, _ = curate("out", budget=40, **more)
    found, again, selected, log = curate("out", budget="27.8%", **more)
    assert "going on from the 40 picks of the result" in log
    assert (found, selected["resumed_picks"]) == (ids, 40)
    assert again == pytest.approx(novelty, rel=1e-12)
    assert again[:40] == first
    found, shorter, selected, log = curate("out", budget=25, **more)
    assert "going on from the first 25 of the 100 picks of the result" in log
    assert (found, shorter, selected["resumed_picks"], selected["drafted"]) == (ids[:25], again[:25], 25, 0)


def test_another_budget_for_an_unfinished_run_goes_on_with_its_log(curate, monkeypatch):
    ids, _, _, _ = curate("fresh", budget=150)
    log, written = rounds._Selection.log, []

    def log_and_die(self):
        log(self)
        written.append(self.picked)
        if self.picked > 64:
            raise KeyboardInterrupt

    monkeypatch.setattr(rounds._Selection, "log", log_and_die)
    with pytest.raises(KeyboardInterrupt):
        curate("out", budget=200)
    monkeypatch.setattr(rounds._Selection, "log", log)
    with pytest.raises(UsageError, match="holds an unfinished run that is another one: --seed was 42 and is 7"):
        curate("out", budget=200, seed=7)
    found, _, selected, told = curate("out", budget=150)
    assert (found, selected["resumed_picks"]) == (ids, written[-1])
    assert "going on after ingest, thin, density, begin" in told


def test_picks_under_quotas_hang_on_the_budget_and_do_not_go_on(curate):
    settings = {"group_column": "id", "quota": ("*=:1",)}
    curate("out", budget=10, **settings)
    with pytest.raises(UsageError, match="holds the result of another run: --budget was 10 and is 20"):
        curate("out", budget=20, **settings)


def test_steps_that_do_not_depend_on_what_changed_are_used_again(curate):
    """And the others are not: picks are those of a run that begins anew."""
    curate("out", budget=30, keep_work=True)
    fresh, _, _, _ = curate("fresh", budget=30, density_power=1.0, seed=3)
    found, _, _, log = curate("out", budget=30, density_power=1.0, seed=3, keep_work=True, overwrite=True)
    assert found == fresh
    assert "going on after ingest, thin, density, which" in log
    fresh, _, _, _ = curate("other", budget=30, seed=3, metric="euclidean")
    found, _, _, log = curate("out", budget=30, seed=3, metric="euclidean", overwrite=True)
    assert found == fresh
    assert "going on after" not in log


@pytest.mark.parametrize(
    ("changed", "steps"),
    [
        ({"budget": 9}, ["ingest", "density", "begin"]),
        ({"quota": ["a=1"]}, ["ingest", "density"]),
        ({"quality_power": 2.0}, ["ingest", "density"]),
        ({"formula": "symmetric"}, ["ingest", "density"]),
        ({"formula": "released"}, ["ingest"]),
        ({"neighbors": 5}, ["ingest"]),
        ({"text_column": "text"}, ["ingest", "density", "begin"]),
        ({"quality_column": "q"}, ["density"]),
        ({"near_duplicates": 0.1}, []),
        ({"one_that_is_new": 1}, []),
    ],
    ids=str,
)
def test_each_step_depends_on_its_settings(changed, steps):
    settings = {"budget": 5, "formula": "paper", "neighbors": 10, "quota": [], "quality_power": 1.0, "metric": "cosine"}
    before, now = ({"job": "curate", "settings": one, "files": {}} for one in (settings, {**settings, **changed}))
    assert [step for step in ("ingest", "density", "begin") if of_step(before, step) == of_step(now, step)] == steps


@pytest.mark.more
def test_density_is_used_again_where_a_quality_changes_no_candidate(curate, tmp_path):
    """Ingest reads the column; what is left out for a bad quality, or kept for a good one, makes other candidates."""
    table = pq.read_table(tmp_path / "in")
    good = np.random.default_rng(5).uniform(0.5, 1, len(table))
    bad = np.where(np.arange(len(table)) == 7, np.nan, good)
    for name, column in (("good", good), ("bad", bad)):
        table = table.append_column(name, pa.array(column))
    for file in (tmp_path / "in").iterdir():
        file.unlink()
    pq.write_table(table, tmp_path / "in" / "all.parquet")
    settings = {"budget": 30, "on_bad_rows": "drop", "keep_work": True, "overwrite": True}
    curate("out", **settings)
    fresh, *_ = curate("fresh", budget=30, quality_column="good")
    found, _, _, log = curate("out", quality_column="good", **settings)
    assert found == fresh
    assert "density is used again: the candidates are the same" in log
    assert "stage=density" not in log
    fresh, *_ = curate("other", budget=30, on_bad_rows="drop", quality_column="bad")
    found, _, _, log = curate("out", quality_column="bad", **settings)
    assert found == fresh
    assert "stage=density" in log
    fresh, *_ = curate("near", budget=30, quality_column="good", near_duplicates=0.001)
    curate("out", near_duplicates=0.001, **settings)
    found, _, _, log = curate("out", quality_column="good", near_duplicates=0.001, **settings)
    assert found == fresh
    assert "stage=density" in log
