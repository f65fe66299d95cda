"""The final picks as the executors of a host have them: in files of its scratch that all their tasks map.

The pick log is the truth; what the files lack comes from it and from the round's broadcast.
"""

import fcntl
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.rows import Integers
from novelsum.selection.candidates import Picks
from novelsum.spark.local import made_aside, make_array

_AT_ONCE = 4096
_NAMES = [field.name for field in fields(Picks)]
_MEASURES = [name for name in _NAMES if name != "vectors"]


def file_bytes(places: int, dimension: int) -> int:
    """Bytes that they take on a host, for so many picks."""
    return places * (4 * dimension + 44)


def final_picks(folder: Path, places: int, count: int, missing: Callable[[int, int], Picks]) -> Picks:
    """The first ``count`` picks, with points in float32, mapped from the folder, which has room for all ``places``.

    ``missing`` gives those from one place to another.
    """
    while True:
        try:
            return _mapped(folder, places, count, missing)
        except FileNotFoundError:  # somebody cleans up, at this moment even
            shutil.rmtree(folder, ignore_errors=True)


def _mapped(folder: Path, places: int, count: int, missing: Callable[[int, int], Picks]) -> Picks:
    if not folder.exists():
        _make(folder, places, missing(0, 1))
    known: NDArray[np.int64] = np.load(folder / "count.npy", mmap_mode="r+")
    picks = Picks(*(np.load(folder / f"{name}.npy", mmap_mode="r+") for name in _NAMES))
    with open(folder / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for start in range(int(known[0]), count, _AT_ONCE):
            stop = min(start + _AT_ONCE, count)
            picks[start:stop] = missing(start, stop)
            known[0] = stop
    return picks[:count]


def _make(folder: Path, places: int, like: Picks) -> None:
    """Make files with room for all picks beside their place, and move them there."""
    with made_aside(folder) as made:
        for name in _NAMES:
            column = getattr(like, name)
            make_array(made / f"{name}.npy", column.dtype, (places, *column.shape[1:]))
        np.save(made / "count.npy", np.zeros(1, np.int64))
        (made / "lock").touch()


class _Joined:
    """Two arrays of rows as one, of which a slice is copied only where it lies in both."""

    def __init__(self, first: NDArray[Any], second: NDArray[Any]) -> None:
        self._first, self._second = first, second

    def __getitem__(self, part: slice | Integers) -> NDArray[Any]:
        split = len(self._first)
        if not isinstance(part, slice):
            rows = np.empty((len(part), *self._first.shape[1:]), self._first.dtype)
            is_first = part < split
            rows[is_first], rows[~is_first] = self._first[part[is_first]], self._second[part[~is_first] - split]
            return rows
        if part.stop <= split:
            return np.asarray(self._first[part])
        after = self._second[max(part.start - split, 0) : part.stop - split]
        return np.concatenate([self._first[part.start :], after]) if part.start < split else after


def with_drafted(final: Picks, drafted: Picks) -> Picks:
    """All picks of a round, of whose points some can be had."""
    columns = {name: np.concatenate([getattr(final, name), getattr(drafted, name)]) for name in _MEASURES}
    vectors: Any = _Joined(final.vectors, drafted.vectors)
    return Picks(**columns, vectors=vectors)
