"""Exact NovelSum of 100,000 generated embeddings of 384 dimensions in clusters, on two cores: seconds and memory.

By the job's defaults, interval included, it is to take 5 minutes at most. ROWS, FORMULA ("paper", "released" or both),
DENSITY_POWER and EXACT_LIMIT in the environment change what they say.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import PeakMemory, processor_seconds
from results import Table, keep

from novelsum.diversity.measuring import measure_pool
from novelsum.diversity.onepass import DataSet
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.source import open_source
from novelsum.settings import MeasureSettings
from novelsum.spark import session
from novelsum.spark.progress import log_to_stderr

ROWS = int(os.environ.get("ROWS", "100000"))
DIMENSION, CLUSTERS = 384, 500
MOST_SECONDS = 300


def main() -> None:
    log_to_stderr()
    formulas = tuple(os.environ.get("FORMULA", "paper").split())
    powers = tuple(float(power) for power in os.environ.get("DENSITY_POWER", "").split())
    limit = int(os.environ.get("EXACT_LIMIT", "100000"))
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        centers = rng.normal(size=(CLUSTERS, DIMENSION))
        vectors = centers[rng.integers(0, CLUSTERS, ROWS)] + 0.5 * rng.normal(size=(ROWS, DIMENSION))
        flat = pa.array(vectors.astype(np.float32).reshape(-1))
        embedding = pa.FixedSizeListArray.from_arrays(flat, DIMENSION)
        path = str(Path(folder) / "in.parquet")
        pq.write_table(pa.table({"id": np.arange(ROWS), "embedding": embedding}), path, row_group_size=10_000)
        settings = MeasureSettings(
            input=(path,),
            output="out",
            formula=formulas,
            density_power=powers,
            exact_limit=limit,
        )
        spark = session.start("benchmark", "local[2]")
        work = Location.of(folder) / "work"
        pool = ingest(spark, open_source(path, "id", "embedding"), settings.of_data_set(path), work)
        load, before, started = os.getloadavg()[0], processor_seconds(), time.perf_counter()
        with PeakMemory() as memory:
            found = measure_pool(spark, settings, DataSet(pool.work, pool.blocks))
        seconds, taken = time.perf_counter() - started, processor_seconds() - before
        spark.stop()
        pairs = found.measured * found.rows
        print(f"{ROWS} x {DIMENSION}, {found.measured} rows measured, {len(found.values)} values, formulas {formulas}")
        print(
            f"diversity    {seconds:.1f} s, to be {MOST_SECONDS} at most for 100,000 x 384; processor time {taken:.1f} "
            f"s, half of it {taken / 2:.1f} s ({taken / pairs * 1e9:.1f} ns a pair); load before {load:.1f}"
        )
        sizes = ", ".join(f"{kind} {size / 2**30:.1f}" for kind, size in memory.peak.items())
        print(f"peak memory  {sizes} GiB; private of workers {memory.private_of_workers / 2**30:.1f}")
        figures: dict[str, Any] = {"rows": ROWS, "dimension": DIMENSION, "rows measured": found.measured}
        figures |= {"formulas": " ".join(formulas), "seconds": seconds, "at most": MOST_SECONDS}
        figures |= {"processor seconds": taken, "a pair, ns": taken / pairs * 1e9}
        figures |= {f"peak memory, {kind}, MiB": size >> 20 for kind, size in memory.peak.items()}
        keep("diversity", Table.of(figures))
        print(f"mean         {found.values[0].mean:.6f}, deviation by the jackknife {found.figures.variance**0.5:.6f}")


if __name__ == "__main__":
    main()
