"""The check of a draft: nobody who beats it is missed, for hostile distances too."""

from dataclasses import replace

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
    st.randoms(use_true_random=False),
)
def test_no_candidate_that_beats_a_draft_is_missed_from_one_round_to_the_next(world, rounds, n, level, random):
    """Whoever reaches a drafted score or a bar at some step is reported, by a bound that holds.

    Each draft has picks of those before it in another order, so that of some their keys are kept; few are.
    """
    block, known, order = GivenKeys(world), 0, np.arange(PICKS)
    block.state |= {"kept": np.zeros((CANDIDATES, 40), np.float32)}
    block.state |= {name: np.full(40, -1) for name in ("kept_rows", "asked_at")}
    for steps, stands in rounds:
        order[n : n + 60] = random.sample(order[n : n + 60].tolist(), len(order[n : n + 60]))
        shuffled = replace(world, d=world.d[:, order], keys=world.keys[:, order], powered=world.powered[order])
        block = GivenKeys(shuffled, picks=1000 + order, state=block.state)
        steps = min(steps, PICKS - n)
        if not steps:
            return
        true = np.array([shuffled.sums(n + step) for step in range(steps + 1)])
        scores = np.sort(true[:steps], axis=1)[:, -2] * level
        threshold = np.median(true[steps]) * level
        found = block.ask(n, scores, [0, 5], threshold, known)
        beats = (true[:steps] >= scores[:, None]).any(axis=0) | (true >= threshold).any(axis=0)
        beats[[0, 5]] = False
        assert set(np.flatnonzero(beats)) <= set(found.places.tolist())
        assert not {0, 5} & set(found.places.tolist())
        assert np.all(found.upper >= true[0, found.places] * (1 - 1e-12))
        kept = np.flatnonzero(block.state["kept_rows"] >= 0)
        of = world.keys[:, block.state["kept_rows"][kept] - 1000]
        np.testing.assert_array_equal(block.state["kept"][:, kept], np.maximum(of, np.float32(1e-37)))
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


def test_keys_of_picks_that_are_drafted_again_are_not_computed_again():
    """Though others were drafted between; and those of a pick that was drafted and is final neither."""
    rng = np.random.default_rng(0)
    d = rng.random((CANDIDATES, PICKS))
    scoring = Scoring("paper", "euclidean", 1.0, 1.0)
    world = Distances(scoring, d, np.ones(PICKS), np.ones(CANDIDATES), np.full(CANDIDATES, 1e-6), d.astype(np.float32))
    state, known, computed = None, 0, []
    for n, drafted in ((10, [10, 11, 12, 13]), (11, [40, 12]), (12, [13, 12, 41]), (14, [11, 42])):
        final = {10: [*range(10)], 11: [*range(11)], 12: [*range(11), 50], 14: [*range(11), 50, 13, 12]}[n]
        others = np.setdiff1d(np.arange(PICKS), [*final, *drafted])
        order = np.array([*final, *drafted, *others])
        shuffled = replace(world, d=d[:, order], keys=world.keys[:, order])
        block = GivenKeys(shuffled, picks=order, state=state)
        block.ask(n, np.full(len(drafted), 1e9), NOBODY, known=known)
        computed.append(block.computed)
        state, known = block.state, n
    assert computed == [[*range(14)], [40], [50, 41], [42]]
