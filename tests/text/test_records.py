"""Records come out of files byte for byte, wherever a file is cut, and what cannot be read is named."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from novelsum.errors import InputError
from novelsum.text import records
from novelsum.text.records import (
    Stretch,
    column_names,
    look_for_text,
    open_files,
    read_batches,
    read_records,
    stretches_of,
    told_number,
)

ODD = [
    b'{"text":"plain"}',
    b' {  "b" : 1,\t"a":\t2 , "text" : "odd  spacing" }  ',
    b'{"text": "escapes \\u00e9 \\/ \\" \\\\ \\n \\ud83d\\ude00", "n": 1.0e0, "n": 2}',
    '{"text": "naïve 😀 \u2028\u2029\u0085 \x7f"}'.encode(),
    b'{"text": "brackets ] } [ { , in a text", "list": [1, [2, {"c": []}], "]"], "empty": {}}',
    b'"a text alone, with a comma"',
    b"[1.5, -2e10, 3]",
    b"null",
    b"-12.5",
    b'{"text": "' + b"x" * 5000 + b'\\"y"}',
    b'{"broken": tru}',
]
"""Records as nobody's writer would write them again."""


def the_file(path: Path):
    (file,) = open_files(look_for_text(str(path)))
    return file


def all_of(file, size: int = 1 << 30) -> list:
    return [record for stretch in stretches_of(file, size) for record in read_records(stretch)]


@pytest.fixture(params=[3, 100, 1 << 20])
def small_reads(request, monkeypatch):
    """However little is read of a file at once."""
    monkeypatch.setattr(records, "_READ_BYTES", request.param)


# --- lines ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_a_line_comes_byte_for_byte_without_its_break(tmp_path, small_reads, end):
    breaks = end or b"\n"
    (tmp_path / "in.jsonl").write_bytes(breaks.join(ODD) + end)
    found = all_of(the_file(tmp_path / "in.jsonl"))
    assert [record.raw for record in found] == ODD
    assert [record.number for record in found] == list(range(1, len(ODD) + 1))


def test_empty_lines_are_no_records_but_count_and_a_byte_order_mark_is_passed_over(tmp_path):
    (tmp_path / "in.ndjson").write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n  \r\n{"a": 2}\n\n')
    found = all_of(the_file(tmp_path / "in.ndjson"))
    assert [(record.number, record.raw) for record in found] == [(1, b'{"a": 1}'), (4, b'{"a": 2}')]


@pytest.mark.parametrize("size", [1, 7, 50, 200, 5200])
def test_every_line_is_in_one_stretch_wherever_a_file_is_cut(tmp_path, size):
    content = b"\r\n".join(ODD[:5]) + b"\n\n" + b"\n".join(ODD[5:])
    (tmp_path / "in.jsonl").write_bytes(content)
    found = all_of(the_file(tmp_path / "in.jsonl"), size)
    assert [record.raw for record in found] == ODD
    assert all(content[record.offset : record.end] == record.raw for record in found)


# --- arrays -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opens", "between", "closes"), [(b"[", b",", b"]"), (b"\xef\xbb\xbf\n[\n ", b" ,\r\n\t", b"\n]\n")]
)
def test_an_element_of_an_array_comes_byte_for_byte(tmp_path, small_reads, opens, between, closes):
    content = opens + between.join(ODD) + closes
    (tmp_path / "in.json").write_bytes(content)
    found = all_of(the_file(tmp_path / "in.json"))
    assert [record.raw for record in found] == [raw.strip() for raw in ODD]
    assert [record.number for record in found] == list(range(1, len(ODD) + 1))
    assert all(content[record.offset : record.end] == record.raw for record in found)


def test_a_piece_of_an_array_is_read_by_itself(tmp_path, small_reads):
    (tmp_path / "in.json").write_bytes(b"[\n" + b",\n".join(ODD) + b"\n]")
    file = the_file(tmp_path / "in.json")
    found = all_of(file)
    for first in range(len(ODD)):
        for last in range(first, len(ODD)):
            piece = Stretch(file, found[first].offset, found[last].end, first + 1)
            assert list(read_records(piece)) == found[first : last + 1]


@pytest.mark.parametrize("content", [b"[]", b" [ \n ]\n"])
def test_an_empty_array_has_no_records(tmp_path, content):
    (tmp_path / "in.json").write_bytes(content)
    assert all_of(the_file(tmp_path / "in.json")) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"a": 1}, {"a": 2', "is not a whole JSON array: it ends within or after record 2; it may be half written"),
        (b'[{"a": 1}, {"a": "', "is not a whole JSON array: it ends within or after record 2"),
        (b'[{"a": 1}\n', "is not a whole JSON array: it ends within or after record 1"),
        (b"[", "is not a whole JSON array: it ends within or after record 1"),
        (b'[{"a": 1}]\n[{"a": 2}]\n', "goes on after its JSON array, with .* give it the ending .jsonl"),
    ],
)
def test_an_array_that_is_none_to_its_end_is_refused(tmp_path, small_reads, content, words):
    (tmp_path / "in.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"{re.escape(str(tmp_path))}/in.json {words}"):
        all_of(the_file(tmp_path / "in.json"))


def test_random_json_is_cut_into_its_elements(tmp_path, monkeypatch):
    """Against Python's own parser, whatever lies in texts and however deep, with reads of any length."""
    rng = np.random.default_rng(3)
    marks = ['"', "\\", "[", "]", "{", "}", ",", ":", "é", "😀", "\n", "a", " "]

    def value(depth: int):
        kind = rng.integers(0, 7 if depth < 4 else 4)
        text = "".join(rng.choice(marks, rng.integers(0, 12)))
        if kind < 4:
            return [text, int(rng.integers(-99, 99)), None, 0.5][kind]
        inner = [value(depth + 1) for _ in range(rng.integers(0, 4))]
        return inner if kind == 4 else {f"{place}{text}": one for place, one in enumerate(inner)}

    for trial in range(60):
        monkeypatch.setattr(records, "_READ_BYTES", int(rng.integers(1, 40)))
        elements = [value(0) for _ in range(rng.integers(0, 9))]
        indent = [None, 1][trial % 2]
        (tmp_path / "in.json").write_text(json.dumps(elements, indent=indent, ensure_ascii=trial % 3 == 0))
        assert [json.loads(record.raw) for record in all_of(the_file(tmp_path / "in.json"))] == elements


# --- Parquet ----------------------------------------------------------------------------------------------


def test_rows_of_a_stretch_of_parquet_come_with_their_numbers(tmp_path):
    table = pa.table({"text": [f"t{i}" for i in range(50)], "n": range(50)})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=20)
    file = the_file(tmp_path / "in.parquet")
    assert [(stretch.start, stretch.stop) for stretch in stretches_of(file)] == [(0, 20), (20, 40), (40, 50)]
    assert column_names(file) == ["text", "n"]
    for start, stop in ((0, 50), (0, 1), (19, 21), (20, 40), (45, None), (7, 33)):
        found = [
            (first + place, text)
            for first, batch in read_batches(Stretch(file, start, stop, start), ["text"])
            for place, text in enumerate(batch.column("text").to_pylist())
        ]
        assert found == [(i, f"t{i}") for i in range(start, stop or 50)]


# --- files ------------------------------------------------------------------------------------------------


def test_a_folder_and_a_glob_mean_the_files_whose_names_say_that_they_hold_texts(tmp_path):
    for name in ("a.jsonl", "b.json", "c.ndjson", "README.md", "_hidden.jsonl", ".d.jsonl", "sub/e.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "a"}\n')
    (tmp_path / "g.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n'))
    names = [Path(str(file)).name for file in look_for_text(str(tmp_path)).files]
    assert names == ["a.jsonl", "b.json", "c.ndjson", "g.jsonl.gz", "e.jsonl"]
    assert [Path(str(file)).name for file in look_for_text(f"{tmp_path}/*.jsonl").files] == ["a.jsonl"]
    assert [Path(str(file)).name for file in look_for_text(f"{tmp_path}/README.md").files] == ["README.md"]
    with pytest.raises(InputError, match=r"nothing does not exist; give a file of texts"):
        look_for_text(f"{tmp_path}/nothing")
    with pytest.raises(InputError, match=r"md holds no file of texts"):
        look_for_text(f"{tmp_path}/*.md")


def test_a_format_is_told_by_content_and_name(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.data")
    contents = {"b.json": b' [{"a": 1}]', "c.json": b'{"a": 1}\n', "d.jsonl": b'["a", "b"]\n', "e.txt": b'[{"a": 1}]'}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "f.json.gz").write_bytes(gzip.compress(b'[{"a": 1}]'))
    found = {name: the_file(tmp_path / name) for name in ("a.data", *contents, "f.json.gz")}
    assert [file.format for file in found.values()] == ["parquet", "array", "lines", "lines", "array", "array"]
    assert found["f.json.gz"].codec == "gzip"
    (tmp_path / "g.parquet").write_bytes(b'{"a": 1}')
    with pytest.raises(InputError, match=r"g.parquet is no Parquet file, it begins with b'{\"a\"'"):
        the_file(tmp_path / "g.parquet")


def test_compressed_files_are_read_and_one_cut_short_is_named(tmp_path, small_reads):
    """Of several members too, as concatenated files are."""
    halves = gzip.compress(b"\n".join(ODD[:4]) + b"\n"), gzip.compress(b"\n".join(ODD[4:]))
    (tmp_path / "in.jsonl.gz").write_bytes(b"".join(halves))
    file = the_file(tmp_path / "in.jsonl.gz")
    found = all_of(file)
    assert [record.raw for record in found] == ODD
    piece = Stretch(file, found[3].offset, found[6].offset, 4)
    assert [record.raw for record in read_records(piece)] == ODD[3:6]
    (tmp_path / "in.jsonl.gz").write_bytes(halves[0][:-20])
    with pytest.raises(InputError, match=r"in.jsonl.gz cannot be read to its end .* half written"):
        all_of(the_file(tmp_path / "in.jsonl.gz"))


def test_a_file_that_is_written_again_while_it_is_read_is_named(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(ODD))
    file = the_file(path)
    reading = read_records(Stretch(file))
    next(reading)
    path.write_bytes(b"\n".join(ODD[1:]))
    for read in (lambda: list(reading), lambda: all_of(file)):
        with pytest.raises(InputError, match=r"in.jsonl was written again while the run read it"):
            read()


def test_a_record_is_named_as_its_format_counts(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b"1\n")
    assert told_number(the_file(tmp_path / "in.jsonl"), 3) == f"line 3 of {tmp_path}/in.jsonl"
