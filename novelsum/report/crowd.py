"""Whether picks lie in crowds of near-copies, and from which distance on these would be one.

σ of a candidate with K near-copies is so large that it outweighs all others. What is told comes from the density
factors alone; only where there are such picks, their distances to all candidates are looked at.
"""

import logging
from functools import partial
from typing import Any

import numpy as np
from pyspark import SparkContext

from novelsum.files.location import Location
from novelsum.files.store import Block, Pool, read_block
from novelsum.formula import Array, from_squared, metric_space
from novelsum.report.projection import points_of_rows
from novelsum.rows import Integers
from novelsum.selection.rounds import Candidate
from novelsum.settings import Settings
from novelsum.spark.shared import Shared

logger = logging.getLogger("novelsum")

CROWDED = 100
"""Picks with σ above so many times the median of the pool lie in a crowd."""
_LOOKED_AT = 64
"""So many such picks, and so many candidates that tell how near candidates usually are, are looked at."""
_APART = 0.1
"""A distance is suggested that is at most this part of the median distance to the nearest other candidate."""
_LOWEST, _HIGHEST = -25, 16
"""Powers of two between which lengths are told apart, in units of the longest point; below is as good as nothing."""
_CHUNK_BYTES = 32 << 20


def crowded(
    context: SparkContext, pool: Pool, settings: Settings, picks: list[Candidate], median: float
) -> dict[str, Any]:
    """What the manifest says of picks in crowds, where the pool's density factors have that median; warn of them.

    A distance for ``near_duplicates`` is suggested that makes one row of each crowd, unless that is in a reference.
    """
    ratios = np.array([pick.density for pick in picks]) / median
    found: dict[str, Any] = {"picks": int((ratios > CROWDED).sum()), "greatest_ratio": float(f"{ratios.max():.4g}")}
    if not found["picks"]:
        return found
    advice = "drop near-copies from the reference"
    if settings.reference is None:
        rows = np.array([pick.row for pick in picks])[np.flatnonzero(ratios > CROWDED)[:_LOOKED_AT]]
        found["suggested_near_duplicates"] = _suggested(context, pool, settings, rows)
        advice = f"--near-duplicates {found['suggested_near_duplicates']} would leave one row of each crowd"
    logger.warning(
        "%d of %d picks have a density factor above %d times the median of the pool, up to %.3g times: they lie in "
        "crowds of near-copies, which outweigh all else; %s",
        *(found["picks"], len(picks), CROWDED, found["greatest_ratio"], advice),
    )
    return found


def _suggested(context: SparkContext, pool: Pool, settings: Settings, rows: Integers) -> float:
    """A distance within which all rows of the crowds around some rows lie, and far below the usual nearest distance."""
    seeded = np.random.default_rng(settings.seed)
    usual = seeded.choice(pool.candidates, min(pool.candidates, _LOOKED_AT), replace=False)
    wanted = np.unique(np.concatenate([rows, usual]))
    blocks = context.parallelize(pool.blocks, len(pool.blocks))
    context.setJobDescription("novelsum: crowds of near-copies")
    points = points_of_rows(context, pool, wanted, settings.metric)
    longest = float(np.sqrt(np.square(points).sum(axis=1).max())) or 1.0
    query = Shared.of(context, (wanted, points, longest))
    counts = np.sum(blocks.map(partial(_count, pool.work, settings, query)).collect(), axis=0)
    query.destroy()
    context.setJobDescription("")
    is_crowded = np.isin(wanted, rows)
    nearest = _length((counts > 0).argmax(axis=1), longest)
    apart = np.inf
    if not is_crowded.all():
        apart = _APART * float(np.median(from_squared(np.square(nearest[~is_crowded]), settings.metric)))
    # From the bin of the K-th neighbour on, as long as there are more, the crowd goes on; two of it are at most twice
    # as far from one another as from the pick.
    last = (np.cumsum(counts, axis=1) >= settings.neighbors).argmax(axis=1)
    ends = [int(first + (of_pick[first:] == 0).argmax()) for of_pick, first in zip(counts, last, strict=True)]
    extent = _length(np.array(ends)[is_crowded].max(), longest)
    within = float(from_squared(np.square(2 * extent), settings.metric))
    return float(f"{min(within, apart):.2g}")


def _length(bin_: Any, longest: float) -> Any:
    """The length at which a bin begins."""
    return longest * 2.0 ** (bin_ + _LOWEST - 1)


def _count(work: Location, settings: Settings, query: Shared[tuple[Integers, Array, float]], block: Block) -> Integers:
    """How many other candidates of a block are how far from each of some rows (m,), by powers of two: (m, bins).

    By a matrix product: near enough for a power of two, but for lengths that are as good as nothing.
    """
    (rows, points, longest), stored = query.value, read_block(work, block.name)
    counts = np.zeros((len(rows), _HIGHEST - _LOWEST + 2), dtype=np.int64)
    squares = np.square(points).sum(axis=1)[:, None]
    step = max(1, _CHUNK_BYTES // (8 * stored.vectors.shape[1]))
    for start in range(0, len(stored.rows), step):
        part = slice(start, start + step)
        others = metric_space(stored.vectors[part], settings.metric)
        squared = squares + np.square(others).sum(axis=1) - 2 * points @ others.T
        with np.errstate(divide="ignore"):
            power = np.floor(np.log2(np.maximum(squared, 0.0) / longest**2) / 2)
        bins = (power.clip(_LOWEST - 1, _HIGHEST) - _LOWEST + 1).astype(np.int64)
        itself = rows[:, None] == stored.rows[part]
        for of_row, of_bins, others_too in zip(counts, bins, ~itself, strict=True):
            of_row += np.bincount(of_bins[others_too], minlength=len(of_row))
    return counts
