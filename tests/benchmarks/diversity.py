"""make bench: NovelSum of 100,000 generated embeddings in clusters, on two cores, seconds and memory.

ROWS, FORMULA ("paper", "released" or both, the default) and EXACT_LIMIT in the environment change what they say.
"""

import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import PeakMemory
from results import Table, keep

from novelsum.diversity.job import measure_pool
from novelsum.diversity.onepass import DataSet
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.source import open_source
from novelsum.settings import MeasureSettings
from novelsum.spark import session
from novelsum.spark.progress import log_to_stderr

ROWS = int(os.environ.get("ROWS", "100000"))
DIMENSION, CLUSTERS = 384, 500


def main() -> None:
    log_to_stderr()
    formulas = tuple(os.environ.get("FORMULA", "paper released").split())
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
            neighbors=(5, 10),
            proximity_power=(0.5, 1.0),
            density_power=(0.0, 0.5, 1.0),
            exact_limit=limit,
        )
        spark = session.start("benchmark", "local[2]")
        work = Location.of(folder) / "work"
        pool = ingest(spark, open_source(path, "id", "embedding"), settings.of_data_set(path), work)
        load, started = os.getloadavg()[0], time.perf_counter()
        with PeakMemory() as memory:
            found = measure_pool(spark, settings, DataSet(pool.work, pool.blocks))
        seconds = time.perf_counter() - started
        spark.stop()
        pairs = found.measured * found.rows
        print(f"{ROWS} x {DIMENSION}, {found.measured} rows measured, {len(found.values)} values, formulas {formulas}")
        print(f"{seconds:.1f} s ({seconds / pairs * 2e9:.1f} ns a pair and core); load before {load:.1f}")
        print(f"peak memory, MiB: { {kind: size >> 20 for kind, size in memory.peak.items()} }")
        print(f"private memory of workers: {memory.private_of_workers >> 20} MiB")
        print(asdict(found.values[0]))
        figures: dict[str, Any] = {"rows": ROWS, "dimension": DIMENSION, "rows measured": found.measured}
        figures |= {"formulas": " ".join(formulas), "values": len(found.values), "seconds": seconds}
        figures |= {"a pair and core, ns": seconds / pairs * 2e9}
        figures |= {f"peak memory, {kind}, MiB": size >> 20 for kind, size in memory.peak.items()}
        keep("diversity", Table.of(figures))


if __name__ == "__main__":
    main()
