"""From the input to the store: which rows are candidates and what they are numbered, in how many parts ever."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_parquet

from novelsum.files import ingest
from novelsum.files.location import Location
from novelsum.files.source import open_source
from novelsum.files.store import read_block, read_equal
from novelsum.settings import Settings

RNG = np.random.default_rng(0)
ROWS = 900


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
        monkeypatch.setattr(ingest, "_PART_ROWS", part_rows)
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
    pool = ingest.ingest(spark, open_source(settings.input, "id", "embedding"), settings, work, work)
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
        return ingest.ingest(spark, open_source(path, "id", "embedding"), settings, work, work).fingerprint

    first = fingerprint("a", np.arange(60), vectors)
    monkeypatch.setattr(ingest, "_PART_ROWS", 30)
    assert fingerprint("b", RNG.permutation(60), vectors) == first
    vectors[9] += 1
    assert fingerprint("c", np.arange(60), vectors) != first


def test_quality_and_groups_come_with_the_vectors(tmp_path, monkeypatch):
    """A row group of 20,000 rows is opened and read once, whatever is asked of it."""
    rows = 20_000
    columns = {"q": RNG.random(rows), "g": RNG.choice(["a", "b"], rows)}
    path = write_parquet(tmp_path / "in.parquet", np.arange(rows), RNG.random((rows, 2)), **columns)
    source = open_source(path, "id", "embedding")
    opened = []
    of_machine = Location.opened
    monkeypatch.setattr(Location, "opened", lambda self, *given: opened.append(self) or of_machine(self, *given))
    (chunk,) = source.chunks(rows)
    scanned = list(ingest._scanned(source, True, "q", 0, chunk))
    assert sum(map(len, scanned)) == rows
    assert len(opened) == 1
    places = np.arange(1, rows, 3)
    placed = places, np.arange(len(places)), np.ones(len(places), dtype=bool)
    pieces = list(ingest._pieces(source, chunk, ("q", "g"), placed))
    assert len(opened) == 2
    assert np.concatenate([piece.quality for piece in pieces]).tolist() == columns["q"][places].tolist()
    assert [group for piece in pieces for group in piece.groups.to_pylist()] == columns["g"][places].tolist()
