"""Density factors that were estimated before, found by id."""

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
from pyspark import SparkContext

from novelsum.density.factors import BlockDensity, write_density
from novelsum.errors import InputError
from novelsum.files.location import Location
from novelsum.files.source import Chunk, Source, read_columns
from novelsum.files.store import Pool
from novelsum.spark.matching import ids, matched

_CHUNK_ROWS = 1 << 20
_GIVEN_FAULTS = {
    "missing": "no density in {path}; estimate it over the same input with the same --duplicates and --near-duplicates",
    "repeated": "more than one density in {path}; leave one for each id",
    "invalid": "a density in {path} that is not a positive finite number; estimate it again",
}


def load_density(context: SparkContext, pool: Pool, given: Source, factors: Location) -> None:
    """Write the density factors of ``given``, found by id, to the folder ``factors``.

    Raises InputError when a candidate has none or two, or one that is not a positive finite number.
    """
    (factors / "density").make_folder()
    chunks = given.chunks(_CHUNK_ROWS)
    by_id = context.parallelize(chunks, len(chunks)).mapPartitions(partial(_read_given, given))
    found = matched(pool.work, pool.blocks, ids, by_id)
    faulty = found.flatMap(partial(_write_given, pool.work, factors)).collect()
    for fault, what in _GIVEN_FAULTS.items():
        of_fault = [id_ for id_, of_id in faulty if of_id == fault]
        if of_fault:
            what = what.format(path=given.path)
            raise InputError(f"{len(of_fault)} candidate(s) have {what} (first id: {min(of_fault)!r})")


def _read_given(given: Source, chunks: Iterable[Chunk]) -> Iterator[tuple[str | int, float]]:
    for chunk in chunks:
        for batch in read_columns(given, chunk, [given.id_column, given.value_column]):
            columns = (batch.column(name).to_pylist() for name in (given.id_column, given.value_column))
            yield from zip(*columns, strict=True)


def _write_given(
    work: Location, factors: Location, of_block: tuple[str, list[list[float]]]
) -> Iterator[tuple[str | int, str]]:
    """Write the densities of a block; yield the ids that have no good one, and why."""
    name, found = of_block
    density = np.array([values[0] if values else np.nan for values in found], dtype=np.float64)
    write_density(factors, name, BlockDensity(density, np.full(len(density), np.nan)))
    for id_, values in zip(ids(work, name), found, strict=True):
        if len(values) != 1:
            yield id_, "repeated" if values else "missing"
        elif values[0] is None or not 0 < values[0] < np.inf:
            yield id_, "invalid"
