"""Stage 2: the density factor of every candidate, over the pool itself or over a reference.

The exact search is here: each task holds one block of candidates and streams the whole corpus past it. The search
that looks into near cells only is :mod:`novelsum.partition`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from novelsum.errors import InputError
from novelsum.layout import digests, read_itself, write_itself
from novelsum.neighbors import NearestDistances, Sought
from novelsum.partition import approximate_density, approximate_is_cheaper
from novelsum.progress import collect
from novelsum.settings import Settings
from novelsum.source import Chunk, Source, read_columns
from novelsum.storage import Location
from novelsum.store import Block, BlockDensity, Pool, read_block, read_density, write_density

LARGEST_POWERED = 1e150
"""A density factor to the power κ2 must stay below this, for sums over distances to stay finite."""

_CHUNK_ROWS = 1 << 20


def require_finite_powers(pool: Pool, settings: Settings) -> None:
    """Raise InputError when a density factor to the power κ2 is no positive finite number."""
    for block in pool.blocks:
        density = read_density(pool.work, block.name).density
        with np.errstate(over="ignore", under="ignore"):
            powered = np.array([density.min(), density.max()]) ** settings.density_power
        if not (powered[0] > 0 and powered[1] < LARGEST_POWERED):
            raise InputError(
                f"--density-power {settings.density_power:g} takes density factors between {density.min():g} and "
                f"{density.max():g} out of the range of numbers; use a smaller power or scale the embeddings"
            )


def require_enough_neighbors(corpus: Pool, settings: Settings) -> None:
    """Raise InputError unless every candidate has K others in the corpus to be its neighbours."""
    points = corpus.distinct if settings.formula == "released" else corpus.candidates
    if settings.neighbors >= points:
        kind = "distinct embeddings" if settings.formula == "released" else "candidates"
        kind += " of the reference" if settings.reference else ""
        raise InputError(
            f"--neighbors {settings.neighbors} must be below the number of {kind}, which is {points}: "
            "a point is not its own neighbour; ask for fewer"
        )


def estimate_density(
    spark: SparkSession, pool: Pool, settings: Settings, reference: Pool | None = None, for_state: bool = False
) -> dict[str, Any]:
    """Write the density factor of every candidate beside the store; return what the manifest says of it.

    ``for_state``: lay the candidates out by cells also where all of those are searched.
    """
    sought = Sought(settings.formula, settings.metric, settings.neighbors, reference is not None)
    corpus = reference or pool
    method = settings.density_method
    if method == "auto":
        method = "approximate" if approximate_is_cheaper(pool, corpus) else "exact"
    if method == "approximate" or for_state:
        target = settings.target_recall if method == "approximate" else 1.0
        return approximate_density(spark, pool, corpus, sought, target)
    (pool.work / "density").make_folder()
    names = [block.name for block in pool.blocks]
    corpus_names = [block.name for block in corpus.blocks]
    task = partial(_estimate_blocks, pool.work, names, corpus.work, corpus_names, sought)
    blocks = spark.sparkContext.parallelize(range(len(names)), len(names))
    collect(blocks.mapPartitions(task), "density")
    return {"method": "exact"}


def _estimate_blocks(
    work: Location,
    names: list[str],
    corpus_work: Location,
    corpus_names: list[str],
    sought: Sought,
    blocks: Iterable[int],
) -> Iterator[int]:
    """Write the density factors of the blocks; yield the rows of each."""
    for number in blocks:
        block = read_block(work, names[number])
        queries = sought.points(block.vectors)
        nearest = NearestDistances(queries, sought.count, None if sought.holds_queries else block.rows)
        first = number % len(corpus_names)
        for other in corpus_names[first:] + corpus_names[:first]:
            corpus = read_block(corpus_work, other)
            wanted = corpus.distinct if sought.released else np.ones(len(corpus.rows), dtype=bool)
            if wanted.any():
                nearest.add(sought.points(corpus.vectors[wanted]), corpus.rows[wanted])
        itself = read_itself(work, names[number]) if sought.reference else None
        density, kth = sought.density(sought.of_neighbors(nearest.squared, itself))
        write_density(work, names[number], BlockDensity(density, kth))
        yield len(block.rows)


# --- reference --------------------------------------------------------------------------------------------


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


# --- density factors that were estimated before -----------------------------------------------------------


def load_density(spark: SparkSession, pool: Pool, given: Source) -> None:
    """Put the density factors of ``given``, found by id, beside the store.

    Raises InputError when a candidate has none or two, or one that is not a positive finite number.
    """
    (pool.work / "density").make_folder()
    context = spark.sparkContext
    chunks = given.chunks(_CHUNK_ROWS)
    by_id = context.parallelize(chunks, len(chunks)).mapPartitions(partial(_read_given, given))
    wanted = context.parallelize(pool.blocks, len(pool.blocks)).flatMap(partial(_places, pool.work))
    found = wanted.cogroup(by_id, len(pool.blocks)).flatMap(_matched).groupByKey(len(pool.blocks))
    faulty = found.flatMap(partial(_write_given, pool.work)).collect()
    for fault, what in _GIVEN_FAULTS.items():
        ids = [id_ for id_, of_id in faulty if of_id == fault]
        if ids:
            what = what.format(path=given.path)
            raise InputError(f"{len(ids)} candidate(s) have {what} (first id: {min(ids)!r})")


_GIVEN_FAULTS = {
    "missing": "no density in {path}; estimate it over the same input with the same --duplicates",
    "repeated": "more than one density in {path}; leave one for each id",
    "invalid": "a density in {path} that is not a positive finite number; estimate it again",
}


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
    work: Location, of_block: tuple[str, Iterable[tuple[int, str | int, list[float]]]]
) -> Iterator[tuple[str | int, str]]:
    """Write the densities of a block; yield the ids that have no good one, and why."""
    name, found = of_block
    in_order = sorted(found)
    density = np.array([values[0] if values else np.nan for _, _, values in in_order], dtype=np.float64)
    write_density(work, name, BlockDensity(density, np.full(len(density), np.nan)))
    for _, id_, values in in_order:
        if len(values) != 1:
            yield id_, "repeated" if values else "missing"
        elif values[0] is None or not 0 < values[0] < np.inf:
            yield id_, "invalid"


# --- the result of the density job ------------------------------------------------------------------------


def write_density_result(spark: SparkSession, pool: Pool, id_column: str, folder: Location) -> None:
    """Write id, density and distance to the K-th neighbour of every candidate, a file for each block."""
    folder.make_folder()
    blocks = spark.sparkContext.parallelize(pool.blocks, len(pool.blocks))
    blocks.foreach(partial(_write_result, pool.work, id_column, folder))


def _write_result(work: Location, id_column: str, folder: Location, block: Block) -> None:
    density = read_density(work, block.name)
    columns = {
        id_column: read_block(work, block.name).ids,
        "density": density.density,
        "kth_distance": density.kth_distance,
    }
    (folder / f"part-{block.name}").write_parquet(pa.table(columns))
