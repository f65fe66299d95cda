"""The pick log: all picks in order, in files of the work directory that are written once.

With the store it is what a selection can be continued or rebuilt from.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from novelsum.formula import Array
from novelsum.sketch import Integers
from novelsum.storage import Location


@dataclass(frozen=True)
class Logged:
    """Picks in order: rows (n,) int64, σ^κ2 (n,) float64, vectors (n, D) as in the store."""

    rows: Integers
    powered: Array
    vectors: NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> "Logged":
        return Logged(self.rows[part], self.powered[part], self.vectors[part])

    @staticmethod
    def joined(parts: list["Logged"]) -> "Logged":
        """Picks of all parts, one after the other."""
        return Logged(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.powered for part in parts]),
            np.concatenate([part.vectors for part in parts]),
        )


def append(work: Location, start: int, picks: Logged) -> None:
    """Write the picks from place ``start`` on."""
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(picks.vectors).reshape(-1)), picks.vectors.shape[1]
    )
    table = pa.table({"row": picks.rows, "powered": picks.powered, "vector": vectors})
    (work / "picks" / f"{start:09d}.parquet").write_parquet(table, compression="none", use_dictionary=False)


def read(work: Location, start: int, stop: int) -> Logged:
    """The picks at the places from ``start`` to ``stop``, all of which must have been written."""
    files = {int(file.name.split(".")[0]): file for file in (work / "picks").entries() if not file.name.startswith(".")}
    first = max(place for place in files if place <= start)
    parts = []
    for place in sorted(place for place in files if first <= place < stop):
        table = files[place].read_parquet().combine_chunks()
        vectors = table.column("vector").chunk(0)
        parts.append(
            Logged(
                table.column("row").to_numpy(),
                table.column("powered").to_numpy(),
                vectors.flatten().to_numpy().reshape(len(vectors), -1),
            )
        )
    return Logged.joined(parts)[start - first : stop - first]
