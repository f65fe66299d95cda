"""Data sets are ranked at equal size, with intervals, beside random subsets; the words follow from the numbers."""

import json
import re
from dataclasses import replace

import browser
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Points, error_line, numbered, run_job, write_parquet

from novelsum import formula
from novelsum.diversity.comparing import Comparing
from novelsum.diversity.measuring import Corpus
from novelsum.diversity.novelsum import Columns, Grid, Leading, Value, in_space, tally, variance
from novelsum.diversity.onepass import DataSet
from novelsum.diversity.ranking import (
    Figures,
    Ranked,
    Spread,
    Standing,
    Yardstick,
    against_random,
    contradictions,
    in_order,
    verdict,
)
from novelsum.diversity.subsets import Drawing
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.source import open_source
from novelsum.files.store import read_block
from novelsum.formulas import EQUATIONS
from novelsum.settings import MeasureSettings

PAPER = Value("paper", 10, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
GRID = [PAPER, replace(PAPER, proximity_power=0.0), replace(PAPER, density_power=0.5)]
EVEN = Spread(nearest=0.5, pair=0.8, density=1.0, densest_share=0.01)


def ranked(number: int, values: tuple[float, ...], half: float = 0.1, rows: int = 100, **spread: float) -> Ranked:
    """A set named a, b, …, with values and half of its interval."""
    measured = Standing(100, 1 if rows == 100 else 5, values, replace(EVEN, **spread), (half / 1.959964) ** 2)
    return Ranked(number, "abcdef"[number], rows, measured)


# --- the mathematics --------------------------------------------------------------------------------------


def test_the_interval_is_as_wide_as_means_of_other_samples_are_spread():
    """200 samples of 120 rows from one source: the jackknife's deviation is theirs, or up to a quarter more."""
    rng = np.random.default_rng(7)
    centers = rng.normal(size=(6, 6))
    means, deviations, held = [], [], 0
    for _ in range(200):
        vectors = centers[rng.integers(0, 6, 120)] + 0.6 * rng.normal(size=(120, 6))
        points, lengths = in_space(vectors, "cosine")
        rows = np.arange(120)
        columns = Columns(points, lengths, rows, rows >= 0)
        leading = Leading.of(EQUATIONS["paper"], 1.0, np.ones(120))
        found = tally(columns, rows * 0, 1, [columns], None, Grid(("paper",), density_powers=(0.0,)), leading)
        means.append(found.sums.mean())
        deviations.append(np.sqrt(variance(found, leading)))
    true = np.mean(means)
    held = sum(abs(mean - true) <= 1.959964 * deviation for mean, deviation in zip(means, deviations, strict=True))
    assert 0.95 * np.std(means) <= np.mean(deviations) <= 1.25 * np.std(means)
    assert held >= 184


def test_a_set_is_as_uncertain_as_its_rows_and_its_draws_make_it():
    """V by all rows; V · (m/n + (1 - m/n)/R) by R subsets of m of n rows."""
    one, two = Figures(50, (2.0,), 0.04, EVEN), Figures(50, (3.0,), 0.06, EVEN)
    assert Standing.of(50, [one]).variance == pytest.approx(0.04)
    drawn = Standing.of(200, [one, two])
    assert (drawn.values, drawn.draws) == ((2.5,), 2)
    assert drawn.variance == pytest.approx(0.05 * (0.25 + 0.75 / 2))


def test_sets_whose_intervals_overlap_are_not_told_apart():
    """Ranks count the sets that are surely above; the words name who overlaps."""
    found = in_order([ranked(0, (5.0,)), ranked(1, (7.0,)), ranked(2, (6.85,)), ranked(3, (4.95,))])
    assert [(one.name, one.rank) for one in found] == [("b", 1), ("c", 1), ("a", 3), ("d", 3)]
    assert verdict(found, PAPER) == (
        "By mean NovelSum (paper, κ1 = 1, κ2 = 0) no set leads: b and c cannot be told apart, as their 95% intervals "
        "overlap. Not told apart either: a and d."
    )
    apart = in_order([ranked(0, (5.0,)), ranked(1, (7.0,))])
    assert verdict(apart, PAPER) == (
        "By mean NovelSum (paper, κ1 = 1, κ2 = 0) b is the most diverse, 7.000 (6.900 to 7.100); a comes next, 5.000 "
        "(4.900 to 5.100)."
    )
    assert verdict(apart[:1], PAPER) == "b has mean NovelSum (paper, κ1 = 1, κ2 = 0) 7.000 (6.900 to 7.100)."


def test_random_subsets_say_how_far_chance_goes():
    """Of five with mean 5 and deviation 0.1 a sixth is within 3.04 deviations in 95 of 100 cases."""
    drawn = [Figures(100, (mean,), 0.0, EVEN) for mean in (4.9, 4.9, 5.0, 5.1, 5.1)]
    yardstick = Yardstick.of(drawn)
    assert yardstick.expected == pytest.approx(3.04, abs=0.01)
    words = []
    for value in (5.25, 5.35, 4.6):
        one = ranked(0, (value,))
        words.append(against_random(replace(one, own=one.compared, yardstick=yardstick), "the reference"))
    assert words == [
        "a is as diverse as a random subset: 5.250, 2.5 sd above 5 random subsets of 100 rows of the reference "
        "(5.000 ± 0.10).",
        "a is more diverse than random: 5.350, 3.5 sd above 5 random subsets of 100 rows of the reference (5.000 ± "
        "0.10).",
        "a is less diverse than random: 4.600, 4.0 sd below 5 random subsets of 100 rows of the reference (5.000 ± "
        "0.10).",
    ]


DISAGREE = {
    "wide, but with near copies": (
        ranked(0, (7.0, 40.0, 7.0), pair=0.7, nearest=0.6),
        ranked(1, (6.0, 50.0, 6.0), pair=0.9, nearest=0.4),
        "By NovelSum with κ1 = 0 b is ahead of a, 50.00 against 40.00: b is wider as a whole (two rows are 0.900 apart "
        "against 0.700), but its rows have nearer copies (0.400 against 0.600).",
    ),
    "a crowd": (
        ranked(0, (7.0, 7.0, 1.0)),
        ranked(1, (6.0, 6.0, 2.0), densest_share=0.4),
        "By NovelSum with κ2 = 0.5 b is ahead of a, 2.000 against 1.000: crowds of near-copies do it, as the "
        "densest 1% of the rows carry 40% of NovelSum in b and 1.0% in the other.",
    ),
    "denser places": (
        ranked(0, (7.0, 7.0, 1.0)),
        ranked(1, (6.0, 6.0, 2.0), density=3.0),
        "By NovelSum with κ2 = 0.5 b is ahead of a, 2.000 against 1.000: the rows of b lie in denser places "
        "(median density factor 3.00 against 1.00), which κ2 > 0 counts for more.",
    ),
    "outliers": (
        ranked(0, (7.0, 7.0, 7.0), coverage=0.5, nearest=0.6),
        ranked(1, (6.0, 6.0, 6.0), coverage=0.4, nearest=0.5),
        "By coverage of the reference b is ahead of a, 0.4000 against 0.5000: the rows of a lie farther from the "
        "nearest other (0.600 against 0.500), as outliers do, and stand for fewer rows of the reference.",
    ),
    "near-copies": (
        ranked(0, (7.0, 7.0, 7.0), nearest=0.3, pair=0.9),
        ranked(1, (6.0, 6.0, 6.0), nearest=0.5, pair=0.8),
        "By mean distance to the nearest other row b is ahead of a, 0.5000 against 0.3000: a is wider as a whole (two "
        "rows are 0.900 apart against 0.800), but its rows have nearer copies (0.300 against 0.500).",
    ),
    "size": (
        ranked(0, (7.0, 7.0, 7.0)),
        ranked(1, (6.0, 6.0, 6.0), rows=900),
        "By the mean over all its rows b is ahead of a, 9.000 against 7.000: it has 900 rows against 100, and the mean "
        "grows with their number.",
    ),
}


@pytest.mark.parametrize("case", DISAGREE)
def test_what_orders_two_sets_otherwise_is_told_with_its_reason(case):
    a, b, sentence = DISAGREE[case]
    alone = [7.0, 9.0 if case == "size" else 6.0]
    assert contradictions([a, b], GRID, alone) == [sentence]
    near = [replace(one, compared=replace(one.compared, variance=1.0)) for one in (a, b)]
    assert contradictions(near, GRID, alone) == []


# --- on Spark ---------------------------------------------------------------------------------------------


@pytest.fixture
def stored(spark, tmp_path):
    """Points as a data set of the engine."""
    made = iter(range(100))

    def store(points: Points, order=None, rows_per_file=1000, **settings) -> DataSet:
        number = next(made)
        path = points.write(tmp_path / f"in-{number}", order, rows_per_file=rows_per_file)
        chosen = replace(MeasureSettings(input=(path,), output="out"), **settings)
        work = Location.of(str(tmp_path / f"store-{number}"))
        pool = ingest(spark, open_source(path, "id", "embedding"), chosen.of_data_set(path), work)
        return DataSet(pool.work, pool.blocks)

    return store


def test_random_subsets_are_drawn_by_what_rows_are_and_a_row_of_two_sets_once(spark, stored, sample):
    """300 and 200 prompts, 100 in both: 400 to draw from, the same drawn whatever the order, files and blocks."""
    points = sample.distinct()
    one, two = Points(points.ids[:300], points.vectors[:300]), Points(points.ids[200:400], points.vectors[200:400])
    orders = [None, None], [np.random.default_rng(one).permutation(size) for one, size in enumerate((300, 200))]
    drawn = []
    for first, second in orders:
        sets = [stored(one, first, 90, block_rows=70), stored(two, second)]
        drawing = Drawing(spark, sets, by_id=False)
        assert drawing.rows == 400
        found = drawing.draw(50, [1, 2])
        drawing.done()
        vectors = [np.empty((0, 0)), np.empty((0, 0))]
        for number, data in enumerate(sets):
            blocks = [read_block(data.work, block.name) for block in data.blocks]
            rows = np.concatenate([block.rows for block in blocks])
            vectors[number] = np.concatenate([block.vectors for block in blocks])[np.argsort(rows)]
        drawn.append(
            [[vectors[s][row].tobytes() for s, row in zip(one.source, one.rows, strict=True)] for one in found]
        )
        assert all(one.distinct.all() for one in found)
    assert drawn[0] == drawn[1]
    assert [len(set(one)) for one in drawn[0]] == [50, 50]
    assert drawn[0][0] != drawn[0][1]


@pytest.mark.parametrize("duplicates", ["drop", pytest.param("keep", marks=pytest.mark.more)])
def test_sets_and_random_subsets_have_the_novelsum_of_the_formula(spark, stored, sample, tmp_path, duplicates):
    """Sets of 60 and 90 rows in a pool of 300 with 20 copies, density factors in the pool, both formulas."""
    vectors = np.concatenate([sample.distinct().vectors[:280], sample.distinct().vectors[:20]]).astype(np.float64)
    pool = numbered(vectors)
    rows = [np.arange(200, 260), np.arange(100, 190)]
    parts = [Points([pool.ids[row] for row in part], vectors[part]) for part in rows]
    settings = MeasureSettings(
        input=("a", "b"),
        output="out",
        reference="pool",
        duplicates=duplicates,
        formula=("paper", "released"),
        neighbors=(3,),
        density_power=(0.5, 0.0),
        seed=5,
    )
    sets = [stored(part, duplicates=duplicates) for part in parts]
    corpus = Corpus.of(spark, stored(pool, duplicates=duplicates, block_rows=100), settings.seed)
    assert len(corpus.covered) == corpus.data.rows == (300 if duplicates == "keep" else 280)
    work = Location.of(str(tmp_path / "work"))
    comparing = Comparing(spark, settings, ["a", "b"], sets, corpus, 384, work)
    found = comparing.whole()
    order, pool_rows = comparing.ranked(found)
    assert pool_rows == corpus.data.rows

    kept = vectors[: corpus.data.rows]
    sigma = {name: formula.density(kept, 3, formula=name) for name in settings.formula}

    def by_formula(some: np.ndarray) -> list[float]:
        d = formula.distances(kept[some], kept[some])
        return [
            formula.novelsum(d, sigma[name][some], formula=name, density_power=power).mean
            for name in settings.formula
            for power in settings.density_power
        ]

    for one, part in zip(found, rows, strict=True):
        assert one.figures.values == pytest.approx(by_formula(part), rel=1e-9)
    d = formula.distances(kept, kept[rows[0]])
    assert found[0].figures.spread.coverage == pytest.approx(d.min(axis=1).mean(), rel=1e-9)
    drawing = Drawing(spark, [corpus.data], by_id=duplicates == "keep")
    for one in order:
        subsets = [by_formula(subset.rows) for subset in drawing.draw(one.rows, range(5, 10))]
        assert one.yardstick.means == pytest.approx(np.mean(subsets, axis=0), rel=1e-9)
        assert one.yardstick.deviations == pytest.approx(np.std(subsets, axis=0, ddof=1), rel=1e-6)
        assert (one.compared.rows, one.own.rows) == (60, one.rows)
    drawing.done()


# --- the job ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What the job makes of a wide set, whose name is markup, and a narrow one, in a pool that holds both."""
    folder = tmp_path_factory.mktemp("ranking")
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(400, 12)).astype(np.float32)
    pool[300:] = pool[0] + 0.3 * rng.normal(size=(100, 12))
    ids = [f"s{row:03d}" for row in range(400)]
    wide = write_parquet(folder / "<b>wide &amp;\u202e.parquet", ids[:80], pool[:80])
    narrow = write_parquet(folder / "narrow.parquet", ids[280:400], pool[280:])
    reference = write_parquet(folder / "pool.parquet", ids, pool)
    given = ("--input", wide, "--input", narrow, "--reference", reference, "--density-power", 0, 0.5)
    done = run_job("measure_diversity", *given, "--random-subsets", 4, "--output", folder / "out")
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


def test_the_job_answers_in_tables_manifest_and_words(measured):
    output, printed = measured
    manifest = json.loads((output / "_MANIFEST.json").read_text())
    wide, narrow = manifest["ranking"]
    assert [(one["rank"], one["rows"], one["compared_rows"], one["subsets"]) for one in (wide, narrow)] == [
        (1, 80, 80, 0),
        (2, 120, 80, 5),
    ]
    assert wide["low"] < wide["mean"] < wide["high"]
    assert wide["low"] > narrow["high"]
    assert wide["random"]["rows"] == 80
    assert narrow["random"]["rows"] == 120
    assert narrow["random"]["above"] < -3 < wide["random"]["above"]
    assert manifest["pool_rows"] == 400
    told = [one for kind in manifest["told"].values() for one in kind]
    assert any("sums are not shown" in one for one in told)
    assert "narrow.parquet is less diverse than random" in printed
    beside = re.search(r"^ +2 .* 120 +([\d.]+) +([\d.]+) +(-[\d.]+) +narrow.parquet$", printed, re.MULTILINE)
    own, random, above = (float(number) for number in beside.groups())
    assert random == pytest.approx(narrow["random"]["mean"], rel=1e-5)
    assert own - random == pytest.approx(narrow["random"]["above"] * narrow["random"]["deviation"], rel=1e-3)
    assert above == pytest.approx(narrow["random"]["above"], abs=0.05)
    assert "\u202e" not in printed
    assert "NovelSum  " not in printed.split("all rows of each set")[1]
    rows = pq.read_table(output / "diversity.parquet").to_pylist()
    assert rows == json.loads((output / "diversity.json").read_text())
    assert [row["rank"] for row in rows] == [1, None, 2, None]
    assert rows[0]["compared_mean"] == rows[0]["novelsum_mean"] == wide["mean"]
    assert rows[2]["compared_mean"] == narrow["mean"] != rows[2]["novelsum_mean"]
    assert rows[3]["random_mean"] > 0


@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_is_whole_alone_and_fits(measured, width):
    """One picture, nothing loaded, no script, no markup of names, nothing over the edge; on paper too."""
    output, _ = measured
    with browser.browser() as page:
        address = (output / "diversity.html").as_uri()
        page.open(address, width)
        requested = [request["request"]["url"] for request in page.named("Network.requestWillBeSent")]
        assert [url for url in requested if not url.startswith("data:")] == [address]
        assert not page.named("Log.entryAdded")
        assert page.evaluate('document.querySelectorAll("script, h1 b, figcaption b b, .told b").length') == 0
        seen = page.evaluate("document.body.innerText")
        assert "<b>wide &amp;[U+202E].parquet is the most diverse of 2 data sets" in seen
        assert "narrow.parquet is less diverse than random" in seen
        labels = page.evaluate('[...document.querySelectorAll("figure svg text")].map(label => label.textContent)')
        assert {"narrow.parquet", "random", "set"} <= set(labels)
        over = """[...document.querySelectorAll("body *")].filter(element => !element.closest("svg *")
            && element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
            .map(element => element.tagName + " " + element.textContent.slice(0, 50))"""
        assert page.evaluate(over) == []
        page.open(address, 680)  # what a sheet of A4 has between its margins
        page.call("Emulation.setEmulatedMedia", media="print")
        assert page.evaluate(over) == []


@pytest.mark.more
def test_one_set_has_no_yardstick_and_needs_no_page(tmp_path):
    """The job says so; density does not count; K may be more than there are rows."""
    path = write_parquet(tmp_path / "one.parquet", list("abcdef"), np.random.default_rng(1).normal(size=(6, 3)))
    done = run_job("measure_diversity", "--input", path, "--no-report", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "Nothing is compared with random subsets: name a pool with --reference, or measure several" in done.stdout
    assert "κ2 is 0 without a reference" in done.stdout
    assert not (tmp_path / "out" / "diversity.html").exists()
    row = json.loads((tmp_path / "out" / "diversity.json").read_text())[0]
    assert (row["density_power"], row["random_mean"], row["rank"]) == (0.0, None, 1)


def test_one_random_subset_is_refused():
    done = run_job("measure_diversity", "--input", "in", "--output", "out", "--random-subsets", 1)
    assert done.returncode == 2
    assert error_line(done) == (
        "error: --random-subsets 1 does not say how much random subsets differ; ask for 2 or more, or for 0"
    )
