"""Contenders: their sums are the formula's, and a draft is what greedy selection makes of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novelsum import formula
from novelsum.selection.candidates import Candidates, Units
from novelsum.selection.contenders import Contenders
from novelsum.selection.scoring import Scoring
from novelsum.selection.sketch import Weights


@pytest.mark.parametrize("method", formula.FORMULAS)
@pytest.mark.parametrize("κ1", [0.0, 0.5, 1.0, 2.0])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), min_size=3, max_size=8))
def test_drafts_are_greedy_selection_in_the_pool_however_many_of_their_picks_stand(method, κ1, seed, rounds):
    """Coordinates are small integers: sums tie between candidates and distances within them."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 3, (60, 4)).astype(float)
    points = np.unique(points, axis=0)
    m = len(points)
    powered = rng.choice([0.5, 1.0, 1e-3], m)
    quality = rng.choice([0.0, 0.5, 1.0], m)
    scoring = Scoring(method, "euclidean", κ1, 1.0)
    everyone = Candidates(np.arange(m), points, powered, quality, np.zeros(m, np.int64))
    contenders = Contenders(scoring, Units(), Weights.of(m, κ1), everyone[:0], everyone[:1], everyone[1:])
    expected = formula.novelselect(
        points,
        powered,
        m,
        0,
        formula=method,
        metric="euclidean",
        proximity_power=κ1,
        density_power=1.0,
        quality=quality,
    )
    for length, safe in rounds:
        before = contenders.picks
        draft = contenders.draft(min(length, m - before), m - before)
        verdict = draft.challenge(None, safe)
        assert (verdict.stands, verdict.challenger) == (min(safe, len(draft)), None)
        picks, sums = verdict.commit()
        here = slice(before, before + verdict.stands)
        assert picks.rows.tolist() == contenders.picked(here).rows.tolist() == expected.picks[here].tolist()
        mean_of = np.maximum(np.arange(before, before + verdict.stands), 1) if method == "released" else 1
        assert np.array(sums) / mean_of == pytest.approx(expected.novelty[here], rel=1e-9, abs=1e-12)
