"""The report: its figures equal what NumPy finds, and a browser shows the page whole, alone, and as text."""

import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import browser
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLE, Points, error_line, run_job, write_parquet

from novelsum import formula, pipeline
from novelsum.command import main
from novelsum.errors import UsageError
from novelsum.report import write as report
from novelsum.report.page import returns_in_words
from novelsum.report.survey import _returns, principal_axes
from novelsum.report.text import escaped, number, printed, shown
from novelsum.settings import Settings

HOSTILE = "</p></style><script>alert(1)</script><img src=x onerror='alert(2)'> \"&amp;\" $a_b$ \u202eevil\u2066 "
HOSTILE_SHOWN = HOSTILE.replace("\u202e", "[U+202E]").replace("\u2066", "[U+2066]").strip()
HOSTILE_GROUP = "<b onclick='x'>$w$</b>\u202e"
WIDE_GROUP = "多轮对话" * 6
RENAMED = {"wordnet": HOSTILE_GROUP, "live_multiple": WIDE_GROUP}
COLUMN = '"><script>group'
BUDGET, SHOWN = 40, 5
PICTURES = ["density", "groups", "map", "novelty"]
PICTURES_OF_COMPARISON = sorted([*PICTURES, "comparison"])


@pytest.fixture(scope="module")
def source() -> pa.Table:
    """The sample with hostile texts, hostile names of its greatest group and of the column of groups, a wide name."""
    table = ds.dataset(SAMPLE).to_table().combine_chunks()
    groups = [RENAMED.get(group, group) for group in table.column("group").to_pylist()]
    texts = [HOSTILE + text for text in table.column("text").to_pylist()]
    return table.select(["id", "embedding"]).append_column("text", [texts]).append_column(COLUMN, [groups])


@pytest.fixture(scope="module")
def output(source, tmp_path_factory) -> Path:
    """What curate makes of it."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "in").mkdir()
    for part in range(3):
        pq.write_table(source.slice(part * 1000, 1000), folder / "in" / f"{part}.parquet")
    arguments = ("--input", folder / "in", "--output", folder / "out", "--budget", BUDGET, "--show", SHOWN)
    done = run_job("curate", *arguments, "--text-column", "text", "--group-column", COLUMN)
    assert done.returncode == 0, done.stderr
    assert f"report     {folder / 'out' / 'report.html'}" in done.stdout
    return folder / "out"


@pytest.fixture(scope="module")
def data(output) -> dict:
    return json.loads((output / "report.json").read_text())


# --- what a browser shows ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> Iterator[browser.Page]:
    with browser.browser() as started:
        yield started


def assert_whole_and_alone(page: browser.Page, path: Path, pictures: list[str], width: int) -> None:
    """Every picture is drawn, with a title and a caption, its words inside; nothing else is loaded or complained of."""
    page.open(path.as_uri(), width)
    drawn = page.evaluate(
        """[...document.querySelectorAll("figure")].map(figure => {
            const svg = figure.querySelector("svg"), box = svg.getBoundingClientRect();
            const inside = [...svg.querySelectorAll("path, use")].filter(mark => {
                const at = mark.getBoundingClientRect();
                return at.width + at.height > 0 && at.left >= box.left - 2 && at.right <= box.right + 2;
            });
            return {name: svg.getAttribute("aria-labelledby").replace("-title", ""), width: box.width,
                    height: box.height, marks: inside.length, labels: svg.querySelectorAll("text").length,
                    outside: [...svg.querySelectorAll("text")].filter(text => {
                        const at = text.getBoundingClientRect();
                        return at.left < box.left - 1 || at.right > box.right + 1;
                    }).map(text => text.textContent),
                    title: document.getElementById(svg.getAttribute("aria-labelledby")).textContent,
                    caption: figure.querySelector("figcaption").innerText};
        })"""
    )
    assert sorted(picture["name"] for picture in drawn) == pictures
    for place, picture in enumerate(drawn, 1):
        assert picture["width"] > 300, picture
        assert picture["height"] > 100, picture
        assert picture["marks"] > 10, picture
        assert picture["labels"] > 5, picture
        assert picture["outside"] == [], picture
        assert picture["title"], picture
        assert picture["caption"].startswith(f"Figure {place}."), picture
    for event in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
        assert not page.named(event)
    requested = [request["request"]["url"] for request in page.named("Network.requestWillBeSent")]
    assert [url for url in requested if not url.startswith("data:")] == [path.as_uri()]
    ids = page.evaluate('[...document.querySelectorAll("[id]")].map(element => element.id)')
    assert len(ids) == len(set(ids))


def assert_no_overflow(page: browser.Page) -> None:
    """Nothing reaches over the right edge, also not what a scrolling table would hide."""
    width = page.evaluate("document.documentElement.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    over = page.evaluate(
        """[...document.querySelectorAll("body *")].filter(element => !element.closest("svg *")
            && element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
            .map(element => element.tagName + " " + element.textContent.slice(0, 50))"""
    )
    assert over == []


def test_the_page_is_whole_and_alone(page, output):
    assert_whole_and_alone(page, output / "report.html", PICTURES, 1280)
    assert_no_overflow(page)


def test_the_page_fits_a_phone(page, output):
    assert_whole_and_alone(page, output / "report.html", PICTURES, 360)
    assert_no_overflow(page)


def test_hostile_text_is_shown_as_text(page, output):
    """Markup, quotes and mathematics as they are, unseen characters as their numbers, nothing as an element."""
    page.open((output / "report.html").as_uri())
    assert page.evaluate('document.querySelectorAll("script, img, iframe, object, b[onclick]").length') == 0
    handlers = '[...document.querySelectorAll("*")].flatMap(e => e.getAttributeNames()).filter(n => n.startsWith("on"))'
    assert page.evaluate(handlers) == []
    seen, held = page.evaluate("document.body.innerText"), page.evaluate("document.documentElement.textContent")
    assert seen.count(HOSTILE_SHOWN) == SHOWN * 4  # each pick and its three neighbours
    assert not {"\u202e", "\u2066"} & set(held)
    group = "<b onclick='x'>$w$</b>[U+202E]"
    assert group in seen
    labels = page.evaluate('[...document.querySelectorAll("#groups-figure_1 text")].map(label => label.textContent)')
    assert {"<b onclick='x'>$w$</b>[…", f"{WIDE_GROUP[:11]}…"} <= set(labels)
    assert COLUMN in seen
    policy = page.evaluate("document.querySelector('meta[http-equiv]').content")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


def test_a_comparison_and_the_recall_are_shown_as_the_manifest_has_them(page, source, run_here, tmp_path):
    """The strategies in the order of NovelSum."""
    path, output = tmp_path / "in.parquet", tmp_path / "out"
    pq.write_table(source.slice(0, 500), path)
    options = {"density_method": "approximate", "compare": True, "budget": BUDGET, "group_column": COLUMN}
    run_here("curate", input=str(path), output=str(output), **options)
    manifest, data = (json.loads((output / name).read_text()) for name in ("_MANIFEST.json", "report.json"))
    for width in (1280, 360):
        assert_whole_and_alone(page, output / "report.html", PICTURES_OF_COMPARISON, width)
        assert_no_overflow(page)
    rows = page.evaluate('[...document.querySelectorAll("tr")].map(row => row.innerText.split(/\\t|\\n/).join(" | "))')
    names = {"NovelSelect": "novelselect", "random": "random", "farthest first": "farthest_first", "k-means": "kmeans"}
    shown = [row.split(" | ") for row in rows if row.split(" | ")[0] in names]
    found = {names[name]: cells for name, *cells in shown}
    assert sorted(found) == sorted(manifest["comparison"])
    for name, measured in manifest["comparison"].items():
        values = [measured[key] for key in ("novelsum_mean", "novelsum_sum", "mean_nearest_distance")]
        assert found[name] == [*(number(value, 4) for value in values), f"{measured['seconds']:,.1f}"]
    in_order = sorted(manifest["comparison"], key=lambda name: -manifest["comparison"][name]["novelsum_mean"])
    assert list(found) == [row["strategy"] for row in data["comparison"]] == in_order
    seen = page.evaluate("document.body.innerText")
    assert f"Of 4 strategies at this budget, {shown[0][0]} has the highest NovelSum." in seen
    recall = manifest["density"]["recall"]
    assert 0.95 <= recall <= 1
    assert re.search(rf"recall of neighbours\s+{100 * recall:.1f}%", seen)
    assert f"measured | {manifest['density']['measured']}" in rows
    assert f"probes | {manifest['density']['probes']}" in rows


def test_what_a_page_complains_of_is_seen(page):
    """By the events whose absence is asserted of a report."""
    page.open("data:text/html,<script>console.log(1); nowhere()</script><img src='http://127.0.0.1:9/x'>")
    assert page.named("Runtime.consoleAPICalled")
    assert page.named("Runtime.exceptionThrown")
    assert page.named("Log.entryAdded")


def test_without_chromium_the_tests_of_the_page_fail(monkeypatch):
    """They say what is missing instead of being skipped."""
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        pytest.raises(RuntimeError, match="Chromium, which is not installed: apt-get install chromium"),
        browser.browser(),
    ):
        pass


# --- what the figures are ---------------------------------------------------------------------------------


def test_the_figures_are_those_of_numpy(output, data, source, sample):
    """Novelty, distances to earlier picks, histogram, groups and nearest rejected samples, worked out again."""
    points = sample.distinct()
    table = pq.read_table(output / "selected")
    picks = [points.ids.index(id_) for id_ in table.column("id").to_pylist()]
    to_picks = formula.distances(points.vectors, points.vectors[picks])
    among = to_picks[picks]
    assert data["novelty"]["pick"] == list(range(1, BUDGET + 1))
    assert data["novelty"]["novelty"] == pytest.approx(table.column("novelty").to_pylist(), rel=1e-5)
    earlier = [among[place, :place].min() for place in range(1, BUDGET)]
    assert data["novelty"]["nearest_earlier"][0] is None
    assert data["novelty"]["nearest_earlier"][1:] == pytest.approx(earlier, rel=1e-5)

    sigma = formula.density(points.vectors, 10)
    edges, bins = np.array(data["density"]["edges"]), data["density"]
    assert edges[0] <= sigma.min() < sigma.max() <= edges[-1] * (1 + 1e-5)
    assert np.abs(np.array(bins["pool"]) - np.histogram(sigma, edges)[0]).sum() <= 4  # edges are rounded
    assert (sum(bins["pool"]), sum(bins["selected"])) == (len(points.ids), BUDGET)
    assert bins["pool_quantiles"]["50%"] == pytest.approx(np.median(sigma), rel=0.02)
    assert bins["selected_quantiles"]["50%"] == pytest.approx(np.median(sigma[picks]), rel=0.025)

    group_of = dict(zip(source.column("id").to_pylist(), source.column(COLUMN).to_pylist(), strict=True))
    pool, selected = (Counter(group_of[points.ids[i]] for i in rows) for rows in (range(len(points.ids)), picks))
    found = {row["group"]: (row["pool"], row["selected"]) for row in data["groups"]["largest"]}
    assert found == {group: (pool[group], selected[group]) for group in pool}
    assert data["groups"]["reached"] == len(selected)

    rejected = np.setdiff1d(np.arange(len(points.ids)), picks)
    to_first = to_picks[rejected][:, :SHOWN]
    for place, pick in enumerate(data["first_picks"]):
        assert pick["text"].startswith(HOSTILE.strip())
        assert pick["group"] == group_of[pick["id"]]
        own = rejected[to_first.argmin(axis=1) == place]
        nearest = sorted(own, key=lambda row: (to_picks[row, place], row))[:3]
        assert [one["id"] for one in pick["nearest_rejected"]] == [points.ids[row] for row in nearest]
        distances = [one["distance"] for one in pick["nearest_rejected"]]
        assert distances == pytest.approx(to_picks[nearest, place].tolist(), rel=1e-5)
    assert len(data["map"]["pool"]) == 2000
    assert [pick[0] for pick in data["map"]["picks"]] == list(range(1, BUDGET + 1))
    assert data["settings"]["budget"] == BUDGET


@pytest.mark.parametrize("shape", [(30, 5), (5, 30), (7, 1), (2, 3), (1, 4)])
def test_the_axes_of_the_map_are_the_singular_vectors(shape):
    """With the share of variance of each; an axis that does not exist is zero."""
    centered = np.random.default_rng(3).normal(size=shape)
    centered -= centered.mean(axis=0)
    axes, shares = principal_axes(centered)
    _, values, vectors = np.linalg.svd(centered, full_matrices=False)
    total = max(np.square(values).sum(), 1e-300)
    for place in range(2):
        share = values[place] ** 2 / total if place < len(values) else 0.0
        assert shares[place] == pytest.approx(share, abs=1e-12)
        if share > 1e-12:
            assert abs(axes[place] @ vectors[place]) == pytest.approx(1)
            assert axes[place][np.abs(axes[place]).argmax()] > 0
        else:
            assert not axes[place].any()


@pytest.mark.parametrize(
    ("curve", "lowest", "highest"),
    [
        (lambda n: np.minimum(n, 100.0), 190, 200),
        (lambda n: n, None, None),
        (lambda n: np.full(len(n), 2.0), 16, 16),
        (lambda n: 2 - n / 1000, 16, 16),
    ],
    ids=["saturates at 100", "never", "at once", "falls"],
)
def test_returns_are_flat_where_doublings_add_little(curve, lowest, highest):
    flat, doublings = _returns(curve(np.arange(1, 401, dtype=float)))
    assert (flat is None) if lowest is None else lowest <= flat <= highest
    assert [row["pick"] for row in doublings] == [3, 6, 12, 25, 50, 100, 200, 400]


def test_a_small_budget_tells_nothing_of_returns():
    """Also where the novelty of its picks happens to be even."""
    found = {"flat_from_pick": None, "flat_below_growth": 0.05, "doublings": [{"growth": 0.01}]}
    data = {"novelty": found, "selected": {"picks": 8}}
    assert returns_in_words(data) == "The budget is too small to tell where returns flatten."
    found["doublings"][-1]["growth"] = 0.2
    assert "from pick 4 to pick 8 novelty grew by 20.0%" in returns_in_words(data)


@pytest.mark.parametrize(
    ("dimension", "budget", "formula_", "layouts"),
    [(6, 40, "paper", (15, 40)), (1, 1, "paper", (15,)), (3, 7, "released", (40,))],
)
def test_any_pool_in_any_layout_gives_one_report(run_here, tmp_path, dimension, budget, formula_, layouts):
    """Blocks of 15 and of 40 rows give the same figures; one dimension, one pick, all picked, with groups or none."""
    points = Points((np.arange(40) * 10**16).tolist(), np.random.default_rng(5).normal(size=(40, dimension)))
    path = write_parquet(tmp_path / "in.parquet", points.ids, points.vectors, kind=[str(i % 25) for i in range(40)])
    options = {"metric": "euclidean", "neighbors": 3, "formula": formula_, "budget": budget}
    options["group_column"] = "kind" if budget == 40 else None
    found = []
    for rows in layouts:
        output = tmp_path / f"out-{rows}"
        run_here("curate", input=path, output=str(output), block_rows=rows, **options)
        content = (output / "report.html").read_text()
        assert content.count("<svg") == (4 if budget == 40 else 3)
        assert ("It reaches 25 of 25 groups, each by its share of the pool." in content) == (budget == 40)
        assert ">nan" not in content
        data = json.loads((output / "report.json").read_text())
        assert data["input"].pop("blocks") == -(-40 // rows)
        for of_the_run in ("finished", "seconds"):
            del data[of_the_run]
        for of_the_run in ("output", "block_rows"):
            del data["settings"][of_the_run]
        found.append(data)
        assert data["selected"]["picks"] == len(data["novelty"]["pick"]) == budget
    assert found == found[:1] * len(layouts)


# --- what a report may not cost ---------------------------------------------------------------------------


def test_a_missing_matplotlib_is_a_usage_error_before_anything_runs(monkeypatch, capsys, tmp_path):
    """One sentence and exit code 2; --no-report gets past it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    arguments = ["--input", "nowhere", "--output", str(tmp_path / "out"), "--budget", "1"]
    monkeypatch.setattr("sys.argv", ["curate.py", *arguments])
    assert main("curate", "") == 2
    done = SimpleNamespace(stderr=capsys.readouterr().err)
    assert (
        "matplotlib, which is not installed; install it (pip install matplotlib) or run with --no-report"
        in error_line(done)
    )
    with pytest.raises(UsageError):
        report.check_report(Settings())
    monkeypatch.setattr("sys.argv", ["curate.py", *arguments, "--no-report"])
    assert main("curate", "") == 3


@pytest.mark.parametrize("broken", ["survey", "write_report"])
def test_a_report_that_fails_costs_nothing_but_itself(run_here, tmp_path, monkeypatch, caplog, broken):
    """The log says why there is none; the selection is published."""

    def fail(*_):
        raise ImportError("broken on purpose")

    monkeypatch.setattr(pipeline, broken, fail)
    path = write_parquet(tmp_path / "in.parquet", range(30), np.random.default_rng(7).normal(size=(30, 3)))
    run_here("curate", input=path, output=str(tmp_path / "out"), budget=4, neighbors=3)
    assert "the selection is not affected" in caplog.text
    assert "broken on purpose" in caplog.text
    assert len(pq.read_table(tmp_path / "out" / "selected")) == 4
    names = sorted(entry.name for entry in (tmp_path / "out").iterdir())
    assert names == ["_MANIFEST.json", "metrics.json", "selected"]


def test_nothing_but_the_page_imports_matplotlib():
    """Neither a run without a report nor an executor needs it."""
    code = "import sys, novelsum.command; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\n\tb  c", "a b c"),
        ("\u202eabc\u200f\ufeff", "[U+202E]abc[U+200F][U+FEFF]"),
        ("\x00\x1b[31m", "[U+0000][U+001B][31m"),
        ("👩\u200d🚀 می\u200cخواهم", "👩\u200d🚀 می\u200cخواهم"),
        ("\ufffe\uffff", "[U+FFFE][U+FFFF]"),
        (None, "None"),
    ],
)
def test_unseen_characters_are_written_as_their_number(text, seen):
    assert shown(text) == seen
    assert escaped(f"{text}<'\"&>") == f"{seen}&lt;&#x27;&quot;&amp;&gt;"


def test_a_terminal_gets_no_character_that_it_might_obey():
    """Replaced one by one, so that text keeps its width."""
    assert printed("a\n\x1b[31m\u202eb\u200d\ufeff", 20) == "a �[31m�b��"
    assert printed("\x1b" * 9, 4) == "���…"


def test_text_is_cut_at_a_width():
    assert shown("abcdef", 6) == "abcdef"
    assert shown("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(
    ("value", "seen"),
    [(None, "–"), (0, "0"), (0.5, "0.500"), (123.4, "123"), (12345.6, "12,346"), (-2, "-2.00"), (1.5e-7, "1.50e-07")],
)
def test_numbers_have_three_digits_or_all_before_the_point(value, seen):
    assert number(value) == seen
