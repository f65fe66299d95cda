"""NovelSum of the first 10, 25, 50 and 100% of the picks: what a smaller budget would have had.

By the density factors that the picks have in the pool, and among themselves: samples selected before do not count. Few
picks are measured where they are, in the driver, which has their points for the map; more of them in a pass of
:mod:`~novelsum.diversity.onepass` for each part, and very many by a seeded sample of their rows.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from pyspark import SparkContext

from novelsum.diversity.novelsum import Columns, Grid, Tally, tally, values
from novelsum.diversity.onepass import DataSet, run_pass
from novelsum.files.location import Location
from novelsum.files.store import Block, Pool, read_block, write_block
from novelsum.formula import Array
from novelsum.formulas import EQUATIONS
from novelsum.report.text import rounded
from novelsum.rows import Integers, common_places, lot
from novelsum.selection.rounds import Candidate
from novelsum.settings import Settings
from novelsum.spark.shared import Shared

SHARES = (0.1, 0.25, 0.5, 1.0)
PARTS = "parts"
"""Where they are measured, beside the results in the stage."""
EXACT_PICKS = 10_000
"""Parts with more picks are measured by a sample of their rows."""
SAMPLE_ROWS = 2_000
MOST_BYTES = 2 << 30
"""Parts whose points would take more than this, in scratch and as float64, are not measured."""


def novelsum_of_parts(
    context: SparkContext,
    pool: Pool,
    settings: Settings,
    picks: Sequence[Candidate],
    work: Location,
    points: Array | None,
) -> list[dict[str, Any]]:
    """NovelSum, sum and mean, of the first picks, for each of ``SHARES`` that makes another number of at least two, and
    not too many.

    ``work``: a folder to work in, which is removed again; ``points`` (n, D): of all picks in order, in the metric's
    space, where the driver has them.
    """
    grid = Grid.of_run(settings, (EQUATIONS[settings.formula].measured_as,))
    sizes = sorted({round(share * len(picks)) for share in SHARES} - {0, 1})
    sizes = [size for size in sizes if 8 * size * pool.dimension <= MOST_BYTES]
    found = []
    work.delete()
    try:
        for size in sizes:
            by_row = np.argsort([pick.row for pick in picks[:size]])
            first = [picks[place] for place in by_row.tolist()]
            sample = _sample(first, settings.seed) if size > EXACT_PICKS else None
            if points is None:
                data = _written(context, pool, np.array([pick.row for pick in first]), work / f"first-{size}")
                passed = run_pass(context, data, grid, sample, work=pool.work)
                data.work.delete()
            else:
                passed = _tally_here(points[by_row], grid)
            density = np.array([pick.density for pick in first])[slice(None) if sample is None else sample]
            value = values(grid, passed, {(grid.formulas[0], settings.neighbors): density}, size)[0]
            found.append(
                {
                    "picks": size,
                    "novelsum_mean": rounded(value.mean),
                    "novelsum_sum": rounded(value.sum),
                    "mean_interval": None if sample is None else rounded([value.mean_low, value.mean_high]),
                    "sampled_rows": None if sample is None else len(sample),
                }
            )
    finally:
        work.delete()
    return found


def _sample(picks: Sequence[Candidate], seed: int) -> Integers:
    """Places of the picks that the seed draws by their ids: (``SAMPLE_ROWS``,), ascending."""
    drawn = heapq.nsmallest(SAMPLE_ROWS, ((lot(seed, pick.id), place) for place, pick in enumerate(picks)))
    return np.sort(np.array([place for _, place in drawn], dtype=np.int64))


def _tally_here(points: Array, grid: Grid) -> Tally:
    n = len(points)
    rows = np.arange(n)
    columns = Columns(points, np.ones(n), rows, np.ones(n, dtype=np.bool_))
    # Raw vectors are looked for only by formulas whose σ is not given; here it always is.
    return tally(columns, np.zeros(n, dtype=np.int64), 1, [columns], None, grid)


def _written(context: SparkContext, pool: Pool, rows: Integers, target: Location) -> DataSet:
    """Some sorted rows of the pool as a store of their own."""
    (target / "store").make_folder()
    message = Shared.of(context, rows)
    blocks = context.parallelize(pool.blocks, len(pool.blocks))
    written = blocks.flatMap(partial(_write, pool.work, target, message)).collect()
    message.destroy()
    return DataSet(target, tuple(written))


# --- tasks ------------------------------------------------------------------------------------------------


def _write(work: Location, target: Location, message: Shared[Integers], block: Block) -> Iterator[Block]:
    content = read_block(work, block.name)
    places, rows = common_places(content.rows, message.value)
    if len(places):
        write_block(target, block.name, replace(content.take(places), rows=rows))
        yield Block(block.name, len(places))
