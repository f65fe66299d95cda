"""Budgets of costs and distances to keep: picks are those of the formula, and end where nothing is left."""

import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from conftest import Outcome, Points, assert_same, write_parquet
from graded import FORMULAS, kept, plain_bounds, plain_may_have
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from novelsum import formula
from novelsum.amounts import CostBudget, Costs, at_most, exact_sum
from novelsum.errors import InputError, UsageError
from novelsum.rows import lot
from novelsum.selection import rounds

RNG = np.random.default_rng(3)
COSTS = {
    "tokens": RNG.integers(1, 400, 700).astype(np.int64),
    "fractions": RNG.choice([0.1, 0.2, 0.3, 0.7], 700),
    "apart": RNG.lognormal(0, 6, 700),
}
COSTS["tokens"][::35] = 7  # copies cost as much, or not
COSTS["tokens"][1::70] = 7


def written(graded, folder, cost):
    points, names, quality = graded
    folder.mkdir(parents=True)
    for number, part in enumerate(np.array_split(np.arange(len(points.ids)), 3)):
        columns = {"group": names[part].tolist(), "q": quality[part], "cost": cost[part]}
        ids = [points.ids[i] for i in part]
        write_parquet(folder / f"part-{number}.parquet", ids, points.vectors[part], **columns)
    return str(folder)


def expected(graded, cost, budget=None, begun=(), **given):
    """Picks by the formula alone, of settings as a run has them."""
    points, names, quality = graded
    places = kept(graded, given.get("duplicates", "drop"))
    vectors, names, quality, cost = points.vectors[places], names[places], quality[places], cost[places]
    most = budget or len(places)
    metric = given.get("metric", "cosine")
    limit = None
    if "cost_budget" in given:
        limit = CostBudget.parse(given["cost_budget"]).of_costs(sum(map(Fraction, cost.tolist())))
    bounds = {name: plain_bounds(given["quota"], name, most) for name in set(names)} if "quota" in given else {}
    held = {name: int((names == name).sum()) for name in bounds}

    def may_follow(picks):
        picked = {name: int((names[picks] == name).sum()) for name in bounds}
        return np.isin(names, [name for name in bounds if plain_may_have(name, picked, bounds, held, most)])

    first = given.get("first")
    if first is None and not begun:
        able = np.ones(len(places), bool) if limit is None else np.array([Fraction(c) <= limit for c in cost.tolist()])
        first = min((points.ids[place] for place in places[able]), key=lambda id_: lot(42, id_))
    found = formula.novelselect(
        vectors,
        formula.density(vectors, 10, formula=given.get("formula", "paper"), metric=metric),
        most,
        None if first is None else int(np.flatnonzero(places == points.ids.index(first))[0]),
        formula=given.get("formula", "paper"),
        metric=metric,
        begun=begun,
        quality=quality ** given["quality_power"] if "quality_power" in given else None,
        may_follow=may_follow if bounds else None,
        cost=cost,
        cost_budget=limit,
        cost_power=given.get("cost_power", 0.0),
        min_distance=given.get("min_distance", 0.0),
    )
    return Outcome([points.ids[places[i]] for i in found.picks], found.novelty.tolist(), {}, None)


def asked(given):
    """The settings with the columns that they need."""
    columns = {"quality_power": ("quality_column", "q"), "quota": ("group_column", "group")}
    columns |= dict.fromkeys(("cost_budget", "cost_power"), ("cost_column", "cost"))
    return {"block_rows": 350, **given, **dict(column for name, column in columns.items() if name in given)}


def assert_exact(graded, engine, folder, budget=None, cost="tokens", **given):
    found = engine(written(graded, folder, COSTS[cost][: len(graded[1])]), budget or 0, **asked(given))
    assert_same(found, expected(graded, COSTS[cost][: len(graded[1])], budget, **given))
    return found


DISTANCES = [
    ("paper", "cosine"),
    ("released", "euclidean"),
    *(
        pytest.param(*both, marks=pytest.mark.more)
        for both in (("paper", "euclidean"), ("released", "cosine"), ("symmetric", "cosine"))
    ),
]
# --- exact ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formula_", FORMULAS)
def test_picks_within_a_budget_of_costs_are_the_oracles(graded, engine, tmp_path, either_way, formula_):
    """Down to the last that fits, cheap ones after dear ones; the costs are those of the picks, to the last digit."""
    settings = {"formula": formula_, "cost_budget": "8k", "cost_power": 0.3}
    found = assert_exact(graded, engine, tmp_path / "in", **settings)
    spent = sum(int(COSTS["tokens"][int(id_[1:])]) for id_ in found.picks)
    assert found.effort.cost == spent <= 8000
    assert found.effort.ended_by == "cost"
    left = [COSTS["tokens"][place] for place in kept(graded, "drop") if graded[0].ids[place] not in found.picks]
    assert 8000 - spent < min(left)


@pytest.mark.parametrize(("formula_", "metric"), DISTANCES)
def test_picks_that_keep_a_distance_are_the_oracles(graded, engine, tmp_path, either_way, formula_, metric):
    settings = {"formula": formula_, "metric": metric, "min_distance": {"cosine": 0.3, "euclidean": 2.8}[metric]}
    found = assert_exact(graded, engine, tmp_path / "in", **settings)
    assert 20 < len(found.picks) < 300
    assert found.effort.ended_by == "distance"


ALL = {
    "all together": {
        "cost_budget": "20%",
        "min_distance": 0.2,
        "quality_power": 2.0,
        "quota": ("web=:30%", "code=20:"),
    },
    "fractions": {"cost": "fractions", "cost_budget": 3.3},
    "costs apart": {"cost": "apart", "cost_budget": "0.01%", "cost_power": 1.5},
}


@pytest.mark.parametrize("case", [*list(ALL)[:2], pytest.param("costs apart", marks=pytest.mark.more)])
def test_what_closes_candidates_closes_them_together(graded, engine, tmp_path, either_way, case):
    budget = 60 if "quota" in ALL[case] else None
    assert_exact(graded, engine, tmp_path / "in", budget, **ALL[case])


@pytest.mark.parametrize("distance", [1e-9, 1e-3])
def test_copies_of_picks_are_closed_however_near_they_are_kept(graded, engine, tmp_path, either_way, distance):
    """Float32 cannot tell whether a copy is that near: the driver does, by the formula."""
    points, names, quality = graded
    few = Points(points.ids[:150], points.vectors[:150].copy()), names[:150], quality[:150]
    few[0].vectors[50:100] = few[0].vectors[:50]
    found = assert_exact(few, engine, tmp_path / "in", duplicates="keep", min_distance=distance, first="w001")
    assert len(found.picks) == len(few[0].distinct().ids)


@pytest.mark.parametrize("metric", formula.METRICS)
def test_a_distance_that_many_have_exactly_is_far_enough(engine, tmp_path, either_way, metric):
    """Of a lattice: nearer than is allowed is decided as the formula does, not by float32 or by products."""
    axes = np.arange(6.0)
    lattice = np.stack(np.meshgrid(axes, axes, axes), axis=-1).reshape(-1, 3).astype(np.float32) + 1
    path = write_parquet(tmp_path / "in.parquet", [f"p{i:03d}" for i in range(len(lattice))], lattice)
    options = {"metric": metric, "duplicates": "drop", "neighbors": 4}
    distance = 2.0 if metric == "euclidean" else float(formula.distances(lattice[:1], lattice[7:8])[0, 0])
    found = engine(path, 0, block_rows=100, min_distance=distance, first="p000", **options)
    sigma = formula.density(lattice, 4, metric=metric)
    plain = formula.novelselect(lattice, sigma, len(lattice), 0, metric=metric, min_distance=distance)
    assert [int(id_[1:]) for id_ in found.picks] == plain.picks.tolist()
    d = formula.distances(lattice[plain.picks], lattice[plain.picks], metric)
    np.fill_diagonal(d, np.inf)
    if metric == "euclidean":
        assert d.min() == distance


def test_samples_selected_before_keep_their_distance_too_and_cost_nothing(graded, engine, tmp_path, either_way):
    before = ["w002", "w444", "w680"]
    (tmp_path / "before").mkdir()
    names = tmp_path / "before" / "ids.parquet"
    pa.parquet.write_table(pa.table({"id": before}), names)
    places = kept(graded, "drop")
    begun = sorted(int(np.flatnonzero(places == int(id_[1:]))[0]) for id_ in before)
    given = {"min_distance": 0.3, "cost_budget": "3k"}
    path = written(graded, tmp_path / "in", COSTS["tokens"])
    found = engine(path, 0, already_selected=str(names), **asked(given))
    assert_same(found, expected(graded, COSTS["tokens"], begun=begun, **given))


@pytest.mark.parametrize(
    ("capacity", "longest", "share"),
    [pytest.param(2, 256, 1, marks=pytest.mark.more), (8, 40, 1), pytest.param(64, 3, 16, marks=pytest.mark.more)],
)
def test_drafts_of_any_length_from_pools_of_any_size_give_the_same(
    graded, engine, tmp_path, monkeypatch, with_rounds, capacity, longest, share
):
    monkeypatch.setattr(rounds, "CAPACITY", capacity)
    monkeypatch.setattr(rounds, "LONGEST_DRAFT", longest)
    monkeypatch.setattr(rounds, "_DRAFT_SHARE", share)
    assert_exact(graded, engine, tmp_path / "in", min_distance=0.15, cost_budget="10k", cost_power=0.2)


@pytest.mark.exact
@pytest.mark.parametrize("formula_", formula.FORMULAS)
@pytest.mark.parametrize("metric", formula.METRICS)
@pytest.mark.parametrize("duplicates", ["drop", "keep"])
@pytest.mark.parametrize("closed_by", ["cost", "distance", "both"])
@pytest.mark.parametrize("others", ["alone", "quality and quotas"])
def test_every_combination_of_settings_gives_the_picks_of_the_formula(
    graded, engine, tmp_path, either_way, formula_, metric, duplicates, closed_by, others
):
    given = {"formula": formula_, "metric": metric, "duplicates": duplicates}
    if closed_by != "distance":
        given |= {"cost_budget": "12k", "cost_power": 0.5}
    if closed_by != "cost":
        given |= {"min_distance": {"cosine": 0.1, "euclidean": 1.5}[metric]}
    if others != "alone":
        given |= {"quality_power": 1.5, "quota": ("web=:25%", "math=1=5:", "*=3%:")}
    budget = None if others == "alone" else 90
    found = assert_exact(graded, engine, tmp_path / "in", budget, **given)
    shuffled = engine(
        written(graded, tmp_path / "again", COSTS["tokens"]), budget or 0, **{**asked(given), "block_rows": 90}
    )
    assert shuffled.picks == found.picks
    assert shuffled.novelty == pytest.approx(found.novelty, rel=1e-12, abs=0)


# --- ends and refusals ------------------------------------------------------------------------------------


def test_whichever_ends_first_ends_the_selection(graded, engine, tmp_path):
    path = written(graded, tmp_path / "in", COSTS["tokens"])
    ends = {}
    for budget, given in (
        (20, {"cost_budget": "8k", "min_distance": 0.1}),
        (200, {"cost_budget": "2k"}),
        (200, {"min_distance": 0.7}),
        (0, {"cost_budget": "100%"}),
    ):
        found = engine(path, budget, **asked(given))
        ends[found.effort.ended_by] = len(found.picks)
    assert (ends["budget"], ends["candidates"]) == (20, 680)
    assert ends["cost"] < 200 > ends["distance"]


def test_a_least_number_that_costs_leave_out_of_reach_is_told_and_not_refused(graded, engine, tmp_path, caplog):
    given = {"quota": ("math=1=10:",), "cost_budget": "1k"}
    found = engine(written(graded, tmp_path / "in", COSTS["tokens"]), 60, **asked(given))
    assert found.effort.ended_by == "cost"
    ((name, (picked, least)),) = found.effort.unmet.items()
    assert (name, least) == ("math=1", 10)
    assert f"before --quota was met: math=1 has {picked} of at least 10 picks" in caplog.text


def test_the_first_pick_fits_the_budget_or_is_refused(graded, engine, tmp_path):
    path = written(graded, tmp_path / "in", COSTS["tokens"])
    dear = graded[0].ids[int(np.flatnonzero(COSTS["tokens"] > 350)[0])]
    cheap = engine(path, 1, **asked({"cost_budget": 8}))
    assert COSTS["tokens"][int(cheap.picks[0][1:])] <= 8
    with pytest.raises(InputError, match="or it costs more than --cost-budget 300"):
        engine(path, 1, first=dear, **asked({"cost_budget": 300}))
    with pytest.raises(InputError, match=r"--cost-budget 0.5, which is 0.5, is below what any .* 'cost', at least 1;"):
        engine(path, 1, **asked({"cost_budget": 0.5}))


def test_where_nothing_is_left_after_samples_selected_before_the_run_says_so(graded, engine, tmp_path):
    path = written(graded, tmp_path / "in", COSTS["tokens"])
    with pytest.raises(InputError, match="nothing can be picked after the 680 samples of --already-selected"):
        engine(path, 0, already_selected=path, min_distance=0.01)


@pytest.mark.parametrize("bad", [None, math.nan, 0.0, -1.0, math.inf])
def test_a_cost_that_is_none_is_a_bad_row(graded, engine, tmp_path, bad):
    costs = [*COSTS["fractions"].tolist()]
    costs[5] = bad
    (tmp_path / "in").mkdir()
    path = write_parquet(tmp_path / "in" / "0.parquet", graded[0].ids, graded[0].vectors, cost=pa.array(costs))
    with pytest.raises(InputError, match=r"1 row.*have a null, infinite or no positive cost .first: id 'w005'"):
        engine(path, 0, **asked({"cost_budget": 1}))
    assert engine(path, 0, on_bad_rows="drop", **asked({"cost_budget": 1})).pool.bad_rows == {"bad cost": 1}


def test_a_power_of_costs_beyond_all_numbers_is_refused(graded, tmp_path, run_here):
    path = written(graded, tmp_path / "in", COSTS["apart"] * 1e-100)
    with pytest.raises(InputError, match=r"--cost-power 4 takes scores over costs of column 'cost', which are as low"):
        run_here("curate", input=path, output=str(tmp_path / "out"), budget=5, cost_column="cost", cost_power=4.0)


# --- amounts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("50M", 50_000_000),
        ("1.5k", 1500),
        ("2G", 2 * 10**9),
        (300, 300),
        (0.5, Fraction(1, 2)),
        ("5%", 50),
        ("1e3", 1000),
    ],
)
def test_a_budget_of_costs_is_an_amount_or_a_share(text, amount):
    assert CostBudget.parse(text).of_costs(Fraction(1000)) == amount


@pytest.mark.parametrize("text", ["0", "-1", "101%", "0%", "many", "5 M", "1m", "inf", "nan", "1e400", ""])
def test_a_malformed_budget_of_costs_is_refused(text):
    with pytest.raises(UsageError, match=r"--cost-budget must be an amount above 0 such as 50000, 1\.5k, 50M or 2G"):
        CostBudget.parse(text)


@settings(max_examples=100, deadline=None)
@drawn(st.lists(st.floats(min_value=5e-324, max_value=1e307), min_size=1, max_size=40), st.floats(0, 1))
def test_sums_of_costs_are_exact_and_no_more_picks_fit_than_is_said(costs, share):
    exact = [Fraction(cost) for cost in costs]
    assert exact_sum(np.array(costs)) == sum(exact)
    parts = [Costs.of(np.array(part)) for part in (costs[:7], costs[7:])]
    joined = Costs.joined(parts)
    assert joined == Costs.of(np.array(costs)) == Costs.from_json(joined.for_json())
    budget = Fraction(share) * joined.total
    fitting, spent = 0, Fraction(0)
    for cost in sorted(exact):
        spent += cost
        fitting += spent <= budget
    assert fitting <= joined.picks_within(budget) <= len(costs)
    least = at_most(budget)
    assert budget < math.nextafter(least, math.inf)
    assert least == math.inf or least <= budget
