"""Selections by other strategies than NovelSelect: each against plain NumPy, under all rules and for any layout."""

import math
from fractions import Fraction

import numpy as np
import pytest
from conftest import Outcome, Points, write_parquet
from graded import plain_bounds, plain_may_have

from novelsum import formula
from novelsum.amounts import CostBudget
from novelsum.rows import lot
from novelsum.strategies import farthest, kmeans, lots

COST = np.random.default_rng(3).integers(1, 400, 700).astype(np.int64)
RULES = {
    "none": {},
    "quality": {"quality_column": "q", "quality_power": 2.0},
    "quotas": {"group_column": "group", "quota": ("chat=10:12", "code=:3", "math=1=2", "*=:40%")},
    "costs": {"cost_column": "cost", "cost_budget": 4000, "cost_power": 0.5},
    "distance": {"min_distance": 0.12},
}
RULES["all"] = {name: value for rule in RULES.values() for name, value in rule.items()}
STRATEGIES = ["random", "farthest-first", "k-means"]
QUICKEST = ("none", "euclidean", True)
"""Rules, metric and whether samples were selected before, of the case in the default suite."""


class Plain:
    """Candidates in the order of ids, and what closes them, by no code of the engine's."""

    def __init__(self, graded, budget, begun, metric="cosine", **rules):
        points, names, quality = graded
        places = np.sort(np.unique(points.vectors, axis=0, return_index=True)[1])
        self.ids = [points.ids[place] for place in places]
        self.vectors, self.names, self.cost = points.vectors[places], names[places], COST[places]
        self.points, self.metric, self.begun = formula.metric_space(self.vectors, metric), metric, begun
        self.q = np.ones(len(places))
        if "quality_column" in rules:
            self.q = quality[places] ** rules["quality_power"]
        if "cost_power" in rules:
            self.q = self.q / self.cost ** rules["cost_power"]
        self.budget, self.distance = budget, rules.get("min_distance", 0.0)
        self.limit = None
        if "cost_budget" in rules:
            total = sum(map(Fraction, self.cost.tolist()))
            self.limit = CostBudget.parse(rules["cost_budget"]).of_costs(total)
        self.bounds = (
            {str(name): plain_bounds(rules["quota"], name, budget) for name in set(names)} if "quota" in rules else {}
        )
        self.held = {name: int((self.names == name).sum()) for name in self.bounds}

    def apart(self, one, picks):
        among = [*self.begun, *picks]
        return formula.from_squared(formula.squared_distances(self.points[[one]], self.points[among])[0], self.metric)

    def is_open(self, one, picks):
        picked = {name: int((self.names[picks] == name).sum()) for name in self.bounds}
        left = None if self.limit is None else self.limit - sum(map(Fraction, self.cost[picks].tolist()))
        return (
            one not in picks
            and one not in self.begun
            and len(picks) < self.budget
            and (not self.bounds or plain_may_have(self.names[one], picked, self.bounds, self.held, self.budget))
            and (left is None or self.cost[one] <= left)
            and not (self.distance and (self.apart(one, picks) < self.distance).any())
        )

    def lots(self, seed, able=None):
        """In the order of the lots."""

        def when(place):
            drawn = lot(seed, self.ids[place])
            uniform = int.from_bytes(drawn[:8], "big") / 2**64
            return (-math.log1p(-uniform) / self.q[place] if self.q[place] else math.inf, drawn)

        return sorted(range(len(self.ids)), key=when)

    def random(self, seed=42):
        picks = []
        for one in self.lots(seed):
            if self.is_open(one, picks):
                picks.append(one)
        return picks

    def farthest_first(self):
        picks = []
        if not self.begun:
            picks.append(
                min((i for i in range(len(self.ids)) if self.is_open(i, [])), key=lambda i: lot(42, self.ids[i]))
            )
        while True:
            able = [one for one in range(len(self.ids)) if self.is_open(one, picks)]
            if not able:
                return picks
            picks.append(max(able, key=lambda one: (self.apart(one, picks).min() * self.q[one], -one)))

    def k_means(self, found, rounds=10):
        """Of two candidates as near to their centroid, as both of a cluster of two are, that which was ``found``."""
        count = self.budget
        if self.limit is not None:
            count = max(1, min(count, math.floor(self.limit * len(self.ids) / sum(map(Fraction, self.cost.tolist())))))
        start = [one for one in self.lots(42) if one not in self.begun][:count]
        centers, fixed = self.points[start], self.points[self.begun]
        for _ in range(rounds):
            nearest = formula.squared_distances(self.points, np.concatenate([centers, fixed])).argmin(axis=1)
            weight = np.array([self.q[nearest == i].sum() for i in range(count)])
            moved = centers.copy()
            for i in np.flatnonzero(weight):
                moved[i] = (self.points[nearest == i] * self.q[nearest == i, None]).sum(axis=0) / weight[i]
            centers = formula.normalize(moved) if self.metric == "cosine" else moved
        picks, before = [], -1
        while len(picks) > before:
            before = len(picks)
            for i in np.lexsort((np.arange(count), -np.round(weight, 9))):
                d = formula.from_squared(formula.squared_distances(centers[[i]], self.points)[0], self.metric)
                key = np.where(self.q > 0, d / np.where(self.q > 0, self.q, 1), np.inf)
                able = [one for one in np.argsort(key) if self.is_open(one, picks)]
                near = [self.ids[one] for one in able if key[one] <= key[able[0]] * (1 + 1e-9)]
                chosen = (
                    able[near.index(found[len(picks)])]
                    if len(picks) < len(found) and found[len(picks)] in near
                    else (able or [None])[0]
                )
                if chosen is not None:
                    picks.append(int(chosen))
        return picks

    def by(self, strategy, found):
        by = {"random": self.random, "farthest-first": self.farthest_first, "k-means": lambda: self.k_means(found)}
        return by[strategy]()


def written(graded, folder, order=None, files=3):
    points, names, quality = graded
    folder.mkdir(parents=True)
    order = np.arange(len(points.ids)) if order is None else order
    for number, part in enumerate(np.array_split(order, files)):
        columns = {"group": names[part].tolist(), "q": quality[part], "cost": COST[part]}
        ids = [points.ids[i] for i in part]
        write_parquet(folder / f"part-{number}.parquet", ids, points.vectors[part], **columns)
    return str(folder)


def novelties(plain, picks, **settings):
    """v of each pick over all that was selected before it, by the formula alone."""
    sigma = formula.density(plain.vectors, 10, metric=plain.metric)
    found = []
    for place, one in enumerate(picks):
        before = np.array(sorted([*plain.begun, *picks[:place]]), np.int64)
        d = formula.distances(plain.vectors[[one]], plain.vectors[before], plain.metric)
        found.append(formula.novelty(d, sigma[before], sigma[[one]], **settings)[0] if len(before) else 0.0)
    return found


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("rules", "metric", "begun"),
    [
        pytest.param(rules, metric, begun, marks=[pytest.mark.exact] * ((rules, metric, begun) != QUICKEST))
        for rules in RULES
        for metric in formula.METRICS
        for begun in (False, True)
    ],
)
def test_the_picks_are_those_of_plain_numpy_under_every_rule(
    graded, engine, tmp_path, monkeypatch, strategy, rules, metric, begun
):
    """In several reports and offers, and v of each pick is the formula's."""
    for module, name, value in ((farthest, "_REPORTED", 1), (lots, "_AT_LEAST", 1), (kmeans, "_OFFERED", 2)):
        monkeypatch.setattr(module, name, value)
    budget = 45
    settings = dict(RULES[rules])
    if "min_distance" in settings and metric == "euclidean":
        settings["min_distance"] = 2.0
    plain = Plain(graded, budget, [3, 50, 300] if begun else [], metric, **settings)
    path = written(graded, tmp_path / "in")
    if begun:
        before = tmp_path / "before.parquet"
        write_parquet(before, [plain.ids[i] for i in plain.begun], plain.vectors[plain.begun])
        settings["already_selected"] = str(before)
    found = engine(path, budget, strategy=strategy, metric=metric, block_rows=70, **settings)
    wanted = plain.by(strategy, found.picks)
    assert found.picks == [plain.ids[one] for one in wanted]
    assert found.novelty == pytest.approx(novelties(plain, wanted), rel=1e-9)


@pytest.mark.parametrize("strategy", [pytest.param("k-means", marks=pytest.mark.more), "farthest-first", "random"])
def test_the_picks_depend_neither_on_blocks_nor_files_nor_the_order_of_rows(graded, engine, tmp_path, strategy):
    found = []
    for number, (files, block_rows) in enumerate([(1, 1000), (5, 37)]):
        order = np.random.default_rng(number).permutation(700)
        path = written(graded, tmp_path / str(number), order, files)
        rules = {name: value for name, value in RULES["all"].items() if name != "min_distance"}
        found.append(engine(path, 45, strategy=strategy, block_rows=block_rows, **rules))
    assert found[0].picks == found[1].picks
    assert found[0].novelty == found[1].novelty


@pytest.mark.parametrize("metric", formula.METRICS)
def test_farthest_first_gives_ties_to_the_smallest_id(engine, tmp_path, metric, monkeypatch):
    """Points on a lattice, whose distances tie, and copies of some; few reported a round, and all are picked."""
    monkeypatch.setattr(farthest, "_REPORTED", 1)
    monkeypatch.setattr(farthest, "_LOGGED_AT_ONCE", 16)
    rng = np.random.default_rng(6)
    vectors = np.concatenate([rng.integers(1, 4, size=(90, 3)).astype(float), rng.normal(size=(60, 3))])
    points = Points([f"p{i:03d}" for i in range(150)], vectors)
    path = points.write(tmp_path / "in", rng.permutation(150))
    given = {"metric": metric, "duplicates": "keep", "block_rows": 30, "first": "p007"}
    found = engine(path, 150, strategy="farthest-first", **given)
    space = formula.metric_space(vectors, metric)
    picks, nearest = [7], formula.squared_distances(space, space[[7]])[:, 0]
    while len(picks) < 150:
        nearest[picks] = -1
        picks.append(int(np.argmax(formula.from_squared(np.maximum(nearest, 0), metric) - (nearest < 0))))
        nearest = np.minimum(nearest, formula.squared_distances(space, space[picks[-1:]])[:, 0])
    assert found.picks == [points.ids[i] for i in picks]


def test_a_random_pick_is_as_likely_as_its_quality_says():
    """Of candidates of quality 1 and 3, half each, three of four first picks are of the latter, within 5 sigma."""
    ids = [f"w{i}" for i in range(20)]
    quality = np.where(np.arange(20) % 2, 3.0, 1.0)
    firsts = [min(range(20), key=lambda i: lots.turn_of(lot(seed, ids[i]), quality[i])) for seed in range(2000)]
    assert abs(np.mean([quality[i] == 3.0 for i in firsts]) - 0.75) < 5 * math.sqrt(0.75 * 0.25 / 2000)


def test_the_nearest_centroid_is_settled_by_the_formula_where_products_leave_it_open():
    """Points between two centroids, nearer to one by less than float32 tells; equally near, the first is taken."""
    rng = np.random.default_rng(2)
    centers = rng.normal(size=(40, 64)) + 100
    middle = (centers[::2] + centers[1::2]) / 2
    points = np.concatenate(
        [middle + 1e-9 * (centers[1::2] - centers[::2]), middle - 1e-9 * (centers[1::2] - centers[::2])]
    )
    nearest = kmeans.nearest_center(points, np.concatenate([centers, centers]))
    assert nearest.tolist() == [*range(1, 40, 2), *range(0, 40, 2)]
    assert nearest.tolist() == formula.squared_distances(points, centers).argmin(axis=1).tolist()


def test_as_many_centroids_as_candidates_take_all_of_them(engine, tmp_path):
    """Also of equal embeddings."""
    vectors = np.repeat(np.random.default_rng(1).normal(size=(30, 4)), 3, axis=0)
    path = Points([f"p{i:02d}" for i in range(90)], vectors).write(tmp_path / "in")
    found: Outcome = engine(path, 90, strategy="k-means", duplicates="keep", block_rows=20)
    assert sorted(found.picks) == [f"p{i:02d}" for i in range(90)]
