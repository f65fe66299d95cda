"""The selected rows as they are written, what every manifest says of versions and time, and its numbers by name."""

import json
import platform
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyspark
from pyspark import SparkContext

import novelsum
from novelsum.errors import InputError
from novelsum.files.location import Location
from novelsum.files.runs import Runs
from novelsum.files.source import Source, read_rows, written_again
from novelsum.files.store import Pool
from novelsum.files.workplace import ROWS
from novelsum.rows import Integers
from novelsum.selection.rounds import Candidate
from novelsum.spark.gathering import as_they_are, gather

OUTPUT_COLUMNS = ("pick", "novelty", "density", "nearest_id", "nearest_distance")
SELECTED = "selected/part-00000.parquet"
_PREFIX = "input_"
_GATHERED = "gathered"
_GROUP_ROWS = 16384
_BLOCK_BYTES = 32 << 20
"""What the driver holds of the columns that are copied, about."""


def output_name(column: str, id_column: str) -> str:
    """What a copied column is called in a selection.

    ``input_`` goes before a name that the selection itself uses, and before one that has ``input_`` before such a name:
    so no two come to share one, whatever other columns there are. The name of the id is passed over.
    """
    own = column
    while own.startswith(_PREFIX):
        own = own.removeprefix(_PREFIX)
    if own not in OUTPUT_COLUMNS or column == id_column:
        return column
    name = _PREFIX + column
    return _PREFIX + name if name == id_column else name


def input_name(column: str, id_column: str) -> str:
    """What a column of a selection that was copied is called in the input."""
    names = (column, column.removeprefix(_PREFIX), column.removeprefix(_PREFIX).removeprefix(_PREFIX))
    return next(name for name in names if output_name(name, id_column) == column)


def copied_columns(
    context: SparkContext, source: Source, chosen: Sequence[tuple[int, int, str | int]], columns: list[str]
) -> pa.Table:
    """Some columns of some rows of the input, in that order. ``chosen``: the file of each, its row there, its id."""
    by_file: dict[int, list[int]] = {}
    for place, (file, _, _) in enumerate(chosen):
        by_file.setdefault(file, []).append(place)

    def read(of_file: tuple[int, list[int]]) -> tuple[list[int], bytes]:
        file, places = of_file
        _, rows, ids = zip(*(chosen[place] for place in places), strict=True)
        table = read_rows(source, file, np.array(rows), ids, columns)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return places, sink.getvalue().to_pybytes()

    parts = context.parallelize(list(by_file.items()), len(by_file)).map(read).collect()
    table = pa.concat_tables([pa.ipc.open_stream(content).read_all() for _, content in parts])
    return table.take(pa.array(np.argsort([place for places, _ in parts for place in places])))


def write_selected(
    context: SparkContext,
    source: Source,
    picks: list[Candidate],
    nearest: tuple[pa.Array, pa.Array],
    id_column: str,
    folder: Location,
) -> None:
    """Write the picks with the other columns of the input, one file in the order of picking; and where they lie there.

    ``nearest``: of each pick the id of the sample nearest to it that was selected before it, and their distance;
    ``folder``: the results. Other columns are gathered beside it, and the driver holds no more than a block of them.
    Raises InputError where a row has another id by now: its file is not what it was.
    """
    id_type = source.schema.field(id_column).type
    others = [name for name in source.schema.names if name not in (id_column, source.value_column)]
    columns: dict[str, Any] = {
        "pick": pa.array(range(1, len(picks) + 1), pa.int64()),
        id_column: pa.array([pick.id for pick in picks], id_type),
        "novelty": pa.array([pick.novelty for pick in picks], pa.float64()),
        "density": pa.array([pick.density for pick in picks], pa.float64()),
        "nearest_id": _in_type(nearest[0], id_type),
        "nearest_distance": nearest[1],
    }
    own = pa.table(columns)
    files, rows = (np.array([place[at] for place in ((p.file, p.file_row) for p in picks)]) for at in (0, 1))
    (folder / "selected").make_folder()
    if others:
        gathered = folder.parent / _GATHERED
        chosen = files, rows, np.arange(len(picks))
        found = gather(context, source, [id_column, *others], chosen, as_they_are, gathered, "write")
        blocks = Runs.of(gathered, found, len(picks)).blocks(_BLOCK_BYTES)
        _write_blocks(own, _with_same_ids(blocks, own.column(id_column), source, files), id_column, folder / SELECTED)
        gathered.delete()
    else:
        (folder / SELECTED).write_parquet(own, row_group_size=_GROUP_ROWS)
    names = pa.DictionaryArray.from_arrays(pa.array(files, pa.int32()), pa.array(source.files))
    (folder / ROWS).write_parquet(pa.table({"file": names.cast(pa.string()), "file_row": rows}))


def _with_same_ids(
    blocks: Iterator[pa.Table], ids: pa.ChunkedArray, source: Source, files: Integers
) -> Iterator[pa.Table]:
    """Blocks of rows with these ids (n,), of these files of the source (n,), without the ids."""
    start = 0
    for block in blocks:
        found, expected = block.column(0).combine_chunks(), ids.slice(start, len(block)).combine_chunks()
        if not found.equals(expected):
            same = pc.fill_null(pc.equal(found, expected), False).to_numpy(zero_copy_only=False)
            raise InputError(written_again(Location(source.files[files[start + np.argmin(same)]])))
        yield block.remove_column(0)
        start += len(block)


def _write_blocks(own: pa.Table, others: Iterator[pa.Table], id_column: str, file: Location) -> None:
    """Write the selection's own columns and, block by block, those that are copied."""
    writer, start = None, 0
    with file.writing() as stream:
        for block in others:
            table = own.slice(start, len(block))
            for name in block.column_names:
                table = table.append_column(output_name(name, id_column), block.column(name))
            writer = writer or pq.ParquetWriter(stream, table.schema, write_page_checksum=True)
            writer.write_table(table, row_group_size=_GROUP_ROWS)
            start += len(block)
        if writer:
            writer.close()


def _in_type(ids: pa.Array, id_type: pa.DataType) -> pa.Array:
    """Ids in the type of the input's; as they are where one is of a sample selected before, and beyond that type."""
    try:
        return ids.cast(id_type)
    except pa.ArrowInvalid:
        return ids


_MEASURED = (
    *("text", "embedded", "input", "inputs", "reference", "density"),
    *("selected", "comparison", "diversity", "seconds"),
)


def metrics(manifest: dict[str, Any]) -> bytes:
    """All numbers of a manifest under plain names, for a scheduler or a dashboard to take in; lists count from 1."""
    found: dict[str, float] = {}

    def gather(name: str, value: Any) -> None:
        if isinstance(value, dict | list):
            named = value.items() if isinstance(value, dict) else enumerate(value, start=1)
            for part, inner in named:
                gather(f"{name}.{part}", inner)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value

    for section in _MEASURED:
        gather(section, manifest.get(section, {}))
    return (json.dumps(found, indent=1) + "\n").encode()


def input_for_manifest(source: Source, pool: Pool) -> dict[str, Any]:
    """What a manifest says of an input, and of the pool that came of it."""
    return {
        "path": str(Location.of(source.path)),
        **({"table": source.table} if source.table else {}),
        "fingerprint": pool.fingerprint,
        **pool.counts(),
    }


def versions() -> dict[str, str]:
    """Versions of all that the numbers depend on."""
    return {
        "novelsum": novelsum.__version__,
        "python": platform.python_version(),
        "pyspark": pyspark.__version__,
        "numpy": np.__version__,
        "pyarrow": pa.__version__,
    }


def now() -> str:
    """The time in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
