"""What a report says of how the picks were chosen holds for the strategy and the formula that chose them."""

import pytest

from novelsum.report.words import aim, measure, summary
from novelsum.settings import Settings


def data_of(selected=None, features=None, **settings):
    """The data of a report as far as its words need them."""
    of_settings = {**Settings(input="in", output="out", budget=40).for_manifest("curate"), **settings}
    medians = {"50%": 0.2}
    return {
        "settings": of_settings,
        "input": {
            "bad_rows": {"null id": 3},
            "duplicates_dropped": 2,
            "near_duplicates_dropped": 0,
            "input_rows": 1000,
            "candidates": 995,
            "dimension": 8,
        },
        "selected": {
            "picks": 40,
            "first": "x1",
            "seed": 42,
            "already_selected": 0,
            "began_with": [],
            "left_out": [],
            "unmet": {},
            "ended_by": "budget",
            **(selected or {}),
        },
        "novelty": {
            "verdict": "unknown",
            "flat_from_pick": None,
            "flat_below_growth": 0.05,
            "selected_before": (selected or {}).get("already_selected", 0),
            "first_and_last_tenth": [1.0, 1.0],
            "doublings": [{"pick": 40, "selected": 40, "growth": None}],
        },
        "density": {"selected_quantiles": medians, "pool_quantiles": medians},
        "density_estimate": {"method": "exact"},
        **dict.fromkeys(("quality", "cost", "quotas", "groups", "comparison")),
        **(features or {}),
    }


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("k-means", ["K-means chose <b>40</b>", "nearest to a centroid", "First centroids were drawn"]),
        (
            "farthest-first",
            ["Farthest-first chose <b>40</b>", "the greatest distance to the nearest sample", "drawn by seed 42"],
        ),
        (
            "random",
            [
                "A random draw chose <b>40</b>",
                "drawn by the seed from all candidates left, whatever its embedding",
                "The seed was 42",
            ],
        ),
    ],
)
def test_another_strategy_is_not_said_to_be_novelselect(strategy, says):
    found = summary(data_of(strategy=strategy))
    for words in says:
        assert words.lower() in found.lower()
    assert "NovelSelect chose" not in found
    assert "greatest novelty" not in found
    assert "it chose no pick" in found
    assert "does not look at NovelSum" in aim(data_of(strategy=strategy))


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("novelselect", "the greatest v(x)·q<sup>2</sup>/cost, v(x) being its novelty, of the candidates where"),
        ("k-means", "candidates weigh q<sup>2</sup>/cost in the centroids, and distances are divided by it."),
        ("farthest-first", "Each pick has the greatest distance·q<sup>2</sup>/cost to the nearest sample"),
        ("random", "with a chance in proportion to q<sup>2</sup>/cost."),
    ],
)
def test_quality_cost_and_limits_are_told_with_each_strategy(strategy, says):
    asked = {"quality_column": "q", "quality_power": 2.0, "cost_column": "c", "cost_power": 1.0, "cost_budget": 9}
    features = {name: {"selected_mean": 1.0, "pool_mean": 0.5, "selected": 8.0} for name in ("quality", "cost")}
    found = summary(data_of(features=features, strategy=strategy, quota=("a=1",), **asked))
    assert says in found
    assert "the candidates where its group may have another by the quotas and its cost still fits" in found


def test_the_first_pick_is_drawn_given_or_chosen():
    assert "The first pick, <bdi>x1</bdi>, was drawn by seed 42." in summary(data_of())
    assert "The first pick, <bdi>x1</bdi>, was given." in summary(data_of(first="x1"))
    before = data_of({"already_selected": 7, "began_with": ["/a/1", "/a/2"]}, already_selected="/a/*")
    found = summary(before)
    assert "was chosen against the samples selected before" in found
    assert "drawn" not in found
    assert "S held 7 samples at the first pick, the picks of 2 selections (" in found


def test_a_run_without_features_tells_of_none():
    found = summary(data_of())
    assert "<ul" not in found
    assert "1,000 rows, of which 3 null id, 2 duplicates were set aside." in found
    assert "Each pick has the greatest novelty v(x) of all candidates left" in found


@pytest.mark.parametrize(
    ("formula", "power", "says"),
    [
        ("paper", 0.5, "does not choose for the greatest NovelSum: the published v(x)"),
        ("released", 0.5, "does not choose for the greatest NovelSum here: the released code"),
        ("released", 0.0, "does not choose for the greatest NovelSum here: the released code"),
        ("symmetric", 0.5, "v(x) is by how much x raises NovelSum"),
        ("paper", 0.0, "v(x) is half of what x adds to NovelSum"),
    ],
)
def test_what_novelselect_has_to_do_with_novelsum_hangs_on_the_formula(formula, power, says):
    assert says in aim(data_of(formula=formula, density_power=power))


@pytest.mark.parametrize(
    ("formula", "named"),
    [("paper", "NovelSum"), ("released", "NovelSum"), ("symmetric", "NovelSum by the published equation")],
)
def test_novelsum_is_named_by_its_formula_where_that_is_another(formula, named):
    assert measure(data_of(formula=formula)) == named


def test_the_verdict_of_a_comparison_comes_last():
    found = summary(data_of(features={"comparison": {"verdict": "k-means has <more>."}}))
    assert found.endswith("<b>Against other strategies</b>: k-means has &lt;more&gt;.</p>")


def test_what_else_was_heeded_is_said_to_take_novelsum():
    with_quota = data_of(quota=("a=1:2",))
    assert "What else was to be heeded, quotas, takes some of it." in aim(with_quota)
    assert "heeded" not in aim(data_of())


@pytest.mark.parametrize(
    ("ended_by", "says"),
    [
        ("budget", None),
        ("cost", "nothing that was left could still be paid"),
        ("distance", "every candidate left was nearer than 0.3 to a sample selected"),
        ("candidates", "no candidate was left"),
    ],
)
def test_what_ended_the_selection_is_told(ended_by, says):
    found = summary(data_of({"ended_by": ended_by}, min_distance=0.3))
    assert ("It ended after 40 picks" in found) == (says is not None)
    assert says is None or says in found


def test_an_exact_density_is_not_called_approximate_and_a_given_one_is_told():
    assert "approximate" not in summary(data_of())
    given = data_of(features={"density_estimate": {"method": "given"}}, density="/density/1")
    assert "were given, by <bdi>/<wbr>density/<wbr>1</bdi>." in summary(given)


def test_hostile_names_are_escaped():
    name = "</b><script>alert(1)</script>"
    found = summary(
        data_of(
            {"first": name, "already_selected": 3, "began_with": [name]},
            {"quality": {"selected_mean": 1.0, "pool_mean": 0.5}},
            input=name,
            quality_column=name,
            already_selected=name,
        )
    )
    assert "<script" not in found
    assert found.count("script") == 2 * 4
