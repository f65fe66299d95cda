"""Texts become embeddings, by a real server on this machine: rows, ids, bad records, what recurs, what was cut."""

import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DATA, error_line, run_job, write_parquet
from embedding_server import EmbeddingServer, serving, vector_of
from pyspark import SparkContext

from novelsum.errors import InputError, RunError, UsageError
from novelsum.settings import EmbedSettings
from novelsum.text import plan, records, server
from novelsum.text.embedders import model_of
from novelsum.text.job import embed_text
from novelsum.text.texts import digest_of

CHATS = DATA / "chats.jsonl"


@pytest.fixture
def served() -> Iterator[EmbeddingServer]:
    with serving() as started:
        yield started


@pytest.fixture
def embed(spark: Any, served: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run the job in this process, with the server, in the session of the tests."""

    def run(path: Path, output: Path, **settings: Any) -> Path:
        with monkeypatch.context() as patched:
            patched.setattr(SparkContext, "stop", lambda self: None)
            given = {"model": "test-model", "server": served.url, **settings}
            embed_text(EmbedSettings(input=str(path), output=str(output), **given))
        return output

    return run


def write_lines(path: Path, lines: list[Any]) -> Path:
    """Records as JSON lines; what is bytes already stays as it is."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines))
    return path


def rows_of(output: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for file in sorted(output.glob("part-*.parquet")):
        rows += pq.read_table(file).to_pylist()
    return rows


def manifest(output: Path) -> dict[str, Any]:
    return json.loads((output / "_MANIFEST.json").read_text())


# --- rows -------------------------------------------------------------------------------------------------


def test_a_record_comes_out_with_its_text_its_embedding_and_its_bytes(embed, tmp_path):
    """Of lines and of arrays, whatever their spacing, escapes and order of keys."""
    lines = [
        b'{"text":"caf\\u00e9 \\ud83d\\ude00",  "id" : "a",\t"n": 1.50 }',
        b' {"n": 2, "id": "b\\"\\n<b>", "messages": [{"role":"user","content":"\\u4f60\\u597d"}], "n": 3}',
        '{"id": "", "text": "naïve \u2028 😀 \\ud83d"}'.encode(),
    ]
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n")
    array = b'[ {"id":"c", "text":"one"} ,\n\n{ "text" : "two" , "id":"d"}]'
    (folder / "b.json").write_bytes(array)
    output = embed(folder, tmp_path / "out", columns=("n",))
    rows = rows_of(output)
    assert list(rows[0]) == ["id", "text", "embedding", "tokens", "n", "record"]
    assert [row["record"].encode() for row in rows[:3]] == lines
    assert [row["record"].encode() for row in rows[3:]] == [
        b'{"id":"c", "text":"one"}',
        b'{ "text" : "two" , "id":"d"}',
    ]
    assert [row["id"] for row in rows] == ["a", 'b"\n<b>', "", "c", "d"]
    assert [row["text"] for row in rows] == ["café 😀", "你好", "naïve \u2028 😀 \ufffd", "one", "two"]
    assert [row["n"] for row in rows] == [1.5, 3, None, None, None]
    assert all(np.array_equal(np.float32(row["embedding"]), vector_of(row["text"])) for row in rows)
    schema = pq.read_schema(output / "part-00000.parquet")
    assert schema.field("embedding").type == pa.list_(pa.float32())
    assert sorted(entry.name for entry in output.iterdir()) == [
        "_MANIFEST.json",
        "_metrics.json",
        "part-00000.parquet",
        "part-00001.parquet",
    ]


def test_parquet_keeps_its_other_columns(embed, tmp_path):
    """Chats in lists of structs too; a column that has the name of one of the result gets input_ before it."""
    chats = [[{"from": "human", "value": f"q{i}"}, {"from": "gpt", "value": f"a{i}"}] for i in range(30)]
    table = pa.table(
        {"id": range(30), "conversations": chats, "text": ["other"] * 30, "tags": [[i] for i in range(30)]}
    )
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=7)
    rows = rows_of(embed(tmp_path / "in.parquet", tmp_path / "out"))
    assert list(rows[0]) == ["id", "text", "embedding", "tokens", "conversations", "input_text", "tags"]
    assert [row["id"] for row in rows] == list(range(30))
    assert [row["text"] for row in rows] == [f"q{i}\na{i}" for i in range(30)]
    assert [row["conversations"] for row in rows] == chats
    assert [row["tags"] for row in rows] == [[i] for i in range(30)]
    assert {row["input_text"] for row in rows} == {"other"}


@pytest.mark.parametrize("plain_first", [True, False])
def test_a_column_of_texts_that_is_plain_in_one_file_alone_is_kept_beside_the_joined_texts(
    embed, tmp_path, plain_first
):
    """Whichever file comes first."""
    plain, turns = ("a", "b") if plain_first else ("b", "a")
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": [1], "text": ["whole"]}), tmp_path / "in" / f"{plain}.parquet")
    pq.write_table(pa.table({"id": [2], "text": [["one", "two"]]}), tmp_path / "in" / f"{turns}.parquet")
    rows = {row["id"]: row for row in rows_of(embed(tmp_path / "in", tmp_path / "out"))}
    assert {id_: row["text"] for id_, row in rows.items()} == {1: "whole", 2: "one\ntwo"}
    assert {id_: row["input_text"] for id_, row in rows.items()} == {1: "whole", 2: ["one", "two"]}


def test_ids_are_made_of_the_texts_where_there_are_none(embed, tmp_path):
    """Records with the same text are one sample then: the first stays, and the others are counted."""
    texts = ["a", "b", "a", "c", "b", "a"]
    output = embed(
        write_lines(tmp_path / "in.jsonl", [{"text": t, "n": n} for n, t in enumerate(texts)]), tmp_path / "o"
    )
    rows = rows_of(output)
    assert [row["id"] for row in rows] == [digest_of(text).hex() for text in "abc"]
    assert [json.loads(row["record"])["n"] for row in rows] == [0, 1, 3]
    assert manifest(output)["text"]["repeats_left_out"] == 3
    lines = [{"text": text, "id": 7} for text in texts]
    again = rows_of(embed(write_lines(tmp_path / "with.jsonl", lines), tmp_path / "o2", content_ids=True))
    assert [row["id"] for row in again] == [row["id"] for row in rows]


def test_whole_numbers_stay_ids_and_beside_strings_become_strings(embed, tmp_path):
    whole = embed(
        write_lines(tmp_path / "a.jsonl", [{"text": "a", "key": 3}, {"text": "b", "key": -1}]),
        tmp_path / "o",
        id_column="key",
    )
    assert [row["key"] for row in rows_of(whole)] == [3, -1]
    mixed = embed(
        write_lines(tmp_path / "b.jsonl", [{"text": "a", "id": 3}, {"text": "b", "id": "x"}]), tmp_path / "o2"
    )
    assert [row["id"] for row in rows_of(mixed)] == ["3", "x"]


def test_a_text_that_recurs_is_embedded_once_for_all_its_records(embed, served, tmp_path, monkeypatch):
    """However far apart, and in other files: the same model gives it another vector in another batch."""
    monkeypatch.setattr(plan, "_SMALLEST_PIECE_BYTES", 600)
    monkeypatch.setattr(records, "STRETCH_BYTES", 2000)
    rng = np.random.default_rng(4)
    texts = [f"text {n}" for n in rng.integers(0, 150, 400)]
    write_lines(tmp_path / "in" / "a.jsonl", [{"text": text, "id": f"a{n}"} for n, text in enumerate(texts[:200])])
    write_parquet_of_texts(tmp_path / "in" / "b.parquet", texts[200:])
    output = embed(tmp_path / "in", tmp_path / "out")
    assert sorted(served.texts) == sorted(set(texts))
    rows = rows_of(output)
    assert len(rows) == 400
    assert {row["id"]: row["text"] for row in rows} == {
        **{f"a{n}": text for n, text in enumerate(texts[:200])},
        **{f"b{n}": text for n, text in enumerate(texts[200:])},
    }
    assert all(np.array_equal(np.float32(row["embedding"]), vector_of(row["text"])) for row in rows)
    said = manifest(output)
    assert said["text"] | {"path": ""} == {
        "path": "",
        "files": 2,
        "records": 400,
        "bad_rows": {},
        "repeats": 400 - len(set(texts)),
        "repeats_left_out": 0,
        "ids": "string",
    }
    assert said["embedded"]["rows"] == 400
    assert len(list(output.glob("part-*.parquet"))) > 10


def write_parquet_of_texts(path: Path, texts: list[str]) -> None:
    table = pa.table({"id": [f"b{n}" for n in range(len(texts))], "text": texts})
    pq.write_table(table, path, row_group_size=37)


def test_a_text_is_cut_where_it_has_too_many_tokens_and_the_share_is_told(embed, served, tmp_path):
    """By four characters a token where a server counts none; the text itself stays whole."""
    lines = [{"text": "x" * 41}, {"text": "y" * 40}, {"text": "z"}, {"text": "w"}]
    output = embed(write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out", max_tokens=10)
    assert sorted(served.texts) == sorted(["x" * 40, "y" * 40, "z", "w"])
    assert [len(row["text"]) for row in rows_of(output)] == [41, 40, 1, 1]
    assert manifest(output)["embedded"]["truncated"] == 1
    assert json.loads((output / "_metrics.json").read_text())["embedded.truncated_share"] == 0.25


def test_columns_have_the_type_that_all_values_have(embed, tmp_path):
    values = [
        {"whole": 1, "real": 1, "flag": True, "word": "a", "mixed": 1, "big": 2**70, "deep": {"a": [1]}},
        {"whole": -2, "real": 0.5, "flag": False, "word": "\ud83d", "mixed": "1", "big": 1, "deep": None},
        {},
    ]
    lines = [{"text": f"t{n}", **value} for n, value in enumerate(values)]
    output = embed(write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out", columns=tuple(values[0]))
    rows = rows_of(output)
    found = [{name: row[name] for name in values[0]} for row in rows]
    assert found == [
        {"whole": 1, "real": 1.0, "flag": True, "word": "a", "mixed": "1", "big": 2.0**70, "deep": '{"a": [1]}'},
        {"whole": -2, "real": 0.5, "flag": False, "word": "\ufffd", "mixed": "1", "big": 1.0, "deep": None},
        dict.fromkeys(values[0]),
    ]
    assert type(rows[0]["whole"]) is int


# --- what is refused --------------------------------------------------------------------------------------

BAD = [
    (b"{'text': 1}", "not JSON", "are not JSON (first: line 4 of {file}: Expecting property name"),
    ({"txt": "a", "id": "n"}, "no text", "have none of the fields messages, conversations, text"),
    (
        {"text": " ", "id": "n"},
        "empty text",
        "have an empty text (first: line 4 of {file}); take them out, or set such",
    ),
    ({"text": 7, "id": "n"}, "wrong type", "hold something else than text"),
    ({"text": "a"}, "no id", "have no id, while others have one (first: line 4 of {file}); give every record one"),
    ({"text": "a", "id": 1.5}, "bad id", "neither a string nor a whole number below 2^63 (first: line 4 of"),
]


@pytest.mark.parametrize(("line", "reason", "words"), BAD, ids=[reason for _, reason, _ in BAD])
def test_a_bad_record_is_named_by_file_and_line_or_set_aside(embed, tmp_path, served, monkeypatch, line, reason, words):
    """Before anything is embedded; the line is right wherever the file is cut."""
    monkeypatch.setattr(records, "STRETCH_BYTES", 20)
    good = {"text": "good", "id": "g"}
    path = write_lines(tmp_path / "in.jsonl", [good, b"", {"text": "fine", "id": "f"}, line, {"text": "a", "id": "z"}])
    with pytest.raises(InputError, match=re.escape(words.format(file=path))) as told:
        embed(path, tmp_path / "out")
    assert str(told.value).startswith(f"1 record(s) of {path} ")
    assert "--on-bad-rows drop" in str(told.value)
    assert served.requests == 0
    assert not (tmp_path / "out").exists()
    output = embed(path, tmp_path / "out", on_bad_rows="drop")
    assert sorted(row["id"] for row in rows_of(output)) == ["f", "g", "z"]
    (rejected,) = pq.read_table(output / "rejected").to_pylist()
    is_named = reason in ("no text", "empty text", "wrong type")
    assert rejected == {"id": "n" if is_named else None, "reason": reason, "file": str(path), "file_row": 4}
    assert manifest(output)["text"]["bad_rows"] == {reason: 1}


def test_what_cannot_be_embedded_at_all_is_refused(embed, tmp_path):
    empty = write_lines(tmp_path / "empty.jsonl", [b"", b""])
    with pytest.raises(InputError, match=r"empty.jsonl has no good record \(none at all\); there is nothing to embed"):
        embed(empty, tmp_path / "o1")
    bad = write_lines(tmp_path / "bad.jsonl", [b"{", b"["])
    with pytest.raises(InputError, match=r"bad.jsonl has no good record \(\{'not JSON': 2\}\)"):
        embed(bad, tmp_path / "o2", on_bad_rows="drop")
    good = write_lines(tmp_path / "good.jsonl", [{"text": "a", "id": "x"}])
    with pytest.raises(InputError, match=r"no record of .*good.jsonl has an id in a field 'uuid'; .* --content-ids"):
        embed(good, tmp_path / "o3", id_column="uuid")
    with pytest.raises(InputError, match=r"no record of .*good.jsonl has a field 'source' to make a column of"):
        embed(good, tmp_path / "o4", columns=("source",))


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="the packages are there")
def test_one_sentence_says_what_to_install(tmp_path):
    """Before Spark starts, of both jobs."""
    for job, others in (("embed_text", ()), ("curate", ("--budget", 3))):
        done = run_job(
            job, "--input", CHATS, "--output", tmp_path / "out", "--model", "some/model", *others, by="python"
        )
        assert done.returncode == 2, done.stderr
        assert error_line(done) == (
            "error: --model needs torch and transformers, which this Python does not have; install it with pip install "
            "'novelsum[embed]', or embed by a server with --server"
        )
        assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_is_told(tmp_path):
    for arguments, words in (
        (("./none", "auto", 256, None, 4), r"--model ./none is no folder"),
        ((str(tmp_path), "auto", 256, None, 4), r"is a folder without config.json and modules.json, so no model"),
        (("m", "server", 256, None, 4), r"--backend server needs --server"),
        (("m", "transformers", 256, "http://x", 4), r"runs the model here, but --server is given"),
    ):
        with pytest.raises(UsageError, match=words):
            model_of(*arguments)


def test_settings_for_texts_need_a_model():
    done = run_job("curate", "--input", CHATS, "--output", "o", "--budget", 3, "--max-tokens", 3, by="python")
    assert done.returncode == 2
    assert "this is a setting for texts: tokens of a text" in error_line(done)
    done = run_job("embed_text", "--input", CHATS, "--output", "o", by="python")
    assert done.returncode == 2
    assert "--model is missing" in error_line(done)


# --- a server ---------------------------------------------------------------------------------------------


def test_a_server_that_is_busy_is_asked_again_and_never_by_too_many_at_once(embed, served, tmp_path, monkeypatch):
    """429 and 503, with Retry-After as seconds and as a date; the limit holds over all tasks together."""
    monkeypatch.setattr(plan, "_SMALLEST_PIECE_BYTES", 600)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    busy = {2: (429, {"Retry-After": "0"}), 3: (503, {"Retry-After": "Fri, 01 Jan 2021 00:00:00 GMT"}), 5: (500, {})}
    served.answer, served.seconds = busy.get, 0.02
    lines = [{"text": f"text {n}"} for n in range(1000)]
    output = embed(write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out", in_flight=3)
    assert served.most_flights <= 3
    assert served.flights == 0
    assert sorted(served.texts) == sorted(line["text"] for line in lines)
    assert all(np.array_equal(np.float32(row["embedding"]), vector_of(row["text"])) for row in rows_of(output))


def test_requests_fly_at_the_same_time_up_to_the_limit(served):
    served.seconds = 0.1
    asked = server.Server(served.url, "test-model")
    texts = [f"text {n}" for n in range(8 * server.REQUEST_TEXTS)]
    found = asked.embed(texts, flights=4)
    assert served.most_flights == 4
    assert np.array_equal(found, [vector_of(text) for text in texts])


def test_the_key_is_taken_from_the_environment_and_a_url_may_end_anywhere(served, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    base = served.url.removesuffix("/v1")
    for url in (base, f"{base}/", f"{base}/v1/", f"{base}/v1/embeddings"):
        assert server.Server(url, "test-model").embed(["a"], 1).shape == (1, 8)
    assert served.keys == {"Bearer sk-test"}


def test_a_server_that_refuses_or_is_not_there_is_named(served, monkeypatch):
    with pytest.raises(
        RunError, match=r"/v1/embeddings answers 404 Not Found \(.*not now.*\); mend that and run again"
    ):
        server.Server(served.url, "other-model").embed(["a"], 1)
    monkeypatch.setattr(server, "TRIES", 2)
    with pytest.raises(RunError, match=r"/v1/embeddings cannot be reached: .* after 2 tries"):
        server.Server("http://127.0.0.1:9", "m").embed(["a"], 1)
    monkeypatch.setattr(server, "TRIES", 8)
    monkeypatch.setattr(server, "FIRST_TRIES", 2)
    with pytest.raises(RunError, match=r"cannot be reached: .* after 2 tries; see that it is what --server is to name"):
        server.Server("http://127.0.0.1:9", "m").embed(["a"], 1)
    monkeypatch.setattr(server, "TRIES", 2)
    served.answer = lambda number: (503, {"Retry-After": "0"})
    with pytest.raises(RunError, match=r"answers 503 .* after 2 tries; run again to go on"):
        server.Server(served.url, "test-model").embed(["a"], 1)


# --- again ------------------------------------------------------------------------------------------------


def test_a_run_that_failed_goes_on_with_what_is_not_embedded(embed, served, tmp_path, monkeypatch, caplog):
    """And one that is complete asks for nothing; other settings are refused until they are to replace it."""
    monkeypatch.setattr(plan, "_SMALLEST_PIECE_BYTES", 600)
    path = write_lines(tmp_path / "in.jsonl", [{"text": f"text {n}", "id": n} for n in range(300)])
    output = tmp_path / "out"
    served.answer = lambda number: (400, {}) if number > 6 else None
    with pytest.raises(Exception, match="answers 400"):
        embed(path, output)
    assert [entry.name for entry in output.iterdir()] == ["_work"]
    before = len(served.texts)
    assert 0 < before < 300
    served.answer = lambda number: None
    embed(path, output)
    assert len(served.texts) == 300
    assert sorted(row["id"] for row in rows_of(output)) == list(range(300))
    asked = served.requests
    embed(path, output)
    assert served.requests == asked
    with pytest.raises(UsageError, match=r"holds the result of another run: --max-tokens was 256 and is 9"):
        embed(path, output, max_tokens=9)
    embed(path, output, max_tokens=9, overwrite=True)
    assert served.requests > asked
    assert manifest(output)["embedded"]["max_tokens"] == 9


# --- a selection from texts -------------------------------------------------------------------------------


def test_curate_embeds_texts_and_picks_as_from_their_embeddings(served, embed, run_here, tmp_path, capsys):
    """In one command, with the group of the records; the record comes along."""
    text = {"input": str(CHATS), "model": "test-model", "server": served.url}
    run_here("curate", **text, budget=12, group_column="source", output=str(tmp_path / "out"))
    told = capsys.readouterr().out
    assert "419 rows, 4 duplicates dropped: 415 candidates of 8 dimensions" in told
    rows = pq.read_table(tmp_path / "out" / "selected").to_pylist()
    lines = CHATS.read_text().splitlines()
    assert all(row["record"] in lines for row in rows)
    assert [row["source"] for row in rows] == [json.loads(row["record"])["source"] for row in rows]
    assert all(row["text"].split()[0] in told for row in rows[:10])
    said = manifest(tmp_path / "out")
    assert said["text"]["records"] == 419
    assert said["embedded"]["backend"] == "server"
    assert said["input"]["path"] == str(CHATS)
    records_of = {row["id"]: row["text"] for row in rows_of(embed(CHATS, tmp_path / "embedded"))}
    path = write_parquet(
        tmp_path / "in.parquet", list(records_of), np.array([vector_of(t) for t in records_of.values()])
    )
    run_here("curate", input=path, budget=12, output=str(tmp_path / "other"), report=False)
    assert pq.read_table(tmp_path / "other" / "selected").column("id").to_pylist() == [row["id"] for row in rows]
    names = sorted(entry.name for entry in (tmp_path / "other").iterdir())
    reported = sorted([*names, "report.html", "report.json"])
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == reported


def test_texts_without_a_model_are_refused_with_what_to_add(tmp_path):
    for job, others in (("curate", ("--budget", 3)), ("estimate_density", ())):
        done = run_job(job, "--input", CHATS, "--output", tmp_path / "out", *others, by="python")
        assert done.returncode == 3
        assert (
            "chats.jsonl is JSON, not Parquet with embeddings: have its texts embedded by curate.py with --model"
            in error_line(done)
        )


def pool_of_texts(count: int) -> pa.Table:
    """Records whose columns are called like those of the result."""
    return pa.table(
        {
            "id": range(count),
            "prompt": [f"text {n}" for n in range(count)],
            "text": [f"other {n}" for n in range(count)],
            "tokens": [100 + n for n in range(count)],
            "embedding": ["none"] * count,
            "record": [f'{{"n": {n}}}' for n in range(count)],
        }
    )


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_columns_of_the_records_are_theirs_whatever_they_are_called(served, run_here, tmp_path, kind):
    """A cost is what the records say, not how many tokens a text has; what is exported is what came in."""
    pool, path = pool_of_texts(40), tmp_path / f"in.{kind}"
    records_in = pool.to_pylist()
    if kind == "jsonl":
        write_lines(path, records_in)
    else:
        pq.write_table(pool, path)
    given = {"input": str(path), "model": "test-model", "server": served.url, "text_field": "prompt", "report": False}
    given |= {"cost_column": "tokens", "cost_budget": "1000", "output": str(tmp_path / "out")}
    run_here("curate", **given, record_column="record", export=str(tmp_path / "whole.jsonl"))
    said = json.loads((tmp_path / "out" / "_MANIFEST.json").read_text())
    rows = pq.read_table(tmp_path / "out" / "selected").to_pylist()
    assert said["selected"]["cost"] == sum(100 + row["id"] for row in rows) <= 1000
    lines = [json.loads(line) for line in (tmp_path / "whole.jsonl").read_text().splitlines()]
    expected = [records_in[row["id"]] for row in rows]
    assert lines == (expected if kind == "jsonl" else [{"n": row["id"]} for row in rows])
    if kind == "parquet":
        pq.write_table(pool.drop(["record"]), path)
        run_here("curate", **given, overwrite=True, export=str(tmp_path / "columns.jsonl"))
        lines = [json.loads(line) for line in (tmp_path / "columns.jsonl").read_text().splitlines()]
        rows = pq.read_table(tmp_path / "out" / "selected").to_pylist()
        without = [{name: value for name, value in records_in[row["id"]].items() if name != "record"} for row in rows]
        assert lines == without
        run_here("curate", **given, export=str(tmp_path / "later.parquet"))
        assert pq.read_table(tmp_path / "later.parquet").to_pylist() == without


def test_json_beside_parquet_is_not_for_one_training_file(served, run_here, tmp_path):
    """Told before anything is embedded."""
    write_lines(tmp_path / "in" / "a.jsonl", [{"text": f"text {n}", "id": n} for n in range(20)])
    pq.write_table(pa.table({"id": [100], "text": ["other"]}), tmp_path / "in" / "b.parquet")
    given = {"input": str(tmp_path / "in"), "model": "test-model", "server": served.url, "budget": 3}
    with pytest.raises(UsageError, match="holds JSON and Parquet, whose records do not go into one training file"):
        run_here("curate", **given, output=str(tmp_path / "out"), export=str(tmp_path / "o.jsonl"))
    assert served.requests == 0


def test_bad_records_of_a_selection_are_set_aside_in_its_output(served, run_here, tmp_path, capsys):
    path = write_lines(tmp_path / "in.jsonl", [b"{", *({"text": f"text {n}"} for n in range(30))])
    text = {"input": str(path), "model": "test-model", "server": served.url, "on_bad_rows": "drop"}
    run_here("curate", **text, budget=3, output=str(tmp_path / "out"), report=False)
    assert pq.read_table(tmp_path / "out" / "rejected").to_pylist() == [
        {"id": None, "reason": "not JSON", "file": str(path), "file_row": 1}
    ]
    assert "rejected " in capsys.readouterr().out
