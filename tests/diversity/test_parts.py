"""NovelSum of the first picks is that of the formula, wherever it is measured."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from novelsum import formula
from novelsum.diversity import parts as measured


@pytest.mark.parametrize("here", [True, False], ids=["in the driver", "in passes"])
@pytest.mark.parametrize(
    ("settings", "of"),
    [
        ({"formula": "symmetric", "metric": "euclidean"}, "paper"),
        pytest.param({}, "paper", marks=pytest.mark.more),
        pytest.param({"formula": "released"}, "released", marks=pytest.mark.more),
    ],
)
def test_novelsum_of_the_first_picks_is_that_of_the_formula(
    run_here, clustered, tmp_path, monkeypatch, here, settings, of
):
    if not here:
        monkeypatch.setattr("novelsum.report.survey.MAP_PICKS", 10)
    points, output = clustered.distinct(), tmp_path / "out"
    path = clustered.write(tmp_path / "in", rows_per_file=150)
    run_here("curate", input=path, output=str(output), budget=41, block_rows=100, **settings)
    found = json.loads((output / "report.json").read_text())["novelsum"]
    assert [part["picks"] for part in found] == [4, 10, 20, 41]
    picks = [points.ids.index(id_) for id_ in pq.read_table(output / "selected").column("id").to_pylist()]
    # Rows of the pool are ranks of ids; these ids sort as they are.
    order = np.argsort(points.ids)
    metric = settings.get("metric", "cosine")
    vectors = points.vectors[order]
    sigma = formula.density(vectors, 10, formula=of, metric=metric)
    place = {points.ids[row]: i for i, row in enumerate(order)}
    rows = np.array([place[points.ids[row]] for row in picks])
    for part in found:
        first = np.sort(rows[: part["picks"]])
        among = formula.distances(vectors[first], vectors[first], metric)
        value = formula.novelsum(among, sigma[first], formula=of)
        assert part["novelsum_sum"] == pytest.approx(value.sum, rel=1e-5)
        assert part["novelsum_mean"] == pytest.approx(value.mean, rel=1e-5)
        assert part["mean_interval"] is None


@pytest.mark.more
def test_many_picks_are_measured_by_a_sample_with_an_interval(run_here, sample, tmp_path, monkeypatch):
    """The interval holds what all rows give, and the sample does not hang on the layout."""
    path = sample.write(tmp_path / "in")
    found = []
    for name, exact, rows in (("all", 10_000, 2000), ("sampled", 100, 2000), ("again", 100, 900)):
        monkeypatch.setattr(measured, "EXACT_PICKS", exact)
        monkeypatch.setattr(measured, "SAMPLE_ROWS", 150)
        output = tmp_path / name
        run_here("curate", input=path, output=str(output), budget=700, block_rows=rows)
        found.append(json.loads((output / "report.json").read_text())["novelsum"])
    exact, sampled, again = found
    assert sampled == again
    for true, part in zip(exact[2:], sampled[2:], strict=True):
        assert part["sampled_rows"] == 150
        low, high = part["mean_interval"]
        assert low <= true["novelsum_mean"] <= high
        assert part["novelsum_mean"] == pytest.approx(true["novelsum_mean"], rel=0.1)
