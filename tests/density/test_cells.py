"""Cells: a crowd is cut like the rest, the nearest are chosen exactly, an empty one costs no neighbour."""

import numpy as np

from novelsum import formula
from novelsum.density.axes import Axes
from novelsum.density.cells import Cells, nearest_cells
from novelsum.density.points import Points

RNG = np.random.default_rng(8)


def test_a_crowd_within_a_thousandth_is_cut_into_cells_like_the_rest():
    """Half of the points within 1e-3 of one, a quarter of all equal: no cell holds more than four times the mean."""
    vectors = RNG.normal(size=(4000, 16))
    vectors[:2000] = vectors[0] + 1e-3 / 4 * RNG.normal(size=(2000, 16))
    vectors[2000:3000] = vectors[2000]
    space = formula.normalize(vectors)
    cells = Cells.trained(space[::2], 100, True, 8, Axes.of(space[::2]))
    own = cells.assign(Points.of(space), np.arange(4000))
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
    mask = cells.probed(Points.of(np.array([[0.1], [4.9]])), np.array([0, 5]), 2, np.array([1, 0, 2, 3, 0, 2]), 3)
    assert mask.tolist() == [[True] * 4 + [False] * 2, [False] * 2 + [True] * 4]
