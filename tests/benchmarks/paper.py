"""make bench-paper: a selection at the size of the paper's own case, 10,000 of 396,000 x 4,096, on two cores.

The embeddings are generated. Input, store, density factors and picks lie in out/bench-paper (20 GB): the command ends
by itself after MINUTES (35), between two rounds if it has come so far, and the same command goes on. What a selection
takes is added up over these parts, with the floor measured before and after each. ROWS, BUDGET and FORMULA in the
environment change what they say; another selection than the last has a folder of its own.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from results import Table, keep
from selection import FORMULA, PAPER
from timed import CORES, Timed, floor, timed_selection

from novelsum.files.location import Location
from novelsum.spark import session
from novelsum.spark.progress import log_to_stderr

MINUTES = float(os.environ.get("MINUTES", "35"))
LEAST_MINUTES = 3
"""A selection is not begun, or gone on with, for less."""


def main() -> int:
    """Do the steps that are not done yet, the selection as far as there is time; then report."""
    started = time.monotonic()
    settings = PAPER.settings(int(os.environ.get("BUDGET", "10000")), FORMULA)
    folder = PAPER.folder / f"selection-{PAPER.rows}-{settings.budget}-{FORMULA}"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "parts.jsonl"
    if not _is_whole(_parts(kept)):
        _step("generate", PAPER.generate)
        spark = session.start("bench-paper", f"local[{CORES}]")
        try:
            _step("ingest", lambda: PAPER.ingested(spark))
            pool = _step("density", lambda: PAPER.with_density(spark))
            around = floor(pool, int(settings.budget or 0))
            left = MINUTES - (time.monotonic() - started) / 60
            if left > LEAST_MINUTES:
                timed = timed_selection(spark, pool, settings, Location.of(str(folder)), left)
                timed = replace(timed, floor=around + floor(pool, timed.budget))
                with kept.open("a") as file:
                    file.write(json.dumps(timed.for_json()) + "\n")
        finally:
            spark.stop()
    parts = _parts(kept)
    if not _is_whole(parts):
        print(f"paper        {parts[-1].picked if parts else 0} picks so far; the same command goes on")
        return 0
    _report(parts)
    print(f"paper        to select anew remove {folder}")
    return 0


def _step(name: str, task: Callable[[], Any]) -> Any:
    clock = time.perf_counter()
    made = task()
    print(f"{name:<12} {time.perf_counter() - clock:.1f} s", flush=True)
    return made


def _parts(kept: Path) -> list[Timed]:
    return [Timed(**json.loads(line)) for line in kept.read_text().splitlines()] if kept.exists() else []


def _is_whole(parts: list[Timed]) -> bool:
    return bool(parts) and parts[-1].is_whole


def _report(parts: list[Timed]) -> None:
    whole = Timed.joined(parts)
    whole.report()
    keep("paper", Table.of({**whole.figures(), "parts": len(parts)}))
    print(f"parts        {len(parts)}: " + ", ".join(f"{part.selection:.0f} s" for part in parts))
    reached = [0, *(part.picked for part in parts)]
    for before, part in zip(reached, parts, strict=False):
        if part.effort["resumed_picks"] > before:
            print(
                f"             seconds of {part.effort['resumed_picks'] - before} picks are missing: a part was killed"
            )
    print(f"vectors      {whole.rows * whole.dimension * 4 / 2**30:.1f} GiB")


if __name__ == "__main__":
    log_to_stderr()
    logging.getLogger("novelsum").setLevel(logging.DEBUG)
    sys.exit(main())
