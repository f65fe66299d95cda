"""Outliers and crowds: the candidates with the least and the greatest density factors."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from novelsum.files.store import StoredBlock
from novelsum.formula import Array
from novelsum.rows import Integers

SHOWN = 6
LEFT_OUT, SELECTED_BEFORE = -1, -2
"""Where a candidate stands among the picks that is none of them."""


@dataclass(frozen=True)
class Met:
    """A candidate that is shown: its row and id, σ, and where its other columns are."""

    row: int
    id: str | int
    density: float
    file: int
    file_row: int

    @staticmethod
    def at(stored: StoredBlock, density: Array, place: int) -> tuple[int, str | int, float, int, int]:
        """The fields of the candidate at a place of a block."""
        return (
            int(stored.rows[place]),
            stored.ids[place].as_py(),
            float(density[place]),
            int(stored.file[place]),
            int(stored.file_rows[place]),
        )


@dataclass(frozen=True)
class Extreme(Met):
    """One with a very low or high σ; ``pick``: its number, None where it is none of them."""

    pick: int | None
    selected_before: bool


@dataclass(frozen=True)
class Extremes:
    """The sparsest and the densest candidates, the most extreme first, ties by row."""

    lowest: list[Extreme]
    highest: list[Extreme]

    @staticmethod
    def of(stored: StoredBlock, density: Array, place: Integers) -> "Extremes":
        """Of a block with densities (n,); ``place`` (n,): of each among the picks, or as above."""

        def found(key: Array) -> list[Extreme]:
            return [
                Extreme(
                    *Met.at(stored, density, at),
                    int(place[at]) + 1 if place[at] >= 0 else None,
                    bool(place[at] == SELECTED_BEFORE),
                )
                for at in np.lexsort((stored.rows, key))[:SHOWN].tolist()
            ]

        return Extremes(found(density), found(-density))

    @staticmethod
    def joined(parts: Sequence["Extremes"]) -> "Extremes":
        """Of all blocks."""
        lowest = heapq.nsmallest(SHOWN, (one for p in parts for one in p.lowest), lambda one: (one.density, one.row))
        highest = heapq.nsmallest(SHOWN, (one for p in parts for one in p.highest), lambda one: (-one.density, one.row))
        return Extremes(lowest, highest)
