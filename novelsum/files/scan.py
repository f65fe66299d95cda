"""Rows of the input without their vectors: what is known and wrong of each, and what only all of them together tell.

Nothing here knows Spark or files. Each function takes rows in any order and finds the same.
"""

import hashlib
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from novelsum.rows import Integers

LARGEST_VALUE = 1e100
"""Values above this are refused: their squares would overflow float64."""
FAULTS = {
    "null id": ("have a null id in column {id}", "give every row an id"),
    "null embedding": ("are null, empty or malformed in column {embedding}", "embed them"),
    "not finite": ("hold NaN, infinite or null values in column {embedding}", "embed them again"),
    "too large": (
        f"hold values above {LARGEST_VALUE:g} in magnitude in column {{embedding}}",
        "scale the embeddings down",
    ),
    "zero vector": (
        "are zero vectors in column {embedding}, which have no cosine distance",
        "embed them again or use --metric euclidean",
    ),
    "unequal length": (
        "have another length than most, {dimension}, in column {embedding}",
        "embed all rows with one model",
    ),
    "bad quality": ("have a null, negative or infinite quality", "give every row one of at least 0"),
    "bad cost": ("have a null, infinite or no positive cost", "give every row one above 0"),
    "duplicate id": (
        "share their id in column {id} with another row",
        "make ids unique",
    ),
}
"""What may be wrong with a row: what such rows do, and what to do about them; in the order they are reported."""
REASONS = tuple(FAULTS)
CODES = {reason: code for code, reason in enumerate(REASONS)}
GOOD = -1

_ARRAYS = ("digests", "lengths", "reasons", "chunks", "positions", "distinct")


@dataclass(frozen=True)
class Rows:
    """Some rows, n of them.

    ``ids`` (n,); ``digests`` (n, 2) uint64, of the vectors, equal for equal ones; ``lengths`` (n,) of the vectors;
    ``reasons`` (n,) int8, what is wrong by its place in REASONS, or GOOD; ``chunks`` and ``positions`` (n,) say where a
    row lies; ``distinct`` (n,) bool, true on the smallest id of those good ones that share an embedding, once known.
    ``unreadable``: what there is to tell of files that could not be read to their end.
    """

    ids: pa.Array
    digests: NDArray[np.uint64]
    lengths: NDArray[np.int32]
    reasons: NDArray[np.int8]
    chunks: NDArray[np.int32]
    positions: NDArray[np.int64]
    distinct: NDArray[np.bool_]
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.reasons)

    @property
    def good(self) -> Integers:
        """Where nothing is wrong."""
        return np.flatnonzero(self.reasons == GOOD)

    def take(self, places: Integers) -> "Rows":
        """The rows at some places, in that order."""
        arrays = {name: getattr(self, name)[places] for name in _ARRAYS}
        return Rows(self.ids.take(pa.array(places)), **arrays)

    @staticmethod
    def none(integer_ids: bool, unreadable: str) -> "Rows":
        """No row, but what there is to tell of a file."""
        arrays: dict[str, Any] = dict.fromkeys(_ARRAYS, np.zeros(0, dtype=np.int8))
        arrays["digests"] = np.zeros((0, 2), dtype=np.uint64)
        return Rows(pa.array([], pa.int64() if integer_ids else pa.string()), **arrays, unreadable=(unreadable,))

    @staticmethod
    def joined(pieces: Sequence["Rows"]) -> "Rows":
        """One after the other."""
        arrays: dict[str, Any] = {name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in _ARRAYS}
        unreadable = tuple(told for piece in pieces for told in piece.unreadable)
        return Rows(pa.concat_arrays([piece.ids for piece in pieces]), **arrays, unreadable=unreadable)

    def split(self, parts: Integers) -> Iterator[tuple[int, "Rows"]]:
        """The rows of each part, for the part of each row (n,)."""
        for part, places in places_of_each(parts):
            yield part, self.take(places)

    def parts_by_id(self, parts: int) -> Integers:
        """The same part for rows with the same id."""
        if parts == 1:
            return np.zeros(len(self), dtype=np.int64)
        return np.array([zlib.crc32(str(id_).encode()) for id_ in self.ids.to_pylist()], dtype=np.int64) % parts

    def parts_by_digest(self, parts: int) -> Integers:
        """The same part for good rows with equal embeddings."""
        spread = np.where(self.reasons == GOOD, self.digests[:, 0], self.positions.astype(np.uint64))
        return (spread % np.uint64(parts)).astype(np.int64)

    def sorted_ids(self) -> list[Any]:
        """The ids in their order."""
        ids: list[Any] = self.ids.take(pa.array(self.by_id())).to_pylist()
        return ids

    def by_id(self) -> Integers:
        """Where the rows are in the order of their ids."""
        order: Integers = pc.sort_indices(self.ids).to_numpy().astype(np.int64)
        return order

    def parts_by_range(self, bounds: list[Any]) -> Integers:
        """The part of the range that an id lies in, when each but the first begins with one of the ``bounds``."""
        order, ids = self.by_id(), self.sorted_ids() if bounds else []
        parts = np.zeros(len(self), dtype=np.int64)
        for bound in bounds:
            parts[order[bisect_left(ids, bound) :]] += 1
        return parts


def places_of_each(keys: NDArray[np.integer[Any]]) -> Iterator[tuple[int, Integers]]:
    """Each key (n,) with the places where it is, in their order."""
    order = np.argsort(keys, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1) if len(order) else ():
        yield int(keys[places[0]]), places


@dataclass
class Summary:
    """What there is to tell of rows before it is known which of them agree."""

    lengths: Counter[int]
    """Good rows by the length of their embeddings."""
    fingerprint: int
    """A number that depends on all rows but not on their order, below 2^96."""
    unreadable: tuple[str, ...]

    @staticmethod
    def of(rows: Rows) -> "Summary":
        """The fingerprint is the sum of a digest of each row, of its id, its vector, and what is wrong with it."""
        names = [*REASONS, "good"]  # GOOD is the last of them
        content = zip(rows.ids.to_pylist(), rows.reasons.tolist(), map(bytes, rows.digests), strict=True)
        total = sum(
            int.from_bytes(hashlib.blake2b(f"{id_}\0{names[reason]}".encode() + digest, digest_size=12).digest(), "big")
            for id_, reason, digest in content
        )
        return Summary(Counter(rows.lengths[rows.good].tolist()), total % (1 << 96), rows.unreadable)

    @staticmethod
    def of_all(parts: Sequence["Summary"]) -> "Summary":
        """Of all rows together."""
        return Summary(
            sum((part.lengths for part in parts), Counter()),
            sum(part.fingerprint for part in parts) % (1 << 96),
            tuple(told for part in parts for told in part.unreadable),
        )

    @property
    def dimension(self) -> int:
        """The most common length of embeddings, of equally common ones the greatest; 0 where no row is good."""
        return max(((rows, length) for length, rows in self.lengths.items()), default=(0, 0))[1]


def with_duplicate_ids(rows: Rows, dimension: int) -> Rows:
    """Mark rows of another length, then those whose id another good row has, of all rows with some ids.

    Of rows that agree in embedding too, the first in the input stays.
    """
    reasons = np.where((rows.reasons == GOOD) & (rows.lengths != dimension), CODES["unequal length"], rows.reasons)
    good = np.flatnonzero(reasons == GOOD)
    same = rows.ids.take(pa.array(good)).dictionary_encode().indices.to_numpy()
    order = np.lexsort((rows.positions[good], rows.chunks[good], same))
    begins = _begins(same[order])
    number = np.cumsum(begins) - 1
    ordered = good[order]
    of_first = rows.digests[ordered[begins]][number]
    is_unlike = np.zeros(len(ordered), dtype=bool)
    is_unlike[number[(rows.digests[ordered] != of_first).any(axis=1)]] = True
    reasons[ordered[~begins | is_unlike[number]]] = CODES["duplicate id"]
    return replace(rows, reasons=reasons.astype(np.int8))


def with_distinct(rows: Rows) -> Rows:
    """Mark the good row with the smallest id of those with equal embeddings, of all rows with some embeddings."""
    good = rows.good
    rank = np.empty(len(good), dtype=np.int64)
    rank[rows.take(good).by_id()] = np.arange(len(good))
    order = np.lexsort((rank, rows.digests[good, 0], rows.digests[good, 1]))
    distinct = np.zeros(len(rows), dtype=bool)
    distinct[good[order[_begins(rows.digests[good[order]])]]] = True
    return replace(rows, distinct=distinct)


def equal_pairs(rows: Rows) -> tuple[Integers, Integers]:
    """Of rows that are marked, places (d,) of good ones that are not distinct, and of the distinct ones they equal."""
    good = rows.good
    order = good[np.lexsort((~rows.distinct[good], rows.digests[good, 0], rows.digests[good, 1]))]
    begins = _begins(rows.digests[order])
    return order[~begins], order[begins][np.cumsum(begins)[~begins] - 1]


def _begins(keys: NDArray[Any]) -> NDArray[np.bool_]:
    """Where another key begins, of keys (n,) or (n, 2) of which equal ones lie together."""
    begins = np.ones(len(keys), dtype=bool)
    differs = keys[1:] != keys[:-1]
    begins[1:] = differs.any(axis=1) if differs.ndim > 1 else differs
    return begins


@dataclass
class Found:
    """How many rows there are with each reason, GOOD among them, and the first of each in the input."""

    rows: Counter[int]
    first: dict[int, tuple[int, int, Any]]
    """Chunk, position and id."""
    distinct: int

    @staticmethod
    def of(rows: Rows) -> "Found":
        """Of rows that are marked."""
        order = np.lexsort((rows.positions, rows.chunks))
        codes, at = np.unique(rows.reasons[order], return_index=True)
        first = {
            int(code): (int(rows.chunks[place]), int(rows.positions[place]), rows.ids[place].as_py())
            for code, place in zip(codes, order[at].tolist(), strict=True)
        }
        return Found(Counter(rows.reasons.tolist()), first, int(rows.distinct.sum()))

    @staticmethod
    def of_all(parts: Sequence["Found"]) -> "Found":
        """Of all rows together."""
        first: dict[int, tuple[int, int, Any]] = {}
        for part in parts:
            for code, row in part.first.items():
                first[code] = min(first.get(code, row), row, key=lambda place: place[:2])
        return Found(sum((part.rows for part in parts), Counter()), first, sum(part.distinct for part in parts))
