"""The map of the pool: two axes found from a sample of it, and where all candidates lie by them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import SparkContext

from novelsum.files.location import Location
from novelsum.files.store import Block, Pool, read_block, read_block_columns
from novelsum.formula import Array, Metric, metric_space
from novelsum.rows import Integers, common_places
from novelsum.selection.rounds import Candidate
from novelsum.settings import Settings
from novelsum.spark.shared import Shared

MAP_COLUMNS = ("x", "y", "pick", "group")

MAP_POOL = 2000
"""Candidates drawn at random for the map, which its axes are found from."""
_CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class Projection:
    """Two ``axes`` (2, D) about the ``center`` (D,) of a sample, and their ``shares`` (2,) of its variance."""

    center: Array
    axes: Array
    shares: Array

    @staticmethod
    def of(sample: Array) -> "Projection":
        """Of points (n, D) of the metric's space."""
        center = sample.mean(axis=0)
        return Projection(center, *principal_axes(sample - center))

    def places(self, points: Array) -> Array:
        """Where points (n, D) lie: (n, 2). Each by itself, so that it has the same bits beside whatever others."""
        places = np.empty((len(points), 2))
        step = max(1, _CHUNK_BYTES // (8 * points.shape[1]))
        for start in range(0, len(points), step):
            centered = points[start : start + step] - self.center
            for column, axis in enumerate(self.axes):
                places[start : start + step, column] = (centered * axis).sum(axis=1)
        return places


def principal_axes(centered: Array) -> tuple[Array, Array]:
    """The two directions (2, D) in which centred points (n, D) vary most, and their shares of all variance (2,).

    The greatest coordinate of an axis is positive, so that a map is never mirrored by chance. Of points that vary
    in fewer directions, the missing axes are zero.
    """
    rows, dimension = centered.shape
    wide = rows <= dimension
    values, vectors = np.linalg.eigh(centered @ centered.T if wide else centered.T @ centered)
    total = max(float(np.square(centered).sum()), np.finfo(float).tiny)
    axes, shares = np.zeros((2, dimension)), np.zeros(2)
    for place in range(min(2, len(values))):
        share = float(values[-1 - place]) / total
        if share > np.finfo(float).eps * max(rows, dimension):
            axis = vectors[:, -1 - place] @ centered if wide else vectors[:, -1 - place]
            axis = axis / np.sqrt(np.square(axis).sum())
            axes[place], shares[place] = axis * np.sign(axis[np.abs(axis).argmax()]), share
    return axes, shares


def sample_rows(pool: Pool, seed: int) -> Integers:
    """The rows of the sample, ascending; drawn from the rows alone, so that layout does not matter."""
    size = min(pool.candidates, MAP_POOL)
    return np.sort(np.random.default_rng(seed).choice(pool.candidates, size, replace=False))


def points_of_rows(context: SparkContext, pool: Pool, wanted: Integers, metric: Metric) -> Array:
    """Points in the metric's space of some sorted rows, in their order."""
    blocks = context.parallelize(pool.blocks, len(pool.blocks))
    found = blocks.flatMap(partial(_vectors_of_rows, pool.work, wanted)).collect()
    order = np.argsort(np.concatenate([rows for rows, _ in found]))
    return metric_space(np.concatenate([vectors for _, vectors in found])[order], metric)


def write_map(context: SparkContext, pool: Pool, settings: Settings, picks: list[Candidate], folder: Location) -> None:
    """Write where every candidate lies on the map, with its pick number and its group, a file for each block."""
    folder.make_folder()
    context.setJobDescription("novelsum: map")
    sample = points_of_rows(context, pool, sample_rows(pool, settings.seed), settings.metric)
    message = Shared.of(context, (Projection.of(sample), np.array([pick.row for pick in picks])))
    write = partial(_write_block, pool.work, message, settings.metric, settings.id_column, folder)
    context.parallelize(pool.blocks, len(pool.blocks)).foreach(write)
    context.setJobDescription("")
    message.destroy()


# --- tasks ------------------------------------------------------------------------------------------------


def _vectors_of_rows(work: Location, wanted: Integers, block: Block) -> Iterator[tuple[Integers, NDArray[np.floating]]]:
    """Those of some sorted rows that the block has, and their vectors."""
    rows = read_block_columns(work, block.name, ["row"]).column("row").to_numpy()
    at, _ = common_places(rows, wanted)
    if len(at):
        yield rows[at], read_block(work, block.name).vectors[at]


def _write_block(
    work: Location,
    message: Shared[tuple[Projection, Integers]],
    metric: Metric,
    id_column: str,
    folder: Location,
    block: Block,
) -> None:
    (projection, rows), stored = message.value, read_block(work, block.name)
    x, y = projection.places(metric_space(stored.vectors, metric)).T
    order = np.argsort(rows)
    at, found = common_places(stored.rows, rows[order])
    numbers = np.zeros(len(stored.rows), np.int64)
    numbers[at] = order[found] + 1
    columns = {id_column: stored.ids, "x": x, "y": y, "pick": pa.array(numbers, mask=numbers == 0)}
    if stored.groups is not None:
        columns["group"] = stored.groups
    (folder / f"part-{block.name}").write_parquet(pa.table(columns))
