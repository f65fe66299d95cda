"""The check of a draft: nobody who beats it is missed, for hostile distances too."""

import numpy as np
from distances import CANDIDATES, PICKS, Distances, GivenKeys, distances, thorough
from hypothesis import given
from hypothesis import strategies as st

from novelsum.selection.candidates import Dismissed
from novelsum.selection.check import Question
from novelsum.selection.scoring import Scoring


@thorough
@given(
    distances(),
    st.integers(1, PICKS - 60),
    st.integers(1, 60),
    st.floats(0.98, 1.02),
    st.integers(1, 70),
    st.booleans(),
)
def test_no_candidate_that_beats_a_draft_is_missed(world, n, steps, level, longest_segment, is_settled):
    """Whoever reaches a drafted sum at some step is named at that step or before, also where sums are known."""
    block = GivenKeys(world)
    bound = block.bring_to(n)
    true = np.array([world.sums(n + step) for step in range(steps + 1)])
    if is_settled:
        np.minimum(bound, true[0] * (1 + 1e-12), out=bound)
    sums = np.median(true[:steps], axis=1) * level
    question = Question(n, sums, np.empty(0, np.int64), np.inf)
    segments = [(first, min(first + longest_segment, steps)) for first in range(0, steps, longest_segment)]
    everyone = np.arange(CANDIDATES)
    first, end = block._first_step(everyone, block._keys(everyone, slice(n, n + steps)), question, segments)
    beats = true[:steps] >= sums[:, None]
    truly_first = np.where(beats.any(axis=0), beats.argmax(axis=0), steps)
    assert np.all(first <= truly_first)
    assert np.all(end >= true[steps] * (1 - 1e-12))
    assert np.all(bound >= true[0] * (1 - 1e-12))


@thorough
@given(distances(), st.integers(1, 200), st.lists(st.integers(1, 20), min_size=2, max_size=6), st.integers(1, 5))
def test_a_check_reports_whoever_beats_the_draft_unless_it_says_the_steps_are_not_safe(world, n, rounds, most):
    """Over several rounds, of which each finds the bounds that the one before has left."""
    block = GivenKeys(world)
    start = n
    for steps in rounds:
        steps = min(steps, PICKS - n)
        true = np.array([world.sums(n + step) for step in range(max(steps, 1))])[:steps]
        sums = np.sort(true, axis=1)[:, -3] if steps else np.empty(0)
        settled = np.arange(n % 3, CANDIDATES, 3)
        sums_now = world.sums(n)[settled] * (1 + 2e-9)
        found = block.check(Question(n, sums, np.array([0, 5]), np.inf, most, Dismissed(settled, sums_now)), start)
        reported = set(found.places.tolist())
        others = [place for place in range(CANDIDATES) if place not in reported and place not in (0, 5)]
        beats = (true[:, others] >= sums[:, None]).any(axis=1)
        assert found.safe_steps <= (beats.argmax() if beats.any() else steps)
        assert len(reported) <= most
        assert np.all(found.upper >= world.sums(n)[found.places] * (1 - 1e-12))
        assert np.all(block.state["upper"][settled] <= sums_now)
        assert np.all(block.state["upper"] >= world.sums(n) * (1 - 1e-12))
        start, n = n, n + steps


def test_of_equal_candidates_only_the_first_that_is_not_watched_is_reported():
    """The others cannot be picked before it."""
    d = np.tile(np.linspace(0.5, 1.5, PICKS), (CANDIDATES, 1))
    scoring = Scoring("paper", "euclidean", 1.0, 1.0)
    world = Distances(scoring, d, np.ones(PICKS), np.ones(CANDIDATES), np.full(CANDIDATES, 1e-6), d.astype(np.float32))
    block = GivenKeys(world, twin=np.arange(-1, CANDIDATES - 1))
    found = block.check(Question(10, np.array([0.0]), np.empty(0, np.int64), np.inf), 10)
    assert found.places.tolist() == [0]
    found = block.check(Question(10, np.array([0.0]), np.array([0, 1]), np.inf), 10)
    assert found.places.tolist() == [2]
