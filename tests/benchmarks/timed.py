"""A selection, timed: its seconds and their parts, what it took, its memory, and the floor measured around it."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any

from measure import PeakMemory, floor_seconds, with_one_blas_thread
from pyspark import SparkContext

from novelsum.files.location import Location
from novelsum.files.store import Pool, read_block
from novelsum.selection import rounds
from novelsum.selection.rounds import Effort, first_row, select
from novelsum.settings import Settings

CORES = 2


class OutOfTimeError(Exception):
    """A selection has ended between two rounds, as its time was up; its picks are logged."""


@dataclass(frozen=True)
class Timed:
    """What was measured of a selection, or of a part of it. Times in seconds; ``floor``: each time it was measured.

    ``picked``: picks when it ended. ``driver_cpu``: processor time of the driver's process. ``latency``: of a Spark job
    of as many tasks that do nothing.
    """

    rows: int
    dimension: int
    budget: int
    formula: str
    tasks: int
    picked: int
    selection: float
    driver_cpu: float
    latency: float
    jobs: int
    effort: dict[str, Any]
    memory: dict[str, int]
    floor: list[float] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether all is picked."""
        return self.picked == self.budget

    @property
    def ratio(self) -> float:
        """The selection over the median floor."""
        return self.selection / median(self.floor)

    @staticmethod
    def joined(parts: "list[Timed]") -> "Timed":
        """Parts of one selection, each of which went on where the one before it ended."""
        phases, counts = parts[0].effort["seconds"], [name for name in parts[0].effort if name != "seconds"]
        effort = {name: sum(part.effort[name] for part in parts) for name in counts}
        effort["resumed_picks"] = parts[0].effort["resumed_picks"]
        effort["seconds"] = {name: sum(part.effort["seconds"][name] for part in parts) for name in phases}
        return replace(
            parts[-1],
            selection=sum(part.selection for part in parts),
            driver_cpu=sum(part.driver_cpu for part in parts),
            latency=median(part.latency for part in parts),
            jobs=sum(part.jobs for part in parts),
            effort=effort,
            memory={name: max(part.memory[name] for part in parts) for name in parts[0].memory},
            floor=[seconds for part in parts for seconds in part.floor],
        )

    def for_json(self) -> dict[str, Any]:
        """As a line of a file, from which ``Timed(**line)`` is had back."""
        return asdict(self)

    def figures(self) -> dict[str, Any]:
        """All of it by name, as results keep it."""
        effort = self.effort
        counts = {name: value for name, value in effort.items() if name not in ("seconds", "resumed_picks", "ended_by")}
        floor = {"floor, s": median(self.floor), "selection over the floor": self.ratio} if self.floor else {}
        return {
            "candidates": self.rows,
            "dimension": self.dimension,
            "budget": self.budget,
            "formula": self.formula,
            "selection, s": self.selection,
            **{f"of it {name}, s": value for name, value in effort["seconds"].items()},
            "processor time of the driver, s": self.driver_cpu,
            "Spark jobs": self.jobs,
            "an empty job, ms": 1000 * self.latency,
            **counts,
            **{f"peak memory, {name}, GiB": value / 2**30 for name, value in self.memory.items()},
            **floor,
        }

    def report(self, most_memory: float | None = None) -> None:
        """Print all of it."""
        effort = self.effort
        size = f"{self.rows} x {self.dimension}"
        print(f"pool         {size}, budget {self.budget}, {self.formula}; {self.tasks} tasks a round")
        phases = ", ".join(f"{name} {value:.1f}" for name, value in effort["seconds"].items())
        print(f"selection    {self.selection:.1f} s: {phases}; processor time of the driver {self.driver_cpu:.1f} s")
        print(
            f"spark        {self.jobs} jobs; an empty one takes {self.latency * 1000:.0f} ms: "
            f"{self.jobs * self.latency:.1f} s in all"
        )
        counts = [f"{name} {value}" for name, value in effort.items() if name not in ("seconds", "resumed_picks")]
        print("took         " + ", ".join(counts))
        sizes = ", ".join(f"{name} {value / 2**30:.1f}" for name, value in self.memory.items())
        limit = f", to be {most_memory:g} at most" if most_memory else ""
        print(f"peak memory  {sizes} GiB{limit}")
        if self.floor:
            spread = f"{median(self.floor):.2f} s ({min(self.floor):.2f} to {max(self.floor):.2f})"
            print(f"floor        {spread}: selection is {self.ratio:.1f} x", flush=True)


def timed_selection(
    spark: SparkContext, pool: Pool, settings: Settings, log: Location, minutes: float = math.inf
) -> Timed:
    """Select, with density factors that lie in the pool's folder and the pick log in ``log``.

    After so many minutes it ends between two rounds, and the same call goes on where it was.
    """
    first = first_row(spark, pool, settings)
    tracker = spark.statusTracker()
    before, cpu, clock = len(tracker.getJobIdsForGroup(None)), time.process_time(), time.perf_counter()
    with PeakMemory() as memory:
        effort, picked = _selected(partial(select, spark, pool, pool.work, log, settings, first), minutes)
        seconds, cpu = time.perf_counter() - clock, time.process_time() - cpu
    jobs = len(tracker.getJobIdsForGroup(None)) - before
    tasks = min(len(pool.blocks), spark.defaultParallelism)
    return Timed(
        rows=pool.candidates,
        dimension=pool.dimension,
        budget=settings.picks(pool.candidates),
        formula=settings.formula,
        tasks=tasks,
        picked=picked,
        selection=seconds,
        driver_cpu=cpu,
        latency=latency(spark, tasks),
        jobs=jobs,
        effort=effort.for_manifest(),
        memory=memory.peak,
    )


def _selected(selecting: Callable[[], Any], minutes: float) -> tuple[Effort, int]:
    """What a selection took that ends after so many minutes, and how many picks it has then."""
    until = time.monotonic() + 60 * minutes
    advance, seen = rounds._Selection.advance, []

    def advance_in_time(selection: rounds._Selection) -> None:
        seen[:] = [selection]
        if time.monotonic() > until:
            selection.log()
            raise OutOfTimeError
        advance(selection)

    rounds._Selection.advance = advance_in_time  # type: ignore[method-assign]
    try:
        picks, effort = selecting()
        return effort, len(picks)
    except OutOfTimeError:
        return seen[0].effort, seen[0].picked
    finally:
        rounds._Selection.advance = advance  # type: ignore[method-assign]


def latency(spark: SparkContext, tasks: int, repeats: int = 20, in_python: bool = True) -> float:
    """Seconds of a Spark job of so many tasks that do nothing, in Python or in Java alone."""
    nothing = spark.parallelize(range(tasks), tasks).cache()
    job = nothing.map(lambda block: block).collect if in_python else nothing._jrdd.count
    job()
    seconds = []
    for _ in range(repeats):
        clock = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - clock)
    return median(seconds)


def floor(pool: Pool, budget: int, cores: int = CORES) -> list[float]:
    """Seconds of the bare matrix products, measured on a block and scaled to all."""
    largest = max(pool.blocks, key=lambda block: block.rows)
    times = with_one_blas_thread(_floor_of_block, pool.work, largest.name, budget, cores)
    return [seconds * pool.candidates / largest.rows for seconds in times]


def _floor_of_block(work: Location, name: str, budget: int, cores: int) -> list[float]:
    return floor_seconds(read_block(work, name).vectors, budget, cores)
