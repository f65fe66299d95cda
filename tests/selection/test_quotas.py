"""Quality, quotas and samples selected before: the engine against the oracle, and what is refused."""

import math
from collections import Counter
from fractions import Fraction
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Points, write_parquet
from hypothesis import given, settings
from hypothesis import strategies as st

from novelsum import formula
from novelsum.errors import InputError, UsageError
from novelsum.selection.quotas import Quota, Quotas

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


def plain_bounds(quota, name, budget):
    """Least and greatest number of picks of a group, by the words of the README and by no code of the engine."""
    of_group = {text[: text.rindex("=")]: text[text.rindex("=") + 1 :] for text in quota}
    bounds = of_group.get(name, of_group.get("*"))
    if bounds is None:
        return 0, budget
    low, high = bounds.split(":") if ":" in bounds else (bounds, bounds)

    def picks(number):
        return Fraction(number[:-1]) * budget / 100 if number.endswith("%") else Fraction(number)

    return (math.floor(picks(low)) if low else 0), (math.ceil(picks(high)) if high else budget)


def plain_may_have(name, picked, bounds, held, budget):
    """Whether a group may have the next pick: whether the picks to go can be shared out after it, so that all have
    their least and none more than its greatest number or than it holds.
    """
    then = {group: picked[group] + (group == name) for group in bounds}
    lowest = {group: max(then[group], bounds[group][0]) for group in bounds}
    highest = {group: min(bounds[group][1], held[group]) for group in bounds}
    within = all(lowest[group] <= highest[group] for group in bounds)
    return within and sum(lowest.values()) <= budget <= sum(highest.values())


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
        held = {str(name): int((names == name).sum()) for name in names}
        bounds = {name: plain_bounds(quota, name, budget) for name in held}

        def may_follow(picks):
            picked = Counter(names[picks].tolist())
            return np.isin(names, [name for name in held if plain_may_have(name, picked, bounds, held, budget)])

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
def test_picks_by_quality_are_the_oracles(world, engine, tmp_path, either_way, formula_, quality_power):
    settings = {"formula": formula_, "quality_power": quality_power, "first": "w002"}
    found = engine(written(world, tmp_path / "in"), BUDGET, block_rows=350, quality_column="q", **settings)
    assert_same(found, oracle_picks(world, BUDGET, **settings))


@pytest.mark.parametrize(
    ("scale", "power"),
    [
        pytest.param(1.0, 927.0, id="near the limit"),
        pytest.param(0.05, 1000.0, id="all vanish", marks=pytest.mark.more),
    ],
)
def test_powers_of_quality_at_the_ends_of_numbers_give_the_oracles_picks(world, engine, tmp_path, scale, power):
    """Scores of 1e279 and more; and where all are 0, as when every quality is, the smallest id is next."""
    points, names, quality = world
    world = points, names, quality * scale
    settings = {"quality_power": power, "first": "w002"}
    found = engine(written(world, tmp_path / "in"), 30, block_rows=350, quality_column="q", **settings)
    assert_same(found, oracle_picks(world, 30, **settings))


@pytest.mark.parametrize(("scale", "power", "told"), [(1.0, 1100.0, "2"), (1e200, 1.5, r"2e\+200")])
def test_a_power_of_quality_beyond_all_numbers_is_refused_before_any_search(
    world, run_here, tmp_path, monkeypatch, scale, power, told
):
    """With the column, its largest value and what to do."""
    points, names, quality = world
    path = written((points, names, quality * scale), tmp_path / "in")
    monkeypatch.setattr("novelsum.pipeline.estimate_density", None)
    options = {"budget": 5, "quality_column": "q", "quality_power": power}
    with pytest.raises(InputError, match=f"qualities of column 'q', which are up to {told}, out of .*; use a smaller"):
        run_here("curate", input=path, output=str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.more
@pytest.mark.parametrize(
    "quota",
    [
        ("web=0:10",),
        ("\u00e4=3", "math=1=10:", "*=:20"),
        ("code=50.9%", "chat=49.1%", "web=:0.1%"),
        ('a "b" 100%=20%:30%', "web=:0"),
        ("web=10", "chat=10", "code=10", 'a "b" 100%=10', "math=1=15", "\u00e4=5"),
    ],
    ids=["greatest", "least", "shares", "none of the largest", "all fixed"],
)
def test_picks_under_quotas_are_the_oracles(world, engine, tmp_path, either_way, quota):
    settings = {"quota": quota, "first": "w004"}
    first_group = world[1][4]
    if not any(text.startswith(first_group) or text.startswith("*") for text in quota):
        settings["first"] = next(i for i, g in zip(world[0].ids, world[1], strict=True) if g == "code")
    found = engine(written(world, tmp_path / "in"), BUDGET, block_rows=350, group_column="group", **settings)
    assert_same(found, oracle_picks(world, BUDGET, **settings))


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_quality_and_quotas_together_with_copies_are_the_oracles(world, engine, tmp_path, either_way, duplicates):
    settings = {
        "quota": ("web=:19.1%", "code=34.9%:", "math=1=4"),
        "quality_power": 2.0,
        "duplicates": duplicates,
        "first": "w002",
    }
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
def test_picks_after_ids_selected_before_are_the_oracles(world, engine, tmp_path, either_way, formula_):
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
def test_picks_after_samples_outside_the_pool_are_the_oracles(world, engine, tmp_path, either_way, duplicates):
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


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=4),
    st.integers(1, 8),
    st.data(),
)
def test_a_group_is_open_where_some_way_to_the_end_goes_on_with_it(rows, budget, data):
    """By all ways to share out the picks, one after the other, from the first pick to the last."""
    names = [f"g{place}" for place in range(len(rows))]
    texts = [f"{name}={least}:{most}" for name, (least, most, _) in zip(names, rows, strict=True)]
    held = {name: candidates for name, (_, _, candidates) in zip(names, rows, strict=True)}
    ways = [
        way
        for way in product(*(range(least, min(most, candidates) + 1) for least, most, candidates in rows))
        if sum(way) == budget
    ]
    bounds = {name: plain_bounds(texts, name, budget) for name in names}
    if not ways:
        with pytest.raises(InputError):
            Quotas.of(texts, held, budget)
        return
    quotas, picked = Quotas.of(texts, held, budget), np.zeros(len(rows), np.int64)
    for left in range(budget, 0, -1):
        expected = [any(way[i] > picked[i] and np.all(way >= picked) for way in ways) for i in range(len(rows))]
        assert quotas.is_open(picked, left).tolist() == expected
        counted = Counter(dict(zip(names, picked.tolist(), strict=True)))
        assert [plain_may_have(name, counted, bounds, held, budget) for name in names] == expected
        picked[data.draw(st.sampled_from(np.flatnonzero(expected).tolist()))] += 1


@pytest.mark.parametrize(
    ("text", "bounds"), [("a=12.5%", (7, 8)), ("a=:19.1%", (0, 12)), ("a=34.9%:", (20, 60)), ("a=10%", (6, 6))]
)
def test_shares_are_rounded_apart(text, bounds):
    """Of 60: least ones down, greatest ones up, whole ones not at all."""
    assert Quota.parse(text).of_budget(60) == bounds


@pytest.mark.parametrize("text", ["a", "a=", "a=-1", "a=1:2:3", "a=x", "=", "a=1e3"])
def test_a_malformed_quota_is_refused(text):
    with pytest.raises(UsageError, match="must be GROUP=LEAST:MOST"):
        Quota.parse(text)


def test_shares_that_add_up_to_all_are_met_whatever_the_budget():
    quotas = Quotas.of(["a=33.3%", "b=33.3%", "c=33.4%"], {"a": 50, "b": 50, "c": 50}, 101)
    assert quotas.least.sum() <= 101 <= quotas.most.sum()


def test_a_bad_quality_is_a_bad_row(world, run_here, tmp_path):
    points, names, quality = world
    bad = quality.copy()
    bad[[3, 9]] = [-1, np.nan]
    path = written((points, names, bad), tmp_path / "in")
    options = {"input": path, "output": str(tmp_path / "out"), "budget": 5, "quality_column": "q", "report": False}
    with pytest.raises(InputError, match=r"2 row\(s\) .* quality"):
        run_here("curate", **options)
    run_here("curate", on_bad_rows="drop", **options)
    rejected = pq.read_table(tmp_path / "out" / "rejected").to_pylist()
    assert sorted((row["id"], row["reason"]) for row in rejected) == [("w003", "bad quality"), ("w009", "bad quality")]
