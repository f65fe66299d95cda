"""Pieces of HTML that the sections of a page are made of. All text of others is escaped."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from novelsum.report.text import cut, escaped, shown
from novelsum.report.turns import Told


class Numbering:
    """Numbers of figures in the order of the page."""

    def __init__(self) -> None:
        self._last = 0

    def figure(self, svg: str, caption: str) -> str:
        """A picture with its numbered caption."""
        self._last += 1
        return (
            f"<figure><div class=plate>{svg}</div>"
            f"<figcaption><b>Figure {self._last}.</b> {caption}</figcaption></figure>"
        )


def section(heading: str, content: str) -> str:
    """A section of the page."""
    return f"<section><h2>{heading}</h2>{content}</section>"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> str:
    """A table whose cells are HTML; the first column heads its row."""
    head = "".join(f"<th scope=col>{heading}</th>" for heading in headings)
    body = "".join(
        f"<tr><th scope=row>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows
    )
    note = f"<p class=note>{note}</p>" if note else ""
    return f"<div class=table><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"


def flat(values: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Nested values with their names joined."""
    found: list[tuple[str, Any]] = []
    for key, inner in values.items():
        found += flat(inner, f"{above}{key} ") if isinstance(inner, dict) else [(f"{above}{key}", inner)]
    return found


def value(of: Any) -> str:
    """A value of a setting or of a count."""
    if of is None or of in ([], ()):
        return "–"
    if isinstance(of, bool):
        return "yes" if of else "no"
    if isinstance(of, int):
        return f"{of:,}"
    if isinstance(of, list | tuple):
        return "<br>".join(map(value, of[:20])) + ("<br>…" if len(of) > 20 else "")
    return f"{of:.6g}" if isinstance(of, float) else name(of, 200)


def name(of: object, width: int) -> str:
    """A name from outside, which may be broken after its punctuation."""
    breakable = re.sub(r"([_:/.-])", r"\1<wbr>", escaped(of, width))
    return f"<bdi>{breakable}</bdi>"


def sample(one: dict[str, Any], width: int) -> str:
    """Id, group and text of a sample."""
    group = "" if one["group"] is None else f" <span class=group>· {name(one['group'], 60)}</span>"
    return f"<p class=id>{name(one['id'], 120)}{group}</p>{text(one['text'], width)}"


def text(of: Told, width: int) -> str:
    """A text as a paragraph, a chat as one for each turn."""
    if of is None:
        return ""
    if isinstance(of, str):
        return f"<p class=text dir=auto>{escaped(of, width)}</p>"
    turns, left = [], width
    for role, said in of:
        if left <= 0:
            break
        words = shown(said, left)
        left -= len(words)
        label = f"<b class=role>{escaped(role)}:</b> " if role else ""
        turns.append(f"<p class='text turn' dir=auto>{label}{html.escape(words)}</p>")
    return "".join(turns)


def in_cell(of: Any, width: int) -> str:
    """A text, or turns, within a cell of a table, on lines that flow."""
    if of is None:
        return ""
    if isinstance(of, str):
        return html.escape(cut(of, width))
    return " ".join(
        (f"<b class=role>{html.escape(role)}:</b> " if role else "") + html.escape(said) for role, said in of
    )
