"""The pick log: all picks in order, in files of the work directory that are written once.

With the store it is what a selection can be continued or rebuilt from.
"""

import logging
from dataclasses import fields

import numpy as np
import pyarrow as pa

from novelsum.errors import DamageError
from novelsum.files.location import Location
from novelsum.formula import Array
from novelsum.rows import Integers
from novelsum.selection.candidates import Candidates

logger = logging.getLogger("novelsum")

_IN_A_FILE = 8192
_COLUMNS = [field.name for field in fields(Candidates) if field.name != "vectors"]


def append(log: Location, start: int, picks: Candidates, novelty: Array) -> None:
    """Write the picks, as they are stored, from place ``start`` on, with their sums when they were picked (n,)."""
    for first in range(0, len(picks), _IN_A_FILE):
        part = slice(first, first + _IN_A_FILE)
        _write(log, start + first, picks[part], novelty[part])


def _write(log: Location, start: int, picks: Candidates, novelty: Array) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(picks.vectors).reshape(-1)), picks.vectors.shape[1]
    )
    columns = {name: getattr(picks, name) for name in _COLUMNS}
    table = pa.table({**columns, "novelty": novelty, "vector": vectors})
    (log / "picks" / f"{start:09d}.parquet").write_parquet(table, compression="none", use_dictionary=False)


def read(log: Location, start: int, stop: int) -> Candidates:
    """The picks at the places from ``start`` to ``stop``, all of which must have been written."""
    files = _files(log)
    first = max(place for place in files if place <= start)
    parts = [_read(files[place])[0] for place in sorted(place for place in files if first <= place < stop)]
    return Candidates.joined(parts)[start - first : stop - first]


def rows(log: Location, stop: int) -> Integers:
    """The rows of the picks before the place ``stop``, all of which must have been written."""
    files = _files(log)
    parts = [files[place].read_parquet(["rows"]).column("rows") for place in sorted(files) if place < stop]
    return np.concatenate([np.zeros(0, np.int64), *parts])[:stop]


def recover(log: Location) -> tuple[Candidates, Array] | None:
    """All picks that a run has left, and their sums when they were picked; None if it left none.

    A log is used up to the first file that is missing or damaged. That and all after it are removed: the picks in
    them are made again, and come out the same.
    """
    parts: list[tuple[Candidates, Array]] = []
    reached = 0
    for place, file in sorted(_files(log).items()):
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
    return Candidates.joined([logged for logged, _ in parts]), np.concatenate([novelty for _, novelty in parts])


def _files(log: Location) -> dict[int, Location]:
    """The files of the log by the place of their first pick."""
    files = [file for file in (log / "picks").entries() if not file.name.startswith(".")]
    return {int(file.name.split(".")[0]): file for file in files}


def _read(file: Location) -> tuple[Candidates, Array]:
    table = file.read_parquet().combine_chunks()
    vectors = table.column("vector").chunk(0)
    columns = {name: table.column(name).to_numpy() for name in _COLUMNS}
    logged = Candidates(**columns, vectors=vectors.flatten().to_numpy().reshape(len(vectors), -1))
    return logged, table.column("novelty").to_numpy()
