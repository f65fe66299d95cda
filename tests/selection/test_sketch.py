"""Bounds are never below what they bound, for hostile distances too."""

import numpy as np
from distances import CANDIDATES, PICKS, GivenKeys, distances, thorough
from hypothesis import given
from hypothesis import strategies as st

steps_of_picks = st.lists(st.integers(1, PICKS - 1), min_size=1, max_size=5, unique=True).map(sorted)


@thorough
@given(distances(), steps_of_picks)
def test_the_bound_from_a_sketch_or_a_list_is_never_below_the_sum(world, known):
    block = GivenKeys(world)
    for n in known:
        assert np.all(block.bring_to(n) >= world.sums(n))


@thorough
@given(distances(), steps_of_picks)
def test_gains_added_to_a_bound_are_never_below_the_sum_of_more_picks(world, known):
    """Ranks come from what was known when the bound was computed, while picks were added since."""
    block = GivenKeys(world)
    everyone = slice(0, CANDIDATES)
    for n, end in zip(known, [*known[1:], PICKS], strict=True):
        bound = block.bring_to(n).copy()
        middle = (n + end) // 2
        for start, stop in ((n, middle), (middle, end)):
            bound += block._gains(everyone, block._keys(everyone, slice(start, stop)), start).sum(axis=1)
            assert np.all(bound >= world.sums(stop) * (1 - 1e-12))
