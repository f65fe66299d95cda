"""NovelSum of a data set and of a whole grid of settings, from one pass over the distances. NumPy only.

The equation of :mod:`novelsum.formula`, with its sums in another order. For ``paper``::

    NovelSum = Σ_i Σ_{j≠i} w(x_i, x_j)^κ1 · d(x_i, x_j) · σ(x_j)^κ2 = Σ_j σ(x_j)^κ2 · m(x_j)

where the *mass* m(x_j) = Σ_{i≠j} w(x_i, x_j)^κ1 · d(x_i, x_j) knows nothing of K and κ2. So one pass over the
rows, each sorted once, gives the masses for every κ1; with the density factors, searched before, the grid over K and κ2
is arithmetic on n numbers. For ``released`` a row is Σ_r d_(r) · r^-κ1, times its own density^κ2. Which of the
two a formula's rows add says its object, see :mod:`novelsum.formulas`.

A row is sorted as 64-bit integers: the distance in fixed point above, the row of the other point below, so that
equal distances are ranked by row, which is by id. The step of the fixed point is 2.3e-13 of the greatest possible
distance (of its square for ``euclidean``) for up to four million points: hundreds of times wider than the rounding of
a matrix product in float64, so that equal points are at distance 0 and ties are ties. The distances to the nearest
points, which weigh most, are computed again by the formula's own rule.

Where only a sample of rows i is measured, each against the whole set, the mean is estimated as::

    mean over the sample of Σ_j w^κ1 · d    times    Σ_ij w^κ1 · d · σ_j^κ2 / Σ_ij w^κ1 · d   (i, j both in the sample)

with ranks and neighbours of the whole set in all of it, and σ needed in the sample only. Rows are dealt into
``GROUPS`` random groups, and the interval is that of the delete-a-group jackknife. With all rows in the sample
the estimate is the sum above.

How far the mean of all rows hangs on single ones is asked in one setting, the *leading* one. Without x_k each row i
loses its term for it, and each farther point has the weight of the rank before::

    Δ_ik = Σ_{r > r_k} (w(r-1) - w(r)) · t_(r) - w(r_k) · t_(r_k)        t = d · σ^κ2, ranks r in row i

The sums over i of all Δ_ik, added up as each sorted row is read from its far end, give every mean of n - 1 rows
exactly: the delete-one jackknife.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.diversity import loops
from novelsum.formula import Array, Formula, Metric, from_squared, proximity_weights, squared_lengths
from novelsum.formulas import EQUATIONS, MEASURED, Equation
from novelsum.settings import Settings

GROUPS = 50
"""Groups of a sample for its interval."""
T_QUANTILE = 2.0096
"""Student's t at 97.5% with GROUPS - 1 degrees of freedom."""

_TILE_BYTES = 128 << 20
_SMALLEST_SHIFT = 22
"""Bits of a key below the distance, at least. Adding 2^52 puts 12 bits of sign and exponent above an integer, which a
shift by 12 or more drops; the others make a step of the fixed point much wider than the rounding of a product."""
_EXACT = 32
"""Nearest points of each row whose distances are computed again and put in order by the formula's own rule."""
_LAST = np.uint64(0xFFFFFFFFFFFFFFFF)

Densities = dict[tuple[Formula, int], Array]
"""Density factors (m,) of the sampled rows, before the power κ2, for each formula and K."""


@dataclass(frozen=True)
class Grid:
    """The settings NovelSum is wanted for, in every combination: ``proximity_powers`` are κ1, ``density_powers`` κ2."""

    formulas: tuple[Formula, ...] = MEASURED
    metric: Metric = "cosine"
    neighbors: tuple[int, ...] = (10,)
    proximity_powers: tuple[float, ...] = (1.0,)
    density_powers: tuple[float, ...] = (0.5,)

    @staticmethod
    def of_run(settings: Settings, formulas: tuple[Formula, ...]) -> "Grid":
        """The one combination of a run that selects, for some formulas."""
        one = (settings.neighbors,), (settings.proximity_power,), (settings.density_power,)
        return Grid(formulas, settings.metric, *one)

    @property
    def equations(self) -> list[Equation]:
        """The formulas' objects."""
        return [EQUATIONS[formula] for formula in self.formulas]

    @property
    def among_distinct(self) -> bool:
        """Whether some formula searches neighbours among distinct raw vectors."""
        return any(equation.among_distinct for equation in self.equations)

    @property
    def among_all(self) -> bool:
        """Whether some formula searches neighbours among all points."""
        return not all(equation.among_distinct for equation in self.equations)

    @property
    def weighs_density(self) -> bool:
        """Whether density factors count: no κ2 but 0 needs none."""
        return any(self.density_powers)


@dataclass(frozen=True)
class Columns:
    """Some points of the data set, as :func:`in_space` brings them there.

    ``points`` (n, D) float64 in the metric's space; ``lengths`` (n,) that bring them back to the raw vectors;
    ``rows`` (n,) int64; ``distinct`` (n,) bool, true on one of those with equal embeddings.
    """

    points: Array
    lengths: Array
    rows: NDArray[np.int64]
    distinct: NDArray[np.bool_]

    def take(self, places: slice | NDArray[np.int64]) -> "Columns":
        """Some of the points."""
        return Columns(self.points[places], self.lengths[places], self.rows[places], self.distinct[places])


def in_space(vectors: NDArray[Any], metric: Metric) -> tuple[Array, Array]:
    """Raw vectors (n, D) in the metric's space, (n, D) float64, and the lengths (n,) they had there."""
    raw = np.ascontiguousarray(vectors, dtype=np.float64)
    if metric == "euclidean":
        return raw, np.ones(len(raw))
    lengths = np.sqrt(np.square(raw).sum(axis=1))
    return raw / lengths[:, None], lengths


@dataclass(frozen=True)
class Leading:
    """The one setting of which is asked how far its mean hangs on single rows: what their terms are made of.

    ``weights`` (n - 1,) by rank; ``of_row`` and ``of_column`` (n,) what the terms of a row, and those with a row in
    their column, are multiplied by; ``divisors``: by what the sum of the terms of n rows, and of n - 1, is divided to
    be the mean of :func:`novelsum.formula.novelsum`.
    """

    weights: Array
    of_row: Array
    of_column: Array
    divisors: tuple[float, float]

    @staticmethod
    def of(equation: Equation, proximity_power: float, powered: Array) -> "Leading":
        """``powered`` (n,): σ^κ2 of all rows."""
        n, ones = len(powered), np.ones(len(powered))
        weights = proximity_weights(n, proximity_power)
        if equation.weighs_others:
            return Leading(weights[: n - 1], ones, powered, (n, n - 1))
        total = float(weights.sum())
        return Leading(weights[1:], powered, ones, (n * total, (n - 1) * (total - float(weights[-1]))))


@dataclass(frozen=True)
class Tally:
    """What a pass over t sampled rows finds out.

    ``rows`` (t,) and ``group`` (t,) int64; ``sums`` (t, κ1) are Σ_j w^κ1·d; ``averages`` (t, κ1) the same as weighted
    averages with the point itself at rank 1; ``nearest_own`` (t,) squared distances in the metric's space to the
    nearest other one, 0 if there is none; ``totals`` (t,) Σ_j d; ``mass`` (groups, κ1, m): Σ w^κ1·d over the rows of a
    group, for each of the m rows of the whole sample in ascending row. Of the leading setting, where there is one,
    ``terms`` (t,) are the sums of each row's terms, and ``without`` (n,) by how much all these sums would change
    together if the row were not in their columns; otherwise both are empty.
    """

    rows: NDArray[np.int64]
    group: NDArray[np.int64]
    sums: Array
    averages: Array
    nearest_own: Array
    totals: Array
    mass: Array
    terms: Array
    without: Array

    @staticmethod
    def joined(parts: Sequence["Tally"]) -> "Tally":
        """All parts as one, rows ascending."""
        order = np.argsort(np.concatenate([part.rows for part in parts]))

        def together(name: str) -> Any:
            found = np.concatenate([getattr(part, name) for part in parts])
            return found[order] if len(found) else found

        per_row = {
            name: together(name) for name in ("rows", "group", "sums", "averages", "nearest_own", "totals", "terms")
        }
        mass, without = parts[0].mass.copy(), parts[0].without.copy()
        for part in parts[1:]:
            mass += part.mass
            without += part.without
        return Tally(**per_row, mass=mass, without=without)


def tally(
    queries: Columns,
    group: NDArray[np.int64],
    groups: int,
    columns: Sequence[Columns],
    sample: NDArray[np.int64] | None,
    grid: Grid,
    leading: Leading | None = None,
) -> Tally:
    """Measure some rows of a data set against all of it.

    Parameters
    ----------
    queries : t rows of the sample; each is also in ``columns``.
    group : (t,) int64, which of ``groups`` groups each is in.
    columns : the n points of the data set in parts, with the rows 0 ... n - 1 in any order.
    sample : (m,) int64, the rows of the whole sample, ascending; None: all.
    leading : the setting of which the change without each row is wanted; without a sample only.

    Memory is bounded: 128 MiB or one row of distances, whichever is more, beside arrays of a few numbers a point.
    """
    return _Pass(columns, sample, groups, grid, leading).over(queries, group)


class _Pass:
    """One pass over rows; what all of them need is here."""

    def __init__(
        self,
        columns: Sequence[Columns],
        sample: NDArray[np.int64] | None,
        groups: int,
        grid: Grid,
        leading: Leading | None,
    ) -> None:
        self._columns, self._grid, self._groups, self._leading = columns, grid, groups, leading
        self._starts = np.cumsum([0, *(len(part.rows) for part in columns)])
        self._n = n = int(self._starts[-1])
        self._exact = min(_EXACT, n - 1)
        rows = np.concatenate([part.rows for part in columns])
        self._rows = rows.astype(np.uint64)
        self._place = np.empty(n, dtype=np.int64)
        self._place[rows] = np.arange(n)
        self._shift = np.uint64(max(_SMALLEST_SHIFT, n.bit_length()))
        norms = np.concatenate([np.square(part.points).sum(axis=1) for part in columns])
        steps = 2.0 ** (64 - int(self._shift)) - 4
        self._cosine = grid.metric == "cosine"
        greatest = 2.0 if self._cosine else 4 * float(norms.max())
        self._scale = steps / (greatest * (1 + 1e-9)) if greatest > 0 else 1.0
        self._norms = norms * self._scale
        self._wants_mass = grid.weighs_density and any(equation.weighs_others for equation in grid.equations)
        self._sampled = n if sample is None else len(sample)
        self._column = np.arange(n)
        if sample is not None:
            self._column[:] = -1
            self._column[sample] = np.arange(len(sample))
        self._weights = np.ascontiguousarray([proximity_weights(n, power) for power in grid.proximity_powers])

    def over(self, queries: Columns, group: NDArray[np.int64]) -> Tally:
        t, powers, led = len(queries.rows), len(self._weights), self._leading is not None
        self._sums, self._averages = np.zeros((t, powers)), np.zeros((t, powers))
        self._nearest, self._totals = np.zeros(t), np.zeros(t)
        self._mass = np.zeros((self._groups, self._sampled if self._wants_mass else 0, powers))
        self._terms, self._without = np.zeros(t if led else 0), np.zeros(self._n if led else 0)
        self._others = np.empty(self._n - 1, dtype=np.int64)
        step = max(1, min(256, _TILE_BYTES // (8 * self._n)))
        keys = np.empty((min(step, t), self._n))
        for start in range(0, t, step):
            part = queries.take(slice(start, start + step))
            tile = keys[: len(part.rows)]
            scaled = part.points * (-self._scale if self._cosine else -2 * self._scale)
            for columns, first in zip(self._columns, self._starts[:-1].tolist(), strict=True):
                np.matmul(scaled, columns.points.T, out=tile[:, first : first + len(columns.rows)])
            for i in range(len(part.rows)):
                self._row(start + i, tile[i], part.points[i], int(part.rows[i]), int(group[start + i]))
        self._averages /= self._weights.sum(axis=1)
        return Tally(
            queries.rows,
            group,
            self._sums,
            self._averages,
            self._nearest,
            self._totals,
            np.ascontiguousarray(self._mass.transpose(0, 2, 1)),
            self._terms,
            self._without,
        )

    def _row(self, i: int, products: Array, point: Array, row: int, group: int) -> None:
        """Sort one row of scaled, negative products (n,), which is overwritten, and add up what is wanted of it."""
        own = int(self._place[row])
        offset = self._scale if self._cosine else float(self._norms[own])
        loops.to_keys(products, self._norms, offset, self._cosine, self._rows, self._shift)
        keys = products.view(np.uint64)
        keys[own] = _LAST
        keys.sort()
        others, d = self._others, products[:-1]
        loops.from_keys(keys[:-1], self._shift, 1 / self._scale, self._cosine, others)
        near = others[: self._exact].copy()
        squared = squared_lengths(self._points(self._place[near]) - point)
        order = np.lexsort((near, squared))
        squared = squared[order]
        others[: self._exact] = near[order]
        d[: self._exact] = from_squared(squared, self._grid.metric)
        self._nearest[i] = squared[0] if len(squared) else 0.0
        self._totals[i] = loops.add_up(d, self._weights, self._sums[i], self._averages[i])
        if self._wants_mass:
            loops.spread(others, d, self._weights, self._column, self._mass[group])
        if self._leading is not None:
            of_row, of_column = float(self._leading.of_row[row]), self._leading.of_column
            self._terms[i] = loops.leave_out(others, d, self._leading.weights, of_row, of_column, self._without)

    def _points(self, places: NDArray[np.int64]) -> Array:
        """The points at some places of all columns."""
        parts = np.searchsorted(self._starts, places, side="right") - 1
        found = np.empty((len(places), self._columns[0].points.shape[1]))
        for i, (part, place) in enumerate(zip(parts.tolist(), places.tolist(), strict=True)):
            found[i] = self._columns[part].points[place - self._starts[part]]
        return found


def densities(grid: Grid, nearest: Array, nearest_raw: Array) -> Densities:
    """Density factors for every formula and K of the grid.

    ``nearest`` (m, K) squared distances in the metric's space to the nearest other points; ``nearest_raw`` (m, K + 1)
    those of the raw vectors to the nearest distinct ones, the point itself among them. One that no formula of the grid
    asks for may be empty.
    """
    found: Densities = {}
    for k in grid.neighbors:
        for equation in grid.equations:
            squared = nearest_raw[:, 1 : k + 1] if equation.among_distinct else nearest[:, :k]
            found[equation.name, k] = equation.density(squared, grid.metric)
    return found


# --- from the tally to NovelSum ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    """NovelSum of a data set at one point of the grid: the sum over its rows, the mean, and the mean's 95% interval.

    Without a sample the interval is the mean itself.
    """

    formula: Formula
    neighbors: int
    proximity_power: float
    density_power: float
    sum: float
    mean: float
    mean_low: float
    mean_high: float


def values(grid: Grid, found: Tally, density: Densities, n: int) -> list[Value]:
    """NovelSum of a data set of n rows at every point of the grid, from a sample of them or all."""
    results = []
    for formula in grid.formulas:
        for k in grid.neighbors:
            for at, proximity_power in enumerate(grid.proximity_powers):
                for density_power in grid.density_powers:
                    powered = density[formula, k] ** density_power if density_power else np.ones(len(found.rows))
                    mean, spread = _mean(EQUATIONS[formula], found, at, powered, n)
                    low, high = max(0.0, mean - spread), mean + spread
                    results.append(Value(formula, k, proximity_power, density_power, mean * n, mean, low, high))
    return results


def _mean(equation: Equation, found: Tally, at: int, powered: Array, n: int) -> tuple[float, float]:
    """The mean of what rows add, and half the width of its interval."""
    parts = [_of_others(found, at, powered, n)] if equation.weighs_others else []
    own = equation.of_row(powered, found.sums[:, at], found.averages[:, at])
    if own is not None:
        parts.append(_of_rows(found, own, n))
    without = np.sum([without for _, without in parts], axis=0)
    return sum(mean for mean, _ in parts), _spread(without, len(found.rows), n)


def _of_others(found: Tally, at: int, powered: Array, n: int) -> tuple[float, Array]:
    """The mean of Σ_j w^κ1 · d · σ_j^κ2, and the estimates (groups,) of it that leave out one group each."""
    mass, groups = found.mass[:, at], len(found.mass)
    if not mass.size:  # no κ2 but 0
        return _of_rows(found, found.sums[:, at], n)
    if len(found.rows) == n:
        return float((mass.sum(axis=0) * powered).sum() / n), np.zeros(1)
    ratio = _without_each(mass * powered, found.group)
    ratio /= _without_each(mass, found.group)
    rows = np.bincount(found.group, minlength=groups)
    sums = np.bincount(found.group, found.sums[:, at], groups)
    without = (sums.sum() - sums) / (len(found.rows) - rows) * ratio
    mean = found.sums[:, at].mean() * float((mass * powered).sum() / mass.sum())
    return mean, without


def _without_each(mass: Array, group: NDArray[np.int64]) -> Array:
    """Sums of a (groups, m) mass over the pairs that have no row in a group, for each group: (groups,)."""
    groups = len(mass)
    of_pairs = np.stack([np.bincount(group, row, groups) for row in mass])
    return np.asarray(of_pairs.sum() - of_pairs.sum(axis=0) - of_pairs.sum(axis=1) + np.diagonal(of_pairs))


def _of_rows(found: Tally, own: Array, n: int) -> tuple[float, Array]:
    """The mean of what each row (t,) adds by its own σ, and the estimates that leave out one group each."""
    groups = len(found.mass)
    if len(own) == n:
        return float(own.mean()), np.zeros(1)
    rows, sums = np.bincount(found.group, minlength=groups), np.bincount(found.group, own, groups)
    return float(own.mean()), (sums.sum() - sums) / (len(own) - rows)


def _spread(without: Array, sampled: int, n: int) -> float:
    """Half the width of the 95% interval from the estimates (groups,) that leave out one group each."""
    groups = len(without)
    variance = (groups - 1) / groups * float(np.square(without - without.mean()).sum()) * (1 - sampled / n)
    return float(T_QUANTILE * np.sqrt(variance))


def variance(found: Tally, leading: Leading) -> float:
    """The variance that the mean of the leading setting has if the n rows are a sample: delete-one jackknife.

    The mean without each row is known exactly, the density factors left as they are. By Efron and Stein the variance
    is on average no less than the true one of n - 1 rows. 0 for fewer than three rows.
    """
    n = len(found.rows)
    if n < 3:
        return 0.0
    without = (found.terms.sum() - found.terms + found.without) / leading.divisors[1]
    return float((n - 1) / n * np.square(without - without.mean()).sum())
