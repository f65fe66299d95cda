"""Embeddings that exist already come in beside their records, or with nothing but ids."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import error_line, run_job
from pyspark import SparkContext

from novelsum.errors import InputError, UsageError
from novelsum.settings import EmbedSettings, check
from novelsum.text import plan, records
from novelsum.text.job import embed_text

RNG = np.random.default_rng(11)
SIZES = (30, 1, 44, 7, 2, 3, 9, 12, 5, 4, 8, 25)


@pytest.fixture
def take_in(spark: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run the job in this process, in the session of the tests, in pieces of some dozen records."""
    monkeypatch.setattr(plan, "_SMALLEST_PIECE_BYTES", 400)
    monkeypatch.setattr(records, "STRETCH_BYTES", 1500)

    def run(output: Path, **settings: Any) -> Path:
        given = EmbedSettings(output=str(output), **{name: _plain(value) for name, value in settings.items()})
        check(given, "embed_text")
        with monkeypatch.context() as patched:
            patched.setattr(SparkContext, "stop", lambda self: None)
            embed_text(given)
        return output

    return run


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def write_numbered(folder: Path, parts: list[list[Any]]) -> Path:
    """JSON arrays in files named by numbers, as the authors' code reads and writes them."""
    folder.mkdir()
    for number, part in enumerate(parts):
        (folder / f"{number}.json").write_text(json.dumps(part, indent=4))
    return folder


def cut(rows: list[Any]) -> list[list[Any]]:
    ends = np.cumsum(SIZES)
    return [rows[end - size : end] for size, end in zip(SIZES, ends, strict=True)]


def rows_of(output: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for file in sorted(output.glob("part-*.parquet")):
        rows += pq.read_table(file).to_pylist()
    return rows


def test_the_released_layout_is_taken_in_each_record_with_its_own_vector(take_in, tmp_path):
    """Numbered files of chats and vectors, 2 before 10; records with the same text keep the vectors they came with."""
    vectors = RNG.normal(size=(sum(SIZES), 6)).astype(np.float32)
    chats = [{"id": n, "messages": [{"role": "user", "content": f"<b>{n % 100}</b>\n"}]} for n in range(len(vectors))]
    texts = write_numbered(tmp_path / "texts", cut(chats))
    embeddings = write_numbered(tmp_path / "embeddings", cut(vectors.tolist()))
    output = take_in(tmp_path / "out", input=texts, embeddings=embeddings)
    rows = rows_of(output)
    assert [row["id"] for row in rows] == list(range(len(vectors)))
    assert np.array([row["embedding"] for row in rows], np.float32).tolist() == vectors.tolist()
    assert [row["text"] for row in rows] == [f"<b>{n % 100}</b>\n" for n in range(len(vectors))]
    assert [json.loads(row["record"]) for row in rows] == chats
    assert {row["tokens"] for row in rows} == {None}
    assert len(list(output.glob("part-*.parquet"))) > 10
    said = json.loads((output / "_MANIFEST.json").read_text())
    assert said["embedded"]["path"] == str(embeddings)
    assert (said["embedded"]["files"], said["embedded"]["rows"], said["embedded"]["dimension"]) == (12, 150, 6)


def test_vectors_of_npy_go_with_lines_and_a_bad_record_takes_its_own_along(take_in, tmp_path):
    """Doubles stay doubles; empty lines are no records; of records known by their texts a repeated one is left out."""
    vectors = RNG.normal(size=(60, 5))
    np.save(tmp_path / "v.npy", vectors)
    lines = [json.dumps({"text": f"text {n}"}).encode() for n in range(60)]
    lines[7], lines[40] = b"{", lines[3]
    (tmp_path / "in.jsonl").write_bytes(b"\n\n".join(lines))
    output = take_in(tmp_path / "out", input=tmp_path / "in.jsonl", embeddings=tmp_path / "v.npy", on_bad_rows="drop")
    rows = rows_of(output)
    kept = [n for n in range(60) if n not in (7, 40)]
    assert [row["text"] for row in rows] == [f"text {n}" for n in kept]
    assert [row["embedding"] for row in rows] == vectors[kept].tolist()
    (rejected,) = pq.read_table(output / "rejected").to_pylist()
    assert (rejected["reason"], rejected["file_row"]) == ("not JSON", 15)


def test_a_selection_is_made_from_vectors_with_ids_alone(take_in, run_here, tmp_path):
    vectors = RNG.normal(size=(40, 5)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    (tmp_path / "ids.txt").write_text("".join(f"n{n}\n" for n in range(40)))
    output = take_in(tmp_path / "in", embeddings=tmp_path / "v.npy", ids=tmp_path / "ids.txt", id_column="key")
    run_here("curate", input=str(output), output=str(tmp_path / "out"), id_column="key", budget=5, report=False)
    for row in pq.read_table(output).to_pylist():
        assert row["embedding"] == vectors[int(row["key"][1:])].tolist()
    assert len(pq.read_table(tmp_path / "out" / "selected")) == 5


def test_what_does_not_belong_together_is_refused_and_leaves_nothing(take_in, tmp_path):
    np.save(tmp_path / "v.npy", np.ones((4, 5), np.float32))
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    (tmp_path / "ids.txt").write_text("a\nb\n")
    output = tmp_path / "out"
    with pytest.raises(InputError, match=r"v\.npy has 4 vectors, one is needed for each of the 2 records"):
        take_in(output, input=tmp_path / "in.jsonl", embeddings=tmp_path / "v.npy")
    with pytest.raises(InputError, match=r"v\.npy has 4 vectors and --ids 2 ids"):
        take_in(output, embeddings=tmp_path / "v.npy", ids=tmp_path / "ids.txt")
    with pytest.raises(UsageError, match="--embeddings and --model both say where embeddings come from"):
        take_in(output, input=tmp_path / "in.jsonl", embeddings=tmp_path / "v.npy", model="m")
    with pytest.raises(UsageError, match="--ids and --input both give ids"):
        take_in(output, input="x", embeddings=tmp_path / "v.npy", ids=tmp_path / "ids.txt")
    with pytest.raises(UsageError, match="with --ids no records are read"):
        take_in(output, embeddings=tmp_path / "v.npy", ids=tmp_path / "ids.txt", content_ids=True)
    assert not output.exists()


def test_the_command_needs_one_source_of_embeddings_and_tells_a_path_that_is_wrong(tmp_path):
    done = run_job("embed_text", "--input", tmp_path, "--output", tmp_path / "out", by="python")
    assert done.returncode == 2
    assert "--model is missing" in error_line(done)
    given = ("--embeddings", tmp_path / "none.npy", "--ids", tmp_path / "ids.txt")
    done = run_job("embed_text", *given, "--output", tmp_path / "out", by="python")
    assert done.returncode == 3
    assert "none.npy does not exist; give a file of vectors (.npy or .json)" in error_line(done)
