"""Each formula's object says what the plain formula says: of keys, masses, density, v, and a row of NovelSum."""

import pickle

import numpy as np
import pytest

from novelsum import formula
from novelsum.formulas import EQUATIONS, MEASURED, have_same_density
from novelsum.selection.scoring import Scoring
from novelsum.selection.weights import Shares

CANDIDATES, PICKS, NEIGHBORS = 7, 40, 3
POWERS = 0.5, 2.0  # κ1, κ2


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def by_equation(equation, d, own, powered, weights):
    """v (m,) as the object has it, from distances (m, n)."""
    shares = Shares.of(equation, own, powered)
    picks = slice(d.shape[1])
    keys = shares.keys(d.copy(), picks)
    masses = np.take_along_axis(shares.masses(keys, picks), np.argsort(keys, axis=1), axis=1)
    return masses @ weights[: d.shape[1]] / equation.divisor(d.shape[1])


def test_there_is_an_object_for_every_formula_and_it_travels_by_its_name():
    assert tuple(EQUATIONS) == formula.FORMULAS
    for name, equation in EQUATIONS.items():
        assert equation.name == name
        assert pickle.loads(pickle.dumps(Scoring(name, "cosine", 1.0, 0.5))).equation is equation


def test_symmetric_is_measured_as_paper_and_has_its_density():
    assert MEASURED == ("paper", "released")
    assert EQUATIONS["symmetric"].measured_as == "paper"
    assert have_same_density("symmetric", "paper")
    assert not any(have_same_density("released", other) for other in ("paper", "symmetric", "unheard of"))


@pytest.mark.parametrize("name", formula.FORMULAS)
def test_keys_and_masses_make_the_novelty_of_the_formula(name, rng):
    d, sigma, own = rng.random((CANDIDATES, PICKS)), rng.lognormal(0, 1, PICKS), rng.lognormal(0, 1, CANDIDATES)
    for n in (1, PICKS):
        expected = formula.novelty(
            d[:, :n], sigma[:n], own, formula=name, proximity_power=POWERS[0], density_power=POWERS[1]
        )
        powered, weights = sigma[:n] ** POWERS[1], formula.proximity_weights(n, POWERS[0])
        found = by_equation(EQUATIONS[name], d[:, :n], own ** POWERS[1], powered, weights)
        assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", formula.FORMULAS)
def test_shares_lie_between_their_ends_and_weigh_a_sum(name, rng):
    """What bounds rest on: the ends are those of the lightest and the heaviest pick."""
    equation, own, powered = EQUATIONS[name], rng.lognormal(0, 1, CANDIDATES), rng.lognormal(0, 1, PICKS)
    shares = Shares.of(equation, own, powered)
    each = np.broadcast_to(shares.to(slice(PICKS)), (CANDIDATES, PICKS))
    assert np.all(each.min(axis=1, keepdims=True) == shares.least)
    assert np.all(each.max(axis=1, keepdims=True) == shares.greatest)
    values = rng.random((CANDIDATES, PICKS))
    assert equation.weighed(values, own, powered) == pytest.approx((values * each).sum(axis=1), rel=1e-12)
    same = np.broadcast_to(equation.weighed(values[0], own, powered), CANDIDATES)
    assert same == pytest.approx((values[0] * each).sum(axis=1), rel=1e-12)


@pytest.mark.parametrize("metric", formula.METRICS)
@pytest.mark.parametrize("name", formula.FORMULAS)
def test_the_density_from_squared_distances_is_that_of_the_formula(name, metric, rng):
    """In the object's space, among the points it names, without the point itself."""
    equation, vectors = EQUATIONS[name], rng.normal(size=(30, 4))
    vectors[7] = vectors[3]
    points = formula.metric_space(vectors, equation.space(metric))
    corpus = np.unique(points, axis=0) if equation.among_distinct else points
    squared = np.sort(formula.squared_distances(points, corpus), axis=1)[:, 1 : NEIGHBORS + 1]
    expected = formula.density(vectors, NEIGHBORS, formula=name, metric=metric)
    assert equation.density(squared, metric).tolist() == expected.tolist()
    if (mean := equation.mean_distance(float(expected[0]), NEIGHBORS)) is not None:
        assert mean == pytest.approx(formula.from_squared(squared[0], metric).mean(), rel=1e-12)
    kth = np.sort(formula.distances(vectors, vectors, equation.space(metric))[0])[NEIGHBORS]
    assert equation.kth_distance(squared, metric)[0] == pytest.approx(kth)


@pytest.mark.parametrize("name", formula.FORMULAS)
def test_what_rows_add_is_novelsum(name, rng):
    equation, sigma = EQUATIONS[name], rng.lognormal(0, 1, PICKS)
    d = formula.distances(*[rng.normal(size=(PICKS, 5))] * 2)
    weights, powered = formula.proximity_weights(PICKS, POWERS[0]), sigma ** POWERS[1]
    rank = d.argsort(axis=1).argsort(axis=1)  # of the row itself: 0
    terms = np.where(rank > 0, d * weights[rank - 1], 0)
    own = equation.of_row(powered, terms.sum(axis=1), (d * weights[rank]).sum(axis=1) / weights.sum())
    rows = (terms @ powered if equation.weighs_others else 0) + (0 if own is None else own)
    expected = formula.novelsum(d, sigma, formula=name, proximity_power=POWERS[0], density_power=POWERS[1])
    assert np.mean(rows) == pytest.approx(expected.mean, rel=1e-12)
