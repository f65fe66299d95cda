"""The blocked search for the K smallest distances equals the formula's sorted rows, bit for bit."""

import numpy as np
import pytest

from novelsum import formula
from novelsum.density.neighbors import NearestDistances


def by_formula(points: np.ndarray, count: int) -> np.ndarray:
    squared = formula.squared_distances(points, points)
    np.fill_diagonal(squared, np.inf)
    return np.sort(squared, axis=1)[:, :count]


def by_blocks(points: np.ndarray, count: int, size: int) -> np.ndarray:
    rows = np.arange(len(points))
    nearest = NearestDistances(points, count, rows)
    for start in range(0, len(points), size):
        nearest.add(points[start : start + size], rows[start : start + size])
    return nearest.squared


@pytest.mark.parametrize("size", [1, 3, 50, 400])
@pytest.mark.parametrize("dimension", [1, 2, 384])
def test_any_split_of_the_corpus_gives_the_bits_of_the_formula(size, dimension):
    points = np.random.default_rng(1).normal(size=(120, dimension))
    assert np.array_equal(by_blocks(points, 10, size), by_formula(points, 10))


@pytest.mark.parametrize("size", [7, 300])
def test_copies_by_the_hundred_are_found(size):
    """Also when more than K points are at distance zero, or within rounding of the K-th."""
    rng = np.random.default_rng(2)
    points = np.concatenate([np.tile(rng.normal(size=(1, 8)), (150, 1)), rng.normal(size=(150, 8))])
    points = points[rng.permutation(300)]
    assert np.array_equal(by_blocks(points, 5, size), by_formula(points, 5))


def test_points_far_from_the_origin_and_close_together_are_told_apart():
    """Where a matrix product has lost most digits, the distances have not."""
    rng = np.random.default_rng(3)
    points = 1000 + rng.normal(size=(200, 16)) * 1e-4
    assert np.array_equal(by_blocks(points, 4, 64), by_formula(points, 4))


def test_all_others_are_neighbours_when_k_is_one_less_than_the_points():
    points = np.random.default_rng(4).normal(size=(12, 3))
    assert np.array_equal(by_blocks(points, 11, 5), by_formula(points, 11))


def test_too_small_a_corpus_leaves_infinity():
    nearest = NearestDistances(np.zeros((2, 2)), 3)
    nearest.add(np.ones((1, 2)))
    assert nearest.squared.tolist() == [[2.0, np.inf, np.inf]] * 2


@pytest.mark.parametrize("scale", [1e-90, 1.0, 1e90])
def test_no_scale_and_no_outlier_spoils_the_screening(scale):
    """A blob within 1e-6, others wide around it, one 1e6 times as far: what float32 mixes up is told apart."""
    rng = np.random.default_rng(5)
    points = np.concatenate([1 + 1e-6 * rng.normal(size=(120, 32)), rng.normal(size=(120, 32)), np.full((1, 32), 1e6)])
    points *= scale
    for size in (40, 241):
        assert np.array_equal(by_blocks(points, 5, size), by_formula(points, 5))


def test_a_search_goes_on_from_what_an_earlier_one_found():
    """For some of the queries, with a label for each block of the corpus."""
    points = np.random.default_rng(6).normal(size=(90, 5))
    rows = np.arange(90)
    first = NearestDistances(points, 4, rows)
    first.add(points[:50], rows[:50], label=1)
    second = NearestDistances(points, 4, rows, squared=first.squared)
    second.add(points[50:], rows[50:], at=rows[::2], label=2)
    assert np.array_equal(second.squared[::2], by_formula(points, 4)[::2])
    assert np.array_equal(second.squared[1::2], first.squared[1::2])
    assert set(np.unique(first.labels)) == {1}
    assert set(np.unique(second.labels)) == {-1, 2}


@pytest.mark.parametrize("size", [1, 7, 90])
def test_of_points_at_one_distance_the_first_that_was_added_counts(size):
    """By labels of each point, whatever the split; copies of queries, and points on a circle about them."""
    rng = np.random.default_rng(6)
    corners = np.array([[1.0, 0], [-1.0, 0], [0, 1.0], [0, -1.0]])
    queries = np.zeros((3, 2)), corners, rng.normal(size=(20, 2))
    corpus = np.concatenate([corners, rng.normal(size=(30, 2)), corners[::-1], np.tile(queries[2], (2, 1)), corners])
    points = np.concatenate(queries)
    nearest = NearestDistances(points, 1)
    for start in range(0, len(corpus), size):
        part = corpus[start : start + size]
        nearest.add(part, label=np.arange(start, start + len(part)))
    assert nearest.labels[:, 0].tolist() == formula.squared_distances(points, corpus).argmin(axis=1).tolist()
