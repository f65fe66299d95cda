"""Bounds are never below what they bound, for hostile distances too."""

from dataclasses import replace

import numpy as np
import pytest
from distances import PICKS, Distances, GivenKeys, distances, thorough
from hypothesis import given
from hypothesis import strategies as st

from novelsum.selection.scoring import Scoring

steps_of_picks = st.lists(st.integers(1, PICKS - 1), min_size=1, max_size=5, unique=True).map(sorted)


@thorough
@given(distances(), steps_of_picks)
def test_the_bound_from_a_sketch_is_never_below_the_sum(world, known):
    block = GivenKeys(world)
    for n in known:
        assert np.all(block.bring_to(n) >= world.sums(n))


def world_of(d, keys, powered, error, formula="paper") -> Distances:
    """Of one candidate with these true distances and keys (N,), and picks with these σ^κ2."""
    own = np.array([0.3])
    scoring = Scoring(formula, "euclidean", 1.0, 1.0)
    one = np.asarray(keys, np.float32)[None]
    return Distances(scoring, np.asarray(d)[None], np.asarray(powered), own, np.array([error]), one)


def edge_between(nearer: float, d: np.ndarray) -> float:
    """An edge of the cells that are laid for these distances, somewhat above one of them."""
    block = GivenKeys(world_of(d, d, np.ones(len(d)), 1e-5))
    block.bring_to(len(d))
    sketch = block.state["sketches"][0]
    bits = int(np.float32(nearer).view(np.int32)) - sketch["first"]
    cell = (bits >> sketch["shift"]) + 2
    return float(np.int32(sketch["first"] + (cell << sketch["shift"])).view(np.float32))


@pytest.mark.parametrize("formula", ["paper", "symmetric"])
def test_a_bound_holds_where_a_heavy_pick_beyond_an_edge_is_truly_before_a_light_one(formula):
    d, error = np.linspace(0.5, 1.0, 40), 1e-5
    edge = edge_between(d[34], d)
    light, heavy = 0.4 * error, -0.4 * error  # where they truly lie about the edge; their keys lie on the other side
    true = np.append(d, [edge + light, edge + heavy])
    keys = np.append(d, [edge - light, edge - heavy])
    world = world_of(true, keys, [*np.full(41, 1e-3), 1.0], error, formula)
    assert GivenKeys(world).bring_to(42)[0] >= world.sums(42)[0]


@pytest.mark.parametrize("formula", ["paper", "symmetric"])
@pytest.mark.parametrize("n", [10, 40])
def test_a_heavy_pick_that_is_truly_before_another_is_given_the_rank_before_it(formula, n):
    """Its key is just above that of a light one, or of one in the same cell; the score is just what it comes to."""
    d, error = np.linspace(0.5, 1.0, n), 1e-5
    if n == 10:
        true, key = d[6] - 0.4 * error, d[6] + 0.4 * error
    else:
        true = key = edge_between(d[34], d) + 1e-3
        d[35] = key + 1e-4
    world = world_of(np.append(d, true), np.append(d, key), [*np.full(n, 1e-3), 1.0], error, formula)
    scores = [np.inf, *world.sums(n + 1) * (1 - 1e-12)]
    block = GivenKeys(world)
    found = block.ask(n, scores[:1], [], threshold=scores[1])
    assert found.places.tolist() == [0]
    far = np.full((1, 1), 5.0)
    longer = replace(
        world,
        d=np.append(world.d, far, axis=1),
        keys=np.append(world.keys, far.astype(np.float32), axis=1),
        powered=np.append(world.powered, 1e-3),
    )
    found = GivenKeys(longer).ask(n, scores, [])
    assert found.places.tolist() == [0], "where the sum is computed, too"
