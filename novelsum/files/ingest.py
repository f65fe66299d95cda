"""From input to store: check every row, drop duplicates, number the candidates by id, write blocks.

1. Scan: each task reads a chunk of the input and says of each row its id, its length, a digest of its
   vector, and what is wrong with it. Only this travels; vectors stay where they are.
2. Spark SQL finds what no task sees alone: unequal lengths, duplicate ids, equal embeddings. Bad rows end
   the run here, or are set aside with ``on_bad_rows = drop``.
3. The remaining ids are sorted once; the position of an id is its row.
4. Each task reads its chunk again and writes the candidates to the store.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, Row, SparkSession, Window
from pyspark.sql import functions as sf
from pyspark.sql import types as st

from novelsum.errors import InputError
from novelsum.files.embeddings import digests
from novelsum.files.location import REJECTED, Location
from novelsum.files.source import Chunk, Source, read_ids_and_vectors, read_rows
from novelsum.files.store import Block, Pool, StoredBlock, write_block, write_equal
from novelsum.groups import Group, group_of
from novelsum.settings import Settings

logger = logging.getLogger("novelsum")

BLOCK_BYTES = 64 << 20
LARGEST_VALUE = 1e100
"""Values above this are refused: their squares would overflow float64."""
SMALLEST_NORM = 1e-100
"""A vector shorter than this is a zero vector: the square of its length underflows."""

_SHUFFLE_ROWS = 250_000

_UNREADABLE = "unreadable"
_FAULTS = {
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
    "duplicate id": (
        "share their id in column {id} with another row",
        "make ids unique",
    ),
}
"""Reason of a bad row: what its rows do, and what to do about them; in the order they are reported."""


def ingest(spark: SparkSession, source: Source, settings: Settings, work: Location) -> Pool:
    """Write the store of a run, and bad rows that are set aside, to the folder ``work``; return the pool.

    Raises InputError where the input breaks the contract.
    """
    context = spark.sparkContext
    spark.conf.set("spark.sql.shuffle.partitions", max(context.defaultParallelism, source.rows // _SHUFFLE_ROWS))
    chunks = source.chunks(_block_rows(source, settings, context.defaultParallelism, dimension=1))
    numbered = list(enumerate(chunks))
    scan = partial(_scan, source, settings.metric == "cosine", settings.quality_column)
    scanned = spark.createDataFrame(
        context.parallelize(numbered, len(numbered)).mapPartitions(scan), _scan_schema(source)
    ).persist()

    dimension, fingerprint = _dimension_and_fingerprint(scanned)
    checked = _with_duplicate_ids(_marked(scanned, sf.col("length") != dimension, "unequal length"))
    checked = _with_distinct(checked).persist()
    found = _count(checked)
    bad_rows = _refuse_or_count(found, source, chunks, settings, dimension)
    if bad_rows:
        logger.warning("ingest: %d of %d rows are bad and set aside: %s", sum(bad_rows.values()), source.rows, bad_rows)
        _write_rejected(checked, source, chunks, work)

    good = checked.where("reason IS NULL")
    candidates = good.where("distinct") if settings.duplicates == "drop" else good
    if settings.duplicates == "drop" and (settings.update or settings.save_state):
        _write_equal(good, source, work)
    (work / "store").make_folder()
    placed = (
        candidates.orderBy("id")
        .select("chunk", "position", "distinct")
        .rdd.zipWithIndex()
        .map(lambda row_number: (row_number[0][0], (row_number[0][1], row_number[1], row_number[0][2])))
    )
    block_rows = _block_rows(source, settings, context.defaultParallelism, dimension)
    traits = (settings.quality_column, settings.group_column)
    write = partial(_write_blocks, source, chunks, work, block_rows, traits)
    written = placed.groupByKey(len(chunks)).flatMap(write).collect()
    checked.unpersist()
    scanned.unpersist()
    groups: Counter[Group] = Counter()
    for _, of_block, _ in written:
        groups.update(of_block)
    return Pool(
        work=work,
        blocks=tuple(sorted((block for block, _, _ in written), key=lambda block: block.name)),
        dimension=dimension,
        itemsize=np.dtype(source.dtype).itemsize,
        integer_ids=source.integer_ids,
        input_rows=source.rows,
        bad_rows=bad_rows,
        duplicates_dropped=found[None]["rows"] - found[None]["distinct"] if settings.duplicates == "drop" else 0,
        distinct=found[None]["distinct"],
        fingerprint=fingerprint,
        groups=dict(groups),
        greatest_quality=max(quality for _, _, quality in written),
    )


# --- tasks ------------------------------------------------------------------------------------------------


def _scan(
    source: Source, cosine: bool, quality_column: str | None, chunks: Iterable[tuple[int, Chunk]]
) -> Iterator[tuple[Any, ...]]:
    """Of every row: id, digest of the vector, length, what is wrong with it, chunk, position in it, detail."""
    for number, chunk in chunks:
        position = 0
        try:
            for file, rows, id_array, vectors in read_ids_and_vectors(source, chunk):
                ids = id_array.to_pylist()
                of_vectors: list[bytes | None] = [None] * len(rows)
                reasons: list[str | None] = ["null embedding"] * len(rows)
                for length in np.unique(vectors.lengths[vectors.lengths > 0]).tolist():
                    at, matrix = vectors.of_length(length)
                    for i, digest, fault in zip(at, digests(matrix), _faults(matrix, cosine), strict=True):
                        of_vectors[i], reasons[i] = digest, fault
                if quality_column:
                    quality = _quality(source, file, rows, ids, quality_column)
                    for i in np.flatnonzero(~(np.isfinite(quality) & (quality >= 0))):
                        reasons[i] = reasons[i] or "bad quality"
                for i, id_ in enumerate(ids):
                    reason = "null id" if id_ is None else reasons[i]
                    yield id_, of_vectors[i], int(vectors.lengths[i]), reason, number, position + i, None
                position += len(rows)
        except InputError as error:
            yield None, None, 0, _UNREADABLE, number, position, str(error)


def _faults(matrix: np.ndarray[Any, Any], cosine: bool) -> list[str | None]:
    """What is wrong with each row (n, D), None where nothing is."""
    peak = np.abs(matrix).max(axis=1).astype(np.float64)  # NaN where any value is
    faults = np.full(len(matrix), None, dtype=object)
    if cosine:
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.sqrt(np.square(matrix, dtype=np.float64).sum(axis=1))
        faults[norms < SMALLEST_NORM] = "zero vector"
    faults[peak > LARGEST_VALUE] = "too large"
    faults[~np.isfinite(peak)] = "not finite"
    listed: list[str | None] = faults.tolist()
    return listed


def _write_blocks(
    source: Source,
    chunks: list[Chunk],
    work: Location,
    block_rows: int,
    traits: tuple[str | None, str | None],
    placed: tuple[int, Iterable[tuple[int, int, bool]]],
) -> Iterator[tuple[Block, dict[Group, int], float]]:
    """Write a chunk's candidates; of each block yield its name and size, its rows per group and its greatest quality.

    ``placed``: the chunk's number, and of each candidate in it the position, the row, and whether it is distinct.
    ``traits``: the columns of quality and group, if any.
    """
    number, places = placed
    by_position = sorted(places)
    blocks = max(1, round(len(by_position) / block_rows))
    held: list[StoredBlock] = []
    written = 0
    for piece in _pieces(source, chunks[number], traits, by_position):
        held.append(piece)
        while held and written < blocks:
            size = (written + 1) * len(by_position) // blocks - written * len(by_position) // blocks
            if sum(len(part.rows) for part in held) < size:
                break
            together = StoredBlock.joined(held)
            content = together.take(np.argsort(together.rows[:size]))
            held = [together.take(np.arange(size, len(together.rows)))]
            name = f"{number:06d}-{written:04d}.parquet"
            write_block(work, name, content)
            groups = Counter(content.groups.to_pylist() if content.groups is not None else [])
            yield Block(name, size), groups, float(content.quality.max()) if content.quality is not None else 0.0
            written += 1


def _pieces(
    source: Source, chunk: Chunk, traits: tuple[str | None, str | None], places: list[tuple[int, int, bool]]
) -> Iterator[StoredBlock]:
    """The candidates at some positions of a chunk, in that order, a piece for each batch that is read."""
    positions, row_numbers, distinct = (np.array(column) for column in zip(*places, strict=True))
    quality_column, group_column = traits
    start = 0
    for file, rows, ids, vectors in read_ids_and_vectors(source, chunk):
        here = np.flatnonzero((positions >= start) & (positions < start + len(rows)))
        wanted = positions[here] - start
        if len(wanted):
            chosen = ids.take(pa.array(wanted))
            in_file = file, rows[wanted], chosen.to_pylist() if quality_column or group_column else []
            at, matrix = vectors.of_length(int(vectors.lengths[wanted[0]]))
            yield StoredBlock(
                rows=row_numbers[here],
                ids=chosen,
                vectors=matrix[np.searchsorted(at, wanted)],
                distinct=distinct[here],
                file=np.full(len(wanted), file),
                file_rows=rows[wanted],
                quality=_quality(source, *in_file, quality_column) if quality_column else None,
                groups=_groups(source, *in_file, group_column) if group_column else None,
            )
        start += len(rows)


def _quality(source: Source, file: int, rows: NDArray[np.int64], ids: list[Any], column: str) -> NDArray[np.float64]:
    """The quality of some rows of a file, NaN where there is none."""
    values = read_rows(source, file, rows, ids, [column]).column(0).cast(pa.float64())
    return np.asarray(values.to_numpy(), dtype=np.float64)


def _groups(source: Source, file: int, rows: NDArray[np.int64], ids: list[Any], column: str) -> pa.Array:
    """The groups of some rows of a file, as text; null where there is none."""
    values = read_rows(source, file, rows, ids, [column]).column(0).to_pylist()
    return pa.array([group_of(value) for value in values], pa.string())


# --- what no task sees alone ------------------------------------------------------------------------------


def _scan_schema(source: Source) -> st.StructType:
    id_type = st.LongType() if source.integer_ids else st.StringType()
    return st.StructType(
        [
            st.StructField("id", id_type),
            st.StructField("digest", st.BinaryType()),
            st.StructField("length", st.IntegerType()),
            st.StructField("reason", st.StringType()),
            st.StructField("chunk", st.IntegerType()),
            st.StructField("position", st.LongType()),
            st.StructField("detail", st.StringType()),
        ]
    )


def _dimension_and_fingerprint(scanned: DataFrame) -> tuple[int, str]:
    """The most common length of embeddings, and a number that depends on all rows but not on their order."""
    of_row = sf.xxhash64("id", "digest", "reason").cast("decimal(38,0)")
    lengths = (
        scanned.groupBy("length", sf.col("reason").isNull().alias("good"))
        .agg(sf.count("*").alias("rows"), sf.sum(of_row).alias("hash"))
        .collect()
    )
    total = sum(int(row["hash"]) for row in lengths)
    dimension = max(((row["rows"], row["length"]) for row in lengths if row["good"]), default=(0, 0))[1]
    return int(dimension), f"{total % (1 << 96):024x}"


def _with_duplicate_ids(checked: DataFrame) -> DataFrame:
    """Mark rows whose id another row has. Of rows that agree in embedding too, the first in the input stays."""
    good = sf.col("reason").isNull()
    same_id = Window.partitionBy("id", good)
    in_order = same_id.orderBy("chunk", "position")
    unlike = sf.min("digest").over(same_id) != sf.max("digest").over(same_id)
    return _marked(checked, unlike | (sf.row_number().over(in_order) > 1), "duplicate id")


def _marked(rows: DataFrame, condition: Column, reason: str) -> DataFrame:
    """Give the reason to rows that meet the condition and have none yet."""
    return rows.withColumn("reason", sf.when(sf.col("reason").isNull() & condition, reason).otherwise(sf.col("reason")))


def _with_distinct(checked: DataFrame) -> DataFrame:
    """Mark the good row with the smallest id of those with equal embeddings."""
    same_embedding = Window.partitionBy("digest", sf.col("reason").isNull()).orderBy("id")
    return checked.withColumn("distinct", sf.row_number().over(same_embedding) == 1)


def _count(checked: DataFrame) -> dict[str | None, Row]:
    """Rows by reason, with the first of them in the input; good rows are at None, with the distinct among them."""
    counted = checked.groupBy("reason").agg(
        sf.count("*").alias("rows"),
        sf.sum(sf.col("distinct").cast("long")).alias("distinct"),
        sf.min(sf.struct("chunk", "position", "id")).alias("first"),
        sf.min("detail").alias("detail"),
    )
    return {row["reason"]: row for row in counted.collect()}


def _refuse_or_count(
    found: dict[str | None, Row], source: Source, chunks: list[Chunk], settings: Settings, dimension: int
) -> dict[str, int]:
    """Bad rows by reason. Raise InputError if there are any and they may not be dropped, or no row is good."""
    if _UNREADABLE in found:
        raise InputError(found[_UNREADABLE]["detail"])
    bad_rows = {reason: int(found[reason]["rows"]) for reason in _FAULTS if reason in found}
    if bad_rows and settings.on_bad_rows == "fail":
        reason = next(iter(bad_rows))
        raise InputError(_fault_message(found[reason], reason, source, chunks, dimension))
    if None not in found:
        raise InputError(f"{source.path} has no good row among its {source.rows} ({bad_rows}); nothing is left")
    return bad_rows


def _fault_message(found: Row, reason: str, source: Source, chunks: list[Chunk], dimension: int) -> str:
    what, remedy = _FAULTS[reason]
    what = what.format(id=repr(source.id_column), embedding=repr(source.value_column), dimension=dimension)
    file, file_row = _place(source, chunks[found["first"]["chunk"]], found["first"]["position"])
    id_ = found["first"]["id"]
    first = f"row {file_row} of {file}" if id_ is None else f"id {id_!r}, row {file_row} of {file}"
    return (
        f"{found['rows']} row(s) of {source.path} {what} (first: {first}); {remedy}, or set such rows aside "
        "with --on-bad-rows drop"
    )


def _place(source: Source, chunk: Chunk, position: int) -> tuple[str, int]:
    """The file a position of a chunk is in, and the number of the row in that file, from 0."""
    for group in chunk:
        if position < group.rows:
            return source.files[group.file], group.first_row + position
        position -= group.rows
    raise IndexError(position)


def _write_rejected(checked: DataFrame, source: Source, chunks: list[Chunk], work: Location) -> None:
    """Write the bad rows to ``<work>/rejected``: id as text, reason, and where the row is."""
    (work / REJECTED).make_folder()
    bad = checked.where("reason IS NOT NULL").select("id", "reason", "chunk", "position")
    write = partial(_write_rejected_part, source, chunks, work)
    bad.rdd.mapPartitionsWithIndex(write).count()


def _write_rejected_part(
    source: Source, chunks: list[Chunk], work: Location, part: int, rows: Iterable[Row]
) -> Iterator[int]:
    bad = list(rows)
    if not bad:
        return
    places = [_place(source, chunks[row["chunk"]], row["position"]) for row in bad]
    table = pa.table(
        {
            "id": pa.array([None if row["id"] is None else str(row["id"]) for row in bad], pa.string()),
            "reason": [row["reason"] for row in bad],
            "file": [file for file, _ in places],
            "file_row": [file_row for _, file_row in places],
        }
    )
    (work / REJECTED / f"part-{part:05d}.parquet").write_parquet(table)
    yield len(bad)


def _write_equal(good: DataFrame, source: Source, work: Location) -> None:
    """Write the ids of duplicates, which a state remembers."""
    (work / "equal").make_folder()
    dropped = good.where("NOT distinct").select("id", "digest")
    dropped.rdd.mapPartitionsWithIndex(partial(_write_equal_part, source, work)).count()


def _write_equal_part(source: Source, work: Location, part: int, rows: Iterable[Row]) -> Iterator[int]:
    dropped = list(rows)
    if dropped:
        ids = pa.array([row["id"] for row in dropped], pa.int64() if source.integer_ids else pa.string())
        write_equal(work, part, ids, [bytes(row["digest"]) for row in dropped])
        yield len(dropped)


def _block_rows(source: Source, settings: Settings, parallelism: int, dimension: int) -> int:
    """Rows of a block, about: as set, else one block for every core but at most 64 MiB."""
    if settings.block_rows:
        return settings.block_rows
    per_core = -(-source.rows // max(1, parallelism))
    return max(1, min(per_core, BLOCK_BYTES // (np.dtype(source.dtype).itemsize * max(1, dimension))))
