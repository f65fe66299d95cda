"""Near-copies that are dropped: the rows of a plain loop, whatever the cells, blocks, files and steps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import numbered, write_parquet

from novelsum import formula
from novelsum.density import thin as thinning
from novelsum.density.axes import Axes
from novelsum.density.cells import Cells
from novelsum.density.points import Points as Space
from novelsum.density.within import greedy, largest_squared, reached
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.source import open_source
from novelsum.files.store import read_block
from novelsum.settings import Settings

RNG = np.random.default_rng(21)


def by_a_plain_loop(ids, distances, epsilon, quality=None):
    """The ids that are kept, and of each other one the nearest that is kept and the distance; ``distances`` (n, n)."""
    order = sorted(range(len(ids)), key=lambda i: (0 if quality is None else -quality[i], ids[i]))
    kept: list[int] = []
    for i in order:
        if not (distances[i, kept] <= epsilon).any():
            kept.append(i)
    told = {}
    for i in set(order) - set(kept):
        nearest = kept[int(distances[i, kept].argmin())]  # of equally near ones the first, as kept is in that order
        told[ids[i]] = (ids[nearest], distances[i, nearest])
    return sorted(ids[i] for i in kept), told


@pytest.fixture
def thinned(spark, tmp_path):
    """The ids that are kept of a path, what is told of the others, and the pool."""
    runs = iter(range(100))

    def run(path: str, epsilon: float, rest_bytes: int = thinning.REST_BYTES, **settings: Any):
        chosen = replace(Settings(input=path, near_duplicates=epsilon), **settings)
        work = Location.of(str(tmp_path / f"work-{next(runs)}"))
        pool = ingest(spark, open_source(path, "id", "embedding"), replace(chosen, duplicates="keep"), work / "all")
        left = thinning.thin(spark, pool, chosen, work / "thin", rest_bytes)
        blocks = [read_block(left.work, block.name) for block in left.blocks]
        by_row = sorted(
            pair for block in blocks for pair in zip(block.rows.tolist(), block.ids.to_pylist(), strict=True)
        )
        assert [row for row, _ in by_row] == list(range(left.candidates))
        listed = pq.read_table(f"{left.work}/duplicates") if (left.work / "duplicates").entries() else pa.table({})
        told = {row["id"]: (row["kept"], row["distance"]) for row in listed.to_pylist()}
        assert len(told) == listed.num_rows == pool.candidates - left.candidates
        assert left.duplicates_dropped + left.near_duplicates_dropped == len(told)
        return [id_ for _, id_ in by_row], told, left

    return run


# --- as the plain loop ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample_distances(sample):
    return {metric: formula.distances(sample.vectors, sample.vectors, metric) for metric in formula.METRICS}


@pytest.mark.more
@pytest.mark.parametrize("metric", formula.METRICS)
def test_of_the_sample_what_a_plain_loop_keeps_is_kept_and_each_other_row_has_the_nearest(
    thinned, sample, sample_distances, tmp_path, metric
):
    """For no distance at all, a small one, and one that leaves a few rows, in files and blocks of other sizes."""
    for number, epsilon in enumerate((0, 0.06, 0.8)):
        order = np.random.default_rng(number).permutation(len(sample.ids))
        path = sample.write(tmp_path / f"in-{number}", order, rows_per_file=(1000, 400, 2869)[number])
        kept, told, pool = thinned(path, epsilon, metric=metric, block_rows=(3000, 150, 700)[number])
        distances = sample_distances[metric]
        assert (kept, told) == by_a_plain_loop(sample.ids, distances, epsilon)
        assert pool.duplicates_dropped == 98
        assert pool.distinct == len(kept)


@pytest.mark.parametrize("epsilon", [0, 1e-9, 0.02, 0.3])
def test_the_greatest_quality_of_near_copies_is_kept_of_equal_ones_the_smallest_id(
    thinned, clustered, tmp_path, epsilon
):
    """Of exact copies too; for small and large distances, by the other metric too."""
    quality = np.round(RNG.uniform(0, 1, 400), 1)
    path = write_parquet(tmp_path / "in.parquet", clustered.ids, clustered.vectors, q=quality)
    for metric in formula.METRICS:
        scale = 1 if metric == "cosine" else 3
        kept, told, pool = thinned(path, scale * epsilon, metric=metric, quality_column="q", block_rows=170)
        distances = formula.distances(clustered.vectors, clustered.vectors, metric)
        assert (kept, told) == by_a_plain_loop(clustered.ids, distances, scale * epsilon, quality)
        assert pool.greatest_quality == max(quality[clustered.ids.index(id_)] for id_ in kept)


def test_chains_in_which_each_row_waits_for_the_one_before_are_decided_as_in_a_plain_loop(thinned, tmp_path):
    """However few of them fit one task; in the order of ids along the chain, against it, and in no order."""
    steps = np.arange(300)[:, None] * np.array([[0.6, 0.8]]) + RNG.normal(scale=0.05, size=(300, 2))
    for order in (np.arange(300), np.arange(300)[::-1], RNG.permutation(300)):
        chain = numbered(steps[order])
        distances = formula.distances(chain.vectors, chain.vectors, "euclidean")
        path = chain.write(tmp_path / f"in-{order[0]}")
        for rest_bytes in (thinning.REST_BYTES, 12 * 2 * 40):
            kept, told, _ = thinned(path, 1.1, rest_bytes, metric="euclidean")
            assert (kept, told) == by_a_plain_loop(chain.ids, distances, 1.1)


def test_a_crowd_of_thousands_leaves_one_and_no_pairs_of_it_are_kept(thinned, tmp_path):
    """Copies by the hundred, and more near-copies than a search keeps of any row."""
    crowd = RNG.normal(size=64) + 1e-5 * RNG.normal(size=(6000, 64))
    crowd[:900] = crowd[0]
    vectors = np.concatenate([crowd, RNG.normal(size=(300, 64))])
    pool = numbered(vectors[RNG.permutation(len(vectors))])
    kept, told, _ = thinned(pool.write(tmp_path / "in"), 1e-6)
    assert len(kept) == 301
    of_crowd = {id_ for id_, _ in told.values()}
    assert len(of_crowd) == 1
    assert of_crowd == {min([*told, *of_crowd])}


def test_ids_of_any_kind_are_told_as_they_are(thinned, tmp_path):
    hostile = ['a\n"b"', "a,b", "é", "", "</td>", "0"]
    vectors = np.repeat(RNG.normal(size=(3, 8)), 2, axis=0)
    for name, ids in (("texts", hostile), ("numbers", [7, -3, 1 << 60, 12, 5, 0])):
        path = write_parquet(tmp_path / f"{name}.parquet", ids, vectors)
        distances = formula.distances(vectors, vectors)
        kept, told, _ = thinned(path, 0)
        assert (kept, told) == by_a_plain_loop(ids, distances, 0)


# --- what the proofs say ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", formula.METRICS)
def test_the_largest_squared_distance_is_the_last_that_comes_to_at_most_the_distance(metric):
    for distance in (0.0, 1e-300, 1e-5, 0.1, 1 / 3, 2.0, *RNG.uniform(0, 1, 50)):
        squared = np.array([largest_squared(distance, metric)])
        assert formula.from_squared(squared, metric)[0] <= distance
        assert formula.from_squared(np.nextafter(squared, np.inf), metric)[0] > distance


@pytest.mark.parametrize("spread", [1.0, 1e4])
def test_no_row_within_the_distance_lies_in_a_cell_that_is_not_reached(spread):
    """Points far from the origin, too, and cells that share a centroid."""
    points = np.repeat(RNG.normal(size=(30, 5)), 20, axis=0) + 0.4 * RNG.normal(size=(600, 5))
    points[:60] = points[0]
    points += spread * np.ones(5)
    axes = Axes.of(points)
    cells = Cells.trained(points, 40, False, 3, axes)
    own = cells.assign(Space.of(points), np.arange(600))
    squared = formula.squared_distances(points, points)
    for distance in (0.0, 1e-6, 0.2, 1.0):
        is_reached = reached(Space.of(points), own, cells, distance**2)
        near = squared <= distance**2
        assert is_reached[np.nonzero(near)[0], own[np.nonzero(near)[1]]].all()
        assert distance > 0.5 or is_reached.mean() < 0.5


def test_one_after_the_other_is_the_plain_loop_in_tiles_of_any_size(monkeypatch, clustered):
    points = clustered.vectors[:, :4].astype(np.float64)
    numbers = RNG.permutation(len(points))
    distances = formula.distances(points, points, "euclidean")
    expected, _ = by_a_plain_loop(numbers.tolist(), distances, 0.9)
    for rows in (1, 7, 256):
        monkeypatch.setattr("novelsum.density.within._TILE_ROWS", rows)
        kept = greedy(Space.of(points), numbers, largest_squared(0.9, "euclidean"), Axes.of(points))
        assert sorted(numbers[kept]) == expected
