"""make bench-small: ``curate`` on small pools against a bare PySpark program, as ratios within one run.

The bare program starts a session and counts a range through one Python task. The pools are the shipped sample (at most
2 times the bare program, budget 200) and 20,000 x 384 (at most 4 times, budget 1,000): real embeddings where BENCH40K
says they lie, else the sample's with noise. Bare program and jobs take turns; REPEATS (3) says how often.

The sample is curated on a machine that has compiled no loops yet, too, and again then: the difference is to be at most
3 s.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from results import Table, keep

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "tests" / "data" / "sample"
ROWS = 20_000
BARE = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
assert spark.sparkContext.parallelize(range(1000), 1).map(lambda number: number).count() == 1000
spark.stop()
"""


def main(folder: Path) -> None:
    """Time all in turn, and print medians with their spread, ratios, and the stages of the median run."""
    jobs = {
        "sample": (SAMPLE, 200, 2, ("--text-column", "text", "--group-column", "group")),
        f"{ROWS} x 384": (_many(folder / "many"), 1000, 4, ()),
    }
    bare: list[float] = []
    runs: dict[str, list[tuple[float, dict[str, float]]]] = {name: [] for name in jobs}
    cold, warm, files = [], [], 0
    for turn in range(int(os.environ.get("REPEATS", "3"))):
        bare.append(_seconds("-c", BARE))
        for name, (source, budget, _, more) in jobs.items():
            output = folder / "out"
            given = ("--input", source, "--output", output, "--budget", budget, "--overwrite", *more)
            taken = _seconds(ROOT / "jobs" / "curate.py", *given)
            runs[name].append((taken, json.loads((output / "_MANIFEST.json").read_text())["seconds"]))
        given = ("--input", SAMPLE, "--output", folder / "out", "--budget", 200, "--overwrite")
        for seconds in (cold, warm):
            seconds.append(_seconds(ROOT / "jobs" / "curate.py", *given, compiled=folder / f"compiled-{turn}"))
        files = len(list((folder / f"compiled-{turn}").rglob("*.nbc")))
    print(f"bare program {_spread(bare)}")
    rows: list[list[object]] = [["bare program", "", *_three(bare), "", ""]]
    for name, (_, budget, target, _) in jobs.items():
        seconds = [taken for taken, _ in runs[name]]
        ratios = [taken / before for taken, before in zip(seconds, bare, strict=True)]
        print(f"{name}, budget {budget}: {_spread(seconds)}; {_spread(ratios, 'x')} the bare program, to be {target} x")
        rows.append([f"{name}, curated", budget, *_three(seconds), round(median(ratios), 2), target])
        stages = sorted(runs[name], key=lambda run: run[0])[len(seconds) // 2][1]
        print("  " + ", ".join(f"{stage} {taken:.1f}" for stage, taken in stages.items()), flush=True)
    more = [before - after for before, after in zip(cold, warm, strict=True)]
    print(f"sample, nothing compiled before: {_spread(cold)}; then {_spread(warm)}")
    print(f"  {_spread(more)} to compile {files} loops, to be 3 s at most")
    rows.append(["sample, curated, no loop compiled before", 200, *_three(cold), "", ""])
    rows.append(["the same again", 200, *_three(warm), "", ""])
    columns = ["program", "picks", "seconds", "least", "greatest", "over the bare program", "to be at most"]
    keep("small", Table(columns, rows))


def _seconds(*arguments: object, compiled: Path | None = None) -> float:
    """Seconds of a Python program of its own, from start to end. ``compiled``: where compiled loops are kept."""
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable}
    if compiled:
        environment["NUMBA_CACHE_DIR"] = str(compiled)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - started


def _three(values: list[float]) -> list[float]:
    """Median, least and greatest."""
    return [round(value, 1) for value in (median(values), min(values), max(values))]


def _spread(values: list[float], unit: str = "s") -> str:
    return f"{median(values):.1f} {unit} ({min(values):.1f} to {max(values):.1f})"


def _many(folder: Path) -> Path:
    """20,000 embeddings of 384 dimensions, the same in every run."""
    folder.mkdir()
    data = Path(os.environ.get("BENCH40K", "../shared/data/bench40k"))
    if data.exists():
        pq.write_table(ds.dataset(data, format="parquet").head(ROWS), folder / "real.parquet")
        return folder
    vectors = np.stack(ds.dataset(SAMPLE).to_table(["embedding"]).column(0).to_numpy())
    rng = np.random.default_rng(0)
    many = vectors[rng.integers(0, len(vectors), ROWS)]
    many = many + (0.02 * rng.standard_normal(many.shape)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(many.reshape(-1)), many.shape[1])
    pq.write_table(pa.table({"id": np.arange(ROWS), "embedding": column}), folder / "made.parquet")
    return folder


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
