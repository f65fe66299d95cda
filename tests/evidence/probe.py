"""A linear probe: groups told from embeddings, trained on each subset, scored on the held-out texts.

    python tests/evidence/probe.py [CORPUS ...]

Ridge regression on one column a group, 1 for members and 0 for others; the group with the highest value is the answer.
Its strength is the one of RIDGES with the least squared error when each pick in turn is left out, which has a closed
form; so it is chosen by the subset alone. Results go to out/evidence/probe.jsonl; what is there is not made again.
"""

import sys
import time
from pathlib import Path

import corpora
import numpy as np
import subsets
from trainings import STRATEGIES, Clock, Kept, Task

PROBES = corpora.EVIDENCE / "probe.jsonl"
RIDGES = tuple(10.0**power for power in np.arange(-3.0, 2.5, 0.5))
"""Added to the squared singular values of the centred unit vectors."""
SETUP = "ridge 1e-3 to 1e2, squared error left out"


class Ridge:
    """Ridge regression with an intercept that is not shrunk, for several strengths at once.

    ``vectors`` (n, D) and ``targets`` (n, G), float64.
    """

    def __init__(self, vectors: np.ndarray, targets: np.ndarray) -> None:
        self._middle, self._mean, self._targets = vectors.mean(axis=0), targets.mean(axis=0), targets
        self._left, self._values, self._right = np.linalg.svd(vectors - self._middle, full_matrices=False)
        self._turned = self._left.T @ (targets - self._mean)

    def errors(self, ridge: float) -> np.ndarray:
        """What each row's target is off when the rest predicts it: (n, G). One row alone leaves nothing: infinite."""
        kept = self._values**2 / (self._values**2 + ridge)
        fitted = self._mean + self._left @ (kept[:, None] * self._turned)
        own = 1.0 / len(self._left) + np.square(self._left) @ kept
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(own[:, None] < 1.0, (self._targets - fitted) / (1.0 - own)[:, None], np.inf)

    def best(self) -> float:
        """The strength of RIDGES with the least squared error of rows left out; of equal ones the greatest."""
        return min(reversed(RIDGES), key=lambda ridge: float(np.square(self.errors(ridge)).sum()))

    def predict(self, vectors: np.ndarray, ridge: float) -> np.ndarray:
        """(m, D) to (m, G)."""
        weights = self._right.T @ ((self._values / (self._values**2 + ridge))[:, None] * self._turned)
        return self._mean + (vectors - self._middle) @ weights


def scores(groups: np.ndarray, answers: np.ndarray) -> tuple[float, float]:
    """The share of right answers among all, and the mean of that share over groups."""
    right = groups == answers
    return float(right.mean()), float(np.mean([right[groups == group].mean() for group in np.unique(groups)]))


class Probed:
    """Probes the subsets of one corpus. Vectors have length 1; rows without a group are left out."""

    def __init__(self, corpus: str) -> None:
        self._ids, self._pool, self._groups = self._of(corpus, "pool")
        _, self._held_out, self._true = self._of(corpus, "held-out")
        self._row_of = {id: row for row, id in enumerate(self._ids)}

    @staticmethod
    def _of(corpus: str, split: str) -> tuple[list[str], np.ndarray, np.ndarray]:
        table = corpora.read(corpus, split)
        table = table.filter(table["group"].is_valid())
        vectors = corpora.embeddings_of(table).astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return table["id"].to_pylist(), vectors, np.array(table["group"].to_pylist())

    def of(self, picks: list[str]) -> dict[str, float | int]:
        """The scores of the probe that these picks train, and how it was trained."""
        rows = np.array([self._row_of[id] for id in picks if id in self._row_of], int)
        names, group_of = np.unique(self._groups[rows], return_inverse=True)
        ridge = Ridge(self._pool[rows], np.eye(len(names))[group_of])
        strength = ridge.best()
        answers = names[ridge.predict(self._held_out, strength).argmax(axis=1)]
        accuracy, balanced = scores(self._true, answers)
        return {"labelled": len(rows), "accuracy": accuracy, "balanced": balanced, "ridge": strength}


def tasks(names: list[str]) -> list[Task]:
    """All subsets that are there of these corpora, or of all."""
    return [
        Task(corpus, config, start, budget)
        for corpus in names or corpora.KINDS
        for start in subsets.STARTS
        for budget in subsets.BUDGETS
        for config in STRATEGIES
        if (corpora.CORPORA / f"{corpus}.parquet").exists() and subsets.path_of(corpus, config, start, budget).exists()
    ]


def main(names: list[str], path: Path = PROBES) -> None:
    """Train the probes that are missing."""
    kept, clock, started, made = Kept(path, SETUP), Clock(), time.monotonic(), 0
    probed: tuple[str, Probed] | None = None
    for task in tasks(names):
        picks = subsets.picks_of(*task)
        if kept.has(task, picks):
            continue
        if clock.is_over():
            print("probe: not all is done, run it again to go on", flush=True)
            return
        if probed is None or probed[0] != task.corpus:
            probed = task.corpus, Probed(task.corpus)
        kept.add(task, picks, probed[1].of(picks))
        made += 1
    print(f"probe: {made} trained in {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
