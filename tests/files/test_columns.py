"""Columns of the input that are only copied or grouped by: names, folders that carry values, rows without a group."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_parquet

from novelsum.errors import InputError
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.source import open_source, read_rows
from novelsum.files.store import Pool, read_block
from novelsum.groups import group_of, in_words
from novelsum.report.output import output_name
from novelsum.settings import Settings

RNG = np.random.default_rng(15)
VECTORS = RNG.normal(size=(30, 4)).astype(np.float32)
IDS = [f"c{i:02d}" for i in range(30)]


def selected(output: Path) -> dict[str, dict]:
    return {row["id"]: row for row in pq.read_table(output / "selected").to_pylist()}


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id_column", ["id", "input_pick", "input_input_pick", "input_density"])
def test_no_two_columns_of_a_selection_share_a_name(id_column):
    """Whatever other columns there are, and whatever the id is called."""
    taken = [f"{times * 'input_'}{name}" for name in ("pick", "novelty", "density") for times in range(5)]
    others = [name for name in [*taken, "text", "input_", "input_text", "my_pick"] if name != id_column]
    names = ["pick", id_column, "novelty", "density", *(output_name(name, id_column) for name in others)]
    assert len(set(names)) == len(names)
    assert [output_name(name, "id") for name in ("pick", "input_pick", "text", "input_text")] == [
        "input_pick",
        "input_input_pick",
        "text",
        "input_text",
    ]
    assert output_name(id_column, id_column) == id_column


def test_every_column_of_the_input_arrives_and_groups_and_texts_are_found_under_their_new_names(
    run_here, tmp_path, capsys
):
    """Also those that are called like one of the selection, and like the new name of another."""
    columns = {
        name: [f"{name} of {id_}" for id_ in IDS]
        for name in ("pick", "input_pick", "input_input_pick", "novelty", "input_density")
    }
    columns["density"] = [f"dense {i % 3}" for i in range(30)]
    path = write_parquet(tmp_path / "in.parquet", IDS, VECTORS, **columns)
    options = {"budget": 9, "neighbors": 3, "group_column": "density", "text_column": "input_pick"}
    run_here("curate", input=path, output=str(tmp_path / "out"), **options)
    rows = selected(tmp_path / "out")
    assert len(rows) == 9
    for id_, row in rows.items():
        assert [row[f"input_{name}"] for name in columns] == [of[IDS.index(id_)] for of in columns.values()]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {group["group"]: group["pool"] for group in report["groups"]["largest"]} == dict.fromkeys(
        ("dense 0", "dense 1", "dense 2"), 10
    )
    assert sum(group["selected"] for group in report["groups"]["largest"]) == 9
    assert [pick["text"] for pick in report["first_picks"]] == [f"input_pick of {id_}" for id_ in rows]
    printed = capsys.readouterr().out
    assert all(f"input_pick of {id_}" in printed for id_ in rows)


# --- folders ----------------------------------------------------------------------------------------------


def partitioned(folder: Path, parts: list[str]) -> str:
    for number, part in enumerate(parts):
        (folder / part).mkdir(parents=True)
        write_parquet(folder / part / "a.parquet", [IDS[number]], VECTORS[number : number + 1])
    return str(folder)


def values(path: str, column: str) -> list:
    source = open_source(path, "id", "embedding")
    files = range(len(source.files))
    ids = [pq.read_table(file, columns=["id"], partitioning=None).column(0).to_pylist() for file in source.files]
    return [read_rows(source, file, np.array([0]), ids[file], [column]).column(0).to_pylist()[0] for file in files]


def test_folders_say_what_hive_and_spark_wrote_into_their_names(tmp_path):
    """Null, characters that no folder may hold, and integers among nulls; in the order of the files' names."""
    path = partitioned(
        tmp_path / "in",
        [
            "day=1/topic=__HIVE_DEFAULT_PARTITION__",
            "day=20/topic=a%2Fb%3D%25",
            "day=__HIVE_DEFAULT_PARTITION__/topic=100%",
        ],
    )
    assert values(path, "day") == [1, 20, None]
    assert open_source(path, "id", "embedding").schema.field("day").type == pa.int64()
    assert values(path, "topic") == [None, "a/b=%", "100%"]
    named = partitioned(tmp_path / "named", ["my%20key=007", "my%20key=7"])
    assert values(named, "my key") == ["007", "7"]
    nothing = partitioned(tmp_path / "nothing", ["day=__HIVE_DEFAULT_PARTITION__"])
    assert values(nothing, "day") == [None]


def test_what_spark_writes_by_partition_is_read_back(spark, tmp_path):
    """The names of the folders are Spark's own."""
    given = {"c00": ('a/b c=%"é', 7), "c01": (None, None), "c02": ("x", 12)}
    rows = [(id_, [1.0, float(place)], *of_id) for place, (id_, of_id) in enumerate(given.items())]
    table = spark.createDataFrame(rows, "id string, embedding array<double>, topic string, day int")
    table.write.partitionBy("topic", "day").parquet(str(tmp_path / "in"))
    found = zip(*(values(str(tmp_path / "in"), column) for column in ("id", "topic", "day")), strict=True)
    assert {id_: of_id for id_, *of_id in found} == {id_: list(of_id) for id_, of_id in given.items()}


# --- groups -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["None", None, "(no group)"] * 10), {"None": 10, None: 10, "(no group)": 10}),
        (pa.array([1, None, -2] * 10, pa.int32()), {"1": 10, None: 10, "-2": 10}),
        (pa.array([True, None, False] * 10), {"True": 10, None: 10, "False": 10}),
        (pa.array([1.5, float("nan"), None] * 10), {"1.5": 10, "nan": 10, None: 10}),
        (pa.array(["a", None, "b"] * 10).dictionary_encode(), {"a": 10, None: 10, "b": 10}),
        (pa.nulls(30), {None: 30}),
    ],
    ids=["text", "integers", "booleans", "floats", "dictionary", "nothing but null"],
)
def test_rows_without_a_group_stay_apart_from_every_text(spark, tmp_path, column, expected):
    """In the pool, in the store, where it is null, and on the way through JSON."""
    path = write_parquet(tmp_path / "in.parquet", IDS, VECTORS, kind=column)
    work = Location.of(str(tmp_path / "work"))
    settings = Settings(input=path, group_column="kind")
    pool = ingest(spark, open_source(path, "id", "embedding"), settings, work)
    assert pool.groups == expected
    assert Pool.from_json(pool.work, json.loads(json.dumps(pool.for_json()))) == pool
    stored = {}
    for block in pool.blocks:
        content = read_block(pool.work, block.name)
        stored.update(zip(content.ids.to_pylist(), content.groups.to_pylist(), strict=True))
    assert stored == dict(zip(IDS, map(group_of, column.to_pylist()), strict=True))


def test_a_quota_names_no_rows_without_a_group_but_all_others_are_among_them(engine, tmp_path):
    """The first pick too is drawn from the groups that may have it."""
    column = [None, "None", "a"] * 10
    path = write_parquet(tmp_path / "in.parquet", IDS, VECTORS, kind=pa.array(column))
    kind = dict(zip(IDS, column, strict=True))
    options = {"neighbors": 3, "group_column": "kind", "block_rows": 8}
    picks = engine(path, 12, quota=("None=2", "a=3", "*=7"), **options).picks
    assert [[kind[id_] for id_ in picks].count(group) for group in ("None", "a", None)] == [2, 3, 7]
    picks = engine(path, 5, quota=("None=0", "a=0"), **options).picks
    assert {kind[id_] for id_ in picks} == {None}
    with pytest.raises(InputError, match=r"names the group 'none', .* the groups are None, a, \(no group\)"):
        engine(path, 5, quota=("none=1",), **options)
    with pytest.raises(InputError, match=r"at least 11 picks of \(no group\), of which there are 10 candidates"):
        engine(path, 12, quota=("*=11:", "a=0:", "None=0:"), **options)


def test_groups_are_told_apart_in_words():
    assert in_words(None) == "(no group)"
    assert in_words("None") == "None"
    assert in_words(" (no  group) ") == "' (no  group) '"
    assert in_words("(no group)") == "'(no group)'"
    assert len({in_words(group) for group in (None, "", "None", "(no group)", "null")}) == 5


def test_a_report_and_what_is_printed_show_rows_without_a_group_as_such(run_here, tmp_path, capsys):
    """Null in report.json; in words beside groups that are called None or by these very words."""
    column = [None, "None", "(no group)"] * 10
    path = write_parquet(tmp_path / "in.parquet", IDS, VECTORS, kind=pa.array(column))
    output = tmp_path / "out"
    options = {"budget": 12, "neighbors": 3, "group_column": "kind", "quota": ("None=3", "*=:5"), "show": 12}
    run_here("curate", input=path, output=str(output), **options)
    picked = [row["kind"] for row in selected(output).values()]
    data = json.loads((output / "report.json").read_text())
    found = [(group["group"], group["pool"], group["selected"]) for group in data["groups"]["largest"]]
    assert found == [(group, 10, picked.count(group)) for group in ("(no group)", "None", None)]
    assert picked.count("None") == 3
    assert [pick["group"] for pick in data["first_picks"]] == picked
    page = (output / "report.html").read_text()
    heads = re.findall(r"<th scope=row><bdi>([^<]*)</bdi></th><td>10</td>", page)
    assert heads == ["&#x27;(no group)&#x27;", "None", "(no group)"]
    printed = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert [line[4] for line in printed[4:16]] == [in_words(group) for group in picked]
    assert [line[0] for line in printed if line[1:3] == ["10", "33.3%"]] == ["'(no group)'", "None", "(no group)"]


# --- rows set aside ---------------------------------------------------------------------------------------


def test_what_a_job_set_aside_is_no_data_of_its_result(run_here, tmp_path):
    """estimate_density drops bad rows; select_subset takes its output, and a selection that is named whole."""
    vectors = VECTORS.copy()
    vectors[3, 1] = np.nan
    path = write_parquet(tmp_path / "in.parquet", IDS, vectors)
    density, outputs = tmp_path / "density", (tmp_path / "first", tmp_path / "second")
    common = {"input": path, "neighbors": 3, "on_bad_rows": "drop", "report": False}
    run_here("estimate_density", output=str(density), **common)
    assert [row["id"] for row in pq.read_table(density / "rejected").to_pylist()] == ["c03"]
    common |= {"density": str(density), "budget": 5}
    run_here("select_subset", output=str(outputs[0]), **common)
    assert len(pq.read_table(outputs[0] / "rejected")) == 1
    run_here("select_subset", output=str(outputs[1]), already_selected=str(outputs[0]), **common)
    first, second = (set(selected(output)) for output in outputs)
    assert (len(first), len(second), first & second) == (5, 5, set())


def test_only_what_lies_beside_a_manifest_is_left_out(tmp_path):
    """Below a folder, in a glob and in a folder of many results; one that a user names, or that is data, is read."""
    for name in ("night/rejected/a.parquet", "night/selected/b.parquet", "night/sub/rejected/c.parquet"):
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
    assert found(".") == ["night/metrics.json", "night/rejected/a.parquet", *data]
    (tmp_path / "night" / "_MANIFEST.json").write_text("{}")
    assert found(".") == data
    assert found("n*") == data[:2]
    assert found("night/*/*.parquet") == data[:1]
    assert found("night") == data[:2]
    assert found("night/rejected") == ["night/rejected/a.parquet"]
