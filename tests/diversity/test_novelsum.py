"""NovelSum from one pass over the distances equals the formula, on Spark, for samples and for edge cases."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import DATA, Points, error_line, run_job, write_parquet

from novelsum import formula
from novelsum.diversity.measuring import measure_pool
from novelsum.diversity.novelsum import Columns, Grid, Leading, Tally, in_space, tally, values, variance
from novelsum.diversity.onepass import DataSet
from novelsum.errors import UsageError
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.source import open_source
from novelsum.formulas import EQUATIONS, MEASURED
from novelsum.settings import MeasureSettings, parse_measure

GRID = {"neighbors": (2, 7), "proximity_power": (0.0, 1.0, 2.0), "density_power": (0.0, 0.5, 1.0)}


def by_formula(value, vectors, metric="cosine", **options) -> formula.NovelSum:
    """What the formula says at one point of the grid."""
    sigma = formula.density(vectors, value.neighbors, formula=value.formula, metric=metric, **options)
    return formula.novelsum(
        formula.distances(vectors, vectors, metric),
        sigma,
        formula=value.formula,
        proximity_power=value.proximity_power,
        density_power=value.density_power,
    )


def by_kernel(vectors: np.ndarray, grid: Grid, order: np.ndarray, parts: int = 3):
    points, lengths = in_space(vectors, grid.metric)
    distinct = np.zeros(len(vectors), dtype=bool)
    distinct[np.unique(vectors, axis=0, return_index=True)[1]] = True
    split = np.array_split(order, parts)
    columns = [Columns(points[rows], lengths[rows], rows, distinct[rows]) for rows in split]
    found = Tally.joined([tally(part, np.zeros(len(part.rows), np.int64), 1, columns, None, grid) for part in columns])
    factors = {
        (name, k): formula.density(vectors, k, formula=name, metric=grid.metric)
        for name in grid.formulas
        for k in grid.neighbors
    }
    return values(grid, found, factors, len(vectors))


@pytest.mark.parametrize("metric", formula.METRICS)
def test_the_kernel_equals_the_formula_in_any_order_with_copies_and_ties(metric):
    """Copies, points on a lattice whose distances tie, and any order of rows: 1e-9; lattice cosines tie only nearly."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(150, 5))
    lattice = rng.integers(1, 4, size=(60, 5)).astype(float) if metric == "euclidean" else vectors[:0]
    vectors = np.concatenate([vectors, vectors[:25], lattice])
    grid = Grid(metric=metric, neighbors=(2, 7), proximity_powers=(0.0, 1.0, 2.0), density_powers=(0.0, 0.5, 1.0))
    expected = None
    for order in (np.arange(len(vectors)), rng.permutation(len(vectors))):
        found = by_kernel(vectors, grid, order)
        assert len(found) == 36
        expected = expected or [by_formula(value, vectors, metric) for value in found]
        for value, wanted in zip(found, expected, strict=True):
            assert (value.sum, value.mean) == pytest.approx((wanted.sum, wanted.mean), rel=1e-9)
            assert value.mean_low == value.mean == value.mean_high


def test_all_points_equal_has_no_diversity():
    """Every distance is 0 to the bit, however large the density."""
    found = by_kernel(np.tile([[0.3, 0.7, -0.2]], (9, 1)), Grid(("paper",), neighbors=(3,)), np.arange(9))
    assert found[0].sum == 0


@pytest.mark.parametrize("metric", formula.METRICS)
@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("powers", [(1.0, 0.0), (0.0, 0.5), (2.0, 1.0)])
def test_the_variance_is_that_of_the_means_without_each_row(metric, name, powers):
    """The delete-one jackknife with each of 60 means by the formula, of rows with copies, σ left as it is."""
    vectors = np.random.default_rng(4).normal(size=(50, 4))
    vectors = np.concatenate([vectors, vectors[:10]])
    n, (proximity_power, density_power) = len(vectors), powers
    sigma = formula.density(vectors, 5, formula=name, metric=metric)
    d = formula.distances(vectors, vectors, metric)
    means = []
    for row in range(n):
        others = np.arange(n) != row
        options = {"formula": name, "proximity_power": proximity_power, "density_power": density_power}
        means.append(formula.novelsum(d[np.ix_(others, others)], sigma[others], **options).mean)
    grid = Grid((name,), metric, (5,), (proximity_power,), (density_power,))
    leading = Leading.of(EQUATIONS[name], proximity_power, sigma**density_power)
    points, lengths = in_space(vectors, metric)
    columns = [Columns(points[part], lengths[part], part, part >= 0) for part in np.array_split(np.arange(n)[::-1], 3)]
    parts = [tally(part, part.rows * 0, 1, columns, None, grid, leading) for part in columns]
    found = Tally.joined(parts)
    assert variance(found, leading) == pytest.approx((n - 1) / n * np.square(means - np.mean(means)).sum(), rel=1e-9)
    assert found.totals == pytest.approx(d.sum(axis=1), rel=1e-9)


# --- on Spark ---------------------------------------------------------------------------------------------


@pytest.fixture
def measured(spark, tmp_path):
    """Measure Parquet files as the job does, without the command line."""
    runs = iter(range(100))

    def pool(path, settings):
        work = Location.of(str(tmp_path / f"measured-{next(runs)}"))
        source = open_source(path, "id", "embedding")
        found = ingest(spark, source, settings.of_data_set(path), work)
        return DataSet(found.work, found.blocks)

    def run(path, reference=None, **settings):
        chosen = replace(MeasureSettings(input=(path,), output="out"), **settings)
        corpus = None if reference is None else pool(reference, chosen)
        return measure_pool(spark, chosen, pool(path, chosen), corpus)

    return run


def test_spark_equals_the_formula_on_real_prompts(sample, measured, tmp_path):
    """Both formulas, the whole grid, 500 prompts in shuffled files: 1e-6 asked for, 1e-9 given."""
    points = Points(sample.ids[:500], sample.vectors[:500])
    path = points.write(tmp_path / "in", np.random.default_rng(2).permutation(500), rows_per_file=200)
    found = measured(path, block_rows=150, formula=MEASURED, density_power=(0.0, 0.5, 1.0))
    assert len(found.values) == 6
    distinct = points.distinct().vectors
    assert found.rows == found.measured == len(distinct)
    for value in found.values:
        wanted = by_formula(value, distinct)
        assert (value.sum, value.mean) == pytest.approx((wanted.sum, wanted.mean), rel=1e-9)
    d = formula.distances(distinct, distinct)
    np.fill_diagonal(d, np.inf)
    assert found.mean_nearest_distance == pytest.approx(d.min(axis=1).mean(), rel=1e-9)


def test_released_equals_the_18_values_of_the_authors_code(prompts, measured, tmp_path):
    """The first 1,500 prompts within all 6,339, K, κ1 and κ2 as a grid, in one run."""
    expected = json.loads((DATA / "released_code_values.json").read_text())["novelsum"]["values"]
    grid = {name: tuple(sorted({v[name] for v in expected})) for name in GRID}
    part = Points(prompts.ids[:1500], prompts.vectors[:1500])
    paths = part.write(tmp_path / "in"), prompts.write(tmp_path / "all")
    found = measured(paths[0], paths[1], formula=("released",), **grid)
    by_settings = {(v.neighbors, v.proximity_power, v.density_power): v.mean for v in found.values}
    assert len(expected) == 18
    for value in expected:
        key = tuple(value[name] for name in GRID)
        assert by_settings[key] == pytest.approx(value["novelsum"], rel=1e-5)


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_a_reference_row_is_the_point_itself_by_id_and_embedding(measured, tmp_path, duplicates):
    """Rows 0-29 are in the corpus; 30-39 are not; of 40-49 the embedding is, by another id, which counts when kept."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(50, 4))
    vectors[40:] = vectors[:10]
    corpus = np.concatenate([vectors[:30], rng.normal(size=(20, 4))])
    rows = np.arange(50 if duplicates == "keep" else 40)
    names = [f"s{i:02d}" for i in range(50)]
    path = Points(names, vectors).write(tmp_path / "in")
    reference = Points([*names[:30], *(f"r{i}" for i in range(20))], corpus).write(tmp_path / "reference")
    found = measured(path, reference, duplicates=duplicates, neighbors=(3,), density_power=(0.5,))
    d = formula.distances(vectors, corpus)
    d[np.arange(30), np.arange(30)] = np.inf
    sigma = formula.density_factor(np.sort(d, axis=1)[:, :3])
    wanted = formula.novelsum(formula.distances(vectors[rows], vectors[rows]), sigma[rows])
    assert found.values[0].sum == pytest.approx(wanted.sum, rel=1e-9)


@pytest.mark.more
def test_a_sample_does_not_depend_on_row_order_and_its_interval_holds_the_truth(sample, measured, tmp_path):
    """400 of 2,771 rows, six seeds: 24 intervals of which at least 20 hold the exact value, none of them wide."""
    options = {"formula": MEASURED, "proximity_power": (0.5, 1.0), "density_power": (0.5,)}
    points = sample.distinct()
    path = points.write(tmp_path / "in")
    other = points.write(tmp_path / "other", np.random.default_rng(4).permutation(len(points.ids)), rows_per_file=700)
    exact = measured(path, **options).values
    sampled = {"exact_limit": 1000, "sample_rows": 400, **options}
    held = 0
    for seed in range(6):
        found = measured(path if seed % 2 else other, seed=seed, **sampled)
        assert (found.rows, found.measured) == (len(points.ids), 400)
        for value, wanted in zip(found.values, exact, strict=True):
            held += value.mean_low <= wanted.mean <= value.mean_high
            assert value.mean_low < value.mean < value.mean_high
            assert value.mean == pytest.approx(wanted.mean, rel=0.1)
    assert held >= 20
    again = measured(path, seed=0, **sampled).values, measured(other, seed=0, block_rows=200, **sampled).values
    for one, two in zip(*again, strict=True):
        assert (one.mean, one.mean_high) == pytest.approx((two.mean, two.mean_high), rel=1e-9)


# --- the job ----------------------------------------------------------------------------------------------


@pytest.mark.more
def test_the_job_measures_several_data_sets_and_writes_parquet_and_json(tmp_path):
    """Two rows and forty, one command; a row for each and for each setting; exact values of the formula."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(40, 4)).astype(np.float32)
    two = write_parquet(tmp_path / "two.parquet", ["a", "b"], vectors[:2])
    forty = write_parquet(tmp_path / "forty.parquet", [f"n{i:02d}" for i in range(40)], vectors)
    output = tmp_path / "out"
    arguments = ("--input", two, "--input", forty, "--neighbors", 1, "--density-power", 0.5, 1)
    arguments += ("--formula", *MEASURED, "--random-subsets", 0)
    done = run_job("measure_diversity", *arguments, "--output", output)
    assert done.returncode == 0, done.stderr
    assert "exact" in done.stdout
    rows = pq.read_table(output / "diversity.parquet").to_pylist()
    assert rows == json.loads((output / "diversity.json").read_text())
    assert [(Path(row["input"]).stem, row["formula"], row["density_power"]) for row in rows] == [
        (name, method, power) for name in ("two", "forty") for method in MEASURED for power in (0.5, 1.0)
    ]
    for row in rows:
        part = vectors[: row["rows"]]
        sigma = formula.density(part, 1, formula=row["formula"])
        wanted = formula.novelsum(
            formula.distances(part, part), sigma, formula=row["formula"], density_power=row["density_power"]
        )
        assert (row["novelsum_sum"], row["novelsum_mean"]) == pytest.approx((wanted.sum, wanted.mean), rel=1e-9)
    content = json.loads((output / "_MANIFEST.json").read_text())
    assert content["job"] == "measure_diversity"
    assert content["settings"]["density_power"] == [0.5, 1.0]
    assert [one["candidates"] for one in content["inputs"]] == [2, 40]
    names = ["_MANIFEST.json", "diversity.html", "diversity.json", "diversity.parquet", "metrics.json"]
    assert sorted(entry.name for entry in output.iterdir()) == names
    numbers = json.loads((output / "metrics.json").read_text())
    assert numbers["inputs.2.candidates"] == 40
    assert numbers["diversity.1.novelsum_mean"] == rows[0]["novelsum_mean"]


def test_one_row_has_no_diversity_but_needs_a_reference(measured, tmp_path):
    one = write_parquet(tmp_path / "one.parquet", ["a"], np.ones((1, 3)))
    corpus = write_parquet(tmp_path / "corpus.parquet", ["a", "b", "c"], np.eye(3) + 1)
    found = measured(one, corpus, neighbors=(2,), formula=MEASURED, density_power=(0.5,))
    assert [(value.sum, value.mean) for value in found.values] == [(0.0, 0.0)] * 2
    assert found.mean_nearest_distance == 0


REFUSED = {
    "one row": (["one"], "--neighbors 10 must be below the number of rows of"),
    "K too large": (["small", "--neighbors", 3, 20], "--neighbors 20 must be below the number of rows of"),
    "copies": (["copies", "--neighbors", 3], "--neighbors 3 must be below the number of rows left of"),
    "dimensions": (["small", "--input", "wide", "--neighbors", 2], "has embeddings of 5 dimensions and"),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.more] * (case == "dimensions")) for case in REFUSED]
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(tmp_path, case):
    """Exit code 3, the path and the number named, nothing left behind."""
    rng = np.random.default_rng(0)
    write_parquet(tmp_path / "one", ["a"], rng.normal(size=(1, 4)))
    write_parquet(tmp_path / "small", list("abcdefgh"), rng.normal(size=(8, 4)))
    write_parquet(tmp_path / "wide", list("abcdefgh"), rng.normal(size=(8, 5)))
    write_parquet(tmp_path / "copies", list("abcdefgh"), np.repeat(rng.normal(size=(2, 4)), 4, axis=0))
    arguments, words = REFUSED[case]
    named = [tmp_path / one if str(one) in ("one", "small", "wide", "copies") else one for one in arguments]
    given = ("--input", *named, "--density-power", 0.5, "--output", tmp_path / "out")
    done = run_job("measure_diversity", *given)
    assert done.returncode == 3
    assert words in error_line(done)
    assert not (tmp_path / "out").exists()


def test_the_grid_of_a_comparison_has_the_novelsum_of_paper_for_symmetric():
    """By the density factors of paper too, which are the same."""
    vectors = np.random.default_rng(6).normal(size=(40, 5))
    one, other = (by_kernel(vectors, Grid((method,)), np.arange(40))[0] for method in ("paper", "symmetric"))
    assert replace(other, formula="paper") == one
    assert other.sum == pytest.approx(by_formula(other, vectors).sum, rel=1e-9)


def test_a_formula_that_only_selects_is_not_measured(tmp_path):
    """Exit code 2, and what to measure instead; the default grid does without it."""
    done = run_job("measure_diversity", "--input", "in", "--output", "out", "--formula", "paper", "symmetric")
    assert done.returncode == 2
    assert error_line(done) == (
        "error: --formula symmetric is a way to select, and the NovelSum that it raises is that of paper; measure with "
        "--formula paper"
    )
    config = tmp_path / "c.toml"
    config.write_text('formula = ["paper", "symmetric"]\n')
    given = ["--input", "in", "--output", "out"]
    with pytest.raises(UsageError, match="--formula symmetric is a way to select"):
        parse_measure("", ["--config", str(config), *given])
    assert parse_measure("", given).formula == ("paper",)


def test_density_counts_by_default_only_with_a_reference():
    """As the authors advise; what is given holds."""
    given = ["--input", "in", "--output", "out"]
    assert parse_measure("", given).density_powers == (0.0,)
    assert parse_measure("", [*given, "--reference", "pool"]).density_powers == (0.5,)
    assert parse_measure("", [*given, "--density-power", "0.25", "1"]).density_powers == (0.25, 1.0)
    assert parse_measure("", given).for_manifest()["density_power"] == (0.0,)


def test_a_file_of_settings_may_give_one_value_or_several(tmp_path):
    """And serve the other jobs too, whose settings are single."""
    config = tmp_path / "c.toml"
    config.write_text('input = "a"\nbudget = 3\nneighbors = [5, 10]\nproximity_power = 1\nformula = "paper"\n')
    found = parse_measure("", ["--config", str(config), "--output", "out"])
    assert (found.input, found.neighbors, found.proximity_power) == (("a",), (5, 10), (1.0,))
    assert found.formula == ("paper",)
    assert parse_measure("", ["--config", str(config), "--output", "out", "--neighbors", "2"]).neighbors == (2,)
