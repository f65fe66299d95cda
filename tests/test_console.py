"""The console command is the jobs by other names."""

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SAMPLE, _gateway, error_line, run_job

import novelsum
from novelsum import settings
from novelsum.console import COMMANDS

TABLE = ROOT / "docs" / "worked-example.csv"


def run_command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "novelsum", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_command_lists_every_job_in_a_line_each():
    done = run_command("--help")
    assert done.returncode == 0, done.stderr
    assert run_command().stdout == done.stdout
    for name, command in COMMANDS.items():
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"  {name} ")]
        assert line.endswith(command.does)
        assert len(line) <= 120
    jobs = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    assert {command.job for command in COMMANDS.values()} == jobs


def test_the_command_tells_its_version():
    assert run_command("--version").stdout == f"novelsum {novelsum.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["curat"], "error: novelsum has no command 'curat'; did you mean curate?"),
        (["zzz"], "error: novelsum has no command 'zzz'; there are curate, embed, density"),
        (["curate", "--zzz"], "error: unknown flag --zzz; see novelsum curate --help"),
        (["curate", "--input", "x"], "error: --output is missing"),
        (["explain", "--json"], "error: --distances is missing"),
    ],
)
def test_a_command_that_is_not_understood_ends_with_one_sentence(arguments, words):
    done = run_command(*arguments)
    assert done.returncode == 2
    assert error_line(done).startswith(words)


def test_help_of_a_command_shows_the_command_and_not_the_script():
    shown = run_command("select", "--help").stdout
    assert shown.startswith("usage: novelsum select --input")
    assert "    novelsum density --input" in shown
    assert "jobs/" not in shown


def test_the_script_that_is_installed_is_this_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["novelsum"].partition(":")
    assert getattr(importlib.import_module(module), function) is importlib.import_module("novelsum.console").main


def test_a_command_does_what_its_script_does(tmp_path):
    by_script = run_job("explain_novelty", "--distances", TABLE, "--neighbors", 2, by="python")
    by_command = run_command("explain", "--distances", TABLE, "--neighbors", 2)
    assert by_command.returncode == by_script.returncode == 0
    assert by_command.stdout == by_script.stdout


@pytest.mark.more
def test_a_command_on_spark_gives_what_its_script_gives(tmp_path, sample, oracle):
    arguments = ("--input", SAMPLE, "--budget", 5, "--no-report")
    by_script = run_job("curate", *arguments, "--output", tmp_path / "script")
    by_command = run_command("curate", *arguments, "--output", tmp_path / "command", **_gateway())
    assert by_command.returncode == by_script.returncode == 0, by_command.stderr
    assert by_command.stdout.replace("/command", "/script") == by_script.stdout
    for name in ("script", "command"):
        assert pq.read_table(tmp_path / name / "selected").column("id").to_pylist() == oracle(sample, 5).picks


@pytest.mark.more
def test_what_pip_installs_has_every_module(tmp_path):
    for name in ("novelsum", "pyproject.toml", "README.md"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, tmp_path / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    installed = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    assert installed == {str(path.relative_to(ROOT)) for path in (ROOT / "novelsum").rglob("*.py")}


def test_every_job_of_the_settings_has_a_command():
    known = {*settings.ALL, *settings.MEASURING, *settings.EXPLAINING}
    assert known <= {command.job for command in COMMANDS.values()}
