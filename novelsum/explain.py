"""The worked example: NovelSelect on a small table of distances, every number written out.

No Spark: the formula itself (:mod:`novelsum.formula`) on a table a person can check by hand.
"""

import csv
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from novelsum.errors import InputError
from novelsum.formula import DISTANCE_SUM_FLOOR, Array, Formula, density_factor, novelty, proximity_weights
from novelsum.formulas import EQUATIONS

_SYMMETRY_TOLERANCE = 1e-9


@dataclass(frozen=True)
class DensityLine:
    """σ of one point and what it is made of: the K nearest other points of the whole table."""

    point: str
    neighbors: list[str]
    distances: list[float]
    sum: float
    sigma: float


@dataclass(frozen=True)
class Term:
    """One summand of v(x) for a selected point at its rank: w^κ1 · σ^κ2 · d.

    ``sigma`` is of the selected point; by ``symmetric`` the candidate's σ^κ2 is added to its power.
    """

    selected: str
    rank: int
    proximity_weight: float
    sigma: float
    distance: float
    value: float


@dataclass(frozen=True)
class CandidateLine:
    """A candidate of a round with the terms of its novelty."""

    candidate: str
    terms: list[Term]
    novelty: float


@dataclass(frozen=True)
class Round:
    """One pick: the selected set before it, every candidate's novelty, and the pick."""

    selected: list[str]
    candidates: list[CandidateLine]
    pick: str
    novelty: float


@dataclass(frozen=True)
class Explanation:
    """The whole selection. ``proximity_power`` is κ1, ``density_power`` κ2, ``neighbors`` K."""

    formula: Formula
    neighbors: int
    proximity_power: float
    density_power: float
    densities: list[DensityLine]
    rounds: list[Round]

    def as_data(self) -> dict[str, Any]:
        """The same as dictionaries and lists."""
        return asdict(self)


def read_distances(path: str) -> tuple[list[str], Array]:
    """Labels (n,) and distances (n, n) of a labelled square CSV table: a header row and a first column of labels.

    Raises InputError, naming the cell, for a table that is not square, not symmetric, negative, not of
    numbers, or has a diagonal that is not zero.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV text file: {error}") from None
    if not rows:
        raise InputError(f"{path} is empty; it must hold a labelled square table of distances")
    labels = rows[0][1:]
    if len(set(labels)) != len(labels) or "" in labels:
        raise InputError(f"{path}: the labels in the first row must be different and not empty: {', '.join(labels)}")
    if len(rows) - 1 != len(labels):
        raise InputError(
            f"{path} is not square: cell ({labels[len(rows) - 1] if len(rows) <= len(labels) else rows[-1][0]}, "
            f"{labels[0]}) should "
            + ("be there" if len(rows) <= len(labels) else "not be there")
            + f", as there are {len(labels)} labels and {len(rows) - 1} rows of distances"
        )
    table = np.zeros((len(labels), len(labels)))
    for i, row in enumerate(rows[1:]):
        if len(row) != len(labels) + 1:
            raise InputError(
                f"{path} is not square: row {row[0]!r} has {len(row) - 1} distances, expected {len(labels)}"
            )
        if row[0] != labels[i]:
            raise InputError(f"{path}: row {i + 1} is labelled {row[0]!r}, expected {labels[i]!r} as in the first row")
        for j, cell in enumerate(row[1:]):
            table[i, j] = _distance(path, labels[i], labels[j], cell)
    _check_table(path, labels, table)
    return labels, table


def _distance(path: str, row: str, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}: cell ({row}, {column}) is {cell!r}, which is not a number")
    return value


def _check_table(path: str, labels: list[str], table: Array) -> None:
    for i, row in enumerate(labels):
        for j, column in enumerate(labels):
            value, mirrored = table[i, j], table[j, i]
            if value < 0:
                raise InputError(f"{path}: cell ({row}, {column}) is negative: {value:g}")
            if i == j and value != 0:
                raise InputError(
                    f"{path}: cell ({row}, {column}) on the diagonal is {value:g}; "
                    "the distance of a point to itself must be 0"
                )
            if not math.isclose(value, mirrored, rel_tol=_SYMMETRY_TOLERANCE):
                raise InputError(
                    f"{path} is not symmetric: cell ({row}, {column}) is {value:g} "
                    f"but ({column}, {row}) is {mirrored:g}"
                )


def explain(
    labels: list[str],
    distances: Array,
    *,
    formula: Formula = "paper",
    neighbors: int,
    proximity_power: float,
    density_power: float,
    first: str,
    budget: int,
) -> Explanation:
    """NovelSelect over a table of distances (n, n) with its labels (n,) in id order, every number kept.

    ``formula``: ``paper`` or ``symmetric``, whose density factors the distances tell.

    Raises InputError when the table cannot serve: ``first`` is no label, K is not below n, or the budget
    is above n.
    """
    n = len(labels)
    if first not in labels:
        raise InputError(f"--first {first!r} is not in the table, whose points are {', '.join(labels)}")
    if neighbors >= n:
        raise InputError(f"--neighbors {neighbors} must be below the number of points, {n}")
    if budget > n:
        raise InputError(f"--budget {budget} is above the number of points, {n}")
    densities = [_density_line(labels, distances, i, neighbors) for i in range(n)]
    sigma = np.array([line.sigma for line in densities])
    picks: list[int] = []
    rounds: list[Round] = []
    while len(picks) < budget:
        selected = np.array(sorted(picks), dtype=np.int64)
        candidates = [i for i in range(n) if i not in picks]
        v = novelty(
            distances[candidates][:, selected],
            sigma[selected],
            sigma[candidates],
            formula=formula,
            proximity_power=proximity_power,
            density_power=density_power,
        )
        lines = [
            CandidateLine(
                labels[i],
                _terms(labels, distances[i], sigma, sigma[i], selected, formula, proximity_power, density_power),
                float(of_i),
            )
            for i, of_i in zip(candidates, v, strict=True)
        ]
        best = candidates.index(labels.index(first)) if not picks else int(np.argmax(v))
        rounds.append(Round([labels[i] for i in picks], lines, labels[candidates[best]], float(v[best])))
        picks.append(candidates[best])
    return Explanation(formula, neighbors, proximity_power, density_power, densities, rounds)


def _density_line(labels: list[str], distances: Array, i: int, neighbors: int) -> DensityLine:
    order = [int(j) for j in np.argsort(distances[i], kind="stable") if j != i][:neighbors]
    nearest = distances[i, order]
    sigma = float(density_factor(nearest[None, :])[0])
    return DensityLine(labels[i], [labels[j] for j in order], nearest.tolist(), float(nearest.sum()), sigma)


def _terms(
    labels: list[str],
    to: Array,
    sigma: Array,
    own: float,
    selected: Any,
    formula: Formula,
    proximity_power: float,
    density_power: float,
) -> list[Term]:
    """The terms of one candidate by rank; ``to`` (n,) are its distances to all points, ``own`` its density factor."""
    weights = proximity_weights(len(selected), proximity_power)
    shares = EQUATIONS[formula].share(own**density_power, sigma**density_power)
    by_rank = selected[np.argsort(to[selected], kind="stable")]
    return [
        Term(
            labels[j], rank + 1, float(weights[rank]), float(sigma[j]), float(to[j]),
            float(weights[rank] * shares[j] * to[j]),
        )
        for rank, j in enumerate(by_rank)
    ]  # fmt: skip


# --- as a person would write it ---------------------------------------------------------------------------


def as_text(explanation: Explanation) -> str:
    """The explanation with every sum written out."""
    k, κ1, κ2 = explanation.neighbors, explanation.proximity_power, explanation.density_power
    is_symmetric = explanation.formula == "symmetric"
    sigma = {line.point: line.sigma for line in explanation.densities}
    lines = [
        f"Density factors σ, K = {k}: each point's {k} nearest neighbour(s) among all other points of the table.",
        "They are the same in every round, as they do not depend on what is selected.",
        "",
    ]
    for line in explanation.densities:
        names = " + ".join(f"d({line.point},{other})" for other in line.neighbors)
        numbers = " + ".join(_number(d) for d in line.distances)
        sum_ = _number(line.sum)
        if line.sum < DISTANCE_SUM_FLOOR:
            sum_ = f"{DISTANCE_SUM_FLOOR:g} (the floor of the sum)"
        lines.append(f"  σ({line.point}) = 1 / ({names}) = 1 / ({numbers}) = 1 / {sum_} = {_number(line.sigma)}")
    for number, round_ in enumerate(explanation.rounds, start=1):
        lines += ["", f"Round {number}: S = {{{', '.join(round_.selected)}}}"]
        if not round_.selected:
            lines += [
                "  Nothing is selected yet, so v is 0 for all, and the first pick is given.",
                f"  Pick {round_.pick}.",
            ]
            continue
        for candidate in round_.candidates:
            own = sigma[candidate.candidate] if is_symmetric else None
            terms = " + ".join(_term(term, own, κ1, κ2) for term in candidate.terms)
            values = " + ".join(_number(term.value) for term in candidate.terms)
            sum_ = f" = {values}" if len(candidate.terms) > 1 else ""
            lines.append(f"  v({candidate.candidate}) = {terms}{sum_} = {_number(candidate.novelty)}")
        lines.append(f"  Pick {round_.pick}, the greatest, with v = {_number(round_.novelty)}.")
    order = ", ".join(round_.pick for round_ in explanation.rounds)
    share = "(σ(x)^κ2 + σ(x_j)^κ2)" if is_symmetric else "σ^κ2"
    lines += ["", f"Each term is w^κ1 · {share} · d, with w = 1 / rank of the selected point by its distance d."]
    lines += [f"κ1 = {_number(κ1)}, κ2 = {_number(κ2)}.", f"Picks in order: {order}"]
    return "\n".join(lines)


def _term(term: Term, own: float | None, κ1: float, κ2: float) -> str:
    share = f"{_number(term.sigma)}{_power(κ2)}"
    if own is not None:
        share = f"({_number(own)}{_power(κ2)} + {share})"
    return f"(1/{term.rank}){_power(κ1)} · {share} · {_number(term.distance)} [{term.selected}]"


def _power(exponent: float) -> str:
    return "" if exponent == 1 else f"^{_number(exponent)}"


def _number(value: float) -> str:
    return f"{value:.6g}"
