"""The comparison of a selection with those of other strategies, under the same rules; and what follows from it."""

import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLE, Points, error_line, run_job, write_parquet

from novelsum import formula
from novelsum.settings import Settings
from novelsum.strategies.compare import print_comparison
from novelsum.strategies.verdict import verdict

SEEDS = range(42, 47)


def manifest_of(output):
    return json.loads((output / "_MANIFEST.json").read_text())


@pytest.fixture(scope="module")
def pool(graded, tmp_path_factory):
    """Parquet with groups, qualities and costs, the places of its candidates, and the path."""
    points, names, quality = graded
    cost = np.random.default_rng(5).integers(1, 9, len(quality)).astype(float)
    path = tmp_path_factory.mktemp("in") / "in.parquet"
    write_parquet(path, points.ids, points.vectors, group=names.tolist(), q=quality, cost=cost)
    places = np.sort(np.unique(points.vectors, axis=0, return_index=True)[1])
    return path, points.vectors[places], names[places], quality[places], cost[places], [points.ids[i] for i in places]


def measures(pool, picks, begun=(), metric="cosine"):
    """Of the picks and samples selected before, by the formula alone."""
    _, vectors, names, quality, cost, _ = pool
    members = np.array(sorted({*picks, *begun}))
    d = formula.distances(vectors[members], vectors[members], metric)
    found = {}
    for name in ("paper", "released"):
        sigma = formula.density(vectors, 10, formula=name, metric=metric)[members]
        found[name] = formula.novelsum(d, sigma, formula=name).mean
    np.fill_diagonal(d, np.inf)
    found["nearest"] = d.min(axis=1).mean()
    found["coverage"] = formula.distances(vectors, vectors[members], metric).min(axis=1).mean()
    found["quality"], found["cost"] = quality[picks].mean(), cost[picks].sum()
    found["by_group"] = dict(Counter(names[picks].tolist()))
    return found


RULES = {
    "quality_column": "q",
    "group_column": "group",
    "quota": ("chat=5:8", "code=:3", "*=:60%"),
    "cost_column": "cost",
    "cost_power": 0.5,
    "neighbors": 10,
}


@pytest.mark.more
@pytest.mark.parametrize(("asked", "metric"), [("paper", "cosine"), ("released", "euclidean"), ("symmetric", "cosine")])
def test_all_strategies_obey_the_rules_of_the_selection_and_are_measured_as_the_formulas_say(
    pool, run_here, tmp_path, asked, metric
):
    """Each against a run of its own with that strategy; samples selected before count as part of each."""
    path, vectors, names, _, _, ids = pool
    begun, budget = [2, 40, 333], 30
    write_parquet(tmp_path / "before.parquet", [ids[i] for i in begun], vectors[begun])
    given = {"input": str(path), "budget": budget, "formula": asked, "metric": metric, "report": False, **RULES}
    given["already_selected"] = str(tmp_path / "before.parquet")
    output = tmp_path / "out"
    run_here("curate", output=str(output), compare=True, **given)
    comparison = manifest_of(output)["comparison"]
    found = comparison["strategies"]
    assert (comparison["left_out"], list(found)) == ({}, ["novelselect", "random", "farthest-first", "k-means"])
    assert [one["own"] for one in found.values()] == [True, False, False, False]
    assert (comparison["already_selected"], comparison["covered_candidates"]) == (3, len(vectors))
    alone = {}
    for strategy, seed in [*((name, 42) for name in found if name != "random"), *(("random", seed) for seed in SEEDS)]:
        folder = tmp_path / f"{strategy}-{seed}"
        run_here("curate", output=str(folder), strategy=strategy, seed=seed, **given)
        picks = [ids.index(id_) for id_ in pq.read_table(folder / "selected").column("id").to_pylist()]
        counts = Counter(names[picks].tolist())
        assert 5 <= counts["chat"] <= 8
        assert counts["code"] <= 3
        assert not set(picks) & set(begun)
        alone.setdefault(strategy, []).append(measures(pool, picks, begun, metric))
    for strategy, one in found.items():
        for name in ("paper", "released"):
            of_each = [of_run[name] for of_run in alone[strategy]]
            assert one["novelsum"][name]["mean"] == pytest.approx(np.mean(of_each), rel=1e-9)
            assert one["novelsum"][name]["sum"] == pytest.approx(np.mean(of_each) * (budget + 3), rel=1e-9)
            if strategy == "random":
                assert one["spread"][f"novelsum_{name}"] == pytest.approx(np.std(of_each, ddof=1), rel=1e-9)
        for key, name in (
            ("mean_nearest_distance", "nearest"),
            ("coverage", "coverage"),
            ("mean_quality", "quality"),
            ("cost", "cost"),
        ):
            assert one[key] == pytest.approx(np.mean([of_run[name] for of_run in alone[strategy]]), rel=1e-9), key
        wanted = sum((Counter(of_run["by_group"]) for of_run in alone[strategy]), Counter())
        assert one["by_group"] == pytest.approx({k: n / len(alone[strategy]) for k, n in wanted.items()})
        assert one["groups"] == np.mean([len(of_run["by_group"]) for of_run in alone[strategy]])
        assert one["picks"] == budget


@pytest.mark.more
def test_samples_outside_the_pool_and_a_budget_of_costs_count_too(pool, run_here, tmp_path):
    """Random picks are of those that fit in what is left; a strategy may pick more or fewer than another."""
    path, vectors, _, _, cost, _ = pool
    outside = np.random.default_rng(1).normal(size=(4, vectors.shape[1])).astype(np.float32)
    write_parquet(tmp_path / "before.parquet", [f"outside-{i}" for i in range(4)], outside)
    output = tmp_path / "out"
    given = {"cost_column": "cost", "cost_budget": 60, "cost_power": 0.5, "strategy": "farthest-first"}
    given["already_selected"] = str(tmp_path / "before.parquet")
    run_here("curate", input=str(path), output=str(output), compare=True, **given)
    comparison = manifest_of(output)["comparison"]
    found = comparison["strategies"]
    assert [name for name, one in found.items() if one["own"]] == ["farthest-first"]
    for one in found.values():
        assert 60 - cost.max() < one["cost"] <= 60
    picked = pq.read_table(output / "selected").column("id").to_pylist()
    picks = [pool[5].index(id_) for id_ in picked]
    every = np.concatenate([vectors, outside])
    corpus = formula.distances(every, vectors)
    members = [*sorted(picks), *range(len(vectors), len(every))]
    sigma = []
    for one in members:
        others = np.delete(corpus[one], one) if one < len(vectors) else corpus[one]
        sigma.append(1 / np.sort(others)[:10].sum())
    d = formula.distances(every[members], every[members])
    wanted = formula.novelsum(d, np.array(sigma))
    assert found["farthest-first"]["novelsum"]["paper"]["mean"] == pytest.approx(wanted.mean, rel=1e-9)
    assert "picks, and mean NovelSum grows with their number" in comparison["verdict"]
    assert "selections under the same rules" not in comparison["verdict"]
    page = (output / "report.html").read_text()
    assert "Samples selected before count as part of each selection" in page


@pytest.mark.more
def test_a_random_selection_is_one_of_those_that_are_drawn(pool, run_here, tmp_path):
    output = tmp_path / "out"
    run_here("curate", input=str(pool[0]), output=str(output), budget=20, strategy="random", compare=True, seed=7)
    found = manifest_of(output)["comparison"]["strategies"]["random"]
    assert (found["own"], found["selections"]) == (True, 5)


@pytest.mark.more
@pytest.mark.parametrize("strategy", ["k-means", "random", "farthest-first"])
def test_a_strategy_has_the_outputs_of_a_selection_and_is_not_done_twice(tmp_path, strategy):
    """By the real command line."""
    output = tmp_path / "out"
    arguments = ["--input", SAMPLE, "--output", output, "--budget", "2%", "--strategy", strategy]
    arguments += ["--group-column", "group", "--text-column", "text", "--quota", "wordnet=:10%"]
    done = run_job("curate", *arguments, "--export", tmp_path / "chosen.jsonl", "--map")
    assert done.returncode == 0, done.stderr
    table, manifest = pq.read_table(output / "selected"), manifest_of(output)
    assert table.column("pick").to_pylist() == list(range(1, 56))
    assert table.column("group").to_pylist().count("wordnet") <= 6
    assert (manifest["settings"]["strategy"], manifest["selected"]["strategy"]) == (strategy, strategy)
    assert manifest["selected"]["ended_by"] == "budget"
    assert {path.name for path in output.iterdir()} >= {"selected", "report.html", "report.json", "map", "metrics.json"}
    assert len((tmp_path / "chosen.jsonl").read_text().splitlines()) == 55
    page = (output / "report.html").read_text()
    for words in ("Where returns flatten", "growth over half as many", "returns are read from doublings"):
        assert (words in page) == (strategy != "k-means"), words
    again = run_job("curate", *arguments, "--map")
    assert "there is nothing to do" in again.stderr


def test_kmeans_has_no_first_pick_and_needs_a_number_of_centroids(tmp_path):
    given = ["--input", SAMPLE, "--output", tmp_path / "out", "--strategy", "k-means"]
    done = run_job("curate", *given, "--budget", 5, "--first", "x")
    assert (done.returncode, "leave --first out" in error_line(done)) == (2, True)
    done = run_job("curate", *given, "--min-distance", 0.5)
    assert (done.returncode, "say how many by --budget or --cost-budget" in error_line(done)) == (2, True)


# --- the verdict ------------------------------------------------------------------------------------------


def strategies(own="novelselect", **novelsum):
    """Measures of strategies as a manifest has them; random ones have a spread of 0.1."""
    found = {}
    for name, mean in novelsum.items():
        strategy = name.replace("farthest", "farthest-first").replace("kmeans", "k-means")
        found[strategy] = {
            "own": strategy == own,
            "picks": 10,
            "novelsum": {"paper": {"mean": mean, "sum": 10 * mean}},
            "mean_nearest_distance": 0.8 if strategy == "farthest-first" else 0.5,
            "coverage": 0.3 if strategy == "k-means" else 0.5,
            "seconds": 1.0,
        }
    if "random" in found:
        found["random"] |= {"spread": {"novelsum_paper": 0.1}, "selections": 5}
    return found


def test_the_verdict_names_the_leader_and_what_to_do():
    said = verdict(strategies(novelselect=2.0, random=1.0, kmeans=2.5, farthest=1.5), Settings())
    assert said.startswith(
        "By NovelSum (paper) k-means leads with a mean of 2.5, 25.0% above this selection by NovelSelect (2)"
    )
    assert (
        "NovelSelect is 100.0% above what chance gives, and beyond its range (1 ± 0.1 in 5 random selections, so that "
        "another may have up to 1.304)" in said
    )
    assert "k-means covers the pool best and farthest-first keeps its picks farthest apart" in said
    assert "take --strategy k-means, or --formula symmetric, which selects for it, instead." in said


def test_the_verdict_of_a_selection_that_leads_is_to_keep_it():
    said = verdict(strategies(novelselect=2.0, random=1.0, kmeans=1.6), Settings(formula="symmetric"))
    assert said.startswith(
        "By NovelSum (paper) this selection by NovelSelect leads with a mean of 2, 25.0% above k-means (1.6)"
    )
    assert said.endswith(": keep it where NovelSum is what you want.")


def test_the_verdict_says_where_a_selection_cannot_be_told_from_chance():
    said = verdict(strategies(novelselect=1.3, random=1.0, kmeans=1.6), Settings())
    assert "by this measure NovelSelect cannot be told from chance (1 ± 0.1 in 5 random selections, so" in said
    assert said.endswith("take --strategy k-means, or --formula symmetric, which selects for it, instead.")
    said = verdict(strategies(novelselect=0.6, random=1.0, kmeans=1.6), Settings())
    assert "NovelSelect is 40.0% below what chance gives" in said


@pytest.mark.parametrize("own", ["novelselect", "k-means", "random"])
def test_where_not_even_the_leader_is_above_chance_nothing_is_said_to_gain(own):
    said = verdict(strategies(own, novelselect=1.2, random=1.0, kmeans=1.1), Settings())
    assert ": no strategy is shown to gain NovelSum here, so choose by coverage, distances or cost" in said
    assert "keep it" not in said
    assert "instead" not in said
    assert ("--formula symmetric" in said) == (own == "novelselect")


def test_what_is_left_out_is_printed_with_its_reason(capsys):
    comparison = {
        "strategies": strategies(novelselect=1.3, random=1.0),
        "left_out": {"k-means": "no room"},
        "verdict": "So.",
    }
    print_comparison(comparison)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "selections under the same rules"
    assert lines[-2:] == ["k-means is left out: no room", "So."]


@pytest.mark.more
@pytest.mark.parametrize(
    ("method", "density_power", "leader"),
    [("paper", 0.0, "novelselect"), ("paper", 0.5, "k-means"), ("symmetric", 0.5, "novelselect")],
)
def test_who_leads_on_the_sample(tmp_path, method, density_power, leader):
    """Without σ NovelSelect leads; with it k-means does, as the gain of the published NovelSelect leaves out the
    candidate's own σ, while NovelSum counts it in every other row. The symmetric formula does not, and leads.
    """
    output = tmp_path / "out"
    arguments = ("--input", SAMPLE, "--output", output, "--budget", 60, "--density-power", density_power)
    done = run_job("curate", *arguments, "--formula", method, "--compare")
    assert done.returncode == 0, done.stderr
    manifest = manifest_of(output)
    found = manifest["comparison"]["strategies"]
    assert max(found, key=lambda name: found[name]["novelsum"]["paper"]["sum"]) == leader
    assert max(found, key=lambda name: found[name]["mean_nearest_distance"]) == "farthest-first"
    assert min(found, key=lambda name: found[name]["coverage"]) == "k-means"
    assert manifest["comparison"]["verdict"] in done.stdout
    assert found["novelselect"]["seconds"] == manifest["seconds"]["selection"]
    assert manifest["seconds"]["compare"] < manifest["seconds"]["total"]


@pytest.mark.more
def test_a_strategy_goes_on_after_a_cut_and_with_a_greater_budget(run_here, tmp_path, monkeypatch):
    """Farthest-first from its log and from its result; k-means from its centroids."""
    from novelsum.strategies import farthest, kmeans

    monkeypatch.setattr(farthest, "_LOGGED_AT_ONCE", 1)
    monkeypatch.setattr(farthest, "_REPORTED", 1)
    vectors = np.random.default_rng(3).normal(size=(300, 8)).astype(np.float32)
    path = Points([f"p{i:03d}" for i in range(300)], vectors).write(tmp_path / "in")
    given = {"input": path, "report": False, "block_rows": 40}

    def ids(name):
        return pq.read_table(tmp_path / name / "selected").column("id").to_pylist()

    for strategy, place in (("farthest-first", (farthest, "_certain")), ("k-means", (kmeans, "_keep"))):
        run_here("curate", output=str(tmp_path / f"{strategy}-fresh"), budget=60, strategy=strategy, **given)
        with monkeypatch.context() as patched:
            module, name = place
            whole, calls = getattr(module, name), []

            def cut(*arguments, whole=whole, calls=calls):
                calls.append(arguments)
                if len(calls) > 1:
                    raise KeyboardInterrupt
                return whole(*arguments)

            patched.setattr(module, name, cut)
            with pytest.raises(KeyboardInterrupt):
                run_here("curate", output=str(tmp_path / strategy), budget=60, strategy=strategy, **given)
        run_here("curate", output=str(tmp_path / strategy), budget=60, strategy=strategy, **given)
        assert ids(strategy) == ids(f"{strategy}-fresh")
    resumed = manifest_of(tmp_path / "farthest-first")["selected"]["resumed_picks"]
    assert resumed > 0
    run_here("curate", output=str(tmp_path / "farthest-first"), budget=80, strategy="farthest-first", **given)
    selected = manifest_of(tmp_path / "farthest-first")["selected"]
    assert (ids("farthest-first")[:60], selected["resumed_picks"]) == (ids("farthest-first-fresh"), 60)
