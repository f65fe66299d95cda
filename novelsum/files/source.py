"""The input as it lies in files: what the footers tell before any row is read, and rows as NumPy arrays.

The engine needs two columns of the input, the id and the embedding. All others are only copied beside the
picks at the end.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from novelsum.errors import DamageError, InputError, RunError, first_line
from novelsum.files.embeddings import EXPECTED, Vectors, has_doubles, is_embedding
from novelsum.files.location import Location, Stamp
from novelsum.files.tables import Snapshot, refuse_tables_among, snapshot_of

T = TypeVar("T")

_READ_ROWS = 8192
_NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"
_PARQUET = (b"PAR1", b"PARE")
"""What a Parquet file begins with; the second where its footer is encrypted."""


@dataclass(frozen=True)
class Look:
    """The files of a path as the run saw them first: whatever it reads of them later must still have these stamps."""

    path: str
    files: tuple[Location, ...]
    stamps: tuple[Stamp, ...]
    objects: tuple[pa.NativeFile | None, ...]
    """Of files on object storage what was opened to learn their stamps, for their footers."""
    table: Snapshot | None = None
    """The table that the files are of, if they are of one."""

    def only(self, files: list[Location]) -> "Look":
        """At some of the files."""
        wanted = set(files)
        kept = [place for place, file in enumerate(self.files) if file in wanted]
        return replace(
            self,
            files=tuple(self.files[place] for place in kept),
            stamps=tuple(self.stamps[place] for place in kept),
            objects=tuple(self.objects[place] for place in kept),
        )


@dataclass(frozen=True)
class RowGroup:
    """A row group of a file: the smallest piece of the input that can be read by itself."""

    file: int
    index: int
    first_row: int
    rows: int


@dataclass(frozen=True)
class Span:
    """Rows whose texts in a column lie from ``least`` to ``greatest``; anywhere without bounds.

    By the format the order is that of UTF-8 bytes, which is that of characters, and bounds that were cut short still
    lie below and above all texts.
    """

    rows: int
    least: str = ""
    greatest: str | None = None

    def may_hold(self, text: str) -> bool:
        """Whether one of the rows may have the text."""
        return self.greatest is None or self.least <= text <= self.greatest


Chunk = tuple[RowGroup, ...]
"""Row groups that one task reads."""


@dataclass(frozen=True)
class Source:
    """An input whose files can all be opened and agree on the columns the engine needs."""

    path: str
    files: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    row_groups: tuple[RowGroup, ...]
    schema: pa.Schema
    partition_values: tuple[dict[str, Any], ...]
    id_column: str
    value_column: str
    wide: bool
    table: dict[str, Any] | None = None
    """Format and version of the table that the files are of, for the manifest."""
    spans: tuple[Span, ...] = ()
    """What the footers tell of the texts of a column that was asked about: of all rows but those that have none."""

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(group.rows for group in self.row_groups)

    @property
    def has_vectors(self) -> bool:
        """Whether it is more than ids."""
        return bool(self.value_column)

    @property
    def integer_ids(self) -> bool:
        """Whether ids are integers; they are strings otherwise."""
        return _has_integer(self.schema, self.id_column)

    @property
    def dtype(self) -> type[np.floating[Any]]:
        """The type vectors are kept in: float64 when any file has doubles, else float32."""
        return np.float64 if self.wide else np.float32

    def chunks(self, rows: int) -> list[Chunk]:
        """The row groups in order, gathered into pieces of at least that many rows where they are smaller."""
        chunks: list[Chunk] = []
        gathered: list[RowGroup] = []
        gathered_rows = 0
        for group in self.row_groups:
            gathered.append(group)
            gathered_rows += group.rows
            if gathered_rows >= rows:
                chunks.append(tuple(gathered))
                gathered, gathered_rows = [], 0
        return [*chunks, tuple(gathered)] if gathered else chunks


def open_source(
    path: str, id_column: str, embedding_column: str, seen: Look | None = None, about: str | None = None
) -> Source:
    """Open embeddings by their footers alone; raise InputError where they cannot be what the user meant.

    ``seen``: the first look at the path, where there was one before. ``about``: a column whose spans are wanted.
    """
    return _open(seen or look(path), _id_column(id_column), _embedding_column(embedding_column), about)


def open_density(path: str, id_column: str, seen: Look | None = None) -> Source:
    """Open density factors by id, as estimate_density writes them, by their footers alone."""
    density = _Column("density", "--density", pa.types.is_floating, "a float or double")
    return _open(seen or look(path), _id_column(id_column), density)


def open_ids(seen: Look, id_column: str) -> Source:
    """Open ids alone by their footers."""
    return _open(seen, _id_column(id_column), None)


def open_selected(seen: Look, id_column: str, embedding_column: str) -> Source:
    """Open samples by their ids and, where the files have such a column, embeddings."""
    id_, embedding = _id_column(id_column), _embedding_column(embedding_column)
    has_embeddings = embedding_column in _footer(seen.files[0], seen.stamps[0], seen.objects[0], None)[0].names
    return _open(seen, id_, embedding if has_embeddings else None)


@dataclass(frozen=True)
class _Column:
    """A column the input must have: its name, the option that says so, and what its type must be."""

    name: str
    option: str
    is_right: Callable[[pa.DataType], bool]
    expected: str


def _id_column(name: str) -> _Column:
    return _Column(name, "--id-column", _is_id, "an integer (not uint64) or a string")


def _embedding_column(name: str) -> _Column:
    return _Column(name, "--embedding-column", is_embedding, EXPECTED)


def require_same_ids(
    column: str, has_integers: dict[Any, bool], remedy: str = "write both with the same type of id"
) -> None:
    """Raise InputError where ids are integers in one of two places and strings in the other."""
    if len(set(has_integers.values())) > 1:
        one, other = has_integers
        raise InputError(
            f"column {column!r} holds integers in one of {one} and {other} and strings in the other; {remedy}"
        )


def look(path: str, output: Location | None = None, kind: str = "Parquet file") -> Look:
    """The first look at the files a user means, without those in the ``output``.

    Raises InputError where there is none, naming the ``kind`` that is wanted.
    """
    location = Location.of(path)
    try:
        table = snapshot_of(path, location)
        listed = {} if table else location.all_files()
        meant = table.files if table else location.parquet_files(listed)
        files = [file for file in meant if output is None or not output.contains(file)]
        there = f"holds no {kind}" if files or location.exists() else "does not exist"
    except (OSError, pa.ArrowException) as error:
        raise location.failure(error) from None
    if table is None:
        refuse_tables_among(path, files, list(listed))
    if not files:
        raise InputError(f"{path} {there}; give a {kind}, a folder of them, or a glob in quotes")
    with ThreadPoolExecutor(16) as threads:
        stamps, objects = zip(*threads.map(_first_seen, files, map(listed.get, files)), strict=True)
    return Look(path, tuple(files), stamps, objects, table)


def _open(seen: Look, id_: _Column, value: _Column | None, about: str | None = None) -> Source:
    path, files, table = seen.path, seen.files, seen.table
    value_name = value.name if value else ""
    with ThreadPoolExecutor(16) as threads:
        footers = list(threads.map(partial(_footer, about=about), files, seen.stamps, seen.objects))
    schemas = [schema for schema, _ in footers]
    for file, schema in zip(files, schemas, strict=True):
        if table:
            table.check_columns(file, schema)
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if twice:
            raise InputError(f"{file} has more than one column {twice[0]!r}; rename or leave out all but one")
        for column in (id_, value) if value else (id_,):
            _check_column(file, schema, column)
        has_integers = {files[0]: _has_integer(schemas[0], id_.name), file: _has_integer(schema, id_.name)}
        require_same_ids(id_.name, has_integers, "write all files with the same type of id")
    root = table.root if table else Location.of(path).listing_root
    partition_values = _partition_values(root, files) if not (table and table.columns) else ({},) * len(files)
    groups: list[RowGroup] = []
    spans: list[Span] = []
    for number, (_, of_groups) in enumerate(footers):
        first = 0
        for index, span in enumerate(of_groups):
            groups.append(RowGroup(number, index, first, span.rows))
            first += span.rows
        in_file = about in schemas[number].names
        spans += of_groups if in_file else _of_folders(partition_values[number].get(about or ""), first)
    if not sum(group.rows for group in groups):
        raise InputError(f"{path} has no rows in its {len(files)} file(s); there is nothing to select from")
    return Source(
        path=path,
        files=tuple(str(file) for file in files),
        stamps=seen.stamps,
        row_groups=tuple(group for group in groups if group.rows),
        schema=_unified(path, value_name, schemas, partition_values),
        partition_values=partition_values,
        id_column=id_.name,
        value_column=value_name,
        wide=any(has_doubles(schema.field(value_name).type) for schema in schemas if value),
        table=table.for_manifest() if table else None,
        spans=tuple(spans) if about else (),
    )


def read_columns(
    source: Source, chunk: Chunk, columns: list[str], most_bytes: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Some columns of the chunk, in batches. Raises InputError when a file cannot be read to its end, or is another.

    What was yielded is what the run saw first only once the chunk has come to its end. ``most_bytes``: of a batch, by
    what the footer says of its row group.
    """
    for group in chunk:
        location, stamp = Location(source.files[group.file]), source.stamps[group.file]

        def batches(file: pq.ParquetFile, group: RowGroup = group) -> Iterator[pa.RecordBatch]:
            rows = _batch_rows(file, group.index, columns, most_bytes) if most_bytes else _READ_ROWS
            yield from file.iter_batches(rows, row_groups=[group.index], columns=columns)

        try:
            with location.opened() as file:
                require_unchanged(location, stamp)  # what is open is the file that was seen, and has such a group
                yield from batches(file)
        except (OSError, pa.ArrowException) as error:
            require_unchanged(location, stamp)
            raise _told(location, location.fault(error, lambda file: deque(batches(file), 0))) from None
        require_unchanged(location, stamp)


def _batch_rows(file: pq.ParquetFile, group: int, columns: list[str], most_bytes: int) -> int:
    """How many rows of a row group have about so many bytes in some columns; one at least."""
    footer = file.metadata.row_group(group)
    parts = [footer.column(place) for place in range(footer.num_columns)]
    size: int = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in columns)
    return max(1, min(_READ_ROWS, most_bytes * int(footer.num_rows) // max(1, size)))


def read_others(source: Source, group: RowGroup, columns: list[str], most_bytes: int) -> Iterator[pa.Table]:
    """Some columns of a row group as in the schema of the whole input, in batches of about ``most_bytes``."""
    for batch in read_columns(source, (group,), [source.id_column, *columns], most_bytes):
        yield _as_in_schema(source, group.file, _plain(pa.Table.from_batches([batch])), columns)


def read_ids_and_vectors(
    source: Source, chunk: Chunk, others: Sequence[str] = ()
) -> Iterator[tuple[int, NDArray[np.int64], pa.Array, Vectors, pa.Table]]:
    """The chunk in batches: file number, row numbers in the file (n,), ids (n,), vectors, and the ``others``, columns
    with the values that folders carry.
    """
    names = list(dict.fromkeys((source.id_column, source.value_column, *others)))
    for group in chunk:
        row = group.first_row
        for batch in read_columns(source, (group,), names):
            ids = batch.column(source.id_column).cast(pa.int64() if source.integer_ids else pa.string())
            vectors = Vectors.of(batch.column(source.value_column), source.dtype)
            stored = [name for name in names if name != source.value_column and name in batch.schema.names]
            table = _plain(pa.Table.from_batches([batch]).select(stored))
            table = _as_in_schema(source, group.file, table, list(others))
            yield group.file, np.arange(row, row + len(batch)), ids, vectors, table
            row += len(batch)


def read_rows(
    source: Source, file: int, rows: NDArray[np.int64], ids: Sequence[str | int | None], columns: list[str]
) -> pa.Table:
    """The named columns of some rows (n,) of a file, in that order, with the values its folders carry.

    Raises InputError where the rows have other ids than ``ids`` (n,): then the file is not what it was.
    """
    location, stamp = Location(source.files[file]), source.stamps[file]
    order = np.argsort(rows, kind="stable")

    def read(parquet: pq.ParquetFile) -> pa.Table:
        require_unchanged(location, stamp)
        pieces = []
        stored = [name for name in (source.id_column, *columns) if name in parquet.schema_arrow.names]
        for group in (g for g in source.row_groups if g.file == file):
            wanted = rows[order] - group.first_row
            wanted = wanted[(wanted >= 0) & (wanted < group.rows)]
            if len(wanted):
                table = _plain(parquet.read_row_group(group.index, columns=list(dict.fromkeys(stored))))
                pieces.append(table.take(pa.array(wanted)))
        return pa.concat_tables(pieces).take(pa.array(np.argsort(order, kind="stable")))

    table = _parsed(location, stamp, read)
    if table.column(source.id_column).to_pylist() != list(ids):
        raise InputError(written_again(location))
    return _as_in_schema(source, file, table, columns)


def _as_in_schema(source: Source, file: int, table: pa.Table, columns: list[str]) -> pa.Table:
    """The columns of rows of a file in the types of the whole input, those that the file lacks filled in."""
    arrays = []
    for name in columns:
        kind = source.schema.field(name).type
        if name in table.column_names:
            arrays.append(table.column(name).cast(kind, safe=False))
        elif name in source.partition_values[file]:
            arrays.append(pa.array([source.partition_values[file][name]] * len(table), kind))
        else:
            arrays.append(pa.nulls(len(table), kind))
    return pa.table(arrays, schema=pa.schema([source.schema.field(name) for name in columns]))


def _decoded(kind: pa.DataType) -> pa.DataType:
    """The type a column is kept in: without a dictionary, and no view, as few of pyarrow's functions take one."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return {"string_view": pa.string(), "binary_view": pa.binary()}.get(str(kind), kind)


def _plain(table: pa.Table) -> pa.Table:
    return table.cast(pa.schema([field.with_type(_decoded(field.type)) for field in table.schema]))


def _is_id(kind: pa.DataType) -> bool:
    kind = _decoded(kind)
    whole = pa.types.is_integer(kind) and kind != pa.uint64()
    return bool(whole or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _has_integer(schema: pa.Schema, column: str) -> bool:
    return bool(pa.types.is_integer(_decoded(schema.field(column).type)))


def _footer(
    location: Location, stamp: Stamp, object_: pa.NativeFile | None, about: str | None
) -> tuple[pa.Schema, list[Span]]:
    """The schema of a Parquet file, and of each of its row groups its rows and the bounds of a column of texts."""

    def read(file: pq.ParquetFile) -> tuple[pa.Schema, list[Span]]:
        footer, schema = file.metadata, file.schema_arrow
        named = [footer.schema.column(place).path for place in range(footer.num_columns)]
        kind = _decoded(schema.field(about).type) if about and schema.names.count(about) == 1 else None
        is_text = kind is not None and (pa.types.is_string(kind) or pa.types.is_large_string(kind))
        place = named.index(about) if is_text and about in named else None
        return schema, [_span(footer.row_group(i), place) for i in range(footer.num_row_groups)]

    return _parsed(location, stamp, read, object_)


def _span(group: pq.RowGroupMetaData, place: int | None) -> Span:
    """The rows of a row group, with the bounds of its column at a place, where the footer has them."""
    found = None if place is None else group.column(place).statistics
    if found is None or not found.has_min_max:
        return Span(group.num_rows)
    try:
        return Span(group.num_rows, found.min_raw.decode(), found.max_raw.decode())
    except UnicodeDecodeError:  # cut short within a character
        return Span(group.num_rows)


def _of_folders(value: Any, rows: int) -> list[Span]:
    """The span of a file whose folders say the value of the column, if any of its rows has one."""
    return [] if value is None else [Span(rows, str(value), str(value))]


# --- files that are not as they were, or cannot be read ---------------------------------------------------


def _first_seen(location: Location, listed: Stamp | None) -> tuple[Stamp, pa.NativeFile | None]:
    """The stamp of a file, from its listing if there was one; of an object with what was opened to learn it."""
    if not location.is_object:
        return listed or _stamp(location), None
    object_ = _asked(location, lambda: location.filesystem.open_input_file(location.path))
    return _asked(location, lambda: location.stamp_of(object_)), object_


def _stamp(location: Location) -> Stamp:
    return _asked(location, location.stamp)


def _asked(location: Location, ask: Callable[[], T]) -> T:
    """What the system or the store says of a file that was there."""
    try:
        return ask()
    except FileNotFoundError:
        raise RunError(
            f"{location} is gone since the run first saw it; put it back and run again to go on, or run without it and "
            "with --overwrite to start over"
        ) from None
    except (OSError, pa.ArrowException) as error:
        raise location.failure(error) from None


def require_unchanged(location: Location, stamp: Stamp) -> None:
    """Raise InputError where the file is not the one that the run saw first."""
    if _stamp(location) != stamp:
        raise InputError(written_again(location))


def written_again(location: Location) -> str:
    return f"{location} was written again while the run read it; let whatever writes it end first, and run again"


def _parsed(
    location: Location, stamp: Stamp, read: Callable[[pq.ParquetFile], T], object_: pa.NativeFile | None = None
) -> T:
    """What ``read`` makes of a file that is the same before and after.

    Of an ``object_`` that was opened at the first look, it is enough that its rows are read of no other later.
    """
    try:
        found = location.parse(read, object_)
    except (RunError, FileNotFoundError) as error:
        require_unchanged(location, stamp)
        raise _told(location, error) from None
    if object_ is None:
        require_unchanged(location, stamp)
    return found


def _told(location: Location, error: Exception) -> Exception:
    """The error of a file of the input: InputError where its contents are at fault."""
    if not isinstance(error, DamageError):
        return error
    with location.filesystem.open_input_stream(location.path) as stream:
        begins = stream.read(4)
    if begins.lstrip()[:1] in (b"{", b"["):
        return InputError(
            f"{location} is JSON, not Parquet with embeddings: have its texts embedded by curate.py with --model or by "
            "embed_text.py, or take it out of the input"
        )
    if begins and begins not in _PARQUET:
        return InputError(
            f"{location} is no Parquet file, it begins with {begins!r}; take it out of the input, or name the Parquet "
            "files alone with a glob in quotes such as '*.parquet'"
        )
    return InputError(
        f"{location} is not a whole Parquet file ({error.reason}); it may be half written: write it again or take it "
        "out of the input"
    )


def _check_column(file: Location, schema: pa.Schema, column: _Column) -> None:
    if column.name not in schema.names:
        raise InputError(
            f"{file} has no column {column.name!r}; its columns are {', '.join(schema.names)}: name the right "
            f"one with {column.option}"
        )
    kind = schema.field(column.name).type
    if not column.is_right(kind):
        raise InputError(
            f"column {column.name!r} of {file} has type {kind}, expected {column.expected}: convert it or name "
            f"another with {column.option}"
        )


def _is_plain_integer(text: str) -> bool:
    return text.isdecimal() and len(text) < 19 and str(int(text)) == text


def _partition_values(root: Location, files: Sequence[Location]) -> tuple[dict[str, Any], ...]:
    """What folders named ``key=value`` below the root say of each file; integers where all of a key are.

    As Hive and Spark write them: special characters as ``%`` and two digits, and a name of its own for null.
    """
    values: list[dict[str, Any]] = []
    for file in files:
        folders = file.uri[len(root.uri) :].split("/")[:-1] if file.uri.startswith(root.uri) else []
        pairs = [folder.split("=", 1) for folder in folders if "=" in folder]
        values.append({unquote(key): None if value == _NULL_FOLDER else unquote(value) for key, value in pairs})
    for key in {key for of_file in values for key in of_file}:
        holding = [of_file for of_file in values if of_file.get(key) is not None]
        if all(_is_plain_integer(of_file[key]) for of_file in holding):
            for of_file in holding:
                of_file[key] = int(of_file[key])
    return tuple(values)


def _unified(
    path: str, value_column: str, schemas: list[pa.Schema], partition_values: tuple[dict[str, Any], ...]
) -> pa.Schema:
    """Ids and copied columns as one schema: null where a file lacks a column, dictionaries decoded."""
    plain = [
        pa.schema([(field.name, _decoded(field.type)) for field in schema if field.name != value_column])
        for schema in schemas
    ]
    try:
        schema = pa.unify_schemas(plain, promote_options="permissive")
    except (pa.ArrowException, TypeError) as error:
        raise InputError(f"the files of {path} do not agree on a column's type: {first_line(error)}") from None
    for key in dict.fromkeys(key for of_file in partition_values for key in of_file):
        if key not in schema.names:
            is_integer = any(isinstance(of_file.get(key), int) for of_file in partition_values)
            schema = schema.append(pa.field(key, pa.int64() if is_integer else pa.string()))
    return schema
