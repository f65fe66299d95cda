"""What runs leave to each other: folders that may be written to, and steps that are done."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLE, error_line, run_job, write_parquet

from novelsum import __version__
from novelsum.errors import DamageError, UsageError
from novelsum.files.location import Location
from novelsum.files.reuse import LAYOUT
from novelsum.files.workplace import Workplace, check_output

RNG = np.random.default_rng(11)
VECTORS = RNG.normal(size=(40, 4)).astype(np.float32)
IDS = [f"n{i:02d}" for i in range(40)]


def test_what_a_killed_task_was_just_writing_is_no_result(tmp_path):
    output = Location.of(str(tmp_path / "out"))
    place = Workplace.of(output, None, {})
    with place.held(overwrite=False, keep_work=False) as lock:
        place.start_results()
        for name in ("part-0.parquet", ".part-1.parquet.0123"):
            (place.result / name).write_bytes(b"")
        place.stage_manifest({})
        place.publish(lock)
    assert [entry.name for entry in output.entries()] == ["_MANIFEST.json", "part-0.parquet"]


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
    "thin": ("store/a", "duplicates/a"),
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
        ("2-thin/store/a", ["ingest"]),
        ("3-density/density/a", ["ingest", "thin"]),
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
    run = {"version": __version__, "layout": LAYOUT, "identity": place.identity}
    (place.stage / "run.json").write_bytes(json.dumps(run).encode())
    (place.folder("density") / "done.json").write_bytes(content)
    words = r"3-density/done\.json is damaged .*; run again to start over"
    with pytest.raises(DamageError, match=words), place.held(overwrite=False, keep_work=False):
        place.check_steps()
    assert not place.work.exists()
    assert not place.stage.exists()


def test_no_step_is_done_after_one_that_is_not(place, caplog):
    (place.folder("ingest") / "done.json").delete()
    place.check_steps()
    assert not any(place.done(step) for step in STEPS)
    assert "1-ingest/done.json is missing; density is done again" in caplog.text


def test_a_step_that_begins_anew_undoes_what_was_done_after_it(place):
    place.emptied("density")
    assert [step for step in STEPS if place.done(step)] == ["ingest", "thin"]
    assert [folder.name for folder in place.work.entries()] == ["1-ingest", "2-thin", "3-density"]
    assert not place.folder("density").entries()


def test_a_result_of_before_a_setting_was_there_is_that_of_a_run_without_it(tmp_path):
    """It is done; a run that has the setting is another one."""

    def place(**settings: object) -> Workplace:
        return Workplace(output, output / "_work" / "work", {"job": "curate", "settings": settings, "files": {}})

    output = Location.of(str(tmp_path / "out"))
    before = place(budget=5)
    with before.held(overwrite=False, keep_work=False) as lock:
        before.start_results()
        before.stage_manifest({})
        before.publish(lock)
    assert place(budget=5, map=False, quota=[], reference=None).is_complete(overwrite=False)
    with pytest.raises(UsageError, match="--map was None and is True"):
        place(budget=5, map=True).is_complete(overwrite=False)


def test_unfinished_work_whose_folders_mean_something_else_is_refused(place):
    """Of an earlier novelsum of the same version: never taken for steps that are done."""
    place = replace(place, identity={"job": "curate", "settings": {}, "files": {}})
    place.stage.make_folder()
    (place.stage / "run.json").write_bytes(json.dumps({"version": __version__, "identity": place.identity}).encode())
    words = "is another one: its folders are those of another novelsum .* or start over with --overwrite"
    with pytest.raises(UsageError, match=words), place.held(overwrite=False, keep_work=False):
        pass
    with place.held(overwrite=True, keep_work=False):
        assert not any(place.done(step) for step in STEPS)


def test_what_comes_after_a_step_does_not_count(place, caplog):
    """Picks, more of them at any time, and what a killed task was just writing."""
    for name in ("4-begin/picks/000000000.parquet", "3-density/density/.a.0123", "1-ingest/store/c"):
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
    assert [step for step in STEPS if place.done(step)] == ["ingest", "thin", "density"]
    assert "000000000.parquet is missing; begin is done again" in caplog.text


@pytest.mark.parametrize("option", ["--input", "--reference", "--already-selected", "--update", "--density"])
def test_a_work_directory_in_what_is_read_is_refused(tmp_path, option):
    """Before anything is written: the run's own store would become part of its input."""
    data = tmp_path / "data"
    data.mkdir()
    for folder in (tmp_path, data):
        write_parquet(folder / "in.parquet", IDS, VECTORS)
    job, more = {
        "--update": ("estimate_density", ()),
        "--density": ("select_subset", ("--budget", 5)),
    }.get(option, ("curate", ("--budget", 5)))
    given = {"--input": tmp_path / "in.parquet", option: data}
    arguments = [argument for pair in given.items() for argument in pair]
    failed = run_job(job, *arguments, *more, "--output", tmp_path / "out", "--work-dir", data / "below")
    assert failed.returncode == 2, failed.stderr
    assert f"--work-dir {data / 'below'} and {data} lie in one another" in error_line(failed)
    assert sorted(entry.name for entry in data.iterdir()) == ["in.parquet"]
    assert not (tmp_path / "out").exists()


def test_a_work_directory_is_refused_in_both_directions_and_by_globs(tmp_path):
    """Beside the input it is welcome, also in a folder that holds both."""
    output, base = str(tmp_path / "out"), tmp_path / "base"
    work = Workplace.of(Location.of(output), str(base / "data"), {}).work
    for path in (base / "data", base / "dat*" / "*", base, work.uri, f"{work}/store"):
        with pytest.raises(UsageError, match=r"--work-dir .* lie in one another"):
            check_output(output, [str(path)], str(base / "data"))
    for path in (base / "data" / "in", base / "data" / "*.parquet", base / "data2"):
        assert check_output(output, [str(path)], str(base / "data")) == Location.of(output)
    assert check_output(output, [str(tmp_path / "*" / "*")]) == Location.of(output)  # its own files are left out


def test_overwrite_never_touches_the_input_or_what_no_job_wrote(tmp_path):
    """Not through a link to the input, and not a folder of Parquet without a manifest."""
    real = tmp_path / "real"
    real.mkdir()
    path = Path(write_parquet(real / "part-00000.parquet", IDS, VECTORS))
    (tmp_path / "link").symlink_to(real)
    linked = run_job("curate", "--input", real, "--output", tmp_path / "link", "--budget", 5, "--overwrite")
    assert linked.returncode == 2
    assert "lie in one another" in error_line(linked)
    other = write_parquet(tmp_path / "in.parquet", IDS, VECTORS)
    unknown = run_job("curate", "--input", other, "--output", real, "--budget", 5, "--overwrite")
    assert unknown.returncode == 2
    assert "has no _MANIFEST.json" in error_line(unknown)
    assert path.exists()


def test_an_output_that_cannot_be_a_folder_is_refused(tmp_path):
    path = write_parquet(tmp_path / "in.parquet", IDS, VECTORS)
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/novelsum")):
        done = run_job("curate", "--input", path, "--output", output, "--budget", 5, "--neighbors", 3)
        assert done.returncode == 2, done.stderr
        assert str(output) in error_line(done)


@pytest.mark.more
def test_work_and_stage_are_for_their_owner_alone(tmp_path):
    """What lies in them has other modes, but nobody else gets there."""
    output = tmp_path / "out"
    done = run_job("estimate_density", "--input", SAMPLE, "--keep-work", "--output", output)
    assert done.returncode == 0, done.stderr
    for kept in (output / "_work", output / "_work" / "work"):
        assert kept.stat().st_mode & 0o777 == 0o700, kept
