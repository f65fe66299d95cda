"""What benchmarks share: resident memory of a process tree, the floor, and the straightforward loop."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np

from novelsum.formula import proximity_weights


class PeakMemory:
    """The greatest resident memory of this process and all below it while the block runs, by kind of process.

    Shared pages are counted once, divided among those that map them (PSS).
    """

    def __enter__(self) -> "PeakMemory":
        self.peak: dict[str, int] = {"driver": 0, "workers": 0, "java": 0, "together": 0}
        self.private_of_workers = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            now = {"driver": 0, "workers": 0, "java": 0}
            anonymous = 0
            for pid in _tree(os.getpid()):
                try:
                    name = Path(f"/proc/{pid}/comm").read_text().strip()
                    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
                except OSError:
                    continue
                sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
                kind = "java" if name == "java" else "driver" if pid == os.getpid() else "workers"
                now[kind] += sizes["Pss"]
                anonymous += sizes["Pss_Anon"] if kind == "workers" else 0
            for kind, value in [*now.items(), ("together", sum(now.values()))]:
                self.peak[kind] = max(self.peak[kind], value)
            self.private_of_workers = max(self.private_of_workers, anonymous)


def processor_seconds() -> float:
    """Seconds of processor time that this process and all below it have taken: other work disturbs them less."""
    ticks = 0
    for pid in _tree(os.getpid()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        ticks += sum(int(field) for field in fields[11:15])  # of its own and of children that have ended
    return ticks / os.sysconf("SC_CLK_TCK")


def _tree(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def floor_seconds(vectors: np.ndarray, budget: int, threads: int, repeats: int = 3) -> list[float]:
    """Seconds of the bare matrix products of all candidates with ``budget`` picks, 256 at a time, float32."""
    columns = np.ascontiguousarray(vectors[:256].T)
    parts = np.array_split(vectors, threads)

    def products(part: np.ndarray) -> None:
        out = np.empty((4096, 256), np.float32)
        for _ in range(-(-budget // 256)):
            for start in range(0, len(part), 4096):
                rows = part[start : start + 4096]
                np.matmul(rows, columns, out=out[: len(rows)])

    scale = budget / (-(-budget // 256) * 256)
    return [scale * _seconds(lambda: _in_threads(products, parts)) for _ in range(repeats)]


def straightforward_seconds(vectors: np.ndarray, budget: int, threads: int, share: int = 16) -> tuple[float, str]:
    """Seconds of the loop that recomputes all distances to S and sorts them at each pick, integrated over picks.

    Timed at several sizes of S on every ``share``-th candidate; float32, argsort, as the released code does.
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    parts = np.array_split(np.ascontiguousarray(unit[::share]), threads)
    sizes = np.unique(np.geomspace(16, budget, 6).astype(int))
    seconds = []
    for n in sizes:
        selected, weights = unit[:n], proximity_weights(n).astype(np.float32)

        def step(part: np.ndarray, selected: np.ndarray = selected, weights: np.ndarray = weights) -> None:
            for start in range(0, len(part), 512):
                d = 1 - part[start : start + 512] @ selected.T
                order = np.argsort(d, axis=1)
                (np.take_along_axis(d, order, axis=1) * weights).sum(axis=1).max()

        seconds.append(median(share * _seconds(lambda step=step: _in_threads(step, parts)) for _ in range(3)))
    total = float(np.trapezoid([seconds[0], *seconds], [0, *sizes]))
    return total, ", ".join(f"n={n}: {s:.3f} s" for n, s in zip(sizes, seconds, strict=True))


def with_one_blas_thread(task: Callable[..., Any], *arguments: object) -> Any:
    """Call a function in a process of its own where BLAS has one thread, as in Spark's tasks and unlike the driver."""
    with (
        patch.dict(os.environ, OPENBLAS_NUM_THREADS="1"),
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,
    ):
        return process.submit(task, *arguments).result()


def _in_threads(task: Callable[[np.ndarray], None], parts: list[np.ndarray]) -> None:
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(task, parts))


def _seconds(task: Callable[[], None]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start
