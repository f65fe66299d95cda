"""The text and the id of a record, whatever data set it comes from. Nothing here knows Spark or files.

Turns are joined as the authors of NovelSum join them (their README, "Corresponding Plain Text Format"): the contents of
user and assistant turns, a line break between each two, nothing before or after. That format has no system turns, so
they are left out; a prompt that all samples share would only make them alike.
"""

import hashlib
import json
from collections.abc import Collection
from typing import Any

from novelsum.chats import CHATS, CONTENT, ROLE, SYSTEM

PLAIN = (("text",), ("instruction", "input", "output"), ("prompt", "completion", "response"))
"""Fields of a plain sample; the first of each row must be there, what else is there is joined to it."""
FIELDS = (*CHATS, *(name for names in PLAIN for name in names))

FAULTS = {
    "not JSON": ("are not JSON", "write them again"),
    "no text": (
        f"have none of the fields {', '.join((*CHATS, *(names[0] for names in PLAIN)))}",
        "name the field of their text with --text-field",
    ),
    "wrong type": (
        "hold something else than text, a list of turns or a list of texts in the field of their text",
        "name another with --text-field",
    ),
    "empty text": ("have an empty text", "take them out"),
    "no id": ("have no id, while others have one", "give every record one, or --content-ids to make ids of the texts"),
    "bad id": (
        "have an id that is neither a string nor a whole number below 2^63",
        "mend it, or give --content-ids to make ids of the texts",
    ),
}
"""What may be wrong with a record: what such records do, and what to do about them; in the order they are reported."""


class RecordError(Exception):
    """A record that cannot be embedded: ``reason``, a key of FAULTS, and perhaps ``detail``."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def parsed(raw: bytes) -> Any:
    """The value of a record of JSON; raise RecordError where it is none."""
    try:
        return json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise RecordError("not JSON", str(error) or "nested too deeply") from None


def text_of(record: Any, field: str | None = None) -> str:
    """The text of a record: an object with the ``field``, or with one of FIELDS; a list of turns; or a text itself.

    It is :func:`storable`. Raises RecordError.
    """
    if not isinstance(record, dict):
        parts = _parts(record)
    elif field is not None:
        if record.get(field) is None:
            raise RecordError("no text", f"no field {field!r}")
        parts = _parts(record[field])
    else:
        parts = _found(record)
    text = "\n".join(part for part in parts if part)
    if not text.strip():
        raise RecordError("empty text")
    return storable(text)


def is_the_text(name: str, field: str | None, names: Collection[str]) -> bool:
    """Whether the text of records with fields of these names is that of one field alone: ``name``."""
    return name == field if field is not None else name == "text" and not any(chat in names for chat in CHATS)


def storable(text: str) -> str:
    """The text as UTF-8 can hold it: a half of a surrogate pair, which JSON can escape, becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _found(record: dict[str, Any]) -> list[str]:
    for name in CHATS:
        if record.get(name) is not None:
            return _parts(record[name])
    for first, *others in PLAIN:
        if record.get(first) is not None:
            given = [record[name] for name in (first, *others) if record.get(name) is not None]
            return [part for value in given for part in _parts(value)]
    raise RecordError("no text")


def _parts(value: Any) -> list[str]:
    """The texts of a field: a text; a turn; or turns or texts in a list."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [_turn(value)]
    if isinstance(value, list):
        return [one if isinstance(one, str) else _turn(one) for one in value]
    raise RecordError("wrong type", f"a value of type {type(value).__name__}")


def _turn(turn: Any) -> str:
    """The text of a turn, empty where it is a system turn, or has none as where an assistant only calls a tool."""
    if not isinstance(turn, dict) or not any(name in turn for name in CONTENT):
        raise RecordError("wrong type", "a turn that is no object with content or value")
    if any(turn.get(name) in SYSTEM for name in ROLE):
        return ""
    content = next((turn[name] for name in CONTENT if turn.get(name) is not None), "")
    if isinstance(content, str):
        return content
    if isinstance(content, list):  # the parts of a content, as OpenAI has them; images have no text
        texts = [
            part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, str | dict)
        ]
        return "\n".join(text for text in texts if isinstance(text, str) and text)
    raise RecordError("wrong type", f"a content of type {type(content).__name__}")


def id_of(record: Any, field: str) -> str | int | None:
    """The id of a record, None where it has none. Raises RecordError where it can be none."""
    id_ = record.get(field) if isinstance(record, dict) else None
    if id_ is None or (type(id_) is int and -(2**63) <= id_ < 2**63):
        return id_
    if isinstance(id_, str):
        try:
            id_.encode()
        except UnicodeEncodeError:
            raise RecordError("bad id", "half of a surrogate pair") from None
        return id_
    raise RecordError("bad id", f"a value of type {type(id_).__name__}")


def digest_of(text: str) -> bytes:
    """What tells a text from all others (16 bytes); in hexadecimal digits it is the id of a record that has none."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
