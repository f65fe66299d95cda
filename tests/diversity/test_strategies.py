"""Other ways to select, on Spark, against plain NumPy; and the comparison that curate prints."""

import json

import numpy as np
import pytest
from conftest import SAMPLE, Points, run_job

from novelsum import formula
from novelsum.diversity.onepass import DataSet, draw_rows
from novelsum.diversity.strategies import farthest_first, kmeans
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


@pytest.mark.more
@pytest.mark.parametrize(("density_power", "leader"), [(0.0, "novelselect"), (0.5, "kmeans")])
def test_curate_compares_strategies_on_the_sample(sample, tmp_path, density_power, leader):
    """NovelSum of the picks equals the formula's. Without σ NovelSelect leads; with it k-means does, as the gain of
    the published NovelSelect leaves out the candidate's own σ, while NovelSum counts it in every other row.
    """
    output = tmp_path / "out"
    arguments = ("--input", SAMPLE, "--output", output, "--budget", 60, "--density-power", density_power)
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
