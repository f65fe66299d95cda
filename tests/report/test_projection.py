"""The map as Parquet: all candidates, where the report draws them, in any layout."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from conftest import Points, write_parquet

from novelsum import formula
from novelsum.report.projection import MAP_POOL, principal_axes
from novelsum.report.survey import rounded


def mapped(output) -> dict:
    table = ds.dataset(output / "map").to_table().sort_by("id")
    return {name: table.column(name).to_pylist() for name in table.column_names}


@pytest.mark.parametrize("metric", ["cosine", pytest.param("euclidean", marks=pytest.mark.more)])
def test_the_map_has_all_candidates_where_the_report_draws_them(run_here, sample, tmp_path, metric):
    """Its sample and its picks; the same bits by other blocks and without a report."""
    points = sample.distinct()
    points = Points(points.ids[:2100], points.vectors[:2100])
    groups = [None, *(f"g{i % 3}" for i in range(1, len(points.ids)))]
    path = write_parquet(tmp_path / "in.parquet", points.ids, points.vectors, kind=pa.array(groups))
    options = {"input": path, "budget": 60, "metric": metric, "group_column": "kind", "map": True, "seed": 7}
    output, other = tmp_path / "out", tmp_path / "other"
    run_here("curate", **options, output=str(output))
    found, report = mapped(output), json.loads((output / "report.json").read_text())["map"]
    assert list(found) == ["id", "x", "y", "pick", "group"]
    assert (found["id"], found["group"]) == (points.ids, groups)
    picks = ds.dataset(output / "selected").to_table(["id", "pick"]).to_pylist()
    of_pick = {row["id"]: row["pick"] for row in picks}
    assert found["pick"] == [of_pick.get(id_) for id_ in points.ids]
    drawn = [rounded(place) for place in zip(found["x"], found["y"], strict=True)]
    of_pool = np.random.default_rng(7).choice(len(points.ids), MAP_POOL, replace=False)
    assert [drawn[row] for row in sorted(of_pool)] == report["pool"]
    at = {number: place for number, place in zip(found["pick"], drawn, strict=True) if number}
    assert [[number, *at[number]] for number, *_ in report["picks"]] == report["picks"]

    space = formula.metric_space(points.vectors, metric)
    about = space - space[of_pool].mean(axis=0)
    _, _, axes = np.linalg.svd(about[of_pool], full_matrices=False)
    for name, axis in zip("xy", axes[:2], strict=True):
        assert found[name] == pytest.approx((about @ axis * np.sign(axis[np.abs(axis).argmax()])).tolist(), abs=1e-9)

    run_here("curate", **options, output=str(other), block_rows=210, report=False)
    assert mapped(other) == found


@pytest.mark.parametrize("shape", [(30, 5), (5, 30), (7, 1), (2, 3), (1, 4)])
def test_the_axes_of_the_map_are_the_singular_vectors(shape):
    """With the share of variance of each; an axis that does not exist is zero."""
    centered = np.random.default_rng(3).normal(size=shape)
    centered -= centered.mean(axis=0)
    axes, shares = principal_axes(centered)
    _, values, vectors = np.linalg.svd(centered, full_matrices=False)
    total = max(np.square(values).sum(), 1e-300)
    for place in range(2):
        share = values[place] ** 2 / total if place < len(values) else 0.0
        assert shares[place] == pytest.approx(share, abs=1e-12)
        if share > 1e-12:
            assert abs(axes[place] @ vectors[place]) == pytest.approx(1)
            assert axes[place][np.abs(axes[place]).argmax()] > 0
        else:
            assert not axes[place].any()
