"""Density by cells: exact where all are probed, with the recall it reports elsewhere."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import density_by_formula, numbered

from novelsum import formula
from novelsum.density.cells import sampled
from novelsum.density.layout import matrix
from novelsum.density.near import MEASURING, choose_probes, measured_fraction
from novelsum.density.neighbors import Sought

RNG = np.random.default_rng(8)


# --- exact where all cells are probed ---------------------------------------------------------------------


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
@pytest.mark.parametrize(("method", "metric"), [("paper", "cosine"), ("paper", "euclidean"), ("released", "cosine")])
def test_with_all_cells_probed_the_density_has_the_bits_of_the_formula(
    repeated, density, tmp_path, method, metric, duplicates
):
    settings = {"formula": method, "metric": metric, "duplicates": duplicates}
    found, report = density(
        repeated.write(tmp_path / "in", rows_per_file=200), target_recall=1.0, block_rows=90, **settings
    )
    assert found == density_by_formula(repeated, **settings)
    assert report["probes"] == report["cells"] > 30
    assert report["recall"] == 1.0
    assert report["sigma_error_p99"] == 0


def test_the_approximation_does_not_depend_on_the_layout(repeated, density, tmp_path):
    """The same bits from rows in any order, in any files, in any blocks."""
    paths = repeated.write(tmp_path / "a", rows_per_file=77), repeated.write(tmp_path / "b", np.arange(600)[::-1])
    found = [density(path, block_rows=size, target_recall=0.8) for path, size in zip(paths, (40, 500), strict=True)]
    assert found[0] == found[1]
    assert found[0][1]["probes"] < found[0][1]["cells"]


SMALL = {
    "K is all others": (RNG.normal(size=(12, 3)), {"neighbors": 11}),
    "two points": (np.array([[1.0, 0], [0, 1]]), {"neighbors": 1}),
    "dimension 1": (RNG.normal(size=(150, 1)), {"metric": "euclidean", "neighbors": 4}),
    "dimension 4096": (RNG.normal(size=(120, 4096)), {"neighbors": 3}),
    "all equal": (np.ones((90, 4)), {"duplicates": "keep", "neighbors": 5}),
    "one far away": (
        np.concatenate([RNG.normal(size=(80, 4)), [[1e6, 0, 0, 0]]]),
        {"metric": "euclidean", "neighbors": 3},
    ),
}


@pytest.mark.more
@pytest.mark.parametrize("case", SMALL)
def test_small_and_strange_pools(density, tmp_path, case):
    """No candidate ends with fewer than K neighbours, however few cells it should probe."""
    vectors, settings = SMALL[case]
    pool = numbered(vectors)
    path = pool.write(tmp_path / "in", rows_per_file=1 if len(vectors) < 20 else None)
    assert density(path, target_recall=1.0, **settings)[0] == density_by_formula(pool, **settings)
    found, report = density(path, target_recall=0.01, **settings)
    true = density_by_formula(pool, **settings)
    assert all(0 < found[id_] <= true[id_] for id_ in true)
    assert report["probes"] <= 2


# --- recall -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("whole", "method", "target"),
    [
        (False, "paper", 0.8),
        *(pytest.param(True, method, 0.9, marks=pytest.mark.more) for method in formula.FORMULAS),
    ],
)
def test_the_recall_it_reports_is_the_recall_it_has(density, sample, repeated, tmp_path, whole, method, target):
    """Brute force over the same measured prompts gives the reported numbers; over all prompts about the same."""
    rows = sample if whole else repeated
    found, report = density(rows.write(tmp_path / "in"), formula=method, target_recall=target)
    pool = rows.distinct()
    true = np.array(list(density_by_formula(rows, formula=method).values()))
    error = np.abs(np.array([found[id_] for id_ in pool.ids]) / true - 1)
    measured = np.flatnonzero(sampled(np.arange(len(true)), measured_fraction(len(true)), MEASURING))[1::2]
    assert report["measured"] == len(measured)
    assert report["sigma_error_median"] == pytest.approx(np.median(error[measured]), abs=1e-12)
    assert report["sigma_error_p99"] == pytest.approx(np.quantile(error[measured], 0.99), rel=1e-9)
    table = pq.read_table(tmp_path / "work-0" / "found").sort_by("row")
    found_squared = matrix(table.column("squared"), "float64")[measured]
    space = pool.vectors if method == "released" else formula.normalize(pool.vectors)
    squared = np.sort(formula.squared_distances(space[measured], space), axis=1)[:, 1:11]  # the first is itself
    nearest = found_squared[:, 1:] if method == "released" else found_squared
    assert report["recall"] == pytest.approx((nearest <= squared[:, -1:]).mean(), abs=1e-6)
    assert target <= report["recall"] < 1
    assert (error > 1e-12).mean() == pytest.approx((error[measured] > 1e-12).mean(), abs=0.08)


def test_more_recall_takes_more_probes(density, repeated, tmp_path):
    path = repeated.write(tmp_path / "in")
    reports = [density(path, target_recall=target)[1] for target in (0.5, 0.97)]
    assert reports[0]["probes"] < reports[1]["probes"]
    assert all(report["recall"] >= target for report, target in zip(reports, (0.5, 0.97), strict=True))


def test_as_many_cells_are_probed_as_the_error_of_density_takes():
    """Where one probe finds nine neighbours of ten but two rows of forty miss one beside them, two are probed."""
    sought = Sought("paper", "euclidean", 2)
    squared, needed = np.tile([1.0, 1.0, 100.0, 100.0], (40, 1)), np.ones((40, 4), dtype=np.int64)
    needed[:2, 1] = 2
    chosen = choose_probes(sought, needed, squared, np.zeros(40, dtype=bool), 0.9)
    assert chosen == 2
    squared[:2] = 1.0  # what they find instead is as near
    assert choose_probes(sought, needed, squared, np.zeros(40, dtype=bool), 0.9) == 1
    assert choose_probes(sought, needed, squared, np.zeros(40, dtype=bool), 1.0) is None


def test_the_error_of_density_is_as_small_as_the_target_asks(density, sample, tmp_path):
    path = sample.write(tmp_path / "in")
    for target in (0.9, 0.97):
        report = density(path, target_recall=target)[1]
        assert report["sigma_error_p99"] <= 2 * (1 - target)
        assert report["probes"] < report["cells"]


@pytest.mark.parametrize("count", [1, *(pytest.param(count, marks=pytest.mark.more) for count in (2, 3))])
def test_a_few_candidates_over_a_reference_are_all_measured(density, repeated, tmp_path, count):
    """One both chooses the probes and tells the recall."""
    path, reference = (
        repeated.write(tmp_path / "in", np.arange(count)),
        repeated.write(tmp_path / "ref", np.arange(10, 600)),
    )
    found, report = density(path, reference, duplicates="keep", target_recall=0.9)
    true = formula.density(repeated.vectors[:count], 10, reference=repeated.vectors[10:])
    assert list(found) == repeated.ids[:count]
    assert report["measured"] == max(1, count // 2)
    error = np.abs(np.array(list(found.values())) / true - 1)
    assert report["sigma_error_median"] == pytest.approx(np.median(error[1::2] if count > 1 else error), abs=1e-12)
    assert 0.9 <= report["recall"] <= 1
