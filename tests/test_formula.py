"""The formula: against the worked example, an independent implementation, and the authors' own results."""

import json
import math

import numpy as np
import pytest
from conftest import DATA, Points

from novelsum import formula
from novelsum.density.neighbors import NearestDistances

POWERS = [(κ1, κ2) for κ1 in (0.0, 0.5, 1.0, 2.0) for κ2 in (0.0, 0.5, 1.0)]


def plain_distance(a: list[float], b: list[float], metric: str) -> float:
    if metric == "euclidean":
        return math.dist(a, b)
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return 1 - dot / (math.hypot(*a) * math.hypot(*b))


def plain_density(points: list[list[float]], i: int, k: int, method: str, metric: str) -> float:
    others = [p for j, p in enumerate(points) if j != i]
    if method == "released":
        squares = sorted(math.dist(points[i], p) ** 2 for p in others)
        return 1 / (sum(squares[:k]) / k + 1e-9)
    return 1 / max(sum(sorted(plain_distance(points[i], p, metric) for p in others)[:k]), 1e-9)


def plain_novelty(
    points: list[list[float]],
    sigma: list[float],
    i: int,
    chosen: list[int],
    method: str,
    metric: str,
    κ1: float,
    κ2: float,
) -> float:
    if method == "paper":
        pairs = sorted((plain_distance(points[i], points[j], metric), j) for j in chosen)
        return sum((1 / rank) ** κ1 * sigma[j] ** κ2 * d for rank, (d, j) in enumerate(pairs, start=1))
    weighted = sorted((sigma[i] ** κ2 + sigma[j] ** κ2) * plain_distance(points[i], points[j], metric) for j in chosen)
    return sum(a / rank**κ1 for rank, a in enumerate(weighted, start=1)) / len(chosen)


@pytest.fixture(scope="module")
def scattered() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(30, 6)) * 3 + 1


@pytest.mark.parametrize("method", formula.FORMULAS)
@pytest.mark.parametrize("metric", formula.METRICS)
@pytest.mark.parametrize(("κ1", "κ2"), POWERS)
def test_selection_equals_an_independent_implementation(scattered, method, metric, κ1, κ2):
    """Density, novelty of every candidate in every round, and picks equal plain Python loops."""
    points = scattered.tolist()
    sigma = [plain_density(points, i, 4, method, metric) for i in range(len(points))]
    computed = formula.density(scattered, 4, formula=method, metric=metric)
    np.testing.assert_allclose(computed, sigma, rtol=1e-9)
    chosen = [7]
    values = [0.0]
    while len(chosen) < 8:
        v = {
            i: plain_novelty(points, sigma, i, chosen, method, metric, κ1, κ2)
            for i in range(len(points))
            if i not in chosen
        }
        best = max(v, key=v.__getitem__)
        chosen.append(best)
        values.append(v[best])
    selection = formula.novelselect(
        scattered, computed, 8, 7, formula=method, metric=metric, proximity_power=κ1, density_power=κ2
    )
    assert selection.picks.tolist() == chosen
    np.testing.assert_allclose(selection.novelty, values, rtol=1e-9)


@pytest.mark.parametrize("metric", formula.METRICS)
@pytest.mark.parametrize(("κ1", "κ2"), POWERS)
def test_novelsum_equals_an_independent_implementation(scattered, metric, κ1, κ2):
    """Both NovelSums of a data set equal plain Python loops."""
    points = scattered.tolist()
    n = len(points)
    d = formula.distances(scattered, scattered, metric)
    sigma = formula.density(scattered, 4, metric=metric)
    paper = sum(
        plain_novelty(points, sigma.tolist(), i, [j for j in range(n) if j != i], "paper", metric, κ1, κ2)
        for i in range(n)
    )
    found = formula.novelsum(d, sigma, proximity_power=κ1, density_power=κ2)
    assert found.sum == pytest.approx(paper, rel=1e-9)
    assert found.mean == pytest.approx(paper / n, rel=1e-9)
    averages = []
    for i in range(n):
        row = sorted(sigma[i] ** κ2 * plain_distance(points[i], points[j], metric) for j in range(n))
        weights = [r**-κ1 for r in range(1, n + 1)]
        averages.append(sum(a * w for a, w in zip(row, weights, strict=True)) / sum(weights))
    released = formula.novelsum(d, sigma, formula="released", proximity_power=κ1, density_power=κ2)
    assert released.mean == pytest.approx(sum(averages) / n, rel=1e-9)


@pytest.fixture(scope="module")
def authors() -> dict:
    return json.loads((DATA / "released_code_values.json").read_text())


@pytest.fixture(scope="module")
def nearest_squared(prompts: Points) -> np.ndarray:
    points = prompts.vectors.astype(np.float64)
    nearest = NearestDistances(points, 11)
    nearest.add(points)
    return nearest.squared


def test_released_selection_equals_all_250_picks_of_the_authors_code(prompts, authors, nearest_squared):
    """The same first sample gives the same 250 picks in the same order."""
    values = authors["novelselect"]
    selection = formula.novelselect(
        prompts.vectors,
        formula.released_density(nearest_squared[:, 1:]),
        len(values["picks"]),
        prompts.ids.index(values["first"]),
        formula="released",
    )
    assert [prompts.ids[i] for i in selection.picks] == values["picks"]


def test_released_novelsum_equals_the_authors_code(prompts, authors, nearest_squared):
    """All 18 values, which the authors' code computed in float32, to 1e-6."""
    d = formula.distances(prompts.vectors[:1500], prompts.vectors[:1500])
    assert len(authors["novelsum"]["values"]) == 18
    for value in authors["novelsum"]["values"]:
        found = formula.novelsum(
            d,
            formula.released_density(nearest_squared[:1500, 1 : value["neighbors"] + 1]),
            formula="released",
            proximity_power=value["proximity_power"],
            density_power=value["density_power"],
        )
        assert found.mean == pytest.approx(value["novelsum"], rel=1e-6)


def test_the_density_of_the_kernel_is_that_of_the_formula(prompts, nearest_squared):
    """The blocked search behind the two tests above gives the formula's own density, bit for bit."""
    part = formula.squared_distances(prompts.vectors[:200], prompts.vectors)
    assert np.array_equal(np.sort(part, axis=1)[:, :11], nearest_squared[:200])


def test_equal_vectors_are_at_distance_zero_and_no_distance_is_negative(sample):
    """Also for cosine, where 1 minus a product of unit vectors can be 1e-16 or -1e-16."""
    doubled = np.concatenate([sample.vectors[:50], sample.vectors[:50]])
    for metric in formula.METRICS:
        d = formula.distances(doubled, doubled, metric)
        assert (np.diagonal(d[:50, 50:]) == 0).all()
        assert (d >= 0).all()
        assert np.array_equal(d, d.T)


@pytest.mark.parametrize("method", formula.FORMULAS)
def test_novelty_of_a_row_has_the_same_bits_however_rows_are_split(sample, method):
    """One row at a time, by sevens, or all at once."""
    vectors, sigma = sample.vectors[:101], np.linspace(0.1, 3, 101)
    chosen = [3, 8, 40, 77, 90]
    options = {"formula": method, "proximity_power": 0.7, "density_power": 0.3}
    whole = formula.novelty(formula.distances(vectors, vectors[chosen]), sigma[chosen], sigma, **options)
    for size in (1, 7):
        for start in range(0, 101, size):
            rows = slice(start, start + size)
            d = formula.distances(vectors[rows], vectors[chosen])
            v = formula.novelty(d, sigma[chosen], sigma[rows], **options)
            assert np.array_equal(v, whole[rows])


@pytest.mark.parametrize("method", formula.FORMULAS)
def test_ties_go_to_the_smallest_index(method):
    """Among equal candidates the first is picked, whichever was picked before."""
    corners = np.array([[1.0, 0], [0, 1], [0, 1], [-1, 0], [-1, 0], [0, -1]])
    sigma = np.ones(6)
    picks = formula.novelselect(corners, sigma, 6, 0, formula=method, metric="euclidean").picks.tolist()
    assert picks.index(1) < picks.index(2)
    assert picks.index(3) < picks.index(4)
    assert picks[1] == 3


def test_density_of_copies_is_finite_and_released_density_ignores_copies():
    """K copies of a point give the floor; the released density looks at distinct vectors only."""
    points = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1], [0.5, 0.5]])
    assert formula.density(points, 2)[0] == 1 / formula.DISTANCE_SUM_FLOOR
    released = formula.density(points, 2, formula="released")
    assert released[0] == released[1] == pytest.approx(1 / (((0.5**2 + 0.5**2) + 2) / 2 + 1e-9))


def test_a_reference_corpus_other_than_the_pool_is_searched_whole():
    """A point of the reference at distance zero counts for paper; released drops the nearest."""
    reference = np.array([[0.0, 0], [3, 4], [6, 8]])
    point = np.array([[0.0, 0]])
    assert formula.density(point, 2, reference=reference, metric="euclidean")[0] == 1 / 5
    released = formula.density(point, 2, reference=reference, formula="released", metric="euclidean")
    assert released[0] == pytest.approx(1 / ((25 + 100) / 2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: formula.density(np.eye(3), 3), "K = 3"),
        (lambda: formula.distances(np.zeros((1, 2)), np.eye(2)), "zero vector"),
        (lambda: formula.novelselect(np.eye(3), np.ones(3), 4, 0), "budget 4"),
        (lambda: formula.novelty(np.eye(2), np.ones(2), formula="released"), "density of every candidate"),
    ],
)
def test_what_the_formula_cannot_do_is_said(call, words):
    """A ValueError names what is wrong."""
    with pytest.raises(ValueError, match=words):
        call()
