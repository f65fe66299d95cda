"""make bench: density and selection on 40,000 real embeddings, against the floor and the straightforward loop.

Set BENCH40K to where the data lies if that is not beside the project. Speeds are ratios within this run.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from measure import PeakMemory, floor_seconds, straightforward_seconds

from novelsum import session
from novelsum.density import estimate_density, require_finite_powers
from novelsum.ingest import ingest
from novelsum.selection import first_row, select
from novelsum.settings import Settings
from novelsum.source import open_source
from novelsum.storage import Location
from novelsum.store import read_block

BUDGET = int(os.environ.get("BUDGET", "4000"))
CORES = 2


def main() -> int:
    """Run and print."""
    data = Path(os.environ.get("BENCH40K", "../shared/data/bench40k"))
    if not data.exists():
        print(f"bench: {data} is absent; set BENCH40K to the folder of the 40,000 embeddings", file=sys.stderr)
        return 3
    settings = Settings(input=str(data), budget=BUDGET, formula=os.environ.get("FORMULA", "paper"))  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder, PeakMemory() as memory:
        work = Location.of(folder)
        (work / "store").make_folder()
        spark = session.start("bench", f"local[{CORES}]")
        seconds = {}
        clock = time.perf_counter()
        pool = ingest(spark, open_source(str(data), "id", "embedding"), settings, work, work)
        seconds["ingest"] = time.perf_counter() - clock
        clock = time.perf_counter()
        estimate_density(spark, pool, settings)
        require_finite_powers(pool, settings)
        seconds["density"] = time.perf_counter() - clock
        first = first_row(spark, pool, settings)
        tracker = spark.sparkContext.statusTracker()
        jobs = len(tracker.getJobIdsForGroup(None))
        clock = time.perf_counter()
        _, effort = select(spark, pool, settings, first)
        seconds["selection"] = time.perf_counter() - clock
        jobs = len(tracker.getJobIdsForGroup(None)) - jobs
        latency = []
        nothing = spark.sparkContext.parallelize(range(len(pool.blocks)), len(pool.blocks)).cache()
        for _ in range(20):
            start = time.perf_counter()
            nothing.map(lambda block: block).collect()
            latency.append(time.perf_counter() - start)
        vectors = np.concatenate([read_block(work, block.name).vectors for block in pool.blocks])
        spark.stop()
    floor = floor_seconds(vectors, BUDGET, CORES)
    loop, steps = straightforward_seconds(vectors, BUDGET, CORES)
    selection = seconds["selection"]
    print(f"pool         {len(vectors)} x {vectors.shape[1]}, budget {BUDGET}, {settings.formula}, {len(pool.blocks)} blocks")
    print("seconds      " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
    print("of selection " + ", ".join(f"{name} {value:.1f}" for name, value in effort.seconds.items()))
    print(f"spark        {jobs} jobs; an empty one takes {median(latency) * 1000:.0f} ms: {jobs * median(latency):.1f} s in all")
    print(f"rounds       {effort.rounds}; drafted {effort.drafted}, rejected {effort.rejected}")
    print(
        f"candidates   reported {effort.reported}, bounds recomputed {effort.bounds_recomputed}, "
        f"exactly evaluated {effort.evaluated}"
    )
    print("peak memory  " + ", ".join(f"{name} {value / 2**20:.0f} MiB" for name, value in memory.peak.items()))
    print(f"floor        {median(floor):.2f} s ({min(floor):.2f} to {max(floor):.2f}): selection is {selection / median(floor):.1f} x")
    print(f"loop         {loop:.0f} s ({steps}): {loop / selection:.0f} x the selection")
    return 0


if __name__ == "__main__":
    sys.exit(main())
