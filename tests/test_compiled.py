"""Compiled loops: compiled once for a source, by whatever process, and kept where nobody else can put anything."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, SAMPLE, run_job

LOOPS = """
from novelsum.compiled import compiled, reordered

@reordered
def total(values):
    sum_ = values[0]
    for value in values[1:]:
        sum_ += value
    return sum_

@compiled
def mean(values):
    return total(values) / len(values)
"""
RUN = """
import json, sys
import numpy as np
import loops
before = "numba" in sys.modules
found = [float(loops.mean(np.array([1, 2, 6], kind))) for kind in sys.argv[1:]]
misses = sum(sum(loop.compiler.stats.cache_misses.values()) for loop in (loops.mean, loops.total))
print(json.dumps({"found": found, "compiled": misses, "numba before": before}))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of processes whose home, cache and temporary folders are this test's own."""
    homes = {"HOME": tmp_path / "home", "XDG_CACHE_HOME": tmp_path / "home" / "cache", "TMPDIR": tmp_path / "tmp"}
    homes["TMPDIR"].mkdir()
    return {**os.environ, **{name: str(path) for name, path in homes.items()}, "NUMBA_CACHE_DIR": ""}


def zipped(path: Path, source: str = LOOPS) -> Path:
    """A zip file with a module of loops."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("loops.py", source)
    return path


def start(path: Path, environment: dict[str, str], *kinds: str) -> subprocess.Popen[str]:
    """A process that takes the mean of 1, 2 and 6 as numbers of some kinds with the loops of a zip file."""
    found = {**environment, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", RUN, *(kinds or ("f8",))]
    return subprocess.Popen(command, env=found, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(process: subprocess.Popen[str]) -> dict:
    """What such a process has found, and how many functions it had to compile for it."""
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(out)


def kept(folder: Path) -> list[Path]:
    """Files of compiled loops."""
    return sorted(folder.rglob("*.nbc"))


def test_a_source_is_compiled_once_in_whatever_zip_file_it_lies(environment, tmp_path):
    first = told(start(zipped(tmp_path / "one" / "package.zip"), environment))
    assert first == {"found": [3.0], "compiled": 2, "numba before": False}
    files = kept(tmp_path)
    assert [file.name.split("-")[0] for file in files] == ["mean", "total"]
    second = told(start(zipped(tmp_path / "two" / "other.zip"), environment))
    assert second == {"found": [3.0], "compiled": 0, "numba before": False}
    assert kept(tmp_path) == files


def test_a_changed_source_is_compiled_anew(environment, tmp_path):
    """Also where only a loop that another calls has changed, at the same place and line."""
    told(start(zipped(tmp_path / "package.zip"), environment))
    changed = zipped(tmp_path / "package.zip", LOOPS.replace("sum_ += value", "sum_ -= value"))
    assert told(start(changed, environment)) == {"found": [-7 / 3], "compiled": 2, "numba before": False}
    assert len(kept(tmp_path)) == 4


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-100], pytest.param(lambda content: b"?" + content[1:], marks=pytest.mark.more)],
)
def test_a_damaged_file_is_compiled_anew_and_replaced(damage, environment, tmp_path):
    path = zipped(tmp_path / "package.zip")
    told(start(path, environment))
    for file in kept(tmp_path):
        file.write_bytes(damage(file.read_bytes()))
    assert told(start(path, environment))["compiled"] == 2
    assert told(start(path, environment))["compiled"] == 0


def test_processes_that_compile_at_once_get_the_right_code_and_leave_it_whole(environment, tmp_path):
    path = zipped(tmp_path / "package.zip")
    orders = [("f8", "i8", "f4"), ("f4", "f8", "i8"), ("i8", "f4", "f8"), ("f8", "f4", "i8")]
    for process in [start(path, environment, *kinds) for kinds in orders]:
        assert told(process)["found"] == [3.0, 3.0, 3.0]
    assert told(start(path, environment, "i8", "f4", "f8")) == {
        "found": [3.0, 3.0, 3.0],
        "compiled": 0,
        "numba before": False,
    }
    assert not list(tmp_path.rglob("*.unfinished"))


@pytest.mark.more
def test_without_a_home_they_are_kept_in_the_temporary_folder(environment, tmp_path):
    environment |= {"HOME": "/dev/null", "XDG_CACHE_HOME": ""}
    path = zipped(tmp_path / "package.zip")
    assert told(start(path, environment))["compiled"] == 2
    assert told(start(path, environment))["compiled"] == 0
    folder = tmp_path / "tmp" / f"novelsum-{os.getuid()}"
    assert len(kept(folder)) == 2
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "of_whom",
    ["a link", *(pytest.param(other, marks=pytest.mark.more) for other in ("writable by others", "of another user"))],
)
def test_a_folder_that_others_may_have_made_is_not_used(of_whom, environment, tmp_path):
    """Whoever writes there could have any code run. Each process compiles anew then."""
    environment |= {"HOME": "/dev/null", "XDG_CACHE_HOME": ""}
    folder, elsewhere = tmp_path / "tmp" / f"novelsum-{os.getuid()}", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if of_whom == "a link":
        folder.symlink_to(elsewhere)
    else:
        folder.mkdir()
    if of_whom == "writable by others":
        folder.chmod(0o777)
    if of_whom == "of another user":
        if os.getuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(folder, 4711, 4711)
    path = zipped(tmp_path / "package.zip")
    for _ in range(2):
        assert told(start(path, environment)) == {"found": [3.0], "compiled": 2, "numba before": False}
    assert not kept(tmp_path)


def test_what_is_imported_ahead_is_all_that_the_first_call_needs(environment, tmp_path):
    path = zipped(tmp_path / "package.zip")
    told(start(path, environment))
    environment["PYTHONPATH"] = f"{path}{os.pathsep}{ROOT}"
    program = (
        "import sys, threading, numpy, loops\nfrom novelsum.compiled import import_ahead\nimport_ahead()\n"
        "[thread.join() for thread in threading.enumerate() if thread.name == 'numba']\n"
        "before = set(sys.modules)\nloops.mean(numpy.ones(3))\nprint(len(before), *set(sys.modules) - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    loaded, *later = done.stdout.split()
    assert int(loaded) > 500
    assert later == []


def test_a_loop_called_while_numba_is_being_imported_ahead_waits_for_no_lock_that_waits_for_it(environment, tmp_path):
    """The loop's thread is held at the point where numba, under a lock of one kind, goes for that of its compiler."""
    environment["PYTHONPATH"] = f"{zipped(tmp_path / 'package.zip')}{os.pathsep}{ROOT}"
    program = """
import sys, threading, time
import numpy
from numba.core import cpu
import loops
from novelsum.compiled import _make_ready

make, is_making = cpu.CPUContext.__init__, threading.Event()

def slowly(self, *arguments):
    is_making.set()
    time.sleep(0.5)
    make(self, *arguments)

cpu.CPUContext.__init__ = slowly
calls = threading.Thread(target=lambda: print(loops.mean(numpy.ones(3))), daemon=True)
calls.start()
is_making.wait()
_make_ready()
calls.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["1.0"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--help",), 0),
        (("--input", SAMPLE / "absent", "--output", "out", "--budget", 5), 3),
        (("--input", SAMPLE, "--output", "out", "--budget", 5, "--neighbors", 0), 2),
    ],
)
def test_what_ends_before_any_work_does_not_wait_for_numba(arguments, code, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    arguments = [tmp_path / "out" if argument == "out" else argument for argument in arguments]
    done = run_job("curate", *arguments, by="python")
    assert done.returncode == code
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "novelsum.pipeline" in imported
    assert "numba" not in imported
