"""Random subsets of data sets, each a store of its own, to be measured as the sets themselves are.

A row is known by its embedding, and with ``--duplicates keep`` by its id too; one that lies in several of the sets is
drawn as one. The seed draws a lot for each from what it is known by, so that neither the order of rows nor their files
change what is drawn.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import RDD, SparkContext

from novelsum.diversity.onepass import DataSet
from novelsum.files.location import Location
from novelsum.files.store import Block, StoredBlock, read_block, write_block
from novelsum.rows import Integers, common_places, lot
from novelsum.spark.matching import embeddings, keyed_rows
from novelsum.spark.shared import Shared

_BLOCK_ROWS = 8192
_BLOCK_BYTES = 64 << 20

_Drawn = tuple[bytes, bytes, int, int]
"""A row's lot, the digest of its embedding, the number of the set it is taken from, and its row there."""


@dataclass(frozen=True)
class Subset:
    """Rows of some sets in their order: ``source`` (n,) the set of each and ``rows`` (n,) its row there.

    ``distinct`` (n,): true on the first of those with equal embeddings.
    """

    source: Integers
    rows: Integers
    distinct: NDArray[np.bool_]


class Drawing:
    """Rows of one or several data sets, each once, to draw from."""

    def __init__(self, context: SparkContext, sets: Sequence[DataSet], by_id: bool) -> None:
        self.sets = tuple(sets)
        keys = partial(embeddings, by_id)
        of_sets = [
            keyed_rows(context, data.work, data.blocks, keys).map(partial(_in_set, number))
            for number, data in enumerate(self.sets)
        ]
        together = context.union(of_sets)
        if len(self.sets) > 1:
            together = together.reduceByKey(min, context.defaultParallelism)
        self._rows: RDD[tuple[object, tuple[int, int]]] = together.cache()
        self.rows = self._rows.count()
        """How many there are."""

    def draw(self, count: int, seeds: Sequence[int]) -> list[Subset]:
        """That many rows for each seed."""
        parts = self._rows.mapPartitions(partial(_smallest_lots, count, tuple(seeds))).collect()
        found = []
        for number in range(len(seeds)):
            drawn = heapq.nsmallest(count, (one for part in parts for one in part[number]))
            drawn.sort(key=lambda one: one[2:])
            first = {digest: at for at, (_, digest, _, _) in reversed([*enumerate(drawn)])}
            distinct = [first[digest] == at for at, (_, digest, _, _) in enumerate(drawn)]
            source, rows = (np.array([one[at] for one in drawn], dtype=np.int64) for at in (2, 3))
            found.append(Subset(source, rows, np.array(distinct)))
        return found

    def done(self) -> None:
        """Let go of what was kept to draw from."""
        self._rows.unpersist()


def write_subsets(
    context: SparkContext, sets: Sequence[DataSet], subsets: Sequence[Subset], dimension: int, work: Location
) -> list[DataSet]:
    """Write each subset as a store in a folder of its own in ``work``, its rows counted from 0."""
    folders = [work / f"subset-{number:02d}" for number in range(len(subsets))]
    for folder in folders:
        (folder / "store").make_folder()
    size = max(64, min(_BLOCK_ROWS, _BLOCK_BYTES // (8 * dimension)))
    message = Shared.of(context, tuple(subsets))
    names = [(number, data.work, block) for number, data in enumerate(sets) for block in data.blocks]
    pieces = context.parallelize(names, len(names)).flatMap(partial(_pieces, message, size))
    written = pieces.groupByKey(context.defaultParallelism).map(partial(_write, folders)).collect()
    message.destroy()
    return [
        DataSet(folder, tuple(block for at, block in sorted(written, key=lambda one: one[1].name) if at == number))
        for number, folder in enumerate(folders)
    ]


def _in_set(number: int, keyed: tuple[object, int]) -> tuple[object, tuple[int, int]]:
    return keyed[0], (number, keyed[1])


def _smallest_lots(
    count: int, seeds: tuple[int, ...], part: Iterable[tuple[object, tuple[int, int]]]
) -> Iterator[list[list[_Drawn]]]:
    rows: list[tuple[Any, str, int, int]] = [
        (key[0] if isinstance(key, tuple) else key, repr(key), *place) for key, place in part
    ]
    yield [
        heapq.nsmallest(count, ((lot(seed, key), digest, number, row) for digest, key, number, row in rows))
        for seed in seeds
    ]


def _pieces(
    message: Shared[tuple[Subset, ...]], size: int, named: tuple[int, Location, Block]
) -> Iterator[tuple[tuple[int, int], StoredBlock]]:
    """What each subset takes of a block, by the number of the subset and that of the block that it goes into."""
    number, work, block = named
    content = read_block(work, block.name)
    for at, subset in enumerate(message.value):
        of_set = np.flatnonzero(subset.source == number)
        places, found = common_places(content.rows, subset.rows[of_set])
        new = of_set[found]
        for target in np.unique(new // size).tolist():
            here = new // size == target
            rows = new[here]
            piece = replace(
                content.take(places[here]), rows=rows, ids=pa.array(rows), distinct=subset.distinct[rows], file=rows * 0
            )
            yield (at, target), replace(piece, file_rows=rows, quality=None, groups=None, cost=None)


def _write(folders: list[Location], of_block: tuple[tuple[int, int], Iterable[StoredBlock]]) -> tuple[int, Block]:
    (at, target), pieces = of_block
    together = StoredBlock.joined(list(pieces))
    together = together.take(np.argsort(together.rows))
    name = f"{target:06d}.parquet"
    write_block(folders[at], name, together)
    return at, Block(name, len(together.rows))
