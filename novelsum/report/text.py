"""What a reader sees: text of others made safe to look at, so that a page holds it as text, and numbers."""

import html
import unicodedata

_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}\N{SOFT HYPHEN}"


def shown(value: object, width: int | None = None) -> str:
    """Text on one line, cut at ``width``; characters that act unseen, such as U+202E, are written as their number."""
    text = " ".join(str(value).split())
    text = "".join(f"[U+{ord(c):04X}]" if _is_unseen(c) else c for c in text)
    return text if width is None or len(text) <= width else text[: width - 1] + "…"


def escaped(value: object, width: int | None = None) -> str:
    """The same as HTML."""
    return html.escape(shown(value, width))


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits, or all of those before its point; a dash for none."""
    if value is None:
        return "–"
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:#,.{digits}g}".rstrip(".") if value else "0"


def _is_unseen(character: str) -> bool:
    """Whether it is a control or a format character (joiners of emoji and scripts are none), or no character."""
    if unicodedata.category(character) in ("Cc", "Cf", "Cs"):
        return character not in _JOINERS
    return ord(character) & 0xFFFE == 0xFFFE
