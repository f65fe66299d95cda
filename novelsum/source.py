"""The input as it lies in files: what the footers tell before any row is read, and rows as NumPy arrays.

The engine needs two columns of the input, the id and the embedding. All others are only copied beside the
picks at the end.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from novelsum.embeddings import EXPECTED, Vectors, has_doubles, is_embedding
from novelsum.errors import InputError
from novelsum.storage import Location

_READ_ROWS = 8192


@dataclass(frozen=True)
class RowGroup:
    """A row group of a file: the smallest piece of the input that can be read by itself."""

    file: int
    index: int
    first_row: int
    rows: int


Chunk = tuple[RowGroup, ...]
"""Row groups that one task reads."""


@dataclass(frozen=True)
class Source:
    """An input whose files can all be opened and agree on the columns the engine needs."""

    path: str
    files: tuple[str, ...]
    row_groups: tuple[RowGroup, ...]
    schema: pa.Schema
    partition_values: tuple[dict[str, Any], ...]
    id_column: str
    value_column: str
    wide: bool

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


def open_source(path: str, id_column: str, embedding_column: str) -> Source:
    """Open embeddings by their footers alone; raise InputError where they cannot be what the user meant."""
    return _open(path, _id_column(id_column), _embedding_column(embedding_column), input_files(path))


def open_density(path: str, id_column: str) -> Source:
    """Open density factors by id, as estimate_density writes them, by their footers alone."""
    density = _Column("density", "--density", pa.types.is_floating, "a float or double")
    return _open(path, _id_column(id_column), density, input_files(path))


def open_ids(path: str, id_column: str) -> Source:
    """Open ids alone by their footers."""
    return _open(path, _id_column(id_column), None, input_files(path))


def open_selected(path: str, files: list[Location], id_column: str, embedding_column: str) -> Source:
    """Open samples, some files of a path, by their ids and, where the files have such a column, embeddings."""
    id_, embedding = _id_column(id_column), _embedding_column(embedding_column)
    has_embeddings = embedding_column in _footer(files[0])[0].names
    return _open(path, id_, embedding if has_embeddings else None, files)


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


def input_files(path: str, output: Location | None = None) -> list[Location]:
    """The files a user means, without those in the ``output``; raise InputError where there is none."""
    location = Location.of(path)
    try:
        files = [file for file in location.parquet_files() if output is None or not output.contains(file)]
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be listed: {_first_line(error)}") from None
    if not files:
        there = "holds no Parquet file" if location.exists() else "does not exist"
        raise InputError(f"{path} {there}; give a Parquet file, a folder of them, or a glob in quotes")
    return files


def _open(path: str, id_: _Column, value: _Column | None, files: list[Location]) -> Source:
    value_name = value.name if value else ""
    with ThreadPoolExecutor(16) as threads:
        footers = list(threads.map(_footer, files))
    schemas = [schema for schema, _ in footers]
    for file, schema in zip(files, schemas, strict=True):
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if twice:
            raise InputError(f"{file} has more than one column {twice[0]!r}; rename or leave out all but one")
        for column in (id_, value) if value else (id_,):
            _check_column(file, schema, column)
        if _has_integer(schema, id_.name) != _has_integer(schemas[0], id_.name):
            raise InputError(
                f"column {id_.name!r} holds integers in one of {files[0]} and {file} and strings in the other; "
                "write all files with the same type of id"
            )
    partition_values = _partition_values(Location.of(path).listing_root, files)
    groups: list[RowGroup] = []
    for number, (_, group_rows) in enumerate(footers):
        first = 0
        for index, rows in enumerate(group_rows):
            groups.append(RowGroup(number, index, first, rows))
            first += rows
    if not sum(group.rows for group in groups):
        raise InputError(f"{path} has no rows in its {len(files)} file(s); there is nothing to select from")
    return Source(
        path=path,
        files=tuple(str(file) for file in files),
        row_groups=tuple(group for group in groups if group.rows),
        schema=_unified(path, value_name, schemas, partition_values),
        partition_values=partition_values,
        id_column=id_.name,
        value_column=value_name,
        wide=any(has_doubles(schema.field(value_name).type) for schema in schemas if value),
    )


def read_columns(source: Source, chunk: Chunk, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of the chunk, in batches. Raises InputError when a file cannot be read to its end."""
    for group in chunk:
        location = Location(source.files[group.file])
        try:
            with pq.ParquetFile(location.path, filesystem=location.filesystem) as file:
                yield from file.iter_batches(_READ_ROWS, row_groups=[group.index], columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise InputError(_damaged(location, error)) from None


def read_ids_and_vectors(source: Source, chunk: Chunk) -> Iterator[tuple[int, NDArray[np.int64], pa.Array, Vectors]]:
    """The chunk in batches: file number, row numbers in the file (n,), ids (n,), and the vectors."""
    for group in chunk:
        row = group.first_row
        for batch in read_columns(source, (group,), [source.id_column, source.value_column]):
            ids = batch.column(source.id_column).cast(pa.int64() if source.integer_ids else pa.string())
            vectors = Vectors.of(batch.column(source.value_column), source.dtype)
            yield group.file, np.arange(row, row + len(batch)), ids, vectors
            row += len(batch)


def read_rows(source: Source, file: int, rows: NDArray[np.int64], columns: list[str]) -> pa.Table:
    """The named columns of some rows (n,) of a file, in that order, with the values its folders carry."""
    location = Location(source.files[file])
    try:
        return _read_rows(source, location, file, rows, columns)
    except (OSError, pa.ArrowException) as error:
        raise InputError(_damaged(location, error)) from None


def _read_rows(source: Source, location: Location, file: int, rows: NDArray[np.int64], columns: list[str]) -> pa.Table:
    order = np.argsort(rows, kind="stable")
    pieces = []
    with pq.ParquetFile(location.path, filesystem=location.filesystem) as parquet:
        stored = [name for name in columns if name in parquet.schema_arrow.names]
        for group in (g for g in source.row_groups if g.file == file):
            wanted = rows[order] - group.first_row
            wanted = wanted[(wanted >= 0) & (wanted < group.rows)]
            if len(wanted):
                pieces.append(parquet.read_row_group(group.index, columns=stored).take(pa.array(wanted)))
    table = pa.concat_tables(pieces).take(pa.array(np.argsort(order, kind="stable")))
    arrays = []
    for name in columns:
        kind = source.schema.field(name).type
        if name in stored:
            arrays.append(table.column(name).cast(kind, safe=False))
        elif name in source.partition_values[file]:
            arrays.append(pa.array([source.partition_values[file][name]] * len(rows), kind))
        else:
            arrays.append(pa.nulls(len(rows), kind))
    return pa.table(arrays, schema=pa.schema([source.schema.field(name) for name in columns]))


def _decoded(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_id(kind: pa.DataType) -> bool:
    kind = _decoded(kind)
    whole = pa.types.is_integer(kind) and kind != pa.uint64()
    return bool(whole or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _has_integer(schema: pa.Schema, column: str) -> bool:
    return bool(pa.types.is_integer(schema.field(column).type))


def _footer(location: Location) -> tuple[pa.Schema, list[int]]:
    """The schema of a Parquet file and the rows of each of its row groups."""
    try:
        with pq.ParquetFile(location.path, filesystem=location.filesystem) as file:
            footer = file.metadata
            return file.schema_arrow, [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    except (OSError, pa.ArrowException) as error:
        raise InputError(_damaged(location, error)) from None


def _damaged(location: Location, error: Exception) -> str:
    return (
        f"{location} is not a whole Parquet file ({_first_line(error)}); it may be half written: "
        "write it again or take it out of the input"
    )


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0].rstrip(". ")


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


def _partition_values(root: Location, files: list[Location]) -> tuple[dict[str, Any], ...]:
    """What folders named ``key=value`` below the root say of each file; integers where all of a key are."""
    values: list[dict[str, Any]] = []
    for file in files:
        folders = file.uri[len(root.uri) :].split("/")[:-1] if file.uri.startswith(root.uri) else []
        values.append(dict(folder.split("=", 1) for folder in folders if "=" in folder))
    for key in {key for of_file in values for key in of_file}:
        if all(_is_plain_integer(of_file.get(key, "0")) for of_file in values):
            for of_file in values:
                if key in of_file:
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
        raise InputError(f"the files of {path} do not agree on a column's type: {_first_line(error)}") from None
    for of_file in partition_values:
        for key, value in of_file.items():
            if key not in schema.names:
                schema = schema.append(pa.field(key, pa.int64() if isinstance(value, int) else pa.string()))
    return schema
