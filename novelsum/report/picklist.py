"""The list of all picks: its rows, taken from the selection as it was written, and how the page holds them.

The page has the first rows as a table, which stands without a script; the script of
:mod:`~novelsum.report.script` takes all rows from a block of JSON, to search and sort them.
"""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from novelsum.files.location import Location
from novelsum.groups import group_of, in_words
from novelsum.report.output import output_name
from novelsum.report.pieces import in_cell
from novelsum.report.pieces import name as breakable
from novelsum.report.text import number, rounded, shown
from novelsum.report.turns import Told, length, told
from novelsum.settings import Settings

MOST_ROWS = 20_000
MOST_BYTES = 8_000_000
"""What the rows may take in the page, as JSON."""
MEASURED_TEXTS = 20_000
"""Of more picks than that the lengths of texts are those of some, evenly spread over the order of picking."""
PLAIN_ROWS = 20
"""Rows that the page shows where no script runs."""
COLUMNS = ("pick", "id", "group", "novelty", "density", "nearest", "length", "text")
_BATCH_ROWS = 1024
_TEXT_KEPT, _ID_KEPT, _GROUP_KEPT = 240, 160, 80


def listed(selected: Location, settings: Settings, picks: int) -> tuple[dict[str, Any], list[int]]:
    """The rows of the list, each as it is shown, and the lengths of the picks' texts.

    ``selected``: the file that holds the picks in their order. Without ``text_column`` and ``group_column`` texts,
    lengths and groups are null.
    """

    def read(file: pq.ParquetFile) -> tuple[dict[str, Any], list[int]]:
        rows: list[list[Any]] = []
        lengths: list[int] = []
        left, every = MOST_BYTES, -(-picks // MEASURED_TEXTS)
        for place, values in enumerate(_values(file, settings)):
            has_room = left > 0 and place < MOST_ROWS
            is_measured = settings.text_column is not None and (has_room or place % every == 0)
            if not has_room and settings.text_column is None:
                break
            measured = length(values["text"]) if is_measured else None
            if measured is not None and place % every == 0:
                lengths.append(measured)
            if has_room:
                row = _row(place + 1, values, measured)
                left -= len(in_script(row).encode()) + 1
                if left > 0:
                    rows.append(row)
        return {"columns": list(COLUMNS), "of": picks, "rows": rows}, lengths

    return selected.parse(read)


def _values(file: pq.ParquetFile, settings: Settings) -> Iterator[dict[str, Any]]:
    """The values of each pick, by what they are here."""
    names = {"id": settings.id_column, "novelty": "novelty", "density": "density", "nearest": "nearest_distance"}
    for name, column in (("group", settings.group_column), ("text", settings.text_column)):
        if column is not None:
            names[name] = output_name(column, settings.id_column)
    for batch in file.iter_batches(_BATCH_ROWS, columns=list(dict.fromkeys(names.values()))):
        for row in batch.to_pylist():
            found = {name: row[column] for name, column in names.items()}
            if "group" in names:
                found["group"] = in_words(group_of(found["group"]))
            yield {"group": None, "text": None} | found


def _row(pick: int, values: dict[str, Any], measured: int | None) -> list[Any]:
    nearest = values["nearest"]
    return [
        pick,
        shown(values["id"], _ID_KEPT),
        values["group"] and shown(values["group"], _GROUP_KEPT),
        rounded(values["novelty"]),
        rounded(values["density"]),
        None if nearest is None else rounded(nearest),
        measured,
        _shown(told(values["text"], _TEXT_KEPT)),
    ]


def _shown(text: Told) -> Any:
    """As it stands on the page."""
    if text is None or isinstance(text, str):
        return text and shown(text, _TEXT_KEPT)
    return [[shown(role), shown(said)] for role, said in text]


def in_script(value: Any) -> str:
    """JSON that may stand in an element of a page, whatever texts it holds: no character of it ends the element."""
    content = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return content


# --- on the page ------------------------------------------------------------------------------------------

_HEADINGS = {
    "pick": ("pick", False),
    "id": ("id", None),
    "group": ("group", False),
    "novelty": ("novelty", True),
    "density": ("density σ", True),
    "nearest": ("nearest before", False),
    "length": ("length", True),
    "text": ("text", None),
}
"""What heads a column, and whether its greatest come first when it is sorted; None: it is not."""


def list_of_picks(data: dict[str, Any]) -> str:
    """The section: tools that a script brings to life, a table of the first rows, and all rows as JSON."""
    found, settings = data["list"], data["settings"]
    rows, of = found["rows"], found["of"]
    columns = [name for name in COLUMNS if name not in _without(settings)]
    all_of_it = "All picks" if len(rows) == of else f"The first {len(rows):,} of {of:,} picks, as more would not fit,"
    plain = min(PLAIN_ROWS, len(rows))
    head = "".join(_head(name) for name in columns)
    body = "".join(f"<tr role=row>{''.join(_cell(name, row) for name in columns)}</tr>" for row in rows[:plain])
    searched = " and ".join(
        filter(None, ["id", "group" if "group" in columns else "", "text" if "text" in columns else ""])
    )
    within = "" if len(rows) == of else f" The other {of - len(rows):,} are in <code>selected/</code> alone."
    return (
        f"<p>{all_of_it} can be searched and sorted here; <code>selected/</code> has them all with every column of the "
        f"input.{within}</p>"
        f"<p id=picks-plain class=note>The first {plain:,} of {of:,} picks; with scripts allowed, this page lists "
        f"{len(rows):,} and lets you search them. All {of:,} are in <code>selected/</code>.</p>"
        "<div id=picks-tools class=tools role=search hidden><label for=picks-find>Search "
        f"{searched}</label><input id=picks-find type=search autocomplete=off spellcheck=false>"
        "<span id=picks-count role=status aria-live=polite></span></div>"
        f"<table id=picks-list class=list role=table aria-label='picks'><thead role=rowgroup><tr role=row>{head}</tr>"
        f"</thead><tbody role=rowgroup>{body}</tbody></table>"
        "<button id=picks-more class=more type=button hidden>Show more picks</button>"
        f"<script type='application/json' id=picks-data>{in_script({'columns': COLUMNS, 'rows': rows})}</script>"
    )


def _without(settings: dict[str, Any]) -> set[str]:
    """The columns for which the run has nothing."""
    return {
        *(() if settings["text_column"] else ("text", "length")),
        *(() if settings["group_column"] else ("group",)),
    }


def _head(name: str) -> str:
    title, greatest_first = _HEADINGS[name]
    sorts = "" if greatest_first is None else f" data-key={name} data-down={int(greatest_first)}"
    return f"<th scope=col role=columnheader class={name} data-column={name}{sorts}>{title}</th>"


def _cell(name: str, row: list[Any]) -> str:
    value = row[COLUMNS.index(name)]
    if name == "pick":
        return f"<th scope=row role=rowheader class=pick>{value:,}</th>"
    if name == "text":
        content = f"<bdi>{in_cell(value, _TEXT_KEPT)}</bdi>"
    elif name in ("id", "group"):
        content = breakable(value or "", _ID_KEPT)
    elif name == "length":
        content = "–" if value is None else f"{value:,}"
    else:
        content = number(value)
    return f"<td role=cell class={name}>{content}</td>"
