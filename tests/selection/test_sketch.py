"""Bounds are never below what they bound, and a contender's sum is the formula's: for hostile distances too."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novelsum import formula
from novelsum.selection.check import BlockCheck, Candidates, Picks, Question, state_of
from novelsum.selection.contenders import Contenders, Samples
from novelsum.selection.scoring import Scoring
from novelsum.selection.sketch import Outlook, Weights

CANDIDATES, PICKS = 12, 330
thorough = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Distances:
    """True distances d (m, N), σ^κ2 of picks (N,) and candidates (m,), and keys (m, N) float32 as far off as error."""

    scoring: Scoring
    d: np.ndarray
    powered: np.ndarray
    own: np.ndarray
    error: np.ndarray
    keys: np.ndarray

    def sums(self, n: int) -> np.ndarray:
        """Σ w · mass of the first n picks for every candidate, by the formula."""
        power = self.scoring.proximity_power
        v = formula.novelty(
            self.d[:, :n],
            self.powered[:n],
            self.own,
            formula=self.scoring.formula,
            proximity_power=power,
            density_power=1.0,
        )
        return v * (n if self.scoring.formula == "released" else 1)


SHAPES = {
    "uniform": lambda rng, shape: rng.random(shape),
    "ties": lambda rng, shape: rng.integers(0, 4, shape) / 3,
    "zeros": lambda rng, shape: np.where(rng.random(shape) < 0.5, 0, rng.random(shape)),
    "one far": lambda rng, shape: np.where(np.arange(shape[1]) == shape[1] // 3, 1e3, rng.random(shape)),
    "alike": lambda rng, shape: 1 + 1e-3 * rng.normal(size=shape),
    "nearly tied": lambda rng, shape: (rng.integers(1, 6, shape) / 5) * (1 + 1e-7 * rng.normal(size=shape)),
    "growing": lambda rng, shape: np.sort(rng.lognormal(0, 1, shape), axis=1),
    "shrinking": lambda rng, shape: -np.sort(-rng.lognormal(0, 1, shape), axis=1),
    "one value": lambda rng, shape: np.full(shape, 0.7),
}
SPREADS = {
    "equal": lambda rng, n: np.full(n, 0.5),
    "like real ones": lambda rng, n: rng.lognormal(0, 0.2, n),
    "a million apart": lambda rng, n: 10.0 ** rng.uniform(-6, 0, n),
    "one heavy": lambda rng, n: np.where(np.arange(n) == n // 2, 1.0, 1e-6),
}


@st.composite
def distances(draw) -> Distances:
    """Distances of some shape and scale, density factors of some spread, keys with some error."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([1.0, 1e-12, 4.0]))
    d = SHAPES[draw(st.sampled_from(sorted(SHAPES)))](rng, (CANDIDATES, PICKS)) * scale
    powered = SPREADS[draw(st.sampled_from(sorted(SPREADS)))](rng, PICKS)
    own = rng.choice(powered, CANDIDATES)
    scoring = Scoring(
        draw(st.sampled_from(formula.FORMULAS)), "euclidean", draw(st.sampled_from([0.0, 0.5, 1.0, 2.0])), 1.0
    )
    error = np.maximum(draw(st.sampled_from([0.0, 1e-6, 1e-3])), 2**-22) * d.max(axis=1)
    off = rng.choice([-0.5, 0.5, 0.0], d.shape) * error[:, None]
    keys = np.maximum(d + off, 0)
    if scoring.formula == "released":
        keys *= own[:, None] + powered
    return Distances(scoring, d, powered, own, error, keys.astype(np.float32))


class GivenKeys(BlockCheck):
    """A block whose keys are given, and not computed from vectors."""

    def __init__(self, world: Distances, rows: np.ndarray | None = None, twin: np.ndarray | None = None) -> None:
        m, n = world.d.shape
        nothing = np.zeros((m, 1), np.float32)
        ones = np.ones(m, np.float32)
        rows = np.arange(m) if rows is None else rows
        state = {name: np.zeros((m, *shape), kind) for name, (kind, shape) in state_of(1).items()}
        state["upper"][:] = np.inf
        state["recent_rows"] = np.full(state["recent"].shape[1], -1)
        super().__init__(
            Candidates(rows, nothing, ones, ones, world.own, twin=twin),
            state,
            world.scoring,
            Weights.of(n, world.scoring.proximity_power),
            Picks(np.arange(1000, 1000 + n), np.zeros((n, 1), np.float32), np.ones(n, np.float32), world.powered),
        )
        self.error = world.error.astype(np.float32) * np.float32(1 + 1e-6)
        self._given = world.keys

    def _products(self, at, part):
        return self._given[at][:, part].copy()

    def bring_to(self, n: int) -> np.ndarray:
        """Bounds of all candidates against the first n picks."""
        self.state["upper"][:] = np.inf
        self._bound(np.arange(len(self.candidates.rows)), n)
        return self.state["upper"]


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
        found = block.check(Question(n, sums, np.array([0, 5]), np.inf, most, settled, sums_now), start)
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
    contenders = Contenders(scoring, Weights.of(m, κ1), m, 4)
    contenders.admit(
        Samples(np.arange(m), points, powered, quality, np.zeros(m, np.int64)),
        np.full(m, np.inf),
        Outlook.empty(m),
        np.zeros(m, np.float32),
    )
    contenders.commit(0)
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
        stands, challenger = contenders.challenge(draft, np.empty(0, np.int64), min(safe, len(draft.slots)))
        assert challenger is None
        assert stands == min(safe, len(draft.slots))
        contenders.commit()
        here = slice(before, before + stands)
        assert contenders.picked(here).rows.tolist() == expected.picks[here].tolist()
        mean_of = np.maximum(np.arange(before, before + stands), 1) if method == "released" else 1
        assert np.array(draft.sums[:stands]) / mean_of == pytest.approx(expected.novelty[here], rel=1e-9, abs=1e-12)
