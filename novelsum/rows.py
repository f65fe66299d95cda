"""Rows in plain NumPy: which of some are among others, and the lot that a seed draws for the id of each."""

import hashlib

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def common_places(rows: Integers, others: Integers) -> tuple[Integers, Integers]:
    """Where the rows lie that two ascending arrays have in common: places (k,) in the one and (k,) in the other."""
    first, last = np.searchsorted(rows, others), np.searchsorted(rows, others, side="right")
    found = np.flatnonzero(first < last)
    return first[found], found


def lot(seed: int, id_: str | int) -> bytes:
    """What a seed draws for an id: the rows with the smallest lots are drawn, whatever their order and files."""
    return hashlib.blake2b(f"{seed}\0{id_}".encode(), digest_size=16).digest()
