"""Settings from a file and from flags."""

import dataclasses
import re
from pathlib import Path

import made
import pytest
from conftest import ROOT, error_line, run_job

from novelsum import settings
from novelsum.errors import UsageError

JOBS = [*settings.ALL, *settings.MEASURING, *settings.EXPLAINING, *settings.EMBEDDING]
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
        ('formula = "mine"', "--formula must be one of paper, released, symmetric, not 'mine'"),
        ("proximity_power = -1", "--proximity-power must be a finite number of at least 0"),
        ("neighbors = ", "is not valid TOML"),
        ("[spark]\nx = 1", "unknown key 'spark'"),
        ("bugdet = 3", "unknown key 'bugdet'; did you mean budget?"),
        ("budget = 5.0", "budget must be a value of type int or str, not float 5.0"),
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


def test_an_id_of_digits_may_be_an_integer_in_the_file(tmp_path: Path):
    config = tmp_path / "c.toml"
    config.write_text("first = 17\n")
    assert parse("--config", str(config)).first == "17"


@pytest.mark.parametrize(("given", "budget"), [("20", 20), ("5%", "5%"), ("5.5%", "5.5%"), ("100%", "100%")])
def test_a_budget_is_a_number_or_a_share_and_is_kept_as_it_was_asked(tmp_path: Path, given: str, budget: int | str):
    config = tmp_path / "c.toml"
    config.write_text(f"budget = {given if type(budget) is int else repr(given)}\n")
    found = [
        settings.parse("curate", "", [*GIVEN[:4], *more]) for more in (["--budget", given], ["--config", str(config)])
    ]
    assert [one.for_manifest("curate")["budget"] for one in found] == [budget, budget]


@pytest.mark.parametrize("budget", ["0%", "0.0%", "101%", "100.1%", "5 %", "%", "-1", "-5%", "0", "abc", "1e3", "5.5"])
def test_a_malformed_budget_is_refused(budget: str):
    with pytest.raises(UsageError, match=r"--budget must be at least 1, or a share .* such as 5%, not"):
        parse(f"--budget={budget}")


@pytest.mark.parametrize(
    ("budget", "candidates", "picks"),
    [(7, 3, 7), ("5%", 2771, 138), ("100%", 2771, 2771), ("29%", 100, 29), ("0.1%", 12, 1), ("5.5%", 1000, 55)],
)
def test_a_share_of_the_candidates_is_rounded_down_but_at_least_one(budget: int | str, candidates: int, picks: int):
    """Decimally: 29% of 100 is 29, and not the 28 that binary fractions make of it."""
    assert settings.Settings(budget=budget).picks(candidates) == picks


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bugdet", "5"], "unknown flag --bugdet; did you mean --budget?"),
        (["--neighbours=5"], "unknown flag --neighbours; did you mean --neighbors?"),
        (["--no-overwrit"], "unknown flag --no-overwrit; did you mean --no-overwrite?"),
        (["--zzz"], "unknown flag --zzz; see curate.py --help"),
        (["5"], "unexpected argument '5'"),
    ],
)
def test_a_flag_that_is_not_known_is_told_with_the_closest_one(arguments: list[str], words: str):
    with pytest.raises(UsageError) as caught:
        parse(*arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target-recall", "0"], "--target-recall must be above 0 and at most 1, not 0.0"),
        (["--target-recall", "1.5"], "--target-recall must be above 0 and at most 1, not 1.5"),
        (["--target-recall", "nan"], "--target-recall must be above 0 and at most 1, not nan"),
        (["--quality-power", "inf"], "--quality-power must be a finite number of at least 0, not inf"),
        (["--show", "-1"], "--show must be at least 0, not -1"),
        (["--id-column", ""], "--id-column must not be empty: column of unique ids"),
        (["--quota", "a=1"], "name their column with --group-column"),
        (["--first", "", "--already-selected", "p"], "--already-selected has begun it; leave one out"),
    ],
)
def test_a_value_that_breaks_the_rules_of_its_setting_is_refused(arguments: list[str], words: str):
    with pytest.raises(UsageError) as caught:
        parse(*arguments)
    assert words in str(caught.value)


def test_the_rules_of_settings_name_settings():
    for kind in (settings.Settings, settings.MeasureSettings, settings.ExplainSettings):
        for field in dataclasses.fields(kind):
            rules = settings.rules_of(field)
            named = {name.split("=")[0] for name in (*rules.needs, *rules.excludes, *rules.unless)}
            assert named <= set(settings.Settings.__dataclass_fields__)


@pytest.mark.parametrize("job", [*settings.ALL, *settings.MEASURING, *settings.EXPLAINING])
def test_help_shows_each_setting_once_under_what_it_is_and_an_example(job: settings.Job):
    done = run_job(job, "--help", by="python")
    assert done.returncode == 0, done.stderr
    text, example = done.stdout.split("\nFor example:")
    rules = {settings.flag(field): settings.rules_of(field) for field in settings.fields_of(job)}
    _, *parts = re.split(r"^(\w+) settings:$", text, flags=re.MULTILINE)
    assert parts[::2] == ["required", "common", "advanced"]
    for heading, part in zip(parts[::2], parts[1::2], strict=True):
        shown = set(re.findall(r"^  (--[a-z-]+)", part, re.MULTILINE)) - {"--config"}
        assert shown == {flag for flag in rules if rules[flag].group == heading}
    assert f"jobs/{job}.py --" in example


EXAMPLES = sorted((ROOT / "conf").glob("*.toml"))
assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_example_files_are_valid(path: Path):
    arguments = ["--config", str(path), "--input", "in", "--output", "out"]
    if path.stem == "measure":
        settings.parse_measure("", arguments)
    else:
        settings.parse("curate", "", [*arguments, "--budget", "3"])


@pytest.mark.parametrize("path", made.PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_make_docs_makes_of_a_page_is_in_it(path: Path):
    """A flag that is not documented does not exist for its users: run ``make docs`` after a change of a setting."""
    text = path.read_text()
    assert made.made(text) == text, f"{path} is not what make docs makes of it"


@pytest.mark.parametrize("job", JOBS)
def test_the_page_of_a_job_has_every_setting_and_no_other_under_what_it_is(job: settings.Job):
    page = (ROOT / "docs" / "jobs" / f"{job}.md").read_text()
    of_job = page.partition(f"made by make docs: settings {job} -->")[2].partition("<!-- end -->")[0]
    _, *parts = re.split(r"^\*\*(\w+)\*\*$", of_job, flags=re.MULTILINE)
    for heading, rows in zip(parts[::2], parts[1::2], strict=True):
        group = [field for field in settings.fields_of(job) if settings.rules_of(field).group == heading.lower()]
        documented = re.findall(r"^\| `(--[a-z-]+)` \| (.+) \| ?(.*) \|$", rows, re.MULTILINE)
        assert [flag for flag, _, _ in documented if flag != "--config"] == [settings.flag(field) for field in group]
        for flag, told, _ in documented:
            assert re.search(r"\w", told), flag
    assert len(parts) == 6


@pytest.mark.parametrize(
    ("job", "row"),
    [
        ("curate", "| `--neighbors` | K, the nearest neighbours in a density factor | 10 |"),
        ("curate", "| `--compare` |"),
        ("curate", "| `--first` | id of the first pick | drawn from the ids by `--seed` |"),
        ("curate", "| on |"),
        ("select_subset", "| `--density` | what estimate\\_density wrote: Parquet with the id and density | |"),
        ("measure_diversity", "several make a grid | `paper` |"),
        ("embed_text", "; may be left out with `--embeddings` | |"),
    ],
)
def test_a_table_has_meanings_and_defaults_in_markdown(job: settings.Job, row: str):
    assert row in made.settings_of(job)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--input", "x"), "--output is missing"),
        (("--input", "x", "--output", "y"), "--budget is missing"),
        (("--input", "x", "--output", "y", "--budget", 0), "--budget must be at least 1, or a share of the candidates"),
        (("--input", "x", "--output", "y", "--budget", "many"), "such as 5%, not 'many'"),
        (("--formula", "mine"), "--formula: invalid choice: 'mine'"),
        (
            ("--input", "x", "--output", "y", "--budget", 1, "--density-power", "nan"),
            "--density-power must be a finite",
        ),
        (("--input", "x", "--output", "x", "--budget", 1), "lie in one another"),
        (("--input", "x/y", "--output", "x", "--budget", 1), "lie in one another"),
        (("--bugdet", 3), "unknown flag --bugdet; did you mean --budget?"),
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
