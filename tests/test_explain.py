"""The worked example through its command, and every table that is refused."""

import json
from pathlib import Path

import pytest
from conftest import ROOT, error_line, run_job

TABLE = ROOT / "docs" / "worked-example.csv"
SETTINGS = ("--proximity-power", 1, "--density-power", 1, "--first", "x1")

# K: σ of x1 ... x5; novelty of x2 ... after {x1}; after {x1, x5}; the order of picks.
EXPECTED = {
    1: ([5, 5, 3.3333, 4, 4], [1.0, 4.0, 4.5, 5.0], [2.9, 3.4, 3.25], "15324"),
    2: (
        [1, 1.05263, 1.53846, 1.81818, 1.66667],
        [0.2, 0.8, 0.9, 1.0],
        [0.991667, 0.983333, 0.866667],
        "15234",
    ),
    3: (
        [0.52632, 0.55556, 0.71429, 0.71429, 0.64516],
        [0.105263, 0.421053, 0.473684, 0.526316],
        [0.411715, 0.436333, 0.398132],
        "15324",
    ),
}


@pytest.mark.parametrize("k", EXPECTED)
def test_the_five_points_give_the_values_worked_out_by_hand(k):
    """σ, the novelty of every candidate in rounds 2 and 3, and the order, for K = 1, 2, 3."""
    done = run_job("explain_novelty", "--distances", TABLE, "--neighbors", k, *SETTINGS, "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    sigma, second, third, order = EXPECTED[k]
    assert [line["sigma"] for line in data["densities"]] == pytest.approx(sigma, rel=2e-5)
    rounds = [[c["novelty"] for c in round_["candidates"]] for round_ in data["rounds"]]
    assert rounds[0] == [0] * 5
    assert rounds[1] == pytest.approx(second, rel=2e-6)
    assert rounds[2] == pytest.approx(third, rel=2e-6)
    assert [round_["pick"] for round_ in data["rounds"]] == [f"x{i}" for i in order]
    for round_ in data["rounds"]:
        for candidate in round_["candidates"]:
            assert sum(term["value"] for term in candidate["terms"]) == pytest.approx(candidate["novelty"])


def test_the_text_shows_denominators_terms_and_picks():
    """As a person would write it, with the answer to the question that started it: K = 2 gives 0.2 + 0.8 = 1."""
    done = run_job("explain_novelty", "--distances", TABLE, "--neighbors", 2, *SETTINGS, "--budget", 3)
    assert done.returncode == 0, done.stderr
    assert "σ(x1) = 1 / (d(x1,x2) + d(x1,x3)) = 1 / (0.2 + 0.8) = 1 / 1 = 1\n" in done.stdout
    assert "v(x2) = (1/1) · 1 · 0.2 [x1] = 0.2\n" in done.stdout
    third = "v(x2) = (1/1) · 1 · 0.2 [x1] + (1/2) · 1.66667 · 0.95 [x5] = 0.2 + 0.791667 = 0.991667\n"
    assert third in done.stdout
    assert done.stdout.rstrip().endswith("Picks in order: x1, x5, x2")


# By symmetric, K = 2: novelty of x2 ... after {x1}; after {x1, x5}; the order of picks.
SYMMETRIC = (
    [(1 + 1 / 0.95) * 0.2, (1 + 1 / 0.65) * 0.8, (1 + 1 / 0.55) * 0.9, (1 + 1 / 0.6) * 1.0],
    [
        (1 + 1 / 0.95) * 0.2 + (1 / 0.6 + 1 / 0.95) * 0.95 / 2,
        (1 / 0.6 + 1 / 0.65) * 0.35 + (1 + 1 / 0.65) * 0.8 / 2,
        (1 / 0.6 + 1 / 0.55) * 0.25 + (1 + 1 / 0.55) * 0.9 / 2,
    ],
    ["x1", "x5", "x4"],
)


def test_the_symmetric_formula_adds_the_density_factor_of_the_candidate():
    """The same σ, other sums and another third pick; the text has both factors in each term."""
    arguments = ("--distances", TABLE, "--neighbors", 2, *SETTINGS, "--budget", 3, "--formula", "symmetric")
    done = run_job("explain_novelty", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    second, third, order = SYMMETRIC
    assert data["formula"] == "symmetric"
    assert [line["sigma"] for line in data["densities"]] == pytest.approx(EXPECTED[2][0], rel=2e-5)
    rounds = [[c["novelty"] for c in round_["candidates"]] for round_ in data["rounds"]]
    assert rounds[1] == pytest.approx(second)
    assert rounds[2] == pytest.approx(third)
    assert [round_["pick"] for round_ in data["rounds"]] == order
    for round_ in data["rounds"]:
        for candidate in round_["candidates"]:
            assert sum(term["value"] for term in candidate["terms"]) == pytest.approx(candidate["novelty"])
    text = run_job("explain_novelty", *arguments).stdout
    assert "v(x4) = (1/1) · (1.81818 + 1.66667) · 0.25 [x5] + (1/2) · (1.81818 + 1) · 0.9 [x1] = " in text
    assert "Each term is w^κ1 · (σ(x)^κ2 + σ(x_j)^κ2) · d, with w" in text
    rooted = run_job("explain_novelty", *arguments, "--density-power", 0.5).stdout
    assert "v(x5) = (1/1) · (1.66667^0.5 + 1^0.5) · 1 [x1] = 2.29099\n" in rooted
    assert text.strip() in (ROOT / "docs" / "worked-example.md").read_text()


def test_the_page_about_the_example_shows_what_the_command_prints():
    """docs/worked-example.md cannot drift from the program."""
    done = run_job("explain_novelty", "--distances", TABLE, "--neighbors", 2, *SETTINGS, "--budget", 3)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Density factors σ, K = 2: ")
    assert done.stdout.strip() in (ROOT / "docs" / "worked-example.md").read_text()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (",a,b\na,0,1\n", "not square"),
        (",a,b\na,0,1\nb,1\n", "row 'b' has 1 distances"),
        (",a,b\na,0,1\nb,2,0\n", "cell (a, b) is 1 but (b, a) is 2"),
        (",a,b\na,0,-1\nb,-1,0\n", "cell (a, b) is negative"),
        (",a,b\na,0,1\nb,1,0.5\n", "cell (b, b) on the diagonal is 0.5"),
        (",a,b\na,0,one\nb,1,0\n", "cell (a, b) is 'one'"),
        (",a,b\na,0,nan\nb,nan,0\n", "cell (a, b) is 'nan'"),
        (",a,a\na,0,1\na,1,0\n", "labels"),
        (",a,b\na,0,1\nc,1,0\n", "labelled 'c', expected 'b'"),
        ("", "is empty"),
    ],
)
def test_a_table_that_is_not_one_of_distances_is_refused(tmp_path: Path, table: str, words: str):
    """Exit code 3 and one line that names the cell."""
    path = tmp_path / "table.csv"
    path.write_text(table)
    done = run_job("explain_novelty", "--distances", path, "--neighbors", 1)
    assert done.returncode == 3
    assert words in error_line(done)
    assert str(path) in error_line(done)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--neighbors", 5), 3, "below the number of points, 5"),
        (("--neighbors", 0), 2, "--neighbors"),
        (("--first", "x9", "--neighbors", 2), 3, "'x9' is not in the table"),
        (("--budget", 6, "--neighbors", 2), 3, "--budget 6"),
        (("--density-power", "inf"), 2, "--density-power"),
        (("--formula", "released"), 2, "--formula released takes density factors from the vectors"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(arguments, code, words):
    """Usage gives 2, what the table cannot serve gives 3."""
    done = run_job("explain_novelty", "--distances", TABLE, *arguments)
    assert done.returncode == code
    assert words in error_line(done)


def test_a_missing_table_is_named(tmp_path: Path):
    done = run_job("explain_novelty", "--distances", tmp_path / "none.csv")
    assert done.returncode == 3
    assert "none.csv cannot be read: No such file" in error_line(done)
