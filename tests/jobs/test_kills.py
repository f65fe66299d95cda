"""Forty-four kills, spread over the stages of all jobs as a first run measures them, each of which must have hit.

The job, its Java and its workers die at once, or one of them alone. A run is killed, the same command goes on with
it and is killed a stage further on, until nothing kills it any more: what it then makes is what a run makes that
nothing disturbs.
"""

import json
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SAMPLE, served

pytestmark = pytest.mark.restart
TRIES = 10
"""A run may be faster than the one that was measured; the kill is then tried again, earlier, in the end at once."""


@dataclass(frozen=True)
class Kill:
    """Where a run is cut: after a share of the seconds of a stage, and which of its processes die."""

    command: str
    stage: str
    share: float
    victim: str = "all"

    def __str__(self) -> str:
        return f"{self.command}-{self.stage}-{self.share:.2f}-{self.victim}"


STAGES = {
    "curate": ("start", "ingest", "density", "begin", "selection", "nearest", "write", "survey", "report"),
    "compare": ("start", "ingest", "density", "begin", "selection", "nearest", "write", "compare"),
    "select_subset": ("start", "ingest", "density", "begin", "selection", "nearest", "write"),
    "estimate_density": ("start", "ingest", "density", "write"),
    "save_state": ("start", "ingest", "density"),
    "update": ("start", "ingest", "density"),
    "measure_diversity": ("start", "ingest", "diversity", "comparison", "report"),
}


WHERE = [(command, stage) for command in STAGES if command != "compare" for stage in STAGES[command]]
WHERE += [("compare", "compare")]


def _spread() -> dict[str, list[Kill]]:
    """The kills of each command, by stage; of those of a stage, each time later."""
    draw = random.Random(15)
    kills = [Kill(*where, draw.uniform(0.05, 0.9)) for where in WHERE]
    again = (("curate", "selection"), ("curate", "ingest"), ("save_state", "density"), ("update", "density"))
    kills += [Kill(command, stage, draw.uniform(0.05, 0.9)) for command, stage in again]
    for victim in ("driver", "java"):
        kills += [Kill(command, "density", draw.uniform(0.1, 0.9), victim) for command in ("curate", "update")]
    workers = (("curate", "ingest"), ("curate", "selection"), ("update", "density"), ("measure_diversity", "diversity"))
    kills += [Kill(command, stage, draw.uniform(0.1, 0.7), "worker") for command, stage in workers]
    kills.sort(key=lambda kill: (STAGES[kill.command].index(kill.stage), kill.share))
    return {command: [kill for kill in kills if kill.command == command] for command in STAGES}


KILLS = _spread()


def test_forty_four_kills_reach_every_stage_of_every_job():
    kills = [kill for of_command in KILLS.values() for kill in of_command]
    assert len(kills) == len(set(map(str, kills))) == 44
    assert {(kill.command, kill.stage) for kill in kills} == set(WHERE)


# --- the commands -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """Inputs that all runs share; ``seconds`` of each stage of each command as first measured."""

    folder: Path
    seconds: dict[str, dict[str, float]]
    expected: dict[str, object]

    def command(self, name: str, folder: Path) -> list[str]:
        """The command line of a run in a folder of its own."""
        job = {"save_state": "estimate_density", "update": "estimate_density", "compare": "curate"}.get(name, name)
        given: list[object] = [sys.executable, ROOT / "tests" / "with_rounds.py", job, "--output", folder / "out"]
        given += ["--input", self.folder / ("night" if name == "update" else "pool"), "--block-rows", 130]
        selecting = ("--budget", 80, "--text-column", "text")
        explaining = (*selecting, "--no-report", "--explain-rejected", "--map")
        more: dict[str, tuple[object, ...]] = {
            "curate": selecting,
            "compare": (*selecting, "--no-report", "--compare"),
            "select_subset": (*explaining, "--density", self.folder / "density"),
            "estimate_density": ("--density-method", "approximate", "--target-recall", 0.9),
            "save_state": ("--save-state", folder / "state"),
            "update": ("--update", folder / "state"),
            "measure_diversity": ("--input", self.folder / "night", "--density-power", 0.5),
        }
        return [str(part) for part in (*given, *more[name])]

    def prepare(self, name: str, folder: Path) -> None:
        """What must lie there before the run, and nothing else."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if name == "update":
            shutil.copytree(self.folder / "state", folder / "state")


def result(name: str, folder: Path) -> object:
    """What a finished run is known by: its picks, or its numbers."""
    output = folder / "out"
    assert (output / "_MANIFEST.json").exists()
    assert not (output / "_work").exists()
    if name in ("curate", "compare", "select_subset"):
        table = pq.read_table(output / "selected")
        assert name != "curate" or (output / "report.html").stat().st_size > 10_000
        more = ("rejected_near", "map") if name == "select_subset" else ()
        beside = [ds.dataset(output / kind).to_table().sort_by("id") for kind in more]
        return table.drop(["novelty"]), [float(f"{v:.9g}") for v in table.column("novelty").to_pylist()], beside
    if name == "measure_diversity":
        return json.loads((output / "diversity.json").read_text())
    table = pq.read_table(sorted(output.glob("part-*.parquet"))).sort_by("id")
    if name in ("save_state", "update"):
        content = json.loads((folder / "state" / "_STATE.json").read_text())
        files = {str(file.relative_to(folder / "state")) for file in (folder / "state").rglob("*") if file.is_file()}
        return table, content["rows"], content["generation"], content["sizes"], files
    return table


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """500 rows of the sample, 100 more as a night, and each command once, undisturbed, with the time of its stages."""
    folder = tmp_path_factory.mktemp("world")
    rows = ds.dataset(SAMPLE).to_table()
    for name, part in (("pool", rows.slice(0, 500)), ("night", rows.slice(500, 100))):
        (folder / name).mkdir()
        half = len(part) // 2
        for number, piece in enumerate((part.slice(0, half), part.slice(half))):
            pq.write_table(piece, folder / name / f"part-{number}.parquet")
    world = World(folder, {}, {})
    for name in sorted(STAGES, key=lambda name: name in ("select_subset", "update")):
        place = folder / f"run-{name}"
        world.prepare(name, place)
        run = Run(world.command(name, place), served())
        assert run.wait() == 0, run.errors()
        world.seconds[name] = run.durations()
        assert tuple(world.seconds[name]) == STAGES[name]
        world.expected[name] = result(name, place)
        if name == "estimate_density":
            shutil.copytree(place / "out", folder / "density")
        if name == "save_state":
            shutil.copytree(place / "state", folder / "state")
    return world


# --- a run that is watched and killed ---------------------------------------------------------------------


class Run:
    """A job in a session of its own, whose log tells which stage it is in."""

    def __init__(self, command: list[str], environment: dict[str, str] | None = None) -> None:
        self._started = time.monotonic()
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, **pipes, start_new_session=True, env=environment)
        self._lines: list[str] = []
        self._skipped: list[str] = []
        self.ended: dict[str, float] = {}
        self._news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self._lines.append(line)
            if found := re.search(r"going on after (.*), which", line):
                self._skipped = found.group(1).split(", ")
            if found := re.search(r" stage=(\w+) ", line):
                self.ended[found.group(1)] = time.monotonic() - self._started
                self._news.put(found.group(1))
        self._news.put(None)

    def wait(self) -> int:
        """Until it ends; its exit code."""
        code = self.process.wait(timeout=300)
        self._reader.join(timeout=30)
        return code

    def errors(self) -> str:
        """What it said."""
        return "".join(self._lines)

    def durations(self) -> dict[str, float]:
        """Seconds of each stage, those of the process before it in the first."""
        ends = [0.0, *self.ended.values()]
        return {name: end - begin for name, begin, end in zip(self.ended, ends[:-1], ends[1:], strict=True)}

    def reach(self, stages: Sequence[str]) -> bool:
        """Until some stages have ended, in this run or in one that it goes on with; whether they have."""
        while not {*self._skipped, *self.ended}.issuperset(stages):
            if self._news.get(timeout=300) is None:
                return False
        return True

    def descendants(self) -> dict[int, str]:
        """Its processes but the first, with their command lines."""
        parents: dict[int, tuple[int, str]] = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit():
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    parents[int(entry.name)] = parent, (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        found, last = dict[int, str](), {self.process.pid}
        while last:
            last = {pid for pid, (parent, _) in parents.items() if parent in last}
            found.update({pid: parents[pid][1] for pid in last})
        return found

    def kill_all(self) -> None:
        """End what is left of it."""
        for pid in VICTIMS["all"](self):
            _signal(pid)
        self.wait()


def _signal(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _java(run: Run) -> list[int]:
    return [pid for pid, command in run.descendants().items() if "org.apache.spark.deploy.SparkSubmit" in command]


def _workers(run: Run) -> list[int]:
    """Python workers, without the daemon that forks them: it alone has Java as its parent."""
    return [pid for pid, command in run.descendants().items() if "pyspark.daemon" in command][1:]


VICTIMS: dict[str, Callable[[Run], list[int]]] = {
    "all": lambda run: [run.process.pid, *run.descendants()],
    "driver": lambda run: [run.process.pid],
    "java": _java,
    "worker": _workers,
}


def is_ingested(folder: Path) -> bool:
    """Whether a run has left the store whole."""
    return (folder / "out" / "_work" / "work" / "1-ingest" / "done.json").exists()


def cut(world: World, kill: Kill, folder: Path) -> Run:
    """Start the run, or go on with it, and kill it in the stage; where the stage was over before, all begins anew."""
    stages = STAGES[kill.command]
    before = stages[: stages.index(kill.stage)]
    share = kill.share
    for _ in range(TRIES):
        ingested = is_ingested(folder)
        run = Run(world.command(kill.command, folder))
        if run.reach(before):
            moment = time.monotonic() + share * world.seconds[kill.command][kill.stage]
            victims = VICTIMS[kill.victim](run)  # found before the moment: to look takes longer than a short stage
            time.sleep(max(0.0, moment - time.monotonic()))
            while not victims and run.process.poll() is None and kill.stage not in run.ended:
                victims = VICTIMS[kill.victim](run)  # workers start some time after their stage does
            if [pid for pid in victims if _signal(pid)] and kill.stage not in run.ended:
                assert not (ingested and "ingest" in run.ended), "what was done is not done again"
                return run
        run.kill_all()
        world.prepare(kill.command, folder)
        share *= 0.6
    pytest.fail(f"no kill has hit {kill}")


@pytest.mark.parametrize("command", STAGES)
def test_a_run_killed_anywhere_ends_with_the_same_result(world: World, tmp_path: Path, command: str) -> None:
    """Each kill hits, nothing that looks finished is left, and the last run gives what an undisturbed run does."""
    folder = tmp_path / "run"
    world.prepare(command, folder)
    for kill in KILLS[command]:
        run = cut(world, kill, folder)
        code = run.wait()
        codes = {"all": [-signal.SIGKILL], "driver": [-signal.SIGKILL], "java": [1], "worker": [0, 1]}
        assert code in codes[kill.victim], kill
        if code == 0:  # Spark has tried the task again
            assert_same(result(command, folder), world.expected[command])
            world.prepare(command, folder)
            continue
        if kill.victim in ("java", "worker"):
            assert "error: " in run.errors(), kill
        assert not (folder / "out" / "_MANIFEST.json").exists(), kill
        run.kill_all()
    last = Run(world.command(command, folder), served())
    assert last.wait() == 0, last.errors()
    assert_same(result(command, folder), world.expected[command])
    if command != "measure_diversity":
        assert "ingest" not in last.ended, "what was done is not done again"


def assert_same(found: object, expected: object) -> None:
    if isinstance(found, tuple) and isinstance(expected, tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(found, pa.Table):
        assert found.equals(expected)
    else:
        assert found == expected
