"""Small pools, which the driver selects from by itself: the picks of the formula, without a round."""

import json
import re

import pyarrow.parquet as pq
import pytest
from conftest import assert_same

from novelsum import formula
from novelsum.selection import contenders, rounds


@pytest.mark.parametrize("method", formula.FORMULAS)
def test_without_rounds_few_ranked_picks_are_kept_and_many_forgotten(
    clustered, engine, oracle, tmp_path, monkeypatch, method
):
    """There is room for two contenders' only, and distances reach back some 20 picks."""
    monkeypatch.setattr(rounds, "WHOLE_BYTES", 1 << 40)
    monkeypatch.setattr(contenders, "RANKED_BYTES", 0)
    monkeypatch.setattr(contenders, "_RANKED_TOGETHER", 2)
    monkeypatch.setattr(contenders, "_WINDOW", 90)
    settings = {"duplicates": "keep", "neighbors": 4, "formula": method}
    path = clustered.write(tmp_path / "in")
    assert_same(engine(path, 120, block_rows=200, **settings), oracle(clustered, 120, **settings))


def test_a_small_pool_is_selected_from_by_the_driver_alone(
    clustered, engine, oracle, spark, tmp_path, monkeypatch, caplog
):
    """No round, no scratch, no Spark job; the limit is what the candidates take there."""
    taken = 360 * contenders.contender_bytes(16, 4)
    caplog.set_level("INFO", "novelsum")
    path = clustered.write(tmp_path / "in")
    for limit, has_rounds in ((taken, False), (taken - 1, True)):
        monkeypatch.setattr(rounds, "WHOLE_BYTES", limit)
        caplog.clear()
        found = engine(path, 70, neighbors=4)
        assert_same(found, oracle(clustered, 70, neighbors=4))
        assert (found.effort.rounds > 0) == has_rounds
        (line,) = (text for text in caplog.messages if text.startswith("selection: 70 of"))
        told = r"about \d+ MiB of memory in the driver, which has all candidates in its pool, 8.06e\+05 distance"
        assert bool(re.search(r"; 0 MiB of scratch on 0 host\(s\), " + told, line)) != has_rounds
        jobs = spark._jsc.sc().statusStore().jobsList(None)
        latest = jobs.apply(0).description()
        assert (latest.isDefined() and latest.get().startswith("novelsum selection: ")) == has_rounds


def test_a_selection_without_rounds_that_is_cut_goes_on(clustered, oracle, run_here, tmp_path, monkeypatch, either_way):
    """From its log, which has a file for every 64 picks or so; so does one in rounds."""
    options = {"input": clustered.write(tmp_path / "in"), "output": str(tmp_path / "out"), "budget": 200}
    options |= {"neighbors": 4, "report": False}
    log, written = rounds._Selection.log, []

    def log_and_die(self) -> None:
        log(self)
        written.append(self.picked)
        if len(written) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rounds._Selection, "log", log_and_die)
        with pytest.raises(KeyboardInterrupt):
            run_here("curate", **options)
    assert not (tmp_path / "out" / "selected").exists()
    run_here("curate", **options)
    assert (
        pq.read_table(tmp_path / "out" / "selected").column("id").to_pylist()
        == oracle(clustered, 200, neighbors=4).picks
    )
    manifest = json.loads((tmp_path / "out" / "_MANIFEST.json").read_text())["selected"]
    assert manifest["resumed_picks"] == written[1] < 200
