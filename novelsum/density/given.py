"""Density factors that were estimated before, found by id."""

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
from pyspark.sql import SparkSession

from novelsum.density.factors import BlockDensity, write_density
from novelsum.errors import InputError
from novelsum.files.location import Location
from novelsum.files.source import Chunk, Source, read_columns
from novelsum.files.store import Block, Pool, read_block

_CHUNK_ROWS = 1 << 20
_GIVEN_FAULTS = {
    "missing": "no density in {path}; estimate it over the same input with the same --duplicates",
    "repeated": "more than one density in {path}; leave one for each id",
    "invalid": "a density in {path} that is not a positive finite number; estimate it again",
}


def load_density(spark: SparkSession, pool: Pool, given: Source, factors: Location) -> None:
    """Write the density factors of ``given``, found by id, to the folder ``factors``.

    Raises InputError when a candidate has none or two, or one that is not a positive finite number.
    """
    (factors / "density").make_folder()
    context = spark.sparkContext
    chunks = given.chunks(_CHUNK_ROWS)
    by_id = context.parallelize(chunks, len(chunks)).mapPartitions(partial(_read_given, given))
    wanted = context.parallelize(pool.blocks, len(pool.blocks)).flatMap(partial(_places, pool.work))
    found = wanted.cogroup(by_id, len(pool.blocks)).flatMap(_matched).groupByKey(len(pool.blocks))
    faulty = found.flatMap(partial(_write_given, factors)).collect()
    for fault, what in _GIVEN_FAULTS.items():
        ids = [id_ for id_, of_id in faulty if of_id == fault]
        if ids:
            what = what.format(path=given.path)
            raise InputError(f"{len(ids)} candidate(s) have {what} (first id: {min(ids)!r})")


def _read_given(given: Source, chunks: Iterable[Chunk]) -> Iterator[tuple[str | int, float]]:
    for chunk in chunks:
        for batch in read_columns(given, chunk, [given.id_column, given.value_column]):
            ids, values = (batch.column(name).to_pylist() for name in (given.id_column, given.value_column))
            yield from zip(ids, values, strict=True)


def _places(work: Location, block: Block) -> Iterator[tuple[str | int, tuple[str, int]]]:
    """The id of each candidate of a block with the block and its place in it."""
    for place, id_ in enumerate(read_block(work, block.name).ids.to_pylist()):
        yield id_, (block.name, place)


def _matched(
    of_id: tuple[str | int, tuple[Iterable[tuple[str, int]], Iterable[float]]],
) -> Iterator[tuple[str, tuple[int, str | int, list[float]]]]:
    """For a candidate's block: its place there, its id, and the densities found for it."""
    id_, (places, values) = of_id
    found = list(values)
    for name, place in places:
        yield name, (place, id_, found)


def _write_given(
    factors: Location, of_block: tuple[str, Iterable[tuple[int, str | int, list[float]]]]
) -> Iterator[tuple[str | int, str]]:
    """Write the densities of a block; yield the ids that have no good one, and why."""
    name, found = of_block
    in_order = sorted(found)
    density = np.array([values[0] if values else np.nan for _, _, values in in_order], dtype=np.float64)
    write_density(factors, name, BlockDensity(density, np.full(len(density), np.nan)))
    for _, id_, values in in_order:
        if len(values) != 1:
            yield id_, "repeated" if values else "missing"
        elif values[0] is None or not 0 < values[0] < np.inf:
            yield id_, "invalid"
