"""Which candidates a reference holds too, so that none is its own neighbour."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from novelsum.errors import InputError
from novelsum.files.embeddings import digests
from novelsum.files.location import Location
from novelsum.files.store import Block, Pool, read_block
from novelsum.settings import Settings


def mark_itself(spark: SparkSession, pool: Pool, reference: Pool, settings: Settings) -> Pool:
    """Find the candidates that the reference holds too, so that none is its own neighbour; return the pool so marked.

    With duplicates dropped an equal embedding is the candidate itself, as one of them stands for all; with duplicates
    kept its id must be equal as well. Raises InputError when embeddings or ids cannot be compared.
    """
    if reference.dimension != pool.dimension:
        raise InputError(
            f"embeddings of --reference {settings.reference} have {reference.dimension} dimensions, but those of "
            f"{settings.input} {pool.dimension}; embed both with one model"
        )
    if reference.integer_ids != pool.integer_ids:
        raise InputError(
            f"column {settings.id_column!r} holds integers in one of {settings.input} and {settings.reference} and "
            "strings in the other; write both with the same type of id"
        )
    (pool.work / "itself").make_folder()
    context, by_id = spark.sparkContext, settings.duplicates == "keep"
    wanted = context.parallelize(pool.blocks, len(pool.blocks)).flatMap(partial(_keys, pool.work, by_id))
    held = context.parallelize(reference.blocks, len(reference.blocks)).flatMap(partial(_keys, reference.work, by_id))
    found = wanted.cogroup(held, len(pool.blocks)).flatMap(_held)
    found.groupByKey(len(pool.blocks)).foreach(partial(_write_itself, pool.work))
    return replace(pool, marked=True)


def _keys(work: Location, by_id: bool, block: Block) -> Iterator[tuple[tuple[bytes, Any], tuple[str, int]]]:
    """What tells each candidate of a block, with the block and its place in it."""
    stored = read_block(work, block.name)
    ids = stored.ids.to_pylist() if by_id else [None] * block.rows
    for place, (id_, digest) in enumerate(zip(ids, digests(stored.vectors), strict=True)):
        yield (digest, id_), (block.name, place)


def _held(
    of_key: tuple[Any, tuple[Iterable[tuple[str, int]], Iterable[tuple[str, int]]]],
) -> Iterator[tuple[str, tuple[int, bool]]]:
    _, (places, in_reference) = of_key
    found = any(True for _ in in_reference)
    for name, place in places:
        yield name, (place, found)


def _write_itself(work: Location, of_block: tuple[str, Iterable[tuple[int, bool]]]) -> None:
    name, found = of_block
    write_itself(work, name, np.array([held for _, held in sorted(found)]))


def write_itself(work: Location, name: str, itself: NDArray[np.bool_]) -> None:
    """Write which candidates of the block of that name the reference holds too."""
    (work / "itself" / name).write_parquet(pa.table({"itself": itself}))


def read_itself(work: Location, name: str) -> NDArray[np.bool_]:
    """Which of the block's candidates the reference holds too; only of a pool that is ``marked``."""
    itself: NDArray[np.bool_] = (work / "itself" / name).read_parquet().column(0).to_numpy()
    return itself
