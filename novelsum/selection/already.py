"""Samples selected before, which a selection begins with: found in the pool, or taken in beside it.

With duplicates dropped a sample is the candidate that has its embedding, if there is one, as one of equals stands for
all; with duplicates kept it is the candidate that has its id. Any other sample lies outside the pool: it gets a density
factor like a candidate's and rows after all candidates, in the order of ids.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import SparkContext

from novelsum.density.exact import estimate_density
from novelsum.density.factors import read_density
from novelsum.density.given import load_density
from novelsum.density.reference import mark_itself
from novelsum.errors import InputError
from novelsum.files.embeddings import digests
from novelsum.files.ingest import ingest
from novelsum.files.location import DUPLICATES, Location
from novelsum.files.source import Chunk, Source, open_selected, read_columns, require_same_ids
from novelsum.files.store import Block, Pool, read_block, read_block_columns
from novelsum.files.workplace import SelectedBefore
from novelsum.rows import Integers, common_places
from novelsum.selection import picklog
from novelsum.selection.candidates import Candidates
from novelsum.settings import Settings
from novelsum.spark.matching import search

logger = logging.getLogger("novelsum")

_CHUNK_ROWS = 1 << 16
_ALREADY = "already"
"""Where the samples that come with embeddings are ingested, in the folder of the log."""


@dataclass(frozen=True)
class _Found:
    """Candidates that were looked for, as they are stored, with ids and digests."""

    stored: Candidates
    ids: list[str | int]
    digests: list[bytes]


def log_already_selected(
    context: SparkContext,
    source: Source,
    pool: Pool,
    corpus: Pool | None,
    factors: Location,
    given: Source | None,
    settings: Settings,
    before: SelectedBefore,
    work: Location,
) -> dict[str, Any]:
    """Begin the pick log with the samples of ``already_selected``; return how many there are, and of which selections.

    ``corpus``: the reference, if it is not the pool itself; ``factors``: where the pool's density factors lie;
    ``given``: density factors, where they are not estimated; ``before``: what ``already_selected`` means; ``work``:
    the folder that the log is begun in.
    Raises InputError where a sample is not found or does not fit the pool.
    """
    samples = open_selected(before.seen, settings.id_column, settings.embedding_column)
    require_same_ids(settings.id_column, {one.path: one.integer_ids for one in (samples, source)})
    if samples.has_vectors:
        logged = _with_vectors(context, samples, pool, corpus, factors, given, settings, work / _ALREADY)
    else:
        logged = _by_id(context, samples, pool, factors, settings)
    (work / "picks").make_folder()
    picklog.append(work, 0, logged, np.zeros(len(logged)))
    logger.info(
        "already selected: %d samples, of which %d are candidates", len(logged), (logged.rows < pool.candidates).sum()
    )
    if before.later:
        logger.info("not counted, as they began with the picks of this output: %s", ", ".join(before.later))
    return {"samples": len(logged), "began_with": before.outputs, "left_out": before.later}


def _by_id(context: SparkContext, samples: Source, pool: Pool, factors: Location, settings: Settings) -> Candidates:
    """Samples of which only ids are given. One that was dropped as a copy is the candidate that was kept for it."""
    find = partial(_candidates, pool.work, factors, settings.density_power)
    wanted = frozenset(id_ for chunk in samples.chunks(_CHUNK_ROWS) for id_ in _ids(samples, chunk))
    parts = search(context, pool.blocks, wanted, find)
    missing = wanted - {id_ for part in parts for id_ in part.ids}
    copies, standing_in = _kept_for_copies(context, pool, missing, find)
    parts += standing_in
    missing -= copies
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(wanted)} ids of --already-selected {samples.path} are no candidates "
            f"(first: {min(missing)!r}); give their embeddings in column {settings.embedding_column!r} too"
        )
    return _once(parts)


def _with_vectors(
    context: SparkContext,
    samples: Source,
    pool: Pool,
    corpus: Pool | None,
    factors: Location,
    given: Source | None,
    settings: Settings,
    work: Location,
) -> Candidates:
    """Samples of which embeddings are given: candidates where they are, and those outside the pool."""
    plain = dataclasses.replace(settings.of_corpus(samples.path), on_bad_rows="fail")
    samples = dataclasses.replace(samples, wide=pool.itemsize == 8)
    taken = ingest(context, samples, plain, work)
    if taken.dimension != pool.dimension:
        raise InputError(
            f"embeddings of --already-selected {samples.path} have {taken.dimension} dimensions, but those of "
            f"{settings.input} {pool.dimension}; embed both with one model"
        )
    blocks = [read_block(work, block.name) for block in taken.blocks]
    of_id = {
        id_: digest
        for block in blocks
        for id_, digest in zip(block.ids.to_pylist(), digests(block.vectors), strict=True)
    }
    by_digest = settings.duplicates == "drop"
    wanted = frozenset[str | int | bytes]([*of_id, *(of_id.values() if by_digest else ())])
    find = partial(_candidates, pool.work, factors, settings.density_power)
    parts = search(context, pool.blocks, wanted, find)
    for part in parts:
        for id_, digest in zip(part.ids, part.digests, strict=True):
            if of_id.get(id_, digest) != digest:
                raise InputError(
                    f"id {id_!r} has one embedding in {settings.input} and another in --already-selected "
                    f"{samples.path}; embed both with one model or give other ids"
                )
    seen = {key for part in parts for key in (part.digests if by_digest else part.ids)}
    missing = frozenset(of_id).difference(*(part.ids for part in parts))
    copies, standing_in = _kept_for_copies(context, pool, missing, find)
    parts += standing_in
    outside = [
        np.array(
            [
                (digest if by_digest else id_) not in seen and id_ not in copies
                for id_, digest in _keys_of(block.ids, block.vectors)
            ],
            bool,
        )
        for block in blocks
    ]
    if any(chosen.any() for chosen in outside):
        if given is None:
            taken = mark_itself(context, taken, corpus or pool, settings)
            estimate_density(context, taken, settings, work, corpus or pool)
        else:
            load_density(context, taken, given, work)
        for block, content, chosen in zip(taken.blocks, blocks, outside, strict=True):
            density = read_density(work, block.name).density[chosen]
            rows = pool.candidates + content.rows[chosen]
            found = Candidates.plain(rows, content.vectors[chosen], density**settings.density_power)
            parts.append(_Found(found, [], []))
    return _once(parts)


def ids_of_logged(context: SparkContext, pool: Pool, log: Location, rows: Integers) -> list[str | int]:
    """The ids of the rows (n,) that a pick log in that folder begins with, in their order."""
    if not len(rows):
        return []
    inside, outside = np.sort(rows[rows < pool.candidates]), np.sort(rows[rows >= pool.candidates])
    names = context.parallelize([block.name for block in pool.blocks], len(pool.blocks))
    found = dict(names.flatMap(partial(_ids_of_rows, pool.work, inside)).collect())
    if len(outside):
        for file in (log / _ALREADY / "store").entries():
            taken = _ids_of_rows(log / _ALREADY, outside - pool.candidates, file.name)
            found.update((pool.candidates + row, id_) for row, id_ in taken)
    return [found[row] for row in rows.tolist()]


def _kept_for_copies(
    context: SparkContext, pool: Pool, ids: frozenset[str | int], find: Callable[..., Iterator[_Found]]
) -> tuple[frozenset[str | int], list[_Found]]:
    """Which of the ids were dropped as copies, and the candidates that were kept for them."""
    lists = (pool.work / DUPLICATES).entries()
    kept_for = dict(search(context, lists, ids, _kept_for)) if ids and lists else {}
    kept = frozenset(kept_for.values())
    return frozenset(kept_for), search(context, pool.blocks, kept, find) if kept else []


def _once(parts: list[_Found]) -> Candidates:
    """All that was found, each row once."""
    logged = Candidates.joined([part.stored for part in parts])
    _, first = np.unique(logged.rows, return_index=True)
    return logged[first]


def _keys_of(ids: pa.Array, vectors: NDArray[np.floating[Any]]) -> Iterator[tuple[str | int, bytes]]:
    return zip(ids.to_pylist(), digests(vectors), strict=True)


def _ids(samples: Source, chunk: Chunk) -> Iterator[str | int]:
    """The ids of a chunk; raise InputError where one is null."""
    for batch in read_columns(samples, chunk, [samples.id_column]):
        ids = batch.column(samples.id_column).cast(pa.int64() if samples.integer_ids else pa.string()).to_pylist()
        if None in ids:
            raise InputError(
                f"--already-selected {samples.path} has a null id in column {samples.id_column!r}; remove it"
            )
        yield from ids


# --- tasks ------------------------------------------------------------------------------------------------


def _candidates(
    work: Location, factors: Location, density_power: float, wanted: frozenset[str | int | bytes], block: Block
) -> Iterator[_Found]:
    """Those of a block that have a wanted id or digest."""
    stored = read_block(work, block.name)
    keys = list(_keys_of(stored.ids, stored.vectors))
    at = np.array([i for i, (id_, digest) in enumerate(keys) if id_ in wanted or digest in wanted], np.int64)
    powered = read_density(factors, block.name).density[at] ** density_power
    found = Candidates.plain(stored.rows[at], stored.vectors[at], powered)
    yield _Found(found, [keys[i][0] for i in at], [keys[i][1] for i in at])


def _ids_of_rows(work: Location, wanted: Integers, name: str) -> list[tuple[int, str | int]]:
    """Those of some sorted rows that a block has, with their ids."""
    table = read_block_columns(work, name, ["row", "id"])
    at, _ = common_places(table.column("row").to_numpy(), wanted)
    return list(zip(*(column.to_pylist() for column in table.take(pa.array(at)).columns), strict=True))


def _kept_for(wanted: frozenset[str | int], file: Location) -> Iterator[tuple[str | int, str | int]]:
    """Of a list of copies that were dropped those with a wanted id, and the id that was kept for each."""
    table = file.read_parquet(["id", "kept"])
    ids, kept = (table.column(name).to_pylist() for name in ("id", "kept"))
    yield from ((id_, other) for id_, other in zip(ids, kept, strict=True) if id_ in wanted)
