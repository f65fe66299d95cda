"""What runs leave to each other: claims on a folder, whole files, steps that are done, scratch of the dead."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ELSEWHERE, Points
from pyarrow import fs

from novelsum import __version__
from novelsum.density.exact import estimate_density
from novelsum.density.layout import CellRows, read_row_group, write_row_groups
from novelsum.density.reference import mark_itself
from novelsum.errors import DamageError, RunError, UsageError
from novelsum.files import lock
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.lock import held
from novelsum.files.source import open_source
from novelsum.files.store import Block
from novelsum.files.workplace import Workplace
from novelsum.selection import rounds
from novelsum.selection.scratch import compared_bytes, selections_bytes
from novelsum.settings import Settings
from novelsum.spark.local import folder_of, new_run

# --- claims -----------------------------------------------------------------------------------------------


@pytest.fixture
def output(tmp_path):
    return Location.of(str(tmp_path / "out"))


def claim_of_another(output: Location, content: bytes, age: float = 0.0) -> Path:
    """A claim as another has left it, that long ago."""
    claim = Path(output.path) / "_lock" / "0123.json"
    claim.parent.mkdir(parents=True, exist_ok=True)
    claim.write_bytes(content)
    os.utime(claim, (time.time() - age,) * 2)
    return claim


def claims(output: Location) -> list[str]:
    return [claim.name for claim in (output / "_lock").entries()]


def wait_for(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


MALFORMED = [b"", b"{", b"{}", b"[]", b"3", b"\xff\x00\x01", b'{"pid": "x"}', b"[" * 100_000]


@pytest.mark.parametrize("content", MALFORMED, ids=range(len(MALFORMED)))
def test_a_claim_that_cannot_be_read_counts_while_it_is_young(output, content):
    """Somebody may just be writing it; later it is taken away."""
    claim = claim_of_another(output, content)
    refusal = r"--output .*out has a claim that cannot be read, .*0123\.json; unless .*, try again in 1\d\d s$"
    with pytest.raises(UsageError, match=refusal), held(output):
        pass
    assert claims(output) == ["0123.json"]
    claim_of_another(output, content, age=1000)
    with held(output):
        assert not claim.exists()
    assert not Path(output.path).exists()


@pytest.mark.parametrize("content", [json.dumps(ELSEWHERE).encode(), b""], ids=["whole", "malformed"])
def test_a_claim_dated_ahead_is_waited_for_no_longer_than_any(output, content, monkeypatch):
    """A clock was set back by a day; a claim that nobody renews is taken away after the usual time."""
    claim_of_another(output, content, age=-86_400)
    with pytest.raises(UsageError, match="try again in 120 s"), held(output):
        pass
    monkeypatch.setattr(lock, "STALE_AFTER", 0.5)
    time.sleep(0.6)
    with held(output) as mine:
        assert len(claims(output)) == 1
        mine.require()


def test_how_old_a_claim_is_only_the_storage_tells(output, monkeypatch):
    """The clock of this machine may say anything."""
    clock = time.time
    for shift in (1e6, -1e6):
        claim_of_another(output, json.dumps(ELSEWHERE).encode())
        monkeypatch.setattr(time, "time", lambda shift=shift: clock() + shift)
        with pytest.raises(UsageError, match=r"process 1 on elsewhere .*try again in 1\d\d s"), held(output):
            pass
        monkeypatch.setattr(time, "time", clock)
        claim_of_another(output, json.dumps(ELSEWHERE).encode(), age=1000)
        monkeypatch.setattr(time, "time", lambda shift=shift: clock() + shift)
        with held(output):
            assert len(claims(output)) == 1
        monkeypatch.setattr(time, "time", clock)


def test_a_claim_that_is_renewed_stays_held(output, monkeypatch):
    monkeypatch.setattr(lock, "RENEWED_EVERY", 0.05)
    with held(output) as mine:
        (first,) = claims(output)
        wait_for(lambda: first not in claims(output))
        mine.require()
        with pytest.raises(UsageError, match=rf"process {os.getpid()} on "), held(output):
            pass
        mine.require()
    assert not Path(output.path).exists()


def test_a_claim_that_was_taken_away_never_comes_back(output, monkeypatch):
    """Not even for a moment that another could take for its own: between any look and any write of the renewal."""
    monkeypatch.setattr(lock, "RENEWED_EVERY", 0.05)
    write, is_taken = Location.write_bytes, threading.Event()

    def taken_before_it_writes(self, content) -> None:
        if threading.current_thread() is not threading.main_thread() and not is_taken.is_set():
            for claim in (output / "_lock").entries():
                claim.delete()
            is_taken.set()
        write(self, content)

    with held(output) as mine:
        monkeypatch.setattr(Location, "write_bytes", taken_before_it_writes)
        assert is_taken.wait(10)
        wait_for(lambda: not claims(output))
        with held(output) as other:  # who took it
            with pytest.raises(UsageError, match="is gone: another run took this one for dead"):
                mine.require()
            time.sleep(0.2)
            assert len(claims(output)) == 1
            other.require()


def test_a_claim_seen_gone_once_is_gone_for_good(output):
    with held(output) as mine:
        (claim,) = (output / "_lock").entries()
        content = claim.read_bytes()
        claim.delete()
        with pytest.raises(UsageError, match="is gone"):
            mine.require()
        claim.write_bytes(content)
        with pytest.raises(UsageError, match="is gone"):
            mine.require()


def test_nothing_is_published_beside_another_claim(output, monkeypatch):
    """One that is about to give way is waited for."""
    monkeypatch.setattr(lock, "_POLL", 0.02)
    with held(output) as mine:
        claim = claim_of_another(output, json.dumps(ELSEWHERE).encode())
        threading.Timer(0.3, claim.unlink).start()
        started = time.monotonic()
        mine.require()
        assert time.monotonic() - started > 0.2
        claim_of_another(output, json.dumps(ELSEWHERE).encode())
        monkeypatch.setattr(lock, "STALE_AFTER", 0.2)
        monkeypatch.setattr(lock, "RENEWED_EVERY", 0.0)
        stays = threading.Event()

        def renewed() -> None:
            while not stays.wait(0.01):
                claim_of_another(output, json.dumps(ELSEWHERE).encode(), age=-5)

        other = threading.Thread(target=renewed)
        other.start()
        with pytest.raises(UsageError, match=r"ends without a result, .*out is being written by process 1 on "):
            mine.require()
        stays.set()
        other.join()
        claim.unlink()


def test_the_claim_of_a_dead_process_is_taken_away_at_once(output):
    code = "import sys; from novelsum.files.lock import held; from novelsum.files.location import Location\n"
    code += "with held(Location.of(sys.argv[1])): print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, output.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline()
    with pytest.raises(UsageError, match=rf"written by process {process.pid} on .*\d\dZ; let it end"), held(output):
        pass
    process.kill()
    process.communicate()
    with held(output):
        assert len(claims(output)) == 1


def test_the_number_of_a_dead_process_may_be_used_again(output):
    """The start of the process that has it now is another."""
    here = {**lock._process(), "since": "2026-01-01T00:00:00Z"}
    claim_of_another(output, json.dumps({**here, "started": "1"}).encode())
    with held(output):
        assert len(claims(output)) == 1


@pytest.mark.parametrize("hidden", [{"boot": "", "namespace": "", "started": None}, {"namespace": "pid:[1]"}])
def test_a_process_that_cannot_be_seen_is_judged_by_the_age_of_its_claim(output, hidden, monkeypatch):
    """Where a system has no /proc, and in another container of the same name."""
    content = json.dumps({**lock._process(), "since": "2026-01-01T00:00:00Z", **hidden}).encode()
    if not hidden.get("boot", "some"):
        process = lock._process
        monkeypatch.setattr(lock, "_process", lambda: {**process(), **hidden})
    claim_of_another(output, content)
    with pytest.raises(UsageError, match="if it is dead, try again in 1"), held(output):
        pass
    claim_of_another(output, content, age=1000)
    with held(output):
        assert len(claims(output)) == 1


def test_any_folder_is_held_under_the_name_of_its_setting(output):
    refusal = rf"^--update {output.path} is being written by process {os.getpid()} "
    with held(output, "--update"), pytest.raises(UsageError, match=refusal), held(output, "--update"):
        pass


def test_what_a_run_has_left_that_was_killed_in_writing_its_claim_goes(output):
    claim_of_another(output, b"", age=1000).rename(Path(output.path) / "_lock" / ".0123.json.4567")
    with held(output):
        pass
    assert not Path(output.path).exists()


# --- files ------------------------------------------------------------------------------------------------


def die_half_way(target: Location, table: pa.Table) -> None:
    with target.writing() as stream, pq.ParquetWriter(stream, table.schema) as to:
        to.write_table(table.slice(0, len(table) // 2))
        raise RuntimeError("half way")


def test_a_second_attempt_that_dies_half_way_leaves_the_file_of_the_first_whole(tmp_path):
    """Under the eyes of a reader, who sees one whole file at any time; nothing unfinished is left."""
    target = Location.of(str(tmp_path / "group.parquet"))
    table = pa.table({"n": list(range(50_000))})
    target.write_parquet(table)
    is_over, seen = threading.Event(), []

    def read() -> None:
        while not is_over.is_set():
            seen.append(pq.read_table(target.path).equals(table))

    reader = threading.Thread(target=read)
    reader.start()
    while len(seen) < 20:
        with pytest.raises(RuntimeError, match="half way"):
            die_half_way(target, table)
    is_over.set()
    reader.join()
    assert all(seen)
    assert [entry.name for entry in tmp_path.iterdir()] == ["group.parquet"]


def test_cells_that_an_attempt_has_written_outlive_one_that_dies(tmp_path, monkeypatch):
    target, places = Location.of(str(tmp_path / "group.parquet")), np.arange(6)
    rows = CellRows(*(places,) * 5, places > 2, places > 3, np.ones((6, 4), np.float32))
    write_row_groups(target, rows, places // 2, 3)
    write, written = pq.ParquetWriter.write_table, []

    def write_and_die(self, *args, **options) -> None:
        written.append(write(self, *args, **options))
        if len(written) == 2:
            raise RuntimeError("half way")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", write_and_die)
    with pytest.raises(RuntimeError, match="half way"):
        write_row_groups(target, rows, places // 2, 3)
    assert [read_row_group(target, number, "float32").row.tolist() for number in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert [entry.name for entry in tmp_path.iterdir()] == ["group.parquet"]


def test_two_attempts_that_write_one_file_at_a_time_never_mix(tmp_path):
    target = Location.of(str(tmp_path / "part"))
    with target.writing() as slow:
        slow.write(b"a" * 100_000)
        target.write_bytes(b"b" * 300_000)
        assert target.read_bytes() == b"b" * 300_000
        slow.write(b"a" * 100_000)
    assert target.read_bytes() == b"a" * 200_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["part"]


class Objects(Location):
    """Files on this disk that are said to be objects: what is closed is complete."""

    is_object = True


def test_an_object_goes_up_only_when_it_is_whole(tmp_path):
    target = Objects(str(tmp_path / "object"))
    target.write_bytes(b"first")
    with pytest.raises(RuntimeError, match="half way"):
        die_half_way(target, pa.table({"n": [1, 2]}))
    assert target.read_bytes() == b"first"
    with target.writing() as stream:
        stream.write(b"second")
    assert fs.LocalFileSystem().get_file_info(target.path).size == 6


def test_what_a_killed_task_was_just_writing_is_no_result(output):
    place = Workplace.of(output, None, {})
    with place.held(overwrite=False, keep_work=False) as lock:
        place.start_results()
        for name in ("part-0.parquet", ".part-1.parquet.0123"):
            (place.result / name).write_bytes(b"")
        place.stage_manifest({})
        place.publish(lock)
    assert [entry.name for entry in output.entries()] == ["_MANIFEST.json", "part-0.parquet"]


# --- steps ------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path):
    """A run that has done all steps, a file of 100 bytes in each of their folders."""
    place = Workplace.of(Location.of(str(tmp_path / "out")), str(tmp_path / "work"), {})
    for step, files in STEPS.items():
        folder = place.emptied(step)
        for name in files:
            write(folder / name)
        place.finish(step, {"of": step})
    return place


STEPS = {
    "ingest": ("store/a", "store/b", "reference/store/a", "itself/a", "rejected/a"),
    "density": ("density/a",),
    "begin": (),
}


def write(file: Location) -> None:
    path = Path(file.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 100)


@pytest.mark.parametrize("damage", ["is missing", "has 99 bytes, not 100"])
@pytest.mark.parametrize(
    ("file", "left"),
    [
        ("1-ingest/store/b", []),
        ("1-ingest/reference/store/a", []),
        ("1-ingest/rejected/a", []),
        ("2-density/density/a", ["ingest"]),
    ],
)
def test_a_step_that_has_lost_a_file_is_forgotten_with_all_after_it(place, caplog, file, left, damage):
    path = Path((place.work / file).path)
    if damage == "is missing":
        path.unlink()
    else:
        os.truncate(path, 99)
    place.check_steps()
    assert [step for step in STEPS if place.done(step)] == left
    for step in STEPS:
        assert (f"{path} {damage}; {step} is done again" in caplog.text) == (step not in left)


@pytest.mark.parametrize("lost", ["result/selected/part-0.parquet", "result/rejected/part-0.parquet"])
def test_results_that_have_lost_a_file_before_they_are_published_are_made_again(place, caplog, lost):
    """Also where some were moved already; those that are in the output are not lost."""
    for name in ("result/selected/part-0.parquet", "result/metrics.json", "result/rejected/part-0.parquet"):
        path = Path((place.stage / name).path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
    place.stage_manifest({"job": "curate"})
    assert place.staged()
    (place.stage / "result" / "metrics.json").move_to(place.output / "metrics.json")
    assert place.staged()
    os.truncate((place.stage / lost).path, 99)
    assert place.staged() is None
    assert place.is_staged()
    assert f"{lost.removeprefix('result/')} of the results is lost or damaged; they are made again" in caplog.text


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\x00"])
def test_a_record_of_a_step_that_is_no_json_begins_the_work_again(place, content):
    """One sentence, exit 1 for a scheduler to try again, and nothing that the next try could stumble over."""
    place = replace(place, identity={"job": "curate", "settings": {}, "files": {}})
    place.stage.make_folder()
    run = {"version": __version__, "layout": 2, "identity": place.identity}
    (place.stage / "run.json").write_bytes(json.dumps(run).encode())
    (place.folder("density") / "done.json").write_bytes(content)
    words = r"2-density/done\.json is damaged .*; run again to start over"
    with pytest.raises(DamageError, match=words), place.held(overwrite=False, keep_work=False):
        place.check_steps()
    assert not place.work.exists()
    assert not place.stage.exists()


def test_no_step_is_done_after_one_that_is_not(place, caplog):
    (place.folder("ingest") / "done.json").delete()
    place.check_steps()
    assert not any(place.done(step) for step in STEPS)
    assert "1-ingest/done.json is missing; density is done again" in caplog.text


def test_what_comes_after_a_step_does_not_count(place, caplog):
    """Picks, more of them at any time, and what a killed task was just writing."""
    for name in ("3-begin/picks/000000000.parquet", "2-density/density/.a.0123", "1-ingest/store/c"):
        write(place.work / name)
    place.check_steps()
    assert [place.done(step) for step in STEPS] == [{"of": step} for step in STEPS]
    assert not caplog.text


def test_samples_that_the_pick_log_began_with_are_logged_again_where_they_were_lost(place, caplog):
    folder = place.emptied("begin")
    write(folder / "picks" / "000000000.parquet")
    place.finish("begin", {"of": "begin"})
    write(folder / "picks" / "000000064.parquet")
    (folder / "picks" / "000000000.parquet").delete()
    place.check_steps()
    assert [step for step in STEPS if place.done(step)] == ["ingest", "density"]
    assert "000000000.parquet is missing; begin is done again" in caplog.text


def test_a_file_that_says_what_the_reference_holds_is_never_missed_in_silence(spark, prompts, tmp_path):
    points = Points(prompts.ids[:120], prompts.vectors[:120])
    path, work = points.write(tmp_path / "in"), Location.of(str(tmp_path / "work"))
    settings = Settings(input=path, reference=path, block_rows=60, neighbors=3)
    source = open_source(path, "id", "embedding")
    pools = [ingest(spark, source, settings, folder) for folder in (work, work / "reference")]
    pool = mark_itself(spark, *pools, settings)
    (work / "itself").entries()[0].delete()
    for method in ("exact", "approximate"):
        with pytest.raises(Exception, match=r"itself/\S+\.parquet"):
            estimate_density(spark, pool, replace(settings, density_method=method), work, pools[1])


# --- scratch ----------------------------------------------------------------------------------------------


def test_scratch_of_earlier_tries_is_removed_wherever_spark_has_left_it(tmp_path, monkeypatch):
    """In all local directories of the machine; that of other runs, of this try and of Spark itself stays."""
    work, ours = (
        Location.of("/data/out/_work/work"),
        ("blockmgr-1", "spark-1/executor-2/blockmgr-3", "other/blockmgr-4"),
    )
    run, other_run = new_run(work), new_run(Location.of("/data/other/_work/work"))
    earlier = f"novelsum-{run.split('-')[0]}-0123-4567"
    gone = [tmp_path / folder / earlier for folder in (*ours, "blockmgr-5", "spark-6/blockmgr-7", ".")]
    kept = [tmp_path / ours[0] / f"novelsum-{name}" for name in (run, other_run)] + [tmp_path / "blockmgr-5" / "0a"]
    for folder in (*gone, *kept):
        (folder / "000000-0000.parquet").mkdir(parents=True)
    monkeypatch.setenv("SPARK_LOCAL_DIRS", ",".join(str(tmp_path / folder) for folder in ours))
    assert folder_of(run) == kept[0]
    assert not [folder for folder in gone if folder.exists()]
    assert all(folder.exists() for folder in kept)


def test_a_comparison_counts_in_what_a_selection_needs(engine, spark, prompts, tmp_path):
    pool = engine(Points(prompts.ids[:60], prompts.vectors[:60]).write(tmp_path / "in"), 2, neighbors=4).pool
    huge = replace(pool, blocks=tuple(Block(block.name, 10**12) for block in pool.blocks))
    needed = []
    for compare in (False, True):
        with pytest.raises(RunError, match="run again to go on") as refusal:
            rounds.select(spark, huge, pool.work, pool.work, Settings(budget=2, compare=compare), 0)
        needed.append(float(re.search(r"needs ([\d.]+) GiB", str(refusal.value)).group(1)))
    more = compared_bytes(10**12 * len(pool.blocks), pool.dimension) + selections_bytes(2, pool.dimension)
    assert needed[1] - needed[0] == pytest.approx(more / 2**30, rel=1e-3)
