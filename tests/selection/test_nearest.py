"""What is nearest to each pick, and to each candidate left out, is what the formula says, in any layout."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from conftest import Points, write_parquet

from novelsum import formula
from novelsum.selection import nearest

HOSTILE = ["plain", 'a "quoted" id', "it's", "two\nlines", "comma, tab\t", "\u00e4\u202e", ""]
"""What ids begin with, in turn."""


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of a few picks, of which several pass one another."""
    monkeypatch.setattr(nearest, "_LEAST_TILE", 30)
    monkeypatch.setattr(nearest, "_tile", lambda pool: 40)


@dataclass(frozen=True)
class Expected:
    """By the formula alone: ids and distances of the nearest to each pick; id, pick number and distance by rejected."""

    earlier: list[tuple[Any, float | None]]
    rejected: dict[Any, tuple[Any, int | None, float]]


def by_formula(pool: Points, picks: list[Any], begun: Points, metric: formula.Metric) -> Expected:
    """``pool``: candidates in order of id; ``begun``: samples selected before, as a selection orders them."""
    of_pool = dict(zip(pool.ids, pool.vectors, strict=True))
    ids = [*begun.ids, *picks]
    points = formula.metric_space(np.array([*begun.vectors, *(of_pool[id_] for id_ in picks)]), metric)
    among = formula.squared_distances(points, points)
    earlier: list[tuple[Any, float | None]] = []
    for place in range(len(begun.ids), len(ids)):
        before = among[place, :place]
        at = int(before.argmin()) if place else None
        earlier.append((None, None) if at is None else (ids[at], float(formula.from_squared(before[at], metric))))
    left = [id_ for id_ in pool.ids if id_ not in set(ids)]
    squared = formula.squared_distances(formula.metric_space(np.array([of_pool[i] for i in left]), metric), points)
    rejected = {}
    for id_, row in zip(left, squared, strict=True):
        at = int(row.argmin())
        number = at - len(begun.ids) + 1
        rejected[id_] = (ids[at], number if number > 0 else None, float(formula.from_squared(row[at], metric)))
    return Expected(earlier, rejected)


def rows(folder: Path, *columns: str) -> list[tuple[Any, ...]]:
    table = ds.dataset(folder).to_table(list(columns))
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def assert_explained(output: Path, expected: Expected) -> None:
    """To the last bit."""
    assert rows(output / "selected", "nearest_id", "nearest_distance") == expected.earlier
    found = rows(output / "rejected_near", "id", "nearest_id", "nearest_pick", "nearest_distance")
    assert {id_: of_it for id_, *of_it in found} == {id_: [*of_it] for id_, of_it in expected.rejected.items()}
    assert len(found) == len(expected.rejected)


@pytest.mark.parametrize("metric", ["cosine", pytest.param("euclidean", marks=pytest.mark.more)])
def test_what_is_nearest_is_what_the_formula_says_whatever_blocks_and_tiles(
    run_here, sample, tmp_path, small_tiles, metric
):
    """Of prompts; the rejected bear their density factors, and each block has its file."""
    prompts = Points(sample.ids[:900], sample.vectors[:900])
    path = prompts.write(tmp_path / "in")
    output, points = tmp_path / "out", prompts.distinct()
    run_here("curate", input=path, output=str(output), budget=150, metric=metric, explain_rejected=True, report=False)
    picks = [id_ for (id_,) in rows(output / "selected", "id")]
    expected = by_formula(points, picks, Points([], np.empty((0, 384))), metric)
    assert_explained(output, expected)
    sigma = dict(zip(points.ids, formula.density(points.vectors, 10, metric=metric).tolist(), strict=True))
    assert dict(rows(output / "rejected_near", "id", "density")) == {id_: sigma[id_] for id_ in expected.rejected}

    again = tmp_path / "again"
    options = {"block_rows": 190, "metric": metric, "explain_rejected": True, "report": False}
    run_here("curate", input=path, output=str(again), budget=150, **options)
    blocks = json.loads((again / "_MANIFEST.json").read_text())["input"]["blocks"]
    assert len(list((again / "rejected_near").iterdir())) == blocks > 3
    assert_explained(again, expected)


@pytest.mark.parametrize("kind", ["text", "int32"])
def test_samples_selected_before_count_and_copies_that_are_kept_are_at_distance_zero(
    run_here, clustered, tmp_path, small_tiles, kind
):
    """Candidates that were selected before are not left out; one outside the pool is named by its own id, which is
    hostile, or beyond the type of the input's.
    """
    near = clustered.vectors[:6] + 0.01 * np.random.default_rng(3).normal(size=(6, 16))
    pooled = np.concatenate([clustered.vectors[:140], clustered.vectors[20:40]])
    count = len(pooled)
    if kind == "text":
        ids = sorted(f"{HOSTILE[i % 7]}{i:03d}" for i in range(count))
        others = sorted(f"{HOSTILE[i % 7]}outside\n{i}'" for i in range(6))
        column = pa.array(ids)
    else:
        ids, others = list(range(count)), [2**40 + i for i in range(6)]
        column = pa.array(ids, pa.int32())
    pool = Points(ids, pooled)
    path = write_parquet(tmp_path / "in.parquet", column, pool.vectors)
    chosen = [7, 50, 155]
    vectors = np.concatenate([pool.vectors[chosen], near]).astype(np.float32)
    before = write_parquet(tmp_path / "before.parquet", [*(ids[i] for i in chosen), *others], vectors)
    options = {"duplicates": "keep", "already_selected": before, "explain_rejected": True, "block_rows": 60}
    output = tmp_path / "out"
    run_here("curate", input=path, output=str(output), budget=130, density_power=0.0, **options)
    picks = [id_ for (id_,) in rows(output / "selected", "id")]
    expected = by_formula(pool, picks, Points([*(ids[i] for i in chosen), *others], vectors), "cosine")
    assert any(distance == 0 for _, distance in expected.earlier)
    assert {id_ for id_, _ in expected.earlier} & set(others)
    assert any(number is None for _, number, _ in expected.rejected.values())
    assert_explained(output, expected)


def test_a_sample_that_was_dropped_is_named_by_the_candidate_that_stands_for_it(run_here, repeated, tmp_path):
    """And a selection of an earlier version, without what is nearest, can be gone on from beside one that has it."""
    points, path = repeated.distinct(), repeated.write(tmp_path / "in")
    dropped = next(id_ for id_ in repeated.ids if id_ not in set(points.ids))
    pq.write_table(pa.table({"id": [dropped]}), tmp_path / "before.parquet")
    options: dict[str, Any] = {"input": path, "report": False, "explain_rejected": True}
    before, first = str(tmp_path / "before.parquet"), tmp_path / "nights" / "first" / "selected"
    run_here("curate", **options, output=str(first.parent), budget=20, already_selected=before)
    same = (repeated.vectors[repeated.ids.index(dropped)] == points.vectors).all(axis=1)
    (row,) = np.flatnonzero(same)
    picks = [id_ for (id_,) in rows(first, "id")]
    expected = by_formula(points, picks, Points([points.ids[row]], points.vectors[[row]]), "cosine")
    assert expected.earlier[0][0] == points.ids[row]
    assert_explained(first.parent, expected)

    second, third = tmp_path / "nights" / "second", tmp_path / "nights" / "third"
    run_here("curate", **options, output=str(second), budget=20, already_selected=str(first))
    (file,) = first.iterdir()
    pq.write_table(pq.read_table(file).drop(["nearest_id", "nearest_distance"]), file)
    nights = str(tmp_path / "nights" / "*" / "selected")
    run_here("curate", **options, output=str(third), budget=20, already_selected=nights)
    begun = sorted(id_ for night in (first, second / "selected") for (id_,) in rows(night, "id"))
    assert len(begun) == 40
    at = [points.ids.index(id_) for id_ in begun]
    picks = [id_ for (id_,) in rows(third / "selected", "id")]
    assert_explained(third, by_formula(points, picks, Points(begun, points.vectors[at]), "cosine"))


def test_an_audit_is_a_join_and_a_run_that_does_not_explain_leaves_none_of_it(run_here, repeated, tmp_path, capsys):
    """Nothing of either folder is data of the result, and both go where they are not asked for again."""
    path, output = repeated.write(tmp_path / "in"), tmp_path / "out"
    run_here("curate", input=path, output=str(output), budget=30, report=False, explain_rejected=True, map=True)
    printed = capsys.readouterr().out
    assert f"near       {output / 'rejected_near'}\nmap        {output / 'map'}\n" in printed
    selected = ds.dataset(output / "selected").to_table(["id", "pick"])
    audit = ds.dataset(output / "rejected_near").to_table().join(selected, "nearest_id", right_keys="id")
    assert audit.column("pick").to_pylist() == audit.column("nearest_pick").to_pylist()
    assert len(audit) == len(repeated.distinct().ids) - 30
    run_here("curate", input=path, output=str(output), budget=30, report=False, overwrite=True)
    assert sorted(entry.name for entry in output.iterdir()) == [
        "_MANIFEST.json",
        "_rows.parquet",
        "duplicates",
        "metrics.json",
        "selected",
    ]


def test_where_all_candidates_are_picked_none_is_left_to_explain(run_here, sample, tmp_path):
    path = write_parquet(tmp_path / "in.parquet", sample.ids[:30], sample.vectors[:30])
    output = tmp_path / "out"
    run_here("curate", input=path, output=str(output), budget="100%", neighbors=3, explain_rejected=True, report=False)
    assert rows(output / "rejected_near", "id", "nearest_id", "nearest_pick", "nearest_distance", "density") == []
