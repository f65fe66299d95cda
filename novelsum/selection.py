"""Stage 3: NovelSelect. The driver broadcasts each new pick; executors update their candidates.

One round for each pick. Every task holds the distances of its candidates to all picks so far, adds the
column of the newest, evaluates v with the formula itself, and returns its best candidate. The driver takes
the best of these, ties to the smallest row.

A task keeps its block in its Python worker's memory. That is a hint only: a worker that meets a block for
the first time reads it from the store and computes the columns of all picks, which are still broadcast.
"""

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql import SparkSession

from novelsum.errors import InputError
from novelsum.formula import Array, Formula, Metric, from_squared, metric_space, novelty, squared_distances
from novelsum.progress import Progress
from novelsum.settings import Settings
from novelsum.storage import Location
from novelsum.store import Block, Pool, read_block, read_density


@dataclass(frozen=True)
class Candidate:
    """A candidate as it travels to the driver and, once picked, to all executors.

    ``point`` (D,) float64 is its vector in the metric's space, ``density`` its σ before the power κ2,
    ``novelty`` its v when it was picked, ``file`` and ``file_row`` where its other columns are.
    """

    row: int
    id: str | int
    novelty: float
    density: float
    point: Array
    file: int
    file_row: int


@dataclass(frozen=True)
class Scoring:
    """The settings that v depends on."""

    formula: Formula
    metric: Metric
    proximity_power: float
    density_power: float

    @staticmethod
    def of(settings: Settings) -> "Scoring":
        """From the settings of a run."""
        return Scoring(settings.formula, settings.metric, settings.proximity_power, settings.density_power)


def select(spark: SparkSession, pool: Pool, settings: Settings, first: int) -> list[Candidate]:
    """Pick ``budget`` candidates of the pool, whose density factors lie beside it, starting with row ``first``."""
    context = spark.sparkContext
    run = uuid.uuid4().hex
    scoring = Scoring.of(settings)
    blocks = context.parallelize(pool.blocks, len(pool.blocks))
    picks = blocks.flatMap(partial(_candidate_of_row, pool.work, settings.metric, first)).collect()
    broadcasts = [context.broadcast(picks[0])]
    with Progress("selection (picks)", settings.budget) as progress:
        progress.advance()
        while len(picks) < settings.budget:
            context.setJobDescription(f"novelsum selection: pick {len(picks) + 1} of {settings.budget}")
            best_of_block = partial(_best_of_block, pool.work, run, scoring, broadcasts)
            best = min(blocks.flatMap(best_of_block).collect(), key=lambda c: (-c.novelty, c.row))
            picks.append(best)
            broadcasts.append(context.broadcast(best))
            progress.advance()
    context.setJobDescription("")
    for broadcast in broadcasts:
        broadcast.destroy()
    return picks


def first_row(spark: SparkSession, pool: Pool, settings: Settings) -> int:
    """The row of the candidate named by ``first``, or of the one ``seed`` draws; nothing but the ids matters."""
    wanted = None if settings.first is None else int(settings.first) if pool.integer_ids else settings.first
    blocks = spark.sparkContext.parallelize(pool.blocks, len(pool.blocks))
    drawn = blocks.flatMap(partial(_draw, pool.work, wanted, settings.seed)).collect()
    if not drawn:
        raise InputError(
            f"--first {settings.first!r} is not among the candidates: the input has no such id, or its row was "
            "dropped as bad or as the duplicate of a row with a smaller id"
        )
    return min(drawn)[1]


# --- tasks ------------------------------------------------------------------------------------------------


def _draw(work: Location, wanted: str | int | None, seed: int, block: Block) -> Iterator[tuple[bytes, int]]:
    """The row of the wanted id if the block has it; or, if none is wanted, the smallest lot and its row."""
    stored = read_block(work, block.name)
    ids = stored.ids.to_pylist()
    if wanted is None:
        lots = [hashlib.blake2b(f"{seed}\0{id_}".encode(), digest_size=16).digest() for id_ in ids]
        yield min(zip(lots, stored.rows.tolist(), strict=True))
    elif wanted in ids:
        yield b"", int(stored.rows[ids.index(wanted)])


def _candidate_of_row(work: Location, metric: Metric, row: int, block: Block) -> Iterator[Candidate]:
    state = _BlockState.read(work, block, metric)
    at = state.place_of(row)
    if at is not None:
        yield state.candidate(at, 0.0)


def _best_of_block(
    work: Location, run: str, scoring: Scoring, picks: list[Broadcast[Candidate]], block: Block
) -> Iterator[Candidate]:
    """The block's candidate with the greatest v that is not picked yet, the smallest row of equals."""
    key = (run, block.name)
    state = _states.get(key)
    if state is None:
        for old in [old for old in _states if old[0] != run]:
            del _states[old]
        state = _states[key] = _BlockState.read(work, block, scoring.metric)
    for broadcast in picks[state.picks :]:
        state.add(broadcast.value, scoring.metric)
    v = state.novelty(scoring)
    best = int(np.argmax(v))
    if v[best] > -np.inf:
        yield state.candidate(best, float(v[best]))


class _BlockState:
    """A block in a worker's memory, with the distances (n, picks) of its candidates to the picks so far."""

    def __init__(
        self, ids: list[str | int], rows: NDArray[np.int64], points: Array, density: Array, places: NDArray[np.int64]
    ) -> None:
        self.picks = 0
        self._ids, self._rows, self._points, self._density, self._places = ids, rows, points, density, places
        self._distances = np.empty((len(rows), 64))
        self._picked_rows: list[int] = []
        self._picked_density: list[float] = []

    @classmethod
    def read(cls, work: Location, block: Block, metric: Metric) -> "_BlockState":
        """From the store, with no pick added yet."""
        stored = read_block(work, block.name)
        density = read_density(work, block.name).density
        places = np.stack([stored.file, stored.file_rows], axis=1)
        return cls(stored.ids.to_pylist(), stored.rows, metric_space(stored.vectors, metric), density, places)

    def place_of(self, row: int) -> int | None:
        """Where the candidate of that row is in the block, None where it is not."""
        at = int(np.searchsorted(self._rows, row))
        return at if at < len(self._rows) and self._rows[at] == row else None

    def add(self, pick: Candidate, metric: Metric) -> None:
        """Add the column of a pick."""
        if self.picks == self._distances.shape[1]:
            self._distances = np.concatenate([self._distances, np.empty_like(self._distances)], axis=1)
        column = squared_distances(self._points, pick.point[None, :])[:, 0]
        self._distances[:, self.picks] = from_squared(column, metric)
        self._picked_rows.append(pick.row)
        self._picked_density.append(pick.density)
        self.picks += 1

    def novelty(self, scoring: Scoring) -> Array:
        """v of every candidate (n,), -inf where it is picked."""
        by_row = np.argsort(self._picked_rows)
        v = novelty(
            self._distances[:, by_row],
            np.array(self._picked_density)[by_row],
            self._density,
            formula=scoring.formula,
            proximity_power=scoring.proximity_power,
            density_power=scoring.density_power,
        )
        v[np.isin(self._rows, self._picked_rows)] = -np.inf
        return v

    def candidate(self, at: int, v: float) -> Candidate:
        """The candidate at a place of the block."""
        return Candidate(
            row=int(self._rows[at]),
            id=self._ids[at],
            novelty=v,
            density=float(self._density[at]),
            point=self._points[at],
            file=int(self._places[at, 0]),
            file_row=int(self._places[at, 1]),
        )


_states: dict[tuple[str, str], _BlockState] = {}
