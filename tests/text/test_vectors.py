"""Vectors that exist already are found, put in the order of their records, and read from any row to any other."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from novelsum.errors import InputError
from novelsum.files.location import Location
from novelsum.text import given, withids
from novelsum.text.given import Given, counted, in_order, look_for_vectors, open_vectors, read_ids, require_as_many

RNG = np.random.default_rng(4)


def opened(path: Path) -> Given:
    return Given(tuple(map(counted, open_vectors(look_for_vectors(str(path))))))


def read(path: Path, first: int, stop: int) -> np.ndarray:
    return opened(path).vectors(np.arange(first, stop))


def released(folder: Path, parts: list[np.ndarray]) -> Path:
    """Numbered files as the authors' embedding.py writes them."""
    folder.mkdir()
    for number, part in enumerate(parts):
        (folder / f"{number}.json").write_text(json.dumps(part.tolist(), indent=4))
    return folder


@pytest.fixture(params=[1, 100, 16 << 20])
def small_reads(request, monkeypatch):
    monkeypatch.setattr(given, "_READ_BYTES", request.param)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_rows_of_npy_are_read_from_any_to_any(tmp_path, small_reads, dtype):
    vectors = RNG.normal(size=(50, 7)).astype(dtype)
    np.save(tmp_path / "v.npy", vectors)
    for first, stop in ((0, 50), (3, 4), (49, 50), (7, 7)):
        found = read(tmp_path / "v.npy", first, stop)
        assert found.tolist() == vectors[first:stop].tolist()
        assert not len(found) or found.dtype == (np.float64 if dtype == "<f8" else np.float32)


def test_the_released_layout_comes_in_the_order_of_its_numbers_across_files(tmp_path, small_reads):
    """2.json before 10.json; values as they were computed, in float32."""
    parts = [RNG.normal(size=(size, 5)).astype(np.float32) for size in (3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8)]
    folder = released(tmp_path / "embeddings", parts)
    expected = np.concatenate(parts)
    assert [file.rows for file in opened(folder).files] == [len(part) for part in parts]
    for first, stop in ((0, len(expected)), (2, 31), (44, 52), (51, 52)):
        found = read(folder, first, stop)
        assert found.dtype == np.float32
        assert (found == expected[first:stop]).all()
    some = np.array([0, 3, 4, 17, 50])
    assert (opened(folder).vectors(some) == expected[some]).all()


def test_a_long_file_is_read_from_a_mark_near_what_is_wanted(tmp_path, monkeypatch):
    """Not from its begin, where there may be gigabytes before it."""
    monkeypatch.setattr(given, "_MARKED", 10)
    vectors = RNG.normal(size=(95, 3)).astype(np.float32)
    files, parsed = opened(released(tmp_path / "e", [vectors])), []
    kept = given.read_records
    monkeypatch.setattr(given, "read_records", lambda *of: (parsed.append(1) or one for one in kept(*of)))
    for first, stop in ((0, 95), (9, 10), (10, 11), (89, 95), (94, 95)):
        parsed.clear()
        assert (files.vectors(np.arange(first, stop)) == vectors[first:stop]).all()
        assert len(parsed) <= stop - first + 9


def test_json_of_doubles_keeps_all_digits_and_nan(tmp_path):
    vectors = RNG.normal(size=(6, 3))
    vectors[2, 1] = np.nan
    found = read(released(tmp_path / "e", [vectors]), 0, 6)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, vectors)


def test_numbers_order_files_only_where_all_names_are_different_ones():
    def ordered(*names: str) -> list[str]:
        return [place.name for place in in_order([Location(f"/d/{name}") for name in names], lambda place: place)]

    assert ordered("0.json", "10.json", "2.json") == ["0.json", "2.json", "10.json"]
    assert ordered("00.json", "0.json") == ["00.json", "0.json"]
    assert ordered("a.json", "b.json", "10.json") == ["a.json", "b.json", "10.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x93NUMPY", "is no NumPy file"),
        (b"text", "is no NumPy file"),
        (np.zeros(4), r"shape \(4,\) and type float64, expected \(n, D\)"),
        (np.zeros((4, 2), dtype=int), "type int64, expected"),
        (np.asfortranarray(np.ones((4, 2))), "by columns, expected"),
        (np.array([[None]]), "type object, expected"),
    ],
)
def test_a_npy_that_is_none_of_vectors_is_refused(tmp_path, content, words):
    file = tmp_path / "v.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, content, allow_pickle=True)
    with pytest.raises(InputError, match=words):
        opened(file)


def test_a_half_written_npy_is_refused(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((100, 4)))
    (tmp_path / "v.npy").write_bytes((tmp_path / "v.npy").read_bytes()[:-1])
    with pytest.raises(InputError, match="is not whole"):
        opened(tmp_path / "v.npy")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('["a", "b"]', "element 1 of .* is no list of numbers"),
        ('[[1, 2], "b"]', "element 2 of .* is no list of numbers"),
        ("[[1, 2], [1]]", "element 2 of .* has 1 numbers, the first vector 2"),
        ("[[1, 2], [[1], 2]]", "element 2 of .* is no list of numbers"),
        ("[[1, 2], [1, 2]", "is not a whole JSON array"),
        ("{}", "is no JSON array"),
    ],
)
def test_json_that_holds_something_else_is_told_by_file_and_element(tmp_path, content, words):
    (tmp_path / "0.json").write_text(content)
    with pytest.raises(InputError, match=words):
        read(tmp_path / "0.json", 0, 2)


def test_files_of_two_dimensions_or_kinds_are_refused(tmp_path):
    released(tmp_path / "e", [np.ones((2, 3)), np.ones((2, 4))])
    with pytest.raises(InputError, match=r"1\.json has vectors of 4 dimensions, .*0\.json of 3"):
        opened(tmp_path / "e")
    np.save(tmp_path / "e" / "2.npy", np.ones((2, 3)))
    with pytest.raises(InputError, match=r"holds \.npy and \.json files"):
        opened(tmp_path / "e")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.md").write_text("x")
    with pytest.raises(InputError, match="holds no file of vectors"):
        opened(tmp_path / "empty")


def test_as_many_vectors_as_records_are_required_in_all_and_by_name():
    def told(records: dict[str, int], vectors: dict[str, int]) -> None:
        both = (
            [(Location(f"/{of}/{name}"), n) for name, n in held.items()]
            for of, held in (("t", records), ("v", vectors))
        )
        require_as_many("PATH", *both)

    told({"0.json": 3, "1.json": 4}, {"1.json": 4, "0.json": 3})
    told({"a.jsonl": 7}, {"0.json": 3, "1.json": 4})
    with pytest.raises(InputError, match=r"/t/0\.json has 3 records and /v/0\.json 4 vectors"):
        told({"0.json": 3, "1.json": 4}, {"0.json": 4, "1.json": 3})
    with pytest.raises(InputError, match="PATH has 6 vectors, one is needed for each of the 7 records"):
        told({"a.jsonl": 7}, {"v.npy": 6})


# --- ids --------------------------------------------------------------------------------------------------

IDS = ["b", 'a "quoted" one', "7", " spaces ", "\u2028", ""]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.txt", ("\n".join(IDS) + "\n").encode()),
        ("ids.txt", b"\xef\xbb\xbf" + "\r\n".join(IDS).encode() + b"\r\n"),
        ("ids.json", json.dumps(IDS, indent=1).encode()),
        ("ids.jsonl", b"\n".join(json.dumps(id_).encode() for id_ in IDS)),
    ],
)
def test_ids_are_read_from_texts_as_they_are(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read_ids(str(tmp_path / name)).to_pylist() == IDS


@pytest.mark.parametrize("values", [np.array([5, 3, 2**62]), np.array(["x", "yy"])])
def test_ids_are_read_from_npy(tmp_path, values):
    np.save(tmp_path / "ids.npy", values)
    assert read_ids(str(tmp_path / "ids.npy")).to_pylist() == values.tolist()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("ids.json", b'["a", 1]', "must hold strings or whole numbers, all of one kind"),
        ("ids.json", b"[1.5]", "must hold strings or whole numbers"),
        ("ids.json", b"[9223372036854775808]", "holds an id that is none"),
        ("ids.jsonl", b"1\n2x\n", "line 2 of .* is not JSON"),
        ("ids.txt", b"\xff\n", "is not in UTF-8"),
        ("ids.npy", b"\x93NUMPY", "is no NumPy file"),
        ("ids.csv", b"a\n", "must end in .npy, .txt, .json or .jsonl"),
    ],
)
def test_ids_that_are_none_are_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_ids(str(tmp_path / name))


# --- vectors with ids and no texts ------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [np.arange(100, 153), np.array([f'id "{i}"' for i in range(53)])])
def test_vectors_and_ids_become_parquet_in_their_order(spark, tmp_path, monkeypatch, ids):
    """Of several files, each in parts."""
    monkeypatch.setattr(withids, "_PART_BYTES", 200)
    parts = [RNG.normal(size=(size, 5)).astype(np.float32) for size in (20, 1, 32)]
    files = opened(released(tmp_path / "e", parts))
    np.save(tmp_path / "ids.npy", ids)
    to = Location(str(tmp_path / "out"))
    to.make_folder()
    assert withids.write_with_ids(spark, "PATH", files, read_ids(str(tmp_path / "ids.npy")), "key", to) == 53
    table = pq.read_table(tmp_path / "out")
    assert table.column("key").to_pylist() == ids.tolist()
    assert np.array(table.column("embedding").to_pylist(), dtype=np.float32).tolist() == np.concatenate(parts).tolist()
    assert len(list((tmp_path / "out").iterdir())) == 7
    with pytest.raises(InputError, match="has 53 vectors and --ids 2 ids"):
        withids.write_with_ids(spark, "PATH", files, pa.array(["a", "b"]), "key", to)
