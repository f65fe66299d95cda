"""States of the density job: nights that come, are run again or go, rows that are taken out, runs that are cut."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Points, error_line, run_job, write_parquet

from novelsum import formula
from novelsum.errors import InputError
from novelsum.ingest import ingest
from novelsum.layout import read_cells
from novelsum.lock import held
from novelsum.settings import Settings
from novelsum.source import open_source
from novelsum.state import state_of
from novelsum.storage import Location
from novelsum.workplace import Workplace

RNG = np.random.default_rng(8)


def expected(points: Points, kept: set[str] | None = None, **settings: Any) -> dict[Any, float]:
    """By the formula, of all rows or of those with some ids."""
    chosen = replace(Settings(), **settings)
    if kept is not None:
        places = [i for i, id_ in enumerate(points.ids) if id_ in kept]
        points = Points([points.ids[i] for i in places], points.vectors[places])
    if chosen.duplicates == "drop":
        points = points.distinct()
    sigma = formula.density(points.vectors, chosen.neighbors, formula=chosen.formula, metric=chosen.metric)
    return dict(zip(points.ids, sigma.tolist(), strict=True))


@pytest.fixture(scope="module")
def crowd() -> Points:
    """600 points of 6 dimensions in clusters, every fifth a copy of another."""
    rng = np.random.default_rng(3)
    vectors = (rng.normal(size=(8, 6))[rng.integers(0, 8, 600)] + 0.4 * rng.normal(size=(600, 6))).astype(np.float32)
    vectors[::5] = vectors[1 + 5 * rng.integers(0, 40, 120)]
    return Points([f"x{i:05d}" for i in range(600)], vectors)


@pytest.fixture
def night(spark: Any, tmp_path: Path) -> Callable[..., tuple[dict[Any, float], dict[str, Any]]]:
    """Do to the state in ``tmp_path`` what a run of the density job does: density by id, and what the manifest says."""
    works = iter(range(100))

    def run(path: str = "", remove: Any = (), output: str = "out", **settings: Any):
        state = str(tmp_path / "state")
        named = {"update" if (tmp_path / "state").exists() else "save_state": state}
        chosen = replace(Settings(input=path, density_method="exact"), **{**named, **settings})
        place = Workplace.of(Location.of(str(tmp_path / output)), str(tmp_path / f"w{next(works)}"), {"path": path})
        pool = None
        with state_of(chosen, place) as held_state:
            if path:
                (place.work / "store").make_folder()
                pool = ingest(spark, open_source(path, "id", "embedding"), chosen, place.work, place.stage)
            report = held_state.add(spark, pool, frozenset(remove), chosen, place)
            held_state.commit(held_state.following(place.key))
        table = pq.read_table(place.result.path)
        place.stage.delete()
        return dict(zip(*(table.column(name).to_pylist() for name in ("id", "density")), strict=True)), report

    return run


# --- rows that are taken out ------------------------------------------------------------------------------

SETTINGS = {
    "paper, drop": {},
    "paper, keep": {"duplicates": "keep"},
    "euclidean": {"metric": "euclidean"},
    "released, drop": {"formula": "released"},
    "released, keep": {"formula": "released", "duplicates": "keep"},
}


@pytest.mark.more
@pytest.mark.parametrize("case", SETTINGS)
def test_what_is_left_after_rows_are_taken_out_has_the_density_of_a_full_run(crowd, night, tmp_path, case):
    """Bit for bit, whichever go: single rows, copies, ids that stand for copies; and with new rows in the same run."""
    settings, rng = SETTINGS[case], np.random.default_rng(7)
    order, kept = rng.permutation(600), set(crowd.ids)
    first, second, third = order[:380], order[380:520], order[520:]
    night(crowd.write(tmp_path / "1", first), output="1", **settings)
    night(crowd.write(tmp_path / "2", second), output="2", **settings)
    kept -= {crowd.ids[i] for i in third}
    for number in range(2):
        gone = set(rng.choice(sorted(kept), 60, replace=False).tolist())
        kept -= gone
        found, report = night(remove=gone | {f"nobody{number}"}, output="r", **settings)
        assert found == expected(crowd, kept, **settings)
        assert (report["removed_ids"], report["unknown_ids"]) == (60, 1)
        assert report["recall"] == 1
        assert report["fingerprint"] is None
        assert 0 < report["searched_again"] < len(found)
    gone = set(rng.choice(sorted(kept), 30, replace=False).tolist())
    found, _ = night(crowd.write(tmp_path / "3", third), gone, output="3", **settings)
    assert found == expected(crowd, kept - gone | {crowd.ids[i] for i in third}, **settings)


def part(points: Points, places: Any) -> Points:
    return Points([points.ids[i] for i in places], points.vectors[list(places)])


def everything_in(state: Path) -> bytes:
    """The bytes of all its files, and of all columns of the Parquet files among them."""
    content = [file.read_bytes() for file in sorted(state.rglob("*")) if file.is_file()]
    for file in sorted(state.rglob("*.parquet")):
        columns = pq.read_table(file).combine_chunks().columns
        content += [bytes(buffer) for column in columns for buffer in column.chunk(0).buffers() if buffer]
    return b"".join(content)


def nearest_centroid(generation: Path, point: np.ndarray) -> float:
    return float(np.square(read_cells(Location.of(str(generation))).centroids - point).sum(axis=1).min())


def test_an_id_that_stands_for_copies_hands_over_and_one_that_is_taken_out_is_in_no_file(crowd, night, tmp_path):
    """Of ids, vectors and digests; a copy that goes changes no list."""
    few = Points([f"secret-{i:03d}" for i in range(90)], crowd.vectors[:90] + 0)
    few.vectors[50] = few.vectors[60] = few.vectors[3]
    few.vectors[12] *= -1  # far from all others
    before, _ = night(few.write(tmp_path / "1"), neighbors=3)
    assert {"secret-050", "secret-060"}.isdisjoint(before)
    found, report = night(remove=["secret-003", "secret-060"], neighbors=3)
    assert found == {("secret-050" if id_ == "secret-003" else id_): value for id_, value in before.items()}
    assert (report["removed"], report["searched_again"]) == (0, 0)
    gone = few.vectors[12]
    point = formula.normalize(gone[None].astype(np.float64))
    assert gone.tobytes() in everything_in(tmp_path / "state")
    assert nearest_centroid(tmp_path / "state" / "generation-00001", point) < 1e-12
    found, report = night(remove=["secret-012"], neighbors=3)
    assert found == expected(few, set(few.ids) - {"secret-003", "secret-060", "secret-012"}, neighbors=3)
    content = everything_in(tmp_path / "state")
    assert few.vectors[11].tobytes() in content
    assert b"secret-050" in content
    digest = hashlib.blake2b(gone.tobytes(), digest_size=16).digest()
    for secret in (b"secret-003", b"secret-060", b"secret-012", gone.tobytes(), point.tobytes(), digest):
        assert secret not in content
    assert nearest_centroid(tmp_path / "state" / "generation-00002", point) > 1e-6


def test_what_cannot_be_taken_out_is_refused(crowd, night, tmp_path):
    night(part(crowd, range(60)).write(tmp_path / "1"))
    before = everything_in(tmp_path / "state")
    with pytest.raises(InputError, match=r"none of the 2 ids of --remove is in the state .* \(first id: 'nobody'\)"):
        night(remove=["nobody", "nowhere"])
    distinct = part(crowd, range(60)).distinct().ids
    with pytest.raises(InputError, match=r"10 rows of the state .* would be left, but 10 neighbours take 11"):
        night(remove=set(crowd.ids[:60]) - set(distinct[:10]))
    assert everything_in(tmp_path / "state") == before


# --- nights that are run again ----------------------------------------------------------------------------


@pytest.mark.more
@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_a_night_run_again_gives_back_what_it_brought_first(crowd, night, tmp_path, duplicates):
    """With the same rows nothing changes and nothing is searched; with others the result is that of a full run."""
    settings = {"duplicates": duplicates, "neighbors": 4}
    paths = [part(crowd, range(i, 300, 3)).write(tmp_path / str(i)) for i in range(3)]
    for number, path in enumerate(paths):
        found, report = night(path, output=f"{number}", **settings)
    known = report["fingerprint"]
    again, report = night(paths[1], output="1", **settings)
    assert again == found == expected(part(crowd, range(300)), **settings)
    assert (report["added"], report["removed"], report["searched_again"]) == (0, 0, 0)
    assert report["fingerprint"] == known
    changed = part(crowd, [*range(1, 150, 3), *range(310, 320)])
    found, report = night(changed.write(tmp_path / "changed"), output="1", **settings)
    there = {id_ for i in (0, 2) for id_ in crowd.ids[i:300:3]} | set(changed.ids)
    assert found == expected(crowd, there, **settings)
    assert report["fingerprint"] not in (None, known)
    with pytest.raises(InputError, match=r"1 row\(s\) have an id that the state .* holds already"):
        night(part(crowd, [1]).write(tmp_path / "one"), output="other", **settings)
    first, _ = night(paths[0], output="0", save_state=str(tmp_path / "state"), update=None, overwrite=True, **settings)
    assert first == found


def test_an_id_that_was_dropped_as_a_copy_is_known(crowd, night, tmp_path):
    few = part(crowd, range(50))
    few.vectors[20] = few.vectors[3]
    night(few.write(tmp_path / "1"))
    with pytest.raises(InputError, match="'x00020'"):
        night(part(few, [20]).write(tmp_path / "2"), output="2")
