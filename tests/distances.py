"""Distances of many shapes, with keys as far off as they may be, for the tests of bounds and drafts."""

from dataclasses import dataclass

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from novelsum import formula
from novelsum.selection import sketch
from novelsum.selection.candidates import Candidates, Picks
from novelsum.selection.check import MARKS, STATE, BlockCandidates, BlockCheck, Question, empty
from novelsum.selection.scoring import Scoring
from novelsum.selection.weights import Weights

CANDIDATES, PICKS = 12, 330
thorough = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


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
    """A block whose keys are given, and not computed from vectors; ``computed``: of which picks they were asked for.

    ``state``: what another block for the same candidates has left.
    """

    def __init__(
        self,
        world: Distances,
        rows: np.ndarray | None = None,
        twin: np.ndarray | None = None,
        picks: np.ndarray | None = None,
        state: dict[str, np.ndarray] | None = None,
    ) -> None:
        m, n = world.d.shape
        nothing = np.zeros((m, 1), np.float32)
        ones = np.ones(m, np.float32)
        rows = np.arange(m) if rows is None else rows
        if state is None:
            state = {name: np.zeros((m, *shape), kind) for name, (kind, shape) in STATE.items()}
            state |= {name: np.zeros(length, np.int64) for name, length in MARKS.items()}
            empty(state)
        picks = np.arange(1000, 1000 + n) if picks is None else picks
        self.computed: list[int] = []
        self._world, self._known = world, 0
        super().__init__(
            BlockCandidates(**vars(Candidates.plain(rows, nothing, world.own)), factor=ones, norms=ones, twin=twin),
            state,
            world.scoring,
            Weights.of(n, world.scoring.proximity_power),
            Picks.measured(Candidates.plain(picks, np.zeros((n, 1), np.float32), world.powered)),
        )

    def _error(self):
        return self._world.error * (1 + 1e-6)

    def _keys(self, at, part):
        self.computed += self.picks.rows[part].tolist()
        return np.maximum(self._world.keys[at][:, part], np.float32(1e-37))

    def heaviest(self, n: int) -> float:
        """Σ w · σ^κ2 of the first n picks, the heaviest first."""
        return float(self.rule.w[:n] @ np.sort(self.picks.powered[:n])[::-1])

    def ask(self, n: int, scores, pool, threshold=np.inf, known: int = 0, most: int = 1 << 62):
        """Check a draft of the picks after the first n."""
        heaviest, bars = self.heaviest(n + len(scores)), np.full(len(scores) + 1, threshold)
        return self.check(Question(n, np.asarray(scores), heaviest, np.asarray(pool), bars, most), known)

    def bring_to(self, n: int) -> np.ndarray:
        """Bounds of all candidates against the first n picks, more than before."""
        sketches, keys = self.state["sketches"], self._keys(slice(None), slice(self._known, n))
        known, sums = self._known, np.empty(len(keys))
        sketch.enter(sketches, self.traits, known, self.rule, keys, self._powered[known:], n - known, sums)
        bounds = np.empty(len(keys))
        own = self._shares.equation.share(self.candidates.powered, np.zeros(1))
        self.traits["missing"] = self._error() * (own * self.rule.sums[n] + self.heaviest(n)) + 1e-30
        sketch.bounds(sketches, self.traits, n, self.rule, bounds)
        self._known = n
        return bounds
