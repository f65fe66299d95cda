"""make bench and make bench-paper: a selection on two cores against the matrix products it cannot avoid.

``bench40k``: 40,000 real embeddings of 384 dimensions, budget 4,000, with exact density before and the
straightforward loop beside it. BENCH40K says where the data lies if that is not beside the project.

``paper``: the size of the paper's own case, 10,000 of 396,000 x 4,096, on generated embeddings. What it makes
lies in out/bench-paper; a second run starts from what the first has finished there.

All speeds are ratios within one run. BUDGET and FORMULA in the environment change what they say.
"""

import logging
import os
import pickle
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import PeakMemory, floor_seconds, straightforward_seconds, with_one_blas_thread
from pyspark import SparkContext

from novelsum.density.exact import estimate_density
from novelsum.density.factors import BlockDensity, write_density
from novelsum.density.neighbors import NearestDistances
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.source import open_source
from novelsum.files.store import Block, Pool, read_block
from novelsum.formula import density_factor, from_squared, metric_space
from novelsum.selection.rounds import Effort, first_row, select
from novelsum.settings import Settings
from novelsum.spark import session
from novelsum.spark.progress import log_to_stderr

CORES = 2
FORMULA = os.environ.get("FORMULA", "paper")
PAPER_ROWS, PAPER_DIMENSION = int(os.environ.get("ROWS", "396000")), 4096
GENERATED = Path("out/bench-paper")
_PART_ROWS = 12_000


def bench40k() -> int:
    """Ingest, exact density and selection of the real embeddings."""
    data = Path(os.environ.get("BENCH40K", "../shared/data/bench40k"))
    if not data.exists():
        print(f"bench: {data} is absent; set BENCH40K to the folder of the 40,000 embeddings", file=sys.stderr)
        return 3
    settings = Settings(input=str(data), budget=int(os.environ.get("BUDGET", "4000")), formula=FORMULA)  # type: ignore[arg-type]
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, PeakMemory() as memory:
        spark = session.start("bench", f"local[{CORES}]")
        pool = _ingested(spark, settings, Location.of(folder), seconds)
        clock = time.perf_counter()
        estimate_density(spark, pool, settings, pool.work)
        seconds["density"] = time.perf_counter() - clock
        effort = _selected(spark, pool, settings, seconds)
        spark.stop()
        vectors = np.concatenate([read_block(pool.work, block.name).vectors for block in pool.blocks])
    _report(
        pool, settings, seconds, effort, memory, with_one_blas_thread(floor_seconds, vectors, settings.budget, CORES)
    )
    loop, steps = with_one_blas_thread(straightforward_seconds, vectors, settings.budget, CORES)
    print(f"loop         {loop:.0f} s ({steps}): {loop / seconds['selection']:.0f} x the selection")
    return 0


def paper() -> int:
    """Selection at the size of the paper's case; density factors from the neighbours within a block."""
    settings = Settings(
        input=str(GENERATED / f"input-{PAPER_ROWS}"),
        budget=int(os.environ.get("BUDGET", "10000")),
        formula=FORMULA,  # type: ignore[arg-type]
        block_rows=_PART_ROWS,
    )
    _generate(Path(settings.input), PAPER_ROWS)
    seconds: dict[str, float] = {}
    kept = GENERATED / f"pool-{PAPER_ROWS}.pickle"
    spark = session.start("bench-paper", f"local[{CORES}]")
    if not kept.exists():
        pool = _ingested(spark, settings, Location.of(str(GENERATED / f"work-{PAPER_ROWS}")), seconds)
        (pool.work / "density").make_folder()
        spark.parallelize(pool.blocks, len(pool.blocks)).foreach(
            lambda block, work=pool.work: _density_within(work, block)
        )
        kept.write_bytes(pickle.dumps(pool))
    pool = pickle.loads(kept.read_bytes())
    with PeakMemory() as memory:
        effort = _selected(spark, pool, settings, seconds)
    spark.stop()
    sample = read_block(pool.work, pool.blocks[0].name).vectors
    times = with_one_blas_thread(floor_seconds, sample, settings.budget, CORES)
    floor = [value * pool.candidates / len(sample) for value in times]
    _report(pool, settings, seconds, effort, memory, floor)
    size = pool.candidates * pool.dimension * 4
    private = memory.private_of_workers
    print(f"vectors      {size / 2**20:.0f} MiB; private memory of the workers {private / 2**20:.0f} MiB")
    return 0


def _ingested(spark: SparkContext, settings: Settings, work: Location, seconds: dict[str, float]) -> Pool:
    clock = time.perf_counter()
    pool = ingest(spark, open_source(settings.input, "id", "embedding"), settings, work)
    seconds["ingest"] = time.perf_counter() - clock
    return pool


def _selected(spark: SparkContext, pool: Pool, settings: Settings, seconds: dict[str, float]) -> Effort:
    """Select, and add the number of Spark jobs and what an empty one takes."""
    first = first_row(spark, pool, settings)
    tracker = spark.statusTracker()
    before = len(tracker.getJobIdsForGroup(None))
    clock = time.perf_counter()
    _, effort = select(spark, pool, pool.work, pool.work, settings, first)
    seconds["selection"] = time.perf_counter() - clock
    seconds["jobs"] = len(tracker.getJobIdsForGroup(None)) - before
    nothing = spark.parallelize(range(len(pool.blocks)), len(pool.blocks)).cache()
    latency = []
    for _ in range(20):
        clock = time.perf_counter()
        nothing.map(lambda block: block).collect()
        latency.append(time.perf_counter() - clock)
    seconds["empty job"] = median(latency)
    return effort


def _report(
    pool: Pool, settings: Settings, seconds: dict[str, float], effort: Effort, memory: PeakMemory, floor: list[float]
) -> None:
    jobs, empty = seconds.pop("jobs"), seconds.pop("empty job")
    size = f"{pool.candidates} x {pool.dimension}"
    print(f"pool         {size}, budget {settings.budget}, {settings.formula}, {len(pool.blocks)} blocks")
    print("seconds      " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
    print("of selection " + ", ".join(f"{name} {value:.1f}" for name, value in effort.seconds.items()))
    print(f"spark        {jobs} jobs; an empty one takes {empty * 1000:.0f} ms: {jobs * empty:.1f} s in all")
    print(f"rounds       {effort.rounds}; drafted {effort.drafted}, rejected {effort.rejected}")
    print(
        f"candidates   reported {effort.reported}, bounds recomputed {effort.bounds_recomputed}, "
        f"exactly evaluated {effort.evaluated}"
    )
    print("peak memory  " + ", ".join(f"{name} {value / 2**20:.0f} MiB" for name, value in memory.peak.items()))
    spread = f"{median(floor):.2f} s ({min(floor):.2f} to {max(floor):.2f})"
    print(f"floor        {spread}: selection is {seconds['selection'] / median(floor):.1f} x", flush=True)


def _generate(folder: Path, rows: int) -> None:
    """Embeddings with clusters, duplicates' neighbours and a steep spectrum, so that gaps resemble real ones."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = np.random.default_rng(0)
    latent = 192
    basis = shared.normal(size=(latent, PAPER_DIMENSION)).astype(np.float32) / np.float32(np.sqrt(PAPER_DIMENSION))
    spectrum = np.arange(1, latent + 1, dtype=np.float32) ** -0.35
    centres = shared.normal(size=(2000, latent)).astype(np.float32)
    share = shared.dirichlet(np.full(2000, 0.5))
    for start in range(0, rows, _PART_ROWS):
        path = folder / f"part-{start:07d}.parquet"
        if path.exists():
            continue
        rng = np.random.default_rng(start + 1)
        n = min(_PART_ROWS, rows - start)
        tightness = rng.uniform(0.3, 1.2, (n, 1)).astype(np.float32)
        points = centres[rng.choice(2000, n, p=share)]
        points = (points + tightness * rng.standard_normal((n, latent), np.float32)) * spectrum
        vectors = points @ basis + np.float32(0.004) * rng.standard_normal((n, PAPER_DIMENSION), np.float32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), PAPER_DIMENSION)
        table = pa.table({"id": np.arange(start, start + n), "embedding": column})
        temporary = path.with_suffix(".unfinished")
        pq.write_table(table, temporary, compression="none", use_dictionary=False)
        temporary.rename(path)


def _density_within(work: Location, block: Block) -> None:
    stored = read_block(work, block.name)
    space = metric_space(stored.vectors, "cosine")
    nearest = NearestDistances(space, 10, stored.rows)
    nearest.add(space, stored.rows)
    distances = from_squared(nearest.squared, "cosine")
    write_density(work, block.name, BlockDensity(density_factor(distances), distances[:, -1]))


if __name__ == "__main__":
    log_to_stderr()
    logging.getLogger("novelsum").setLevel(logging.DEBUG)
    sys.exit({"bench40k": bench40k, "paper": paper}[sys.argv[1]]())
