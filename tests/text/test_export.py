"""Training files: the chosen records as they came in, whole or not at all, and written once."""

import base64
import datetime
import decimal
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import error_line, run_job, write_parquet

from novelsum import pipeline
from novelsum.errors import InputError, RunError, UsageError
from novelsum.files.location import Location
from novelsum.files.workplace import Workplace

RNG = np.random.default_rng(18)
VECTORS = RNG.normal(size=(40, 6)).astype(np.float32)
IDS = [f"e{i:02d} \"quoted\" 'and'\nbroken" for i in range(40)]
HOSTILE = [
    '{"text": "line\\nend", "n": 1.0, "n": 2}',
    '{ "text":"\u2028\u2029\u0085 raw",   "e": "\\u2028\\ud83d\\ude00\\/" }',
    '{"messages": [{"role": "user", "content": "<script>alert(1)</script>"}], "big": 12345678901234567890123}',
    '{"text": "ends in CR"}\r',
    '{"text": ""}',
    "[]",
    '"only text"',
    '{"text": "' + "long " * 100_000 + '"}',
    '{"text": 1e400, "z": -0.0, "x": 0.10}',
]
RECORDS = [HOSTILE[i] if i < len(HOSTILE) else json.dumps({"text": f"record {i} ü", "n": i}) for i in range(40)]
GIVEN = {"budget": 30, "neighbors": 3, "report": False}


def parts(folder: Path, **columns) -> str:
    """The rows in three files, in an order of their own."""
    folder.mkdir()
    order = np.random.default_rng(3).permutation(40)
    for number, part in enumerate(np.array_split(order, 3)):
        chosen = {name: values.take(pa.array(part)) for name, values in columns.items()}
        write_parquet(folder / f"{number}.parquet", [IDS[i] for i in part], VECTORS[part], **chosen)
    return str(folder)


@pytest.fixture
def chats(tmp_path) -> str:
    return parts(tmp_path / "chats", record=pa.array(RECORDS))


def picked(output: Path) -> list[int]:
    """The numbers of the picks, in their order."""
    return [IDS.index(id_) for id_ in pq.read_table(output / "selected").column("id").to_pylist()]


def in_input(path: str) -> list[int]:
    """The numbers of all rows in the order of the input."""
    ids = [pq.read_table(file).column("id").to_pylist() for file in sorted(Path(path).iterdir())]
    return [IDS.index(id_) for of_file in ids for id_ in of_file]


def manifest_of(output: Path) -> dict:
    return json.loads((output / "_MANIFEST.json").read_text())


@pytest.mark.parametrize("order", ["picks", "input"])
def test_chosen_records_are_exported_byte_for_byte_in_either_order(run_here, chats, tmp_path, monkeypatch, order):
    """Also where every row is a block of its own."""
    monkeypatch.setattr("novelsum.text.export._BLOCK_BYTES", 1)
    target, output = tmp_path / "new" / "train.jsonl", tmp_path / "out"
    run_here("curate", input=chats, output=str(output), export=str(target), export_order=order, **GIVEN)
    picks = picked(output)
    numbers = picks if order == "picks" else [i for i in in_input(chats) if i in picks]
    assert target.read_bytes() == b"".join(RECORDS[i].encode() + b"\n" for i in numbers)
    exported = manifest_of(output)["exported"]
    assert {name: exported[name] for name in ("path", "records", "bytes")} == {
        "path": str(target),
        "records": 30,
        "bytes": target.stat().st_size,
    }
    assert sorted(entry.name for entry in output.iterdir()) == [
        "_MANIFEST.json",
        "_rows.parquet",
        "metrics.json",
        "selected",
    ]
    assert [entry.name for entry in target.parent.iterdir()] == ["train.jsonl"]


def test_other_files_of_a_finished_selection_are_written_without_selecting_again(run_here, chats, tmp_path):
    output = tmp_path / "out"
    run_here("curate", input=chats, output=str(output), **GIVEN)
    picks, selected = picked(output), (output / "selected" / "part-00000.parquet").stat().st_mtime_ns
    for name, order in (("a.jsonl.gz", "picks"), ("b.json", "input")):
        run_here("curate", input=chats, output=str(output), export=str(tmp_path / name), export_order=order, **GIVEN)
        assert manifest_of(output)["exported"]["path"] == str(tmp_path / name)
    assert (output / "selected" / "part-00000.parquet").stat().st_mtime_ns == selected
    lines = gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes())
    assert lines == b"".join(RECORDS[i].encode() + b"\n" for i in picks)
    numbers = [i for i in in_input(chats) if i in picks]
    text = (tmp_path / "b.json").read_bytes()
    assert text == b"[\n" + b",\n".join(RECORDS[i].encode() for i in numbers) + b"\n]\n"
    assert json.loads(text) == [json.loads(RECORDS[i]) for i in numbers]


def test_records_become_the_columns_of_a_parquet_file(run_here, tmp_path):
    """Keys that only some have, numbers of two kinds, objects within objects, and empty ones."""
    records = [
        {"messages": [{"role": "user", "content": f"c{i}"}], "n": i if i % 2 else i / 4, "meta": {}} for i in range(40)
    ]
    records[5]["meta"], records[6]["tag"] = {"k": {"deep": "x"}}, "t"
    path = parts(tmp_path / "in", raw=pa.array([json.dumps(record) for record in records], pa.large_string()))
    target = tmp_path / "train.parquet"
    given = {**GIVEN, "budget": 40, "record_column": "raw"}
    run_here("curate", input=path, output=str(tmp_path / "out"), export=str(target), **given)
    table = pq.read_table(target)
    assert table.column_names == ["messages", "n", "meta", "tag"]
    expected = [
        {**records[i], "n": float(records[i]["n"]), "meta": records[i]["meta"] or None, "tag": records[i].get("tag")}
        for i in picked(tmp_path / "out")
    ]
    assert table.to_pylist() == expected


def test_records_that_fit_no_table_are_told_and_the_same_picks_go_to_lines(run_here, chats, tmp_path):
    given = {**GIVEN, "input": chats, "output": str(tmp_path / "out")}
    with pytest.raises(Exception, match=r"do not fit into the columns of one Parquet file .* \.jsonl file"):
        run_here("curate", export=str(tmp_path / "train.parquet"), **given)
    assert not (tmp_path / "train.parquet").exists()
    assert (tmp_path / "out" / "_work" / "work" / "3-density" / "done.json").exists()
    run_here("curate", export=str(tmp_path / "train.jsonl"), **given)
    assert len((tmp_path / "train.jsonl").read_bytes().split(b"\n")) == 31


def test_a_record_on_several_lines_becomes_one_line_with_nothing_else_changed(run_here, tmp_path):
    """As an array of JSON may hold it, indented."""
    pretty = ['{\r\n  "text": "a  \\n b",\n\t"n": 1.50,\n  "l": [\n   1,\n   2\n  ]\n}'] * 40
    path = parts(tmp_path / "in", record=pa.array(pretty))
    run_here("curate", input=path, output=str(tmp_path / "out"), export=str(tmp_path / "t.jsonl"), **GIVEN)
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    assert lines == ['{ "text": "a  \\n b", "n": 1.50, "l": [ 1, 2 ] }'] * 30
    run_here("curate", input=path, output=str(tmp_path / "out"), export=str(tmp_path / "t.json"), **GIVEN)
    assert (tmp_path / "t.json").read_bytes() == b"[\n" + b",\n".join([pretty[0].encode()] * 30) + b"\n]\n"


def test_without_a_column_of_records_the_columns_but_the_embedding_are_exported(run_here, tmp_path):
    when = [datetime.datetime(2026, 1, 2, 3, 4, 5, i) for i in range(40)]
    columns = {
        "record": pa.array([{"not": "text"}] * 40),
        "turns": pa.array([[{"role": "user", "content": f"\u2028 <b>{i}</b>"}] for i in range(40)]),
        "when": pa.array(when, pa.timestamp("ns")),
        "day": pa.array([value.date() for value in when]),
        "loss": pa.array([(float("nan"), float("inf"), 0.5, None)[i % 4] for i in range(40)]),
        "raw": pa.array([bytes([i, 255]) for i in range(40)]),
        "price": pa.array([decimal.Decimal("12345678901234567890.10")] * 40),
        "kind": pa.array(["a", "b"] * 20).dictionary_encode(),
        "big": pa.array([2**62 + i for i in range(40)]),
    }
    path = parts(tmp_path / "in", **columns)
    output = tmp_path / "out"
    run_here("curate", input=path, output=str(output), export=str(tmp_path / "t.jsonl"), **GIVEN)
    found = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().split("\n")[:-1]]
    assert found == [
        {
            "id": IDS[i],
            "record": {"not": "text"},
            "turns": [{"role": "user", "content": f"\u2028 <b>{i}</b>"}],
            "when": when[i].isoformat(),
            "day": "2026-01-02",
            "loss": 0.5 if i % 4 == 2 else None,
            "raw": base64.b64encode(bytes([i, 255])).decode(),
            "price": "12345678901234567890.10",
            "kind": "ab"[i % 2],
            "big": 2**62 + i,
        }
        for i in picked(output)
    ]
    run_here("curate", input=path, output=str(output), export=str(tmp_path / "t.parquet"), **GIVEN)
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.column_names == ["id", *columns]
    assert table.schema.field("when").type == pa.timestamp("ns")
    assert table.column("id").to_pylist() == [IDS[i] for i in picked(output)]


# --- the same command again --------------------------------------------------------------------------------


def test_the_same_command_writes_a_file_again_that_is_gone_and_no_other(run_here, chats, tmp_path, caplog):
    target = tmp_path / "train.jsonl"
    given = {**GIVEN, "input": chats, "output": str(tmp_path / "out"), "export": str(target)}
    run_here("curate", **given)
    content, written = target.read_bytes(), target.stat().st_mtime_ns
    caplog.set_level("INFO")
    run_here("curate", **given)
    assert "there is nothing to do" in caplog.text
    assert target.stat().st_mtime_ns == written
    target.unlink()
    run_here("curate", **given)
    assert target.read_bytes() == content
    run_here("curate", **{**given, "budget": 10})
    assert content.startswith(target.read_bytes())
    run_here("curate", **given)
    assert target.read_bytes() == content
    target.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already; remove it, or name another file"):
        run_here("curate", **given)
    assert target.read_bytes() == b"mine"
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [
        "_MANIFEST.json",
        "_rows.parquet",
        "metrics.json",
        "selected",
    ]
    run_here("curate", **given, overwrite=True)
    assert target.read_bytes() == content


@pytest.mark.parametrize("cut", ["before", "within", "after"])
def test_a_run_that_is_cut_around_its_export_is_finished_by_the_same_command(
    run_here, chats, tmp_path, monkeypatch, cut
):
    """Before the file is written, before it is there, and before the results are published."""
    target = tmp_path / "train.jsonl"
    given = {**GIVEN, "input": chats, "output": str(tmp_path / "out"), "export": str(target)}
    where = {"before": (pipeline, "_export"), "within": (Location, "move_to"), "after": (Workplace, "publish")}[cut]
    kept = getattr(*where)

    def fail(*given):
        if cut != "within" or given[1] == Location(str(target)):
            raise OSError("cut")
        return kept(*given)

    with monkeypatch.context() as patched:
        patched.setattr(*where, fail)
        with pytest.raises(OSError, match="cut"):
            run_here("curate", **given)
    assert target.exists() == (cut == "after")
    assert not (tmp_path / "out" / "_MANIFEST.json").exists()
    run_here("curate", **given)
    assert target.read_bytes() == b"".join(RECORDS[i].encode() + b"\n" for i in picked(tmp_path / "out"))
    assert manifest_of(tmp_path / "out")["exported"]["bytes"] == target.stat().st_size
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("{0}/train.csv", "must end in .jsonl, .jsonl.gz, .json or .parquet, not"),
        ("{0}/chats/train.jsonl", "lies in {0}/chats, which the run reads"),
        ("{0}/out/selected/train.jsonl", "lies in --output {0}/out"),
        ("{0}/out.jsonl", "{0}/out.jsonl exists already; replace it with --overwrite, or name another file"),
        ("{0}/out.jsonl/train.jsonl", "--export {0}/out.jsonl/train.jsonl cannot be written"),
        ("{0}/folder.json", "is a folder; name a file"),
        ("/proc/train.jsonl", "--export /proc/train.jsonl cannot be written"),
    ],
)
def test_a_file_that_may_not_be_written_is_refused_before_any_work(chats, tmp_path, target, words):
    (tmp_path / "out.jsonl").write_text("mine")
    (tmp_path / "folder.json").mkdir()
    export = target.format(tmp_path)
    done = run_job("curate", "--input", chats, "--output", tmp_path / "out", "--budget", 3, "--export", export)
    assert done.returncode == 2
    assert words.format(tmp_path) in error_line(done)
    assert not os.path.exists(tmp_path / "out")
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_a_named_column_of_records_must_be_text_and_every_pick_have_one(run_here, tmp_path):
    texts = pa.array([None if i == 7 else "{}" for i in range(40)])
    path = parts(tmp_path / "in", raw=texts, number=pa.array(range(40)))
    given = {**GIVEN, "budget": 40, "input": path, "export": str(tmp_path / "t.jsonl")}
    for column, words in (("number", "'number' of .* has type int64"), ("none", "'none' of .* is not there")):
        with pytest.raises(InputError, match=words):
            run_here("curate", output=str(tmp_path / column), record_column=column, **given)
    with pytest.raises(Exception, match=r"RunError: pick \d+ has no text in column 'raw'; run again"):
        run_here("curate", output=str(tmp_path / "out"), record_column="raw", **given)
    assert issubclass(RunError, Exception)
    assert not (tmp_path / "t.jsonl").exists()
    run_here("curate", output=str(tmp_path / "out"), **given)
    assert json.loads((tmp_path / "t.jsonl").read_text().split("\n")[0]).keys() == {"id", "raw", "number"}
