"""What a run finds out of all records before it embeds one: which are bad, what ids they have, which texts recur.

1. Scan: each task reads a stretch of a file, parses its records, and cuts it into pieces of some thousand records.
2. What no task sees alone: whether records have ids, and of what type; the types of the columns to copy; and, where all
   digests of a text come together, which records repeat the text of an earlier one.

A text that recurs is embedded once: in another batch the same model would give it a vector that differs in the last
bits. Of records whose ids are made of their texts, those that repeat an earlier one are the same sample and left out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import RDD, SparkContext

from novelsum.errors import InputError
from novelsum.files.location import Location, Stamp
from novelsum.spark.progress import collect
from novelsum.text.reading import Batch, Wanted, read
from novelsum.text.records import Stretch, TextFile, stretches_of, told_number
from novelsum.text.texts import FAULTS, digest_of, is_the_text

Ids = Literal["content", "integer", "string"]
Kind = Literal["int", "float", "bool", "text"]

PIECE_RECORDS = 4096
PIECE_BYTES = 8 << 20
_SMALLEST_PIECE_BYTES = 64 << 10
_PIECES_PER_CORE = 4
_EXPANDS = 4
"""By so much compressed files grow, about."""
_PART_BYTES = 256 << 20
"""Digests of the texts in so many bytes of input come together in one task, about."""

DEFAULT_ID = "id"
TOKENS = "tokens"
"""The column of the number of tokens, unless the records have one that is called so."""
_ID_TYPES = {int: "integer", str: "string", type(None): "none"}


@dataclass(frozen=True)
class Piece:
    """Records that lie together in a file, bad ones too: embedded by one task, and written to one file."""

    file: int
    start: int
    stop: int
    first: int
    records: int


@dataclass(frozen=True)
class Plan:
    """What is to be embedded, and what is known of all of it.

    ``ids``: what ids are made of; ``kinds``: types of the columns to copy; ``bad`` records by reason; ``repeats``: how
    many records repeat the text of an earlier one. ``columns``: those of Parquet, by what they are called in the
    result; ``tokens``: the column there that has the number of tokens of a text.
    """

    files: tuple[TextFile, ...]
    pieces: tuple[Piece, ...]
    ids: Ids
    kinds: dict[str, Kind]
    records: int
    bad: dict[str, int]
    repeats: int
    columns: dict[str, str]
    tokens: str

    @property
    def bad_records(self) -> int:
        """How many are bad, whatever is wrong with them."""
        return sum(self.bad.values())

    def stretch(self, piece: Piece) -> Stretch:
        """Where a piece lies."""
        return Stretch(self.files[piece.file], piece.start, piece.stop, piece.first)

    def for_json(self) -> dict[str, Any]:
        """The plan as JSON."""
        files = [
            [file.location.uri, file.stamp.size, file.stamp.written, file.format, file.codec] for file in self.files
        ]
        pieces = [[piece.file, piece.start, piece.stop, piece.first, piece.records] for piece in self.pieces]
        return {**asdict(self), "files": files, "pieces": pieces}

    @staticmethod
    def from_json(content: dict[str, Any]) -> "Plan":
        """The plan again."""
        files = tuple(
            TextFile(Location(uri), Stamp(size, written), format_, codec)
            for uri, size, written, format_, codec in content["files"]
        )
        return Plan(**{**content, "files": files, "pieces": tuple(Piece(*piece) for piece in content["pieces"])})


def make_plan(
    context: SparkContext, path: str, files: list[TextFile], wanted: Wanted, keep_bad: bool, folder: Location
) -> Plan:
    """Scan all records; write to the folder which of each piece repeat others (:func:`repeats_in`).

    Raises InputError where a file cannot be read, where there are bad records and not ``keep_bad``, where no record is
    good, or where none has a column that is to be copied.
    """
    stretches = [(number, stretch) for number, file in enumerate(files) for stretch in stretches_of(file)]
    size = sum(file.stamp.size * (_EXPANDS if file.codec else 1) for file in files)
    per_core = size // (_PIECES_PER_CORE * max(1, context.defaultParallelism))
    piece_bytes = max(_SMALLEST_PIECE_BYTES, min(PIECE_BYTES, per_core))
    parts = 1 + size // _PART_BYTES
    numbered = [(number, stretch) for number, (_, stretch) in enumerate(stretches)]
    scanned = context.parallelize(numbered, max(1, len(numbered))).mapPartitions(
        partial(_scan, wanted, piece_bytes, parts)
    )
    together = scanned.partitionBy(parts, int).values()
    found = collect(together.filter(lambda one: not isinstance(one, _Digests)), "read")
    unreadable = [one for one in found if isinstance(one, str)]
    if unreadable:
        raise InputError(min(unreadable))
    told = sorted((one for one in found if isinstance(one, _Scanned)), key=lambda one: one.stretch)
    _number(told, stretches)
    ids = _check(path, files, wanted, keep_bad, [(files[stretches[one.stretch][0]], one) for one in told])
    pieces = [Piece(stretches[one.stretch][0], *piece) for one in told for piece in one.pieces]
    repeats = _write_repeats(context, together, told, pieces, ids, folder)
    of_values = {name: {kind for one in told for kind in one.kinds.get(name, ())} for name in wanted.columns}
    kinds = {name: _kind(of_column) for name, of_column in of_values.items() if of_column or name != TOKENS}
    names = dict.fromkeys(name for one in told for name in one.stored)
    stored = {name: all(one.stored.get(name, True) for one in told) for name in names}
    tokens = TOKENS if TOKENS not in (*kinds, *stored) else f"text_{TOKENS}"
    own = {wanted.id_field, "text", "embedding", tokens}
    if any(file.format != "parquet" for file in files):
        own.add("record")
    return Plan(
        files=tuple(files),
        pieces=tuple(pieces),
        ids=ids,
        kinds=kinds,
        columns=_columns(wanted, stored, ids, own),
        tokens=tokens,
        records=sum(piece.records for piece in pieces),
        bad=_bad_by_reason(told, ids),
        repeats=repeats,
    )


def repeats_in(folder: Location, piece: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which records of a piece, by their ordinals, repeat the text of an earlier one, and the pieces of those."""
    file = folder / _repeats(piece)
    if not file.exists():
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    table = file.read_parquet()
    return table.column("ordinal").to_numpy(), table.column("piece").to_numpy()


def _repeats(piece: int) -> str:
    return f"repeats-{piece:05d}.parquet"


# --- the scan ---------------------------------------------------------------------------------------------


@dataclass
class _Scanned:
    """What a task tells of a stretch: its pieces, and what it found in its records.

    ``pieces``: start, stop, number of the first, records. ``first``: the first bad record of each reason, its number
    and what is wrong. ``ids``: good records by the type of their id, "none" where they have none. ``stored``: columns
    of Parquet, and whether they are plain text.
    """

    stretch: int
    last: int = 0
    pieces: list[tuple[int, int, int, int]] = field(default_factory=list)
    bad: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[int, str]] = field(default_factory=dict)
    ids: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, set[str]] = field(default_factory=dict)
    stored: dict[str, bool] = field(default_factory=dict)

    def add(self, batch: Batch) -> None:
        """Count the records of a batch."""
        self.last = batch.last
        for column in batch.rows.schema if batch.rows is not None else ():
            is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
            self.stored[column.name] = self.stored.get(column.name, True) and is_text
        for bad in batch.bad:
            self.bad[bad.reason] += 1
            self.first.setdefault(bad.reason, (bad.number, bad.detail))
        for good in batch.good:
            self.ids[_ID_TYPES[type(good.id)]] += 1
            if good.id is None:
                self.first.setdefault("no id", (good.number, ""))
            for name, value in good.values.items():
                if value is not None:
                    self.kinds.setdefault(name, set()).add(_kind_of(value))


@dataclass(frozen=True)
class _Digests:
    """Digests (n, 2) of texts of a stretch, the ordinals of their records (n,), and whether those have ids (n,)."""

    stretch: int
    digests: NDArray[np.uint64]
    ordinals: NDArray[np.int64]
    have_ids: NDArray[np.bool_]

    def take(self, chosen: NDArray[np.bool_]) -> "_Digests":
        """Some of them."""
        return _Digests(self.stretch, self.digests[chosen], self.ordinals[chosen], self.have_ids[chosen])


def _scan(
    wanted: Wanted, piece_bytes: int, parts: int, stretches: Iterable[tuple[int, Stretch]]
) -> Iterator[tuple[int, Any]]:
    """What was found, for the first part, and digests, each for the part that it belongs to."""
    for number, stretch in stretches:
        told = _Scanned(number)
        begins, start, stop, records = 0, -1, 0, 0
        try:
            for batch in read(stretch, wanted):
                told.add(batch)
                yield from _by_digest(number, batch, parts)
                for at, begin, end in batch.places:
                    if records and (records >= PIECE_RECORDS or end - start > piece_bytes):
                        told.pieces.append((start, stop, begins, records))
                        records = 0
                    if not records:
                        begins, start = at, begin
                    records, stop = records + 1, end
            if records:
                told.pieces.append((start, stop, begins, records))
            yield 0, told
        except InputError as error:
            yield 0, str(error)


def _by_digest(stretch: int, batch: Batch, parts: int) -> Iterator[tuple[int, _Digests]]:
    if not batch.good:
        return
    digests = np.frombuffer(b"".join(digest_of(good.text) for good in batch.good), dtype=np.uint64).reshape(-1, 2)
    ordinals = np.array([good.ordinal for good in batch.good], dtype=np.int64)
    all_of = _Digests(stretch, digests, ordinals, np.array([good.id is not None for good in batch.good]))
    part_of = digests[:, 0] % np.uint64(parts)
    for part in np.unique(part_of).tolist():
        yield part, all_of.take(part_of == part)


# --- what no task sees alone ------------------------------------------------------------------------------


def _number(told: list[_Scanned], stretches: list[tuple[int, Stretch]]) -> None:
    """Number lines through their files: those of a stretch that was cut from the middle were counted from 1."""
    before: Counter[int] = Counter()
    for one in told:
        file, stretch = stretches[one.stretch]
        if stretch.file.format == "lines":
            shift = before[file]
            one.pieces = [(start, stop, first + shift, records) for start, stop, first, records in one.pieces]
            one.first = {reason: (number + shift, detail) for reason, (number, detail) in one.first.items()}
            before[file] += one.last


def _check(
    path: str, files: list[TextFile], wanted: Wanted, keep_bad: bool, told: list[tuple[TextFile, _Scanned]]
) -> Ids:
    """What ids are made of. Raises InputError where records are bad and not to be kept, or a column is in none."""
    found: Counter[str] = sum((one.ids for _, one in told), Counter())
    with_id = found["integer"] + found["string"]
    ids: Ids = "content" if not with_id else "string" if found["string"] else "integer"
    if ids == "content" and found["none"] and wanted.id_field != DEFAULT_ID and not wanted.content_ids:
        raise InputError(
            f"no record of {path} has an id in a field {wanted.id_field!r}; name the right one with --id-column, or "
            "give --content-ids to make ids of the texts"
        )
    bad = _bad_by_reason([one for _, one in told], ids)
    for reason in bad if not keep_bad else ():
        what, remedy = FAULTS[reason]
        file, (number, detail) = next((file, one.first[reason]) for file, one in told if reason in one.first)
        told_why = f": {detail}" if detail else ""
        raise InputError(
            f"{bad[reason]} record(s) of {path} {what} (first: {told_number(file, number)}{told_why}); {remedy}, or "
            "set such records aside with --on-bad-rows drop"
        )
    if not sum(found.values()) - (found["none"] if ids != "content" else 0):
        raise InputError(f"{path} has no good record ({bad or 'none at all'}); there is nothing to embed")
    for name in wanted.columns if all(file.format != "parquet" for file in files) else ():
        if name != TOKENS and not any(name in one.kinds for _, one in told):
            raise InputError(
                f"no record of {path} has a field {name!r} to make a column of; name another, or leave it out"
            )
    return ids


def _columns(wanted: Wanted, stored: dict[str, bool], ids: Ids, own: set[str]) -> dict[str, str]:
    """The columns of Parquet by what they are called in the result, which has columns of its ``own``.

    The ids stay, and the texts where they are plain; another that has the name of an own one gets ``input_`` before it.
    """
    columns: dict[str, str] = {}
    if ids != "content" and wanted.id_field in stored:
        columns[wanted.id_field] = wanted.id_field
    if stored.get("text") and is_the_text("text", wanted.text_field, stored):
        columns["text"] = "text"
    taken = {*own, *stored}
    for name in stored:
        called = name
        while name in own and called in taken:
            called = f"input_{called}"
        if name not in columns:
            taken.add(called)
            columns[called] = name
    return columns


def _bad_by_reason(told: list[_Scanned], ids: Ids) -> dict[str, int]:
    bad: Counter[str] = sum((one.bad for one in told), Counter())
    if ids != "content":
        bad["no id"] = sum(one.ids["none"] for one in told)
    return {reason: bad[reason] for reason in FAULTS if bad[reason]}


def _write_repeats(
    context: SparkContext, together: RDD[Any], told: list[_Scanned], pieces: list[Piece], ids: Ids, folder: Location
) -> int:
    """Write for each piece which of its records repeat the text of an earlier one; return how many do."""
    records = np.array([sum(piece[3] for piece in one.pieces) for one in told], dtype=np.int64)
    first_of_stretch = np.concatenate([[0], np.cumsum(records)[:-1]]) if len(records) else records
    first_of_piece = np.cumsum([0, *(piece.records for piece in pieces)])[:-1]
    together = together.filter(lambda one: isinstance(one, _Digests))
    if ids != "content":  # a record without one is bad, and nobody's first
        together = together.map(lambda one: one.take(one.have_ids))
    by_piece = together.mapPartitions(partial(_repeated, first_of_stretch, first_of_piece))
    tasks = max(1, min(len(pieces), 4 * context.defaultParallelism))
    return int(by_piece.partitionBy(tasks, int).mapPartitions(partial(_write_of_pieces, folder)).sum())


_OfPiece = tuple[NDArray[np.int64], NDArray[np.int64]]


def _repeated(
    first_of_stretch: NDArray[np.int64], first_of_piece: NDArray[np.int64], found: Iterable[_Digests]
) -> Iterator[tuple[int, _OfPiece]]:
    """Of records with some digests those that repeat another, by piece: ordinals, and the pieces of their firsts."""
    held = [one for one in found if len(one.ordinals)]
    if not held:
        return
    digests = np.concatenate([one.digests for one in held])
    records = np.concatenate([first_of_stretch[one.stretch] + one.ordinals for one in held])
    order = np.lexsort((records, digests[:, 0], digests[:, 1]))
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    first = records[order[begins]][np.cumsum(begins) - 1]
    of_piece = np.searchsorted(first_of_piece, records[order], side="right") - 1
    of_first = np.searchsorted(first_of_piece, first, side="right") - 1
    ordinals = records[order] - first_of_piece[of_piece]
    for piece in np.unique(of_piece[~begins]).tolist():
        here = (of_piece == piece) & ~begins
        yield piece, (ordinals[here], of_first[here])


def _write_of_pieces(folder: Location, found: Iterable[tuple[int, _OfPiece]]) -> Iterator[int]:
    held: dict[int, list[_OfPiece]] = {}
    for piece, repeated in found:
        held.setdefault(piece, []).append(repeated)
    for piece, several in held.items():
        ordinals, pieces = (np.concatenate(column) for column in zip(*several, strict=True))
        order = np.argsort(ordinals)
        (folder / _repeats(piece)).write_parquet(pa.table({"ordinal": ordinals[order], "piece": pieces[order]}))
        yield len(ordinals)


def _kind_of(value: Any) -> Kind:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(2**63) <= value < 2**63 else "float" if abs(value) < 2**1000 else "text"
    return "float" if isinstance(value, float) else "text"


def _kind(kinds: set[str]) -> Kind:
    """The type of a column by those of its values."""
    if kinds and kinds <= {"int", "float"}:
        return "float" if "float" in kinds else "int"
    return "bool" if kinds == {"bool"} else "text"
