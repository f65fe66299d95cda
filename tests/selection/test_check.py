"""The check of a draft: nobody who beats it is missed, for hostile distances too."""

import numpy as np
from distances import CANDIDATES, PICKS, Distances, GivenKeys, distances, thorough
from hypothesis import given
from hypothesis import strategies as st

from novelsum.selection.scoring import Scoring

NOBODY = np.empty(0, np.int64)


@thorough
@given(
    distances(),
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=6),
    st.integers(1, 60),
    st.floats(0.98, 1.02),
)
def test_no_candidate_that_beats_a_draft_is_missed_from_one_round_to_the_next(world, rounds, n, level):
    """Whoever reaches a drafted score or a bar at some step is reported, by a bound that holds."""
    block, known = GivenKeys(world), 0
    for steps, stands in rounds:
        steps = min(steps, PICKS - n)
        if not steps:
            return
        true = np.array([world.sums(n + step) for step in range(steps + 1)])
        scores = np.sort(true[:steps], axis=1)[:, -2] * level
        threshold = np.median(true[steps]) * level
        found = block.ask(n, scores, [0, 5], threshold, known)
        beats = (true[:steps] >= scores[:, None]).any(axis=0) | (true >= threshold).any(axis=0)
        beats[[0, 5]] = False
        assert set(np.flatnonzero(beats)) <= set(found.places.tolist())
        assert not {0, 5} & set(found.places.tolist())
        assert np.all(found.upper >= true[0, found.places] * (1 - 1e-12))
        known = n
        n = min(n + min(steps, stands) + (stands < steps), PICKS)


@thorough
@given(distances(), st.integers(1, 200), st.integers(1, 60), st.integers(1, 5))
def test_where_too_many_beat_a_draft_the_steps_called_safe_are(world, n, steps, most):
    block = GivenKeys(world)
    true = np.array([world.sums(n + step) for step in range(steps)])
    scores = np.sort(true, axis=1)[:, -3]
    found = block.ask(n, scores, NOBODY, most=most)
    others = np.setdiff1d(np.arange(CANDIDATES), found.places)
    beats = (true[:, others] >= scores[:, None]).any(axis=1)
    assert found.safe_steps <= (beats.argmax() if beats.any() else steps)
    assert len(found.places) <= most


def test_of_equal_candidates_only_the_first_that_is_not_watched_is_reported():
    """The others cannot be picked before it."""
    d = np.tile(np.linspace(0.5, 1.5, PICKS), (CANDIDATES, 1))
    scoring = Scoring("paper", "euclidean", 1.0, 1.0)
    world = Distances(scoring, d, np.ones(PICKS), np.ones(CANDIDATES), np.full(CANDIDATES, 1e-6), d.astype(np.float32))
    block = GivenKeys(world, twin=np.arange(-1, CANDIDATES - 1))
    found = block.ask(10, [0.0], NOBODY)
    assert found.places.tolist() == [0]
    found = block.ask(10, [0.0], [0, 1], known=10)
    assert found.places.tolist() == [2]
