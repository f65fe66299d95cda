"""The survey: its figures equal what NumPy finds, whatever the layout of the pool."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Points, write_parquet
from hostile import COLUMN, HOSTILE, hostile_sample

from novelsum import formula
from novelsum.report.projection import sample_rows

BUDGET, SHOWN = 40, 5


def test_the_figures_are_those_of_numpy(run_here, sample, tmp_path):
    """Novelty, distances to earlier picks, histogram, groups and nearest rejected samples, worked out again."""
    source, output = hostile_sample(), tmp_path / "out"
    pq.write_table(source, tmp_path / "in.parquet")
    options = {"budget": BUDGET, "show": SHOWN, "text_column": "text", "group_column": COLUMN}
    run_here("curate", input=str(tmp_path / "in.parquet"), output=str(output), **options)
    data = json.loads((output / "report.json").read_text())
    points = sample.distinct()
    table = pq.read_table(output / "selected")
    picks = [points.ids.index(id_) for id_ in table.column("id").to_pylist()]
    to_picks = formula.distances(points.vectors, points.vectors[picks])
    among = to_picks[picks]
    assert data["novelty"]["pick"] == list(range(1, BUDGET + 1))
    assert data["novelty"]["novelty"] == pytest.approx(table.column("novelty").to_pylist(), rel=1e-5)
    earlier = [among[place, :place].min() for place in range(1, BUDGET)]
    assert data["novelty"]["nearest_earlier"][0] is None
    assert data["novelty"]["nearest_earlier"][1:] == pytest.approx(earlier, rel=1e-5)

    sigma = formula.density(points.vectors, 10)
    edges, bins = np.array(data["density"]["edges"]), data["density"]
    assert edges[0] <= sigma.min() < sigma.max() <= edges[-1] * (1 + 1e-5)
    assert np.abs(np.array(bins["pool"]) - np.histogram(sigma, edges)[0]).sum() <= 4  # edges are rounded
    assert (sum(bins["pool"]), sum(bins["selected"])) == (len(points.ids), BUDGET)
    assert bins["pool_quantiles"]["50%"] == pytest.approx(np.median(sigma), rel=0.02)
    assert bins["selected_quantiles"]["50%"] == pytest.approx(np.median(sigma[picks]), rel=0.025)

    group_of = dict(zip(source.column("id").to_pylist(), source.column(COLUMN).to_pylist(), strict=True))
    pool, selected = (Counter(group_of[points.ids[i]] for i in rows) for rows in (range(len(points.ids)), picks))
    found = {row["group"]: (row["pool"], row["selected"]) for row in data["groups"]["largest"]}
    assert found == {group: (pool[group], selected[group]) for group in pool}
    assert data["groups"]["reached"] == len(selected)

    rejected = np.setdiff1d(np.arange(len(points.ids)), picks)
    to_first = to_picks[rejected][:, :SHOWN]
    for place, pick in enumerate(data["first_picks"]):
        at = among[place, :place].argmin() if place else None
        assert pick["nearest_earlier"] == (points.ids[picks[at]] if place else None)
        assert pick["nearest_distance"] == (pytest.approx(among[place, at], rel=1e-5) if place else None)
        assert pick["text"].startswith(HOSTILE.strip())
        assert pick["group"] == group_of[pick["id"]]
        own = rejected[to_first.argmin(axis=1) == place]
        nearest = sorted(own, key=lambda row: (to_picks[row, place], row))[:3]
        assert [one["id"] for one in pick["nearest_rejected"]] == [points.ids[row] for row in nearest]
        distances = [one["distance"] for one in pick["nearest_rejected"]]
        assert distances == pytest.approx(to_picks[nearest, place].tolist(), rel=1e-5)
    by_sigma = np.lexsort((np.arange(len(sigma)), sigma))
    number = {row: place + 1 for place, row in enumerate(picks)}
    for side, rows in (("lowest", by_sigma[:6]), ("highest", np.lexsort((np.arange(len(sigma)), -sigma))[:6])):
        shown = [(one["id"], one["pick"], one["selected_before"]) for one in data["extremes"][side]]
        assert shown == [(points.ids[row], number.get(row), False) for row in rows]
        assert all(one["text"].startswith(HOSTILE.strip()) for one in data["extremes"][side])

    length_of = dict(zip(source.column("id").to_pylist(), map(len, source.column("text").to_pylist()), strict=True))
    drawn = sample_rows(SimpleNamespace(candidates=len(points.ids)), 42)
    for of, rows in (("pool", drawn), ("selected", picks)):
        found = np.array([length_of[points.ids[row]] for row in rows])
        assert data["lengths"][f"{of}_texts"] == sum(data["lengths"][of]) == len(found)
        assert data["lengths"][f"{of}_mean"] == pytest.approx(found.mean(), rel=1e-5)
        assert data["lengths"][f"{of}_quantiles"]["50%"] == np.sort(found)[-(-len(found) // 2) - 1]
    assert [row[0] for row in data["list"]["rows"]] == list(range(1, BUDGET + 1))
    assert [row[6] for row in data["list"]["rows"]] == [length_of[points.ids[row]] for row in picks]

    assert len(data["map"]["pool"]) == 2000
    assert [pick[0] for pick in data["map"]["picks"]] == list(range(1, BUDGET + 1))
    assert data["settings"]["budget"] == BUDGET


@pytest.mark.parametrize(
    ("dimension", "budget", "formula_", "layouts"),
    [(6, 40, "paper", (15, 40)), (1, 1, "paper", (15,)), (3, 7, "released", (40,))],
)
def test_any_pool_in_any_layout_gives_one_report(run_here, tmp_path, dimension, budget, formula_, layouts):
    """Blocks of 15 and of 40 rows give the same figures; one dimension, one pick, all picked, with groups or none."""
    points = Points((np.arange(40) * 10**16).tolist(), np.random.default_rng(5).normal(size=(40, dimension)))
    path = write_parquet(tmp_path / "in.parquet", points.ids, points.vectors, kind=[str(i % 25) for i in range(40)])
    options = {"metric": "euclidean", "neighbors": 3, "formula": formula_, "budget": budget}
    options["group_column"] = "kind" if budget == 40 else None
    found = []
    for rows in layouts:
        output = tmp_path / f"out-{rows}"
        run_here("curate", input=path, output=str(output), block_rows=rows, **options)
        content = (output / "report.html").read_text()
        assert content.count("<svg") == (4 if budget == 40 else 3)
        assert ("It reaches 25 of 25 groups, each by its share of the pool." in content) == (budget == 40)
        assert ">nan" not in content
        data = json.loads((output / "report.json").read_text())
        assert data["input"].pop("blocks") == -(-40 // rows)
        for of_the_run in ("finished", "seconds"):
            del data[of_the_run]
        for of_the_run in ("output", "block_rows"):
            del data["settings"][of_the_run]
        found.append(data)
        assert data["selected"]["picks"] == len(data["novelty"]["pick"]) == budget
    assert found == found[:1] * len(layouts)
