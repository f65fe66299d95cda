"""What a reader sees: text of others made safe to look at, so that a page holds it as text, and numbers."""

import html
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np

_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}\N{SOFT HYPHEN}"


def cut(text: str, width: int | None) -> str:
    """Text of at most ``width`` characters, the last an ellipsis where others are left out."""
    return text if width is None or len(text) <= width else text[: width - 1] + "…"


def one_line(value: object, width: int | None, seen: Callable[[str], str]) -> str:
    """Text on one line, cut at ``width``, each character as ``seen`` writes it: as one or more."""
    text = " ".join(str(value).split())
    return cut("".join(map(seen, text if width is None else text[: width + 1])), width)


def shown(value: object, width: int | None = None) -> str:
    """Text for a page: characters that act unseen, such as U+202E, are written as their number."""
    return one_line(value, width, lambda c: f"[U+{ord(c):04X}]" if _is_unseen(c) else c)


def printed(value: object, width: int) -> str:
    """Text for a terminal, which obeys control characters: they and all others that may act unseen are replaced."""
    return one_line(value, width, lambda c: "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" else c)


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


def amount(value: float) -> str:
    """What something costs: whole numbers with all their digits."""
    return f"{value:,.0f}" if value == int(value) else number(value, 4)


def percent(change: float | None) -> str:
    """A change as a percentage with its sign; a dash for none."""
    return "–" if change is None else f"{100 * change:+.1f}%".replace("-", "\N{MINUS SIGN}")


def share(part: float, whole: float) -> str:
    """A part as a percentage of a whole, which may be 0."""
    return f"{100 * part / max(1, whole):.1f}%"


def rounded(values: Any) -> Any:
    """A number or numbers with six digits, null where infinite or not a number."""
    if np.ndim(values):
        return [rounded(value) for value in values]
    return float(f"{values:.6g}") if np.isfinite(values) else None


def _is_unseen(character: str) -> bool:
    """Whether it is a control or a format character (joiners of emoji and scripts are none), or no character."""
    if unicodedata.category(character) in ("Cc", "Cf", "Cs"):
        return character not in _JOINERS
    return ord(character) & 0xFFFE == 0xFFFE
