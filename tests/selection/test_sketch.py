"""Bounds are never below what they bound, for hostile distances too."""

import numpy as np
from distances import PICKS, GivenKeys, distances, thorough
from hypothesis import given
from hypothesis import strategies as st

steps_of_picks = st.lists(st.integers(1, PICKS - 1), min_size=1, max_size=5, unique=True).map(sorted)


@thorough
@given(distances(), steps_of_picks)
def test_the_bound_from_a_sketch_is_never_below_the_sum(world, known):
    block = GivenKeys(world)
    for n in known:
        assert np.all(block.bring_to(n) >= world.sums(n))
