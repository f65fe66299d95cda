"""The cost model of make bench-scaling, on cases whose seconds are made up."""

import importlib
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

SPEED = 6e10
SIZES = [
    *((rows, 1_000, 512) for rows in (24_000, 48_000, 96_000, 192_000)),
    *((48_000, budget, 512) for budget in (500, 2_000, 4_000)),
    *((48_000, 1_000, dimension) for dimension in (256, 1_024, 2_048, 4_096)),
    *((96_000, 2_000, 1_024), (24_000, 2_000, 256), (96_000, 500, 2_048)),
]


@pytest.fixture
def cost(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    return importlib.import_module("cost")


def made_up(cost: Any, rows: int, budget: int, dimension: int, noise: float = 0.0) -> Any:
    """A case on two cores: counts and seconds by rules of the model's own kind, off by some noise."""
    off = np.exp(noise * np.random.default_rng(rows + budget + dimension).normal(size=3))
    counted = cost.least_rounds(budget) * 2 * (rows / 48_000) ** 0.1
    driver = off[0] * (2e-3 * budget + 2e-8 * 50 * budget * budget)
    operations = 2.0 * rows * budget * dimension
    executors = off[1] * (0.1 * counted + 1.5 * 1.3 * operations / 2 / SPEED + 5e-9 * 1.3 * rows * budget)
    effort = {"rounds": counted, "drafted": 1.3 * budget, "multiplied": budget, "bounds": 1.1 * rows * counted}
    effort |= {"reported": 20 * budget, "summed": 25 * budget, "evaluated": 50 * budget}
    effort["seconds"] = {"draft": driver, "verify": executors, "admit": 0.0, "log": 0.0}
    return cost.Timed(
        **{"rows": rows, "dimension": dimension, "budget": budget, "formula": "paper", "tasks": 6, "picked": budget},
        **{"selection": 1 + driver + executors, "driver_cpu": driver, "latency": 0.1, "jobs": 1, "memory": {}},
        effort=effort,
        floor=[off[2] * operations / 2 / SPEED],
    )


@pytest.mark.parametrize(("noise", "within"), [(0.0, 0.02), (0.05, 0.25)])
def test_the_model_predicts_cases_it_was_not_fitted_to(noise, within, cost):
    """Between the cases of the grid, and at the paper's size: four times as many candidates, ten times the budget."""
    latency = cost.Latency(0.04, 0.0, 0.02)
    fitted = cost.Model.fitted([made_up(cost, *size, noise) for size in SIZES], 2, latency)
    for size in ((120_000, 3_000, 768), (396_000, 10_000, 4_096)):
        expected = made_up(cost, *size).selection
        found = fitted.total(cost.Case(size[0], size[2], size[1], 2, 6, SPEED))
        assert found == pytest.approx(expected, rel=within), size


def test_no_term_of_a_fit_is_negative(cost):
    amounts = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    assert cost.nonnegative(amounts, np.array([3.0, 5.0, 7.0])) == pytest.approx([1, 2])
    assert cost.nonnegative(amounts, np.array([5.0, 4.0, 3.0]))[1] == 0
