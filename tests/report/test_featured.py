"""A run with everything: quotas, quality, costs, near-copies, samples from before, approximate density, chats.

One real job, whose figures and words are held against what NumPy finds, and whose page is looked at in Chromium: on a
phone, on paper, with the keyboard, and without scripts.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import run_job
from featured import ARGUMENTS, BEFORE, COPIES, ROWS, write_featured
from hostile import HOSTILE_SHOWN
from looks import (
    assert_no_overflow,
    assert_quiet,
    assert_whole_and_alone,
    press,
    printed,
    texts_of,
    too_pale,
)

from novelsum import formula

PICTURES = ["density", "groups", "lengths", "map", "novelty"]
ROW = "document.querySelectorAll('#picks-list tbody tr')"
FIRST = f"[...{ROW}].map(row => row.querySelector('.pick').textContent)"
COUNT = "document.getElementById('picks-count').textContent"


class Run:
    """The folder of a run, what it printed, and what it left."""

    def __init__(self, folder: Path, stdout: str) -> None:
        self.folder, self.stdout = folder, stdout
        self.page = folder / "out" / "report.html"
        self.data: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
        self.manifest: dict[str, Any] = json.loads((folder / "out" / "_MANIFEST.json").read_text())
        self.picks = pq.read_table(folder / "out" / "selected").to_pylist()
        self.input = {row["id"]: row for row in pq.read_table(folder / "in.parquet").to_pylist()}
        dropped = pq.read_table(folder / "out" / "duplicates").column("id").to_pylist()
        self.candidates = [row for id_, row in self.input.items() if id_ not in set(dropped)]
        self.before = set(pq.read_table(folder / "before.parquet").column("id").to_pylist())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("featured")
    source, before = write_featured(folder)
    arguments = ["--input", source, "--already-selected", before, "--budget", 150, "--output", folder / "out"]
    done = run_job("curate", *arguments, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    return Run(folder, done.stdout)


@pytest.fixture(scope="module")
def chromium() -> Iterator[browser.Page]:
    with browser.browser() as started:
        yield started


@pytest.fixture
def page(chromium, run) -> browser.Page:
    chromium.open(run.page.as_uri())
    return chromium


@pytest.fixture(scope="module")
def words(chromium, run) -> str:
    """What a reader sees before the first picture."""
    chromium.open(run.page.as_uri())
    return " ".join(chromium.evaluate("document.querySelector('header').innerText").split())


# --- figures ----------------------------------------------------------------------------------------------


def test_means_of_quality_and_cost_are_those_of_numpy(run, words):
    """Of the pool without copies, and of the picks."""
    quality, cost = (
        [np.mean([row[name] for row in rows]) for rows in (run.picks, run.candidates)] for name in ("quality", "tokens")
    )
    assert run.data["quality"] == pytest.approx({"selected_mean": quality[0], "pool_mean": quality[1]}, rel=1e-5)
    assert run.data["cost"]["selected_mean"] == pytest.approx(cost[0], rel=1e-5)
    assert run.data["cost"]["pool_mean"] == pytest.approx(cost[1], rel=1e-5)
    spent = sum(row["tokens"] for row in run.picks)
    assert run.data["cost"]["selected"] == spent == run.manifest["selected"]["cost"]
    assert f"Quality (quality). The picks have {quality[0]:.4f} on average, the pool {quality[1]:.4f}." in words
    assert (
        f"Costs (tokens). The picks cost {spent:,.0f} of a budget of 40,000: {cost[0]:.1f} each on average, where the "
        f"pool’s candidates cost {cost[1]:.1f}." in words
    )
    assert f"It ended after {len(run.picks)} picks, as nothing that was left could still be paid." in words


def test_quotas_show_what_was_asked_and_picked(run, words):
    picked = Counter(row["group"] for row in run.picks)
    found = {
        row["group"]: (row["given"], row["least"], row["most"], row["picks"]) for row in run.data["quotas"]["groups"]
    }
    assert found == {
        "wordnet": ("20:40", 20, 40, picked["wordnet"]),
        "live_multiple": (":6", 0, 6, picked["live_multiple"]),
    }
    groups = {row["group"] for row in run.candidates}
    others = [picked[group] for group in groups - set(found)]
    assert run.data["quotas"]["others"] == {
        "given": ":30%",
        "count": len(others),
        "fewest_picks": min(others),
        "most_picks": max(others),
    }
    assert "2 groups of group have one" in words
    assert f"each of the {len(others)} others has that of *" in words
    if picked["wordnet"] < 20:
        assert f"1 least number could not be met: wordnet has {picked['wordnet']} of at least 20" in words
        assert run.manifest["selected"]["unmet"] == {"wordnet": [picked["wordnet"], 20]}


def test_samples_selected_before_are_told_and_count_in_s(run, words):
    """The first pick is not said to be drawn; no doubling of S is claimed; none of them is shown as left out."""
    assert run.data["selected"]["already_selected"] == BEFORE
    assert f"Samples selected before. S held {BEFORE} samples at the first pick, those of" in words
    assert "before.parquet" in words
    assert "drawn" not in words
    assert f"The first pick, {run.picks[0]['id']}, was chosen against the samples selected before" in words
    assert run.data["novelty"]["flat_from_pick"] is None
    assert "Where returns flatten cannot be told: S held 100 samples before the first pick" in words
    assert [row["selected"] - row["pick"] for row in run.data["novelty"]["doublings"]] == [BEFORE]
    near = {one["id"] for pick in run.data["first_picks"] for one in pick["nearest_rejected"]}
    assert not near & run.before
    number = {row["id"]: row["pick"] for row in run.picks}
    for one in (one for side in run.data["extremes"].values() for one in side):
        assert one["selected_before"] == (one["id"] in run.before)
        assert one["pick"] == number.get(one["id"])


def test_near_copies_and_approximate_density_are_told(run, words):
    found, density = run.data["input"], run.data["density_estimate"]
    assert found["near_duplicates_dropped"] >= COPIES
    assert found["candidates"] == len(run.candidates) < ROWS
    assert f"{found['near_duplicates_dropped']} near-copies and {found['duplicates_dropped']} equal ones" in words
    assert "Of rows within 0.001 of one another the best by quality stayed" in words
    assert density["method"] == "approximate"
    assert f"{100 * density['recall']:.2f}% of the nearest neighbours were found, measured on" in words
    assert re.search(r"σ is off by \S+% at the median and \S+% at the 99th percentile", words)


def test_the_rule_of_the_picks_is_the_one_they_were_chosen_by(run, words):
    assert "Each pick has the greatest v(x)·q, v(x) being its novelty" in words
    assert "of the candidates where its group may have another by the quotas and its cost still fits" in words
    html = run.page.read_text()
    assert "is what NovelSelect optimises" not in html.partition("Against other strategies")[0]
    assert "leaves out the σ of x itself" in html
    assert "What else was to be heeded, quality, quotas, costs and samples selected before, takes some of it." in html


def test_novelsum_of_all_picks_is_that_of_the_formula(run):
    """By the density factors that the picks have, approximate as they are."""
    by_id = sorted(run.picks, key=lambda row: row["id"])
    vectors = np.array([run.input[row["id"]]["embedding"] for row in by_id], np.float32)
    expected = formula.novelsum(formula.distances(vectors, vectors), np.array([row["density"] for row in by_id]))
    found = run.data["novelsum"][-1]
    assert found["picks"] == len(run.picks)
    assert found["novelsum_mean"] == pytest.approx(expected.mean, rel=1e-5)


def test_lengths_are_those_of_the_chats_without_their_system_turns(run):
    def length(row: dict[str, Any]) -> int:
        return len("\n".join(turn["content"] for turn in row["chat"] if turn["role"] != "system"))

    of_picks = [length(row) for row in run.picks]
    assert [row[6] for row in run.data["list"]["rows"]] == of_picks
    assert run.data["lengths"]["selected_mean"] == pytest.approx(np.mean(of_picks), rel=1e-5)
    assert run.data["lengths"]["pool_mean"] == pytest.approx(np.mean([length(row) for row in run.candidates]), rel=1e-5)


def test_what_is_printed_tells_of_the_features_too(run):
    """And shows chats as turns."""
    assert f"before     S began with {BEFORE} samples, " in run.stdout
    assert re.search(r"quality    mean 0\.\d+ of the picks, 0\.\d+ of the pool", run.stdout)
    assert re.search(r"cost       [\d,]+ of 40,000; mean [\d.]+ of the picks, [\d.]+ of the pool", run.stdout)
    assert re.search(r"density    approximate: recall 0\.\d+, error of σ", run.stdout)
    assert re.search(r"live_multiple +:6 +\d", run.stdout)
    assert "[{'role'" not in run.stdout
    assert "  user: " in run.stdout
    assert "  system: " not in run.stdout


# --- the page ---------------------------------------------------------------------------------------------


def test_chats_are_shown_as_turns(page, run):
    seen = page.evaluate("document.body.innerText")
    assert "'role'" not in seen
    assert '"role"' not in seen
    roles = set(page.evaluate("[...document.querySelectorAll('.role')].map(role => role.textContent)"))
    assert roles == {"system:", "user:", "assistant:"}


@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_is_whole_alone_and_fits(chromium, run, width):
    assert_whole_and_alone(chromium, run.page, PICTURES, width)
    assert_no_overflow(chromium)


@pytest.mark.parametrize("width", [1280, 360])
def test_all_text_has_the_contrast_of_wcag_aa(chromium, run, width):
    chromium.open(run.page.as_uri(), width)
    assert too_pale(chromium) == []


def test_what_is_too_pale_is_found(chromium):
    """By the rule that finds nothing in a report."""
    chromium.open(
        "data:text/html,<p style='color:%23999'>pale<p style='color:%23555'>dark<p style='background:black'>x"
    )
    assert [words for words, *_ in too_pale(chromium)] == ["pale", "x"]


def test_on_paper_nothing_is_cut_off_and_no_page_is_empty(page, run):
    """A4; the page begins on the first sheet."""
    pages = printed(page)
    assert 3 <= len(pages) <= 40
    assert texts_of(pages[0]) > 10
    assert all(texts_of(content) > 0 for content in pages[1:])
    assert page.evaluate("getComputedStyle(document.querySelector('#picks-find')).display") != "none"


def test_hostile_texts_run_none_of_their_scripts(page, run):
    """In the list they are set by a script, from JSON that holds them."""
    assert HOSTILE_SHOWN in page.evaluate("document.getElementById('picks-list').innerText")
    assert page.evaluate("document.querySelectorAll('img, iframe, b[onclick], [onerror]').length") == 0
    assert page.evaluate("document.scripts.length") == 2
    html = run.page.read_text()
    assert html.count("</script>") == 2
    assert not {"\u202e", "\u2066"} & set(html)
    assert_quiet(page)


def test_the_list_is_searched_as_one_types(page, run):
    """In id, group and text, words in any order; what is found is counted."""
    total = len(run.picks)
    assert page.evaluate(COUNT) == f"{total} picks, the first 50 shown"
    page.evaluate("document.getElementById('picks-find').focus()")
    page.call("Input.insertText", text="WORDNET of")

    def words_of(row: list[Any]) -> str:
        return f"{row[1]} {row[2]} {' '.join(f'{role}: {said}' for role, said in row[7])}".lower()

    expected = [str(row[0]) for row in run.data["list"]["rows"] if all(w in words_of(row) for w in ("wordnet", "of"))]
    assert 0 < len(expected) < 50
    page.evaluate("new Promise(done => setTimeout(done, 50))")
    wait_for(page, f"{COUNT} === '{len(expected)} of {total} picks found'")
    assert page.evaluate(FIRST) == expected
    assert page.evaluate("document.getElementById('picks-count').getAttribute('aria-live')") == "polite"


def wait_for(page: browser.Page, condition: str) -> None:
    for _ in range(200):
        if page.evaluate(condition):
            return
    raise AssertionError(f"{condition}: {page.evaluate(COUNT)}")


def test_the_keyboard_reaches_search_and_sorts(page, run):
    """Tab goes from the search to each heading that sorts; where it is can be seen; Enter sorts, and again the other
    way round.
    """
    reached = []
    for _ in range(60):
        press(page, "Tab")
        at = page.evaluate(
            """(at => ({id: at.id, key: at.closest("th") ? at.closest("th").dataset.key : "",
                outline: parseFloat(getComputedStyle(at).outlineWidth), style: getComputedStyle(at).outlineStyle
            }))(document.activeElement)"""
        )
        assert at["style"] != "none", at
        assert at["outline"] >= 2, at
        reached.append(at["id"] or at["key"])
        if at["key"] == "novelty":
            break
    assert reached[-4:] == ["picks-find", "pick", "group", "novelty"]
    rows = run.data["list"]["rows"]
    press(page, "Enter")
    assert page.evaluate(FIRST) == [str(row[0]) for row in sorted(rows, key=lambda row: (-row[3], row[0]))[:50]]
    assert page.evaluate("document.querySelector('th.novelty').getAttribute('aria-sort')") == "descending"
    press(page, "Enter")
    assert page.evaluate(FIRST) == [str(row[0]) for row in sorted(rows, key=lambda row: (row[3], row[0]))[:50]]
    assert page.evaluate("[...document.querySelectorAll('[aria-sort=ascending]')].map(head => head.dataset.key)") == [
        "novelty"
    ]


@pytest.mark.parametrize(("key", "place"), [("group", 2), ("density", 4), ("nearest", 5), ("length", 6)])
def test_the_list_is_sorted_by_any_of_its_numbers_and_by_group(page, run, key, place):
    rows = run.data["list"]["rows"]
    for _ in range(2):
        page.evaluate(f"document.querySelector('th.{key} button').click()")
        down = page.evaluate(f"document.querySelector('th.{key}').getAttribute('aria-sort')") == "descending"
        expected = sorted(sorted(rows, key=lambda row: row[0]), key=lambda row: row[place], reverse=down)
        assert page.evaluate(FIRST) == [str(row[0]) for row in expected[:50]]
    page.evaluate("document.getElementById('picks-more').click()")
    assert page.evaluate(f"{ROW}.length") == len(rows)
    assert page.evaluate("document.getElementById('picks-more').hidden")


def test_without_scripts_the_first_picks_and_where_all_are_can_be_read(chromium, run):
    chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(run.page.as_uri())
        seen = chromium.evaluate("document.body.innerText")
        shown = chromium.evaluate(f"[...{ROW}].map(row => row.innerText)")
    finally:
        chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    assert f"The first 20 of {len(run.picks)} picks" in seen
    assert f"All {len(run.picks)} are in selected/." in seen
    assert len(shown) == 20
    assert "user: " in shown[0]
    assert "Show more picks" not in seen
    assert "Search id" not in seen
