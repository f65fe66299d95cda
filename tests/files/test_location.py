"""Places on a disk: files are there whole or not at all, and folders list what is data."""

import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from novelsum.files.location import Location


def die_half_way(target: Location, table: pa.Table) -> None:
    with target.writing() as stream, pq.ParquetWriter(stream, table.schema) as to:
        to.write_table(table.slice(0, len(table) // 2))
        raise RuntimeError("half way")


def test_a_second_attempt_that_dies_half_way_leaves_the_file_of_the_first_whole(tmp_path):
    """Under the eyes of a reader, who sees one whole file at any time; nothing unfinished is left."""
    target = Location.of(str(tmp_path / "group.parquet"))
    table = pa.table({"n": list(range(50_000))})
    target.write_parquet(table)
    is_over, seen = threading.Event(), []

    def read() -> None:
        while not is_over.is_set():
            seen.append(pq.read_table(target.path).equals(table))

    reader = threading.Thread(target=read)
    reader.start()
    while len(seen) < 20:
        with pytest.raises(RuntimeError, match="half way"):
            die_half_way(target, table)
    is_over.set()
    reader.join()
    assert all(seen)
    assert [entry.name for entry in tmp_path.iterdir()] == ["group.parquet"]


def test_two_attempts_that_write_one_file_at_a_time_never_mix(tmp_path):
    target = Location.of(str(tmp_path / "part"))
    with target.writing() as slow:
        slow.write(b"a" * 100_000)
        target.write_bytes(b"b" * 300_000)
        assert target.read_bytes() == b"b" * 300_000
        slow.write(b"a" * 100_000)
    assert target.read_bytes() == b"a" * 200_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["part"]


class Objects(Location):
    """Files on this disk that are said to be objects: what is closed is complete."""

    is_object = True


def test_an_object_goes_up_only_when_it_is_whole(tmp_path):
    target = Objects(str(tmp_path / "object"))
    target.write_bytes(b"first")
    with pytest.raises(RuntimeError, match="half way"):
        die_half_way(target, pa.table({"n": [1, 2]}))
    assert target.read_bytes() == b"first"
    with target.writing() as stream:
        stream.write(b"second")
    assert fs.LocalFileSystem().get_file_info(target.path).size == 6


def test_only_what_lies_beside_a_manifest_is_left_out(tmp_path):
    """Below a folder, in a glob and in a folder of many results; one that a user names, or that is data, is read."""
    results = ("night/map/a.parquet", "night/rejected/a.parquet", "night/rejected_near/a.parquet")
    for name in (*results, "night/selected/b.parquet", "night/sub/rejected/c.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "night" / "metrics.json").write_text("{}")
    (tmp_path / "rejected").mkdir()
    (tmp_path / "rejected" / "d.parquet").write_bytes(b"")

    def found(path: str) -> list[str]:
        location = Location.of(str(tmp_path / path))
        files = location.parquet_files(location.all_files())
        return [str(Path(str(file)).relative_to(tmp_path)) for file in files]

    data = ["night/selected/b.parquet", "night/sub/rejected/c.parquet", "rejected/d.parquet"]
    assert found(".") == ["night/map/a.parquet", "night/metrics.json", *results[1:], *data]
    (tmp_path / "night" / "_MANIFEST.json").write_text("{}")
    assert found(".") == data
    assert found("n*") == data[:2]
    assert found("night/*/*.parquet") == data[:1]
    assert found("night") == data[:2]
    assert found("night/rejected") == ["night/rejected/a.parquet"]
