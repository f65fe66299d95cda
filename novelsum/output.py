"""What a run leaves behind: the selected rows, the rejected ones, and a manifest that is written last.

All is made in the work directory and moved into place at the very end, so that a run that fails leaves an
earlier result untouched, and nothing that looks finished.
"""

import hashlib
import json
import platform
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark
from pyspark.sql import SparkSession

import novelsum
from novelsum.errors import UsageError
from novelsum.selection import Candidate
from novelsum.source import Source, read_rows
from novelsum.storage import Location

MANIFEST = "_MANIFEST.json"
WORK = "_work"
RESULT = "result"
OUTPUT_COLUMNS = ("pick", "novelty", "density")
_RESULTS = ("selected", "rejected", "report.html", "report.json", "diversity.parquet", "diversity.json")


def check_output(output: str, inputs: Sequence[str], overwrite: bool) -> Location:
    """The output folder, if a result may be written there; raise UsageError if not."""
    location = Location.of(output)
    for path in inputs:
        used = Location.of(path)
        if used.contains(location) or location.contains(used.listing_root):
            raise UsageError(f"--output {output} and {path} lie in one another; write to a folder of its own")
    try:
        entries = [entry.name for entry in location.entries()]
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"--output {output} cannot be a folder: {str(error).splitlines()[0]}") from None
    result = [name for name in entries if not _is_leftover(name)]
    if result and not overwrite:
        raise UsageError(f"--output {output} is not empty; name another folder or replace it with --overwrite")
    if result and MANIFEST not in result:
        raise UsageError(
            f"--output {output} has no {MANIFEST}, so no job wrote it and --overwrite will not touch it; name another"
        )
    foreign = [name for name in result if not _is_result(name)]
    if foreign:
        raise UsageError(
            f"--output {output} holds {foreign[0]!r}, which no job wrote, so --overwrite will not touch the folder; "
            "name another one"
        )
    return location


def _is_result(name: str) -> bool:
    part_of_density = name.startswith("part-") and name.endswith(".parquet")
    return part_of_density or name in (MANIFEST, *_RESULTS)


def _is_leftover(name: str) -> bool:
    """Whether a run that was killed may have left it."""
    return name == WORK or name.startswith(f".{MANIFEST}.")


def work_location(work_dir: str | None, output: Location) -> Location:
    """Where a run keeps its store and pick log: in the output, or in a folder of ``work_dir`` named for the output."""
    if work_dir is None:
        return output / WORK / "work"
    return Location.of(work_dir) / f"novelsum-{hashlib.blake2b(str(output).encode(), digest_size=8).hexdigest()}"


def start_work(work: Location, stage: Location) -> None:
    """Make the folders that a run works in anew; raise UsageError where that is not possible."""
    for folder in (stage, work):
        try:
            folder.delete()
            folder.make_folder()
        except (OSError, pa.ArrowException) as error:
            raise UsageError(f"{folder} cannot be written: {str(error).splitlines()[0]}") from None
    (work / "store").make_folder()


def publish(output: Location, stage: Location, manifest: dict[str, Any]) -> None:
    """Replace what the output holds by the results in the stage, the manifest first and last."""
    for entry in sorted(output.entries(), key=lambda entry: entry.name != MANIFEST):
        if _is_result(entry.name) or entry.name.startswith(f".{MANIFEST}."):
            entry.delete()
    for result in [*(stage / RESULT).entries(), stage / "rejected"]:
        if result.exists():
            result.move_to(output / result.name)
    (output / MANIFEST).write_bytes((json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())
    (stage / RESULT).delete()


def discard(output: Location, work: Location, stage: Location) -> None:
    """Remove what a run worked in, and the output folder if nothing else is there."""
    work.delete()
    stage.delete()
    if output.exists() and not output.entries():
        output.delete()


def read_manifest(folder: Location) -> dict[str, Any] | None:
    """The manifest of a result, None where there is none."""
    location = folder.listing_root / MANIFEST
    return json.loads(location.read_bytes()) if location.exists() else None


def output_name(column: str) -> str:
    """What a copied column is called in a selection: ``input_`` goes before a name the selection itself uses."""
    return f"input_{column}" if column in OUTPUT_COLUMNS else column


def write_selected(
    spark: SparkSession, source: Source, picks: list[Candidate], id_column: str, folder: Location
) -> None:
    """Write the picks with the other columns of the input, one file in the order of picking."""
    others = [name for name in source.schema.names if name not in (id_column, source.value_column)]
    by_file: dict[int, list[int]] = {}
    for place, pick in enumerate(picks):
        by_file.setdefault(pick.file, []).append(place)

    def read(of_file: tuple[int, list[int]]) -> tuple[list[int], bytes]:
        file, places = of_file
        table = read_rows(source, file, np.array([picks[place].file_row for place in places]), others)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return places, sink.getvalue().to_pybytes()

    columns: dict[str, Any] = {
        "pick": pa.array(range(1, len(picks) + 1), pa.int64()),
        id_column: pa.array([pick.id for pick in picks], source.schema.field(id_column).type),
        "novelty": pa.array([pick.novelty for pick in picks], pa.float64()),
        "density": pa.array([pick.density for pick in picks], pa.float64()),
    }
    if others:
        parts = spark.sparkContext.parallelize(list(by_file.items()), len(by_file)).map(read).collect()
        rows = pa.concat_tables([pa.ipc.open_stream(content).read_all() for _, content in parts])
        order = np.argsort([place for places, _ in parts for place in places])
        rows = rows.take(pa.array(order))
        columns.update({output_name(name): rows.column(name) for name in others})
    table = pa.table(columns)
    (folder / "selected").make_folder()
    (folder / "selected" / "part-00000.parquet").write_parquet(table)


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
