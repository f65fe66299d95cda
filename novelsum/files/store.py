"""The pool as the engine keeps it: candidates in blocks of Parquet in the work directory.

A candidate is known by its *row*: the rank of its id among all candidates, from 0. Ties by id are ties by
row, wherever the candidate lies. A block holds rows in ascending order; which rows share a block follows
the layout of the input and never matters for the result.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from novelsum.amounts import Costs
from novelsum.files.location import DUPLICATES, Location
from novelsum.groups import Group


@dataclass(frozen=True)
class Block:
    """One block of the store: its file name and its number of candidates."""

    name: str
    rows: int


@dataclass(frozen=True)
class Pool:
    """The candidates of a run, and what became of the rows that are not among them. The store lies in ``work``."""

    work: Location
    blocks: tuple[Block, ...]
    dimension: int
    itemsize: int
    """Bytes of a value of a vector in the store."""
    integer_ids: bool
    input_rows: int
    bad_rows: dict[str, int]
    duplicates_dropped: int
    distinct: int
    fingerprint: str
    groups: dict[Group, int] = field(default_factory=dict)
    greatest_quality: float = 0.0
    costs: Costs | None = None
    """What the candidates cost, where the run asks for that."""
    near_duplicates_dropped: int = 0
    marked: bool = False
    """Whether ``itself/`` says of each candidate if a reference holds it too."""

    @property
    def candidates(self) -> int:
        """Rows in all blocks."""
        return sum(block.rows for block in self.blocks)

    def for_json(self) -> dict[str, Any]:
        """All but where the store lies, as :meth:`from_json` takes it."""
        blocks = [[block.name, block.rows] for block in self.blocks]
        groups = [[group, rows] for group, rows in self.groups.items()]  # as a key of JSON, None would become text
        costs = self.costs and self.costs.for_json()
        fields = {**vars(self), "blocks": blocks, "groups": groups, "costs": costs}
        del fields["work"]
        return fields

    @staticmethod
    def from_json(work: Location, fields: dict[str, Any]) -> "Pool":
        """The pool whose store lies in ``work``."""
        blocks = tuple(Block(name, rows) for name, rows in fields["blocks"])
        costs = fields["costs"] and Costs.from_json(fields["costs"])
        return Pool(work=work, **{**fields, "blocks": blocks, "groups": dict(fields["groups"]), "costs": costs})

    def counts(self) -> dict[str, Any]:
        """What the manifest says of the input."""
        return {
            "input_rows": self.input_rows,
            "bad_rows": self.bad_rows,
            "duplicates_dropped": self.duplicates_dropped,
            "near_duplicates_dropped": self.near_duplicates_dropped,
            "candidates": self.candidates,
            "distinct_embeddings": self.distinct,
            "dimension": self.dimension,
            "blocks": len(self.blocks),
        }


@dataclass(frozen=True)
class StoredBlock:
    """The content of a block, n candidates in ascending row.

    ``rows`` (n,) int64; ``ids`` (n,); ``vectors`` (n, D) float32 or float64 as in the input; ``distinct``
    (n,) bool, true on the smallest id of those with equal embeddings; ``file`` and ``file_rows`` (n,) say
    where the other columns are. ``quality`` and ``cost`` (n,) float64 and ``groups`` (n,) text or null, where the run
    asks for them.
    """

    rows: NDArray[np.int64]
    ids: pa.Array
    vectors: NDArray[np.floating[Any]]
    distinct: NDArray[np.bool_]
    file: NDArray[np.int64]
    file_rows: NDArray[np.int64]
    quality: NDArray[np.float64] | None = None
    groups: pa.Array | None = None
    cost: NDArray[np.float64] | None = None

    def take(self, places: NDArray[np.int64]) -> "StoredBlock":
        """The candidates at some places of it, in that order."""
        return StoredBlock(
            rows=self.rows[places],
            ids=self.ids.take(pa.array(places)),
            vectors=self.vectors[places],
            distinct=self.distinct[places],
            file=self.file[places],
            file_rows=self.file_rows[places],
            quality=None if self.quality is None else self.quality[places],
            groups=None if self.groups is None else self.groups.take(pa.array(places)),
            cost=None if self.cost is None else self.cost[places],
        )

    @staticmethod
    def joined(blocks: list["StoredBlock"]) -> "StoredBlock":
        """Blocks one after the other, in no order of rows."""
        return StoredBlock(
            rows=np.concatenate([block.rows for block in blocks]),
            ids=pa.concat_arrays([block.ids for block in blocks]),
            vectors=np.concatenate([block.vectors for block in blocks]),
            distinct=np.concatenate([block.distinct for block in blocks]),
            file=np.concatenate([block.file for block in blocks]),
            file_rows=np.concatenate([block.file_rows for block in blocks]),
            quality=None if blocks[0].quality is None else np.concatenate([block.quality for block in blocks]),
            groups=None if blocks[0].groups is None else pa.concat_arrays([block.groups for block in blocks]),
            cost=None if blocks[0].cost is None else np.concatenate([block.cost for block in blocks]),
        )


@dataclass(frozen=True)
class Traits:
    """What is to be known of all candidates of a block, or of several: ``groups``, how many there are of each."""

    groups: dict[Group, int]
    greatest_quality: float
    costs: Costs | None

    @staticmethod
    def of(block: StoredBlock) -> "Traits":
        """What a run does not ask for is empty, zero or none."""
        return Traits(
            groups=Counter(block.groups.to_pylist() if block.groups is not None else []),
            greatest_quality=float(block.quality.max(initial=0.0)) if block.quality is not None else 0.0,
            costs=Costs.of(block.cost) if block.cost is not None else None,
        )

    @staticmethod
    def joined(parts: Sequence["Traits"]) -> "Traits":
        """Of all parts together."""
        groups: Counter[Group] = Counter()
        for part in parts:
            groups.update(part.groups)
        costs = [part.costs for part in parts if part.costs is not None]
        greatest_quality = max((part.greatest_quality for part in parts), default=0.0)
        return Traits(dict(groups), greatest_quality, Costs.joined(costs) if costs else None)


def block_location(work: Location, name: str) -> Location:
    """Where a block of the store lies."""
    return work / "store" / name


def write_block(work: Location, name: str, block: StoredBlock) -> None:
    """Write a block; vectors go uncompressed, as they hardly compress and are read many times."""
    dimension = block.vectors.shape[1]
    flat = pa.array(np.ascontiguousarray(block.vectors).reshape(-1))
    columns = {
        "row": block.rows,
        "id": block.ids,
        "vector": pa.FixedSizeListArray.from_arrays(flat, dimension),
        "distinct": block.distinct,
        "file": block.file,
        "file_row": block.file_rows,
        "quality": block.quality,
        "group": block.groups,
        "cost": block.cost,
    }
    table = pa.table({name: column for name, column in columns.items() if column is not None})
    block_location(work, name).write_parquet(table, compression="none", use_dictionary=False)


def read_block(work: Location, name: str) -> StoredBlock:
    """Read a block back as it was written."""
    table = block_location(work, name).read_parquet().combine_chunks()
    vectors = table.column("vector").chunk(0)
    return StoredBlock(
        rows=table.column("row").to_numpy(),
        ids=table.column("id").chunk(0),
        vectors=vectors.flatten().to_numpy().reshape(len(vectors), -1),
        distinct=table.column("distinct").to_numpy(),
        file=table.column("file").to_numpy(),
        file_rows=table.column("file_row").to_numpy(),
        quality=table.column("quality").to_numpy() if "quality" in table.column_names else None,
        groups=table.column("group").chunk(0) if "group" in table.column_names else None,
        cost=table.column("cost").to_numpy() if "cost" in table.column_names else None,
    )


def read_block_columns(work: Location, name: str, columns: list[str]) -> pa.Table:
    """Some columns of a block."""
    return block_location(work, name).read_parquet(columns)


def write_duplicates(work: Location, part: int, ids: pa.Array, kept: pa.Array, distances: NDArray[np.float64]) -> None:
    """Write ids that were dropped as copies or near-copies, the id kept for each, and their distance; by id."""
    table = pa.table({"id": ids, "kept": kept, "distance": distances}).sort_by("id")
    (work / DUPLICATES / f"part-{part:05d}.parquet").write_parquet(table)


def write_equal(work: Location, part: int, ids: pa.Array, digests: list[bytes]) -> None:
    """Write ids that were dropped as duplicates, with the digests of their embeddings: which row stands for them."""
    table = pa.table({"id": ids, "digest": pa.array(digests, pa.binary())})
    (work / "equal" / f"part-{part:05d}.parquet").write_parquet(table)


def read_equal(work: Location) -> dict[bytes, list[Any]]:
    """The ids that were dropped as duplicates, by the digest of their embedding."""
    equal: dict[bytes, list[Any]] = {}
    for file in (work / "equal").entries():
        table = file.read_parquet()
        for id_, digest in zip(*(table.column(name).to_pylist() for name in ("id", "digest")), strict=True):
            equal.setdefault(digest, []).append(id_)
    return equal
