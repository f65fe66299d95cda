"""NovelSelect in rounds of draft and verify.

The driver holds a pool of contenders (:mod:`~novelsum.selection.contenders`) and drafts the next picks by exact greedy
selection inside it. It broadcasts the draft; every executor checks each step against all its candidates
(:mod:`~novelsum.selection.check`, :mod:`~novelsum.selection.sketch`) and reports those that may beat it, or may soon.
The driver admits these to the pool, keeps the longest prefix of the draft that none of them beats, and then the
challenger that does. So every pick is the argmax over all candidates; a poor draft costs time, nothing else.

Where the pool is so small that all candidates are contenders, nobody is left to verify a draft: there are no rounds,
and the driver does all by itself.

What executors know of their candidates lies in their local scratch (:mod:`~novelsum.selection.scratch`) and is rebuilt
from the store and the pick log (:mod:`~novelsum.selection.picklog`) where it is missing.
"""

import gc
import logging
import os
import shutil
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache, partial
from heapq import heapreplace
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
from pyspark import SparkContext

from novelsum.amounts import CostBudget
from novelsum.density.factors import read_density
from novelsum.errors import InputError, RunError
from novelsum.files.location import Location
from novelsum.files.store import Block, Pool, read_block_columns
from novelsum.formula import Array, metric_space
from novelsum.groups import Group, in_words
from novelsum.rows import Integers, common_places, lot
from novelsum.selection import picklog, scratch
from novelsum.selection.candidates import Candidates, Picks, Units
from novelsum.selection.check import LONGEST_DRAFT, STATE_BYTES, BlockCheck, Question
from novelsum.selection.closings import Closings
from novelsum.selection.contenders import (
    RANKED_BYTES,
    Arrivals,
    Contenders,
    Draft,
    Verdict,
    contender_bytes,
    list_bytes,
)
from novelsum.selection.earlier import Earlier
from novelsum.selection.pickfile import file_bytes, final_picks, with_drafted
from novelsum.selection.quotas import Quotas
from novelsum.selection.scoring import Scoring
from novelsum.selection.scratch import block_bytes, compared_bytes, read_candidates, selections_bytes
from novelsum.selection.weights import Weights
from novelsum.settings import Settings
from novelsum.spark.local import folder_of, new_run
from novelsum.spark.progress import Progress
from novelsum.spark.shared import Shared

logger = logging.getLogger("novelsum")

T = TypeVar("T")
End = Literal["budget", "cost", "distance", "cost or distance", "candidates"]
"""What ends a selection: enough picks, no cost that fits, nobody far enough away, or nobody at all."""

Disk = tuple[str, int]
"""A host and a device of it."""
Detail = tuple[int, int | str, float, int, int]

CAPACITY = 2048
"""Contenders in the driver's pool."""
WHOLE_BYTES = 256 << 20
"""All candidates are contenders where they and what the driver keeps of each take no more than this."""
LARGEST_QUALITY = 1e280
"""q^γ must stay below this: in the units of a selection a pick adds at most 4 to a sum, so no score is infinite."""
_DRAFT_SHARE = 4
"""A draft is at most this part of the picks so far."""
_HEAVIER, _HEAVIEST, _FEW_PICKS = 1.25, 0.015, 64
_REFILL = 0.1
"""Executors report candidates that would be in this leading part of the pool somewhere along the draft."""
_LOGGED_AT_ONCE = 64
_PER_MILLE = 1000


@dataclass(frozen=True)
class Candidate:
    """A candidate that was picked: its row and id, v when it was picked, σ before the power κ2, and where its
    other columns are.
    """

    row: int
    id: str | int
    novelty: float
    density: float
    file: int
    file_row: int


@dataclass
class Outcome:
    """What a selection came to: what it went on from, ``resumed_picks`` made by runs before it, and how it ended.

    ``ended_by``: what let no more be picked. ``cost``: what the picks cost together, of a ``cost_budget``; ``unmet``:
    least numbers of quotas that were not reached, and how many were picked.
    """

    resumed_picks: int = 0
    ended_by: End = "budget"
    cost: float | None = None
    cost_budget: float | None = None
    unmet: dict[str, tuple[int, int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def end(
        self,
        closings: Closings,
        pool: Pool,
        picked: int,
        taken: int,
        spent: Fraction,
        by_group: Integers,
        begun: int,
        is_asked: bool,
    ) -> None:
        """Say why a selection is over after so many picks; raise InputError where nothing could be picked.

        ``taken``: candidates of the pool that are selected, those before the selection included; ``spent``: what the
        picks cost; ``by_group`` (G,): picks of each group of the quotas; ``begun``: samples selected before;
        ``is_asked``: whether there was a budget of picks.
        """
        if pool.costs:
            self.cost = float(spent)
        if closings.cost is not None:
            self.cost_budget = float(closings.cost)
        if not picked:
            raise InputError(
                f"nothing can be picked after the {begun} samples of --already-selected: every other "
                "candidate is too near to one of them by --min-distance or costs more than --cost-budget"
            )
        self.ended_by = _end(closings, picked, spent, pool, taken, is_asked)
        if quotas := closings.quotas:
            missing = np.flatnonzero(by_group < quotas.least)
            of_each = by_group.tolist(), quotas.least.tolist()
            self.unmet = {in_words(quotas.groups[i]): (of_each[0][i], of_each[1][i]) for i in missing}
            for name, (found, least) in self.unmet.items():
                logger.warning(
                    "the selection has ended after %d picks, before --quota was met: %s has %d of at least %d picks",
                    *(picked, name, found, least),
                )

    def for_manifest(self) -> dict[str, object]:
        """As it goes into the manifest."""
        asked = {name: value for name, value in vars(self).items() if value is not None and value != {}}
        return {**asked, "seconds": {name: round(value, 3) for name, value in self.seconds.items()}}


@dataclass
class Effort(Outcome):
    """What a selection in rounds took, too: counts, and ``seconds`` of the driver by phase.

    ``multiplied``: picks, drafted or final, whose products with all candidates were computed.
    """

    rounds: int = 0
    drafted: int = 0
    rejected: int = 0
    multiplied: int = 0
    bounds: int = 0
    summed: int = 0
    reported: int = 0
    evaluated: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"draft": 0.0, "verify": 0.0, "admit": 0.0, "log": 0.0})


@dataclass(frozen=True)
class Run:
    """What all rounds of a selection have in common. ``begun``: how many samples were selected before it.

    ``budget``: how many picks there are to be, or may be at most. ``work``, ``factors``, ``log``: where the store, the
    density factors and the pick log lie. ``has_rounds``: whether there are candidates that are not in the driver's
    pool. ``groups``: the groups, in order, if there are quotas.
    """

    id: str
    work: Location
    factors: Location
    log: Location
    scoring: Scoring
    budget: int
    begun: int
    twins: bool
    has_rounds: bool = True
    groups: tuple[Group, ...] = ()
    units: Units = Units()

    @property
    def places(self) -> int:
        """How many picks there will be at most, those that a selection begins with included."""
        return self.begun + self.budget


@dataclass(frozen=True)
class Round:
    """What the driver broadcasts: a question, and the picks from place ``since`` on, drafted ones last."""

    since: int
    picks: Candidates
    question: Question


@dataclass(frozen=True)
class Report:
    """What a block answers: candidates that may be picked soon, and what :class:`Findings` say besides."""

    arrivals: Arrivals
    safe_steps: int
    bounds: int
    evaluated: int
    multiplied: int


def select(
    context: SparkContext,
    pool: Pool,
    factors: Location,
    log: Location,
    settings: Settings,
    first: int | None,
    begun: int = 0,
    earlier: Earlier | None = None,
) -> tuple[list[Candidate], Effort]:
    """Pick candidates of the pool, whose density factors lie in the folder ``factors``, until a budget is reached.

    Begins with what the pick log in the folder ``log`` holds, of which the first ``begun`` are samples selected before;
    if that is all, with ``earlier`` picks, and if there are none, with the row ``first``.
    """
    (log / "picks").make_folder()
    closings = closings_of(pool, settings)
    quotas = closings.quotas
    budget = most_picks(pool, closings)
    run = Run(
        new_run(pool.work),
        pool.work,
        factors,
        log,
        Scoring.of(settings),
        budget,
        begun,
        twins=pool.distinct < pool.candidates,
        has_rounds=pool.candidates * contender_bytes(pool.dimension, pool.itemsize) > WHOLE_BYTES,
        groups=quotas.groups if quotas else (),
    )
    blocks = _Blocks(context, pool, run.has_rounds)
    try:
        _preflight(context, blocks, pool, settings, run)
        selection = _Selection(context, blocks, run, pool, closings, first, earlier)
        selection.log()
        with _progress(closings, budget) as progress:
            progress.reach(selection.progress)
            while selection.picked < budget and not selection.is_over:
                selection.advance()
                progress.reach(selection.progress)
            progress.reach(selection.progress)
        selection.log()
        selection.end(pool, settings)
        picks = _details(blocks, selection)
    finally:
        context.setJobDescription("")
        blocks.unpersist()
    return picks, selection.effort


def closings_of(pool: Pool, settings: Settings) -> Closings:
    """What closes candidates of a pool; raise InputError where quotas cannot be met, or no cost fits the budget."""
    picks = settings.picks(pool.candidates)
    quotas = Quotas.of(settings.quota, pool.groups, picks) if settings.quota else None
    cost = None
    if settings.cost_budget is not None:
        assert pool.costs is not None
        cost = CostBudget.parse(settings.cost_budget).of_costs(pool.costs.total)
        if cost < Fraction(pool.costs.least):
            raise InputError(
                f"--cost-budget {settings.cost_budget}, which is {float(cost):g}, is below what any candidate costs by "
                f"column {settings.cost_column!r}, at least {pool.costs.least:g}; give more"
            )
    return Closings(picks, quotas, cost, settings.min_distance)


def most_picks(pool: Pool, closings: Closings) -> int:
    """How many picks there can be at most."""
    if closings.cost is None or pool.costs is None:
        return closings.picks
    return min(closings.picks, pool.costs.picks_within(closings.cost))


def _progress(closings: Closings, budget: int) -> Progress:
    """By what costs where they have a budget, as that tells better how much is left."""
    if closings.cost is None:
        return Progress("selection (picks)", budget)
    return Progress("selection (‰ of the cost budget)", _PER_MILLE)


def first_row(context: SparkContext, pool: Pool, settings: Settings) -> int:
    """The row of the candidate named by ``first``, or of the one ``seed`` draws; nothing but the ids matters."""
    wanted = None if settings.first is None else int(settings.first) if pool.integer_ids else settings.first
    able, closings = None, closings_of(pool, settings)
    if closings.quotas:
        is_open = closings.quotas.is_open(np.zeros_like(closings.quotas.least), closings.picks)
        able = {name for name, open_ in zip(closings.quotas.groups, is_open, strict=True) if open_}
    affordable = None if closings.cost is None else closings.left(Fraction(0))
    blocks = context.parallelize(pool.blocks, len(pool.blocks))
    drawn = blocks.flatMap(partial(_draw, pool.work, wanted, settings.seed, able, affordable)).collect()
    if not drawn and wanted is None:
        raise InputError(
            f"no candidate of a group that --quota has room for costs as little as --cost-budget {settings.cost_budget}"
            "; give more"
        )
    if not drawn:
        raise InputError(
            f"--first {settings.first!r} is not among the candidates: the input has no such id, or its row was "
            "dropped as bad or as the duplicate of a row with a smaller id, or --quota has no room for its group"
            + (f", or it costs more than --cost-budget {settings.cost_budget}" if closings.cost is not None else "")
        )
    return min(drawn)[1]


# --- before the first round -------------------------------------------------------------------------------


def require_finite_quality(pool: Pool, settings: Settings) -> None:
    """Raise InputError when q^γ, or that over the power of a cost, is out of the range of numbers."""
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        powered = np.float64(pool.greatest_quality) ** settings.quality_power if settings.quality_column else 1.0
        over_cost = powered / np.float64(pool.costs.least) ** settings.cost_power if pool.costs else powered
    if powered < LARGEST_QUALITY and not over_cost < LARGEST_QUALITY:
        assert pool.costs is not None
        raise InputError(
            f"--cost-power {settings.cost_power:g} takes scores over costs of column {settings.cost_column!r}, which "
            f"are as low as {pool.costs.least:g}, out of the range of numbers; use a smaller power or scale the column"
        )
    if not powered < LARGEST_QUALITY:
        raise InputError(
            f"--quality-power {settings.quality_power:g} takes qualities of column {settings.quality_column!r}, which "
            f"are up to {pool.greatest_quality:g}, out of the range of numbers; use a smaller power or scale the column"
        )


def _preflight(context: SparkContext, blocks: "_Blocks", pool: Pool, settings: Settings, run: Run) -> None:
    """Tell what the selection will take; raise RunError where a scratch disk cannot hold it."""
    places, dimension = run.places, pool.dimension
    needed: dict[Disk, int] = defaultdict(int)
    free: dict[Disk, tuple[int, str]] = {}
    if run.has_rounds or settings.compare:
        found = blocks.on_executors(partial(free_scratch, run.id), "free scratch")
        for host, device, available, folder, rows in found:
            needed[host, device] += block_bytes(rows, dimension, pool.itemsize) if run.has_rounds else 0
            needed[host, device] += compared_bytes(rows, dimension) if settings.compare else 0
            free[host, device] = (available, folder)
    for disk in needed:
        needed[disk] += file_bytes(places, dimension) if run.has_rounds else 0
        needed[disk] += selections_bytes(run.budget, dimension) if settings.compare else 0
    if run.has_rounds:
        largest = max(block.rows for block in pool.blocks)
        of_task = largest * STATE_BYTES + 24 * places + (256 << 20)
        memory = f"for each of {context.defaultParallelism} task(s) at a time"
    else:
        ranked = min(RANKED_BYTES, pool.candidates * list_bytes(places))
        of_task = pool.candidates * contender_bytes(dimension, pool.itemsize) + ranked
        memory = "in the driver, which has all candidates in its pool"
    logger.info(
        "selection: %d of %d candidates; %s of scratch on %d host(s), about %s of memory %s, %.3g distance operations",
        run.budget,
        pool.candidates,
        _size(sum(needed.values())),
        len({host for host, _ in needed}),
        _size(of_task),
        memory,
        2 * pool.candidates * places * dimension,
    )
    require_room(needed, free)


def require_room(needed: Mapping[Disk, int], free: Mapping[Disk, tuple[int, str]]) -> None:
    """Raise RunError where a scratch disk has fewer bytes free than are needed; ``free`` names its folder too."""
    for disk, bytes_ in needed.items():
        available, folder = free[disk]
        if bytes_ > available:
            raise RunError(
                f"the selection needs {_size(bytes_)} of scratch in {folder} on {disk[0]}, which has "
                f"{_size(available)} free; free some of it, or set spark.local.dir (or SPARK_LOCAL_DIRS) to a larger "
                "disk, and run again to go on"
            )


def free_scratch(run: str, block: Block) -> tuple[str, int, int, str, int]:
    """Where a task on a block has its scratch: host, device, bytes free and folder; and the rows of the block."""
    folder = folder_of(run).parent
    return socket.gethostname(), os.stat(folder).st_dev, shutil.disk_usage(folder).free, str(folder), block.rows


def _size(bytes_: int) -> str:
    return f"{bytes_ / 2**30:.1f} GiB" if bytes_ >= 2**30 else f"{bytes_ / 2**20:.0f} MiB"


# --- rounds -----------------------------------------------------------------------------------------------


class _Blocks:
    """The blocks of the store: for Spark's tasks where there are rounds, for the driver itself where there are none."""

    def __init__(self, context: SparkContext, pool: Pool, has_rounds: bool) -> None:
        self._context, self._blocks, self._has_rounds = context, pool.blocks, has_rounds
        # A task takes several blocks where there are many: it costs some 20 ms by itself, in each round.
        parts = _shared_out(pool.blocks, min(len(pool.blocks), context.defaultParallelism))
        self._distributed = context.parallelize(parts, len(parts)).cache()

    def __len__(self) -> int:
        return len(self._blocks)

    def map(self, function: Callable[[Block], T], what: str) -> list[T]:
        """What a function makes of each block. Where that is a Spark job it is described by ``what`` it does."""
        return self.on_executors(function, what) if self._has_rounds else [function(block) for block in self._blocks]

    def ask(self, function: Callable[[Iterable[Block]], Iterable[T]], what: str) -> list[T]:
        """What a function makes of the blocks of each task; a Spark job."""
        self._context.setJobDescription(f"novelsum selection: {what}")
        return self._distributed.flatMap(function).collect()

    def on_executors(self, function: Callable[[Block], T], what: str) -> list[T]:
        """The same, a Spark job in any case."""
        self._context.setJobDescription(f"novelsum selection: {what}")
        return self._distributed.flatMap(partial(map, function)).collect()

    def unpersist(self) -> None:
        """They are needed no more."""
        self._distributed.unpersist()


def _shared_out(blocks: Sequence[Block], tasks: int) -> list[list[Block]]:
    """The blocks of each task: the largest first, each to the task that has the fewest rows."""
    parts: list[list[Block]] = [[] for _ in range(tasks)]
    by_rows = [(0, task) for task in range(tasks)]
    for block in sorted(blocks, key=lambda block: -block.rows):
        rows, task = by_rows[0]
        parts[task].append(block)
        heapreplace(by_rows, (rows + block.rows, task))
    return parts


class _Selection:
    """The driver's side of a selection: the contenders, the pick log, and how long the next draft is to be."""

    def __init__(
        self,
        context: SparkContext,
        blocks: _Blocks,
        run: Run,
        pool: Pool,
        closings: Closings,
        first: int | None,
        earlier: Earlier | None,
    ) -> None:
        self._context, self._blocks = context, blocks
        self.effort, self.is_over = Effort(), False
        self._capacity = CAPACITY
        self._length = 1 if run.has_rounds else _LOGGED_AT_ONCE
        recovered = _recovered(run)
        picks, sums = recovered if recovered else (None, np.zeros(0))
        if picks is not None and len(picks) > run.begun:
            earlier = None
        starting = (
            earlier.rows if earlier else np.array([] if first is None or picks is not None else [first], np.int64)
        )
        prepare = partial(_prepare, run, np.sort(starting)) if run.has_rounds else partial(_read, run)
        prepared = blocks.map(prepare, "scratch and the first pick")
        found = Candidates.joined([stored for _, _, stored in prepared])
        started = found[_places_of(starting, found.rows)]
        picks, self._logged = (picks, len(picks)) if picks is not None else (started[:0], 0)
        picks = Candidates.joined([picks, started])
        self._recent, self._since = picks[self._logged :], self._logged
        self.effort.resumed_picks = len(earlier.rows) if earlier else max(0, self._logged - run.begun)
        before, made = picks[: run.begun], picks[run.begun :]
        lengths = np.sqrt(np.square(before.vectors, dtype=np.float64).sum(axis=1))
        units = Units.of(
            max([*(longest for longest, _, _ in prepared), *lengths.tolist()]),
            max([*(heaviest for _, heaviest, _ in prepared), *before.powered.tolist()]),
            run.scoring.metric,
        )
        self.run = replace(run, units=units)
        of_started = np.zeros(len(started))
        if earlier:
            of_started = earlier.sums(run.scoring.equation, run.begun, units.powered * units.length)
        self.novelty: list[float] = np.append(sums, of_started)[run.begun :].tolist()
        weights = self._weights = Weights.of(run.places, run.scoring.proximity_power)
        everyone = None if run.has_rounds else found[np.flatnonzero(~np.isin(found.rows, picks.rows))]
        self._closings = replace(closings, distance=closings.distance / units.length)
        self.contenders = Contenders(run.scoring, units, weights, before, made, everyone, self._closings)

    @property
    def picked(self) -> int:
        """Picks so far, without those before the selection."""
        return self.contenders.picks - self.run.begun

    @property
    def progress(self) -> int:
        """How much is done, as :func:`_progress` counts it."""
        if self._closings.cost is None:
            return self.picked
        return int(_PER_MILLE * self.contenders.spent / self._closings.cost)

    def advance(self) -> None:
        """Draft, verify, and commit what stands."""
        contenders, effort = self.contenders, self.effort
        clock = time.perf_counter()
        draft = contenders.draft(min(self._length, self.run.budget - self.picked), self._heavy())
        clock = self._spent("draft", clock)
        reports = self._verify(draft) if self.run.has_rounds else []
        clock = self._spent("verify", clock)
        safe_steps = min((report.safe_steps for report in reports), default=len(draft))
        arrivals = Arrivals.joined([report.arrivals for report in reports]) if reports else None
        verdict = draft.challenge(arrivals, safe_steps)
        picks, sums = verdict.commit()
        self._recent = Candidates.joined([self._recent, picks])
        self.novelty += sums
        effort.drafted += len(draft)
        effort.rejected += len(draft) - verdict.stands
        effort.reported += len(arrivals) if arrivals else 0
        effort.bounds += sum(report.bounds for report in reports)
        effort.multiplied += max((report.multiplied for report in reports), default=0)
        effort.summed += sum(report.evaluated for report in reports)
        effort.evaluated = contenders.evaluated
        if self.run.has_rounds:
            self._end_round(verdict, len(picks))
        clock = self._spent("admit", clock)
        if self._since + len(self._recent) - self._logged >= _LOGGED_AT_ONCE:
            self.log()
        self._spent("log", clock)
        logger.debug(
            "round %d: %d picks; drafted %d, %d safe, %d stood; %d reported of %d summed",
            effort.rounds,
            self.picked,
            len(draft),
            safe_steps,
            verdict.stands,
            len(arrivals) if arrivals else 0,
            sum(report.evaluated for report in reports),
        )
        self.is_over = not draft and not arrivals

    def end(self, pool: Pool, settings: Settings) -> None:
        """Say of the selection, which is over, why it is; raise InputError where nothing could be picked."""
        contenders = self.contenders
        taken = int(np.sum(contenders.rows(slice(None)) < pool.candidates))
        self.effort.end(
            self._closings,
            pool,
            self.picked,
            taken,
            contenders.spent,
            contenders.by_group,
            self.run.begun,
            bool(settings.budget),
        )

    def _heavy(self) -> float:
        """From which σ^κ2 on a pick is heavy: it is above most others and the few heaviest begin there."""
        if self.run.scoring.equation.ranked_by_mass or not self.run.has_rounds or self.contenders.picks < _FEW_PICKS:
            return np.inf
        median, heaviest = np.quantile(self.contenders.powered, [0.5, 1 - _HEAVIEST])
        return float(max(_HEAVIER * median, heaviest))

    def _end_round(self, verdict: Verdict, accepted: int) -> None:
        """Choose the length of the next draft and who stays in the pool."""
        self._adapt(len(verdict.draft), verdict.stands, accepted)
        self.contenders.dismiss(self._capacity)
        self.effort.rounds += 1

    def _spent(self, phase: str, since: float) -> float:
        now = time.perf_counter()
        self.effort.seconds[phase] += now - since
        return now

    def _verify(self, draft: Draft) -> list[Report]:
        """Ask all blocks; one Spark job."""
        contenders = self.contenders
        committed, steps = contenders.picks - len(draft), len(draft)
        may_follow = draft.open_until[contenders.candidates.groups] > steps
        likely = contenders.likely_scores()[(contenders.upper > -np.inf) & may_follow]
        place, sums = max(1, int(self._capacity * _REFILL)), self._weights.sums
        bar = float(np.partition(likely, -place)[-place]) if len(likely) >= place else -np.inf
        question = Question(
            committed=committed,
            scores=np.array(draft.scores),
            heaviest=float(np.sort(contenders.powered)[::-1] @ self._weights.w[: len(contenders.powered)]),
            pool=np.sort(contenders.candidates.rows),
            bars=bar * sums[committed : committed + steps + 1] / sums[committed + steps],
            most=max(1, self._capacity // len(self._blocks)),
            open_until=draft.open_until,
            left=np.array(draft.left) if draft.left else None,
            distance=self._closings.distance,
            closed=contenders.take_found_near(),
        )
        picks = Candidates.joined([self._recent, draft.picks])
        message = Shared.of(self._context, Round(self._since, picks, question))
        what = f"round {self.effort.rounds + 1}, picks {self.picked + 1} to {self.picked + steps} of {self.run.budget}"
        reports = self._blocks.ask(partial(_check_blocks, self.run, message), what)
        message.destroy()
        # Hosts that took part have these picks; one that comes later finds them in the log.
        since = min(committed, self._logged)
        self._recent, self._since = self._recent[since - self._since :], since
        return reports

    def _adapt(self, drafted: int, stands: int, accepted: int) -> None:
        """Draft more after a draft that stood, less after one that did not.

        Nothing accepted widens the pool, and anything lets it become narrower again.
        """
        self._length = max(4 * self._length, 4) if stands == drafted else max(4 * (stands + 1), drafted // 2)
        self._length = max(1, min(self._length, self.contenders.picks // _DRAFT_SHARE, LONGEST_DRAFT))
        stuck = drafted > 0 and accepted == 0
        self._capacity = 2 * self._capacity if stuck else max(CAPACITY, self._capacity * 3 // 4)

    def log(self) -> None:
        """Write the picks that the log lacks."""
        unlogged = self._recent[self._logged - self._since :]
        if len(unlogged):
            novelty = np.array(self.novelty[self._logged - self.run.begun :])
            picklog.append(self.run.log, self._logged, unlogged, novelty)
            self._logged += len(unlogged)
        if not self.run.has_rounds:  # nobody else is told of them
            self._recent, self._since = unlogged[:0], self._logged


def _recovered(run: Run) -> tuple[Candidates, Array] | None:
    """The picks that the log holds, and their sums when they were picked; no more than the budget asks for."""
    recovered = picklog.recover(run.log)
    if recovered is None and not run.begun:
        return None
    if recovered is None or len(recovered[0]) < run.begun:
        raise RunError(
            f"the samples of --already-selected in {run.log / 'picks'} are damaged; run again to log them anew"
        )
    logged, sums = recovered
    if len(logged) > run.begun:
        logger.info("selection: goes on after %d picks of %s", len(logged) - run.begun, run.log / "picks")
    return logged[: run.places], sums[: run.places]


def _places_of(rows: Integers, among: Integers) -> Integers:
    """Where some rows are among others, in their own order."""
    order = np.argsort(among)
    return np.asarray(order[np.searchsorted(among, rows, sorter=order)])


def _end(closings: Closings, picked: int, spent: Fraction, pool: Pool, taken: int, is_asked: bool) -> End:
    """What has let no more be picked, when so many candidates of a pool are ``taken``, earlier ones included.

    ``is_asked``: whether there was a budget of picks.
    """
    if picked == closings.picks and is_asked:
        return "budget"
    if taken == pool.candidates:
        return "candidates"
    if closings.cost is None or pool.costs is None:
        return "distance"
    is_spent = closings.cost - spent < Fraction(pool.costs.least)
    return "cost" if is_spent or not closings.distance else "cost or distance"


def _details(blocks: _Blocks, selection: _Selection) -> list[Candidate]:
    """The picks with id, density and place in the input."""
    run = selection.run
    rows, units = selection.contenders.rows(slice(run.begun, None)), run.units
    parts = blocks.map(partial(details, run.work, run.factors, np.sort(rows)), "rows of the picks")
    scale = units.powered * units.length
    divisors = (int(run.scoring.equation.divisor(run.begun + place)) for place in range(len(rows)))
    novelty = [sums / divisor * scale for sums, divisor in zip(selection.novelty, divisors, strict=True)]
    return described(rows, novelty, parts)


def described(rows: Integers, novelty: list[float], parts: list[list[Detail]]) -> list[Candidate]:
    """The picks of some rows (n,), by what :func:`details` has found of them in all blocks."""
    found = {detail[0]: detail[1:] for part in parts for detail in part}
    picks = []
    for row, of_pick in zip(rows.tolist(), novelty, strict=True):
        id_, density, file, file_row = found[row]
        picks.append(Candidate(row, id_, of_pick, density, file, file_row))
    return picks


# --- tasks ------------------------------------------------------------------------------------------------


def _draw(
    work: Location,
    wanted: str | int | None,
    seed: int,
    able: set[Group] | None,
    affordable: float | None,
    block: Block,
) -> Iterator[tuple[bytes, int]]:
    """The row of the wanted id if the block has it; or, if none is wanted, the smallest lot and its row.

    Only of candidates whose group is ``able`` to have the first pick, and whose cost is ``affordable``.
    """
    asked = {"group": able, "cost": affordable}
    table = read_block_columns(work, block.name, ["row", "id", *(name for name in asked if asked[name] is not None)])
    if affordable is not None:
        table = table.filter(pa.array(table.column("cost").to_numpy() <= affordable))
    if able is not None:
        table = table.filter(pa.array([group in able for group in table.column("group").to_pylist()], pa.bool_()))
    rows, ids = table.column("row").to_pylist(), table.column("id").to_pylist()
    if wanted is None and rows:
        yield min(zip((lot(seed, id_) for id_ in ids), rows, strict=True))
    elif wanted in ids:
        yield b"", rows[ids.index(wanted)]


def _prepare(run: Run, starting: Integers, block: Block) -> tuple[float, float, Candidates]:
    """Make a block's scratch; its greatest length and σ^κ2 in the metric's space, and those of sorted rows it has."""
    with scratch.opened(run.work, run.factors, run.id, block, run.scoring, run.units, run.twins, run.groups) as held:
        at = np.flatnonzero(np.isin(held.candidates.rows, starting))
        return held.longest, float(held.stored.powered.max()), held.stored[at]


def _read(run: Run, block: Block) -> tuple[float, float, Candidates]:
    """The same without scratch, and all candidates of the block."""
    stored = read_candidates(run.work, run.factors, block, run.scoring, run.groups)
    points = metric_space(stored.vectors, run.scoring.metric)
    return float(np.sqrt(np.square(points).sum(axis=1).max())), float(stored.powered.max()), stored


def _check_blocks(run: Run, message: Shared[Round], blocks: Iterable[Block]) -> Iterator[Report]:
    """Check a draft against some blocks, whose sketches are brought up to date first."""
    asked = message.value
    picks, weights = _picks_of(run, asked), Weights.of(run.places, run.scoring.proximity_power)
    for block in blocks:
        with scratch.opened(
            run.work, run.factors, run.id, block, run.scoring, run.units, run.twins, run.groups
        ) as held:
            known = held.start(asked.question.committed)
            check = BlockCheck(held.candidates, held.state, run.scoring, weights, picks)
            findings = check.check(asked.question, known, held.release)
            held.done(asked.question.committed)
            known_of = (findings.upper, findings.first, findings.before, findings.may_be_near)
            arrivals = Arrivals(held.stored[findings.places], *known_of)
            yield Report(arrivals, findings.safe_steps, findings.bounds, findings.evaluated, findings.multiplied)
    _spare_collector()


@cache
def _spare_collector() -> None:
    """Once in a worker, when it has imported and compiled all: PySpark collects garbage after every task, and walks all
    that each time unless told.
    """
    gc.freeze()


def details(work: Location, factors: Location, rows: Integers, block: Block) -> list[Detail]:
    """Row, id, density and place in the input of those of some sorted rows that the block has."""
    table = read_block_columns(work, block.name, ["row", "id", "file", "file_row"])
    at, _ = common_places(table.column("row").to_numpy(), rows)
    density = read_density(factors, block.name).density[at]
    row, id_, file, file_row = (column.to_pylist() for column in table.take(pa.array(at)).columns)
    return list(zip(row, id_, density.tolist(), file, file_row, strict=True))


def _picks_of(run: Run, asked: Round) -> Picks:
    """All picks of a round, drafted ones last: from the files of this host, the broadcast, and else the pick log."""
    sent = Picks.measured(asked.picks.in_units(run.scoring.metric, run.units)).single()
    committed = asked.question.committed

    def missing(start: int, stop: int) -> Picks:
        if start >= asked.since:
            return sent[start - asked.since : stop - asked.since]
        logged = picklog.read(run.log, start, min(stop, asked.since))
        before = Picks.measured(logged.in_units(run.scoring.metric, run.units)).single()
        return Picks.joined([before, sent[: max(0, stop - asked.since)]])

    final = final_picks(folder_of(run.id) / "picks", run.places, committed, missing)
    return with_drafted(final, sent[committed - asked.since :])
