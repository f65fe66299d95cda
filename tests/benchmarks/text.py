"""make bench-text: a million short chats in and out, seconds and memory.

Import: 1,000,000 records of JSON lines, some 0.5 GB, with 384-d vectors beside them in ``.npy`` (1.5 GB); and 50,000 in
the released layout, numbered JSON of texts and of vectors. Export: all the million, in an order that is not theirs, to
each kind of file. All of it lies in out/bench-text (6 GB) and is generated once. ROWS in the environment, a multiple of
50,000, is another number of records.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import PeakMemory
from results import Table, keep

from novelsum.files.location import Location
from novelsum.files.source import look, open_source
from novelsum.files.workplace import Workplace
from novelsum.report.output import write_selected
from novelsum.selection.rounds import Candidate
from novelsum.settings import EmbedSettings, Settings
from novelsum.spark import session
from novelsum.text.export import TrainingFile, finish, prepare
from novelsum.text.job import embed_text

FOLDER = Path("out/bench-text", os.environ.get("ROWS", ""))
ROWS, PER_FILE, DIMENSION = int(os.environ.get("ROWS", "1000000")), 50_000, 384
MEASURED: list[list[object]] = []


def main() -> None:
    """Generate what is not there, then measure import and export."""
    _once("chats", _write_chats)
    _once("vectors", _write_vectors)
    _once("released", _write_released)
    for name, rows, texts, vectors in (
        ("imported", ROWS, "chats", "vectors"),
        ("imported-released", 50_000, "released/texts", "released/vectors"),
    ):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        given = EmbedSettings(
            input=str(FOLDER / texts), embeddings=str(FOLDER / vectors), output=str(FOLDER / name), overwrite=True
        )
        with _measured(
            f"import of {rows:,}: {_size(FOLDER / texts)} of texts and {_size(FOLDER / vectors)} of vectors"
        ):
            embed_text(given)
    _export()
    keep("text", Table(["what", "seconds", *(f"{kind}, GiB" for kind in ("driver", "workers", "java"))], MEASURED))


def _export() -> None:
    source = open_source(str(FOLDER / "imported"), "id", "embedding", look(str(FOLDER / "imported")))
    starts = [0, *np.cumsum(list(_rows_of(source.path)))[:-1].tolist()]
    order = np.random.default_rng(1).permutation(ROWS)
    files = np.searchsorted(starts, order, side="right") - 1
    picks = [
        Candidate(row, f"chat-{row:07d}", 1.0, 1.0, file, row - starts[file])
        for row, file in zip(order.tolist(), files.tolist(), strict=True)
    ]
    context = session.start("bench-text", None)
    place = Workplace.of(Location.of(str(FOLDER / "selected")), None, {})
    shutil.rmtree(FOLDER / "selected", ignore_errors=True)
    place.stage.make_folder()
    place.start_results()
    nowhere = pa.nulls(ROWS, pa.string()), pa.nulls(ROWS, pa.float64())
    with _measured("the rows of the picks"):
        write_selected(context, source, picks, nowhere, "id", place.result)
    del picks
    for name, by in (("a.jsonl", "picks"), ("b.jsonl", "input"), ("c.jsonl.gz", "picks"), ("d.parquet", "picks")):
        file = TrainingFile.of(Settings(export=str(FOLDER / name), export_order=by))
        assert file is not None
        with _measured(f"export to .{name.partition('.')[2]} in the order of {by}"):
            prepare(context, file, place, "id")
            finish(file, place)
        if name == "b.jsonl":
            given = b"".join(path.read_bytes() for path in sorted((FOLDER / "chats").iterdir()))
            assert (FOLDER / name).read_bytes() == given
    session.stop(context)


def _rows_of(path: str) -> Iterator[int]:
    for file in sorted(Path(path).glob("part-*.parquet")):
        yield pq.ParquetFile(file).metadata.num_rows


@contextmanager
def _measured(what: str) -> Iterator[None]:
    with PeakMemory() as memory:
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
    peak = ", ".join(f"{kind} {size / 2**20:,.0f} MiB" for kind, size in memory.peak.items())
    print(f"{what}: {seconds:.1f} s; {peak}", flush=True)
    sizes = [round(memory.peak[kind] / 2**30, 2) or "" for kind in ("driver", "workers", "java")]  # none in a second
    MEASURED.append([what, round(seconds, 1), *sizes])


def _size(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.rglob('*.*')) / 2**30:.2f} GiB"


# --- what is generated ------------------------------------------------------------------------------------


def _once(name: str, write: Callable[[Path], None]) -> None:
    if not (FOLDER / name).exists():
        half = FOLDER / f".{name}"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        write(half)
        half.rename(FOLDER / name)


def _record(row: int) -> dict[str, object]:
    return {
        "id": f"chat-{row:07d}",
        "messages": [
            {"role": "user", "content": f"Question {row}: " + "how do I do that? " * 8},
            {"role": "assistant", "content": "Answer: " + "like this, of course. " * 12},
        ],
    }


def _write_chats(folder: Path) -> None:
    for start in range(0, ROWS, PER_FILE):
        lines = (json.dumps(_record(row)) + "\n" for row in range(start, start + PER_FILE))
        (folder / f"{start // PER_FILE:02d}.jsonl").write_text("".join(lines))


def _write_vectors(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(ROWS // PER_FILE):
        np.save(folder / f"{number:02d}.npy", rng.standard_normal((PER_FILE, DIMENSION), np.float32))


def _write_released(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("texts", "vectors"):
        (folder / name).mkdir()
    for number in range(5):
        rows = range(number * 10_000, (number + 1) * 10_000)
        vectors = rng.standard_normal((len(rows), DIMENSION), np.float32)
        (folder / "texts" / f"{number}.json").write_text(json.dumps([_record(row) for row in rows], indent=4))
        (folder / "vectors" / f"{number}.json").write_text(json.dumps(vectors.tolist(), indent=4))


if __name__ == "__main__":
    main()
