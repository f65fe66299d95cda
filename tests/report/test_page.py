"""The page: a browser shows it whole, alone, and as text."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import browser
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_job
from hostile import COLUMN, HOSTILE_SHOWN, WIDE_GROUP, hostile_sample
from looks import assert_no_overflow, assert_whole_and_alone

from novelsum.report.comparison import NAMES
from novelsum.report.text import number

BUDGET, SHOWN = 40, 5
PICTURES = ["density", "groups", "lengths", "map", "novelty"]
PICTURES_OF_COMPARISON = sorted({*PICTURES, "comparison"} - {"lengths"})
"""Where no column of texts is named."""


@pytest.fixture(scope="module")
def source() -> pa.Table:
    return hostile_sample()


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
def page() -> Iterator[browser.Page]:
    with browser.browser() as started:
        yield started


def test_the_page_is_whole_and_alone(page, output):
    assert_whole_and_alone(page, output / "report.html", PICTURES, 1280)
    assert_no_overflow(page)


def test_the_page_fits_a_phone(page, output):
    assert_whole_and_alone(page, output / "report.html", PICTURES, 360)
    assert_no_overflow(page)


def test_hostile_text_is_shown_as_text(page, output):
    """Markup, quotes and mathematics as they are, unseen characters as their numbers, nothing as an element."""
    page.open((output / "report.html").as_uri())
    assert page.evaluate('document.querySelectorAll("img, iframe, object, b[onclick], link[href^=http]").length') == 0
    kinds = page.evaluate('[...document.querySelectorAll("script")].map(script => script.type)')
    assert kinds == ["application/json", ""]  # the rows of the list, and the page's own
    handlers = '[...document.querySelectorAll("*")].flatMap(e => e.getAttributeNames()).filter(n => n.startsWith("on"))'
    assert page.evaluate(handlers) == []
    seen, held = page.evaluate("document.body.innerText"), page.evaluate("document.documentElement.textContent")
    assert seen.count(HOSTILE_SHOWN) == SHOWN * 4 + 12 + BUDGET  # picks with three neighbours, extremes, the list
    assert not {"\u202e", "\u2066"} & set(held)
    group = "<b onclick='x'>$w$</b>[U+202E]"
    assert group in seen
    labels = page.evaluate('[...document.querySelectorAll("#groups-figure_1 text")].map(label => label.textContent)')
    assert {"<b onclick='x'>$w$</b>[…", f"{WIDE_GROUP[:11]}…"} <= set(labels)
    assert COLUMN in seen
    policy = page.evaluate("document.querySelector('meta[http-equiv]').content")
    own = page.evaluate("document.querySelector('script:not([type])').textContent")
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )


@pytest.mark.more
def test_a_comparison_and_the_recall_are_shown_as_the_manifest_has_them(page, source, run_here, tmp_path):
    """The strategies in the order of NovelSum, and the verdict."""
    path, output = tmp_path / "in.parquet", tmp_path / "out"
    pq.write_table(source.slice(0, 500), path)
    options = {"density_method": "approximate", "compare": True, "budget": BUDGET, "group_column": COLUMN}
    run_here("curate", input=str(path), output=str(output), **options)
    manifest, data = (json.loads((output / name).read_text()) for name in ("_MANIFEST.json", "report.json"))
    for width in (1280, 360):
        assert_whole_and_alone(page, output / "report.html", PICTURES_OF_COMPARISON, width)
        assert_no_overflow(page)
    rows = page.evaluate('[...document.querySelectorAll("tr")].map(row => row.innerText.split(/\\t|\\n/).join(" | "))')
    strategies = manifest["comparison"]["strategies"]
    in_order = sorted(strategies, key=lambda name: -strategies[name]["novelsum"]["paper"]["mean"])
    assert [row["strategy"] for row in data["comparison"]["strategies"]] == in_order
    shown = {row.split(" | ")[0]: row.split(" | ")[1:] for row in rows}
    assert shown[""] == [NAMES[name] for name in in_order]
    for row, key, digits in (
        ("mean NovelSum, paper", "novelsum_paper", 4),
        ("mean NovelSum, released", "novelsum_released", 4),
        ("mean nearest", "mean_nearest_distance", 4),
        ("coverage", "coverage", 4),
        ("groups", "groups", 3),
    ):
        for cell, name in zip(shown[row], in_order, strict=True):
            one = strategies[name]
            value = one["novelsum"][key[9:]]["mean"] if key.startswith("novelsum_") else one[key]
            spread = one.get("spread", {}).get(key)
            assert cell == number(value, digits) + (f" ± {number(spread, 2)}" if spread is not None else "")
    seen = page.evaluate("document.body.innerText")
    assert manifest["comparison"]["verdict"] in seen
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
