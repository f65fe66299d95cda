"""Density by cells beside faiss on two cores: recall against time, and what the approximation does to a selection.

``curve``: the 40,000 real embeddings of BENCH40K, three rounds, medians; all times include training and assignment. The
exact search is beside IndexFlat, each target beside the settings of IVFFlat and HNSW that reach it.
``outcome``: 2,000 picks with exact and with approximate density: how many are the same, and NovelSum of both.
``skewed``: the same embeddings as they are, and with every second one moved to within 1e-3 of one of them.
``update``: a full run over the same embeddings and an update by 1% of them; UPDATED names other folders to do it with.
``long``: 100,000 x 4,096 generated embeddings, three repeats; they lie in out/bench-paper, where another checkout that
runs this finds them too.
``paper``: 396,000 x 4,096 generated embeddings, ingested before into out/bench-paper.
"""

import os
import pickle
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import PeakMemory, processor_seconds
from pyarrow import dataset
from pyspark import SparkContext
from results import Table, keep
from selection import CORES, GENERATED, PAPER_ROWS, _generate, _ingested

from novelsum import formula
from novelsum.density.exact import estimate_density
from novelsum.density.factors import read_density, write_density_result
from novelsum.density.state import state_of
from novelsum.files.location import Location
from novelsum.files.store import Pool, read_block
from novelsum.files.workplace import Workplace
from novelsum.selection.rounds import first_row, select
from novelsum.settings import Settings
from novelsum.spark import session
from novelsum.spark.progress import log_to_stderr

NEIGHBORS = 10
LONG_ROWS = 100_000
REPEATS = int(os.environ.get("REPEATS", "3"))
TARGETS = [float(target) for target in os.environ.get("TARGETS", "0.95 0.98 0.99").split()]
SETTINGS = Settings(
    input=os.environ.get("BENCH40K", "../shared/data/bench40k"), budget=2000, density_method="approximate"
)


def curve() -> None:
    """Seconds and recall beside faiss, in rounds in which each has its turn; all it takes to build is counted."""
    with tempfile.TemporaryDirectory() as folder:
        spark = session.start("bench-density", f"local[{CORES}]")
        pool = _ingested(spark, SETTINGS, Location.of(folder), {})
        vectors = formula.normalize(_columns(pool)[1]).astype(np.float32)
        estimate_density(spark, pool, replace(SETTINGS, target_recall=0.5), pool.work)  # starts the workers
        print(
            f"pool               {pool.candidates} x {pool.dimension}, K {NEIGHBORS}, medians of {REPEATS}", flush=True
        )
        seconds: dict[str, list[Taken]] = {}
        said: dict[str, str] = {}
        for _ in range(REPEATS):
            for target in (1.0, *TARGETS):
                method = "exact" if target == 1 else "approximate"
                name = f"novelsum {target:g}" if target < 1 else "novelsum exact"
                settings = replace(SETTINGS, density_method=method, target_recall=target)
                taken, report = _timed(spark, pool, settings, 1)
                seconds.setdefault(name, []).append(taken)
                if target < 1:
                    said[name] = (
                        f", recall {report['recall']:.4f}; {report['probes']} of {report['cells']} cells; error of "
                        f"density median {report['sigma_error_median']:.2g}, p99 {report['sigma_error_p99']:.2g}"
                    )
            for name, taken, words in _faiss(vectors):
                seconds.setdefault(name, []).append(taken)
                said[name] = words
        spark.stop()
    medians = {name: Taken(*map(median, zip(*taken, strict=True))) for name, taken in seconds.items()}
    for name, taken in medians.items():
        print(f"{name:<18} {taken}{said.get(name, '')}", flush=True)
    over = medians["novelsum exact"].over(medians["IndexFlat"])
    print(f"exact over IndexFlat: {over}")
    rows = [[name, *_rounded(taken), said.get(name, "").strip(", ")] for name, taken in medians.items()]
    ratios: dict[str, Any] = {"exact over IndexFlat": over}
    for target in TARGETS:
        rivals = [name for name in medians if name.endswith(f" {target:g}") and not name.startswith("novelsum")]
        fastest = min(rivals, key=medians.__getitem__)
        ratios[f"at {target:g} over {fastest}"] = medians[f"novelsum {target:g}"].over(medians[fastest])
        print(f"at {target:g} over {fastest}: {ratios[f'at {target:g} over {fastest}']}")
    columns = ["search", "seconds", "of processors", "found"]
    keep("density-curve", Table(columns, rows, f"Medians of {REPEATS}"), Table.of(ratios))


class Taken(NamedTuple):
    """Seconds of the clock, and of the processors."""

    clock: float
    processors: float

    def __str__(self) -> str:
        return f"{self.clock:.1f} s ({self.processors:.1f} s of processors)"

    def over(self, other: "Taken") -> str:
        """How many times as many they are."""
        return f"{self.clock / other.clock:.2f} ({self.processors / other.processors:.2f} in processor time)"


def _rounded(taken: Taken) -> list[float]:
    return [round(seconds, 1) for seconds in taken]


class Clock:
    """What has been taken since it was made, by all processes of the run or by this one ``alone``."""

    def __init__(self, alone: bool = False) -> None:
        self._of_processors = time.process_time if alone else processor_seconds
        self._clock, self._processors = time.perf_counter(), self._of_processors()

    def taken(self) -> Taken:
        """Until now."""
        return Taken(time.perf_counter() - self._clock, self._of_processors() - self._processors)


def _timed(spark: SparkContext, pool: Pool, settings: Settings, repeats: int = REPEATS) -> tuple[Taken, dict]:
    taken = []
    for _ in range(repeats):
        clock = Clock()
        report = estimate_density(spark, pool, settings, pool.work)
        taken.append(clock.taken())
    return Taken(*map(median, zip(*taken, strict=True))), report


def _faiss(vectors: np.ndarray) -> Iterator[tuple[str, Taken, str]]:
    """IndexFlat, IVFFlat and HNSW on as many threads: name, seconds of all it takes, and what to say beside them.

    IVFFlat has sqrt(N) and 2 sqrt(N) lists, HNSW 16 and 32 links; each is searched for each target in as few lists, or
    with as little breadth, as find that much of 1,000 rows.
    """
    import faiss

    faiss.omp_set_num_threads(CORES)
    dimension, sample = vectors.shape[1], np.random.default_rng(0).choice(len(vectors), 1000, replace=False)
    near = vectors[sample] @ vectors.T
    kth = np.partition(near, -NEIGHBORS - 1, axis=1)[:, -NEIGHBORS - 1]  # the point itself is the nearest

    def recall(index: Any) -> float:
        found, _ = index.search(vectors[sample], NEIGHBORS + 1)
        return float((found[:, 1:] >= kth[:, None] - 1e-6).mean())

    def built(index: Any) -> tuple[Any, Taken]:
        clock = Clock(alone=True)
        index.train(vectors)
        index.add(vectors)
        return index, clock.taken()

    def searched(index: Any, to_build: Taken) -> Taken:
        clock = Clock(alone=True)
        index.search(vectors, NEIGHBORS + 1)
        return Taken(*map(sum, zip(to_build, clock.taken(), strict=True)))

    index, to_build = built(faiss.IndexFlatIP(dimension))
    yield "IndexFlat", searched(index, to_build), ""
    root = round(len(vectors) ** 0.5)
    for name, parameter, choices, make in [
        *(
            (f"IVFFlat {lists}", "nprobe", range(2, lists), partial(_lists, faiss, dimension, lists))
            for lists in (root, 2 * root)
        ),
        *(
            (f"HNSW {links}", "efSearch", range(12, 512, 4), partial(_graph, faiss, dimension, links))
            for links in (16, 32)
        ),
    ]:
        index, to_build = built(make())
        of = index.hnsw if parameter == "efSearch" else index
        for target in TARGETS:
            value = _least(of, parameter, choices, lambda index=index, target=target: recall(index) >= target)
            words = f", recall {recall(index):.4f}; {parameter} {value}; {to_build} of it to train and add"
            yield f"{name} {target:g}", searched(index, to_build), words


def _least(of: Any, parameter: str, choices: range, is_enough: Callable[[], bool]) -> int:
    """Set a parameter to the least of some choices that is enough, or to the last."""

    def set_to(value: int) -> bool:
        setattr(of, parameter, value)
        return is_enough()

    value = choices[min(bisect_left(choices, True, key=set_to), len(choices) - 1)]
    setattr(of, parameter, value)
    return value


def _lists(faiss: Any, dimension: int, lists: int) -> Any:
    return faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)


def _graph(faiss: Any, dimension: int, links: int) -> Any:
    index = faiss.IndexHNSWFlat(dimension, links, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 2 * links + 16
    return index


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
    results: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        spark = session.start("bench-density", f"local[{CORES}]")
        pool = _ingested(spark, SETTINGS, Location.of(folder), {})
        rows, vectors = _columns(pool)
        exact, vectors = np.empty(len(rows)), vectors[np.argsort(rows)]
        for name, settings in cases.items():
            report = estimate_density(spark, pool, settings, pool.work)
            if not picks:
                exact[rows] = np.concatenate([read_density(pool.work, block.name).density for block in pool.blocks])
            log = pool.work / f"picks-{len(picks)}"  # its own, or a selection would go on with the picks before
            found, _ = select(spark, pool, pool.work, log, settings, first_row(spark, pool, settings))
            picks[name] = [pick.row for pick in found]
            chosen = np.sort(picks[name])
            total = formula.novelsum(formula.distances(vectors[chosen], vectors[chosen]), exact[chosen]).sum
            same = len(set(picks[name]) & set(picks["exact"]))
            results.append([name, round(report.get("recall", 1.0), 4), same, round(total, 1)])
            print(
                f"{name:<28} recall {report.get('recall', 1):.4f}, {same} of {len(found)} picks as with exact density, "
                f"NovelSum {total:.3f}",
                flush=True,
            )
        spark.stop()
    keep("density-outcome", Table(["density factors", "recall", "picks as with exact ones", "NovelSum"], results))


def skewed() -> None:
    """Seconds and memory of the search in a pool half of which is a crowd, beside those of the pool without."""
    results: list[list[Any]] = []
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
            sizes = [report["probes"], report["cells"], report["sigma_error_p99"], memory.peak["workers"] >> 20]
            results.append([name, *_rounded(seconds), round(report["recall"], 4), *sizes])
            print(
                f"{name:<18} {seconds}, recall {report['recall']:.4f}; {report['probes']} of {report['cells']} "
                f"cells; error of density p99 {report['sigma_error_p99']:.2g}; workers' peak memory "
                f"{memory.peak['workers'] / 2**20:.0f} MiB",
                flush=True,
            )
        spark.stop()
    columns = ["pool", "seconds", "of processors", "recall", "probes", "cells", "error of σ, p99", "workers, MiB"]
    keep("density-skewed", Table(columns, results))


def update() -> None:
    """Seconds of a full run over all rows and of an update by one in a hundred of them, ingest and all."""
    tables: list[Table] = []
    for source in os.environ.get("UPDATED", SETTINGS.input).split():
        table = dataset.dataset(source).to_table(["id", "embedding"])
        with tempfile.TemporaryDirectory(dir=".") as folder:
            is_new = np.arange(len(table)) % 100 == 50
            for name, rows in {"all": ~is_new | is_new, "old": ~is_new, "new": is_new}.items():
                (Path(folder) / name).mkdir()
                pq.write_table(table.filter(pa.array(rows)), f"{folder}/{name}/part.parquet", compression="none")
            del table
            spark = session.start("bench-density", f"local[{CORES}]")
            seconds: dict[str, list[Taken]] = {}
            for place in range(REPEATS):
                state = f"{folder}/state-{place}"
                base = replace(SETTINGS, density_method="auto")
                _run_job(spark, replace(base, input=f"{folder}/old", save_state=state), f"{folder}/out-old-{place}")
                for name, settings in {
                    "full run": replace(base, input=f"{folder}/all"),
                    "with a state": replace(base, input=f"{folder}/all", save_state=f"{folder}/state-all-{place}"),
                    "update": replace(base, input=f"{folder}/new", update=state),
                }.items():
                    clock = Clock()
                    report = _run_job(spark, settings, f"{folder}/out-{name.replace(' ', '-')}-{place}")
                    seconds.setdefault(name, []).append(clock.taken())
                    print(f"{name:<18} {seconds[name][-1]}, recall {report.get('recall', 1):.4f}", flush=True)
            spark.stop()
        medians = {name: Taken(*map(median, zip(*taken, strict=True))) for name, taken in seconds.items()}
        print(f"{source}: " + ", ".join(f"{name} {value}" for name, value in medians.items()))
        over = medians["update"].over(medians["full run"])
        print(f"update over a full run: {over}", flush=True)
        kept = [[name, *_rounded(taken)] for name, taken in medians.items()]
        tables.append(Table(["run", "seconds", "of processors"], [*kept, ["update over a full run", over, ""]]))
    keep("density-update", *tables)


def _run_job(spark: SparkContext, settings: Settings, output: str) -> dict:
    """What a run of the density job does within Spark; what its manifest says."""
    place = Workplace.of(Location.of(output), f"{output}-work", {"input": settings.input})
    with state_of(settings, place) as state:
        pool = _ingested(spark, settings, place.emptied("ingest"), {})
        work = place.emptied("density")
        if state is None:
            report = estimate_density(spark, pool, settings, work)
            write_density_result(spark, pool, work, settings.id_column, place.result)
        else:
            report = state.add(spark, pool, frozenset(), settings, work, place)
            state.commit(state.following(place.key))
    place.stage.delete()
    return report


def paper() -> None:
    """The density of the paper's own number of rows and dimensions."""
    _of_generated(PAPER_ROWS, 1)


def long() -> None:
    """The density of a quarter of its rows."""
    _of_generated(LONG_ROWS, REPEATS)


def _of_generated(rows: int, repeats: int) -> None:
    settings = replace(SETTINGS, input=str(GENERATED / f"input-{rows}"), block_rows=12_000)
    _generate(Path(settings.input), rows)
    spark = session.start("bench-density", f"local[{CORES}]")
    kept, seconds = GENERATED / f"pool-{rows}.pickle", {}
    if kept.exists():
        pool = pickle.loads(kept.read_bytes())
    else:
        pool = _ingested(spark, settings, Location.of(str(GENERATED / f"work-density-{rows}")), seconds)
        if rows != PAPER_ROWS:  # else the selection benchmark starts from another
            kept.write_bytes(pickle.dumps(pool))
    kept_density = pool.work / "density"
    aside = pool.work / "density-of-selection"  # what the selection benchmark starts from
    if kept_density.exists() and not aside.exists():
        kept_density.move_to(aside)
    try:
        with PeakMemory() as memory:
            taken, report = _timed(spark, pool, settings, repeats)
    finally:
        spark.stop()
        for name in ("cells", "found", "sample", "density"):
            (pool.work / name).delete()
        if aside.exists():
            aside.move_to(kept_density)
    print(f"pool         {pool.candidates} x {pool.dimension}")
    print(
        "seconds      " + ", ".join([*(f"{name} {value:.1f}" for name, value in seconds.items()), f"density {taken}"])
    )
    print("density      " + ", ".join(f"{name} {value}" for name, value in report.items()))
    print("peak memory  " + ", ".join(f"{name} {value / 2**20:.0f} MiB" for name, value in memory.peak.items()))
    figures: dict[str, Any] = {"candidates": pool.candidates, "dimension": pool.dimension}
    figures |= {"seconds": taken.clock, "seconds of processors": taken.processors, **report}
    figures |= {f"peak memory, {kind}, MiB": size >> 20 for kind, size in memory.peak.items()}
    keep("paper-density" if rows == PAPER_ROWS else "density-long", Table.of(figures))


def _columns(pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """Rows and vectors of all blocks, in the order of the blocks."""
    blocks = [read_block(pool.work, block.name) for block in pool.blocks]
    return np.concatenate([block.rows for block in blocks]), np.concatenate([block.vectors for block in blocks])


if __name__ == "__main__":
    log_to_stderr()
    if sys.argv[1] not in ("long", "paper") and not Path(SETTINGS.input).exists():
        print(
            f"bench: {SETTINGS.input} is absent; set BENCH40K to the folder of the 40,000 embeddings", file=sys.stderr
        )
        sys.exit(3)
    {"curve": curve, "outcome": outcome, "skewed": skewed, "update": update, "long": long, "paper": paper}[
        sys.argv[1]
    ]()
