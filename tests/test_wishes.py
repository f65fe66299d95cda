"""Quality, quotas and samples selected before: the engine against the oracle, and what is refused."""

import os
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SAMPLE, Points, error_line, run_job, write_parquet

from novelsum import formula
from novelsum.errors import InputError, UsageError
from novelsum.quotas import Quota, Quotas

BUDGET = 60


@pytest.fixture(scope="module")
def world():
    """Points with ids, groups of unequal size and qualities, zeros among them; some points twice."""
    rng = np.random.default_rng(11)
    centers = rng.normal(size=(6, 12))
    group = rng.choice(6, 700, p=[0.5, 0.2, 0.13, 0.08, 0.05, 0.04])
    vectors = (centers[group] + 0.7 * rng.normal(size=(700, 12))).astype(np.float32)
    vectors[::35] = vectors[1::35]
    names = np.array(["web", "chat", "code", 'a "b" 100%', "math=1", "\u00e4"])[group]
    quality = np.round(rng.uniform(0, 2, 700), 1)
    quality[::35] = 0.3
    return Points([f"w{i:03d}" for i in range(700)], vectors), names, quality


def written(world, folder, rows=None):
    points, names, quality = world
    folder.mkdir(parents=True)
    rows = np.arange(len(points.ids)) if rows is None else rows
    for number, part in enumerate(np.array_split(rows, 3)):
        write_parquet(
            folder / f"part-{number}.parquet",
            [points.ids[i] for i in part],
            points.vectors[part],
            group=names[part].tolist(),
            q=quality[part],
        )
    return str(folder)


def kept(world, duplicates):
    """Places of the candidates in the order of ids."""
    points, _, _ = world
    return (
        np.arange(len(points.ids))
        if duplicates == "keep"
        else np.sort(np.unique(points.vectors, axis=0, return_index=True)[1])
    )


def oracle_picks(world, budget, begun=None, **settings):
    """Picks by the formula alone; ``quota``, ``quality_power`` and ``duplicates`` as in the settings."""
    points, names, quality = world
    places = kept(world, settings.pop("duplicates", "drop"))
    vectors, names, quality = points.vectors[places], names[places], quality[places]
    quota, power = settings.pop("quota", ()), settings.pop("quality_power", None)
    first = settings.pop("first", None)
    sigma = formula.density(vectors, 10, formula=settings.get("formula", "paper"))
    may_follow = None
    if quota:
        groups = dict(zip(*np.unique(names, return_counts=True), strict=True))
        quotas = Quotas.of(quota, groups, budget)
        code = np.searchsorted(quotas.groups, names)

        def may_follow(picks):
            picked = np.bincount(code[picks], minlength=len(quotas.groups))
            return quotas.is_open(picked, budget - len(picks))[code]

    found = formula.novelselect(
        vectors,
        sigma,
        budget,
        None if first is None else int(np.flatnonzero(places == points.ids.index(first))[0]),
        quality=None if power is None else quality**power,
        begun=[] if begun is None else begun,
        may_follow=may_follow,
        **settings,
    )
    return [points.ids[places[i]] for i in found.picks], found.novelty


def assert_same(found, expected):
    assert found.picks == expected[0]
    assert found.novelty == pytest.approx(expected[1], rel=1e-9)


@pytest.mark.parametrize("formula_", formula.FORMULAS)
@pytest.mark.parametrize("quality_power", [0.5, 3.0])
def test_picks_by_quality_are_the_oracles(world, engine, tmp_path, formula_, quality_power):
    settings = {"formula": formula_, "quality_power": quality_power, "first": "w002"}
    found = engine(written(world, tmp_path / "in"), BUDGET, block_rows=350, quality_column="q", **settings)
    assert_same(found, oracle_picks(world, BUDGET, **settings))


@pytest.mark.more
@pytest.mark.parametrize(
    "quota",
    [
        ("web=0:10",),
        ("\u00e4=3", "math=1=10:", "*=:20"),
        ("code=50%", "chat=50%"),
        ('a "b" 100%=20%:30%', "web=:0"),
        ("web=10", "chat=10", "code=10", 'a "b" 100%=10', "math=1=15", "\u00e4=5"),
    ],
    ids=["greatest", "least", "shares", "none of the largest", "all fixed"],
)
def test_picks_under_quotas_are_the_oracles(world, engine, tmp_path, quota):
    settings = {"quota": quota, "first": "w004"}
    first_group = world[1][4]
    if not any(text.startswith(first_group) or text.startswith("*") for text in quota):
        settings["first"] = next(i for i, g in zip(world[0].ids, world[1], strict=True) if g == "code")
    found = engine(written(world, tmp_path / "in"), BUDGET, block_rows=350, group_column="group", **settings)
    assert_same(found, oracle_picks(world, BUDGET, **settings))


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_quality_and_quotas_together_with_copies_are_the_oracles(world, engine, tmp_path, duplicates):
    settings = {"quota": ("web=:12", "code=20:"), "quality_power": 2.0, "duplicates": duplicates, "first": "w002"}
    path = written(world, tmp_path / "in")
    found = engine(path, BUDGET, block_rows=300, group_column="group", quality_column="q", **settings)
    assert_same(found, oracle_picks(world, BUDGET, **settings))


def test_the_first_pick_comes_from_a_group_that_may_have_it(world, engine, tmp_path):
    path = written(world, tmp_path / "in")
    found = engine(path, 3, group_column="group", quota=("*=0", "math=1=3"))
    names = dict(zip(world[0].ids, world[1], strict=True))
    assert {names[pick] for pick in found.picks} == {"math=1"}
    first = next(id_ for id_, name in names.items() if name == "web")
    with pytest.raises(InputError, match="no room for its group"):
        engine(path, 3, group_column="group", quota=("*=0", "math=1=3"), first=first)


# --- samples selected before ------------------------------------------------------------------------------


@pytest.mark.parametrize("formula_", formula.FORMULAS)
def test_picks_after_ids_selected_before_are_the_oracles(world, engine, tmp_path, formula_):
    """Also for the id of a copy that was dropped: the candidate with its embedding stands for it."""
    path = written(world, tmp_path / "in")
    before = ["w001", "w000", "w444", "w680", "w017"]
    names = write_parquet_ids(tmp_path / "before.parquet", before)
    found = engine(path, 40, block_rows=350, already_selected=names, formula=formula_)
    places = kept(world, "drop")
    rows = sorted(
        {int(np.flatnonzero((world[0].vectors[places] == world[0].vectors[int(i[1:])]).all(1))[0]) for i in before}
    )
    assert_same(found, oracle_picks(world, 40, begun=rows, formula=formula_))


def write_parquet_ids(path, ids):
    pq.write_table(pa.table({"id": ids}), path)
    return str(path)


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_picks_after_samples_outside_the_pool_are_the_oracles(world, engine, tmp_path, duplicates):
    """Their neighbours are those in the pool. One with a candidate's id or, copies dropped, embedding is that one."""
    points = world[0]
    path = written(world, tmp_path / "in")
    rng = np.random.default_rng(5)
    outside = (points.vectors[rng.choice(700, 7)] + 0.5 * rng.normal(size=(7, 12))).astype(np.float32)
    ids = ["w003", *(f"z{i}" for i in range(7))]
    before = write_parquet(tmp_path / "before.parquet", ids, np.concatenate([points.vectors[3:4], outside]))
    found = engine(path, 40, block_rows=350, already_selected=before, duplicates=duplicates)

    places = kept(world, duplicates)
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


def test_ids_selected_before_that_are_not_found_are_named(world, engine, tmp_path):
    before = write_parquet_ids(tmp_path / "before.parquet", ["w001", "nobody", "another"])
    with pytest.raises(InputError, match=r"2 of the 3 ids .* \(first: 'another'\); give their embeddings"):
        engine(written(world, tmp_path / "in"), 5, already_selected=before)


def test_an_id_selected_before_with_another_embedding_is_refused(world, engine, tmp_path):
    before = write_parquet(tmp_path / "before.parquet", ["w005"], world[0].vectors[6:7])
    with pytest.raises(InputError, match=r"'w005' has one embedding in .* and another in --already-selected"):
        engine(written(world, tmp_path / "in"), 5, already_selected=before)


# --- what cannot be ---------------------------------------------------------------------------------------

GROUPS = {"a": 10, "b": 5, "c": 100}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["d=1"], "names the group 'd', of which there is no candidate; the groups are a, b, c"),
        (["b=6:"], "at least 6 picks of 'b', of which there are 5"),
        (["a=3:2"], "at least 3 and at most 2 picks of 'a'"),
        (["a=10", "c=40:"], "add up to 50, above --budget 40"),
        (["c=:20"], "may have 35 picks together"),
    ],
)
def test_quotas_that_cannot_be_met_are_refused_with_the_reason(texts, message):
    with pytest.raises(InputError, match=message):
        Quotas.of(texts, GROUPS, 40)


@pytest.mark.parametrize("text", ["a", "a=", "a=-1", "a=1:2:3", "a=x", "=", "a=1e3"])
def test_a_malformed_quota_is_refused(text):
    with pytest.raises(UsageError, match="must be GROUP=LEAST:MOST"):
        Quota.parse(text)


def test_shares_that_add_up_to_all_are_met_whatever_the_budget():
    quotas = Quotas.of(["a=33.3%", "b=33.3%", "c=33.4%"], {"a": 50, "b": 50, "c": 50}, 101)
    assert quotas.least.sum() <= 101 <= quotas.most.sum()


def test_a_bad_quality_is_a_bad_row(world, tmp_path):
    points, names, quality = world
    bad = quality.copy()
    bad[[3, 9]] = [-1, np.nan]
    path = written((points, names, bad), tmp_path / "in")
    arguments = ("--input", path, "--budget", 5, "--quality-column", "q", "--no-report")
    failed = run_job("curate", *arguments, "--output", tmp_path / "out")
    assert failed.returncode == 3
    assert re.search(r"2 row\(s\) .* quality", error_line(failed))
    done = run_job("curate", *arguments, "--output", tmp_path / "out", "--on-bad-rows", "drop")
    assert done.returncode == 0, done.stderr


@pytest.mark.more
def test_the_example_of_three_nights_grows_a_selection_as_the_oracle_does(oracle, tmp_path):
    """conf/three_nights.sh: a density state that takes in new files, and picks that go on after those before."""
    command = [ROOT / "conf" / "three_nights.sh", tmp_path / "nights", "20"]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    rows = ds.dataset(SAMPLE).to_table(["id", "embedding"]).combine_chunks()
    share, before = len(rows) // 3, []
    for night in (1, 2, 3):
        held = rows.slice(0, night * share).sort_by("id").combine_chunks()
        vectors = np.array(held.column("embedding").chunk(0).flatten()).reshape(len(held), -1)
        pool = Points(held.column("id").to_pylist(), vectors)
        distinct = pool.distinct()
        place = {vector.tobytes(): i for i, vector in enumerate(distinct.vectors + 0)}
        of_id = dict(zip(pool.ids, pool.vectors + 0, strict=True))
        found = pq.read_table(tmp_path / "nights" / f"selected-{night}" / "selected").column("id").to_pylist()
        if before:
            begun = sorted({place[of_id[id_].tobytes()] for id_ in before})
            sigma = formula.density(distinct.vectors, 10)
            expected = formula.novelselect(distinct.vectors, sigma, 20, None, begun=begun)
            assert found == [distinct.ids[i] for i in expected.picks]
        else:
            assert found == oracle(pool, 20).picks
        before += found
