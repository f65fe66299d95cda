"""What all strategies of a run have in common: the candidates, what closes them, and what was selected before."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from pyspark import RDD, SparkContext

from novelsum.diversity.novelsum import Columns
from novelsum.diversity.onepass import mapped_points
from novelsum.files.location import Location
from novelsum.files.store import Block, Pool, read_block_columns
from novelsum.formula import Array, metric_space
from novelsum.groups import Group
from novelsum.rows import Integers, common_places
from novelsum.selection import picklog
from novelsum.selection.candidates import Candidates
from novelsum.selection.closings import Closings
from novelsum.selection.scoring import Scoring
from novelsum.selection.scratch import read_candidates
from novelsum.settings import Settings
from novelsum.spark.local import new_run
from novelsum.spark.shared import Shared
from novelsum.strategies.turn import Turn


@dataclass(frozen=True)
class Reading:
    """How tasks read blocks of the store in ``work``. ``run`` names their scratch; ``groups``: those of quotas."""

    run: str
    work: Location
    scoring: Scoring
    groups: tuple[Group, ...]

    def points(self, block: Block) -> Columns:
        """The points of a block in the metric's space, mapped from scratch."""
        return mapped_points(self.run, self.work, block.name, self.scoring.metric)

    def traits(self, block: Block) -> tuple[Candidates, list[str | int]]:
        """The candidates of a block without vectors and density, and their ids."""
        names = ["row", "id", "quality", "group", "cost"]
        table = read_block_columns(self.work, block.name, names)
        numbers = [
            table.column(name).to_numpy() if name in table.column_names else None for name in ("quality", "cost")
        ]
        of_each = table.column("group").to_pylist() if "group" in table.column_names else None
        rows, n = table.column("row").to_numpy(), table.num_rows
        plain = (np.empty((n, 0)), np.ones(n))
        found = Candidates.of(rows, *plain, numbers[0], of_each, numbers[1], self.scoring, self.groups)
        return found, table.column("id").to_pylist()


@dataclass(frozen=True)
class Common:
    """The candidates of a run and its rules. ``begun``: the samples selected before it, as they are stored."""

    context: SparkContext
    pool: Pool
    factors: Location
    settings: Settings
    closings: Closings
    begun: Candidates
    reading: Reading

    @staticmethod
    def of(
        context: SparkContext,
        pool: Pool,
        factors: Location,
        settings: Settings,
        closings: Closings,
        log: Location,
        begun: int,
    ) -> "Common":
        """Of the store and the density factors, and a pick log that begins with so many samples."""
        scoring = Scoring.of(settings)
        before = (
            picklog.read(log, 0, begun)
            if begun
            else Candidates.plain(np.zeros(0, np.int64), np.empty((0, pool.dimension)), np.zeros(0))
        )
        groups = closings.quotas.groups if closings.quotas else ()
        return Common(
            context,
            pool,
            factors,
            settings,
            closings,
            before,
            Reading(new_run(pool.work), pool.work, scoring, groups),
        )

    def blocks(self) -> RDD[Block]:
        """The blocks of the store, one a task."""
        return self.context.parallelize(self.pool.blocks, len(self.pool.blocks))

    def before(self) -> Array:
        """The points (begun, D) of the samples selected before."""
        return metric_space(self.begun.vectors, self.settings.metric) if len(self.begun) else self.begun.vectors

    def turn(self) -> Turn:
        """What may be picked first."""
        return Turn(self.closings, self.settings.metric, self.before())

    def stored(self, rows: Integers) -> Candidates:
        """Some candidates as they are stored, in the order of ``rows`` (n,)."""
        message = Shared.of(self.context, np.sort(rows))
        reading = self.reading
        parts = self.blocks().map(partial(_stored, reading, self.factors, message)).collect()
        message.destroy()
        found = Candidates.joined(parts)
        by_row = np.argsort(found.rows)
        return found[by_row[np.searchsorted(found.rows, rows, sorter=by_row)]]


def _stored(reading: Reading, factors: Location, message: Shared[Integers], block: Block) -> Candidates:
    found = read_candidates(reading.work, factors, block, reading.scoring, reading.groups)
    return found[common_places(found.rows, message.value)[0]]
