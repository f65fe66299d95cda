"""Picks made into the records of a training file, as a task reads them: their texts, their fields, their columns.

Each function takes rows of a selection and their numbers there (n,), and gives the bytes of each record (n,) and the
records: text in a column ``record``, or columns.
"""

import base64
import datetime
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from novelsum.errors import RunError
from novelsum.files.runs import told_unfit
from novelsum.rows import Integers
from novelsum.spark.gathering import Sized, as_they_are

RECORD = "record"
"""The column of whole records, and where they are no objects that of a Parquet file made of them."""


def whole(column: str, chosen: pa.Table, rows: Integers) -> Sized:
    """The texts of records as they are."""
    found = chosen.column(column)
    if found.null_count:
        place = int(pc.index(found.is_null(), True).as_py())
        raise RunError(
            f"pick {rows[place] + 1} has no text in column {column!r}; run again with another --record-column, or "
            "without --export"
        )
    return _sized(found.cast(pa.large_string()).cast(pa.large_binary()))


def lines(column: str, chosen: pa.Table, rows: Integers) -> Sized:
    """The texts as they are, but for those that have line ends between their parts: JSON has none within a string."""
    sizes, table = whole(column, chosen, rows)
    found = table.column(RECORD)
    broken = pc.match_substring(found, "\n").to_numpy()
    if not broken.any():
        return sizes, table
    told = found.to_pylist()
    for place in np.flatnonzero(broken).tolist():
        try:
            json.loads(told[place])
        except ValueError as error:
            raise RunError(
                f"pick {rows[place] + 1} holds in column {column!r} several lines that are no JSON ({error}); export "
                "to .json"
            ) from None
        told[place] = b" ".join(line.strip(b" \t\r") for line in told[place].split(b"\n"))
    return _sized(pa.array(told, pa.large_binary()))


def parsed(column: str, chosen: pa.Table, rows: Integers) -> Sized:
    """The records as values, objects all of them; empty ones within are null, as Parquet has no column for them."""
    sizes, table = whole(column, chosen, rows)
    values = []
    for place, text in enumerate(table.column(RECORD).to_pylist()):
        try:
            value = json.loads(text)
        except ValueError as error:
            raise RunError(
                f"pick {rows[place] + 1} holds in column {column!r} no JSON ({error}); export to .jsonl"
            ) from None
        values.append(_storable(value if isinstance(value, dict) and value else {RECORD: value}))
    with told_unfit():
        return sizes, pa.table({RECORD: pa.array(values)})


def columns(names: dict[str, str], chosen: pa.Table, rows: Integers) -> Sized:
    """The columns as they are, by the names that they came in with."""
    return as_they_are(chosen.rename_columns([names[name] for name in chosen.column_names]), rows)


def texts(names: dict[str, str], chosen: pa.Table, rows: Integers) -> Sized:
    """The columns of each row as a JSON object."""
    _, named = columns(names, chosen, rows)
    values = _plain_times(named).to_pylist()
    return _sized(pa.array([as_json(value).encode() for value in values], pa.large_binary()))


def _sized(found: pa.Array) -> Sized:
    table = pa.table({RECORD: found})
    return pc.binary_length(table.column(RECORD)).to_numpy().astype(np.int64), table


def _storable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _storable(inner) for name, inner in value.items()} or None
    return [_storable(inner) for inner in value] if isinstance(value, list) else value


# --- a row as JSON -----------------------------------------------------------------------------------------


def as_json(row: dict[str, Any]) -> str:
    """A row as a JSON object on one line.

    Times and dates are text as ISO 8601 writes them, bytes are base64, decimals are text with all their digits, and
    numbers that are not finite are null, for which JSON has no other word.
    """
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False, default=_as_text)
    except ValueError:
        return json.dumps(_finite(row), ensure_ascii=False, allow_nan=False, default=_as_text)


def _as_text(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, datetime.timedelta) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain_times(table: pa.Table) -> pa.Table:
    """With times to the microsecond, as Python has no shorter ones."""
    schema = pa.schema([(field.name, _plain_time(field.type)) for field in table.schema])
    return table if schema.equals(table.schema) else table.cast(schema, safe=False)


def _plain_time(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_time64(kind) or pa.types.is_duration(kind):
        return pa.time64("us") if pa.types.is_time64(kind) else pa.duration("us")
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _plain_time(field.type)) for field in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return (pa.list_ if pa.types.is_list(kind) else pa.large_list)(_plain_time(kind.value_type))
    return kind
