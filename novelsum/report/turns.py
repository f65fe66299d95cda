"""Texts as a report shows them: a plain one, or the turns of a chat with their roles. Nothing here knows HTML.

A value of the text column is a text; or a chat, as a list of turns, one turn, an object that holds such a list, or JSON
of any of these. By which names says
:mod:`novelsum.chats`.
"""

import json
from typing import Any

from novelsum.chats import CHATS, CONTENT, ROLE, SYSTEM
from novelsum.report.text import cut, one_line

Turn = tuple[str, str]
"""Role and text."""
Told = str | list[Turn] | None
"""A text, or the turns of a chat, or nothing. In ``report.json`` a turn is a list of its role and its text."""

_SYSTEM_KEPT = 80
"""Characters that are shown of a system turn, which many samples share."""
_ROLE_KEPT = 40


def told(value: Any, width: int | None = None) -> Told:
    """What is shown of a value of the text column, in about ``width`` characters."""
    if value is None:
        return None
    turns = _turns(value)
    if turns is None:
        return cut(_plain(value), width)
    return _cut_turns(turns, width)


def in_a_line(text: Told) -> str:
    """A text, or turns one after the other with their roles, on one line; of the system none if others are there."""
    if text is None or isinstance(text, str):
        return " ".join((text or "").split())
    turns = [turn for turn in text if turn[0] not in SYSTEM] or text
    return " / ".join(f"{role}: {' '.join(said.split())}" if role else " ".join(said.split()) for role, said in turns)


def length(value: Any) -> int | None:
    """How many characters a value of the text column has; of a chat, as it is embedded: without roles and system turns.

    None where there is no text.
    """
    if value is None:
        return None
    turns = _turns(value)
    if turns is None:
        return len(_plain(value))
    return len("\n".join(said for role, said in turns if said and role not in SYSTEM))


def _plain(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    return value if isinstance(value, str) else str(value)


def _turns(value: Any) -> list[Turn] | None:
    """The turns of a chat, None where the value is none."""
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, dict):
        inner = next((value[name] for name in CHATS if value.get(name)), None)
        value = [value] if inner is None else _parsed(inner) if isinstance(inner, str) else inner
    if not isinstance(value, list) or not value or not all(map(_is_turn, value)):
        return None
    return [_turn(turn) for turn in value]


def _parsed(text: str) -> Any:
    """The value of JSON that may be a chat; None of any other text, which is not parsed where a look tells that."""
    start = text.lstrip()[:1]
    if not start or start not in "[{" or not any(f'"{name}"' in text for name in ROLE):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and any(name in value for name in ROLE) and any(name in value for name in CONTENT)


def _turn(turn: dict[str, Any]) -> Turn:
    role = next((str(turn[name]) for name in ROLE if turn.get(name) is not None), "")
    content = next((turn[name] for name in CONTENT if turn.get(name) is not None), None)
    return cut(one_line(role, None, str), _ROLE_KEPT), _said(content, turn)


def _said(content: Any, turn: dict[str, Any]) -> str:
    """The text of a turn: of its parts, where it has several; and where it has none, what it calls."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part if isinstance(part, str) else _of_part(part) for part in content]
        return "\n".join(part for part in parts if part)
    if content is not None:
        return str(content)
    calls = turn.get("tool_calls")
    named = [_called(call) for call in calls] if isinstance(calls, list) else []
    return f"(calls {', '.join(filter(None, named)) or 'a tool'})" if named else ""


def _of_part(part: Any) -> str:
    if not isinstance(part, dict):
        return str(part)
    text = part.get("text")
    return text if isinstance(text, str) else f"({part.get('type') or 'no text'})"


def _called(call: Any) -> str:
    """The name of the function that a call of a tool names."""
    function = call.get("function") if isinstance(call, dict) else None
    name = (function if isinstance(function, dict) else call if isinstance(call, dict) else {}).get("name")
    return str(name) if name is not None else ""


def _cut_turns(turns: list[Turn], width: int | None) -> list[Turn]:
    """Turns of about so many characters together; system turns are cut first, then what comes last."""
    if width is None:
        return turns
    kept: list[Turn] = []
    left = width
    for place, (role, said) in enumerate(turns):
        if left <= 0:
            kept.append(
                ("", f"… and {len(turns) - place} more turns" if len(turns) - place > 1 else "… and one more turn")
            )
            break
        room = min(left, _SYSTEM_KEPT) if role in SYSTEM else left
        kept.append((role, cut(said, max(2, room))))
        left -= len(kept[-1][1])
    return kept
