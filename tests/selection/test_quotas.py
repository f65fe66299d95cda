"""Quotas of groups: picks under them are those of the formula, and what cannot be met is refused."""

from collections import Counter
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import assert_same, write_parquet
from graded import BUDGET, kept, oracle_picks, plain_bounds, plain_may_have, written
from hypothesis import given, settings
from hypothesis import strategies as st

from novelsum import pipeline
from novelsum.amounts import Quota
from novelsum.errors import InputError, UsageError
from novelsum.files.source import open_source
from novelsum.selection.quotas import Quotas
from novelsum.settings import Settings

RNG = np.random.default_rng(15)
VECTORS = RNG.normal(size=(30, 4)).astype(np.float32)
IDS = [f"c{i:02d}" for i in range(30)]


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
def test_picks_under_quotas_are_the_oracles(graded, engine, tmp_path, either_way, quota):
    settings = {"quota": quota, "first": "w004"}
    first_group = graded[1][4]
    if not any(text.startswith(first_group) or text.startswith("*") for text in quota):
        settings["first"] = next(i for i, g in zip(graded[0].ids, graded[1], strict=True) if g == "code")
    found = engine(written(graded, tmp_path / "in"), BUDGET, block_rows=350, group_column="group", **settings)
    assert_same(found, oracle_picks(graded, BUDGET, **settings))


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_quality_and_quotas_together_with_copies_are_the_oracles(graded, engine, tmp_path, either_way, duplicates):
    settings = {
        "quota": ("web=:19.1%", "code=34.9%:", "math=1=4"),
        "quality_power": 2.0,
        "duplicates": duplicates,
        "first": "w002",
    }
    path = written(graded, tmp_path / "in")
    found = engine(path, BUDGET, block_rows=300, group_column="group", quality_column="q", **settings)
    assert_same(found, oracle_picks(graded, BUDGET, **settings))


def test_the_first_pick_comes_from_a_group_that_may_have_it(graded, engine, tmp_path):
    path = written(graded, tmp_path / "in")
    found = engine(path, 3, group_column="group", quota=("*=0", "math=1=3"))
    names = dict(zip(graded[0].ids, graded[1], strict=True))
    assert {names[pick] for pick in found.picks} == {"math=1"}
    first = next(id_ for id_, name in names.items() if name == "web")
    with pytest.raises(InputError, match="no room for its group"):
        engine(path, 3, group_column="group", quota=("*=0", "math=1=3"), first=first)


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


BY_FOOTERS = [
    (["z=1"], "of which there is no candidate; the values of the column lie from a to c, x to y"),
    (["m=1"], "of which there is no candidate; the values of the column lie from a to c, x to y"),
    (["x=5:"], "at least 5 picks of 'x', of which there are at most 4 candidates"),
    (["a=3:2"], "at least 3 and at most 2 picks of 'a'"),
    (["a=6:", "b=5:"], "add up to 11, above --budget 10"),
]


@pytest.mark.parametrize(("quota", "message"), BY_FOOTERS, ids=[" ".join(quota) for quota, _ in BY_FOOTERS])
def test_quotas_that_footers_rule_out_are_refused_before_spark_starts(tmp_path, monkeypatch, quota, message):
    """By the bounds of each row group: a to c in 16 rows, x to y in 4; without them any group may be there."""
    monkeypatch.setattr("novelsum.spark.session.start", None)
    vectors = np.ones((20, 2), np.float32)
    groups = [*"abcc" * 4, *"xxyy"]
    (tmp_path / "in").mkdir()
    write_parquet(tmp_path / "in" / "1.parquet", list(range(16)), vectors[:16], group=groups[:16])
    write_parquet(tmp_path / "in" / "2.parquet", list(range(16, 20)), vectors[16:], group=groups[16:])
    options = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out"), "budget": 10, "neighbors": 3}
    with pytest.raises(InputError, match=message):
        pipeline.run("curate", Settings(quota=tuple(quota), group_column="group", **options))


def test_groups_are_not_ruled_out_where_footers_do_not_tell(tmp_path):
    """Numbers, and texts without statistics. A folder's value is known, and null is none."""
    vectors, path = np.ones((4, 2), np.float32), tmp_path / "in.parquet"
    table = pa.table({"id": range(4), "embedding": list(vectors), "n": range(4), "g": [*"abcd"]})
    pq.write_table(table, path, write_statistics=["id", "n"])
    for column in ("n", "g"):
        assert [span.may_hold("7") for span in open_source(str(path), "id", "embedding", about=column).spans] == [True]
    for folder in ("g=1", "g=__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / "parts" / folder).mkdir(parents=True)
        pq.write_table(table.drop(["g"]), tmp_path / "parts" / folder / "0.parquet")
    (span,) = open_source(str(tmp_path / "parts"), "id", "embedding", about="g").spans
    assert (span.rows, span.may_hold("1"), span.may_hold("2")) == (4, True, False)


def test_a_share_of_the_candidates_gives_the_oracles_first_picks(graded, engine, tmp_path):
    """Of the 680 candidates, not of the 700 rows: 8.9% are 60 picks, of which quotas have their shares."""
    candidates = len(kept(graded, "drop"))
    assert (candidates * 89 // 1000, 700 * 89 // 1000) == (60, 62)
    settings = {"quota": ("web=:19.1%", "code=34.9%:"), "first": "w002"}
    found = engine(written(graded, tmp_path / "in"), "8.9%", block_rows=350, group_column="group", **settings)
    assert_same(found, oracle_picks(graded, BUDGET, **settings))


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


def test_a_quota_names_no_rows_without_a_group_but_all_others_are_among_them(engine, tmp_path):
    """The first pick too is drawn from the groups that may have it."""
    column = [None, "None", "a"] * 10
    path = write_parquet(tmp_path / "in.parquet", IDS, VECTORS, kind=pa.array(column))
    kind = dict(zip(IDS, column, strict=True))
    options = {"neighbors": 3, "group_column": "kind", "block_rows": 8}
    picks = engine(path, 12, quota=("None=2", "a=3", "*=7"), **options).picks
    assert [[kind[id_] for id_ in picks].count(group) for group in ("None", "a", None)] == [2, 3, 7]
    picks = engine(path, 5, quota=("None=0", "a=0"), **options).picks
    assert {kind[id_] for id_ in picks} == {None}
    with pytest.raises(InputError, match=r"names the group 'none', .* the groups are None, a, \(no group\)"):
        engine(path, 5, quota=("none=1",), **options)
    with pytest.raises(InputError, match=r"at least 11 picks of \(no group\), of which there are 10 candidates"):
        engine(path, 12, quota=("*=11:", "a=0:", "None=0:"), **options)
