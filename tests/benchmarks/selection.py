"""make bench and make bench-large: a selection on two cores against the matrix products it cannot avoid.

``bench40k``: 40,000 real embeddings of 384 dimensions, budget 4,000, with exact density before and the
straightforward loop beside it. BENCH40K says where the data lies if that is not beside the project.

``large``: 2,500 of 100,000 x 4,096 generated embeddings, in 16 GB. Input and store stay in out/bench-large, and a
second run starts from there.

All speeds are ratios within one run, and the floor is measured before and after the selection. BUDGET and FORMULA in
the environment change what they say, and ROWS the size of ``large``.
"""

import logging
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from generated import Generated, generate, ingested
from measure import straightforward_seconds, with_one_blas_thread
from pyspark import SparkContext
from results import Table, keep
from timed import CORES, floor, timed_selection

from novelsum.density.exact import estimate_density
from novelsum.files.location import Location
from novelsum.files.store import Pool, read_block
from novelsum.settings import Settings
from novelsum.spark import session
from novelsum.spark.progress import log_to_stderr

FORMULA = os.environ.get("FORMULA", "paper")
BENCH40K = Path(os.environ.get("BENCH40K", "../shared/data/bench40k"))
LARGE = Generated(Path("out/bench-large"), int(os.environ.get("ROWS", "100000")), 4096)
PAPER = Generated(Path("out/bench-paper"), int(os.environ.get("ROWS", "396000")), 4096)
MOST_MEMORY = 16.0


def bench40k() -> int:
    """Ingest, exact density and selection of the real embeddings."""
    if not BENCH40K.exists():
        print(f"bench: {BENCH40K} is absent; set BENCH40K to the folder of the 40,000 embeddings", file=sys.stderr)
        return 3
    settings = Settings(input=str(BENCH40K), budget=int(os.environ.get("BUDGET", "4000")), formula=FORMULA)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        spark = session.start("bench", f"local[{CORES}]")
        pool, seconds = ingested(spark, settings, Location.of(folder))
        clock = time.perf_counter()
        estimate_density(spark, pool, settings, pool.work)
        before = {"ingest, s": seconds, "density, s": time.perf_counter() - clock}
        print("before       " + ", ".join(f"{name} {value:.1f}" for name, value in before.items()))
        around = floor(pool, settings.budget)
        timed = timed_selection(spark, pool, settings, pool.work)
        spark.stop()
        timed = replace(timed, floor=around + floor(pool, settings.budget))
        vectors = np.concatenate([read_block(pool.work, block.name).vectors for block in pool.blocks])
    timed.report()
    loop, steps = with_one_blas_thread(straightforward_seconds, vectors, settings.budget, CORES)
    print(f"loop         {loop:.0f} s ({steps}): {loop / timed.selection:.0f} x the selection")
    of_loop = {"loop, s": loop, "loop over the selection": loop / timed.selection}
    keep("selection", Table.of({**before, **timed.figures(), **of_loop}))
    return 0


def large() -> int:
    """Selection from a large pool of long vectors; density factors from the neighbours within a block."""
    settings = LARGE.settings(int(os.environ.get("BUDGET", "2500")), FORMULA)
    LARGE.generate()
    spark = session.start("bench-large", f"local[{CORES}]")
    pool = LARGE.with_density(spark)
    log = LARGE.folder / "selection"
    shutil.rmtree(log, ignore_errors=True)
    around = floor(pool, settings.budget)
    timed = timed_selection(spark, pool, settings, Location.of(str(log)))
    spark.stop()
    timed = replace(timed, floor=around + floor(pool, settings.budget))
    timed.report(MOST_MEMORY)
    keep("large", Table.of(timed.figures()))
    return 0


# --- for density.py ---------------------------------------------------------------------------------------

GENERATED, PAPER_ROWS = PAPER.folder, PAPER.rows


def _generate(folder: Path, rows: int = PAPER.rows) -> None:
    generate(folder, rows, PAPER.dimension)


def _ingested(spark: SparkContext, settings: Settings, work: Location, seconds: dict[str, float]) -> Pool:
    pool, seconds["ingest"] = ingested(spark, settings, work)
    return pool


if __name__ == "__main__":
    log_to_stderr()
    logging.getLogger("novelsum").setLevel(logging.DEBUG)
    sys.exit({"bench40k": bench40k, "large": large}[sys.argv[1]]())
