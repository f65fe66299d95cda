"""The picks of every strategy and setting on every corpus, as out/evidence/subsets/CORPUS/CONFIG.START.json.

    python tests/evidence/subsets.py [CORPUS ...]

Selected from the split "pool", with equal embeddings dropped as the engine drops them. START is the seed: of the first
pick, of the random lots, of where k-means begins. Each file has ``picks``, ids in the order of picking, for the
greatest budget, and ``budgets``, how many of them each smaller one takes; k-means depends on the budget and has a file
for each, CONFIG.START.BUDGET.json. What is there is not made again.

Nothing runs on Spark here, as there are hundreds of selections: NovelSelect is the engine's own contenders, as in a run
on a small pool, and the others are in plain NumPy. A test compares the picks of each with those of the engine.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import corpora
import numpy as np
import pyarrow as pa

from novelsum.formula import Formula, density_factor, metric_space, released_density
from novelsum.rows import lot
from novelsum.selection.candidates import Candidates, Units
from novelsum.selection.contenders import Contenders
from novelsum.selection.scoring import Scoring
from novelsum.selection.weights import Weights

SUBSETS = corpora.EVIDENCE / "subsets"
BUDGETS = (1, 2, 5, 10)
"""In percent of the candidates."""
STARTS = (1, 2, 3, 4, 5)
KMEANS_ROUNDS = 10


class Config(NamedTuple):
    """A strategy, and the settings of NovelSelect if it is that. ``unit_vectors``: of embeddings normalized before."""

    strategy: str
    formula: Formula = "paper"
    neighbors: int = 10
    proximity_power: float = 1.0
    density_power: float = 0.5
    unit_vectors: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """As they go into the file."""
        return self._asdict() if self.strategy == "novelselect" else {"strategy": self.strategy}


def _around(formula: Formula) -> dict[str, Config]:
    """The settings around the defaults of a formula, one moved at a time."""
    of = Config("novelselect", formula)
    return {
        f"{formula}-density0": of._replace(density_power=0.0),
        f"{formula}-K5": of._replace(neighbors=5),
        f"{formula}-K20": of._replace(neighbors=20),
        f"{formula}-K50": of._replace(neighbors=50),
        f"{formula}-proximity0.5": of._replace(proximity_power=0.5),
        f"{formula}-proximity2": of._replace(proximity_power=2.0),
    }


CONFIGS = {
    "random": Config("random"),
    "k-means": Config("k-means"),
    "farthest-first": Config("farthest-first"),
    "paper": Config("novelselect", "paper"),
    "symmetric": Config("novelselect", "symmetric"),
    "released": Config("novelselect", "released"),
    "released-unit": Config("novelselect", "released", unit_vectors=True),
    **_around("paper"),
    **{name: of for name, of in _around("symmetric").items() if name != "symmetric-density0"},
}
"""Without the density, symmetric is paper: what it adds to the terms is then the same for all."""


class Pool:
    """Candidates in the order of their ids: ``ids``, ``vectors`` (n, D) float32, ``points`` (n, D) float64.

    ``table``: all their columns, of a corpus.
    """

    def __init__(self, ids: list[str], vectors: np.ndarray, table: pa.Table | None = None) -> None:
        self.ids, self.vectors, self.table = ids, vectors, table
        self.points = metric_space(vectors, "cosine")

    @staticmethod
    def of(corpus: str) -> "Pool":
        """The pool of a corpus, of equal embeddings only the one with the smallest id."""
        table = corpora.read(corpus, "pool")
        vectors = corpora.embeddings_of(table)
        _, first = np.unique(vectors + 0, axis=0, return_index=True)
        kept = np.sort(first)
        return Pool(table["id"].take(kept).to_pylist(), vectors[kept], table.take(kept))

    @property
    def budgets(self) -> dict[int, int]:
        """How many picks each share is."""
        return {percent: max(1, len(self.ids) * percent // 100) for percent in BUDGETS}

    def lots(self, seed: int) -> np.ndarray:
        """The rows as the seed draws them."""
        return np.array(sorted(range(len(self.ids)), key=lambda row: lot(seed, self.ids[row])))

    @cached_property
    def _nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances (n, 50) to the nearest others, and squared ones between the vectors as they are stored."""
        nearest, squared = [], []
        raw, lengths = self.vectors.astype(np.float64), np.square(self.vectors.astype(np.float64)).sum(axis=1)
        for start in range(0, len(raw), 512):
            part = slice(start, start + 512)
            d = np.maximum(1.0 - self.points[part] @ self.points.T, 0.0)
            s = np.maximum(lengths[part, None] + lengths - 2.0 * raw[part] @ raw.T, 0.0)
            for matrix, found in ((d, nearest), (s, squared)):
                matrix[np.arange(len(matrix)), start + np.arange(len(matrix))] = np.inf
                matrix.partition(50, axis=1)
                found.append(np.sort(matrix[:, :50], axis=1))
        return np.concatenate(nearest), np.concatenate(squared)

    def density(self, formula: Formula, neighbors: int, unit_vectors: bool = False) -> np.ndarray:
        """σ (n,) of each candidate in the pool, before the power."""
        nearest, squared = self._nearest
        squared = 2.0 * nearest if unit_vectors else squared
        return (
            released_density(squared[:, :neighbors])
            if formula == "released"
            else density_factor(nearest[:, :neighbors])
        )


def rows_picked(pool: Pool, config: Config, seed: int, budget: int) -> list[int]:
    """The rows that a strategy picks, in order."""
    order = pool.lots(seed)
    if config.strategy == "random":
        return order[:budget].tolist()
    if config.strategy == "k-means":
        return _kmeans(pool.points, order[:budget])
    if config.strategy == "farthest-first":
        return _farthest_first(pool.points, int(order[0]), budget)
    return _novelselect(pool, config, int(order[0]), budget)


def _novelselect(pool: Pool, config: Config, first: int, budget: int) -> list[int]:
    scoring = Scoring(config.formula, "cosine", config.proximity_power, config.density_power)
    powered = pool.density(config.formula, config.neighbors, config.unit_vectors) ** config.density_power
    everyone = Candidates.plain(np.arange(len(pool.ids)), pool.vectors, powered)
    units = Units.of(1.0, float(powered.max()), "cosine")
    begun = everyone[np.array([first])]
    others = everyone[np.delete(np.arange(len(pool.ids)), first)]
    contenders = Contenders(scoring, units, Weights.of(budget, config.proximity_power), everyone[:0], begun, others)
    picks = [first]
    while len(picks) < budget:
        draft = contenders.draft(min(128, budget - len(picks)))
        picks += draft.challenge(None, len(draft)).commit()[0].rows.tolist()
    return picks


def _farthest_first(points: np.ndarray, first: int, budget: int) -> list[int]:
    picks, nearest = [first], np.full(len(points), np.inf)
    while len(picks) < budget:
        np.minimum(nearest, 1.0 - points @ points[picks[-1]], out=nearest)
        nearest[picks[-1]] = -np.inf
        picks.append(int(nearest.argmax()))
    return picks


def _kmeans(points: np.ndarray, start: np.ndarray) -> list[int]:
    """Lloyd's rounds on the sphere; then the centroids of most candidates first, each picks the nearest left."""
    single, centroids = points.astype(np.float32), points[start]
    sizes = np.zeros(len(start), np.int64)
    for _ in range(KMEANS_ROUNDS):
        before = centroids.copy()
        of = np.concatenate(
            [(part @ centroids.T.astype(np.float32)).argmax(axis=1) for part in np.array_split(single, 16)]
        )
        sizes = np.bincount(of, minlength=len(start))
        by_centroid = np.argsort(of, kind="stable")
        some = np.flatnonzero(sizes)
        sums = np.add.reduceat(points[by_centroid], (np.cumsum(sizes) - sizes)[some], axis=0)
        centroids[some] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        if np.array_equal(before, centroids):
            break
    picks: list[int] = []
    left = np.ones(len(points), bool)
    for centroid in np.argsort(-sizes, kind="stable"):
        picks.append(int(np.where(left, points @ centroids[centroid], -np.inf).argmax()))
        left[picks[-1]] = False
    return picks


# --- files ------------------------------------------------------------------------------------------------


def path_of(corpus: str, config: str, start: int, budget: int | None = None) -> Path:
    """Where picks lie; k-means has a file for each budget."""
    more = f".{budget}" if CONFIGS[config].strategy == "k-means" else ""
    return SUBSETS / corpus / f"{config}.{start}{more}.json"


def picks_of(corpus: str, config: str, start: int, budget: int) -> list[str]:
    """The ids picked for a budget in percent, in order."""
    found = json.loads(path_of(corpus, config, start, budget).read_text())
    return list(found["picks"][: found["budgets"][str(budget)]])


def missing(corpus: str, configs: Sequence[str], starts: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """What is not there yet: config, start, budget in percent."""
    unit = corpora.KINDS[corpus].are_unit_vectors
    for start in starts:
        for name in configs:
            if CONFIGS[name].unit_vectors and unit:
                continue
            for budget in BUDGETS if CONFIGS[name].strategy == "k-means" else BUDGETS[-1:]:
                if not path_of(corpus, name, start, budget).exists():
                    yield name, start, budget


def main(names: list[str]) -> None:
    """Make what is missing of these corpora, or of all that are there; what is in most tables first."""
    present = [name for name in corpora.KINDS if (corpora.CORPORA / f"{name}.parquet").exists()]
    for name in names:
        if name not in present:
            raise SystemExit(f"error: there is no corpus {name}; make it with tests/evidence/corpora.py {name}")
    around = [name for name in CONFIGS if "-K" in name or "-proximity" in name]
    defaults = [name for name in CONFIGS if name not in around]
    pools: dict[str, Pool] = {}
    for configs, starts in ((defaults, STARTS[:3]), (around, STARTS[:1]), (defaults, STARTS), (around, STARTS)):
        for name in names or present:
            wanted = list(missing(name, configs, starts))
            if wanted:
                pools[name] = pools.get(name) or Pool.of(name)
                _make(name, pools[name], wanted)


def _make(corpus: str, pool: Pool, wanted: list[tuple[str, int, int]]) -> None:
    started = time.monotonic()
    (SUBSETS / corpus).mkdir(parents=True, exist_ok=True)
    for config, start, budget in wanted:
        rows = rows_picked(pool, CONFIGS[config], start, pool.budgets[budget])
        content = {
            "corpus": corpus,
            "config": config,
            "settings": CONFIGS[config].settings,
            "start": start,
            "candidates": len(pool.ids),
            "budgets": {percent: size for percent, size in pool.budgets.items() if size <= len(rows)},
            "picks": [pool.ids[row] for row in rows],
        }
        path = path_of(corpus, config, start, budget)
        path.with_suffix(".part").write_text(json.dumps(content))
        path.with_suffix(".part").rename(path)
    print(f"{corpus}: {len(wanted)} selections in {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
