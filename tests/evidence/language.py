"""A small language model from scratch on the texts of each subset, scored by its loss on held-out texts.

    python tests/evidence/language.py [CORPUS ...]

Each budget has its number of steps, whatever the strategy, so that all cost the same. Of the held-out texts some choose
the look at which a training is best, and others score it. Beside them are controls: random texts with as many bytes
as a subset of MATCHED has, in as many steps, for what the lengths of texts explain.

CORES (all) in the environment are as many trainings at once, each on one core. Results go to
out/evidence/language.jsonl; what is there is not made again; after MINUTES (35) it ends by itself and the same command
goes on.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import corpora
import model
import numpy as np
import pyarrow.parquet as pq
import subsets
import torch
from probe import tasks
from trainings import Clock, Kept, Task

TRAININGS = corpora.EVIDENCE / "language.jsonl"
TOKENS = corpora.EVIDENCE / "tokens"
STEPS = {1: 160, 2: 200, 5: 320, 10: 480}
"""Of a budget in percent."""
VALIDATED, TESTED = 60, 400
"""Held-out texts that choose the look, and others that score it: a draw that is the same for all."""
MATCHED = ("paper", "symmetric")
"""Beside their subsets, random texts with as many bytes are learned: CONTROL + CONFIG among the results."""
CONTROL = "bytes-of-"
SETUP = (
    f"{model.LAYERS} x {model.WIDTH}, {model.VOCABULARY} tokens, {model.CONTEXT} x {model.BATCH} a step, rate "
    f"{model.RATE}, steps {tuple(STEPS.values())}, {VALIDATED} + {TESTED} texts"
)


class Corpus:
    """The texts of one corpus in tokens."""

    def __init__(self, name: str) -> None:
        pool, held_out = corpora.read(name, "pool"), corpora.read(name, "held-out")
        tokens = model.Tokens(TOKENS / f"{name}.json", pool["text"].to_pylist())
        self._row_of = {id: row for row, id in enumerate(pool["id"].to_pylist())}
        self._pool = tokens.of(pool["text"].to_pylist())
        drawn = np.random.default_rng(0).permutation(len(held_out))
        scored = tokens.of(held_out["text"].to_pylist(), model.SCORED)
        validation, test = drawn[:VALIDATED], drawn[VALIDATED : VALIDATED + TESTED]
        self._validation, self._test = scored.take(validation), scored.take(test)
        self._groups = np.array(held_out["group"].to_pylist())[test]

    def trained(self, picks: list[str], steps: int, seed: int) -> dict[str, Any]:
        """The scores of the model that these picks train, and what they are."""
        clock = time.process_time()
        subset = self._pool.take([self._row_of[id] for id in picks])
        result = model.train(subset, self._validation, self._test, steps, seed)
        of_group = [self._groups == group for group in np.unique(self._groups)]
        by_group = [result.bits[rows].sum() / self._test.sizes[rows].sum() for rows in of_group]
        return {
            "texts": len(picks),
            "bytes": int(subset.sizes.sum()),
            "bits": float(result.bits.sum() / self._test.sizes.sum()),
            "bits_by_group": float(np.mean(by_group)),
            "looks": [round(look, 4) for look in result.looks],
            "seconds": round(time.process_time() - clock, 2),
        }


@lru_cache(maxsize=1)
def _corpus(name: str) -> Corpus:
    return Corpus(name)


def _begin() -> None:
    """One core; and an end with the command, however that ends."""
    torch.set_num_threads(1)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def trained(task: Task, picks: list[str]) -> dict[str, Any]:
    """What one subset teaches. The seed is the start, so that all strategies begin with the same weights."""
    return _corpus(task.corpus).trained(picks, STEPS[task.budget], task.start)


def missing(names: list[str], kept: Kept) -> Iterator[tuple[Task, list[str]]]:
    """Subsets and controls without a result yet, with their picks, of corpora in which every row has a text."""
    learned = tasks(names)
    for corpus in dict.fromkeys(task.corpus for task in learned):
        text = pq.read_table(corpora.CORPORA / f"{corpus}.parquet", columns=["text"])["text"]
        if text.null_count:
            continue
        lots = Lots(subsets.Pool.of(corpus))
        for task in (task for task in learned if task.corpus == corpus):
            picks = subsets.picks_of(*task)
            found = [(task, picks)]
            if task.config in MATCHED:
                found += [(task._replace(config=CONTROL + task.config), lots.with_bytes_of(picks, task.start))]
            yield from ((one, ids) for one, ids in found if not kept.has(one, ids))


class Lots:
    """A corpus in random orders, those of the strategy random."""

    def __init__(self, pool: subsets.Pool) -> None:
        assert pool.table is not None
        self._ids = pool.ids
        self._sizes = np.array([len(text.encode()) for text in pool.table["text"].to_pylist()])
        self._row_of = {id: row for row, id in enumerate(pool.ids)}
        self._orders = {start: pool.lots(start) for start in subsets.STARTS}

    def with_bytes_of(self, ids: list[str], start: int) -> list[str]:
        """The first texts of an order, as many as come nearest to the bytes of some others; one at least."""
        wanted = self._sizes[[self._row_of[id] for id in ids]].sum()
        order = self._orders[start]
        count = 1 + int(np.abs(np.cumsum(self._sizes[order]) - wanted).argmin())
        return [self._ids[row] for row in order[:count]]


def main(names: list[str], path: Path = TRAININGS) -> None:
    """Train what is missing, as long as there is time."""
    kept, clock, cores = Kept(path, SETUP), Clock(), int(os.environ.get("CORES", os.cpu_count() or 1))
    todo = missing(names, kept)
    made, started = 0, time.monotonic()
    with ProcessPoolExecutor(cores, get_context("spawn"), _begin) as executor:
        running: dict[Future[dict[str, Any]], tuple[Task, list[str]]] = {}
        while True:
            wanted = 0 if clock.is_over() else cores - len(running)
            for task, picks in islice(todo, wanted):
                running[executor.submit(trained, task, picks)] = (task, picks)
            if not running:
                break
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                task, picks = running.pop(done)
                kept.add(task, picks, done.result())
                made += 1
                if made % 50 == 0:
                    print(f"language: {made} trained in {time.monotonic() - started:.0f} s", flush=True)
    over = "" if next(todo, None) is None else "; not all is done, run it again to go on"
    print(f"language: {made} trained in {time.monotonic() - started:.0f} s{over}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
