"""Rows that break the contract are refused or set aside with a reason each; the others are numbered, in groups."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import error_line, run_job, write_parquet
from graded import written

from novelsum.errors import InputError
from novelsum.files import ingest as stage
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.source import open_source
from novelsum.files.store import Pool, read_block, read_equal
from novelsum.groups import group_of
from novelsum.settings import Settings

RNG = np.random.default_rng(11)
VECTORS = RNG.normal(size=(40, 4)).astype(np.float32)
IDS = [f"n{i:02d}" for i in range(40)]
ROWS = 900


def test_bad_rows_are_set_aside_with_a_reason_each(tmp_path):
    """--on-bad-rows drop: every kind of bad row is in rejected/, counted in the manifest, and not selected."""
    vectors = [row.tolist() for row in VECTORS]
    ids = list(IDS)
    ids[0] = None
    vectors[1] = None
    vectors[2] = [1.0, float("nan"), 0.0, 0.0]
    vectors[3] = [1.0, float("inf"), 0.0, 0.0]
    vectors[4] = [0.0] * 4
    vectors[5] = [1.0] * 3
    vectors[6] = []
    vectors[7] = [1.0, None, 2.0, 3.0]
    ids[9] = ids[8]
    ids.append(IDS[10])
    vectors.append(vectors[10])
    path = write_parquet(tmp_path / "in.parquet", ids, pa.array(vectors, pa.list_(pa.float32())))
    output = tmp_path / "out"
    done = run_job(
        "curate",
        "--input",
        path,
        "--output",
        output,
        "--budget",
        30,
        "--neighbors",
        3,
        "--on-bad-rows",
        "drop",
    )
    assert done.returncode == 0, done.stderr
    rejected = pq.read_table(output / "rejected").to_pylist()
    reasons = {row["file_row"]: row["reason"] for row in rejected}
    assert reasons == {
        0: "null id",
        1: "null embedding",
        2: "not finite",
        3: "not finite",
        4: "zero vector",
        5: "unequal length",
        6: "null embedding",
        7: "not finite",
        8: "duplicate id",
        9: "duplicate id",
        40: "duplicate id",
    }
    assert {row["file"] for row in rejected} == {path}
    assert json.loads((output / "_MANIFEST.json").read_text())["input"]["bad_rows"] == {
        "null id": 1,
        "null embedding": 2,
        "not finite": 3,
        "zero vector": 1,
        "unequal length": 1,
        "duplicate id": 3,
    }
    assert set(pq.read_table(output / "selected").column("id").to_pylist()) == set(IDS[10:])


def lists(*rows: object) -> pa.Array:
    """Rows instead of the first of VECTORS."""
    return pa.array([*rows, *VECTORS[len(rows) :].tolist()], pa.list_(pa.float32()))


REFUSED_BY_ROWS = {
    "null id": (
        [None, *IDS[1:]],
        VECTORS,
        "1 row(s) of {path} have a null id in column 'id' (first: row 0 of {path})",
    ),
    "duplicate id": (
        ["n01", *IDS[1:]],
        VECTORS,
        "2 row(s) of {path} share their id in column 'id' with another row",
    ),
    "null vector": (
        IDS,
        lists(None),
        "null, empty or malformed in column 'embedding' (first: id 'n00', row 0 of {path})",
    ),
    "NaN": (
        IDS,
        lists([0, 1, 2, float("nan")]),
        "1 row(s) of {path} hold NaN, infinite or null values in column 'embe",
    ),
    "zero vector": (
        IDS,
        lists([0, 0, 0, -0.0]),
        "are zero vectors in column 'embedding', which have no cosine distance",
    ),
    "unequal lengths": (
        IDS,
        lists([1, 2], [1, 2, 3, 4, 5]),
        "2 row(s) of {path} have another length than most, 4, in",
    ),
}


@pytest.mark.parametrize("case", REFUSED_BY_ROWS)
def test_rows_that_break_the_contract_are_refused(run_here, tmp_path, case):
    """In one sentence with the column, a row id, how many rows and what to do; no output folder."""
    ids, vectors, words = REFUSED_BY_ROWS[case]
    path = write_parquet(tmp_path / "in.parquet", ids, vectors)
    with pytest.raises(InputError) as refused:
        run_here("curate", input=path, output=str(tmp_path / "out"), budget=5)
    assert words.format(path=path) in str(refused.value)
    assert "--on-bad-rows drop" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_bad_rows_are_exit_code_3_and_one_line(tmp_path):
    path = write_parquet(tmp_path / "in.parquet", IDS, REFUSED_BY_ROWS["NaN"][1])
    done = run_job("curate", "--input", path, "--output", tmp_path / "out", "--budget", 5)
    assert done.returncode == 3, done.stderr
    assert "hold NaN" in error_line(done)
    assert not (tmp_path / "out").exists()


def test_a_bad_quality_is_a_bad_row(graded, run_here, tmp_path):
    points, names, quality = graded
    bad = quality.copy()
    bad[[3, 9]] = [-1, np.nan]
    path = written((points, names, bad), tmp_path / "in")
    options = {"input": path, "output": str(tmp_path / "out"), "budget": 5, "quality_column": "q", "report": False}
    with pytest.raises(InputError, match=r"2 row\(s\) .* quality"):
        run_here("curate", **options)
    run_here("curate", on_bad_rows="drop", **options)
    rejected = pq.read_table(tmp_path / "out" / "rejected").to_pylist()
    assert sorted((row["id"], row["reason"]) for row in rejected) == [("w003", "bad quality"), ("w009", "bad quality")]


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
    path = write_parquet(tmp_path / "in.parquet", IDS[:30], VECTORS[:30], kind=column)
    work = Location.of(str(tmp_path / "work"))
    settings = Settings(input=path, group_column="kind")
    pool = ingest(spark, open_source(path, "id", "embedding"), settings, work)
    assert pool.groups == expected
    assert Pool.from_json(pool.work, json.loads(json.dumps(pool.for_json()))) == pool
    stored = {}
    for block in pool.blocks:
        content = read_block(pool.work, block.name)
        stored.update(zip(content.ids.to_pylist(), content.groups.to_pylist(), strict=True))
    assert stored == dict(zip(IDS[:30], map(group_of, column.to_pylist()), strict=True))


def plainly(ids: list, vectors: list[tuple[float, ...]]) -> tuple[list, dict]:
    """Ids of the candidates in their order, and the reason of each bad row by its place, one row after the other."""
    lengths = Counter(len(vector) for vector in vectors)
    reasons = {place: "unequal length" for place, vector in enumerate(vectors) if len(vector) != max(lengths)}
    of_id: dict = {}
    for place, (id_, vector) in enumerate(zip(ids, vectors, strict=True)):
        if place not in reasons:
            of_id.setdefault(id_, []).append((place, vector))
    for same in of_id.values():
        left = same[1:] if len({vector for _, vector in same}) == 1 else same
        reasons.update((place, "duplicate id") for place, _ in left)
    smallest: dict = {}
    for place in sorted((place for place in range(len(ids)) if place not in reasons), key=lambda place: ids[place]):
        smallest.setdefault(vectors[place], ids[place])
    return list(smallest.values()), reasons


@pytest.mark.parametrize("kind", [str, int])
@pytest.mark.parametrize("part_rows", [None, 300])
def test_candidates_and_bad_rows_are_those_of_a_plain_loop(spark, tmp_path, monkeypatch, kind, part_rows):
    """Whether all rows come together in one task or in many."""
    if part_rows:
        monkeypatch.setattr(stage, "_PART_ROWS", part_rows)
    ids = [kind(number) for number in RNG.integers(-400, 800, ROWS)]
    points = RNG.standard_normal((300, 4)).round(3)
    vectors = [tuple(points[at][: 3 if at == 7 else 4]) for at in RNG.integers(0, 300, ROWS)]
    for place in range(40, 80):  # the same row again
        ids[place], vectors[place] = ids[place - 40], vectors[place - 40]
    (tmp_path / "in").mkdir()
    for start in range(0, ROWS, 200):
        part = slice(start, start + 200)
        write_parquet(tmp_path / "in" / f"{start:04d}.parquet", ids[part], pa.array([list(v) for v in vectors[part]]))
    work = Location.of(str(tmp_path / "work"))
    (work / "store").make_folder()
    settings = Settings(
        input=str(tmp_path / "in"), metric="euclidean", on_bad_rows="drop", save_state="x", block_rows=150
    )
    pool = ingest(spark, open_source(settings.input, "id", "embedding"), settings, work)
    candidates, reasons = plainly(ids, vectors)
    blocks = [read_block(work, block.name) for block in pool.blocks]
    assert [block.rows for block in pool.blocks] == [len(block.rows) for block in blocks]
    found = sorted(pair for block in blocks for pair in zip(block.rows.tolist(), block.ids.to_pylist(), strict=True))
    assert found == list(enumerate(candidates))
    vector_of = {ids[place]: vectors[place] for place in range(ROWS) if place not in reasons}
    for block in blocks:
        assert block.distinct.all()
        assert [tuple(vector) for vector in block.vectors.tolist()] == [vector_of[id_] for id_ in block.ids.to_pylist()]
    rejected = pq.read_table(tmp_path / "work" / "rejected").to_pylist()
    places = {(row["file"].rsplit("/", 1)[1], row["file_row"]): (row["id"], row["reason"]) for row in rejected}
    assert places == {(f"{p // 200 * 200:04d}.parquet", p % 200): (str(ids[p]), why) for p, why in reasons.items()}
    assert pool.bad_rows == {why: Counter(reasons.values())[why] for why in ("unequal length", "duplicate id")}
    equal = [id_ for of_digest in read_equal(work).values() for id_ in of_digest]
    assert sorted(equal + candidates) == sorted({ids[p] for p in range(ROWS) if p not in reasons})
    assert pool.duplicates_dropped == len(equal)
    assert pool.distinct == len(candidates)


def test_the_fingerprint_is_of_ids_embeddings_and_faults_alone(spark, tmp_path, monkeypatch):
    """Not of files, order or parts."""
    ids, vectors = [f"n{i}" for i in range(60)], RNG.standard_normal((60, 3)).astype(np.float32)
    vectors[5] = np.nan

    def fingerprint(name: str, order: np.ndarray, vectors: np.ndarray) -> str:
        path = write_parquet(tmp_path / name, [ids[i] for i in order], vectors[order])
        work = Location.of(str(tmp_path / f"work-{name}"))
        (work / "store").make_folder()
        settings = Settings(input=path, on_bad_rows="drop")
        return ingest(spark, open_source(path, "id", "embedding"), settings, work).fingerprint

    first = fingerprint("a", np.arange(60), vectors)
    monkeypatch.setattr(stage, "_PART_ROWS", 30)
    assert fingerprint("b", RNG.permutation(60), vectors) == first
    vectors[9] += 1
    assert fingerprint("c", np.arange(60), vectors) != first


def test_quality_groups_and_costs_come_with_the_vectors(tmp_path, monkeypatch):
    """A row group of 20,000 rows is opened and read once, whatever is asked of it."""
    rows, asked = 20_000, stage.Asked("q", "g", "c")
    columns = {"q": RNG.random(rows), "g": RNG.choice(["a", "b"], rows), "c": RNG.random(rows) + 1}
    path = write_parquet(tmp_path / "in.parquet", np.arange(rows), RNG.random((rows, 2)), **columns)
    source = open_source(path, "id", "embedding")
    opened = []
    of_machine = Location.opened
    monkeypatch.setattr(Location, "opened", lambda self, *given: opened.append(self) or of_machine(self, *given))
    (chunk,) = source.chunks(rows)
    scanned = list(stage._scanned(source, True, asked, 0, chunk))
    assert sum(map(len, scanned)) == rows
    assert len(opened) == 1
    places = np.arange(1, rows, 3)
    placed = places, np.arange(len(places)), np.ones(len(places), dtype=bool)
    pieces = list(stage._pieces(source, chunk, asked, placed))
    assert len(opened) == 2
    assert np.concatenate([piece.quality for piece in pieces]).tolist() == columns["q"][places].tolist()
    assert np.concatenate([piece.cost for piece in pieces]).tolist() == columns["c"][places].tolist()
    assert [group for piece in pieces for group in piece.groups.to_pylist()] == columns["g"][places].tolist()
