"""States of the density job: nights that come, are run again or go, rows that are taken out, runs that are cut."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Points, error_line, read_points, run_job, served, write_parquet

from novelsum import formula
from novelsum.density.layout import read_cells
from novelsum.density.state import state_of
from novelsum.errors import InputError
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.lock import held
from novelsum.files.source import open_source
from novelsum.files.workplace import Workplace
from novelsum.settings import Settings

RNG = np.random.default_rng(8)


def expected(points: Points, kept: set[str] | None = None, **settings: Any) -> dict[Any, float]:
    """By the formula, of all rows or of those with some ids."""
    chosen = replace(Settings(), **settings)
    if kept is not None:
        places = [i for i, id_ in enumerate(points.ids) if id_ in kept]
        points = Points([points.ids[i] for i in places], points.vectors[places])
    if chosen.duplicates == "drop":
        points = points.distinct()
    sigma = formula.density(points.vectors, chosen.neighbors, formula=chosen.formula, metric=chosen.metric)
    return dict(zip(points.ids, sigma.tolist(), strict=True))


@pytest.fixture(scope="module")
def crowd() -> Points:
    """600 points of 6 dimensions in clusters, every fifth a copy of another."""
    rng = np.random.default_rng(3)
    vectors = (rng.normal(size=(8, 6))[rng.integers(0, 8, 600)] + 0.4 * rng.normal(size=(600, 6))).astype(np.float32)
    vectors[::5] = vectors[1 + 5 * rng.integers(0, 40, 120)]
    return Points([f"x{i:05d}" for i in range(600)], vectors)


@pytest.fixture
def night(spark: Any, tmp_path: Path) -> Callable[..., tuple[dict[Any, float], dict[str, Any]]]:
    """Do to the state in ``tmp_path`` what a run of the density job does: density by id, and what the manifest says."""
    works = iter(range(100))

    def run(path: str = "", remove: Any = (), output: str = "out", **settings: Any):
        state = str(tmp_path / "state")
        named = {"update" if (tmp_path / "state").exists() else "save_state": state}
        chosen = replace(Settings(input=path, density_method="exact"), **{**named, **settings})
        place = Workplace.of(Location.of(str(tmp_path / output)), str(tmp_path / f"w{next(works)}"), {"path": path})
        pool = None
        with state_of(chosen, place) as held_state:
            if path:
                pool = ingest(spark, open_source(path, "id", "embedding"), chosen, place.emptied("ingest"))
            report = held_state.add(spark, pool, frozenset(remove), chosen, place.emptied("density"), place)
            held_state.commit(held_state.following(place.key))
        table = pq.read_table(place.result.path)
        place.stage.delete()
        return dict(zip(*(table.column(name).to_pylist() for name in ("id", "density")), strict=True)), report

    return run


def test_an_update_of_a_few_rows_equals_a_full_run(run_here, crowd, tmp_path):
    """Some new rows have the embedding of old ones, and the smaller id of some of these."""
    rows = Points(crowd.ids[:90], np.concatenate([crowd.vectors[:80], crowd.vectors[20:30]]))
    order = np.random.default_rng(3).permutation(90)
    options = {"density_method": "exact", "neighbors": 4, "report": False}
    state = str(tmp_path / "state")
    old, new = rows.write(tmp_path / "old", order[:60]), rows.write(tmp_path / "new", order[60:])
    run_here("estimate_density", input=old, output=str(tmp_path / "a"), save_state=state, **options)
    run_here("estimate_density", input=new, output=str(tmp_path / "b"), update=state, **options)
    true = expected(rows, neighbors=4)
    assert {id_: values[0] for id_, values in result(tmp_path / "b").items()} == true
    assert report(tmp_path / "b")["rows"] == len(true) <= 80


# --- rows that are taken out ------------------------------------------------------------------------------

SETTINGS = {
    "paper, drop": {},
    "paper, keep": {"duplicates": "keep"},
    "euclidean": {"metric": "euclidean"},
    "released, drop": {"formula": "released"},
    "released, keep": {"formula": "released", "duplicates": "keep"},
}


@pytest.mark.more
@pytest.mark.parametrize("case", SETTINGS)
def test_what_is_left_after_rows_are_taken_out_has_the_density_of_a_full_run(crowd, night, tmp_path, case):
    """Bit for bit, whichever go: single rows, copies, ids that stand for copies; and with new rows in the same run."""
    settings, rng = SETTINGS[case], np.random.default_rng(7)
    order, kept = rng.permutation(600), set(crowd.ids)
    first, second, third = order[:380], order[380:520], order[520:]
    night(crowd.write(tmp_path / "1", first), output="1", **settings)
    night(crowd.write(tmp_path / "2", second), output="2", **settings)
    kept -= {crowd.ids[i] for i in third}
    for number in range(2):
        gone = set(rng.choice(sorted(kept), 60, replace=False).tolist())
        kept -= gone
        found, report = night(remove=gone | {f"nobody{number}"}, output="r", **settings)
        assert found == expected(crowd, kept, **settings)
        assert (report["removed_ids"], report["unknown_ids"]) == (60, 1)
        assert report["recall"] == 1
        assert report["fingerprint"] is None
        assert 0 < report["searched_again"] < len(found)
    gone = set(rng.choice(sorted(kept), 30, replace=False).tolist())
    found, _ = night(crowd.write(tmp_path / "3", third), gone, output="3", **settings)
    assert found == expected(crowd, kept - gone | {crowd.ids[i] for i in third}, **settings)


def part(points: Points, places: Any) -> Points:
    return Points([points.ids[i] for i in places], points.vectors[list(places)])


def everything_in(state: Path) -> bytes:
    """The bytes of all its files, and of all columns of the Parquet files among them."""
    content = [file.read_bytes() for file in sorted(state.rglob("*")) if file.is_file()]
    for file in sorted(state.rglob("*.parquet")):
        columns = pq.read_table(file).combine_chunks().columns
        content += [bytes(buffer) for column in columns for buffer in column.chunk(0).buffers() if buffer]
    return b"".join(content)


def nearest_centroid(generation: Path, point: np.ndarray) -> float:
    return float(np.square(read_cells(Location.of(str(generation))).centroids - point).sum(axis=1).min())


def test_an_id_that_stands_for_copies_hands_over_and_one_that_is_taken_out_is_in_no_file(crowd, night, tmp_path):
    """Of ids, vectors and digests; a copy that goes changes no list."""
    few = Points([f"secret-{i:03d}" for i in range(90)], crowd.vectors[:90] + 0)
    few.vectors[50] = few.vectors[60] = few.vectors[3]
    few.vectors[12] *= -1  # far from all others
    before, _ = night(few.write(tmp_path / "1"), neighbors=3)
    assert {"secret-050", "secret-060"}.isdisjoint(before)
    found, report = night(remove=["secret-003", "secret-060"], neighbors=3)
    assert found == {("secret-050" if id_ == "secret-003" else id_): value for id_, value in before.items()}
    assert (report["removed"], report["searched_again"]) == (0, 0)
    gone = few.vectors[12]
    point = formula.normalize(gone[None].astype(np.float64))
    assert gone.tobytes() in everything_in(tmp_path / "state")
    assert nearest_centroid(tmp_path / "state" / "generation-00001", point) < 1e-12
    found, report = night(remove=["secret-012"], neighbors=3)
    assert found == expected(few, set(few.ids) - {"secret-003", "secret-060", "secret-012"}, neighbors=3)
    content = everything_in(tmp_path / "state")
    assert few.vectors[11].tobytes() in content
    assert b"secret-050" in content
    digest = hashlib.blake2b(gone.tobytes(), digest_size=16).digest()
    for secret in (b"secret-003", b"secret-060", b"secret-012", gone.tobytes(), point.tobytes(), digest):
        assert secret not in content
    assert nearest_centroid(tmp_path / "state" / "generation-00002", point) > 1e-6


def test_what_cannot_be_taken_out_is_refused(crowd, night, tmp_path):
    night(part(crowd, range(60)).write(tmp_path / "1"))
    before = everything_in(tmp_path / "state")
    with pytest.raises(InputError, match=r"none of the 2 ids of --remove is in the state .* \(first id: 'nobody'\)"):
        night(remove=["nobody", "nowhere"])
    distinct = part(crowd, range(60)).distinct().ids
    with pytest.raises(InputError, match=r"10 rows of the state .* would be left, but 10 neighbours take 11"):
        night(remove=set(crowd.ids[:60]) - set(distinct[:10]))
    assert everything_in(tmp_path / "state") == before


# --- nights that are run again ----------------------------------------------------------------------------


@pytest.mark.more
@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_a_night_run_again_gives_back_what_it_brought_first(crowd, night, tmp_path, duplicates):
    """With the same rows nothing changes and nothing is searched; with others the result is that of a full run."""
    settings = {"duplicates": duplicates, "neighbors": 4}
    paths = [part(crowd, range(i, 300, 3)).write(tmp_path / str(i)) for i in range(3)]
    for number, path in enumerate(paths):
        found, report = night(path, output=f"{number}", **settings)
    known = report["fingerprint"]
    again, report = night(paths[1], output="1", **settings)
    assert again == found == expected(part(crowd, range(300)), **settings)
    assert (report["added"], report["removed"], report["searched_again"]) == (0, 0, 0)
    assert report["fingerprint"] == known
    changed = part(crowd, [*range(1, 150, 3), *range(310, 320)])
    found, report = night(changed.write(tmp_path / "changed"), output="1", **settings)
    there = {id_ for i in (0, 2) for id_ in crowd.ids[i:300:3]} | set(changed.ids)
    assert found == expected(crowd, there, **settings)
    assert report["fingerprint"] not in (None, known)
    with pytest.raises(InputError, match=r"1 row\(s\) have an id that the state .* holds already"):
        night(part(crowd, [1]).write(tmp_path / "one"), output="other", **settings)
    first, _ = night(paths[0], output="0", save_state=str(tmp_path / "state"), update=None, overwrite=True, **settings)
    assert first == found


@pytest.mark.more
def test_a_night_by_a_formula_of_the_same_density_goes_into_a_state(crowd, night, tmp_path):
    """Symmetric into one of paper, and paper after it."""
    night(part(crowd, range(40)).write(tmp_path / "1"))
    night(part(crowd, range(40, 50)).write(tmp_path / "2"), output="2", formula="symmetric")
    found, _ = night(part(crowd, range(50, 60)).write(tmp_path / "3"), output="3")
    assert found == expected(part(crowd, range(60)))


def test_an_id_that_was_dropped_as_a_copy_is_known(crowd, night, tmp_path):
    few = part(crowd, range(50))
    few.vectors[20] = few.vectors[3]
    night(few.write(tmp_path / "1"))
    with pytest.raises(InputError, match="'x00020'"):
        night(part(few, [20]).write(tmp_path / "2"), output="2")


@pytest.fixture(scope="module")
def few(sample: Points) -> Points:
    """600 prompts, 100 of them copies of others."""
    rng = np.random.default_rng(8)
    vectors = np.concatenate([sample.vectors[:500], sample.vectors[rng.integers(0, 40, 100)]])
    return Points([f"x{i:05d}" for i in range(600)], vectors[rng.permutation(600)])


# --- nights that come ---------------------------------------------------------------------------------------


def job(*arguments: object):
    return run_job("estimate_density", *arguments)


def result(output: Path) -> dict[Any, tuple[float, float]]:
    table = pq.read_table(sorted(output.glob("part-*.parquet")))
    columns = (table.column(name).to_pylist() for name in ("id", "density", "kth_distance"))
    return {id_: values for id_, *values in zip(*columns, strict=True)}


def report(output: Path) -> dict[str, Any]:
    return json.loads((output / "_MANIFEST.json").read_text())["density"]


@pytest.fixture(scope="module")
def nights(few, tmp_path_factory) -> tuple[Path, Path, Path]:
    """600 prompts, a fifth of them twice, as two nights in no order of ids, and together."""
    folder = tmp_path_factory.mktemp("nights")
    order = np.random.default_rng(1).permutation(600)
    for name, part in (("old", order[:450]), ("new", order[450:]), ("both", order)):
        few.write(folder / name, part)
    return folder / "old", folder / "new", folder / "both"


@pytest.mark.more
@pytest.mark.parametrize(("method", "duplicates"), [("paper", "drop"), ("released", "keep")])
def test_an_update_with_all_cells_probed_equals_a_full_run(nights, few, tmp_path, method, duplicates):
    """Bit for bit, also of embeddings that are equal across nights: the smallest id stays."""
    old, new, _ = nights
    common = ("--formula", method, "--duplicates", duplicates, "--density-method", "exact")
    state = tmp_path / "state"
    first = job("--input", old, "--output", tmp_path / "a", "--save-state", state, *common)
    assert first.returncode == 0, first.stderr
    second = job("--input", new, "--output", tmp_path / "b", "--update", state, *common)
    assert second.returncode == 0, second.stderr
    true = expected(few, formula=method, duplicates=duplicates)
    assert {id_: values[0] for id_, values in result(tmp_path / "b").items()} == true
    assert report(tmp_path / "b")["recall"] == 1
    assert json.loads((state / "_STATE.json").read_text())["rows"] == len(true)
    assert sorted(entry.name for entry in state.iterdir()) == [
        "_STATE.json",
        "generation-00001",
        "rows-00000",
        "rows-00001",
    ]


@pytest.fixture(scope="module")
def state(nights, tmp_path_factory) -> Path:
    """A state of the first night, of the cells that it takes."""
    folder = tmp_path_factory.mktemp("state")
    arguments = ("--density-method", "approximate", "--target-recall", 0.9)
    done = job("--input", nights[0], "--output", folder / "out", "--save-state", folder / "state", *arguments)
    assert done.returncode == 0, done.stderr
    return folder / "state"


@pytest.mark.more
def test_two_nights_more_are_found_with_the_recall_reported(state, nights, few, tmp_path):
    """Each a part of the new rows, the second of one row only; the result has all rows."""
    shutil.copytree(state, tmp_path / "state")
    new = pq.read_table(nights[1])
    for night, rows in enumerate((new.slice(0, 149), new.slice(149))):
        pq.write_table(rows, tmp_path / f"{night}.parquet")
        done = job(
            "--input", tmp_path / f"{night}.parquet", "--output", tmp_path / f"o{night}", "--update", tmp_path / "state"
        )
        assert done.returncode == 0, done.stderr
    found, true = result(tmp_path / "o1"), expected(few)
    assert set(found) == set(true)
    assert all(found[id_][0] <= value for id_, value in true.items())
    assert report(tmp_path / "o1")["recall"] > 0.85
    assert report(tmp_path / "o1")["rows"] == len(true)


def test_a_state_of_paper_serves_the_formulas_of_the_same_density(state, tmp_path):
    shutil.copytree(state, tmp_path / "state")
    place = Workplace.of(Location.of(str(tmp_path / "out")), str(tmp_path / "work"), {})
    asked = Settings(input="in", update=str(tmp_path / "state"))
    for name in ("paper", "symmetric"):
        with state_of(replace(asked, formula=name), place) as held_state:
            assert held_state.content["settings"]["formula"] == "paper"
    with (
        pytest.raises(InputError, match="was made with formula = 'paper', not 'released'"),
        state_of(replace(asked, formula="released"), place),
    ):
        pass


def _cut(state: Path) -> None:
    file = next(state.glob("rows-00000/*"))
    file.write_bytes(file.read_bytes()[:-100])


def _as_version_9(state: Path) -> None:
    content = json.loads((state / "_STATE.json").read_text())
    (state / "_STATE.json").write_text(json.dumps({**content, "version": 9}))


REFUSED: dict[str, tuple[tuple[str, ...], Any, Any, int, str]] = {
    "other settings": (("--neighbors", "5"), None, None, 3, "was made with neighbors = 10, not 5"),
    "another dimension": ((), None, (["z"], RNG.normal(size=(1, 7))), 3, "have 7 dimensions, but those of the state"),
    "another type of id": ((), None, ([1], np.ones((1, 384), np.float32)), 3, "holds integers, but the ids of the"),
    "doubles": ((), None, (["z"], np.ones((1, 384))), 3, "are doubles, but those of the state"),
    "an id again": ((), None, (["x00001", "z"], RNG.normal(size=(2, 384))), 3, "1 row(s) have an id that the state"),
    "a file cut off": ((), _cut, None, 3, "is missing or not as the state wrote it"),
    "no state": ((), lambda state: (state / "_STATE.json").unlink(), None, 3, "is not a state"),
    "not JSON": ((), lambda state: (state / "_STATE.json").write_text("{"), None, 3, "is not a state"),
    "another version": ((), _as_version_9, None, 3, "has version 9, not 3"),
    "both": (("--save-state", "there"), None, None, 2, "--update changes the state it names"),
    "a reference": (("--reference", "there"), None, None, 2, "leave --reference out"),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.more] * (case == "another dimension")) for case in REFUSED]
)
def test_a_state_that_does_not_fit_is_refused_and_left_as_it_was(state, nights, tmp_path, case):
    arguments, spoil, rows, code, words = REFUSED[case]
    copy = tmp_path / "state"
    shutil.copytree(state, copy)
    if spoil:
        spoil(copy)
    path = nights[1]
    if rows:
        ids, vectors = rows
        path = write_parquet(tmp_path / "in.parquet", ids, vectors.astype(np.float32) if case != "doubles" else vectors)
    before = {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()}
    done = job("--input", path, "--output", tmp_path / "out", "--update", copy, *arguments)
    assert done.returncode == code, done.stderr
    assert words in error_line(done)
    assert {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()} == before
    assert not (tmp_path / "out").exists()


# --- runs on one state ------------------------------------------------------------------------------------

NIGHT = [sys.executable, str(ROOT / "jobs" / "estimate_density.py")]


def start(*arguments: object) -> subprocess.Popen[str]:
    """The job in a process group of its own, Java and workers in it."""
    command = [*NIGHT, *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(process: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    while not any(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)


@pytest.mark.parametrize("option", ["--update", "--save-state"])
def test_a_state_that_another_run_holds_is_refused(state, nights, tmp_path, option):
    copy = tmp_path / "state"
    shutil.copytree(state, copy)
    with held(Location.of(str(copy)), option):
        done = job("--input", nights[1], "--output", tmp_path / "out", option, copy)
    assert done.returncode == 2
    assert f"{option} {copy} is being written by process {os.getpid()} on " in error_line(done)
    assert not (tmp_path / "out").exists()
    assert sorted(entry.name for entry in copy.iterdir()) == sorted(entry.name for entry in state.iterdir())


@pytest.mark.more
def test_of_two_runs_on_one_state_the_second_is_refused_and_no_row_is_lost(state, nights, few, tmp_path):
    copy = tmp_path / "state"
    shutil.copytree(state, copy)
    rows = pq.read_table(nights[1])
    for number in range(2):
        pq.write_table(rows.slice(75 * number, 75), tmp_path / f"{number}.parquet")
    given = [("--input", tmp_path / f"{i}.parquet", "--output", tmp_path / f"o{i}", "--update", copy) for i in range(2)]
    first = start(*given[0])
    wait_for(first, copy, "_lock/*.json")
    second = job(*given[1])
    assert second.returncode == 2
    assert f"--update {copy} is being written by process {first.pid} on " in error_line(second)
    _, errors = first.communicate()
    assert first.returncode == 0, errors
    assert job(*given[1]).returncode == 0
    assert set(result(tmp_path / "o1")) == set(expected(few))
    assert len(json.loads((copy / "_STATE.json").read_text())["nights"]) == 3


@pytest.mark.restart
def test_a_run_that_fails_after_publishing_finishes_when_it_is_run_again(state, nights, tmp_path):
    """The state cannot be written for a while. Where another run changes it then, the result is not taken for done."""
    copy, output = tmp_path / "state", tmp_path / "out"
    shutil.copytree(state, copy)
    content = (copy / "_STATE.json").read_bytes()
    given = ("--input", nights[1], "--output", output, "--update", copy)
    process = start(*given)
    wait_for(process, output, "_work/result")
    (copy / "_STATE.json").unlink()
    (copy / "_STATE.json" / "in the way").mkdir(parents=True)
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    assert (output / "_MANIFEST.json").exists()
    shutil.rmtree(copy / "_STATE.json")
    (copy / "_STATE.json").write_bytes(content)
    for folder in (copy, output):
        shutil.copytree(folder, folder.with_name(f"{folder.name}-then"))

    again = job(*given)
    assert again.returncode == 0, again.stderr
    assert "stage=density" not in again.stderr
    after = json.loads((copy / "_STATE.json").read_text())
    assert [night["output"] for night in after["nights"]][1:] == [str(output)]
    assert sorted(e.name for e in copy.iterdir()) == ["_STATE.json", "generation-00001", "rows-00000", "rows-00001"]
    assert "nothing to do" in job(*given).stderr

    for folder in (copy, output):
        shutil.rmtree(folder)
        folder.with_name(f"{folder.name}-then").rename(folder)
    other = write_parquet(tmp_path / "other.parquet", ["z"], np.ones((1, 384), np.float32))
    assert job("--input", other, "--output", tmp_path / "o", "--update", copy).returncode == 0
    refused = job(*given)
    assert refused.returncode == 2
    assert "holds a result whose rows are not in the state" in error_line(refused)
    assert "--overwrite" in error_line(refused)
    done = job(*given, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert len(result(output)) == after["rows"] + 1


@pytest.mark.restart
@pytest.mark.parametrize("kind", ["--update", "--save-state"])
def test_a_run_killed_at_every_stage_leaves_the_state_whole_and_ends_with_the_same(state, nights, tmp_path, kind):
    copy, output, other = tmp_path / "state", tmp_path / "out", tmp_path / "undisturbed"
    if kind == "--update":
        for folder in (copy, other / "state"):
            shutil.copytree(state, folder)
    moments = [
        (output, "_work/work/1-ingest/done.json"),
        (copy, f"generation-{int(kind == '--update'):05d}/group-*"),
        (output, "_work/state.json"),
        (output, "_work/cleared"),
        (output, "_MANIFEST.json"),
    ]
    given = ("--input", nights[1], "--output", output, kind, copy)
    hits = 0
    for folder, pattern in moments:
        process = start(*given)
        while process.poll() is None and not any(folder.glob(pattern)):
            time.sleep(0.001)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            hits += 1
        process.communicate()
    assert hits >= 3
    done = job(*given)
    assert done.returncode == 0, done.stderr
    done = job("--input", nights[1], "--output", other / "out", kind, other / "state")
    assert done.returncode == 0, done.stderr
    assert result(output) == result(other / "out")
    names = [sorted(str(f.relative_to(s)) for f in s.rglob("*")) for s in (copy, other / "state")]
    assert names[0] == names[1]


@pytest.mark.parametrize("with_input", [pytest.param(False, marks=pytest.mark.more), True])
def test_ids_are_taken_out_by_the_command_line(state, nights, few, tmp_path, with_input):
    """Without an input or before one; the manifest and the log count ids that are not there."""
    copy = tmp_path / "state"
    shutil.copytree(state, copy)
    ids = pq.read_table(nights[0]).column("id").to_pylist()[:20]
    pq.write_table(pa.table({"id": [*ids, "nobody"]}), tmp_path / "gone.parquet")
    given = ["--update", copy, "--remove", tmp_path / "gone.parquet", "--output", tmp_path / "out"]
    done = job(*given, *(["--input", nights[1]] if with_input else []))
    assert done.returncode == 0, done.stderr
    assert "1 of the 21 ids of --remove are not in the state" in done.stderr
    there = set(few.ids) - set(ids)
    if not with_input:
        there -= set(pq.read_table(nights[1]).column("id").to_pylist())
    assert set(result(tmp_path / "out")) == set(expected(few, there))
    said = report(tmp_path / "out")
    assert (said["removed_ids"], said["unknown_ids"]) == (20, 1)
    assert said["recall"] > 0.85
    assert "nothing to do" in job(*given, *(["--input", nights[1]] if with_input else [])).stderr


@pytest.mark.parametrize(
    ("ids", "options", "code", "words"),
    [
        (["x00001"], [], 2, "--remove takes ids out of a state; name it with --update"),
        ([7], ["--update"], 3, "holds integers, but the ids of the state"),
        (["x00001", None], ["--update"], 3, "has a null id in column 'id'"),
    ],
    ids=["no state", "another type", "null"],
)
def test_ids_to_take_out_that_cannot_be_meant_are_refused(state, tmp_path, ids, options, code, words):
    pq.write_table(pa.table({"id": ids}), tmp_path / "gone.parquet")
    given = ["--remove", tmp_path / "gone.parquet", "--output", tmp_path / "out", *options, *([state] * len(options))]
    done = job(*given)
    assert done.returncode == code, done.stderr
    assert words in error_line(done)


def picks_of_the_oracle(rows: pa.Table, before: list[Any]) -> list[Any]:
    """Twenty picks of these rows after some before, by the formula."""
    rows = rows.sort_by("id").combine_chunks()
    vectors = np.array(rows.column("embedding").chunk(0).flatten()).reshape(len(rows), -1)
    pool = Points(rows.column("id").to_pylist(), vectors)
    distinct = pool.distinct()
    place = {vector.tobytes(): i for i, vector in enumerate(distinct.vectors + 0)}
    of_id = dict(zip(pool.ids, pool.vectors + 0, strict=True))
    begun = sorted({place[of_id[id_].tobytes()] for id_ in before})
    picks = formula.novelselect(distinct.vectors, formula.density(distinct.vectors, 10), 20, None, begun=begun).picks
    return [distinct.ids[i] for i in picks]


@pytest.mark.more
def test_three_nights_and_the_backfill_of_the_docs_give_what_the_oracle_does(oracle, tmp_path):
    """conf/three_nights.sh: a state that takes in new files, and picks that go on after those before. Then night 2 has
    other files, and the commands of docs/operations.md are run as they stand there.
    """
    folder = tmp_path / "nights"
    environment = {**served(), "PYTHON": sys.executable}

    def shell(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def picks(night: int) -> list[Any]:
        return pq.read_table(folder / f"selected-{night}" / "selected").column("id").to_pylist()

    log = shell("conf/three_nights.sh", str(folder), "20")
    assert "another input" not in log
    first, second = picks(1), picks(2)
    nights = [ds.dataset(folder / "embeddings" / f"night={night}").to_table(["id", "embedding"]) for night in (1, 2, 3)]
    assert first == oracle(read_points(folder / "embeddings" / "night=1"), 20).picks
    assert second == picks_of_the_oracle(pa.concat_tables(nights[:2]), first)
    assert picks(3) == picks_of_the_oracle(pa.concat_tables(nights), first + second)
    file = folder / "embeddings" / "night=2" / "part-0.parquet"
    rows = pq.read_table(file)
    assert set(second) & set(rows.column("id").to_pylist()[:300])
    extra = rows.slice(0, 5)
    extra = extra.set_column(extra.schema.get_field_index("id"), "id", pa.array([f"late:{i}" for i in range(5)]))
    pq.write_table(pa.concat_tables([rows.slice(300), extra]), file)

    document = (ROOT / "docs" / "operations.md").read_text()
    recipe = document[document.index("- **Backfill**") :].split("\n\n")[1]
    assert recipe.count("jobs/") == 2
    for old, new in (("out/nights", str(folder)), (".venv/bin/python", sys.executable), ("--budget 50", "--budget 20")):
        assert old in recipe
        recipe = recipe.replace(old, new)
    log = shell("bash", "-euc", recipe)
    assert "another input" not in log
    assert f"began with the picks of this output: {folder}/selected-3" in log
    held = ds.dataset(folder / "embeddings").to_table(["id", "embedding"])
    assert picks(1) == first
    assert picks(2) == picks_of_the_oracle(held, first)
    assert picks(3) == picks_of_the_oracle(held, first + picks(2))
    manifest = json.loads((folder / "selected-2" / "_MANIFEST.json").read_text())
    assert manifest["selected"]["began_with"] == [str(folder / "selected-1")]
    assert manifest["selected"]["left_out"] == [str(folder / "selected-3")]

    some = pq.read_table(folder / "embeddings" / "night=1")
    pq.write_table(some.slice(1), tmp_path / "some.parquet")
    arguments = ("--density", folder / "density-3", "--budget", 2, "--no-report")
    done = run_job("select_subset", "--input", tmp_path / "some.parquet", "--output", tmp_path / "other", *arguments)
    assert "was estimated over another input" in done.stderr
