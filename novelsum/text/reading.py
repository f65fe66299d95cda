"""Records as a run embeds them: read in batches, good ones with text, id and columns, bad ones with what is wrong."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from novelsum.text.records import Stretch, column_names, read_batches, read_records
from novelsum.text.texts import FIELDS, RecordError, id_of, parsed, text_of

_BATCH = 1024


@dataclass(frozen=True)
class Wanted:
    """What is to be read of each record: the field of its text, that of its id, and those copied as columns."""

    text_field: str | None
    id_field: str
    content_ids: bool
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Good:
    """A good record: its ``ordinal`` among all of the stretch, from 0, and its ``number`` in the file.

    ``raw``: its bytes, where it is JSON; ``values``: those of the columns to copy; ``place``: its row in its batch.
    """

    ordinal: int
    number: int
    text: str
    id: str | int | None
    values: dict[str, Any]
    raw: bytes
    place: int


@dataclass(frozen=True, slots=True)
class Bad:
    """A record that cannot be embedded, and why: ``reason`` is a key of FAULTS."""

    number: int
    reason: str
    detail: str
    id: str | None


@dataclass
class Batch:
    """Some records in their order, and the rows they are if they are of Parquet.

    ``places``: of every record its number, where it begins, and where it ends, in bytes or rows. ``last``: the number
    of the last line, element or row.
    """

    good: list[Good] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    rows: pa.RecordBatch | None = None
    places: list[tuple[int, int, int]] = field(default_factory=list)
    last: int = 0

    def add(self, wanted: Wanted, ordinal: int, number: int, value: Any, raw: bytes = b"", place: int = -1) -> None:
        """Add a record by its value, or by its bytes."""
        try:
            value = parsed(raw) if place < 0 else value
            text = text_of(value, wanted.text_field)
            id_ = None if wanted.content_ids else id_of(value, wanted.id_field)
            copied = {name: value.get(name) for name in wanted.columns} if isinstance(value, dict) else {}
            self.good.append(Good(ordinal, number, text, id_, copied, raw, place))
        except RecordError as error:
            id_ = value.get(wanted.id_field) if isinstance(value, dict) else None
            is_id = type(id_) in (int, str) and error.reason != "bad id"
            self.bad.append(Bad(number, error.reason, error.detail, str(id_) if is_id else None))


def read(stretch: Stretch, wanted: Wanted) -> Iterator[Batch]:
    """The records of a stretch in batches."""
    if stretch.file.format == "parquet":
        yield from _rows(stretch, wanted)
        return
    batch, ordinal = Batch(), 0
    for record in read_records(stretch, with_empty=True):
        batch.last = record.number
        if record.is_empty and stretch.file.format == "lines":
            continue
        batch.places.append((record.number, record.offset, record.end))
        batch.add(wanted, ordinal, record.number, None, record.raw)
        ordinal += 1
        if len(batch.places) == _BATCH:
            yield batch
            batch = Batch(last=batch.last)
    yield batch


def _rows(stretch: Stretch, wanted: Wanted) -> Iterator[Batch]:
    names = column_names(stretch.file)
    texts = (wanted.text_field,) if wanted.text_field else FIELDS
    used = [name for name in dict.fromkeys((*texts, wanted.id_field)) if name in names]
    ordinal = 0
    for first, rows in read_batches(stretch):
        batch = Batch(rows=rows, last=first + len(rows) - 1)
        values = rows.select(used).to_pylist() if used else [{}] * len(rows)
        for place, value in enumerate(values):
            batch.places.append((first + place, first + place, first + place + 1))
            batch.add(wanted, ordinal, first + place, value, place=place)
            ordinal += 1
        yield batch
