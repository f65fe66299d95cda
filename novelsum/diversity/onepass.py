"""The pass of :mod:`~novelsum.diversity.novelsum` on Spark: rows in tasks, each against the whole store.

The points lie in local scratch of each executor as float64, mapped, made from the store where they are missing: all
tasks of a machine share one copy in the page cache. A task holds one tile of distances at a time.
"""

import heapq
import os
import uuid
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
class Reference:
    """The corpus in which neighbours are searched; ``own`` (n,): the row of it that each row is, negative if none."""

    data: DataSet
    own: Integers


@dataclass(frozen=True)
class _Task:
    """What all tasks of a pass have in common; ``run`` names its scratch."""

    run: str
    data: DataSet
    grid: Grid
    sample: Integers | None
    leading: Leading | None


@dataclass(frozen=True)
class _Search:
    """What all tasks that search neighbours have in common."""

    data: DataSet
    grid: Grid
    sample: Integers | None
    reference: Reference


Part = tuple[int, int, int]
"""A part of the rows of a block that are in the sample: the block's number, and the first and last of the part."""


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
    leading: Leading | None = None,
    *,
    work: Location,
) -> Tally:
    """Measure the sample (m,) of rows, or all, against the whole data set.

    ``leading``: the setting of which the change without each row is wanted, of all rows only. ``work``: where the run
    has its store, for which scratch is named.
    """
    if _is_amd():
        context.environment.update(_SLOW_SORTS)
    message = Shared.of(context, _Task(new_run(work), data, grid, sample, leading))
    context.setJobDescription("novelsum diversity: rows against the data set")
    try:
        parts = _parts(context, data, sample)
        tasks = context.parallelize(parts, len(parts)).map(partial(_measure, message))
        return Tally.joined(collect(tasks, "diversity"))
    finally:
        context.setJobDescription("")
        message.destroy()
        context.environment.pop(next(iter(_SLOW_SORTS)), None)


def nearest_in(
    context: SparkContext, reference: Reference, data: DataSet, grid: Grid, sample: Integers | None = None
) -> tuple[Array, Array]:
    """The squared distances of the sample of rows (m,), or all, to their neighbours in a reference corpus.

    As :func:`novelsum.diversity.novelsum.densities` takes them.
    """
    message = Shared.of(context, _Search(data, grid, sample, reference))
    context.setJobDescription("novelsum diversity: nearest neighbours")
    try:
        parts = _parts(context, data, sample)
        found = collect(context.parallelize(parts, len(parts)).map(partial(_neighbors, message)), "neighbours")
    finally:
        context.setJobDescription("")
        message.destroy()
    order = np.argsort(np.concatenate([rows for rows, _, _ in found]))
    nearest, nearest_raw = (np.concatenate([one[at] for one in found])[order] for at in (1, 2))
    return nearest, nearest_raw


def coverage(context: SparkContext, reference: DataSet, rows: Integers, data: DataSet, metric: Metric) -> float:
    """The mean distance of some rows (m,) of a reference corpus to the nearest row of a data set."""
    message = Shared.of(context, (rows, data))
    context.setJobDescription("novelsum diversity: coverage of the reference")
    try:
        tasks = context.parallelize(reference.blocks, len(reference.blocks))
        found = tasks.map(partial(_to_nearest, reference.work, metric, message)).collect()
    finally:
        context.setJobDescription("")
        message.destroy()
    return sum(total for total, _ in sorted(found)) / sum(count for _, count in found)


def _parts(context: SparkContext, data: DataSet, sample: Integers | None) -> list[Part]:
    """The rows of the sample, or all, in parts of about the same size, each of a block."""
    rows = data.rows if sample is None else len(sample)
    size = max(1, -(-rows // min(MOST_TASKS, TASKS_PER_CORE * context.defaultParallelism)))
    names = context.parallelize(list(enumerate(data.blocks)), len(data.blocks))
    counts = (
        [block.rows for block in data.blocks]
        if sample is None
        else [count for _, count in sorted(names.map(partial(_count_sampled, data.work, sample)).collect())]
    )
    parts: list[Part] = []
    for number, count in enumerate(counts):
        pieces = -(-count // size)
        parts += [(number, i * count // pieces, (i + 1) * count // pieces) for i in range(pieces)]
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


def _measure(message: Shared[_Task], part: Part) -> Tally:
    """One part of the rows against all points."""
    task = message.value
    number, start, stop = part
    columns = [mapped_points(task.run, task.data.work, block.name, task.grid.metric) for block in task.data.blocks]
    block = columns[number]
    if task.sample is None:
        queries = block.take(slice(start, stop))
        group = np.zeros(len(queries.rows), dtype=np.int64)
    else:
        places, in_sample = common_places(block.rows, task.sample)
        queries = block.take(places[start:stop])
        # Dealt out by a fixed shuffle of the sample, which is the same for any layout of the input.
        dealt = np.random.default_rng(len(task.sample)).permutation(len(task.sample)) % GROUPS
        group = dealt[in_sample[start:stop]]
    groups = 1 if task.sample is None else GROUPS
    return tally(queries, group, groups, columns, task.sample, task.grid, task.leading)


def _neighbors(message: Shared[_Search], part: Part) -> tuple[Integers, Array, Array]:
    """One part of the rows, and their squared distances (m, K) and (m, K + 1) to neighbours in the reference corpus."""
    task = message.value
    number, start, stop = part
    grid, reference = task.grid, task.reference
    block = read_block(task.data.work, task.data.blocks[number].name)
    places = np.arange(len(block.rows)) if task.sample is None else common_places(block.rows, task.sample)[0]
    queries = block.take(places[start:stop])
    most = max(grid.neighbors)
    points, raw = in_space(queries.vectors, grid.metric)[0], in_space(queries.vectors, "euclidean")[0]
    nearest = NearestDistances(points, most, reference.own[queries.rows])
    nearest_raw = NearestDistances(raw, most + 1)
    for one in reference.data.blocks:
        corpus = read_block(reference.data.work, one.name)
        if grid.among_all:
            nearest.add(metric_space(corpus.vectors, grid.metric), corpus.rows)
        if grid.among_distinct and corpus.distinct.any():
            nearest_raw.add(metric_space(corpus.vectors[corpus.distinct], "euclidean"))
    return queries.rows, nearest.squared, nearest_raw.squared


def _to_nearest(
    work: Location, metric: Metric, message: Shared[tuple[Integers, DataSet]], block: Block
) -> tuple[float, int]:
    """The sum of the distances of those rows of a block to the nearest row of the data set, and how many they are."""
    rows, data = message.value
    stored = read_block(work, block.name)
    places = common_places(stored.rows, rows)[0]
    if not len(places):
        return 0.0, 0
    nearest = NearestDistances(metric_space(stored.vectors[places], metric), 1)
    for other in data.blocks:
        nearest.add(metric_space(read_block(data.work, other.name).vectors, metric))
    return float(from_squared(nearest.squared, metric).sum()), len(places)


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


def match_reference(context: SparkContext, data: DataSet, reference: DataSet, by_id: bool) -> Reference:
    """Find the rows of the data set in the reference corpus: by equal embeddings, and by equal ids too if ``by_id``."""
    keys = partial(embeddings, by_id)
    others = keyed_rows(context, reference.work, reference.blocks, keys)
    own = np.empty(data.rows, dtype=np.int64)
    for rows, found in matched(data.work, data.blocks, keys, others).map(partial(_own_rows, data.work)).collect():
        own[rows] = found
    return Reference(reference, own)


def _own_rows(work: Location, of_block: tuple[str, list[list[int]]]) -> tuple[Integers, Integers]:
    """The rows of a block, and the row of the reference that each is, negative if none."""
    name, found = of_block
    rows: Integers = read_block_columns(work, name, ["row"]).column("row").to_numpy()
    own = [others[0] if others else -1 - row for row, others in zip(rows.tolist(), found, strict=True)]
    return rows, np.array(own, dtype=np.int64)
