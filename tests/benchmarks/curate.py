"""make bench-curate: curate with its defaults, from file to report, on three pools, seconds and memory.

The shipped sample (200 picks), the 40,000 real embeddings of BENCH40K (5%), and 100,000 x 4,096 generated ones (2,500;
1.6 GB in out/bench-large and twice that while it runs). LARGEST=0 leaves the last one out.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import PeakMemory
from results import ROOT, Table, keep
from selection import BENCH40K, LARGE

SAMPLE = ROOT / "tests" / "data" / "sample"
STEPS = ("start", "ingest", "density", "selection")


def main() -> None:
    """Run all, and keep what they took; a pool that is not there is left out."""
    cases: list[tuple[str, Path, str]] = [("shipped prompts", SAMPLE, "200")]
    if BENCH40K.exists():
        cases.append(("real texts", BENCH40K, "5%"))
    if os.environ.get("LARGEST") != "0":
        LARGE.generate()
        cases.append(("generated", LARGE.input, "2500"))
    rows = []
    for kind, source, budget in cases:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            rows.append([kind, *_curated(source, budget, Path(folder))])
            print(rows[-1], flush=True)
    columns = ["embeddings", "candidates", "dimension", "picks", "density", "seconds"]
    keep("curate", Table([*columns, *(f"of them {step}" for step in STEPS), "the rest", "peak memory, GiB"], rows))


def _curated(source: Path, budget: str, folder: Path) -> list[object]:
    """Candidates, dimension, picks, kind of density, seconds in all and by step, GiB of memory."""
    output = folder / "out"
    command = [sys.executable, str(ROOT / "jobs" / "curate.py"), "--input", str(source), "--output", str(output)]
    command += ["--budget", budget]
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "OPENBLAS_NUM_THREADS": "1"}
    started = time.perf_counter()
    with PeakMemory() as memory:
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    manifest = json.loads((output / "_MANIFEST.json").read_text())
    counts, taken = manifest["input"], manifest["seconds"]
    return [
        counts["candidates"],
        counts["dimension"],
        manifest["selected"]["picks"],
        manifest["density"]["method"],
        round(seconds, 1),
        *(round(taken[step], 1) for step in STEPS),
        round(seconds - sum(taken[step] for step in STEPS), 1),
        round(memory.peak["together"] / 2**30, 1),
    ]


if __name__ == "__main__":
    main()
