"""Samples that were selected before: picks go on after them as the formula says, or they are refused by name."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import assert_same, write_parquet
from graded import FORMULAS, kept, oracle_picks, written

from novelsum import formula
from novelsum.errors import InputError


@pytest.mark.parametrize("formula_", FORMULAS)
def test_picks_after_ids_selected_before_are_the_oracles(graded, engine, tmp_path, either_way, formula_):
    """Also for the id of a copy that was dropped: the candidate with its embedding stands for it."""
    path = written(graded, tmp_path / "in")
    before = ["w001", "w000", "w444", "w680", "w017"]
    names = write_parquet_ids(tmp_path / "before.parquet", before)
    found = engine(path, 40, block_rows=350, already_selected=names, formula=formula_)
    places = kept(graded, "drop")
    rows = sorted(
        {int(np.flatnonzero((graded[0].vectors[places] == graded[0].vectors[int(i[1:])]).all(1))[0]) for i in before}
    )
    assert_same(found, oracle_picks(graded, 40, begun=rows, formula=formula_))


def write_parquet_ids(path, ids):
    pq.write_table(pa.table({"id": ids}), path)
    return str(path)


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_picks_after_samples_outside_the_pool_are_the_oracles(graded, engine, tmp_path, either_way, duplicates):
    """Their neighbours are those in the pool. One with a candidate's id or, copies dropped, embedding is that one."""
    points = graded[0]
    path = written(graded, tmp_path / "in")
    rng = np.random.default_rng(5)
    outside = (points.vectors[rng.choice(700, 7)] + 0.5 * rng.normal(size=(7, 12))).astype(np.float32)
    ids = ["w003", *(f"z{i}" for i in range(7))]
    before = write_parquet(tmp_path / "before.parquet", ids, np.concatenate([points.vectors[3:4], outside]))
    found = engine(path, 40, block_rows=350, already_selected=before, duplicates=duplicates)

    places = kept(graded, duplicates)
    pool = points.vectors[places]
    sigma = np.concatenate([formula.density(pool, 10), formula.density(outside, 10, reference=pool)])
    n = len(pool)
    row = int(np.flatnonzero((pool == points.vectors[3]).all(1))[0])
    expected = formula.novelselect(
        np.concatenate([pool, outside]),
        sigma,
        40,
        None,
        begun=[row, *range(n, n + 7)],
        may_follow=lambda picks: np.arange(n + 7) < n,
    )
    assert found.picks == [points.ids[places[i]] for i in expected.picks]
    assert found.novelty == pytest.approx(expected.novelty, rel=1e-9)


def test_ids_selected_before_that_are_not_found_are_named(graded, engine, tmp_path):
    before = write_parquet_ids(tmp_path / "before.parquet", ["w001", "nobody", "another"])
    with pytest.raises(InputError, match=r"2 of the 3 ids .* \(first: 'another'\); give their embeddings"):
        engine(written(graded, tmp_path / "in"), 5, already_selected=before)


def test_an_id_selected_before_with_another_embedding_is_refused(graded, engine, tmp_path):
    before = write_parquet(tmp_path / "before.parquet", ["w005"], graded[0].vectors[6:7])
    with pytest.raises(InputError, match=r"'w005' has one embedding in .* and another in --already-selected"):
        engine(written(graded, tmp_path / "in"), 5, already_selected=before)
