"""What each subset is like, as out/evidence/measures/CORPUS.json: CONFIG.START.BUDGET to its measures.

    python tests/evidence/measures.py [CORPUS ...]

- ``novelsum``: NovelSum of the paper, the sum, with the density factors of the whole pool (K = 10, κ1 = 1, κ2 = 0.5);
  ``novelsum_released``: that of the authors' code, a mean; ``novelsum_distances``: that of the paper with κ2 = 0.
- ``nearest``: mean distance of a pick to its nearest other pick.
- ``coverage``: mean distance of the candidates to their nearest pick; low is good.
- ``groups``: how many groups have a pick.
- ``length``: mean characters of the picks' texts over that of the pool's, of those that have texts; null without any.

What is there is not measured again.
"""

import json
import sys
import time

import corpora
import numpy as np
import subsets

from novelsum import formula

MEASURES = corpora.EVIDENCE / "measures"
NAMES = ("novelsum", "novelsum_released", "novelsum_distances", "nearest", "coverage", "groups", "length")


class Measured:
    """Measures subsets of one corpus."""

    def __init__(self, corpus: str) -> None:
        self.pool = subsets.Pool.of(corpus)
        self._row_of = {id: row for row, id in enumerate(self.pool.ids)}
        self._single = self.pool.points.astype(np.float32)
        assert self.pool.table is not None
        self._groups = np.array(self.pool.table["group"].to_pylist())
        texts = self.pool.table["text"].to_pylist()
        self._lengths = np.array([np.nan if text is None else len(text) for text in texts])
        self._density = {kind: self.pool.density(kind, 10) for kind in ("paper", "released")}

    def of(self, ids: list[str]) -> dict[str, float | None]:
        """The measures of some ids of the pool."""
        rows = np.sort([self._row_of[id] for id in ids])
        points = self.pool.points[rows]
        d = np.maximum(1.0 - points @ points.T, 0.0)
        np.fill_diagonal(d, 0.0)
        apart = d + np.diag(np.full(len(d), np.inf))
        by_paper, by_released = (self._density[kind][rows] for kind in ("paper", "released"))
        chosen = self._single[rows]
        parts = np.array_split(self._single, max(1, len(self._single) * len(rows) // 10_000_000))
        nearest = np.concatenate([(part @ chosen.T).max(axis=1) for part in parts])
        return {
            "novelsum": formula.novelsum(d, by_paper).sum,
            "novelsum_released": formula.novelsum(d, by_released, formula="released").mean,
            "novelsum_distances": formula.novelsum(d, by_paper, density_power=0.0).sum,
            "nearest": float(apart.min(axis=1).mean()),
            "coverage": float(np.maximum(1.0 - nearest.astype(np.float64), 0.0).mean()),
            "groups": len(np.unique(self._groups[rows])),
            "length": self._length(rows),
        }

    def _length(self, rows: np.ndarray) -> float | None:
        if np.isnan(self._lengths[rows]).all():
            return None
        return float(np.nanmean(self._lengths[rows]) / np.nanmean(self._lengths))


def read(corpus: str) -> dict[str, dict[str, float | None]]:
    """The measures of a corpus, by CONFIG.START.BUDGET."""
    path = MEASURES / f"{corpus}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def key_of(config: str, start: int, budget: int) -> str:
    """What the measures of a subset are found by."""
    return f"{config}.{start}.{budget}"


def main(names: list[str]) -> None:
    """Measure what is not measured yet of these corpora, or of all that have subsets."""
    MEASURES.mkdir(parents=True, exist_ok=True)
    for corpus in names or [name for name in corpora.KINDS if (subsets.SUBSETS / name).is_dir()]:
        found = read(corpus)
        made = [
            (config, start, budget)
            for config in subsets.CONFIGS
            for start in subsets.STARTS
            for budget in subsets.BUDGETS
            if subsets.path_of(corpus, config, start, budget).exists() and key_of(config, start, budget) not in found
        ]
        if not made:
            continue
        measured, started = Measured(corpus), time.monotonic()
        for number, (config, start, budget) in enumerate(made, start=1):
            found[key_of(config, start, budget)] = measured.of(subsets.picks_of(corpus, config, start, budget))
            if number % 20 == 0 or number == len(made):
                _keep(corpus, found)
        print(f"{corpus}: {len(made)} subsets measured in {time.monotonic() - started:.0f} s", flush=True)


def _keep(corpus: str, found: dict[str, dict[str, float | None]]) -> None:
    path = MEASURES / f"{corpus}.json"
    path.with_suffix(".part").write_text(json.dumps(found, indent=0))
    path.with_suffix(".part").rename(path)


if __name__ == "__main__":
    main(sys.argv[1:])
