"""How long texts are, in pool and selection, in characters.

Of the pool those of the map's seeded sample are measured, by executors, which answer with numbers; of the picks all, in
batches of the file that they were written to.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from pyspark import SparkContext

from novelsum.files.source import Source, read_rows
from novelsum.report.turns import length

_BINS_PER_DECADE = 20
_BINS_SHOWN = 40
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def lengths_of_rows(
    context: SparkContext, source: Source, places: Sequence[tuple[int, int, str | int]], column: str
) -> list[int]:
    """Lengths of the texts of some rows of the input, without those that have none; file, row there and id of each."""
    by_file: dict[int, list[tuple[int, str | int]]] = {}
    for file, row, id_ in places:
        by_file.setdefault(file, []).append((row, id_))

    def measure(of_file: tuple[int, list[tuple[int, str | int]]]) -> list[int]:
        rows, ids = zip(*of_file[1], strict=True)
        texts = read_rows(source, of_file[0], np.array(rows), ids, [column]).column(column)
        return [n for n in (length(text.as_py()) for text in texts) if n is not None]

    parts = context.parallelize(list(by_file.items()), len(by_file)).map(measure).collect()
    return [n for part in parts for n in part]


def lengths(pool: Sequence[int], picked: Sequence[int]) -> dict[str, Any] | None:
    """Bins and quantiles of both; None where either has no text."""
    if not pool or not picked:
        return None
    bins = [
        Counter((np.log10(np.maximum(of_one, 1)) * _BINS_PER_DECADE).astype(int).tolist()) for of_one in (pool, picked)
    ]
    low, high = min(map(min, bins)), max(map(max, bins))
    width = max(1, -(-(high - low + 1) // _BINS_SHOWN))
    starts = range(low, high + 1, width)
    found: dict[str, Any] = {
        "edges": [round(10 ** (bin_ / _BINS_PER_DECADE), 2) for bin_ in [*starts, starts[-1] + width]]
    }
    for name, counted, of_one in (("pool", bins[0], pool), ("selected", bins[1], picked)):
        found[name] = [sum(counted[bin_] for bin_ in range(start, start + width)) for start in starts]
        at = np.quantile(of_one, QUANTILES, method="inverted_cdf")
        found[f"{name}_quantiles"] = {f"{share:.0%}": int(value) for share, value in zip(QUANTILES, at, strict=True)}
        found[f"{name}_mean"] = float(f"{np.mean(of_one):.6g}")
        found[f"{name}_texts"] = len(of_one)
    return found
