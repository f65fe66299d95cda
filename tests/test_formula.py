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
    if method != "released":
        own = sigma[i] ** κ2 if method == "symmetric" else 0
        pairs = sorted((plain_distance(points[i], points[j], metric), j) for j in chosen)
        return sum((1 / rank) ** κ1 * (own + sigma[j] ** κ2) * d for rank, (d, j) in enumerate(pairs, start=1))
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
    """Both NovelSums of a data set equal plain Python loops; symmetric has that of paper."""
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
    assert formula.novelsum(d, sigma, formula="symmetric", proximity_power=κ1, density_power=κ2) == found
    released = formula.novelsum(d, sigma, formula="released", proximity_power=κ1, density_power=κ2)
    assert released.mean == pytest.approx(sum(averages) / n, rel=1e-9)


def test_the_symmetric_novelty_of_a_small_case_is_what_a_hand_computes():
    """σ^κ2 is 3 of x; 1, 2 and 5 of the picks, which are 2, 4 and 1 away: the third has rank 1."""
    v = formula.novelty([[2.0, 4.0, 1.0]], [1.0, 4.0, 25.0], [9.0], formula="symmetric", density_power=0.5)
    assert v.tolist() == [pytest.approx((3 + 5) * 1 / 1 + (3 + 1) * 2 / 2 + (3 + 2) * 4 / 3)]


def test_equal_distances_are_ranked_by_index_whatever_their_shares():
    """By symmetric as by paper; ranked by what is summed, as by released, the sum would be 2 + 3/2."""
    options = {"density_power": 1.0, "formula": "symmetric"}
    assert formula.novelty([[1.0, 1.0]], [2.0, 1.0], [1.0], **options).tolist() == [3 + 2 / 2]
    assert formula.novelty([[1.0, 1.0]], [1.0, 2.0], [1.0], **options).tolist() == [2 + 3 / 2]


@pytest.mark.parametrize("metric", formula.METRICS)
@pytest.mark.parametrize("κ1", [0.0, 0.5, 1.0, 2.0])
def test_without_density_the_symmetric_formula_is_twice_the_papers(scattered, metric, κ1):
    """To the last bit, as a share is 1 + 1 then: so are its picks."""
    sigma = formula.density(scattered, 4, metric=metric)
    one, other = (
        formula.novelselect(
            scattered, sigma, 12, 7, formula=method, metric=metric, proximity_power=κ1, density_power=0.0
        )
        for method in ("paper", "symmetric")
    )
    assert other.picks.tolist() == one.picks.tolist()
    assert other.novelty.tolist() == (2 * one.novelty).tolist()


@pytest.mark.parametrize("κ2", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("κ1", "budget"), [(0.0, 12), (1.0, 2)])
def test_what_symmetric_sums_up_is_the_novelsum_of_its_picks(scattered, κ1, κ2, budget):
    """Where no rank is another from the other side: without ranks, and with two picks. Then v is the whole gain."""
    sigma = formula.density(scattered, 4)
    powers = {"proximity_power": κ1, "density_power": κ2}
    found = formula.novelselect(scattered, sigma, budget, 7, formula="symmetric", **powers)
    for size in range(1, budget + 1):
        picks = found.picks[:size]
        d = formula.distances(scattered[picks], scattered[picks])
        novelsum = formula.novelsum(d, sigma[picks], **powers).sum
        assert found.novelty[:size].sum() == pytest.approx(novelsum, rel=1e-12)


@pytest.mark.parametrize("metric", formula.METRICS)
def test_the_density_of_the_symmetric_formula_is_the_papers(scattered, metric):
    """Over a corpus of its own too."""
    for reference in (None, scattered[::2]):
        one, other = (
            formula.density(scattered, 4, reference=reference, formula=method, metric=metric)
            for method in ("paper", "symmetric")
        )
        assert one.tolist() == other.tolist()


def test_more_novelsum_on_real_prompts_by_the_symmetric_formula_than_by_the_papers(sample):
    """Of the two, the one that counts the σ of what it picks: a tenth more on the first prompts of the sample."""
    vectors = np.unique(sample.vectors[:1000], axis=0)
    sigma = formula.density(vectors, 10)
    sums = {}
    for method in ("paper", "symmetric"):
        picks = formula.novelselect(vectors, sigma, 60, 0, formula=method).picks
        sums[method] = formula.novelsum(formula.distances(vectors[picks], vectors[picks]), sigma[picks]).sum
    assert sums["symmetric"] > 1.05 * sums["paper"]


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
        (
            lambda: formula.novelty(np.eye(2), np.ones(2), formula="released"),
            "released formula needs the density of every",
        ),
        (lambda: formula.novelty(np.eye(2), np.ones(2), formula="symmetric"), "symmetric formula needs the density"),
    ],
)
def test_what_the_formula_cannot_do_is_said(call, words):
    """A ValueError names what is wrong."""
    with pytest.raises(ValueError, match=words):
        call()
