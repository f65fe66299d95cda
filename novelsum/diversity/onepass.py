"""The pass of :mod:`~novelsum.diversity.novelsum` on Spark: rows in tasks, each against the whole store.

The points lie in local scratch of each executor as float64, mapped, made from the store where they are missing: all
tasks of a machine share one copy in the page cache. A task holds one tile of distances at a time.
"""

import heapq
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pyspark import SparkContext

from novelsum.density.neighbors import NearestDistances
from novelsum.diversity.novelsum import GROUPS, Columns, Grid, Leading, Tally, in_space, tally
from novelsum.files.location import Location
from novelsum.files.store import Block, read_block, read_block_columns
from novelsum.formula import Array, Metric, from_squared, metric_space
from novelsum.rows import Integers, common_places, lot
from novelsum.spark.local import folder_of, new_run
from novelsum.spark.matching import embeddings, keyed_rows, matched
from novelsum.spark.progress import collect
from novelsum.spark.shared import Shared

TASKS_PER_CORE = 4
MOST_TASKS = 128
"""Each task answers with a mass for every row, so that many of them would be many masses on the driver."""
_SLOW_SORTS = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR"}
"""NumPy's AVX-512 sort takes four times as long on AMD's processors as its AVX2 sort does."""


@dataclass(frozen=True)
class DataSet:
    """A store to measure: blocks whose rows are 0 ... n - 1."""

    work: Location
    blocks: tuple[Block, ...]

    @property
    def rows(self) -> int:
        """Rows in all blocks."""
        return sum(block.rows for block in self.blocks)


@dataclass(frozen=True)
class Asked:
    """A pass that is wanted: over a sample (m,) of the rows of a data set, or all, against all of it.

    ``leading``: the setting of which the change without each row is wanted, of all rows only. ``own`` (n,): where
    neighbours are searched in another corpus, the row of it that each row is, negative if none.
    """

    data: DataSet
    sample: Integers | None = None
    leading: Leading | None = None
    own: Integers | None = None


@dataclass(frozen=True)
class _Task:
    """What all tasks have in common; ``runs`` name the scratch of each pass, ``reference`` is where neighbours lie."""

    asked: tuple[Asked, ...]
    grid: Grid
    runs: tuple[str, ...] = ()
    reference: DataSet | None = None


Part = tuple[int, int, int, int]
"""A part of the rows of a block that are in the sample: the numbers of the pass and of the block, and the first and
last of the part."""


def draw_rows(context: SparkContext, data: DataSet, count: int, seed: int) -> Integers:
    """That many rows of the data set at random, by their ids alone: (count,) int64, ascending."""
    blocks = context.parallelize(data.blocks, len(data.blocks))
    drawn = blocks.map(partial(_smallest_lots, data.work, count, seed)).collect()
    found = heapq.nsmallest(count, (one for of_block in drawn for one in of_block))
    return np.sort(np.array([row for _, row in found], dtype=np.int64))


def run_pass(
    context: SparkContext,
    data: DataSet,
    grid: Grid,
    sample: Integers | None = None,
    *,
    work: Location,
) -> Tally:
    """Measure the sample (m,) of rows, or all, against the whole data set.

    ``work``: where the run has its store, for which scratch is named.
    """
    return run_passes(context, [Asked(data, sample)], grid, work=work)[0]


def run_passes(context: SparkContext, asked: Sequence[Asked], grid: Grid, *, work: Location) -> list[Tally]:
    """The same of several data sets, in one Spark job."""
    if _is_amd():
        context.environment.update(_SLOW_SORTS)
    message = Shared.of(context, _Task(tuple(asked), grid, tuple(new_run(work) for _ in asked)))
    context.setJobDescription("novelsum diversity: rows against the data set")
    try:
        parts = _parts(context, asked)
        found = collect(context.parallelize(parts, len(parts)).map(partial(_measure, message)), "diversity")
        return [Tally.joined([one for at, one in found if at == number]) for number in range(len(asked))]
    finally:
        context.setJobDescription("")
        message.destroy()
        context.environment.pop(next(iter(_SLOW_SORTS)), None)


def nearest_in(
    context: SparkContext, asked: Sequence[Asked], grid: Grid, reference: DataSet | None
) -> list[tuple[Array, Array]]:
    """The squared distances of each pass's rows (m,) to their neighbours in a reference corpus, or in their own set.

    As :func:`novelsum.diversity.novelsum.densities` takes them.
    """
    message = Shared.of(context, _Task(tuple(asked), grid, reference=reference))
    context.setJobDescription("novelsum diversity: nearest neighbours")
    try:
        parts = _parts(context, asked)
        found = collect(context.parallelize(parts, len(parts)).map(partial(_neighbors, message)), "neighbours")
    finally:
        context.setJobDescription("")
        message.destroy()
    results = []
    for number in range(len(asked)):
        rows, nearest, nearest_raw = (
            np.concatenate([one[at] for one in found if one[0] == number]) for at in (1, 2, 3)
        )
        order = np.argsort(rows)
        results.append((nearest[order], nearest_raw[order]))
    return results


def coverage(
    context: SparkContext, reference: DataSet, rows: Integers, sets: Sequence[DataSet], metric: Metric
) -> list[float]:
    """The mean distance of some rows (m,) of a reference corpus to the nearest row of each data set."""
    message = Shared.of(context, (rows, tuple(sets)))
    context.setJobDescription("novelsum diversity: coverage of the reference")
    try:
        tasks = context.parallelize(reference.blocks, len(reference.blocks))
        found = tasks.flatMap(partial(_to_nearest, reference.work, metric, message)).collect()
    finally:
        context.setJobDescription("")
        message.destroy()
    order = np.argsort(np.concatenate([of_block for of_block, _ in found]))
    distances = np.concatenate([of_block for _, of_block in found])[order]
    return [float(one) for one in distances.mean(axis=0)]


def _parts(context: SparkContext, asked: Sequence[Asked]) -> list[Part]:
    """The rows of all passes in parts of about the same size, each of a block; each pass has one at least."""
    total = sum(one.data.rows if one.sample is None else len(one.sample) for one in asked)
    size = max(1, -(-total // min(MOST_TASKS, TASKS_PER_CORE * context.defaultParallelism)))
    parts: list[Part] = []
    for number, one in enumerate(asked):
        counts = [block.rows for block in one.data.blocks]
        if one.sample is not None:
            names = context.parallelize(list(enumerate(one.data.blocks)), len(one.data.blocks))
            found = names.map(partial(_count_sampled, one.data.work, one.sample)).collect()
            counts = [count for _, count in sorted(found)]
        for at, count in enumerate(counts):
            pieces = -(-count // size)
            parts += [(number, at, i * count // pieces, (i + 1) * count // pieces) for i in range(pieces)]
    return parts


def _is_amd() -> bool:
    """Whether the driver's processor is AMD's, as its executors' will be; only Linux says so here."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()[:4096]
    except OSError:
        return False


# --- tasks ------------------------------------------------------------------------------------------------


def _smallest_lots(work: Location, count: int, seed: int, block: Block) -> list[tuple[bytes, int]]:
    rows, ids = (column.to_pylist() for column in read_block_columns(work, block.name, ["row", "id"]).columns)
    return heapq.nsmallest(count, zip((lot(seed, id_) for id_ in ids), rows, strict=True))


def _count_sampled(work: Location, sample: Integers, numbered: tuple[int, Block]) -> tuple[int, int]:
    rows = read_block_columns(work, numbered[1].name, ["row"]).column("row").to_numpy()
    return numbered[0], len(common_places(rows, sample)[0])


def _measure(message: Shared[_Task], part: Part) -> tuple[int, Tally]:
    """One part of the rows of a pass against all points of its data set."""
    task = message.value
    at, number, start, stop = part
    one, run = task.asked[at], task.runs[at]
    columns = [mapped_points(run, one.data.work, block.name, task.grid.metric) for block in one.data.blocks]
    block = columns[number]
    if one.sample is None:
        queries = block.take(slice(start, stop))
        group = np.zeros(len(queries.rows), dtype=np.int64)
    else:
        places, in_sample = common_places(block.rows, one.sample)
        queries = block.take(places[start:stop])
        # Dealt out by a fixed shuffle of the sample, which is the same for any layout of the input.
        dealt = np.random.default_rng(len(one.sample)).permutation(len(one.sample)) % GROUPS
        group = dealt[in_sample[start:stop]]
    groups = 1 if one.sample is None else GROUPS
    return at, tally(queries, group, groups, columns, one.sample, task.grid, one.leading)


def _neighbors(message: Shared[_Task], part: Part) -> tuple[int, Integers, Array, Array]:
    """One part of the rows of a pass, and their squared distances (m, K) and (m, K + 1) to neighbours."""
    task = message.value
    at, number, start, stop = part
    one, grid = task.asked[at], task.grid
    reference = one.data if task.reference is None else task.reference
    block = read_block(one.data.work, one.data.blocks[number].name)
    places = np.arange(len(block.rows)) if one.sample is None else common_places(block.rows, one.sample)[0]
    queries = block.take(places[start:stop])
    most = max(grid.neighbors)
    points, raw = in_space(queries.vectors, grid.metric)[0], in_space(queries.vectors, "euclidean")[0]
    nearest = NearestDistances(points, most, queries.rows if one.own is None else one.own[queries.rows])
    nearest_raw = NearestDistances(raw, most + 1)
    for of_corpus in reference.blocks:
        corpus = read_block(reference.work, of_corpus.name)
        if grid.among_all:
            nearest.add(metric_space(corpus.vectors, grid.metric), corpus.rows)
        if grid.among_distinct and corpus.distinct.any():
            nearest_raw.add(metric_space(corpus.vectors[corpus.distinct], "euclidean"))
    return at, queries.rows, nearest.squared, nearest_raw.squared


def _to_nearest(
    work: Location, metric: Metric, message: Shared[tuple[Integers, tuple[DataSet, ...]]], block: Block
) -> Iterator[tuple[Integers, Array]]:
    """Those rows of a block that are asked for, if any, and their distances (m, sets) to the nearest of each set."""
    rows, sets = message.value
    stored = read_block(work, block.name)
    places = common_places(stored.rows, rows)[0]
    if not len(places):
        return
    points = metric_space(stored.vectors[places], metric)
    squared = []
    for data in sets:
        nearest = NearestDistances(points, 1)
        for other in data.blocks:
            nearest.add(metric_space(read_block(data.work, other.name).vectors, metric))
        squared.append(nearest.squared[:, 0])
    yield stored.rows[places], from_squared(np.stack(squared, axis=1), metric)


def mapped_points(run: str, work: Location, name: str, metric: Metric) -> Columns:
    """A block's points in the metric's space, mapped from local scratch; made from the store if they are not there."""
    folder = folder_of(run)
    path = folder / f"{name}.npy"
    lengths_path = folder / f"{name}.lengths.npy"
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        points, lengths = in_space(read_block(work, name).vectors, metric)
        save(lengths_path, lengths)
        save(path, points)
    table = read_block_columns(work, name, ["row", "distinct"])
    return Columns(
        np.load(path, mmap_mode="r"),
        np.load(lengths_path),
        table.column("row").to_numpy(),
        table.column("distinct").to_numpy(),
    )


def save(path: Path, array: Array) -> None:
    """Write a file that others see whole or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            np.save(file, array)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# --- which row of the reference a row is ------------------------------------------------------------------


def match_reference(context: SparkContext, data: DataSet, reference: DataSet, by_id: bool) -> Integers:
    """The row of the reference corpus that each row (n,) of the data set is, negative if none.

    By equal embeddings, and by equal ids too if ``by_id``.
    """
    keys = partial(embeddings, by_id)
    others = keyed_rows(context, reference.work, reference.blocks, keys)
    own = np.empty(data.rows, dtype=np.int64)
    for rows, found in matched(data.work, data.blocks, keys, others).map(partial(_own_rows, data.work)).collect():
        own[rows] = found
    return own


def _own_rows(work: Location, of_block: tuple[str, list[list[int]]]) -> tuple[Integers, Integers]:
    """The rows of a block, and the row of the reference that each is, negative if none."""
    name, found = of_block
    rows: Integers = read_block_columns(work, name, ["row"]).column("row").to_numpy()
    own = [others[0] if others else -1 - row for row, others in zip(rows.tolist(), found, strict=True)]
    return rows, np.array(own, dtype=np.int64)
