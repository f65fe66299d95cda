"""Quality in the score: picks are those of the formula, and powers beyond all numbers are refused."""

import pytest
from conftest import assert_same
from graded import BUDGET, FORMULAS, oracle_picks, written

from novelsum.errors import InputError


@pytest.mark.parametrize("formula_", FORMULAS)
@pytest.mark.parametrize("quality_power", [0.5, 3.0])
def test_picks_by_quality_are_the_oracles(graded, engine, tmp_path, either_way, formula_, quality_power):
    settings = {"formula": formula_, "quality_power": quality_power, "first": "w002"}
    found = engine(written(graded, tmp_path / "in"), BUDGET, block_rows=350, quality_column="q", **settings)
    assert_same(found, oracle_picks(graded, BUDGET, **settings))


@pytest.mark.parametrize(
    ("scale", "power"),
    [
        pytest.param(1.0, 927.0, id="near the limit"),
        pytest.param(0.05, 1000.0, id="all vanish", marks=pytest.mark.more),
    ],
)
def test_powers_of_quality_at_the_ends_of_numbers_give_the_oracles_picks(graded, engine, tmp_path, scale, power):
    """Scores of 1e279 and more; and where all are 0, as when every quality is, the smallest id is next."""
    points, names, quality = graded
    graded = points, names, quality * scale
    settings = {"quality_power": power, "first": "w002"}
    found = engine(written(graded, tmp_path / "in"), 30, block_rows=350, quality_column="q", **settings)
    assert_same(found, oracle_picks(graded, 30, **settings))


@pytest.mark.parametrize(("scale", "power", "told"), [(1.0, 1100.0, "2"), (1e200, 1.5, r"2e\+200")])
def test_a_power_of_quality_beyond_all_numbers_is_refused_before_any_search(
    graded, run_here, tmp_path, monkeypatch, scale, power, told
):
    """With the column, its largest value and what to do."""
    points, names, quality = graded
    path = written((points, names, quality * scale), tmp_path / "in")
    monkeypatch.setattr("novelsum.pipeline.estimate_density", None)
    options = {"budget": 5, "quality_column": "q", "quality_power": power}
    with pytest.raises(InputError, match=f"qualities of column 'q', which are up to {told}, out of .*; use a smaller"):
        run_here("curate", input=path, output=str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()
