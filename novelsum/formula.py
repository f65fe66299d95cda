"""NovelSum and NovelSelect in plain float64 NumPy: the definition everything faster is tested against.

Source: Yang et al., "Measuring Data Diversity for Instruction Tuning", ACL 2025 (arXiv 2502.17184),
as used in chapter 4 of MagicAgent (arXiv 2602.19000). For a candidate x and selected samples
S = {x_1 ... x_n}::

    v(x)      = sum over x_j in S of  w(x, x_j)^κ1 · σ(x_j)^κ2 · d(x, x_j)      novelty
    w(x, x_j) = 1 / π(j)            π(j): rank of x_j in S by increasing distance to x, from 1
    σ(x_j)    = 1 / sum over k = 1..K of d(x_j, N_k(x_j))                       density factor

N_k(x_j) is the k-th nearest neighbour of x_j itself, searched in the whole reference corpus (by default
the whole pool), never x_j and never only in S: σ does not change while S grows.

Three formulas are offered. ``paper`` is the equation above. ``released`` is what the authors' published code
(UmeanNever/NovelSum) computes. ``symmetric`` is a way to select: what x adds to the NovelSum of ``paper`` when it joins
S, the ranks taken from the side of x and those within S left as they are. Each function says where they differ.

Here κ1 is ``proximity_power``, κ2 is ``density_power`` and K is ``neighbors``. Points are numbered in the
order of their ids, so "smallest index" means "smallest id": every tie, of picks and of ranks, goes to it.
No function depends on the order in which S was picked. All arithmetic is float64, and every value of a row
is computed from that row alone, so that splitting the rows in any way gives the same bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Formula = Literal["paper", "released", "symmetric"]
Metric = Literal["cosine", "euclidean"]
Array = NDArray[np.float64]

FORMULAS: tuple[Formula, ...] = ("paper", "released", "symmetric")
METRICS: tuple[Metric, ...] = ("cosine", "euclidean")

DISTANCE_SUM_FLOOR = 1e-9
"""``paper``: the distance sum of a density factor is not taken below this, so that σ stays finite when
a point has K exact copies."""

RELEASED_REGULARIZATION = 1e-9
"""``released``: added to the mean squared distance before the power is taken (the authors' constant)."""

_CACHE_BYTES = 1 << 20


# --- distance ---------------------------------------------------------------------------------------------


def normalize(vectors: ArrayLike) -> Array:
    """Rows scaled to unit length: (n, D) of any float type to (n, D) float64. A zero row is an error."""
    rows = np.ascontiguousarray(vectors, dtype=np.float64)
    norms = np.sqrt(np.square(rows).sum(axis=1))
    if not norms.all():
        raise ValueError(f"row {int(np.argmin(norms))} is a zero vector: it has no cosine distance")
    unit: Array = rows / norms[:, None]
    return unit


def squared_distances(a: ArrayLike, b: ArrayLike) -> Array:
    """Squared Euclidean distance of every row of ``a`` (m, D) to every row of ``b`` (n, D): (m, n) float64.

    Computed as Σ (a - b)², one pair at a time in a fixed order of summation. Unlike a matrix product, the
    value of a pair then depends on that pair alone: not on the shape of the block it was computed in, and
    it is exactly symmetric, exactly zero for equal rows, and never negative.
    """
    a = np.ascontiguousarray(a, dtype=np.float64)
    b = np.ascontiguousarray(b, dtype=np.float64)
    if len(a) < len(b):
        return np.ascontiguousarray(squared_distances(b, a).T)
    out = np.empty((len(a), len(b)))
    step = max(1, _CACHE_BYTES // (8 * max(1, a.shape[1])))
    for start in range(0, len(a), step):
        block = a[start : start + step]
        for j, row in enumerate(b):
            out[start : start + step, j] = squared_lengths(block - row)
    return out


def squared_lengths(rows: Array) -> Array:
    """Σ x² of each row (n, D), added in one fixed order: (n,) float64. Overwrites ``rows``."""
    np.square(rows, out=rows)
    return np.asarray(rows.sum(axis=1))


def metric_space(vectors: ArrayLike, metric: Metric) -> Array:
    """Points (n, D) float64 whose squared Euclidean distances give ``metric``: unit vectors for cosine."""
    return normalize(vectors) if metric == "cosine" else np.ascontiguousarray(vectors, dtype=np.float64)


def from_squared(squared: Array, metric: Metric) -> Array:
    """Distances from the squared Euclidean distances of points of :func:`metric_space`, of any shape.

    ``cosine`` is 1 - cos, which for unit vectors is half the squared distance, the same number without
    the cancellation; ``euclidean`` is the root.
    """
    return 0.5 * squared if metric == "cosine" else np.sqrt(squared)


def distances(a: ArrayLike, b: ArrayLike, metric: Metric = "cosine") -> Array:
    """Distance d of every row of ``a`` (m, D) to every row of ``b`` (n, D): (m, n) float64."""
    return from_squared(squared_distances(metric_space(a, metric), metric_space(b, metric)), metric)


# --- density factor ---------------------------------------------------------------------------------------


def density_factor(nearest: ArrayLike) -> Array:
    """σ of m points from the distances (m, K) to their K nearest neighbours: (m,) float64.

    ``paper`` and ``symmetric``: σ(x_j) = 1 / Σ_k d(x_j, N_k(x_j)). The power κ2 is applied where σ is used.
    """
    sums: Array = np.sort(_matrix(nearest), axis=1).sum(axis=1)
    return np.reciprocal(np.maximum(sums, DISTANCE_SUM_FLOOR))


def released_density(nearest_squared: ArrayLike) -> Array:
    """Density of m points from *squared* raw distances (m, K) to their neighbours: (m,) float64.

    ``released``: 1 / (mean_k ‖x - N_k‖² + 1e-9) on the raw vectors whatever the metric, the neighbours
    being the K + 1 nearest *distinct* reference vectors less the first. The power κ2 is applied where the
    density is used, as for ``paper``.
    """
    squared = np.sort(_matrix(nearest_squared), axis=1)
    means: Array = squared.sum(axis=1) / squared.shape[1]
    return np.reciprocal(means + RELEASED_REGULARIZATION)


def density(
    vectors: ArrayLike,
    neighbors: int = 10,
    *,
    reference: ArrayLike | None = None,
    formula: Formula = "paper",
    metric: Metric = "cosine",
) -> Array:
    """Density factor of every row of ``vectors`` (n, D), before the power κ2: (n,) float64.

    Without ``reference`` (m, D) the corpus is ``vectors`` itself and a point is not its own neighbour.
    With one, every reference row can be a neighbour (``released`` still drops the nearest, as the authors'
    code does). Takes O(n·m) memory: made for checking, not for large pools.
    """
    corpus = vectors if reference is None else reference
    if formula == "released":
        unique = np.unique(np.asarray(corpus), axis=0)
        require_neighbors(neighbors, len(unique) - 1)
        return released_density(np.sort(squared_distances(vectors, unique), axis=1)[:, 1 : neighbors + 1])
    d = distances(vectors, corpus, metric)
    if reference is None:
        np.fill_diagonal(d, np.inf)
    require_neighbors(neighbors, d.shape[1] - (reference is None))
    return density_factor(np.sort(d, axis=1)[:, :neighbors])


def require_neighbors(neighbors: int, others: int) -> None:
    """Raise ValueError unless K ``neighbors`` can be found among that many ``others``."""
    if not 1 <= neighbors <= others:
        raise ValueError(f"K = {neighbors} neighbours were asked for, but only {max(others, 0)} others exist")


# --- novelty ----------------------------------------------------------------------------------------------


def proximity_weights(n: int, proximity_power: float = 1.0) -> Array:
    """w^κ1 for the ranks 1 ... n: r^-κ1, (n,) float64."""
    return 1.0 / np.arange(1, n + 1, dtype=np.float64) ** proximity_power


def novelty(
    d: ArrayLike,
    selected_density: ArrayLike,
    candidate_density: ArrayLike | None = None,
    *,
    formula: Formula = "paper",
    proximity_power: float = 1.0,
    density_power: float = 0.5,
) -> Array:
    """v(x) of m candidates against n selected samples: (m,) float64, zero where nothing is selected.

    Parameters
    ----------
    d : (m, n) distances d(x, x_j), the columns in id order so that ties in rank go to the smallest id.
    selected_density : (n,) density factors of the selected samples, before the power κ2.
    candidate_density : (m,) density factors of the candidates; ``released`` and ``symmetric`` need them.

    ``paper``: Σ_j w^κ1 · σ(x_j)^κ2 · d, ranked by d.
    ``symmetric``: Σ_j w^κ1 · (σ(x)^κ2 + σ(x_j)^κ2) · d, ranked by d.
    ``released``: with a = (density(x)^κ2 + density(x_j)^κ2) · d, the mean over S of w^κ1 · a, ranked by a.
    """
    d = _matrix(d)
    n = d.shape[1]
    if n == 0:
        return np.zeros(len(d))
    sigma = np.asarray(selected_density, dtype=np.float64) ** density_power
    weights = proximity_weights(n, proximity_power)
    if formula == "paper":
        share = sigma
    elif candidate_density is None:
        raise ValueError(f"the {formula} formula needs the density of every candidate")
    else:
        share = (np.asarray(candidate_density, dtype=np.float64) ** density_power)[:, None] + sigma
    terms = d * share
    if formula == "released":
        terms.sort(axis=1)
        terms *= weights
        return np.asarray(terms.sum(axis=1) / n)
    terms = np.take_along_axis(terms, np.argsort(d, axis=1, kind="stable"), axis=1)
    terms *= weights
    return np.asarray(terms.sum(axis=1))


# --- NovelSum ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NovelSum:
    """NovelSum of a data set: the ``sum`` over its samples and their ``mean``."""

    sum: float
    mean: float


def novelsum(
    d: ArrayLike,
    density: ArrayLike,
    *,
    formula: Formula = "paper",
    proximity_power: float = 1.0,
    density_power: float = 0.5,
) -> NovelSum:
    """NovelSum of a data set from its distances (n, n) and density factors (n,), rows in id order.

    ``paper``: Σ_i v(x_i) with S = X without x_i.
    ``symmetric``: that of ``paper``, as this is what selecting by it raises. Of two samples it is v itself; with κ1 = 0
    it is the sum of v over the picks.
    ``released``: the mean over i of the *weighted average* of density(x_i)^κ2 · d(x_i, x_j) over all j,
    x_i itself included (at rank 1, with distance 0); ``sum`` is that mean times n.
    """
    d = _matrix(d)
    n = len(d)
    if formula == "released":
        rows = d * (np.asarray(density, dtype=np.float64) ** density_power)[:, None]
        rows.sort(axis=1)
        weights = proximity_weights(n, proximity_power)
        mean = float(np.mean((rows * weights).sum(axis=1) / weights.sum()))
        return NovelSum(sum=mean * n, mean=mean)
    sigma = np.asarray(density, dtype=np.float64)
    total = 0.0
    for i in range(n):
        others = np.arange(n) != i
        v = novelty(
            d[i : i + 1, others],
            sigma[others],
            proximity_power=proximity_power,
            density_power=density_power,
        )
        total += float(v[0])
    return NovelSum(sum=total, mean=total / n)


# --- NovelSelect ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """What NovelSelect picked: indices (picks,) int64 in the order of picking and v when picked (picks,)."""

    picks: NDArray[np.int64]
    novelty: Array


def novelselect(
    vectors: ArrayLike,
    density: ArrayLike,
    budget: int,
    first: int | None,
    *,
    formula: Formula = "paper",
    metric: Metric = "cosine",
    proximity_power: float = 1.0,
    density_power: float = 0.5,
    quality: ArrayLike | None = None,
    begun: Sequence[int] = (),
    may_follow: Callable[[list[int]], NDArray[np.bool_]] | None = None,
    cost: ArrayLike | None = None,
    cost_budget: float | Fraction | None = None,
    cost_power: float = 0.0,
    min_distance: float = 0.0,
) -> Selection:
    """Greedy selection of ``budget`` rows of ``vectors`` (n, D), starting with the row ``first``.

    S = {first}; then, until the budget is met or nothing is left that may be picked, S becomes S with argmax v(x)
    added, ties to the smallest index. Takes O(n·budget) memory and sorts every candidate's distances at every pick.

    Parameters
    ----------
    quality : (n,) what v(x) is multiplied by before the argmax.
    begun : rows that are in S from the start and do not count as picks; ``first`` is None then.
    may_follow : which rows (n,) may be picked after the picks so far.
    cost : (n,) above 0, of which v(x) is divided by the power ``cost_power``; all picks together may cost no more than
        ``cost_budget``, by exact sums.
    min_distance : no row nearer than this to one in S is picked.
    """
    vectors = np.asarray(vectors)
    density = np.asarray(density, dtype=np.float64)
    n = len(vectors)
    if not 1 <= budget <= n:
        raise ValueError(f"budget {budget} is not between 1 and the number of candidates, {n}")
    quality = np.ones(n) if quality is None else np.asarray(quality, dtype=np.float64)
    cost = np.ones(n) if cost is None else np.asarray(cost, dtype=np.float64)
    factor = quality / cost**cost_power
    exact_cost = np.array([Fraction(one) for one in cost.tolist()])
    selected = [*begun] if first is None else [first]
    picks, gained = selected[len(begun) :], [0.0] * (first is not None)
    columns = np.empty((n, 0))
    while len(picks) < budget:
        columns = np.column_stack([columns, distances(vectors, vectors[selected[columns.shape[1] :]], metric)])
        by_id = np.argsort(selected)
        v = novelty(
            columns[:, by_id],
            density[np.asarray(selected)[by_id]],
            density,
            formula=formula,
            proximity_power=proximity_power,
            density_power=density_power,
        )
        score = v * factor
        score[selected] = -np.inf
        if may_follow is not None:
            score[~may_follow(picks)] = -np.inf
        if cost_budget is not None:
            score[(exact_cost > Fraction(cost_budget) - sum(exact_cost[picks])).astype(bool)] = -np.inf
        score[columns.min(axis=1, initial=np.inf) < min_distance] = -np.inf
        if score.max() == -np.inf:
            break
        picks.append(int(np.argmax(score)))
        selected.append(picks[-1])
        gained.append(float(v[picks[-1]]))
    return Selection(np.array(picks, dtype=np.int64), np.array(gained))


def _matrix(values: ArrayLike) -> Array:
    """A C-ordered float64 matrix: the row sums above then add each row in one fixed order."""
    matrix = np.ascontiguousarray(values, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"expected a matrix, got {matrix.ndim} dimension(s)")
    return matrix
