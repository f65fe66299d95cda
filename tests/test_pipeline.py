"""The steps of a job and their folders: what each writes, and what becomes of rows that were set aside."""

import logging
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_parquet

from novelsum.files.workplace import Workplace
from novelsum.spark.stages import Stages

OWN = {"ingest": "1-ingest", "density": "3-density", "begin": "4-begin", "selection": "4-begin", "compare": "5-compare"}
"""The folder of each stage of a run; the picks go on with the log that was begun. The others have none."""
RNG = np.random.default_rng(5)
VECTORS = RNG.normal(size=(90, 6)).astype(np.float32)
IDS = [f"p{i:02d}" for i in range(90)]


@pytest.fixture
def written(monkeypatch, tmp_path):
    """Which folders of the work directory in ``tmp_path`` each stage has written to or removed something from."""
    time, found = Stages.time, {}

    def files():
        paths = [path for path in (tmp_path / "work").glob("novelsum-*/**/*") if path.is_file()]
        return {(str(path), path.stat().st_mtime_ns) for path in paths}

    @contextmanager
    def watched(self, stage):
        before = files()
        with time(self, stage) as facts:
            yield facts
        changed = [path.removeprefix(f"{tmp_path}/work/") for path, _ in before ^ files()]
        found.setdefault(stage, set()).update(path.split("/")[1] for path in changed)

    monkeypatch.setattr(Stages, "time", watched)
    return found


def assert_only_own(written):
    for stage, folders in written.items():
        assert folders <= {OWN.get(stage)}, stage


@pytest.mark.more
def test_no_step_of_a_selection_writes_outside_its_own_folder(run_here, written, tmp_path):
    """With all that steps do: bad rows, a reference, near cells, samples selected before outside the pool, others."""
    vectors = VECTORS.copy()
    vectors[7] = np.nan
    path = write_parquet(tmp_path / "in.parquet", IDS[:60], vectors[:60])
    reference = write_parquet(tmp_path / "reference.parquet", IDS[30:80], vectors[30:80])
    before = write_parquet(tmp_path / "before.parquet", IDS[78:], vectors[78:])
    given = {"input": path, "reference": reference, "already_selected": before, "on_bad_rows": "drop", "compare": True}
    given |= {"budget": 6, "neighbors": 3, "density_method": "approximate", "work_dir": str(tmp_path / "work")}
    run_here("curate", output=str(tmp_path / "out"), **given)
    assert_only_own(written)
    assert {stage for stage in written if written[stage]} == set(OWN)
    assert [row["id"] for row in pq.read_table(tmp_path / "out" / "rejected").to_pylist()] == ["p07"]
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.more
def test_no_step_of_a_state_writes_outside_its_own_folder(run_here, written, tmp_path):
    state, given = str(tmp_path / "state"), {"neighbors": 3, "work_dir": str(tmp_path / "work")}
    old, new = (write_parquet(tmp_path / f"{part[0]}.parquet", part, VECTORS[:45]) for part in (IDS[:45], IDS[45:]))
    run_here("estimate_density", input=old, output=str(tmp_path / "a"), save_state=state, **given)
    assert_only_own(written)
    pq.write_table(pa.table({"id": IDS[:3]}), tmp_path / "gone.parquet")
    gone = str(tmp_path / "gone.parquet")
    run_here("estimate_density", input=new, remove=gone, output=str(tmp_path / "b"), update=state, **given)
    assert_only_own(written)
    assert {stage for stage in written if written[stage]} == {"ingest", "density"}


@pytest.mark.parametrize("work_dir", [None, "work"])
def test_bad_rows_are_published_again_where_the_staged_ones_were_lost(
    run_here, tmp_path, monkeypatch, caplog, work_dir
):
    """Neither ingest nor density is done again for that, and no row is missing among those set aside."""
    vectors = VECTORS[:30].copy()
    vectors[3], vectors[8] = np.nan, 0
    path = write_parquet(tmp_path / "in.parquet", IDS[:30], vectors)
    given = {"input": path, "output": str(tmp_path / "out"), "neighbors": 3, "on_bad_rows": "drop"}
    given |= {"work_dir": str(tmp_path / work_dir)} if work_dir else {}

    def cut(self, lock):
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Workplace, "publish", cut)
        with pytest.raises(OSError, match="the disk is full"):
            run_here("estimate_density", **given)
    lost = next((tmp_path / "out" / "_work" / "result" / "rejected").iterdir())
    lost.unlink()
    caplog.set_level(logging.INFO, "novelsum")
    caplog.clear()
    run_here("estimate_density", **given)
    assert f"rejected/{lost.name} of the results is lost or damaged; they are made again" in caplog.text
    assert "stage=write" in caplog.text
    assert "stage=ingest" not in caplog.text
    assert "stage=density" not in caplog.text
    rejected = pq.read_table(tmp_path / "out" / "rejected").to_pylist()
    assert sorted((row["id"], row["reason"]) for row in rejected) == [("p03", "not finite"), ("p08", "zero vector")]
