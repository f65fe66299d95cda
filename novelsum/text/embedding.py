"""Embedding on Spark: each piece of the records becomes a Parquet file, whole or not at all.

The embeddings come from a model, or from files of vectors that exist already, one for each record.

A run that was cut goes on with the pieces whose file is not there. Columns of a file: the id, ``text`` as it was
joined, ``embedding``, ``tokens`` before it was cut (``text_tokens`` where the records have a column of that name), the
columns that were asked for, and ``record``, the bytes of the record as they came in; where the input is Parquet all its
other columns instead.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import SparkContext

from novelsum.errors import DamageError, RunError
from novelsum.files.location import Location
from novelsum.spark.progress import collect
from novelsum.text.embedders import CHARACTERS_OF_A_TOKEN, Embedded, Model, embedder_of
from novelsum.text.given import Given, Matrix
from novelsum.text.plan import Kind, Plan, repeats_in
from novelsum.text.reading import Bad, Batch, Good, Wanted, read
from novelsum.text.texts import digest_of, storable
from novelsum.text.withids import as_column

OWN = ("text", "embedding", "record")
"""Columns of the result beside the id that no field of a record can be."""
_FACTS = b"novelsum"
"""What the footer of a file calls what its task has to tell."""
_TYPES: dict[Kind, pa.DataType] = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "text": pa.string()}
_MOST_PARTS = 2000
_NOTHING = Embedded(np.zeros((0, 0), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_), 0)


@dataclass(frozen=True)
class Work:
    """What each task of an embedding needs: the ``plan`` and its folder, what ``vectors`` come of, where results go."""

    plan: Plan
    planned: Location
    wanted: Wanted
    vectors: Model | Given
    folder: Location
    rejected: Location

    @property
    def embeds_repeats_once(self) -> bool:
        """Whether records with the same text get the same vector; vectors that exist are those of their records."""
        return isinstance(self.vectors, Model)


@dataclass
class Facts:
    """What there is to tell of embedded records: how many, their tokens, how many were cut, after how many tokens."""

    rows: int = 0
    tokens: int = 0
    truncated: int = 0
    limit: int = 0
    dimension: int = 0
    fresh: int = 0
    """How many this try has embedded."""

    def add(self, other: "Facts") -> None:
        """Count others too."""
        self.rows += other.rows
        self.fresh += other.fresh
        self.tokens += other.tokens
        self.truncated += other.truncated
        self.limit = self.limit or other.limit
        self.dimension = self.dimension or other.dimension


def embed(context: SparkContext, work: Work) -> Facts:
    """Embed what is not embedded yet; return what there is to tell of all. Raises RunError where a model fails."""
    pieces = len(work.plan.pieces)
    tasks = pieces
    if isinstance(work.vectors, Model) and work.vectors.backend == "server":
        tasks = max(1, min(pieces, context.defaultParallelism, work.vectors.flights))
    found = collect(
        context.parallelize(range(pieces), tasks).mapPartitionsWithIndex(partial(_embed_pieces, work, tasks)), "embed"
    )
    if work.embeds_repeats_once and work.plan.repeats and work.plan.ids != "content":
        parts = min(pieces, _MOST_PARTS)
        read_again = context.parallelize(range(pieces), pieces).flatMap(partial(_repeats_of, work))
        found += read_again.partitionBy(parts, int).mapPartitions(partial(_write_repeats, work)).collect()
    facts = Facts()
    for of_part in found:
        facts.add(of_part)
    return facts


def part_name(piece: int, what: str = "") -> str:
    """The file of a piece."""
    return f"part-{piece:05d}{what}.parquet"


# --- a piece ----------------------------------------------------------------------------------------------


def _embed_pieces(work: Work, tasks: int, task: int, pieces: Iterable[int]) -> Iterator[Facts]:
    flights = 1  # the same of all tasks, or a worker would load its model anew
    if isinstance(work.vectors, Model) and work.vectors.backend == "server":
        flights = work.vectors.flights // tasks + (task < work.vectors.flights % tasks)
    for piece in pieces:
        yield _done(work.folder / part_name(piece)) or _embed_piece(work, piece, flights)


def _done(file: Location) -> Facts | None:
    """What the file of an earlier try tells, None where there is none that is whole."""
    if not file.exists():
        return None
    try:
        told = file.parse(lambda parquet: (parquet.schema_arrow.metadata or {}).get(_FACTS))
    except DamageError:
        return None
    return None if told is None else Facts(**json.loads(told))


def _embed_piece(work: Work, piece: int, flights: int) -> Facts:
    repeated = set[int]()
    if work.embeds_repeats_once or work.plan.ids == "content":
        repeated.update(repeats_in(work.planned, piece)[0].tolist())
    tables: list[pa.Table] = []
    bad: list[Bad] = []
    ordinals: list[int] = []
    for batch in read(work.plan.stretch(work.plan.pieces[piece]), work.wanted):
        chosen = [good for good in batch.good if good.ordinal not in repeated]
        if work.plan.ids != "content":
            bad += [Bad(good.number, "no id", "", None) for good in chosen if good.id is None]
            chosen = [good for good in chosen if good.id is not None]
        tables.append(_table(work, batch, chosen))
        ordinals += [good.ordinal for good in chosen]
        bad += batch.bad
    _write_rejected(work, piece, bad)
    table = pa.concat_tables(tables) if tables else _table(work, Batch(), [])
    found = _NOTHING
    if isinstance(work.vectors, Given):
        first = sum(before.records for before in work.plan.pieces[:piece])
        found = _given(work.vectors.vectors(first + np.array(ordinals, np.int64)))
    elif len(table):
        texts: list[str] = table.column("text").to_pylist()
        found = embedder_of(work.vectors, flights).embed(texts)
        if found.vectors.shape != (len(texts), found.vectors.shape[1]):
            raise RunError(f"--model {work.vectors.name} gave {found.vectors.shape} numbers for {len(texts)} texts")
    facts = _write(work.folder / part_name(piece), _with_embeddings(work, table, found), found)
    return replace(facts, fresh=facts.rows)


def _given(vectors: Matrix) -> Embedded:
    """Vectors that exist already, of which nobody knows how many tokens they are of."""
    unknown = np.full(len(vectors), -1, np.int64)
    return Embedded(vectors, unknown, np.zeros(len(vectors), np.bool_), 0)


def _with_embeddings(work: Work, table: pa.Table, found: Embedded) -> pa.Table:
    """The table with the embeddings and the tokens of its rows after the text."""
    tokens = pa.array(found.tokens, mask=found.tokens < 0)
    return table.add_column(2, "embedding", as_column(found.vectors)).add_column(3, work.plan.tokens, tokens)


def _write(file: Location, table: pa.Table, found: Embedded) -> Facts:
    """Write the file of a piece, and in its footer what it tells."""
    known = found.tokens[found.tokens >= 0]
    facts = Facts(
        rows=len(table),
        tokens=int(known.sum()),
        truncated=int(found.truncated.sum()),
        limit=found.limit,
        dimension=int(found.vectors.shape[1]) if len(table) else 0,
    )
    metadata = {_FACTS: json.dumps(vars(facts)).encode()}
    file.write_parquet(table.replace_schema_metadata(metadata), row_group_size=1024)
    return facts


def _write_rejected(work: Work, piece: int, bad: list[Bad]) -> None:
    """Set the bad records of a piece aside: id as text, reason, and where each is."""
    if not bad:
        return
    bad = sorted(bad, key=lambda one: one.number)
    table = pa.table(
        {
            "id": pa.array([one.id for one in bad], pa.string()),
            "reason": [one.reason for one in bad],
            "file": [str(work.plan.files[work.plan.pieces[piece].file].location)] * len(bad),
            "file_row": [one.number for one in bad],
        }
    )
    (work.rejected / f"records-{piece:05d}.parquet").write_parquet(table)


# --- texts that recur -------------------------------------------------------------------------------------


def _repeats_of(work: Work, piece: int) -> Iterator[tuple[int, bytes]]:
    """The records of a piece that repeat the text of an earlier one, each with others for the piece of that."""
    ordinals, first_in = repeats_in(work.planned, piece)
    if not len(ordinals):
        return
    piece_of = dict(zip(ordinals.tolist(), first_in.tolist(), strict=True))
    for batch in read(work.plan.stretch(work.plan.pieces[piece]), work.wanted):
        by_piece: dict[int, list[Good]] = {}
        for good in batch.good:
            if good.ordinal in piece_of and good.id is not None:
                by_piece.setdefault(piece_of[good.ordinal], []).append(good)
        for first, repeats in by_piece.items():
            sink = pa.BufferOutputStream()
            table = _table(work, batch, repeats)
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
            yield first, sink.getvalue().to_pybytes()


def _write_repeats(work: Work, found: Iterable[tuple[int, bytes]]) -> Iterator[Facts]:
    """Write records that repeat texts of a piece with the embeddings that those have."""
    held: dict[int, list[pa.Table]] = {}
    for piece, content in found:
        held.setdefault(piece, []).append(pa.ipc.open_stream(content).read_all())
    for piece, tables in held.items():
        part = (work.folder / part_name(piece)).read_parquet(["text", "embedding", work.plan.tokens])
        facts = _done(work.folder / part_name(piece)) or Facts()
        place = {digest_of(text): row for row, text in enumerate(part.column("text").to_pylist())}
        table = pa.concat_tables(tables, promote_options="permissive")
        rows = np.array([place[digest_of(text)] for text in table.column("text").to_pylist()])
        vectors = np.asarray(part.column("embedding").combine_chunks().flatten(), dtype=np.float32)
        tokens = part.column(work.plan.tokens).fill_null(-1).to_numpy()[rows]
        embedded = Embedded(vectors.reshape(len(part), -1)[rows], tokens, _cut(tokens, table, facts), facts.limit)
        yield _write(work.folder / part_name(piece, "-repeats"), _with_embeddings(work, table, embedded), embedded)


def _cut(tokens: NDArray[np.int64], table: pa.Table, facts: Facts) -> NDArray[np.bool_]:
    """Which texts of the table were cut: by their tokens, or by their characters where those are not known."""
    characters = np.array([len(text) for text in table.column("text").to_pylist()], dtype=np.int64)
    return np.where(tokens >= 0, tokens > facts.limit, characters > CHARACTERS_OF_A_TOKEN * facts.limit)


# --- rows -------------------------------------------------------------------------------------------------


def _table(work: Work, batch: Batch, chosen: Sequence[Good]) -> pa.Table:
    """Some records of a batch as rows: id, text, and what else is copied."""
    plan, wanted = work.plan, work.wanted
    ids: Any = [good.id for good in chosen]
    if plan.ids == "content":
        ids = [digest_of(good.text).hex() for good in chosen]
    elif plan.ids == "string":
        ids = [str(id_) for id_ in ids]
    columns: dict[str, pa.Array] = {
        wanted.id_field: pa.array(ids, pa.int64() if plan.ids == "integer" else pa.string()),
        "text": pa.array([good.text for good in chosen], pa.string()),
    }
    if batch.rows is not None:
        rows = pa.Table.from_batches([batch.rows]).take(pa.array([good.place for good in chosen], pa.int64()))
        for called, name in plan.columns.items():
            if called not in columns and name in rows.column_names:
                columns[called] = rows.column(name)
    else:
        for name, kind in plan.kinds.items():
            values = [good.values.get(name) for good in chosen]
            columns[name] = pa.array([_of_kind(kind, value) for value in values], _TYPES[kind])
        columns["record"] = pa.array([good.raw.decode() for good in chosen], pa.string())
    return pa.table(columns)


def _of_kind(kind: Kind, value: Any) -> Any:
    if value is None:
        return None
    if kind == "float":
        return float(value)
    if kind != "text":
        return value
    return storable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
