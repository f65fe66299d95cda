"""The one join of rows by what they are known by: their ids, digests of their embeddings, or both.

By a shuffle where both sides may be large (:func:`matched`), by values sent to all tasks where one is small
(:func:`search`).
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from pyspark import RDD, SparkContext

from novelsum.files.embeddings import digests
from novelsum.files.location import Location
from novelsum.files.store import Block, read_block, read_block_columns
from novelsum.spark.shared import Shared

K = TypeVar("K")
P = TypeVar("P")
T = TypeVar("T")
V = TypeVar("V")

Keys = Callable[[Location, str], Iterable[Hashable]]
"""What the candidates of a block are known by, in the order of the block: of a work directory and the block's name."""


def ids(work: Location, name: str) -> list[Any]:
    """The ids of a block."""
    found: list[Any] = read_block_columns(work, name, ["id"]).column("id").to_pylist()
    return found


def embeddings(with_id: bool, work: Location, name: str) -> Iterable[Hashable]:
    """Digests of a block's embeddings, in float64 as two stores may differ in type; and their ids, if wanted."""
    stored = read_block(work, name)
    found = digests(stored.vectors.astype(np.float64))
    return zip(found, stored.ids.to_pylist(), strict=True) if with_id else found


def keyed_rows(context: SparkContext, work: Location, blocks: Sequence[Block], keys: Keys) -> RDD[tuple[Any, int]]:
    """The rows of a store with their keys, as :func:`matched` takes them."""
    return context.parallelize(blocks, len(blocks)).flatMap(partial(_keyed_rows, work, keys))


def matched(
    work: Location, blocks: Sequence[Block], keys: Keys, others: RDD[tuple[Any, V]]
) -> RDD[tuple[str, list[list[V]]]]:
    """Of each block of a store its name and, in the order of its candidates, what ``others`` hold under their keys."""
    parts = len(blocks)
    places = others.ctx.parallelize(blocks, parts).flatMap(partial(_keyed_places, work, keys))
    return places.cogroup(others, parts).flatMap(_pairs).groupByKey(parts).mapValues(_in_order)


def search(
    context: SparkContext,
    pieces: Sequence[P],
    wanted: frozenset[K],
    find: Callable[[frozenset[K], P], Iterable[T]],
) -> list[T]:
    """What ``find`` yields for the wanted keys in each piece of the data, of which every task is sent all."""
    message = Shared.of(context, wanted)
    try:
        return context.parallelize(pieces, len(pieces)).flatMap(partial(_search, find, message)).collect()
    finally:
        message.destroy()


def _keyed_rows(work: Location, keys: Keys, block: Block) -> Iterator[tuple[Any, int]]:
    rows = read_block_columns(work, block.name, ["row"]).column("row").to_pylist()
    yield from zip(keys(work, block.name), rows, strict=True)


def _keyed_places(work: Location, keys: Keys, block: Block) -> Iterator[tuple[Any, tuple[str, int]]]:
    for place, key in enumerate(keys(work, block.name)):
        yield key, (block.name, place)


def _pairs(
    of_key: tuple[Any, tuple[Iterable[tuple[str, int]], Iterable[V]]],
) -> Iterator[tuple[str, tuple[int, list[V]]]]:
    _, (places, others) = of_key
    found = list(others)
    for name, place in places:
        yield name, (place, found)


def _in_order(found: Iterable[tuple[int, list[V]]]) -> list[list[V]]:
    return [others for _, others in sorted(found, key=lambda of_place: of_place[0])]


def _search(find: Callable[[frozenset[K], P], Iterable[T]], wanted: Shared[frozenset[K]], piece: P) -> Iterable[T]:
    return find(wanted.value, piece)
