"""The training file: the chosen records as they came in, in one file.

A record is the text in the column ``record`` of the input, byte for byte, where there is one, as embed_text writes it;
else it is the columns of the row but the embedding. Both are in the rows of the selection, which lie in the stage or in
the output already: so a training file can be written of a selection that was made before, another one, or the same
again. Executors make records of them and write these in runs to the stage (:func:`prepare`); the driver puts them
together in the file (:func:`finish`), which appears when all results lie in the stage, before they are published.
"""

import gzip
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from pyspark import SparkContext

from novelsum.errors import DamageError, InputError, UsageError, unwritable
from novelsum.files.location import Location
from novelsum.files.runs import Runs, one_schema
from novelsum.files.source import Source, look, open_ids
from novelsum.files.workplace import ROWS, Workplace, read_manifest
from novelsum.report.output import OUTPUT_COLUMNS, SELECTED, input_name, output_name
from novelsum.rows import Integers
from novelsum.settings import Settings, export_kind
from novelsum.spark.gathering import Make, gather
from novelsum.text.rendering import RECORD, columns, lines, parsed, texts, whole

_PIECE_BYTES = 16 << 20
_BLOCK_BYTES = 32 << 20
"""What the driver holds at once, about."""
RUNS = "export"
"""Where the records lie in the stage."""
_OURS = "exporting.json"
"""Says there which file is being written, and may be found half done."""
_ORDER = "order.parquet"
_DONE = "done.json"
_SCHEMA = "schema.arrow"


@dataclass(frozen=True)
class TrainingFile:
    """What ``--export`` asks for."""

    target: Location
    kind: str
    order: str
    record_column: str

    @staticmethod
    def of(settings: Settings) -> "TrainingFile | None":
        """None where none is asked for."""
        if settings.export is None:
            return None
        target, kind = Location.of(settings.export), export_kind(settings.export)
        return TrainingFile(target, kind, settings.export_order, settings.record_column)

    @property
    def asked(self) -> dict[str, str]:
        """What makes it the same as another."""
        return {"path": str(self.target), "order": self.order, "record_column": self.record_column}

    def check_place(self, output: Location, others: Sequence[str], work_dir: str | None) -> None:
        """Raise UsageError where the file cannot be written, or lies in the ``output`` or in what the run reads."""
        if output.contains(self.target) or self.target.contains(output):
            raise UsageError(
                f"--export {self.target} lies in --output {output}, whose content jobs replace; write it elsewhere"
            )
        for path in [*others, *([work_dir] if work_dir else [])]:
            if Location.of(path).contains(self.target):
                raise UsageError(f"--export {self.target} lies in {path}, which the run reads; write it elsewhere")
        try:
            if self.target.kind() == fs.FileType.Directory:
                raise UsageError(f"--export {self.target} is a folder; name a file")
            if self.target.is_object:
                self.target.parent.entries()
                return
            self.target.parent.make_folder()
            probe = self.target.parent / f".{self.target.name}.probe"
            probe.write_bytes(b"")
            probe.delete()
        except (OSError, pa.ArrowException) as error:
            raise unwritable(f"--export {self.target} cannot be written", error) from None

    def is_owed(self, place: Workplace, complete: bool, overwrite: bool) -> bool:
        """Whether it has to be written yet; raise UsageError where another file has its name.

        What the output has exported before is replaced, and so is what this very run has put there and was cut then.
        """
        found = self.target.filesystem.get_file_info(self.target.path)
        exists = found.type == fs.FileType.File
        written = (read_manifest(place.output) or {}).get("exported", {})
        is_ours = exists and (written.get("path"), written.get("bytes")) == (str(self.target), found.size)
        if complete and is_ours and all(written.get(name) == value for name, value in self.asked.items()):
            return False
        if exists and not is_ours and not overwrite and not self._was_begun(place):
            instead = "remove it" if complete else "replace it with --overwrite"
            raise UsageError(f"--export {self.target} exists already; {instead}, or name another file")
        return True

    def forget(self, place: Workplace) -> None:
        """Remove from the stage what it was made of."""
        for name in (RUNS, _OURS):
            (place.stage / name).delete()

    def _was_begun(self, place: Workplace) -> bool:
        marked = place.stage / _OURS
        return marked.exists() and marked.read_json() == {"path": str(self.target)}

    def column(self, source: Source, called: str | None = None) -> str | None:
        """The column of whole records, None where records are made of the columns. ``called``: its name there.

        Raises InputError where another than the default is named and there is no such column of text.
        """
        called = called or self.record_column
        kind = source.schema.field(called).type if called in source.schema.names else None
        if kind is not None and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return called
        if self.record_column == RECORD:
            return None
        wrong = f"has type {kind}" if kind is not None else "is not there"
        raise InputError(
            f"column {self.record_column!r} of {source.path} {wrong}, expected text of records; name another with "
            "--record-column or leave it out"
        )


# --- by the executors: records in the stage ---------------------------------------------------------------


def prepare(
    context: SparkContext, file: TrainingFile, place: Workplace, id_column: str, embedded: dict[str, Any] | None = None
) -> None:
    """Write the records of a selection that is staged or published to the stage, for :func:`finish`.

    ``embedded``: what there is to tell of its input, if that was texts. Raises RunError where a record is
    missing, or records do not fit into one table; UsageError where the result does not say in which order its picks lie
    in the input.
    """
    source = open_ids(look(str(_result(place, SELECTED))), id_column)
    folder, rows = place.stage / RUNS, np.arange(source.rows)
    positions = rows
    if file.order == "input":
        positions = np.empty_like(rows)
        positions[_input_order(place)] = rows
    column = file.column(source, output_name(file.record_column, id_column))
    names = {name: input_name(name, id_column) for name in source.schema.names if name not in OUTPUT_COLUMNS}
    if embedded and embedded.get("columns"):  # the columns that were made of the texts did not come in
        came_in = embedded["columns"]
        names = {name: came_in[called] for name, called in names.items() if called in came_in}
    make: Make = partial(columns if file.kind == "parquet" else texts, names)
    if column is not None:
        make = partial(parsed if file.kind == "parquet" else whole if file.kind == "json" else lines, column)
    read = [column] if column is not None else list(names)
    found = gather(context, source, read, (np.zeros_like(rows), rows, positions), make, folder, "export")
    if file.kind == "parquet":
        schema = one_schema([pa.ipc.read_schema(pa.py_buffer(run.schema)) for run in found])
        (folder / _SCHEMA).write_bytes(schema.serialize())
    runs = Runs.of(folder, found, len(rows))
    (folder / _ORDER).write_parquet(pa.table({"run": runs.run, "size": runs.sizes}))
    done = {**file.asked, "kind": file.kind, "parsed": column is not None, "runs": runs.names}
    (folder / _DONE).write_bytes(json.dumps(done).encode())


def is_prepared(file: TrainingFile, place: Workplace) -> bool:
    """Whether records lie in the stage as the file is to have them."""
    try:
        done = (place.stage / RUNS / _DONE).read_json()
    except (FileNotFoundError, NotADirectoryError, DamageError):
        return False
    return all(done.get(name) == value for name, value in {**file.asked, "kind": file.kind}.items() if name != "path")


def _result(place: Workplace, name: str) -> Location:
    """A result that is staged, or published already."""
    return place.result / name if (place.result / name).exists() else place.output / name


def _input_order(place: Workplace) -> Integers:
    """The places of the picks (n,) in the order of the input."""
    file = _result(place, ROWS)
    if not file.exists():
        raise UsageError(
            f"--output {place.output} does not say in {ROWS} where its picks lie in the input; write them in the order "
            "of picks, or select again with --overwrite"
        )
    table = file.read_parquet()
    names = table.column("file").combine_chunks().dictionary_encode()
    number_of = {name: number for number, name in enumerate(sorted(names.dictionary.to_pylist()))}
    numbers = np.array([number_of[name] for name in names.dictionary.to_pylist()])[names.indices.to_numpy()]
    order: Integers = np.lexsort((table.column("file_row").to_numpy(), numbers))
    return order


# --- by the driver: the file -------------------------------------------------------------------------------


def finish(file: TrainingFile, place: Workplace) -> dict[str, Any]:
    """Write the file of the records in the stage, whole or not at all; return what the manifest says of it.

    Records of which a part is lost are prepared anew by the next try.
    """
    folder = place.stage / RUNS
    try:
        done, order = (folder / _DONE).read_json(), (folder / _ORDER).read_parquet()
        run, sizes = (order.column(name).to_numpy() for name in ("run", "size"))
        blocks = Runs(folder, tuple(done["runs"]), run, sizes).blocks(_BLOCK_BYTES)
        if file.kind == "parquet":
            schema = pa.ipc.read_schema(pa.py_buffer((folder / _SCHEMA).read_bytes()))
            write = partial(_write_table, blocks, schema, done["parsed"])
        else:
            write = partial(_write_array if file.kind == "json" else _write_lines, blocks)
        (place.stage / _OURS).write_bytes(json.dumps({"path": str(file.target)}).encode())
        _write_whole(file.target, partial(_write_gzip, write) if file.kind == "jsonl.gz" else write)
    except Exception:
        folder.delete()
        raise
    size = file.target.filesystem.get_file_info(file.target.path).size
    return {**file.asked, "records": len(run), "bytes": int(size)}


def _write_whole(target: Location, write: Callable[[Any], None]) -> None:
    """Write a file whole or not at all; what goes to object storage lies on a disk of the driver first."""
    target.parent.make_folder()
    if not target.is_object:
        with target.writing() as stream:
            write(stream)
        return
    with tempfile.TemporaryFile() as local:
        write(local)
        local.seek(0)
        with target.filesystem.open_output_stream(target.path) as stream:
            while piece := local.read(_PIECE_BYTES):
                stream.write(piece)


def _write_lines(blocks: Iterator[pa.Table], stream: Any) -> None:
    for block in blocks:
        stream.write(b"\n".join(block.column(RECORD).to_pylist()))
        stream.write(b"\n")


def _write_array(blocks: Iterator[pa.Table], stream: Any) -> None:
    before = b"[\n"
    for block in blocks:
        stream.write(before)
        stream.write(b",\n".join(block.column(RECORD).to_pylist()))
        before = b",\n"
    stream.write(b"\n]\n")


def _write_gzip(write: Callable[[Any], None], stream: Any) -> None:
    with gzip.GzipFile("", "wb", 6, stream, mtime=0) as packed:
        write(packed)


def _write_table(blocks: Iterator[pa.Table], schema: pa.Schema, parsed: bool, stream: Any) -> None:
    """As Parquet; the fields of ``parsed`` records become its columns."""
    columns = pa.schema(list(schema.field(RECORD).type)) if parsed else schema
    with pq.ParquetWriter(stream, columns, write_page_checksum=True) as writer:
        for block in blocks:
            table = block.cast(schema)
            if parsed:
                arrays = table.column(RECORD).combine_chunks().flatten()
                table = pa.Table.from_arrays(arrays, schema=columns)
            writer.write_table(table)
