"""The bound by a few axes is never above a distance, whatever the points; and what is compiled adds as NumPy does."""

import numpy as np
import pytest

from novelsum import formula
from novelsum.density.axes import Axes
from novelsum.density.loops import added
from novelsum.density.neighbors import NearestDistances, Sought
from novelsum.density.points import Points, summation

RNG = np.random.default_rng(21)
STEEP = RNG.normal(size=(300, 120)) * np.arange(1, 121) ** -0.7 @ RNG.normal(size=(120, 120))


def mixed_lengths() -> np.ndarray:
    """Clusters, a crowd within 1e-3, copies by the hundred, lengths from 1e-6 to 1e6, a zero vector, one very far."""
    vectors = STEEP.copy()
    vectors[60:120] = vectors[0] + 1e-3 * RNG.normal(size=(60, 120))
    vectors[120:230] = vectors[1]
    vectors[230:260] *= 10.0 ** RNG.uniform(-6, 6, (30, 1))
    vectors[260] = 0
    vectors[261] = 1e25
    return vectors


HOSTILE = {
    "steep": STEEP,
    "far from the origin": 1e4 + STEEP,
    "mixed": mixed_lengths(),
    "one dimension": STEEP[:, :1],
    "all equal": np.ones((50, 90)),
    "tiny": 1e-30 * STEEP,
}


@pytest.mark.parametrize("metric", formula.METRICS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("case", HOSTILE)
def test_the_bound_by_axes_is_never_above_the_distance(case, kind, metric):
    vectors = HOSTILE[case].astype(kind)
    if metric == "cosine":
        vectors = vectors[np.any(vectors != 0, axis=1)]
    points = Sought("paper", metric, 5).of(vectors)
    space = points.array()
    assert np.array_equal(space, formula.metric_space(vectors, metric))
    for axes in (Axes.of(space), Axes.all(space), Axes(space.mean(0), 1.0, np.eye(space.shape[1])[:, :2])):
        short = points.short_by(axes)
        rows, halves = axes.sought(short)
        with np.errstate(over="ignore", invalid="ignore"):
            bound = 2 * (halves[:, None] - (rows @ short.T).astype(np.float64)) * axes.scale**2
        assert (bound <= formula.squared_distances(space, space) * (1 + 1e-9)).all()


def test_the_bound_leaves_few_pairs():
    """With a few axes of many, all but a few of the pairs that are farther than the tenth neighbour are ruled out."""
    space = formula.normalize(STEEP)
    axes = Axes.of(space)
    assert axes.axes is not None
    assert axes.axes.shape[1] < 100
    short = Points.of(space).short_by(axes)
    rows, halves = axes.sought(short)
    bound = 2 * (halves[:, None] - (rows @ short.T).astype(np.float64)) * axes.scale**2
    squared = formula.squared_distances(space, space)
    tenth = np.sort(squared, axis=1)[:, 10:11]
    assert (bound <= tenth).sum(axis=1).mean() < 30


@pytest.mark.parametrize("metric", formula.METRICS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("case", HOSTILE)
def test_the_search_by_axes_has_the_bits_of_the_formula(case, kind, metric):
    """By any axes, good or bad, in blocks, from vectors of either type."""
    vectors = HOSTILE[case].astype(kind)
    if metric == "cosine":
        vectors = vectors[np.any(vectors != 0, axis=1)]
    points = Sought("paper", metric, 5).of(vectors)
    space, rows = points.array(), np.arange(len(vectors))
    squared = formula.squared_distances(space, space)
    np.fill_diagonal(squared, np.inf)
    true = np.sort(squared, axis=1)[:, :5]
    for axes in (None, Axes.of(space), Axes(space[0], 1.0, np.eye(space.shape[1])[:, :1])):
        nearest = NearestDistances(points, 5, rows, axes=axes)
        for start in range(0, len(rows), 70):
            part = slice(start, start + 70)
            nearest.add(points.take(part), rows[part])
        assert np.array_equal(nearest.squared, true)


def test_terms_are_added_in_the_order_of_numpy():
    """So the squared distance has the bits of the formula, of any dimension."""
    for count in (*range(1, 300), 384, 768, 1000, 1024, 1536, 3072, 4095, 4096, 4097, 8192):
        terms = RNG.normal(size=(3, count)) ** 2
        ends, merges, room = summation(count)
        assert [added(row, ends, merges, room[2]) for row in terms] == terms.sum(axis=1).tolist(), count


@pytest.mark.parametrize("count", [1, 7, 40])
def test_the_k_smallest_are_those_of_a_partition(count):
    """With many ties: whole numbers, so that most distances are shared."""
    points = RNG.integers(0, 3, size=(500, 6)).astype(np.float64)
    queries = points[:80]
    nearest = NearestDistances(queries, count)
    for start in range(0, 500, 150):
        nearest.add(points[start : start + 150], label=start)
    squared = formula.squared_distances(queries, points)
    assert np.array_equal(nearest.squared, np.sort(np.partition(squared, count - 1, axis=1)[:, :count], axis=1))
    of_label = np.array(
        [[squared[i, label : label + 150].min() for label in row] for i, row in enumerate(nearest.labels)]
    )
    assert (of_label <= nearest.squared).all()
