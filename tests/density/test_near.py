"""Density by cells: exact where all are probed, with the recall it reports elsewhere; references."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Points, error_line, run_job, write_parquet

from novelsum import formula
from novelsum.density.cells import Cells, nearest_cells, sampled
from novelsum.density.exact import estimate_density
from novelsum.density.factors import read_density
from novelsum.density.layout import matrix
from novelsum.density.near import MEASURING, measured_fraction
from novelsum.density.reference import mark_itself
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.source import open_source
from novelsum.files.store import read_block
from novelsum.settings import Settings

RNG = np.random.default_rng(8)


@pytest.fixture
def density(spark: Any, tmp_path: Path):
    """Density by id and the report of a run of ingest and density alone."""
    runs = iter(range(100))

    def run(path: str, reference: str | None = None, **settings: Any) -> tuple[dict[Any, float], dict[str, Any]]:
        chosen = replace(Settings(input=path, reference=reference, density_method="approximate"), **settings)
        work = Location.of(str(tmp_path / f"work-{next(runs)}"))
        pools = []
        for number, source in enumerate(filter(None, (path, reference))):
            pools.append(ingest(spark, open_source(source, "id", "embedding"), chosen, work / str(number)))
        if reference:
            pools[0] = mark_itself(spark, *pools, chosen)
        report = estimate_density(spark, pools[0], chosen, work, pools[1] if reference else None)
        found = {}
        for block in pools[0].blocks:
            ids = read_block(pools[0].work, block.name).ids.to_pylist()
            found.update(zip(ids, read_density(work, block.name).density.tolist(), strict=True))
        return found, report

    return run


def expected(points: Points, **settings: Any) -> dict[Any, float]:
    """By the formula."""
    chosen = replace(Settings(), **settings)
    if chosen.duplicates == "drop":
        points = points.distinct()
    sigma = formula.density(points.vectors, chosen.neighbors, formula=chosen.formula, metric=chosen.metric)
    return dict(zip(points.ids, sigma.tolist(), strict=True))


def points(vectors: np.ndarray) -> Points:
    return Points([f"x{i:05d}" for i in range(len(vectors))], np.asarray(vectors, dtype=np.float32))


@pytest.fixture(scope="module")
def few(sample: Points) -> Points:
    """600 prompts, 100 of them copies of others."""
    vectors = np.concatenate([sample.vectors[:500], sample.vectors[RNG.integers(0, 40, 100)]])
    return points(vectors[RNG.permutation(600)])


# --- exact where all cells are probed ---------------------------------------------------------------------


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
@pytest.mark.parametrize(("method", "metric"), [("paper", "cosine"), ("paper", "euclidean"), ("released", "cosine")])
def test_with_all_cells_probed_the_density_has_the_bits_of_the_formula(
    few, density, tmp_path, method, metric, duplicates
):
    settings = {"formula": method, "metric": metric, "duplicates": duplicates}
    found, report = density(few.write(tmp_path / "in", rows_per_file=200), target_recall=1.0, block_rows=90, **settings)
    assert found == expected(few, **settings)
    assert report["probes"] == report["cells"] > 30
    assert report["recall"] == 1.0
    assert report["sigma_error_p99"] == 0


def test_the_approximation_does_not_depend_on_the_layout(few, density, tmp_path):
    """The same bits from rows in any order, in any files, in any blocks."""
    paths = few.write(tmp_path / "a", rows_per_file=77), few.write(tmp_path / "b", np.arange(600)[::-1])
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
    pool = points(vectors)
    path = pool.write(tmp_path / "in", rows_per_file=1 if len(vectors) < 20 else None)
    assert density(path, target_recall=1.0, **settings)[0] == expected(pool, **settings)
    found, report = density(path, target_recall=0.01, **settings)
    true = expected(pool, **settings)
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
def test_the_recall_it_reports_is_the_recall_it_has(density, sample, few, tmp_path, whole, method, target):
    """Brute force over the same measured prompts gives the reported numbers; over all prompts about the same."""
    rows = sample if whole else few
    found, report = density(rows.write(tmp_path / "in"), formula=method, target_recall=target)
    pool = rows.distinct()
    true = np.array(list(expected(rows, formula=method).values()))
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


def test_more_recall_takes_more_probes(density, few, tmp_path):
    path = few.write(tmp_path / "in")
    reports = [density(path, target_recall=target)[1] for target in (0.5, 0.97)]
    assert reports[0]["probes"] < reports[1]["probes"]
    assert all(report["recall"] >= target for report, target in zip(reports, (0.5, 0.97), strict=True))


@pytest.mark.parametrize("count", [1, *(pytest.param(count, marks=pytest.mark.more) for count in (2, 3))])
def test_a_few_candidates_over_a_reference_are_all_measured(density, few, tmp_path, count):
    """One both chooses the probes and tells the recall."""
    path, reference = few.write(tmp_path / "in", np.arange(count)), few.write(tmp_path / "ref", np.arange(10, 600))
    found, report = density(path, reference, duplicates="keep", target_recall=0.9)
    true = formula.density(few.vectors[:count], 10, reference=few.vectors[10:])
    assert list(found) == few.ids[:count]
    assert report["measured"] == max(1, count // 2)
    error = np.abs(np.array(list(found.values())) / true - 1)
    assert report["sigma_error_median"] == pytest.approx(np.median(error[1::2] if count > 1 else error), abs=1e-12)
    assert 0.9 <= report["recall"] <= 1


# --- cells ------------------------------------------------------------------------------------------------


def test_a_crowd_within_a_thousandth_is_cut_into_cells_like_the_rest():
    """Half of the points within 1e-3 of one, a quarter of all equal: no cell holds more than four times the mean."""
    vectors = RNG.normal(size=(4000, 16))
    vectors[:2000] = vectors[0] + 1e-3 / 4 * RNG.normal(size=(2000, 16))
    vectors[2000:3000] = vectors[2000]
    space = formula.normalize(vectors)
    cells = Cells.trained(space[::2], 100, True, 8)
    own = cells.assign(space, np.arange(4000))
    assert np.bincount(own).max() <= 4 * 40
    assert np.bincount(cells.group[own], minlength=8).max() <= 2 * 500
    assert (np.diff(cells.group) >= 0).all()


def test_the_nearest_cells_are_chosen_exactly_and_ties_go_to_the_first():
    centroids = RNG.normal(size=(30, 5))
    centroids[7] = centroids[21]
    vectors = np.concatenate([RNG.normal(size=(50, 5)), centroids[7:8]])
    squared = formula.squared_distances(vectors, centroids)
    for count in (1, 4, 29, 30):
        mask = np.zeros(squared.shape, dtype=bool)
        np.put_along_axis(mask, np.argsort(squared, axis=1, kind="stable")[:, :count], True, axis=1)
        assert np.array_equal(nearest_cells(vectors, centroids, count), mask)


def test_an_empty_cell_is_probed_in_vain_and_more_are_added():
    cells = Cells(np.arange(6.0)[:, None], np.ones(6, dtype=np.int64), np.array([0, 0, 0, 1, 1, 1]))
    mask = cells.probed(np.array([[0.1], [4.9]]), np.array([0, 5]), 2, np.array([1, 0, 2, 3, 0, 2]), 3)
    assert mask.tolist() == [[True] * 4 + [False] * 2, [False] * 2 + [True] * 4]


# --- reference --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", "approximate"])
@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_a_reference_gives_the_density_over_it_and_leaves_a_candidate_itself_out(
    few, density, tmp_path, method, duplicates
):
    """Of a part of the pool over the whole of it: the whole pool's own density."""
    settings = {"density_method": method, "target_recall": 1.0, "duplicates": duplicates, "block_rows": 200}
    whole = few.write(tmp_path / "whole")
    part = few.write(tmp_path / "part", np.arange(600)[400:])
    found, _ = density(part, whole, **settings)
    true = expected(few, duplicates="keep" if duplicates == "keep" else "drop")
    by_vector = {few.vectors[int(id_[1:])].tobytes(): value for id_, value in true.items()}
    assert len(found) >= 150
    for id_, value in found.items():
        assert value == (true[id_] if duplicates == "keep" else by_vector[few.vectors[int(id_[1:])].tobytes()])


@pytest.mark.more
@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_the_released_formula_over_another_corpus(few, density, tmp_path, method):
    pool, corpus = points(few.vectors[:150]), few.vectors[100:]
    reference = points(corpus).write(tmp_path / "ref")
    found, _ = density(
        pool.write(tmp_path / "in"), reference, formula="released", density_method=method, target_recall=1.0
    )
    true = formula.density(pool.vectors, 10, reference=corpus, formula="released")
    kept = pool.distinct().ids
    assert len(kept) < len(pool.ids)
    of_id = dict(zip(pool.ids, true.tolist(), strict=True))
    assert found == {id_: of_id[id_] for id_ in kept}


@pytest.mark.more
def test_curate_over_a_reference_says_so_in_the_manifest(few, tmp_path):
    reference = few.write(tmp_path / "whole")
    part = few.write(tmp_path / "part", np.arange(60))
    done = run_job("curate", "--input", part, "--reference", reference, "--output", tmp_path / "out", "--budget", 5)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "_MANIFEST.json").read_text())
    assert manifest["density"] == {"method": "exact"}
    assert manifest["reference"]["candidates"] == len(few.distinct().ids)
    other = write_parquet(tmp_path / "other.parquet", [f"y{i}" for i in range(20)], np.ones((20, 3), np.float32))
    done = run_job("curate", "--input", part, "--reference", other, "--output", tmp_path / "o", "--budget", 5)
    assert done.returncode == 3
    assert "have 3 dimensions, but those of" in error_line(done)
