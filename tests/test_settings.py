"""Settings from a file and from flags."""

import re
from pathlib import Path

import pytest
from conftest import ROOT, error_line, run_job

from novelsum import settings
from novelsum.errors import UsageError

GIVEN = ["--input", "in", "--output", "out", "--budget", "3"]


def parse(*arguments: str) -> settings.Settings:
    return settings.parse("curate", "", [*GIVEN, *arguments])


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path):
    config = tmp_path / "c.toml"
    config.write_text('neighbors = 5\ndensity_power = 1\nmetric = "euclidean"\noverwrite = true\n')
    found = parse("--config", str(config), "--neighbors", "7", "--no-overwrite")
    assert (found.neighbors, found.density_power, found.metric) == (7, 1.0, "euclidean")
    assert found.overwrite is False
    assert found.seed == 42


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('neighbors = "ten"', "neighbors must be a value of type int, not str 'ten'"),
        ("neighbors = true", "neighbors must be a value of type int, not bool True"),
        ("neighbors = 0", "--neighbors must be at least 1, not 0"),
        ('formula = "mine"', "--formula must be one of paper, released, not 'mine'"),
        ("proximity_power = -1", "--proximity-power must be a finite number of at least 0"),
        ("neighbors = ", "is not valid TOML"),
        ("[spark]\nx = 1", "unknown key 'spark'"),
    ],
)
def test_a_bad_file_is_refused_with_the_key_named(tmp_path: Path, line: str, words: str):
    config = tmp_path / "c.toml"
    config.write_text(line + "\n")
    with pytest.raises(UsageError) as caught:
        parse("--config", str(config))
    assert words in str(caught.value)


def test_a_file_may_hold_the_keys_of_other_jobs(tmp_path: Path):
    """One file can serve all jobs."""
    config = tmp_path / "c.toml"
    config.write_text('density = "somewhere"\nneighbors = 4\n')
    assert parse("--config", str(config)).neighbors == 4


EXAMPLES = sorted((ROOT / "conf").glob("*.toml"))
assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_example_files_are_valid(path: Path):
    arguments = ["--config", str(path), "--input", "in", "--output", "out"]
    if path.stem == "measure":
        settings.parse_measure("", arguments)
    else:
        settings.parse("curate", "", [*arguments, "--budget", "3"])


def test_the_tables_of_the_readme_have_every_setting_and_no_other():
    """A flag that is not documented does not exist for its users."""
    selecting, measuring = (ROOT / "README.md").read_text().split("`measure_diversity.py` takes these flags")
    shared, measuring = measuring.split("Its\nown are below", 1)
    for jobs, text, others in ((settings.ALL, selecting, ""), (settings.MEASURING, measuring, shared)):
        cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `--")]
        documented = re.findall(r"`(--[a-z-]+)`", " ".join([*cells, others]))
        known = {settings.flag(field) for job in jobs for field in settings.fields_of(job)}
        assert sorted(documented) == sorted(known)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--input", "x"), "--output is missing"),
        (("--input", "x", "--output", "y"), "--budget is missing"),
        (("--input", "x", "--output", "y", "--budget", 0), "--budget must be at least 1, not 0"),
        (("--input", "x", "--output", "y", "--budget", "many"), "argument --budget: invalid int value: 'many'"),
        (("--formula", "mine"), "--formula: invalid choice: 'mine'"),
        (
            ("--input", "x", "--output", "y", "--budget", 1, "--density-power", "nan"),
            "--density-power must be a finite",
        ),
        (("--input", "x", "--output", "x", "--budget", 1), "lie in one another"),
        (("--input", "x/y", "--output", "x", "--budget", 1), "lie in one another"),
        (("--bugdet", 3), "unrecognized arguments: --bugdet 3"),
        (("--config", "{config}"), "unknown key 'bugdet'; did you mean budget?"),
        (("--config", "none.toml"), "--config none.toml cannot be read"),
    ],
)
def test_bad_usage_exits_2_and_names_the_setting(tmp_path, arguments, words):
    config = tmp_path / "c.toml"
    config.write_text("bugdet = 3\n")
    done = run_job("curate", *(str(a).format(config=config) for a in arguments))
    assert done.returncode == 2, done.stderr
    assert words in error_line(done)
