"""What benchmarks keep: figures as JSON in results/, committed, from which ``make docs`` makes docs/benchmarks.md.

A file is the last run of one benchmark: when, by which command, on what machine, how busy that was, with which
versions, and tables of figures. What a benchmark prints besides is for whoever looks on.
"""

import json
import os
import platform
import shlex
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent / "results"
CHANGES = ("ROWS", "BUDGET", "FORMULA", "REPEATS", "TARGETS", "EXACT_LIMIT", "SCALE", "LARGEST")
"""What the environment may change in a benchmark; such a run says so in its command."""
_LOAD = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


@dataclass(frozen=True)
class Benchmark:
    """One that keeps its figures. ``target``: of the Makefile; ``does``: what it measures, a sentence or two."""

    target: str
    title: str
    does: str


BENCHMARKS = {
    "curate": Benchmark(
        "bench-curate",
        "Curate, from file to report",
        "`curate.py` with its defaults on three pools, each a process of its own, from its start to its end.",
    ),
    "selection": Benchmark(
        "bench",
        "Selection: 4,000 of 40,000 real embeddings",
        "Rounds against their floor, the bare matrix products 2·N·B·D in float32 with the same BLAS and threads, and "
        "against the straightforward loop: all distances to S and their sort at each pick, timed at six sizes of S on "
        "a sixteenth of the candidates and integrated.",
    ),
    "small": Benchmark(
        "bench-small",
        "Small pools",
        "`curate.py` on small pools against a bare PySpark program, which starts a session and counts a range in one "
        "Python task; they take turns. Medians, and from least to greatest.",
    ),
    "large": Benchmark(
        "bench-large",
        "Selection: 2,500 of 100,000 × 4,096",
        "The same of long generated embeddings, in 16 GB of memory.",
    ),
    "scaling-executors": Benchmark(
        "bench-scaling", "One executor and two", "The same selection on one and on two executors of one core each."
    ),
    "scaling": Benchmark(
        "bench-scaling",
        "How a selection grows",
        "Generated embeddings, selected from in rounds however small the pool is, and a model of costs fitted to them: "
        "[scaling.md](scaling.md) tells what it says. *Over floor*: over the bare matrix products.",
    ),
    "density-curve": Benchmark(
        "bench-density",
        "Density beside faiss",
        "Exact and approximate density of the 40,000 real embeddings, K = 10, beside IndexFlat, IVFFlat and HNSW, of "
        "which the least probes or breadth count that reach the target; all they take to build is counted. "
        "[density.md](density.md#measured) has an earlier run.",
    ),
    "density-outcome": Benchmark(
        "bench-density",
        "What approximate density does to a selection",
        "2,000 picks of the same embeddings; NovelSum is computed with the exact density factors throughout.",
    ),
    "density-skewed": Benchmark(
        "bench-density",
        "Density of a crowd",
        "The same embeddings as they are, and with every second one moved to within 1e-3 of one of them.",
    ),
    "density-update": Benchmark(
        "bench-density", "A night more", "A full run over the same embeddings, and an update by 1% of them."
    ),
    "density-long": Benchmark(
        "bench-density",
        "Density of long embeddings",
        "100,000 × 4,096 generated ones; [density.md](density.md#measured) has an earlier run.",
    ),
    "diversity": Benchmark(
        "bench",
        "Measuring diversity",
        "NovelSum of 100,000 generated embeddings of 384 dimensions in clusters, exact, by the defaults of the job and "
        "with the interval.",
    ),
    "text": Benchmark(
        "bench-text",
        "Texts in and out",
        "Short chats with 384-d vectors beside them come in; all of them go out in another order.",
    ),
    "paper": Benchmark(
        "bench-paper",
        "The paper's own case",
        "A selection of 10,000 of 396,000 × 4,096 generated embeddings, in parts of at most 35 minutes.",
    ),
    "paper-density": Benchmark(
        "bench-paper-density", "Density of the paper's own case", "Approximate density of the same embeddings."
    ),
}
"""All that keep figures, in the order of the page."""


@dataclass(frozen=True)
class Table:
    """Figures under columns. Numbers stay numbers; the page rounds them."""

    columns: list[str]
    rows: list[list[Any]]
    title: str = ""

    @staticmethod
    def of(figures: dict[str, Any], title: str = "") -> "Table":
        """Figures by name, one a row."""
        return Table(["", "measured"], [[name, value] for name, value in figures.items()], title)


@dataclass(frozen=True)
class Result:
    """What a benchmark has kept; ``load``: of the machine, before and after the run, if it was noted."""

    command: str
    date: str
    machine: dict[str, Any]
    load: list[float]
    versions: dict[str, str]
    tables: list[Table] = field(default_factory=list)

    @staticmethod
    def read(path: Path) -> "Result":
        """From its file."""
        values = json.loads(path.read_text())
        return Result(**{**values, "tables": [Table(**table) for table in values["tables"]]})


def facts() -> dict[str, Any]:
    """When and where this is run, how busy the machine was when it began and is now, and with which versions."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"cores": os.cpu_count(), "memory_gib": _memory(), "processor": _processor()},
        "load": [round(_LOAD, 1), round(os.getloadavg()[0], 1)],
        "versions": {
            **{package: version(package) for package in ("novelsum", "pyspark", "numpy", "numba", "pyarrow")},
            "python": platform.python_version(),
        },
    }


def keep(name: str, *tables: Table, measured: dict[str, Any] | None = None) -> None:
    """Write what a benchmark has found to its file. ``measured``: the facts of figures that were measured before."""
    changed = [f"{key}={shlex.quote(os.environ[key])} " for key in CHANGES if key in os.environ]
    command = f"{''.join(changed)}make {BENCHMARKS[name].target}"
    result = Result(command=command, tables=list(tables), **(measured or facts()))
    FOLDER.mkdir(exist_ok=True)
    unfinished = FOLDER / f".{name}.unfinished"
    unfinished.write_text(json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n")
    unfinished.rename(FOLDER / f"{name}.json")


def _memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
