"""Input files: replaced while they are read, damaged, of other types than usual, in folders that carry values."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import error_line, run_job, write_parquet
from pyarrow import fs
from pyspark.sql import SparkSession

from novelsum.errors import DamageError, InputError, RunError
from novelsum.files import location
from novelsum.files.location import Location
from novelsum.files.source import look, open_density, open_selected, open_source, read_columns, read_rows
from novelsum.report.output import write_selected
from novelsum.selection.rounds import Candidate

RNG = np.random.default_rng(0)
IDS = [f"n{i:02}" for i in range(40)]
VECTORS = RNG.standard_normal((40, 5)).astype(np.float32)
TEXTS = [f"text of {id_}" for id_ in IDS]


def nothing(picks: list[Candidate]) -> tuple[pa.Array, pa.Array]:
    """What was selected before these picks is nearest to none of them."""
    return pa.nulls(len(picks), pa.string()), pa.nulls(len(picks), pa.float64())


def put(path: Path, order: np.ndarray, **columns: list[str]) -> str:
    """Write the rows in some order beside the place and move them there."""
    beside = path.with_name("beside")
    table = pa.table({"id": IDS, "embedding": list(VECTORS), **columns}).take(pa.array(order))
    pq.write_table(table, beside, compression="none", use_dictionary=False)  # in any order it has the same size
    beside.rename(path)
    return str(path)


@pytest.fixture
def pool_file(tmp_path):
    return Path(put(tmp_path / "in.parquet", np.arange(40), text=TEXTS))


# --- replaced while they are read -------------------------------------------------------------------------


@pytest.mark.parametrize("opens", ["the input", "density factors", "samples"])
def test_a_file_that_is_replaced_after_the_first_look_is_named(pool_file, tmp_path, opens):
    """By the same rows in another order: at the footers, while a chunk is read, and where rows are fetched."""
    if opens == "density factors":
        table = pq.read_table(pool_file).append_column("density", pa.array(np.ones(40)))
        pq.write_table(table, pool_file)
    seen = look(str(pool_file))
    open_ = {
        "the input": lambda: open_source(str(pool_file), "id", "embedding", seen),
        "density factors": lambda: open_density(str(pool_file), "id", seen),
        "samples": lambda: open_selected(seen, "id", "embedding"),
    }[opens]
    source = open_()
    (chunk,) = source.chunks(1000)
    assert sum(len(batch) for batch in read_columns(source, chunk, ["id"])) == 40
    reading = read_columns(source, chunk, ["id"])
    next(reading)
    put(pool_file, np.arange(40)[::-1])
    for read in (
        open_,
        lambda: list(reading),
        lambda: list(read_columns(source, chunk, ["id"])),
        lambda: read_rows(source, 0, np.array([3]), ["n03"], ["id"]),
    ):
        with pytest.raises(InputError, match=rf"{pool_file} was written again while the run read it; .* run again"):
            read()


def test_a_replaced_file_of_the_same_size_and_time_is_told_by_its_ids(pool_file, spark, tmp_path):
    """Wherever rows are fetched; no selection is written."""
    source = open_source(str(pool_file), "id", "embedding")
    before = pool_file.stat()
    picks = [Candidate(row, IDS[row], 0.0, 1.0, 0, row) for row in (7, 2)]
    write_selected(spark, source, picks, nothing(picks), "id", Location.of(str(tmp_path / "good")))
    good = pq.read_table(tmp_path / "good" / "selected")
    assert good.column("text").to_pylist() == [TEXTS[7], TEXTS[2]]
    put(pool_file, np.arange(40)[::-1], text=TEXTS)
    os.utime(pool_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert pool_file.stat().st_size == before.st_size
    with pytest.raises(InputError, match=rf"{pool_file} was written again"):
        read_rows(source, 0, np.array([7]), ["n07"], ["text"])
    with pytest.raises(InputError, match=rf"{pool_file} was written again"):
        write_selected(spark, source, picks, nothing(picks), "id", Location.of(str(tmp_path / "bad")))
    assert not list((tmp_path / "bad" / "selected").iterdir())


# --- how often it is asked ----------------------------------------------------------------------------------


def counted(name: str):
    """A call of a file system that is noted and passed on to that of this machine."""

    def call(self, *given):
        self.calls[name] += len(given[0]) if name == "get_file_info" else 1
        return getattr(fs.LocalFileSystem(), name.removesuffix("_selector"))(*given)

    return call


ASKED = ("get_file_info", "get_file_info_selector", "open_input_file")
Counting = type(
    "Counting", (fs.FileSystemHandler,), {name: counted(name) for name in fs.FileSystemHandler.__abstractmethods__}
)
Counting.get_type_name = lambda self: "counting"
Counting.normalize_path = lambda self, path: path


def test_a_file_that_was_listed_is_asked_for_once_more_when_its_footer_was_read(tmp_path, monkeypatch):
    """By what 50 files cost more than 10: of each its footer, and whether it still is the file of the listing."""
    for number in range(60):
        folder = tmp_path / ("few" if number < 10 else "many")
        folder.mkdir(exist_ok=True)
        pq.write_table(pa.table({"id": [number], "embedding": [[1.0]]}), folder / f"{number}.parquet")
    handler = Counting()
    monkeypatch.setattr(location, "_filesystem", lambda root: fs.PyFileSystem(handler))
    asked = []
    for folder, rows in (("few", 10), ("many", 50)):
        handler.calls = Counter()
        assert open_source(str(tmp_path / folder), "id", "embedding").rows == rows
        asked.append([handler.calls[name] for name in ASKED])
    assert np.diff(asked, axis=0).tolist() == [[40, 0, 40]]


# --- damaged or gone -------------------------------------------------------------------------------------


def test_contents_that_came_whole_and_cannot_be_parsed_are_damaged(pool_file):
    """pyarrow raises OSError here, too."""
    source = open_source(str(pool_file), "id", "embedding")
    (chunk,) = source.chunks(100)
    before = pool_file.stat()
    content = bytearray(pool_file.read_bytes())
    start = pq.ParquetFile(pool_file).metadata.row_group(0).column(0).data_page_offset
    content[start : start + 20] = b"\xff" * 20
    pool_file.write_bytes(content)
    os.utime(pool_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match=rf"{pool_file} is not a whole Parquet file"):
        list(read_columns(source, chunk, ["id"]))
    with pytest.raises(DamageError, match=rf"{pool_file} is damaged .* run again to start over"):
        Location.of(str(pool_file)).read_parquet(["id"])


def test_pages_are_held_against_their_checksums(tmp_path):
    """One bit of a number, which parses as well as before."""
    path = tmp_path / "in.parquet"
    table = pa.table({"id": range(1000), "embedding": RNG.random((1000, 2)).tolist()})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[content.index((500).to_bytes(8, "little"))] ^= 1
    path.write_bytes(content)
    source = open_source(str(path), "id", "embedding")
    with pytest.raises(InputError, match=rf"{path} is not a whole Parquet file .*CRC"):
        list(read_columns(source, source.chunks(1000)[0], ["id"]))


def test_a_file_that_is_gone_is_not_told_as_damage(pool_file):
    source = open_source(str(pool_file), "id", "embedding")
    (chunk,) = source.chunks(100)
    pool_file.unlink()
    with pytest.raises(RunError, match=rf"{pool_file} is gone since the run first saw it; put it back"):
        list(read_columns(source, chunk, ["id"]))


def damage(path: Path, column: int) -> None:
    """Overwrite the beginning of a column's pages."""
    content = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(0).column(column).data_page_offset
    content[start : start + 200] = b"\xff" * 200
    path.write_bytes(bytes(content))


def test_damage_in_the_middle_of_a_file_is_found(tmp_path, engine):
    """The footer is whole, the pages are not: the file named, and exit code 3 also when a later stage finds it."""
    path, density = tmp_path / "in.parquet", tmp_path / "density.parquet"
    write_parquet(path, IDS, VECTORS)
    pq.write_table(pa.table({"id": IDS, "density": RNG.random(40)}), density)
    damage(density, 1)
    common = ("--output", tmp_path / "out", "--budget", 5)
    done = run_job("select_subset", "--input", path, "--density", density, *common)
    assert done.returncode == 3, done.stderr
    assert f"{density} is not a whole Parquet file" in error_line(done)
    damage(path, 1)
    with pytest.raises(InputError, match=r"in\.parquet is not a whole Parquet file"):
        engine(str(path), 5)


# --- files that are something else ------------------------------------------------------------------------


def test_a_file_that_is_no_parquet_is_told_apart_from_one_half_written(tmp_path):
    """A note beside the data; a checksum is skipped, and a file may be called anything."""
    folder = tmp_path / "in"
    folder.mkdir()
    put(folder / "part-0", np.arange(40))
    for name in ("part-0.crc", ".part-0.crc", "_SUCCESS"):
        (folder / name).write_bytes(b"crc\0")
    assert open_source(str(folder), "id", "embedding").rows == 40
    (folder / "README.txt").write_text("What this is\n")
    words = rf"{folder}/README.txt is no Parquet file, it begins with b'What'; take it out of the input, or name"
    with pytest.raises(InputError, match=words):
        open_source(str(folder), "id", "embedding")
    for content in ((folder / "part-0").read_bytes()[:-9], b""):
        (folder / "README.txt").write_bytes(content)
        with pytest.raises(InputError, match=r"README.txt is not a whole Parquet file .* half written"):
            open_source(str(folder), "id", "embedding")


OTHER_TYPES = {
    "string_view": (pa.string_view(), pa.list_view(pa.float32())),
    "large_string": (pa.large_string(), pa.large_list(pa.float32())),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), pa.list_(pa.float64())),
    "large_list_view": (pa.string(), pa.large_list_view(pa.float64())),
}


@pytest.mark.parametrize(
    "kinds", [kind if kind == "string_view" else pytest.param(kind, marks=pytest.mark.more) for kind in OTHER_TYPES]
)
def test_ids_texts_and_embeddings_may_have_any_type_of_their_kind(tmp_path, engine, spark, kinds):
    """The same picks with the same columns."""
    text, embedding = OTHER_TYPES[kinds]
    found = []
    for name, types in (("plain", (pa.string(), pa.list_(pa.float32()))), ("other", (text, embedding))):
        path = str(tmp_path / f"{name}.parquet")
        groups = [f"g{i % 3}" for i in range(40)]
        columns = [pa.array(values, pa.string()) for values in (IDS, TEXTS, groups)]
        columns = [c.dictionary_encode() if pa.types.is_dictionary(types[0]) else c.cast(types[0]) for c in columns]
        vectors = pa.array(VECTORS.tolist(), types[1])
        table = pa.table([*columns, vectors], names=["id", "text", "group", "embedding"])
        pq.write_table(table, path, row_group_size=16)
        outcome = engine(path, 6, neighbors=3, group_column="group", quota=("g1=2:3",))
        source = open_source(path, "id", "embedding")
        places = [IDS.index(id_) for id_ in outcome.picks]
        picks = [Candidate(row, IDS[row], 0.0, 1.0, 0, row) for row in places]
        write_selected(spark, source, picks, nothing(picks), "id", Location.of(str(tmp_path / name)))
        selected = pq.read_table(tmp_path / name / "selected").select(["id", "text", "group"])
        found.append((outcome.picks, selected.to_pylist()))
    assert found[0] == found[1]


def test_integers_in_a_dictionary_are_integer_ids_and_bytes_are_none(tmp_path):
    path = tmp_path / "in.parquet"
    for ids, whole in ((pa.array(range(40)).dictionary_encode(), True), (pa.array(IDS, pa.string_view()), False)):
        pq.write_table(pa.table({"id": ids, "embedding": VECTORS.tolist()}), path)
        assert open_source(str(path), "id", "embedding").integer_ids is whole
    pq.write_table(
        pa.table({"id": pa.array([id_.encode() for id_ in IDS], pa.binary_view()), "embedding": TEXTS}), path
    )
    with pytest.raises(InputError, match=r"column 'id' of .* has type binary_view, expected an integer"):
        open_source(str(path), "id", "embedding")


# --- folders that carry values ---------------------------------------------------------------------------


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
    types = "id string, embedding array<double>, topic string, day int"
    table = SparkSession(spark).createDataFrame(rows, types)
    table.write.partitionBy("topic", "day").parquet(str(tmp_path / "in"))
    found = zip(*(values(str(tmp_path / "in"), column) for column in ("id", "topic", "day")), strict=True)
    assert {id_: of_id for id_, *of_id in found} == {id_: list(of_id) for id_, of_id in given.items()}
