"""Other ways to select, on Spark, against plain NumPy; and the comparison that curate prints."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLE, Points, run_job
from novelsum.diversity.strategies import Comparison, farthest_first, kmeans, print_comparison

from novelsum import formula
from novelsum.diversity.onepass import DataSet, draw_rows
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.source import open_source
from novelsum.rows import lot
from novelsum.settings import Settings


@pytest.fixture
def stored(spark, tmp_path):
    """The store of some points, rows in the order of ids, in blocks of 70."""

    def write(points: Points, **settings) -> DataSet:
        path = points.write(tmp_path / "in", np.random.default_rng(1).permutation(len(points.ids)))
        chosen = Settings(input=path, block_rows=70, **settings)
        work = Location.of(str(tmp_path / "work"))
        pool = ingest(spark, open_source(path, "id", "embedding"), chosen, work)
        return DataSet(work, pool.blocks)

    return write


def plain_farthest_first(vectors: np.ndarray, metric: str, budget: int, first: int) -> list[int]:
    points = formula.metric_space(vectors, metric)
    picks = [first]
    nearest = formula.squared_distances(points, points[[first]])[:, 0]
    while len(picks) < budget:
        nearest[picks] = -1
        picks.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, formula.squared_distances(points, points[picks[-1:]])[:, 0])
    return picks


@pytest.mark.parametrize("metric", formula.METRICS)
def test_farthest_first_is_exact_and_ties_go_to_the_smallest_row(spark, stored, metric, monkeypatch):
    """Points on a lattice, whose distances tie, and copies of some; few reported a round, so that there are many."""
    monkeypatch.setattr("novelsum.diversity.strategies._REPORTED", 1)
    monkeypatch.setattr("novelsum.diversity.strategies._LOGGED_AT_ONCE", 16)
    rng = np.random.default_rng(6)
    vectors = np.concatenate([rng.integers(1, 4, size=(90, 3)).astype(float), rng.normal(size=(60, 3))])
    points = Points([f"p{i:03d}" for i in range(150)], vectors)
    data = stored(points, duplicates="keep")
    found = farthest_first(spark, data, metric, 150, 7, data.work)
    assert sorted(found.tolist()) == list(range(150))
    assert found.tolist() == plain_farthest_first(vectors, metric, 150, 7)


def test_random_rows_have_the_smallest_lots_of_their_ids(spark, stored, sample):
    points = Points(sample.ids[:200], sample.vectors[:200])
    lots = {i: lot(3, id_) for i, id_ in enumerate(points.ids)}
    found = draw_rows(spark, stored(points, duplicates="keep"), 20, 3)
    assert found.tolist() == sorted(sorted(lots, key=lots.__getitem__)[:20])


@pytest.mark.parametrize("metric", formula.METRICS)
def test_kmeans_finds_one_of_each_separate_cluster_and_never_the_same_twice(spark, stored, metric):
    """Rounds equal plain Lloyd; with as many centroids as candidates all are taken, copies too."""
    rng = np.random.default_rng(8)
    vectors = np.repeat(8 * rng.normal(size=(6, 5)), 25, axis=0) + rng.normal(size=(150, 5))
    vectors[10:20] = vectors[0]
    data = stored(Points([f"p{i:03d}" for i in range(150)], vectors), duplicates="keep", metric=metric)
    found = kmeans(spark, data, metric, 6, 1, rounds=3)
    points = formula.metric_space(vectors, metric)
    centroids = points[draw_rows(spark, data, 6, 1)]
    for _ in range(3):
        nearest = formula.squared_distances(points, centroids).argmin(axis=1)
        centroids = np.stack(
            [points[nearest == i].mean(axis=0) if (nearest == i).any() else centroids[i] for i in range(6)]
        )
        centroids = formula.normalize(centroids) if metric == "cosine" else centroids
    expected: list[int] = []
    for distances in formula.squared_distances(centroids, points):
        distances[expected] = np.inf
        expected.append(int(distances.argmin()))
    assert found.tolist() == expected
    assert sorted(kmeans(spark, data, metric, 150, 1, rounds=1).tolist()) == list(range(150))


@pytest.mark.parametrize(
    ("method", "heading"),
    [
        ("paper", "selections of the same size"),
        ("released", "selections of the same size"),
        ("symmetric", "selections of the same size; novelselect by symmetric, NovelSum by paper"),
    ],
)
def test_the_comparison_names_the_formula_of_its_novelsum_where_it_is_another(capsys, method, heading):
    print_comparison({"novelselect": Comparison(2.0, 1.0, 0.5, 3.0)}, method)
    assert capsys.readouterr().out.splitlines()[1] == heading


@pytest.mark.more
def test_a_selection_by_the_symmetric_formula_is_compared_by_the_novelsum_of_the_papers(run_here, tmp_path, capsys):
    """And what is printed and the report say so."""
    vectors = np.random.default_rng(4).normal(size=(120, 5)) ** 3
    path = Points([f"p{i:03d}" for i in range(120)], vectors).write(tmp_path / "in")
    output = tmp_path / "out"
    options = {"budget": 20, "compare": True, "formula": "symmetric", "metric": "euclidean"}
    run_here("curate", input=path, output=str(output), **options)
    picked = pq.read_table(output / "selected").sort_by("id")
    chosen = vectors[[int(id_[1:]) for id_ in picked.column("id").to_pylist()]]
    wanted = formula.novelsum(formula.distances(chosen, chosen, "euclidean"), picked.column("density").to_numpy())
    found = json.loads((output / "_MANIFEST.json").read_text())["comparison"]["novelselect"]["novelsum_sum"]
    assert found == pytest.approx(wanted.sum, rel=1e-9)
    assert "\nselections of the same size; novelselect by symmetric, NovelSum by paper\n" in capsys.readouterr().out
    page = (output / "report.html").read_text()
    assert "by the symmetric form of the published equation with euclidean distance" in page
    assert "has the highest NovelSum by the published equation." in page
    assert "NovelSum by the published equation is what NovelSelect optimises" in page


@pytest.mark.more
@pytest.mark.parametrize(
    ("method", "density_power", "leader"),
    [("paper", 0.0, "novelselect"), ("paper", 0.5, "kmeans"), ("symmetric", 0.5, "novelselect")],
)
def test_curate_compares_strategies_on_the_sample(sample, tmp_path, method, density_power, leader):
    """NovelSum of the picks equals the formula's. Without σ NovelSelect leads; with it k-means does, as the gain of
    the published NovelSelect leaves out the candidate's own σ, while NovelSum counts it in every other row. The
    symmetric formula does not leave it out, and leads.
    """
    output = tmp_path / "out"
    arguments = ("--input", SAMPLE, "--output", output, "--budget", 60, "--density-power", density_power)
    arguments += ("--formula", method)
    done = run_job("curate", *arguments, "--compare")
    assert done.returncode == 0, done.stderr
    assert "selections of the same size" in done.stdout
    manifest = json.loads((output / "_MANIFEST.json").read_text())
    found = manifest["comparison"]
    assert list(found) == ["novelselect", "random", "farthest_first", "kmeans"]
    table = Location.of(str(output / "selected" / "part-00000.parquet")).read_parquet().sort_by("id")
    picked = sample.vectors[[sample.ids.index(id_) for id_ in table.column("id").to_pylist()]]
    d = formula.distances(picked, picked)
    wanted = formula.novelsum(d, table.column("density").to_numpy(), density_power=density_power)
    one = found["novelselect"]
    assert (one["novelsum_sum"], one["novelsum_mean"]) == pytest.approx((wanted.sum, wanted.mean), rel=1e-9)
    np.fill_diagonal(d, np.inf)
    assert one["mean_nearest_distance"] == pytest.approx(d.min(axis=1).mean(), rel=1e-9)
    assert max(found, key=lambda name: found[name]["novelsum_sum"]) == leader
    assert max(found, key=lambda name: found[name]["mean_nearest_distance"]) == "farthest_first"
    seconds = {name: of_strategy["seconds"] for name, of_strategy in found.items()}
    assert seconds.pop("novelselect") == manifest["seconds"]["selection"]
    assert all(took > 0 for took in seconds.values())
    assert sum(seconds.values()) < manifest["seconds"]["compare"] < manifest["seconds"]["total"]
