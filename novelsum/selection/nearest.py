"""The selected sample nearest to each pick, among those before it, and to each candidate left out, among all.

Selected are the samples that a run began with and then its picks. They come as the pick log holds them, some at a time;
tasks hold the picks of a tile, or the candidates of a block, and let them pass. Distances are those of the formula, and
of equal ones the sample counts that was selected first: nothing depends on tiles and blocks.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark import SparkContext

from novelsum.density.axes import SAMPLE_ROWS, Axes, evenly
from novelsum.density.factors import read_density
from novelsum.density.neighbors import NearestDistances, Sought
from novelsum.density.points import Points
from novelsum.files.location import Location
from novelsum.files.store import Block, Pool, read_block
from novelsum.formula import Array, Metric, from_squared, squared_distances
from novelsum.rows import Integers
from novelsum.selection import picklog
from novelsum.selection.already import ids_of_logged
from novelsum.selection.rounds import Candidate
from novelsum.settings import Settings
from novelsum.spark.progress import collect
from novelsum.spark.shared import Shared

REJECTED_NEAR_COLUMNS = ("nearest_id", "nearest_pick", "nearest_distance", "density")

_TILE_BYTES = 32 << 20
"""Vectors of so many bytes are in a tile of picks, and pass it at a time."""
_LEAST_TILE = 512
"""Fewer picks are not worth a task of their own."""
_WINDOW = 64
"""Of so many picks in a row every pair is computed by the formula."""


@dataclass(frozen=True)
class Selected:
    """All that is selected in order: rows (places,) int64, ids (places,); the first ``begun`` were before the run."""

    rows: Integers
    ids: pa.Array
    begun: int

    @staticmethod
    def of(context: SparkContext, pool: Pool, log: Location, picks: list[Candidate], begun: int) -> "Selected":
        """What the pick log began with, and the picks."""
        rows = picklog.rows(log, begun)
        ids = [*ids_of_logged(context, pool, log, rows), *(pick.id for pick in picks)]
        kind = pa.int64() if pool.integer_ids else pa.string()
        rows = np.concatenate([rows, np.array([pick.row for pick in picks], np.int64)])
        return Selected(rows, pa.array(ids, kind), begun)


@dataclass(frozen=True)
class Near:
    """Of each of n samples the nearest selected one: its place among them, -1 for none, and the distance, (n,) each."""

    places: Integers
    distances: Array

    def of(self, selected: Selected) -> tuple[pa.Array, pa.Array]:
        """Its id and its distance (n,), null where there is none."""
        none = self.places < 0
        return selected.ids.take(pa.array(self.places, mask=none)), pa.array(self.distances, mask=none)


def nearest_earlier(context: SparkContext, pool: Pool, log: Location, selected: Selected, metric: Metric) -> Near:
    """What is nearest to each pick among all that was selected before it."""
    begun, places, most = selected.begun, len(selected.rows), _tile(pool)
    size = min(most, max(_LEAST_TILE, -(-(places - begun) // (2 * context.defaultParallelism))))
    tiles = [(start, min(start + size, places)) for start in range(begun, places, size)]
    context.setJobDescription("novelsum: what is nearest to each pick")
    # The last tile takes longest: the more comes before it.
    found = context.parallelize(tiles[::-1], len(tiles)).map(partial(_nearest_earlier, log, metric, most)).collect()
    context.setJobDescription("")
    return Near(*(np.concatenate([getattr(near, name) for near in found[::-1]]) for name in ("places", "distances")))


def write_rejected_near(
    context: SparkContext,
    pool: Pool,
    factors: Location,
    log: Location,
    selected: Selected,
    settings: Settings,
    folder: Location,
) -> None:
    """Write of every candidate that is not selected which selected sample is nearest, a file for each block."""
    folder.make_folder()
    message = Shared.of(context, selected)
    asked = (settings.metric, _tile(pool), settings.id_column)
    write = partial(_write_rejected, pool.work, factors, log, message, *asked, folder)
    context.setJobDescription("novelsum: what is nearest to each candidate left out")
    collect(context.parallelize(pool.blocks, len(pool.blocks)).map(write), "nearest")
    context.setJobDescription("")
    message.destroy()


def _tile(pool: Pool) -> int:
    return max(1, _TILE_BYTES // (pool.itemsize * pool.dimension))


# --- tasks ------------------------------------------------------------------------------------------------


def _nearest_earlier(log: Location, metric: Metric, most: int, tile: tuple[int, int]) -> Near:
    """What is nearest to the picks at the places of a tile; no more than ``most`` selected ones pass it at a time."""
    start, stop = tile
    points = _points(log, metric, start, stop)
    nearest = _searched(points)
    _let_pass(nearest, log, metric, start, most)
    own, count = np.arange(start, stop), stop - start
    windows = [(first, min(first + _WINDOW, count)) for first in range(0, count, _WINDOW)]
    nearest.add_parts(points, None, [(first, end, np.arange(end, count), own[first:end]) for first, end in windows])
    squared, places = nearest.squared[:, 0], nearest.labels[:, 0].astype(np.int64)
    for first, end in windows:
        within = points.array(slice(first, end))
        pairs = np.where(np.tri(end - first, k=-1, dtype=bool), squared_distances(within, within), np.inf)
        at = pairs.argmin(axis=1)
        least = pairs[np.arange(end - first), at]
        nearer = np.flatnonzero(least < squared[first:end])
        squared[first + nearer], places[first + nearer] = least[nearer], own[first + at[nearer]]
    return Near(places, from_squared(squared, metric))


def _write_rejected(
    work: Location,
    factors: Location,
    log: Location,
    message: Shared[Selected],
    metric: Metric,
    most: int,
    id_column: str,
    folder: Location,
    block: Block,
) -> int:
    """Write the file of a block; return how many candidates of it were left out."""
    selected, stored = message.value, read_block(work, block.name)
    left = np.flatnonzero(~np.isin(stored.rows, selected.rows))
    nearest = _searched(Sought("paper", metric, 1).of(stored.vectors[left]))
    _let_pass(nearest, log, metric, len(selected.rows), most)
    places = nearest.labels[:, 0].astype(np.int64)
    ids, distances = Near(places, from_squared(nearest.squared[:, 0], metric)).of(selected)
    numbers = pa.array(places - selected.begun + 1, mask=places < selected.begun)
    density = pa.array(read_density(factors, block.name).density[left])
    values = (ids, numbers, distances, density)
    table = {id_column: stored.ids.take(pa.array(left)), **dict(zip(REJECTED_NEAR_COLUMNS, values, strict=True))}
    (folder / f"part-{block.name}").write_parquet(pa.table(table))
    return len(left)


def _points(log: Location, metric: Metric, start: int, stop: int) -> Points:
    """The selected ones from one place to another."""
    return Sought("paper", metric, 1).of(picklog.read(log, start, stop).vectors)


def _searched(points: Points) -> NearestDistances:
    """A search for the one nearest to each of some points."""
    return NearestDistances(points, 1, axes=Axes.of(points.array(evenly(len(points), SAMPLE_ROWS))))


def _let_pass(nearest: NearestDistances, log: Location, metric: Metric, stop: int, most: int) -> None:
    """Take the selected ones before the place ``stop`` into account, by their places, at most so many at a time."""
    for start in range(0, stop, most):
        end = min(start + most, stop)
        nearest.add(_points(log, metric, start, end), label=np.arange(start, end))
