"""make bench-scaling: how a selection grows with N, B, D and executors, and a cost model that says what others take.

``executors``: the same selection on one and on two executors of one core each (``local-cluster``).
``grid``: cases over N, B and D on two cores, each a process of its own; what they took goes to
out/bench-scaling/grid.jsonl. ``model``: fits exponents and the model of cost.py to that file, draws docs/scaling.png,
and predicts a case it was not fitted to, the paper's size, and a hundred million candidates on 400 cores. All tables
are Markdown.

Pools are generated and stay in out/bench-scaling. SCALE (1) in the environment multiplies rows and budgets.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from cost import COUNTS, PHASES, ROUND_OF_TASKS, Case, Latency, Model, exponent, seconds_of
from generated import Generated
from plot import Panel, draw
from results import Table, facts, keep
from timed import CORES, Timed, floor, latency, timed_selection

from novelsum.files.location import Location
from novelsum.selection import rounds
from novelsum.spark import session

FOLDER = Path("out/bench-scaling")
PICTURE = Path("docs/scaling.png")
SCALE = float(os.environ.get("SCALE", "1"))
CENTRE = (48_000, 1_000, 512)
AXES = {
    "N": [(rows, 1_000, 512) for rows in (24_000, 48_000, 96_000, 192_000)],
    "B": [(48_000, budget, 512) for budget in (500, 1_000, 2_000, 4_000)],
    "D": [(48_000, 1_000, dimension) for dimension in (256, 512, 1_024, 2_048, 4_096)],
}
"""Rows, budget, dimension: one of them changes, the others are those of the centre.

Rows are such that each of two cores gets as many blocks of 12,000.
"""
BESIDE = [(96_000, 2_000, 1_024), (24_000, 2_000, 256), (96_000, 500, 2_048)]
HELD_OUT = (120_000, 3_000, 768)
EXECUTORS = (72_000, 1_500, 1_024)
LEAST_RATIO, GREATEST_ERROR = 1.8, 0.25
PREDICTED = {
    "the paper's size": (396_000, 10_000, 4_096, 2),
    "a hundred million": (100_000_000, 1_000_000, 1_024, 400),
}
UNITS = {"N": "candidates N", "B": "budget B (picks)", "D": "dimension D"}


def executors() -> None:
    """Seconds on one and on two executors, in turn."""
    size = _scaled(EXECUTORS)
    taken: dict[int, list[Timed]] = {1: [], 2: []}
    for _ in range(int(os.environ.get("REPEATS", "2"))):
        for count, runs in taken.items():
            runs.append(_measured(size, f"local-cluster[{count},1,1024]"))
    best = {count: min(runs, key=lambda timed: timed.selection) for count, runs in taken.items()}
    print(f"\n{size[0]} x {size[2]}, budget {size[1]}, least of {len(taken[1])} runs each, in turn\n")
    print(
        "| executors of one core | selection, s | executors | driver | processor time of the driver, of all seconds |"
    )
    print("|---|---|---|---|---|")
    for count, timed in best.items():
        parts = seconds_of(timed)
        share = timed.driver_cpu / timed.selection
        print(
            f"| {count} | {timed.selection:.1f} | {parts['executors']:.1f} | {parts['driver']:.1f} "
            f"({parts['driver'] / timed.selection:.0%}) | {share:.0%} |"
        )
    ratio = best[1].selection / best[2].selection
    alone = seconds_of(best[1])["executors"] / seconds_of(best[2])["executors"]
    print(f"\nratio {ratio:.2f}, to be {LEAST_RATIO} at least; of the executors' part alone {alone:.2f}", flush=True)
    rows = [
        [count, *(round(seconds, 1) for seconds in (timed.selection, *seconds_of(timed).values(), timed.driver_cpu))]
        for count, timed in best.items()
    ]
    columns = ["executors", "selection, s", *(f"of it {phase}" for phase in PHASES), "processor time of the driver, s"]
    title = f"{size[0]:,} × {size[2]:,}, budget {size[1]:,}, least of {len(taken[1])} runs each, in turn"
    ratios = {"one over two": ratio, "to be at least": LEAST_RATIO, "of the executors' part alone": alone}
    keep("scaling-executors", Table(columns, rows, title), Table.of(ratios))


def grid() -> None:
    """All cases, one after the other; what they took goes to a file of JSON lines, with the latency of Spark's jobs."""
    cases = [*dict.fromkeys([*(case for axis in AXES.values() for case in axis), *BESIDE]), HELD_OUT]
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "latency.json").write_text(_child("latency"))
    unfinished = FOLDER / "grid.unfinished"
    with unfinished.open("w") as file:
        for case in cases:
            timed = _measured(_scaled(case), f"local[{CORES}]")
            file.write(json.dumps({"case": case, **timed.for_json()}) + "\n")
            file.flush()
            print(f"{timed.rows} x {timed.dimension}, budget {timed.budget}: {timed.selection:.1f} s", flush=True)
    (FOLDER / "facts.json").write_text(json.dumps(facts()))
    unfinished.rename(FOLDER / "grid.jsonl")


def model() -> None:
    """Exponents, the fitted model, its predictions, and the picture."""
    lines = [json.loads(line) for line in (FOLDER / "grid.jsonl").read_text().splitlines()]
    measured = {tuple(line.pop("case")): Timed(**line) for line in lines}
    found = Latency(**json.loads((FOLDER / "latency.json").read_text()))
    fitted = Model.fitted([timed for case, timed in measured.items() if case != HELD_OUT], CORES, found)
    (FOLDER / "model.json").write_text(json.dumps(fitted.for_json(), indent=1))
    cases = _print_measured(measured, fitted)
    powers = _print_exponents(measured, fitted)
    _print_model(fitted)
    timed = measured[HELD_OUT]
    case = _case(measured, timed)
    error = fitted.total(case) / timed.selection - 1
    print(f"\nheld out: {timed.rows} x {timed.dimension}, budget {timed.budget}: {timed.selection:.1f} s measured, ")
    print(f"{fitted.total(case):.1f} s predicted, error {error:+.0%}, to be within {GREATEST_ERROR:.0%}")
    for name, (rows, budget, dimension, cores) in PREDICTED.items():
        operations = _operations(measured, dimension)
        _print_prediction(name, Case(rows, dimension, budget, cores, ROUND_OF_TASKS * cores, operations), fitted)
    held_out = {"candidates": timed.rows, "dimension": timed.dimension, "budget": timed.budget}
    held_out |= {"selection, s": timed.selection, "predicted, s": fitted.total(case), "error, %": 100 * error}
    measured = json.loads((FOLDER / "facts.json").read_text())
    keep("scaling", cases, powers, Table.of(held_out, "The case held out of the fit"), measured=measured)


def _print_measured(measured: dict[tuple[int, ...], Timed], fitted: Model) -> Table:
    rows: list[list[Any]] = []
    print("\n| N | B | D | selection, s | start | executors | driver | rounds | drafted / B | over floor | model, s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for timed in measured.values():
        parts = seconds_of(timed)
        print(
            f"| {timed.rows:,} | {timed.budget:,} | {timed.dimension:,} | {timed.selection:.1f} | "
            + " | ".join(f"{parts[phase]:.1f}" for phase in PHASES)
            + f" | {timed.effort['rounds']} | {timed.effort['drafted'] / timed.budget:.2f} | {timed.ratio:.1f} | "
            f"{fitted.total(_case(measured, timed)):.1f} |"
        )
        seconds = [round(value, 1) for value in (timed.selection, *(parts[phase] for phase in PHASES))]
        counts = [timed.effort["rounds"], round(timed.effort["drafted"] / timed.budget, 2), round(timed.ratio, 1)]
        modelled = round(fitted.total(_case(measured, timed)), 1)
        rows.append([timed.rows, timed.budget, timed.dimension, *seconds, *counts, modelled])
    columns = ["N", "B", "D", "selection, s", *(f"of it {phase}" for phase in PHASES), "rounds", "drafted / B"]
    return Table([*columns, "over floor", "model, s"], rows)


def _print_exponents(measured: dict[tuple[int, ...], Timed], fitted: Model) -> Table:
    """A line for each axis, and the picture of all three."""
    panels, rows = [], []
    print("\n| seconds grow with | all | executors | driver |\n|---|---|---|---|")
    for name, cases in AXES.items():
        runs = [measured[case] for case in cases]
        sizes = [{"N": timed.rows, "B": timed.budget, "D": timed.dimension}[name] for timed in runs]
        powers = [exponent(sizes, [timed.selection for timed in runs])[0]]
        powers += [exponent(sizes, [seconds_of(timed)[phase] for timed in runs])[0] for phase in PHASES[1:]]
        print(f"| {UNITS[name]} | " + " | ".join(f"{name}^{power:.2f}" for power in powers) + " |")
        rows.append([UNITS[name], *(f"{name}^{power:.2f}" for power in powers)])
        centre = zip("NBD", _scaled(CENTRE), strict=True)
        fixed = ", ".join(f"{letter} = {size:,}" for letter, size in centre if letter != name)
        panels.append(
            Panel(
                title=fixed,
                label=UNITS[name],
                letter=name,
                sizes=sizes,
                seconds=[timed.selection for timed in runs],
                modelled=[fitted.total(_case(measured, timed)) for timed in runs],
                floor=[median(timed.floor) for timed in runs],
            )
        )
    draw(panels, PICTURE if SCALE == 1 else FOLDER / PICTURE.name)
    return Table(["seconds grow with", "all", *PHASES[1:]], rows)


def _print_model(fitted: Model) -> None:
    print("\n| term | seconds for each |\n|---|---|")
    for phase, terms in fitted.for_json()["seconds"].items():
        for term, seconds in terms.items():
            print(f"| {phase}: {term} | {seconds:.3g} |")
    found = fitted.latency
    print(
        f"\nlatency of a job: {found.base * 1000:.0f} ms, {found.in_driver * 1000:.2f} ms a task in the driver, "
        f"{found.in_worker * 1000:.0f} ms a task where it runs\n"
    )
    print("| count | over what is planned: factor at the centre, and exponents of N, B, D |\n|---|---|")
    rows, budget, dimension = _scaled(CENTRE)
    centre = Case(rows, dimension, budget, CORES, 1, 1.0).sizes
    for name in COUNTS:
        law = fitted.laws[name]
        print(f"| {name} | {np.exp(law @ centre):.3g}; " + ", ".join(f"{power:.2f}" for power in law[1:]) + " |")


def _print_prediction(name: str, case: Case, fitted: Model) -> None:
    counts = fitted.counts(case)
    print(f"\n{name}: {case.rows:,} x {case.dimension:,}, budget {case.budget:,}, {case.cores} cores\n")
    print("| phase | part | hours |\n|---|---|---|")
    for phase, terms in fitted.predicted(case).items():
        for term, seconds in terms.items():
            print(f"| {phase} | {term} | {seconds / 3600:.3g} |")
    bare = 2.0 * case.rows * case.budget * case.dimension / case.cores / case.operations
    total = fitted.total(case)
    print(f"| together | {total / bare:.1f} x the bare products | {total / 3600:.3g} |\n")
    print(", ".join(f"{counted} {value:.3g}" for counted, value in counts.items()), flush=True)


def _case(measured: dict[tuple[int, ...], Timed], timed: Timed) -> Case:
    """A measured case, with the speed of products in its dimension."""
    return replace(Case.of(timed, CORES), operations=_operations(measured, timed.dimension))


def _operations(measured: dict[tuple[int, ...], Timed], dimension: int) -> float:
    """Operations a second of a core's products: the median of those measured in a dimension, between them a line."""
    by_dimension: dict[int, list[float]] = {}
    for timed in measured.values():
        by_dimension.setdefault(timed.dimension, []).append(Case.of(timed, CORES).operations)
    known = sorted(by_dimension)
    speeds = [median(by_dimension[one]) for one in known]
    return float(np.interp(np.log(dimension), np.log(known), speeds))


# --- processes of their own -------------------------------------------------------------------------------


def _scaled(case: tuple[int, int, int]) -> tuple[int, int, int]:
    return round(case[0] * SCALE), round(case[1] * SCALE), case[2]


def _measured(size: tuple[int, int, int], master: str) -> Timed:
    if not _pool(size).is_ingested:
        _child("prepare", *size)
    return Timed(**json.loads(_child("select", *size, master)))


def _child(task: str, *arguments: object) -> str:
    """The last line that this program prints when it does a task, if any."""
    command = [sys.executable, __file__, task, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.rstrip().rpartition("\n")[2]


def _pool(size: tuple[int, ...]) -> Generated:
    return Generated(FOLDER / f"dimension-{size[2]}", size[0], size[2])


def prepare(*size: str) -> None:
    """Make a pool with its density factors."""
    pool = _pool(tuple(map(int, size)))
    pool.generate()
    spark = session.start("bench-scaling", f"local[{CORES}]")
    pool.with_density(spark)
    spark.stop()
    shutil.rmtree(pool.input)


def select(*arguments: str) -> None:
    """Select on a master, in rounds however small the pool is; prints what it took."""
    size, master = tuple(map(int, arguments[:3])), arguments[3]
    rounds.WHOLE_BYTES = 0
    made = _pool(size)
    spark = session.start("bench-scaling", master)
    pool, log = made.ingested(spark), FOLDER / "selection"
    shutil.rmtree(log, ignore_errors=True)
    around = floor(pool, size[1])
    timed = timed_selection(spark, pool, made.settings(size[1]), Location.of(str(log)))
    spark.stop()
    print(json.dumps(replace(timed, floor=around + floor(pool, size[1])).for_json()))


def empty_jobs() -> None:
    """What an empty job takes, by its tasks; of jobs that need no Python what a task takes in the driver."""
    spark = session.start("bench-scaling", f"local[{CORES}]")
    counts = [1, 4, 16, 64]
    whole = np.polyfit(counts, [latency(spark, tasks, repeats=10) for tasks in counts], 1)
    in_java = np.polyfit(counts, [latency(spark, tasks, repeats=10, in_python=False) for tasks in counts], 1)
    spark.stop()
    in_worker = CORES * (whole[0] - in_java[0])
    print(json.dumps({"base": whole[1], "in_driver": in_java[0], "in_worker": in_worker}))


if __name__ == "__main__":
    tasks = {"prepare": prepare, "select": select, "latency": empty_jobs}
    whole = {"executors": executors, "grid": grid, "model": model}
    if len(sys.argv) > 1:
        {**tasks, **whole}[sys.argv[1]](*sys.argv[2:])
    else:
        for part in whole.values():
            part()
