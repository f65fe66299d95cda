"""What the evidence on training counts: the probe's closed forms, intervals, correlations, results kept, the page."""

import json

import numpy as np
import pytest


def test_errors_of_rows_left_out_are_those_of_fits_without_them(evidence):
    """By n fits with n - 1 rows each, their intercept not shrunk, by the normal equations."""
    rng = np.random.default_rng(3)
    vectors, targets = rng.normal(size=(17, 29)), rng.normal(size=(17, 3))
    vectors[4] = vectors[5]
    for ridge in (1e-2, 3.0):
        found = evidence("probe").Ridge(vectors, targets).errors(ridge)
        for left_out in range(17):
            x, y = np.delete(vectors, left_out, 0), np.delete(targets, left_out, 0)
            centred = x - x.mean(axis=0)
            weights = np.linalg.solve(centred.T @ centred + ridge * np.eye(29), centred.T @ (y - y.mean(axis=0)))
            expected = targets[left_out] - y.mean(axis=0) - (vectors[left_out] - x.mean(axis=0)) @ weights
            assert found[left_out] == pytest.approx(expected, abs=1e-9)
            if left_out == 0:
                whole = evidence("probe").Ridge(x, y)
                assert whole.predict(vectors[:1], ridge)[0] == pytest.approx(targets[0] - expected, abs=1e-9)


def test_a_probe_of_one_pick_or_of_one_group_answers_it(evidence):
    probe = evidence("probe")
    for rows in (1, 4):
        ridge = probe.Ridge(np.eye(5)[:rows], np.ones((rows, 1)))
        assert ridge.predict(np.eye(5), ridge.best()).argmax(axis=1).tolist() == [0] * 5


def test_balanced_accuracy_counts_a_rare_group_as_much_as_a_large_one(evidence):
    true = np.array(["a"] * 8 + ["b"] * 2)
    assert evidence("probe").scores(true, np.array(["a"] * 10)) == (0.8, 0.5)


def test_an_interval_is_that_of_student(evidence):
    """A published example: 5 values, t(4) = 2.776."""
    found = evidence("intervals").interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert found.half == pytest.approx(2.7764 * np.sqrt(2.5 / 5), rel=1e-4)
    assert [evidence("intervals").Interval(mean, 1.0).sign for mean in (1.5, -1.5, 0.5)] == [1, -1, 0]


def test_intervals_of_five_normal_values_hold_the_mean_95_times_of_100(evidence):
    draws = np.random.default_rng(5).normal(size=(4_000, 5))
    held = [abs(found.mean) <= found.half for found in map(evidence("intervals").interval, draws)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)


def test_the_rank_correlation_is_spearmans(evidence):
    """Without ties by the formula of squared differences; with ties, ranks are shared."""
    intervals = evidence("intervals")
    a, b = np.random.default_rng(1).normal(size=(2, 9))
    differences = np.argsort(np.argsort(a)) - np.argsort(np.argsort(b))
    expected = 1 - 6 * np.square(differences).sum() / (9 * (81 - 1))
    assert intervals.rank_correlation(a, b) == pytest.approx(expected)
    assert intervals.rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert intervals.rank_correlation(a, -a) == pytest.approx(-1)
    assert intervals.ranks([3.0, 1.0, 3.0, 2.0]).tolist() == [3.5, 1.0, 3.5, 2.0]
    assert np.isnan(intervals.rank_correlation(a, np.ones(9)))


def test_results_outlive_a_kill_in_the_middle_of_a_line(evidence, tmp_path):
    trainings = evidence("trainings")
    tasks = [trainings.Task("manual", "paper", start, 5) for start in (1, 2, 3)]
    path = tmp_path / "some" / "probe.jsonl"
    kept = trainings.Kept(path, "ridge")
    for task in tasks[:2]:
        kept.add(task, ["a", "b"], {"accuracy": task.start / 8})
    path.write_text(path.read_text() + '{"corpus": "man')
    again = trainings.Kept(path, "ridge")
    assert [again.has(task, ["a", "b"]) for task in tasks] == [True, True, False]
    again.add(tasks[2], ["a", "b"], {"accuracy": 0.5})
    assert [found["accuracy"] for _, found in trainings.Kept(path, "ridge")] == [0.125, 0.25, 0.5]


def test_a_result_of_other_picks_or_of_another_training_is_made_again(evidence, tmp_path):
    trainings = evidence("trainings")
    task = trainings.Task("manual", "paper", 1, 5)
    trainings.Kept(tmp_path / "a", "ridge").add(task, ["a", "b"], {})
    assert trainings.Kept(tmp_path / "a", "ridge").has(task, ["a", "b"])
    assert not trainings.Kept(tmp_path / "a", "ridge").has(task, ["b", "a"])
    assert not trainings.Kept(tmp_path / "a", "other").has(task, ["a", "b"])
    assert not list(trainings.Kept(tmp_path / "a", "other"))


# --- the page ---------------------------------------------------------------------------------------------


def made_up(evidence, bits, balanced):
    """Rows of two corpora at one budget, three starts: a strategy's scores by its number, the start a little off."""
    return [
        {"corpus": corpus, "config": strategy, "start": start, "budget": 5, "bytes": 1_000 + 10 * number}
        | {"balanced": balanced(number) + start / 1_000, "accuracy": balanced(number) + start / 1_000}
        | {"bits": bits(number) - start / 1_000, "bits_by_group": bits(number) - start / 1_000}
        | {"novelsum": number, "novelsum_released": -number, "novelsum_distances": None, "coverage": 1 - number / 10}
        for corpus in ("manual", "wordnet")
        for number, strategy in enumerate(evidence("trainings").STRATEGIES)
        for start in (1, 2, 3)
    ]


def test_the_tables_say_who_leads_and_that_random_loses_to_it(evidence):
    page = evidence("evidence")
    rows = made_up(evidence, bits=lambda number: 3 - number / 10, balanced=lambda number: number / 10)
    tables = page.tables(rows)
    assert "| random | 0 | 0 | 0 | 0 |" in tables["wins"]
    assert "| paper, κ2 = 0 | 2: 2 / 0 / 0 | 2: 2 / 0 / 0 | 2: 2 / 0 / 0 | 2: 2 / 0 / 0 |" in tables["wins"]
    assert "| probe | **all** | +1.00 (+1.00 to +1.00) | -1.00 (-1.00 to -1.00) |  | +1.00" in tables["correlation"]
    assert "| language model | wordnet | +1.00 (+1.00 to +1.00) | -1.00" in tables["correlation"]
    assert "| wordnet | 5% | 1,000 | 1.01 | 1.02 |" in tables["bytes"]
    assert "**0.602 ± 0.002** ▲" in tables["probe"]


def test_the_tables_say_where_random_wins(evidence):
    page = evidence("evidence")
    tables = page.tables(made_up(evidence, bits=lambda number: 3 + number / 10, balanced=lambda number: -number / 10))
    assert "| random | 2 | 2 | 2 | 2 |" in tables["wins"]
    assert "| k-means | 0: 0 / 2 / 0 | 0: 0 / 2 / 0 | 0: 0 / 2 / 0 | 0: 0 / 2 / 0 |" in tables["wins"]
    assert "random has the best mean most often (2 of 2)" in tables["summary"]
    assert tables["language"].count("▼") == 12


def test_a_strategy_is_compared_with_random_texts_of_as_many_bytes(evidence):
    """It loses to as many texts, and wins against as many bytes; without the latter the place is empty."""
    page = evidence("evidence")
    rows = made_up(evidence, bits=lambda number: 3 + number / 10, balanced=lambda number: 0.5)
    control = [row | {"config": "bytes-of-paper", "bits": 3.5 + row["start"] / 4, "balanced": None} for row in rows[:3]]
    matched = page.tables(rows + control)["matched"].splitlines()
    assert matched[2] == "| manual | 5% | -0.300 ± 0.000 | +0.702 ± 0.624 | -0.400 ± 0.000 |  |"
    assert matched[3] == "| wordnet | 5% | -0.300 ± 0.000 |  | -0.400 ± 0.000 |  |"
    told = "with as many texts 0 better and 1 worse (-0.300 bits per byte in the mean), with as many bytes 1 better"
    assert told in page.tables(rows + control)["summary"]
    assert "symmetric against" not in page.tables(rows + control)["summary"]
    assert page.tables(rows + control)["probe"] == page.tables(rows)["probe"]


def test_only_starts_that_all_strategies_have_are_compared(evidence):
    page = evidence("evidence")
    rows = made_up(evidence, bits=lambda number: 3.0, balanced=lambda number: 0.5)
    rows = [row for row in rows if (row["config"], row["start"], row["corpus"]) != ("k-means", 2, "manual")]
    rows = [row for row in rows if (row["config"], row["corpus"]) != ("released", "wordnet") or row["start"] == 1]
    cells = page.cells(rows, page.SCORES["probe"])
    assert [(cell.corpus, cell.starts) for cell in cells] == [("manual", [1, 3])]


def test_the_page_on_training_is_what_the_committed_results_say(evidence):
    page = evidence("evidence")
    assert page.with_tables(page.PAGE.read_text(), page.read()) == page.PAGE.read_text(), "make evidence writes it"
    for line in page.RESULTS.read_text().splitlines():
        assert all(0 <= json.loads(line)[name] <= 1 for name in ("balanced", "accuracy") if json.loads(line)[name])
