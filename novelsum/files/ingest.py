"""From input to store: check every row, drop duplicates, number the candidates by id, write blocks.

1. Scan: each task reads a chunk of the input and says of each row its id, its length, a digest of its
   vector, and what is wrong with it. Only this travels, as :class:`~novelsum.files.scan.Rows`; vectors stay where
   they are.
2. What no task sees alone is seen where all rows of an id, then all of a digest come together: unequal lengths,
   duplicate ids, equal embeddings. Bad rows end the run here, or are set aside with ``on_bad_rows = drop``.
3. The remaining ids are sorted once, by ranges; the position of an id is its row.
4. Each task reads its chunk again and writes the candidates to the store.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import RDD, SparkContext

from novelsum.compiled import import_ahead
from novelsum.errors import InputError
from novelsum.files.embeddings import digests
from novelsum.files.location import DUPLICATES, REJECTED, Location
from novelsum.files.scan import (
    CODES,
    FAULTS,
    GOOD,
    LARGEST_VALUE,
    REASONS,
    Found,
    Rows,
    Summary,
    equal_pairs,
    places_of_each,
    with_distinct,
    with_duplicate_ids,
)
from novelsum.files.source import Chunk, Source, read_ids_and_vectors
from novelsum.files.store import Block, Pool, StoredBlock, Traits, write_block, write_duplicates, write_equal
from novelsum.groups import group_of
from novelsum.settings import Settings

logger = logging.getLogger("novelsum")

BLOCK_BYTES = 64 << 20
SMALLEST_NORM = 1e-100
"""A vector shorter than this is a zero vector: the square of its length underflows."""

_PART_ROWS = 250_000
"""So many rows without their vectors come together in one task, about."""
_BOUNDS = 64
"""Ids that each such task names for the ranges by which all are sorted."""


def ingest(context: SparkContext, source: Source, settings: Settings, work: Location) -> Pool:
    """Write the store of a run, bad rows that are set aside and a list of duplicates to ``work``; return the pool.

    Raises InputError where the input breaks the contract.
    """
    chunks = source.chunks(_block_rows(source, settings, context.defaultParallelism, dimension=1))
    numbered = list(enumerate(chunks))
    parts = -(-source.rows // _PART_ROWS)
    asked = Asked(settings.quality_column, settings.group_column, settings.cost_column)
    scan = partial(_scan, source, settings.metric == "cosine", asked, parts)
    by_id = _together(context.parallelize(numbered, len(numbered)).mapPartitions(scan), parts)
    summary = Summary.of_all(by_id.map(Summary.of).collect())
    if summary.unreadable:
        raise InputError(min(summary.unreadable))

    dimension = summary.dimension
    checked = _together(by_id.flatMap(partial(_by_digest, dimension, parts)), parts).map(with_distinct)
    drop = settings.duplicates == "drop"
    if drop:
        (work / DUPLICATES).make_folder()
    found_ids = checked.mapPartitionsWithIndex(partial(_found, drop, parts, work)).collect()
    found = Found.of_all([of_part for of_part, _ in found_ids])
    bad_rows = _refuse_or_count(found, source, chunks, settings, dimension)
    if bad_rows:
        logger.warning("ingest: %d of %d rows are bad and set aside: %s", sum(bad_rows.values()), source.rows, bad_rows)
        _write_rejected(checked, source, chunks, work)
    if drop and (settings.update or settings.save_state):
        _write_equal(checked, work)

    (work / "store").make_folder()
    bounds = _bounds([id_ for _, ids in found_ids for id_ in ids], parts)
    in_range = _together(checked.flatMap(partial(_by_range, drop, bounds)), parts)
    sizes = dict(in_range.mapPartitionsWithIndex(_size).collect()) if bounds else {}
    placed = in_range.mapPartitionsWithIndex(partial(_by_chunk, sizes)).partitionBy(len(chunks), int)
    block_rows = _block_rows(source, settings, context.defaultParallelism, dimension)
    write = partial(_write_blocks, source, chunks, work, block_rows, asked)
    written = placed.mapPartitionsWithIndex(write).collect()
    return Pool(
        work=work,
        blocks=tuple(sorted((block for block, _ in written), key=lambda block: block.name)),
        dimension=dimension,
        itemsize=np.dtype(source.dtype).itemsize,
        integer_ids=source.integer_ids,
        input_rows=source.rows,
        bad_rows=bad_rows,
        duplicates_dropped=found.rows[GOOD] - found.distinct if drop else 0,
        distinct=found.distinct,
        fingerprint=f"{summary.fingerprint:024x}",
        **vars(Traits.joined([traits for _, traits in written])),
    )


_Placed = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]
"""Of candidates in a chunk: their positions, their rows, and whether they are distinct."""


@dataclass(frozen=True)
class Asked:
    """The columns that a selection asks of a candidate, if any."""

    quality: str | None
    group: str | None
    cost: str | None

    @property
    def columns(self) -> list[str]:
        """Each once."""
        return list(dict.fromkeys(column for column in vars(self).values() if column))


# --- tasks ------------------------------------------------------------------------------------------------


def _scan(
    source: Source, cosine: bool, asked: Asked, parts: int, chunks: Iterable[tuple[int, Chunk]]
) -> Iterator[tuple[int, Rows]]:
    """All rows but for their vectors, each with others for the part that its id belongs to."""
    import_ahead()  # this is a worker's first task, and it waits for files
    for number, chunk in chunks:
        held: list[Rows] = []
        try:
            for rows in _scanned(source, cosine, asked, number, chunk):
                held.append(rows)
                if sum(map(len, held)) >= _PART_ROWS:
                    yield from _by_id(parts, held)
                    held = []
        except InputError as error:
            yield 0, Rows.none(source.integer_ids, str(error))
        yield from _by_id(parts, held)


def _by_id(parts: int, held: list[Rows]) -> Iterator[tuple[int, Rows]]:
    if held:
        rows = Rows.joined(held)
        yield from rows.split(rows.parts_by_id(parts))


def _scanned(source: Source, cosine: bool, asked: Asked, number: int, chunk: Chunk) -> Iterator[Rows]:
    """The rows of a chunk in batches, with what is wrong with each by itself."""
    start = 0
    others = dict.fromkeys(column for column in (asked.quality, asked.cost) if column)
    for _, rows, ids, vectors, table in read_ids_and_vectors(source, chunk, list(others)):
        of_vector = np.zeros((len(rows), 2), dtype=np.uint64)
        reasons = np.full(len(rows), CODES["null embedding"], dtype=np.int8)
        for length in np.unique(vectors.lengths[vectors.lengths > 0]).tolist():
            at, matrix = vectors.of_length(length)
            reasons[at] = _faults(matrix, cosine)
            of_vector[at] = np.frombuffer(b"".join(digests(matrix)), dtype=np.uint64).reshape(-1, 2)
        if asked.quality:
            quality = _numbers(table, asked.quality)
            is_bad = ~(np.isfinite(quality) & (quality >= 0))
            reasons[is_bad & (reasons == GOOD)] = CODES["bad quality"]
        if asked.cost:
            cost = _numbers(table, asked.cost)
            is_bad = ~(np.isfinite(cost) & (cost > 0))
            reasons[is_bad & (reasons == GOOD)] = CODES["bad cost"]
        reasons[ids.is_null().to_numpy(zero_copy_only=False)] = CODES["null id"]
        yield Rows(
            ids=ids,
            digests=of_vector,
            lengths=vectors.lengths.astype(np.int32),
            reasons=reasons,
            chunks=np.full(len(rows), number, dtype=np.int32),
            positions=np.arange(start, start + len(rows)),
            distinct=np.zeros(len(rows), dtype=bool),
        )
        start += len(rows)


def _faults(matrix: np.ndarray[Any, Any], cosine: bool) -> NDArray[np.int8]:
    """What is wrong with each row (n, D)."""
    peak = np.abs(matrix).max(axis=1).astype(np.float64)  # NaN where any value is
    faults = np.full(len(matrix), GOOD, dtype=np.int8)
    if cosine:
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.sqrt(np.square(matrix, dtype=np.float64).sum(axis=1))
        faults[norms < SMALLEST_NORM] = CODES["zero vector"]
    faults[peak > LARGEST_VALUE] = CODES["too large"]
    faults[~np.isfinite(peak)] = CODES["not finite"]
    return faults


def _write_blocks(
    source: Source,
    chunks: list[Chunk],
    work: Location,
    block_rows: int,
    asked: Asked,
    number: int,
    placed: Iterable[tuple[int, _Placed]],
) -> Iterator[tuple[Block, Traits]]:
    """Write a chunk's candidates, and tell of each block."""
    places = [of_part for _, of_part in placed]
    if not places:
        return
    positions, rows, distinct = (np.concatenate(column) for column in zip(*places, strict=True))
    order = np.argsort(positions)
    by_position = positions[order], rows[order], distinct[order]
    blocks = max(1, round(len(order) / block_rows))
    held: list[StoredBlock] = []
    written = 0
    for piece in _pieces(source, chunks[number], asked, by_position):
        held.append(piece)
        while held and written < blocks:
            size = (written + 1) * len(order) // blocks - written * len(order) // blocks
            if sum(len(part.rows) for part in held) < size:
                break
            together = StoredBlock.joined(held)
            content = together.take(np.argsort(together.rows[:size]))
            held = [together.take(np.arange(size, len(together.rows)))]
            name = f"{number:06d}-{written:04d}.parquet"
            write_block(work, name, content)
            yield Block(name, size), Traits.of(content)
            written += 1


def _pieces(source: Source, chunk: Chunk, asked: Asked, placed: _Placed) -> Iterator[StoredBlock]:
    """The candidates at some positions of a chunk, in that order, a piece for each batch that is read."""
    positions, row_numbers, distinct = placed
    start = 0
    for file, rows, ids, vectors, table in read_ids_and_vectors(source, chunk, asked.columns):
        here = np.flatnonzero((positions >= start) & (positions < start + len(rows)))
        wanted = positions[here] - start
        if len(wanted):
            at, matrix = vectors.of_length(int(vectors.lengths[wanted[0]]))
            chosen = table.take(pa.array(wanted))
            yield StoredBlock(
                rows=row_numbers[here],
                ids=ids.take(pa.array(wanted)),
                vectors=matrix[np.searchsorted(at, wanted)],
                distinct=distinct[here],
                file=np.full(len(wanted), file),
                file_rows=rows[wanted],
                quality=_numbers(chosen, asked.quality) if asked.quality else None,
                groups=_groups(chosen, asked.group) if asked.group else None,
                cost=_numbers(chosen, asked.cost) if asked.cost else None,
            )
        start += len(rows)


def _numbers(table: pa.Table, column: str) -> NDArray[np.float64]:
    """The quality or cost of rows, NaN where there is none."""
    return np.asarray(table.column(column).cast(pa.float64()).to_numpy(), dtype=np.float64)


def _groups(table: pa.Table, column: str) -> pa.Array:
    """The groups of rows, as text; null where there is none."""
    return pa.array([group_of(value) for value in table.column(column).to_pylist()], pa.string())


# --- what no task sees alone ------------------------------------------------------------------------------


def _together(rows: RDD[tuple[int, Rows]], parts: int) -> RDD[Rows]:
    """All rows of a part in one task. Jobs after the first find them where that one has put them."""
    return rows.partitionBy(parts, int).mapPartitions(_joined)


def _joined(pieces: Iterable[tuple[int, Rows]]) -> Iterator[Rows]:
    held = [rows for _, rows in pieces]
    if held:
        yield Rows.joined(held)


def _by_digest(dimension: int, parts: int, rows: Rows) -> Iterator[tuple[int, Rows]]:
    """The rows of some ids, marked, each with others for the part that its embedding belongs to."""
    marked = with_duplicate_ids(rows, dimension)
    return marked.split(marked.parts_by_digest(parts))


def _found(
    drop: bool, parts: int, work: Location, part: int, checked: Iterable[Rows]
) -> Iterator[tuple[Found, list[Any]]]:
    """What was found of rows, and where there are several parts ids that cut the candidates into even pieces.

    On the way the rows that are dropped as duplicates are listed.
    """
    for rows in checked:
        dropped, kept = equal_pairs(rows)
        if drop and len(dropped):
            ids, of_kept = (rows.ids.take(pa.array(places)) for places in (dropped, kept))
            write_duplicates(work, part, ids, of_kept, np.zeros(len(dropped)))
        of_part = _candidates(drop, rows).sorted_ids() if parts > 1 else []
        yield Found.of(rows), of_part[:: -(-len(of_part) // _BOUNDS) or 1]


def _bounds(ids: list[Any], parts: int) -> list[Any]:
    """Where the ranges of ids begin, but for the first, to hold about as many rows each."""
    ordered = sorted(ids)
    return [ordered[part * len(ordered) // parts] for part in range(1, parts)] if ordered else []


def _by_range(drop: bool, bounds: list[Any], rows: Rows) -> Iterator[tuple[int, Rows]]:
    candidates = _candidates(drop, rows)
    return candidates.split(candidates.parts_by_range(bounds))


def _candidates(drop: bool, rows: Rows) -> Rows:
    return rows.take(np.flatnonzero(rows.distinct) if drop else rows.good)


def _size(part: int, in_range: Iterable[Rows]) -> Iterator[tuple[int, int]]:
    return ((part, len(rows)) for rows in in_range)


def _by_chunk(sizes: dict[int, int], part: int, in_range: Iterable[Rows]) -> Iterator[tuple[int, _Placed]]:
    """The candidates of a range of ids, numbered by them, for each chunk. ``sizes``: of ranges, if there are many."""
    for rows in in_range:
        first = sum(size for before, size in sizes.items() if before < part)
        ordered = rows.take(rows.by_id())
        for chunk, places in places_of_each(ordered.chunks):
            yield chunk, (ordered.positions[places], first + places, ordered.distinct[places])


def _refuse_or_count(
    found: Found, source: Source, chunks: list[Chunk], settings: Settings, dimension: int
) -> dict[str, int]:
    """Bad rows by reason. Raise InputError if there are any and they may not be dropped, or no row is good."""
    bad_rows = {reason: found.rows[code] for code, reason in enumerate(REASONS) if found.rows[code]}
    if bad_rows and settings.on_bad_rows == "fail":
        raise InputError(_fault_message(found, next(iter(bad_rows)), source, chunks, dimension))
    if not found.rows[GOOD]:
        raise InputError(f"{source.path} has no good row among its {source.rows} ({bad_rows}); nothing is left")
    return bad_rows


def _fault_message(found: Found, reason: str, source: Source, chunks: list[Chunk], dimension: int) -> str:
    what, remedy = FAULTS[reason]
    what = what.format(id=repr(source.id_column), embedding=repr(source.value_column), dimension=dimension)
    chunk, position, id_ = found.first[CODES[reason]]
    file, file_row = _place(source, chunks[chunk], position)
    first = f"row {file_row} of {file}" if id_ is None else f"id {id_!r}, row {file_row} of {file}"
    return (
        f"{found.rows[CODES[reason]]} row(s) of {source.path} {what} (first: {first}); {remedy}, or set such rows "
        "aside with --on-bad-rows drop"
    )


def _place(source: Source, chunk: Chunk, position: int) -> tuple[str, int]:
    """The file a position of a chunk is in, and the number of the row in that file, from 0."""
    for group in chunk:
        if position < group.rows:
            return source.files[group.file], group.first_row + position
        position -= group.rows
    raise IndexError(position)


def _write_rejected(checked: RDD[Rows], source: Source, chunks: list[Chunk], work: Location) -> None:
    """Write the bad rows to ``<work>/rejected``: id as text, reason, and where the row is."""
    (work / REJECTED).make_folder()
    checked.mapPartitionsWithIndex(partial(_write_rejected_part, source, chunks, work)).count()


def _write_rejected_part(
    source: Source, chunks: list[Chunk], work: Location, part: int, checked: Iterable[Rows]
) -> Iterator[int]:
    for rows in checked:
        bad = rows.take(np.flatnonzero(rows.reasons != GOOD))
        if len(bad):
            places = [
                _place(source, chunks[chunk], position)
                for chunk, position in zip(bad.chunks.tolist(), bad.positions.tolist(), strict=True)
            ]
            table = pa.table(
                {
                    "id": bad.ids.cast(pa.string()),
                    "reason": [REASONS[code] for code in bad.reasons.tolist()],
                    "file": [file for file, _ in places],
                    "file_row": [file_row for _, file_row in places],
                }
            )
            (work / REJECTED / f"part-{part:05d}.parquet").write_parquet(table)
        yield len(bad)


def _write_equal(checked: RDD[Rows], work: Location) -> None:
    """Write the ids of duplicates, which a state remembers."""
    (work / "equal").make_folder()
    checked.mapPartitionsWithIndex(partial(_write_equal_part, work)).count()


def _write_equal_part(work: Location, part: int, checked: Iterable[Rows]) -> Iterator[int]:
    for rows in checked:
        dropped = rows.take(np.flatnonzero((rows.reasons == GOOD) & ~rows.distinct))
        if len(dropped):
            write_equal(work, part, dropped.ids, [digest.tobytes() for digest in dropped.digests])
        yield len(dropped)


def _block_rows(source: Source, settings: Settings, parallelism: int, dimension: int) -> int:
    """Rows of a block, about: as set, else one block for every core but at most 64 MiB."""
    if settings.block_rows:
        return settings.block_rows
    per_core = -(-source.rows // max(1, parallelism))
    return max(1, min(per_core, BLOCK_BYTES // (np.dtype(source.dtype).itemsize * max(1, dimension))))
