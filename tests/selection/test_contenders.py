"""Contenders: their sums are the formula's, and a draft is what greedy selection makes of them."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novelsum import formula
from novelsum.selection import contenders as pool
from novelsum.selection import picked
from novelsum.selection.candidates import Candidates, Units
from novelsum.selection.contenders import Arrivals, Contenders
from novelsum.selection.picked import pick_bytes
from novelsum.selection.ranking import CELLS, look_out
from novelsum.selection.scoring import Scoring
from novelsum.selection.weights import Weights


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
    everyone = Candidates(np.arange(m), points, powered, quality, np.zeros(m, np.int64), np.zeros(m))
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
        draft = contenders.draft(min(length, m - before))
        verdict = draft.challenge(None, safe)
        assert (verdict.stands, verdict.challenger) == (min(safe, len(draft)), None)
        picks, sums = verdict.commit()
        here = slice(before, before + verdict.stands)
        assert picks.rows.tolist() == contenders.rows(here).tolist() == expected.picks[here].tolist()
        mean_of = np.maximum(np.arange(before, before + verdict.stands), 1) if method == "released" else 1
        assert np.array(sums) / mean_of == pytest.approx(expected.novelty[here], rel=1e-9, abs=1e-12)


def scores(contenders: Contenders, everyone: Candidates, method: formula.Formula, κ1: float) -> np.ndarray:
    """The score of everyone against the picks of the moment, by the formula."""
    ids = np.sort(contenders.rows(slice(0, contenders.picks)))
    v = formula.novelty(
        formula.distances(everyone.vectors, everyone.vectors[ids], "euclidean"),
        everyone.powered[ids],
        everyone.powered,
        formula=method,
        proximity_power=κ1,
        density_power=1.0,
    )
    return v * everyone.quality * (len(ids) if method == "released" else 1)


@pytest.mark.parametrize("method", formula.FORMULAS)
@pytest.mark.parametrize("κ1", [0.0, 0.5, 1.0, 2.0])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32),
    st.booleans(),
    st.sampled_from([4, 1000]),
    st.lists(st.tuples(st.integers(1, 25), st.integers(0, 25), st.integers(0, 20)), min_size=4, max_size=12),
)
def test_no_bound_in_the_pool_is_ever_below_the_score(method, κ1, seed, is_lattice, lists, rounds):
    """Whatever arrives, is let go, is drafted and taken back, loses its list, and where distances tie."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 3, (120, 4)).astype(float) if is_lattice else rng.normal(size=(120, 4))
    points = np.unique(points, axis=0)
    m = len(points)
    powered, quality = rng.choice([0.5, 1.0, 1e-3], m), rng.choice([0.5, 1.0], m)
    everyone = Candidates(np.arange(m), points, powered, quality, np.zeros(m, np.int64), np.zeros(m))
    scoring = Scoring(method, "euclidean", κ1, 1.0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pool, "RANKED_BYTES", lists * pool.list_bytes(m))
        patched.setattr(pool, "_RANKED_TOGETHER", 4)
        contenders = Contenders(scoring, Units(), Weights.of(m, κ1), everyone[:0], everyone[:3])

    def hold() -> np.ndarray:
        """No bound is too low now, and exact ones are exact."""
        true = scores(contenders, everyone, method, κ1)
        of_slots, upper = true[contenders.candidates.rows], contenders.upper
        is_open = upper > -np.inf
        assert np.all(upper[is_open] >= of_slots[is_open] * (1 - 1e-9))
        is_exact = is_open & (contenders._slots.exact_at == contenders.picks)
        assert upper[is_exact] == pytest.approx(of_slots[is_exact], rel=1e-9)
        return true

    for length, safe, arriving in rounds:
        draft = contenders.draft(min(length, m - contenders.picks))
        hold()
        committed = contenders.rows(slice(0, contenders.picks - len(draft)))
        others = np.setdiff1d(np.arange(m), np.append(committed, contenders.candidates.rows))
        new = rng.permutation(others)[:arriving]
        d = formula.distances(points[new], points[committed], "euclidean")
        keys = d * scoring.equation.share(powered[new, None], powered[committed]) if method == "released" else d
        v = formula.novelty(
            d[:, np.argsort(committed)],
            powered[np.sort(committed)],
            powered[new],
            formula=method,
            proximity_power=κ1,
            density_power=1.0,
        )
        sums = v * (len(committed) if method == "released" else 1)
        first, before = np.zeros(len(new), np.int32), np.zeros((len(new), CELLS), np.int32)
        look_out(np.sort(keys, axis=1).astype(np.float32), 1e-6 * keys.max(axis=1), first, before)
        arrivals = Arrivals(everyone[new], sums * (1 + 1e-6), first, before, np.zeros(len(new), bool))
        verdict = draft.challenge(arrivals, safe)
        true = hold()
        if verdict.challenger is not None:
            assert contenders.upper[verdict.challenger] >= true[new].max() * (1 - 1e-9)
        verdict.commit()
        hold()
        contenders.dismiss(40)
        hold()


def test_what_the_driver_holds_of_a_pick_is_its_vector_and_a_few_numbers(monkeypatch):
    """Of 200,000 earlier picks; beside them, lists of which there is one here, and the weights of ranks."""
    monkeypatch.setattr(pool, "RANKED_BYTES", 0)
    monkeypatch.setattr(pool, "_RANKED_TOGETHER", 1)
    rng = np.random.default_rng(5)
    n, dimension = 200_000, 8
    vectors = rng.normal(size=(n + 40, dimension)).astype(np.float32)
    everyone = Candidates.plain(np.arange(n + 40), vectors, rng.uniform(0.5, 1.0, n + 40))
    weights = Weights.of(n + 20, 1.0)
    before, first, others = everyone[:n], everyone[n : n + 1], everyone[n + 1 :]
    scoring = Scoring("paper", "cosine", 1.0, 1.0)
    tracemalloc.start()
    try:
        contenders = Contenders(scoring, Units(), weights, before, first, others)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        contenders.draft(2).challenge(None, 1).commit()
        more = tracemalloc.get_traced_memory()[1] - held
    finally:
        tracemalloc.stop()
    assert pick_bytes(dimension, 4) == 4 * dimension + 40
    assert (held - picked._TILE_BYTES) / n < pick_bytes(dimension, 4) + pool.list_bytes(1) + 3
    assert more / n < 60
