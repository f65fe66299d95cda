"""Runs that were cut, done twice, or changed in between: the same picks or a clear error, and nothing done twice."""

import glob
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ELSEWHERE, ROOT, SAMPLE, error_line, run_job

from novelsum.files.location import Location
from novelsum.files.lock import held
from novelsum.files.workplace import Workplace

BUDGET = 200
COMMAND = [sys.executable, str(ROOT / "tests" / "with_rounds.py"), "curate"]
POLL = 0.001


def arguments(output: Path, *more: object) -> list[str]:
    given = ["--input", SAMPLE, "--budget", BUDGET, "--output", output, "--block-rows", 500, "--text-column", "text"]
    return [str(argument) for argument in (*given, *more)]


def curate(output: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return run_job("curate", *arguments(output, *more))


def start(output: Path, *more: object, within: Sequence[str] = (), **environment: str) -> subprocess.Popen[str]:
    """The job in a process group of its own, Java and workers in it. Unlike the runs that go on, it has rounds."""
    command = [*within, *COMMAND, *arguments(output, *more)]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, start_new_session=True, env={**os.environ, **environment})


def small_disk(folder: Path, size: str) -> list[str]:
    """What to begin a command with, for which a folder is a real file system of that size."""
    mounted = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, str(folder)]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no mount namespaces")
    return command


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def kill_when(output: Path, pattern: str, *more: object) -> None:
    """Start the job and kill it as soon as a file is there; a job that was too fast for that is tried again."""
    before = output.with_name("before")
    shutil.rmtree(before, ignore_errors=True)
    if output.exists():
        shutil.copytree(output, before)
    for _ in range(20):
        process = start(output, *more)
        while process.poll() is None and not any(output.glob(pattern)):
            time.sleep(POLL)
        if process.poll() is None:
            return kill(process)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        shutil.rmtree(output)
        if before.exists():
            shutil.copytree(before, output)
    pytest.fail(f"{pattern} was never seen")


def selected(output: Path) -> pa.Table:
    return pq.read_table(output / "selected")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The selection of a run that nothing disturbs."""
    output = tmp_path_factory.mktemp("expected") / "out"
    done = curate(output)
    assert done.returncode == 0, done.stderr
    return selected(output)


def assert_finished(done: subprocess.CompletedProcess[str], output: Path, expected: pa.Table, *more: str) -> None:
    assert done.returncode == 0, done.stderr
    found = selected(output)
    assert found.drop(["novelty"]).equals(expected.drop(["novelty"]))
    assert found.column("novelty").to_pylist() == pytest.approx(expected.column("novelty").to_pylist(), rel=1e-12)
    names = sorted(entry.name for entry in output.iterdir())
    others = ["duplicates", "metrics.json", "report.html", "report.json", "selected"]
    assert names == ["_MANIFEST.json", "_rows.parquet", *more, *others]


# --- a run that is cut ------------------------------------------------------------------------------------

POINTS = [
    "_lock/*.json",
    "_work/work/1-ingest/done.json",
    "_work/work/4-begin/picks/000000000.parquet",
    "_work/result/selected/*",
    "_work/manifest.json",
    "_work/cleared",
]
"""What is there for an instant, and what says that a step is done: a kill by the clock (test_kills.py) misses it."""


@pytest.mark.restart
def test_a_run_killed_where_a_step_is_just_done_ends_with_the_same_picks(expected, tmp_path):
    """Every try is killed a step further on, until the last; each goes on from what the one before has done."""
    output = tmp_path / "out"
    for point in POINTS:
        kill_when(output, point)
        if (output / "_MANIFEST.json").exists():  # the last points are this close to the end
            assert selected(output).drop(["novelty"]).equals(expected.drop(["novelty"]))
    assert_finished(curate(output), output, expected)


@pytest.mark.restart
def test_a_result_is_replaced_after_a_run_that_was_cut_once_it_had_published(expected, tmp_path):
    """What it left in the stage is not taken for the results of the next."""
    output = tmp_path / "out"
    assert_finished(curate(output, "--keep-work"), output, expected, "_work")
    (output / "_work" / "cleared").touch()
    assert_finished(curate(output, "--overwrite"), output, expected)


@pytest.mark.parametrize("obstacle", ["selected", "report.html", "rejected"])
def test_publishing_that_is_cut_leaves_no_manifest_and_goes_on(tmp_path, obstacle):
    """The manifest comes last: whatever of the results cannot be moved, the output does not look finished before."""
    output = Location.of(str(tmp_path / "out"))
    place = Workplace.of(output, None, {"job": "curate", "settings": {}, "files": {}})
    for name in ("selected/part-00000.parquet", "report.html", "metrics.json", "rejected/part-0.parquet"):
        file = tmp_path / "out" / "_work" / "result" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    place.stage_manifest({"job": "curate"})
    (tmp_path / "out" / "_work" / "cleared").touch()  # what was there is gone, and something new is in the way
    in_the_way = tmp_path / "out" / obstacle / "mine"
    in_the_way.mkdir(parents=True)
    with held(output) as lock, pytest.raises(OSError, match=obstacle):
        place.publish(lock)
    assert not (tmp_path / "out" / "_MANIFEST.json").exists()
    assert place.staged()
    in_the_way.rmdir()
    in_the_way.parent.rmdir()
    with held(output) as lock:
        place.publish(lock)
    names = sorted(entry.name for entry in (tmp_path / "out").iterdir())
    assert names == ["_MANIFEST.json", "_work", "metrics.json", "rejected", "report.html", "selected"]


@pytest.mark.restart
@pytest.mark.parametrize("command", [["tests/with_rounds.py", "curate"], ["jobs/curate.py"]], ids=["rounds", "none"])
def test_a_run_killed_in_the_selection_goes_on_from_the_pick_log(expected, tmp_path, monkeypatch, command):
    """Without rounds too, where the driver selects by itself."""
    script, *job = command
    monkeypatch.setattr(sys.modules[__name__], "COMMAND", [sys.executable, str(ROOT / script), *job])
    output = tmp_path / "out"
    kill_when(output, "_work/work/4-begin/picks/0000000[1-9]*")
    done = curate(output)
    assert_finished(done, output, expected)
    assert "going on after ingest, thin, density, begin" in done.stderr
    manifest = json.loads((output / "_MANIFEST.json").read_text())
    assert manifest["selected"]["resumed_picks"] >= 64
    assert "ingest" not in manifest["seconds"]


@pytest.mark.restart
def test_a_run_killed_while_near_copies_are_dropped_ends_with_the_same_rows(tmp_path):
    near = ["--near-duplicates", 0.3]
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "out"
    assert curate(undisturbed, *near).returncode == 0
    for point in ("2-thin/search/states-000001/*", "2-thin/duplicates/*", "2-thin/store/*", "2-thin/done.json"):
        kill_when(output, f"_work/work/{point}", *near)
    done = curate(output, *near)
    assert done.returncode == 0, done.stderr
    assert "going on after " in done.stderr
    for folder in ("selected", "duplicates"):
        found, expected = (pq.read_table(run / folder) for run in (output, undisturbed))
        assert found.equals(expected)


@pytest.mark.restart
def test_an_interrupted_run_says_that_it_can_go_on(expected, tmp_path):
    output = tmp_path / "out"
    process = start(output)
    while not any(output.glob("_work/work/3-density/done.json")):
        assert process.poll() is None
        time.sleep(POLL)
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: interrupted" in errors
    assert "the same command goes on with it" in errors
    assert sorted(entry.name for entry in output.iterdir()) == ["_work"]
    assert_finished(curate(output), output, expected)


# --- damage -----------------------------------------------------------------------------------------------


@pytest.mark.restart
def test_picks_of_a_damaged_log_are_made_again(expected, tmp_path):
    output = tmp_path / "out"
    kill_when(output, "_work/work/4-begin/picks/0000001*")
    second = sorted((output / "_work/work/4-begin/picks").glob("*.parquet"))[1]
    os.truncate(second, second.stat().st_size // 2)
    done = curate(output)
    assert_finished(done, output, expected)
    assert "is damaged" in done.stderr


@pytest.mark.restart
@pytest.mark.parametrize(
    ("folder", "again", "damage"), [("1-ingest/store", "ingest", "gone"), ("3-density/density", "density", "cut")]
)
def test_a_step_that_has_lost_a_file_is_done_again(expected, tmp_path, folder, again, damage):
    output = tmp_path / "out"
    kill_when(output, "_work/work/3-density/done.json")
    block = sorted((output / "_work/work" / folder).iterdir())[1]
    if damage == "cut":
        os.truncate(block, block.stat().st_size - 300)
    else:
        block.unlink()
    done = curate(output)
    assert_finished(done, output, expected)
    assert re.search(rf"{block} (is missing|has \d+ bytes, not \d+); {again} is done again", done.stderr)


@pytest.mark.restart
def test_a_damaged_block_ends_the_run_with_its_name(expected, tmp_path):
    """Nothing is selected from it, and the next run starts over."""
    output = tmp_path / "out"
    kill_when(output, "_work/work/3-density/done.json")
    block = sorted((output / "_work/work/1-ingest/store").iterdir())[1]
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 0xFF
    block.write_bytes(content)
    failed = curate(output)
    assert failed.returncode == 1
    assert block.name in error_line(failed)
    assert "run again to start over" in error_line(failed)
    assert not (output / "_MANIFEST.json").exists()
    assert_finished(curate(output), output, expected)


@pytest.mark.restart
def test_a_scratch_disk_that_is_too_small_is_refused_before_the_first_round(expected, tmp_path):
    """A real file system of 12 MB, in a mount namespace of its own; with more room the same command goes on."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    output = tmp_path / "out"
    command = [*small_disk(scratch, "12m"), *COMMAND, *arguments(output)]
    environment = {**os.environ, "SPARK_LOCAL_DIRS": str(scratch)}
    failed = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert failed.returncode == 1, failed.stderr
    assert re.search(
        r"needs \d+ MiB of scratch in .*scratch.* which has \d+ MiB free; free some of it, or set spark.local.dir .*"
        "run again to go on",
        error_line(failed),
    )
    assert not (output / "_MANIFEST.json").exists()
    done = curate(output)
    assert "going on after ingest, thin, density, begin" in done.stderr
    assert_finished(done, output, expected)


@pytest.mark.restart
@pytest.mark.parametrize("kept", ["nothing", "all but some files"])
def test_scratch_that_is_deleted_under_running_tasks_changes_no_pick(expected, tmp_path, kept):
    """Somebody cleans up every tenth of a second, a folder or some of its files, until half the picks are made."""
    output, scratch = tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    process = start(output, SPARK_LOCAL_DIRS=str(scratch))
    draw, deleted = random.Random(0), 0
    while process.poll() is None and not any(output.glob("_work/work/4-begin/picks/0000001*")):
        for file in sorted(glob.glob(f"{scratch}/**/novelsum-*/*/*", recursive=True)):
            if kept == "nothing" or draw.random() < 0.2:
                Path(file).unlink(missing_ok=True)
                deleted += 1
        time.sleep(0.1)
    _, errors = process.communicate()
    assert deleted > 50
    if process.returncode:
        assert "is deleted again and again while a run uses it" in errors
        assert "Traceback" not in errors
        assert_finished(curate(output), output, expected)
    else:
        assert_finished(subprocess.CompletedProcess([], 0), output, expected)


@pytest.mark.restart
def test_a_scratch_disk_that_fills_up_ends_the_run_with_its_name(expected, tmp_path):
    """Something else takes all of it once there are picks; the next run has a disk with room."""
    output, scratch = tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    process = start(output, within=small_disk(scratch, "60m"), SPARK_LOCAL_DIRS=str(scratch))
    while not any(output.glob("_work/work/4-begin/picks/*.parquet")):
        assert process.poll() is None, process.communicate()
        time.sleep(POLL)
    fill = 'cd "$0" && while :; do rm -rf */novelsum-*; head -c 60m /dev/zero >> filler; sleep 0.05; done'
    inside = ["nsenter", f"--target={process.pid}", "--user", "--mount", "sh", "-c", fill, str(scratch)]
    filler = subprocess.Popen(inside, stderr=subprocess.DEVNULL)
    _, errors = process.communicate()
    filler.kill()
    filler.wait()
    assert process.returncode == 1, errors
    assert re.search(r"error: .* is full; free some of it.*run again to go on", errors), errors
    assert_finished(curate(output), output, expected)


# --- runs on one output -----------------------------------------------------------------------------------


@pytest.mark.restart
def test_a_second_run_on_an_output_is_refused_until_the_first_is_gone(expected, tmp_path):
    output = tmp_path / "out"
    first = start(output)
    while not any(output.glob("_work/run.json")):
        assert first.poll() is None
        time.sleep(POLL)
    second = curate(output)
    assert second.returncode == 2
    assert f"is being written by process {first.pid} on " in error_line(second)
    kill(first)
    assert_finished(curate(output), output, expected)


@pytest.mark.parametrize(("age", "code"), [(0, 2), pytest.param(1000, 0, marks=pytest.mark.restart)])
def test_a_claim_of_another_machine_counts_while_it_is_renewed(tmp_path, age, code):
    output = tmp_path / "out"
    (output / "_lock").mkdir(parents=True)
    claim = output / "_lock" / "0123.json"
    claim.write_text(json.dumps(ELSEWHERE))
    os.utime(claim, (time.time() - age,) * 2)
    done = run_job("estimate_density", "--input", SAMPLE, "--output", output)
    assert done.returncode == code, done.stderr
    if code:
        assert "process 1 on elsewhere" in error_line(done)
        assert "try again in 1" in error_line(done)


@pytest.mark.restart
def test_a_run_that_is_done_is_not_done_again(expected, tmp_path):
    output = tmp_path / "out"
    assert_finished(curate(output), output, expected)
    before = {entry: entry.stat().st_mtime_ns for entry in output.rglob("*")}
    again = curate(output)
    assert_finished(again, output, expected)
    assert "already" in again.stderr
    assert {entry: entry.stat().st_mtime_ns for entry in output.rglob("*")} == before


@pytest.mark.restart
def test_a_result_of_another_run_is_refused_with_what_changed(tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(SAMPLE, source)
    given = ["--input", source, "--output", output, "--no-report"]
    assert run_job("curate", *given, "--budget", 5).returncode == 0
    other = run_job("curate", *given, "--budget", 5, "--seed", 6)
    assert other.returncode == 2
    assert "--seed was 42 and is 6" in error_line(other)
    assert "--overwrite" in error_line(other)
    (file, *_) = sorted(source.glob("*.parquet"))
    os.utime(file)
    assert "the files of --input were written again" in error_line(run_job("curate", *given, "--budget", 5))
    shutil.copy(file, source / "more.parquet")
    assert "--input was" in error_line(run_job("curate", *given, "--budget", 5))
    (source / "more.parquet").unlink()
    assert run_job("curate", *given, "--budget", 6, "--overwrite").returncode == 0
    assert len(selected(output)) == 6


@pytest.mark.restart
def test_unfinished_work_of_another_run_is_refused_with_what_changed(tmp_path):
    output = tmp_path / "out"
    kill_when(output, "_work/work/1-ingest/done.json")
    other = curate(output, "--density-power", 1.0)
    assert other.returncode == 2
    assert "holds an unfinished run that is another one: --density-power was 0.5 and is 1.0" in error_line(other)
    measuring = run_job("measure_diversity", "--input", SAMPLE, "--output", output)
    assert "holds an unfinished run that is another one: the job was curate" in error_line(measuring)
    assert curate(output, "--density-power", 1.0, "--overwrite").returncode == 0


# --- what a killed run leaves -----------------------------------------------------------------------------


@pytest.mark.restart
def test_what_the_reference_holds_too_is_found_out_again_where_it_was_lost(tmp_path):
    """Of a killed run a file of ``itself`` is removed: a candidate never becomes its own neighbour."""
    more = ["--reference", SAMPLE, "--density-method", "exact"]
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "out"
    assert curate(undisturbed, *more).returncode == 0
    kill_when(output, "_work/work/1-ingest/done.json", *more)
    lost = sorted((output / "_work/work/1-ingest/itself").iterdir())[0]
    lost.unlink()
    done = curate(output, *more)
    assert_finished(done, output, selected(undisturbed))
    assert re.search(rf"{lost} is missing; ingest is done again", done.stderr)


@pytest.mark.restart
def test_scratch_of_a_killed_run_makes_room_for_the_next(expected, tmp_path):
    """On a real file system that has room for one of them; what another run has there stays."""
    output, scratch = tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    disk = subprocess.Popen([*small_disk(scratch, "34m"), "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE)
    assert disk.stdout.readline()
    inside = ["nsenter", f"--target={disk.pid}", "--user", "--mount"]
    foreign = f"{scratch}/blockmgr-0/novelsum-0123456789abcdef-1-2"

    def there(pattern: str) -> list[str]:
        listed = f"ls -d {scratch}/{pattern} 2>/dev/null"
        return subprocess.run([*inside, "sh", "-c", listed], capture_output=True, text=True, check=False).stdout.split()

    try:
        subprocess.run([*inside, "mkdir", "-p", foreign], check=True)
        process = start(output, within=inside, SPARK_LOCAL_DIRS=str(scratch))
        while not any(output.glob("_work/work/4-begin/picks/0000000[1-9]*")):
            assert process.poll() is None, process.communicate()
            time.sleep(POLL)
        kill(process)
        left = [folder for folder in there("blockmgr-*/novelsum-*") if folder != foreign]
        assert left
        process = start(output, within=inside, SPARK_LOCAL_DIRS=str(scratch))
        _, errors = process.communicate()
        assert_finished(subprocess.CompletedProcess([], process.returncode, "", errors), output, expected)
        assert there("blockmgr-*/novelsum-*") == [foreign]
    finally:
        disk.kill()
        disk.communicate()


@pytest.mark.restart
def test_a_comparison_that_fails_costs_nothing_but_itself(expected, tmp_path):
    """Somebody removes the density factors while it runs."""
    output = tmp_path / "out"
    process = start(output, "--compare", "--no-report")
    while not any(output.glob("_work/work/5-compare/*")):
        assert process.poll() is None, process.communicate()
        time.sleep(POLL)
    shutil.rmtree(output / "_work/work/3-density")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert len(re.findall("the comparison cannot be made; the selection is not affected: .*density", errors)) == 1
    assert "Traceback" not in errors.replace("Traceback (most recent call last):\\n", "")
    assert selected(output).drop(["novelty"]).equals(expected.drop(["novelty"]))
    assert "comparison" not in json.loads((output / "_MANIFEST.json").read_text())


@pytest.mark.restart
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_that_compares(tmp_path, number):
    output = tmp_path / "out"
    process = start(output, "--compare", "--no-report")
    while not any(output.glob("_work/work/5-compare/*")):
        assert process.poll() is None, process.communicate()
        time.sleep(POLL)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "error: interrupted" in errors
    assert not (output / "_MANIFEST.json").exists()
    done = curate(output, "--compare", "--no-report")
    assert done.returncode == 0, done.stderr
    assert "comparison" in json.loads((output / "_MANIFEST.json").read_text())
