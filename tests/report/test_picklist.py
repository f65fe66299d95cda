"""The list of all picks: what a page holds of it, and how."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile import HOSTILE

from novelsum.files.location import Location
from novelsum.report import picklist
from novelsum.report.picklist import in_script, list_of_picks, listed
from novelsum.settings import Settings

SETTINGS = Settings(text_column="text", group_column="kind")


def written(folder, picks: int, texts, groups=None) -> Location:
    """A selection as a run writes it."""
    columns = {
        "pick": range(1, picks + 1),
        "id": [f"id {place}" for place in range(picks)],
        "novelty": [1.0 + place for place in range(picks)],
        "density": [0.5] * picks,
        "nearest_id": [None, *(["id 0"] * (picks - 1))],
        "nearest_distance": pa.array([None, *([0.25] * (picks - 1))], pa.float64()),
        "text": texts,
        "kind": groups or ["a", None] * (picks // 2),
    }
    pq.write_table(pa.table(columns), folder / "selected.parquet", row_group_size=2048)
    return Location.of(str(folder / "selected.parquet"))


def test_a_row_holds_what_is_known_of_a_pick(tmp_path):
    found, lengths = listed(written(tmp_path, 4, ["one", HOSTILE, None, "x" * 500]), SETTINGS, 4)
    assert found["of"] == 4
    assert [row[:3] for row in found["rows"]] == [
        [1, "id 0", "a"],
        [2, "id 1", "(no group)"],
        [3, "id 2", "a"],
        [4, "id 3", "(no group)"],
    ]
    assert found["rows"][0][3:] == [1.0, 0.5, None, 3, "one"]
    assert found["rows"][1][5:7] == [0.25, len(HOSTILE)]
    assert "[U+202E]" in found["rows"][1][7]
    assert found["rows"][2][6:] == [None, None]
    assert found["rows"][3][6:] == [500, "x" * 239 + "…"]
    assert lengths == [3, len(HOSTILE), 500]


def test_without_columns_for_them_there_are_no_texts_lengths_and_groups(tmp_path):
    found, lengths = listed(written(tmp_path, 2, ["a", "b"]), Settings(), 2)
    assert [row[2:3] + row[6:] for row in found["rows"]] == [[None, None, None]] * 2
    assert lengths == []
    html = list_of_picks({"list": found, "settings": {"text_column": None, "group_column": None}})
    assert re.findall("data-column=(\\w+)", html) == ["pick", "id", "novelty", "density", "nearest"]
    assert "Search id</label>" in html


def test_the_rows_of_a_great_selection_are_the_first_that_fit_and_the_page_says_so(tmp_path):
    """At most 20,000, in some megabytes; lengths are those of picks evenly spread over all."""
    picks = 25_000
    selected = written(tmp_path, picks, [f"text {place} " + "<" * (place % 90) for place in range(picks)])
    found, lengths = listed(selected, SETTINGS, picks)
    assert 12_000 < len(found["rows"]) <= picklist.MOST_ROWS
    assert [row[0] for row in found["rows"]] == list(range(1, len(found["rows"]) + 1))
    assert len(in_script(found["rows"]).encode()) <= picklist.MOST_BYTES
    assert len(lengths) == picks / 2
    html = list_of_picks({"list": found, "settings": {"text_column": "text", "group_column": "kind"}})
    assert len(html.encode()) < picklist.MOST_BYTES + 50_000
    shown = f"{len(found['rows']):,}"
    assert html.startswith(f"<p>The first {shown} of 25,000 picks, as more would not fit, can be searched")
    assert f"The other {picks - len(found['rows']):,} are in <code>selected/</code> alone." in html
    assert "The first 20 of 25,000 picks" in html


def test_long_rows_are_fewer(tmp_path, monkeypatch):
    """By their bytes in the page, where a sign of markup takes six."""
    monkeypatch.setattr(picklist, "MOST_BYTES", 100_000)
    found, _ = listed(written(tmp_path, 400, ["<" * 240] * 400), SETTINGS, 400)
    assert 55 <= len(found["rows"]) <= 70
    assert len(in_script(found["rows"])) <= 100_000


@pytest.mark.parametrize("text", ["</script>", "<!-- <script>", "]]>", "\u2028\u2029", '"quoted" \\ & more', HOSTILE])
def test_no_text_ends_the_element_that_holds_it(text):
    content = in_script({"text": text})
    assert json.loads(content) == {"text": text}
    assert not set("<>&\u2028\u2029") & set(content)
