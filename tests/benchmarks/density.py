"""Density by cells beside faiss on two cores: recall against time, and what the approximation does to a selection.

``curve``: the 40,000 real embeddings of BENCH40K, three repeats, medians; all times include training and assignment.
``outcome``: 2,000 picks with exact and with approximate density: how many are the same, and NovelSum of both.
``skewed``: the same embeddings as they are, and with every second one moved to within 1e-3 of one of them.
``paper``: 396,000 x 4,096 generated embeddings, ingested before into out/bench-paper.
"""

import os
import pickle
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import PeakMemory
from pyspark import SparkContext
from selection import CORES, GENERATED, PAPER_ROWS, _generate, _ingested

from novelsum import formula
from novelsum.density.exact import estimate_density
from novelsum.density.factors import read_density
from novelsum.files.location import Location
from novelsum.files.store import Pool, read_block
from novelsum.selection.rounds import first_row, select
from novelsum.settings import Settings
from novelsum.spark import session
from novelsum.spark.progress import log_to_stderr

NEIGHBORS = 10
REPEATS = int(os.environ.get("REPEATS", "3"))
TARGETS = [float(target) for target in os.environ.get("TARGETS", "0.8 0.9 0.95 0.98").split()]
SETTINGS = Settings(
    input=os.environ.get("BENCH40K", "../shared/data/bench40k"), budget=2000, density_method="approximate"
)


def curve() -> None:
    """Seconds and recall of all three, and of the exact search."""
    with tempfile.TemporaryDirectory() as folder:
        spark = session.start("bench-density", f"local[{CORES}]")
        pool = _ingested(spark, SETTINGS, Location.of(folder), {})
        vectors = formula.normalize(_columns(pool)[1]).astype(np.float32)
        estimate_density(spark, pool, replace(SETTINGS, target_recall=0.5), pool.work)  # starts the workers
        exact, _ = _timed(spark, pool, replace(SETTINGS, density_method="exact"))
        print(f"pool               {pool.candidates} x {pool.dimension}, K {NEIGHBORS}, medians of {REPEATS}")
        print(f"exact              {exact:.1f} s", flush=True)
        for target in TARGETS:
            seconds, report = _timed(spark, pool, replace(SETTINGS, target_recall=target))
            print(
                f"novelsum           {seconds:.1f} s, recall {report['recall']:.4f}; {report['probes']} of "
                f"{report['cells']} cells; error of density median {report['sigma_error_median']:.2g}, "
                f"p99 {report['sigma_error_p99']:.2g}",
                flush=True,
            )
        spark.stop()
    _faiss_curve(vectors)


def _timed(spark: SparkContext, pool: Pool, settings: Settings) -> tuple[float, dict]:
    seconds = []
    for _ in range(REPEATS):
        clock = time.perf_counter()
        report = estimate_density(spark, pool, settings, pool.work)
        seconds.append(time.perf_counter() - clock)
    return median(seconds), report


def _faiss_curve(vectors: np.ndarray) -> None:
    """IVFFlat with sqrt(N) and 2 sqrt(N) lists and HNSW with 32 links, on as many threads."""
    import faiss

    faiss.omp_set_num_threads(CORES)
    dimension, sample = vectors.shape[1], np.random.default_rng(0).choice(len(vectors), 1000, replace=False)
    near = vectors[sample] @ vectors.T
    kth = np.partition(near, -NEIGHBORS - 1, axis=1)[:, -NEIGHBORS - 1]  # the point itself is the nearest
    for lists in (round(len(vectors) ** 0.5), 2 * round(len(vectors) ** 0.5)):
        built, index = [], None
        for _ in range(REPEATS):
            clock = time.perf_counter()
            index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
            index.train(vectors)
            index.add(vectors)
            built.append(time.perf_counter() - clock)
        for share in (0.05, 0.1, 0.15):
            index.nprobe = max(1, round(share * lists))
            _report_faiss(f"IVFFlat {lists:>4}/{index.nprobe:<4} ", index, vectors, median(built), sample, kth)
    clock = time.perf_counter()
    index = faiss.IndexHNSWFlat(dimension, 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 80
    index.add(vectors)
    built = [time.perf_counter() - clock]
    for breadth in (16, 32, 64, 128):
        index.hnsw.efSearch = breadth
        _report_faiss(f"HNSW 32 ef {breadth:<6} ", index, vectors, built[0], sample, kth)


def _report_faiss(name: str, index, vectors: np.ndarray, built: float, sample: np.ndarray, kth: np.ndarray) -> None:
    seconds = []
    for _ in range(REPEATS):
        clock = time.perf_counter()
        found, _ = index.search(vectors, NEIGHBORS + 1)
        seconds.append(time.perf_counter() - clock)
    recall = (found[sample, 1:] >= kth[:, None] - 1e-6).mean()
    total = built + median(seconds)
    print(f"{name} {total:.1f} s, recall {recall:.4f}; {built:.1f} s of it to train and add", flush=True)


def outcome() -> None:
    """Picks with exact and approximate density factors: how many agree, and the NovelSum of each by exact ones.

    Beside them exact factors with another first pick: how far a selection moves by its start alone.
    """
    cases = {
        "exact": replace(SETTINGS, density_method="exact"),
        "exact, another first pick": replace(SETTINGS, density_method="exact", seed=43),
        **{f"--target-recall {target:g}": replace(SETTINGS, target_recall=target) for target in TARGETS},
    }
    picks: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        spark = session.start("bench-density", f"local[{CORES}]")
        pool = _ingested(spark, SETTINGS, Location.of(folder), {})
        rows, vectors = _columns(pool)
        exact, vectors = np.empty(len(rows)), vectors[np.argsort(rows)]
        for name, settings in cases.items():
            report = estimate_density(spark, pool, settings, pool.work)
            if not picks:
                exact[rows] = np.concatenate([read_density(pool.work, block.name).density for block in pool.blocks])
            found, _ = select(spark, pool, pool.work, pool.work, settings, first_row(spark, pool, settings))
            picks[name] = [pick.row for pick in found]
            chosen = np.sort(picks[name])
            total = formula.novelsum(formula.distances(vectors[chosen], vectors[chosen]), exact[chosen]).sum
            same = len(set(picks[name]) & set(picks["exact"]))
            print(
                f"{name:<28} recall {report.get('recall', 1):.4f}, {same} of {len(found)} picks as with exact density, "
                f"NovelSum {total:.3f}",
                flush=True,
            )
        spark.stop()


def skewed() -> None:
    """Seconds and memory of the search in a pool half of which is a crowd, beside those of the pool without."""
    with tempfile.TemporaryDirectory() as folder:
        spark = session.start("bench-density", f"local[{CORES}]")
        as_is = _ingested(spark, SETTINGS, Location.of(folder) / "as-is", {})
        vectors = formula.normalize(_columns(as_is)[1])
        crowd, noise = vectors[::2], np.random.default_rng(0)
        for start in range(0, len(crowd), 1000):
            step = noise.normal(size=crowd[start : start + 1000].shape)
            crowd[start : start + 1000] = vectors[1] + 1e-3 * step / np.linalg.norm(step, axis=1, keepdims=True)
        table = pa.table({"id": np.arange(len(vectors)), "embedding": list(vectors.astype(np.float32))})
        pq.write_table(table, f"{folder}/skewed.parquet")
        half_a_crowd = replace(SETTINGS, input=f"{folder}/skewed.parquet")
        crowded = _ingested(spark, half_a_crowd, Location.of(folder) / "crowded", {})
        estimate_density(spark, as_is, replace(SETTINGS, target_recall=0.5), as_is.work)  # starts the workers
        for name, pool in {"as it is": as_is, "half a crowd": crowded}.items():
            with PeakMemory() as memory:
                seconds, report = _timed(spark, pool, SETTINGS)
            print(
                f"{name:<18} {seconds:.1f} s, recall {report['recall']:.4f}; {report['probes']} of {report['cells']} "
                f"cells; error of density p99 {report['sigma_error_p99']:.2g}; workers' peak memory "
                f"{memory.peak['workers'] / 2**20:.0f} MiB",
                flush=True,
            )
        spark.stop()


def paper() -> None:
    """The density of the paper's own number of rows and dimensions."""
    settings = replace(SETTINGS, input=str(GENERATED / f"input-{PAPER_ROWS}"), block_rows=12_000)
    _generate(Path(settings.input))
    spark = session.start("bench-density", f"local[{CORES}]")
    kept, seconds = GENERATED / f"pool-{PAPER_ROWS}.pickle", {}
    if kept.exists():
        pool = pickle.loads(kept.read_bytes())
    else:
        pool = _ingested(spark, settings, Location.of(str(GENERATED / f"work-density-{PAPER_ROWS}")), seconds)
    kept_density = pool.work / "density"
    aside = pool.work / "density-of-selection"  # what the selection benchmark starts from
    if kept_density.exists() and not aside.exists():
        kept_density.move_to(aside)
    try:
        with PeakMemory() as memory:
            clock = time.perf_counter()
            report = estimate_density(spark, pool, settings, pool.work)
            seconds["density"] = time.perf_counter() - clock
    finally:
        spark.stop()
        for name in ("cells", "found", "sample", "density"):
            (pool.work / name).delete()
        if aside.exists():
            aside.move_to(kept_density)
    print(f"pool         {pool.candidates} x {pool.dimension}")
    print("seconds      " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
    print("density      " + ", ".join(f"{name} {value}" for name, value in report.items()))
    print("peak memory  " + ", ".join(f"{name} {value / 2**20:.0f} MiB" for name, value in memory.peak.items()))


def _columns(pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """Rows and vectors of all blocks, in the order of the blocks."""
    blocks = [read_block(pool.work, block.name) for block in pool.blocks]
    return np.concatenate([block.rows for block in blocks]), np.concatenate([block.vectors for block in blocks])


if __name__ == "__main__":
    log_to_stderr()
    if sys.argv[1] != "paper" and not Path(SETTINGS.input).exists():
        print(
            f"bench: {SETTINGS.input} is absent; set BENCH40K to the folder of the 40,000 embeddings", file=sys.stderr
        )
        sys.exit(3)
    {"curve": curve, "outcome": outcome, "skewed": skewed, "paper": paper}[sys.argv[1]]()
