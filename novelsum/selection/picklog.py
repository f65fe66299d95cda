"""The pick log: all picks in order, in files of the work directory that are written once.

With the store it is what a selection can be continued or rebuilt from.
"""

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from novelsum.errors import DamageError
from novelsum.files.location import Location
from novelsum.files.store import StoredBlock
from novelsum.formula import Array
from novelsum.groups import Group
from novelsum.selection.scoring import Scoring
from novelsum.selection.sketch import Integers

logger = logging.getLogger("novelsum")

_COLUMNS = ("rows", "powered", "quality", "groups")


@dataclass(frozen=True)
class Logged:
    """Picks in order: rows (n,) int64, σ^κ2 and q^γ (n,) float64, numbers of groups (n,) int64, vectors (n, D).

    Vectors are as in the store.
    """

    rows: Integers
    powered: Array
    quality: Array
    groups: Integers
    vectors: NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.rows)

    @staticmethod
    def of(stored: StoredBlock, density: Array, scoring: Scoring, groups: tuple[Group, ...]) -> "Logged":
        """All candidates of a block, with their density factors. ``groups``: those of quotas, in order."""
        quality, numbers = np.ones(len(density)), np.zeros(len(density), np.int64)
        if stored.quality is not None:
            quality = stored.quality**scoring.quality_power
        if groups and stored.groups is not None:
            number_of = {group: number for number, group in enumerate(groups)}
            numbers = np.array([number_of[group] for group in stored.groups.to_pylist()], np.int64)
        return Logged(stored.rows, density**scoring.density_power, quality, numbers, stored.vectors)

    def __getitem__(self, part: slice | Integers) -> "Logged":
        return Logged(*(getattr(self, name)[part] for name in Logged.__dataclass_fields__))

    @staticmethod
    def joined(parts: list["Logged"]) -> "Logged":
        """Picks of all parts, one after the other."""
        return Logged(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in Logged.__dataclass_fields__)
        )


def append(work: Location, start: int, picks: Logged, novelty: Array) -> None:
    """Write the picks from place ``start`` on, with their sums when they were picked (n,)."""
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(picks.vectors).reshape(-1)), picks.vectors.shape[1]
    )
    columns = {name: getattr(picks, name) for name in _COLUMNS}
    table = pa.table({**columns, "novelty": novelty, "vector": vectors})
    (work / "picks" / f"{start:09d}.parquet").write_parquet(table, compression="none", use_dictionary=False)


def read(work: Location, start: int, stop: int) -> Logged:
    """The picks at the places from ``start`` to ``stop``, all of which must have been written."""
    files = _files(work)
    first = max(place for place in files if place <= start)
    parts = [_read(files[place])[0] for place in sorted(place for place in files if first <= place < stop)]
    return Logged.joined(parts)[start - first : stop - first]


def recover(work: Location) -> tuple[Logged, Array] | None:
    """All picks that a run has left, and their sums when they were picked; None if it left none.

    A log is used up to the first file that is missing or damaged. That and all after it are removed: the picks in
    them are made again, and come out the same.
    """
    parts: list[tuple[Logged, Array]] = []
    reached = 0
    for place, file in sorted(_files(work).items()):
        if place == reached:
            try:
                parts.append(_read(file))
                reached += len(parts[-1][0])
                continue
            except DamageError as error:
                logger.warning("%s is damaged (%s); the picks from %d on are made again", file, error.reason, place + 1)
        file.delete()
    if not parts:
        return None
    return Logged.joined([logged for logged, _ in parts]), np.concatenate([novelty for _, novelty in parts])


def _files(work: Location) -> dict[int, Location]:
    """The files of the log by the place of their first pick."""
    files = [file for file in (work / "picks").entries() if not file.name.startswith(".")]
    return {int(file.name.split(".")[0]): file for file in files}


def _read(file: Location) -> tuple[Logged, Array]:
    table = file.read_parquet().combine_chunks()
    vectors = table.column("vector").chunk(0)
    columns = {name: table.column(name).to_numpy() for name in _COLUMNS}
    logged = Logged(**columns, vectors=vectors.flatten().to_numpy().reshape(len(vectors), -1))
    return logged, table.column("novelty").to_numpy()
