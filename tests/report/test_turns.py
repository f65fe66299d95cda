"""Texts as a report shows them: chats as turns with their roles, whatever they are written as."""

import json

import pytest

from novelsum.report.turns import in_a_line, length, told
from novelsum.text.texts import text_of

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "4"},
]
TURNS = [("system", "Be brief."), ("user", "What is 2 + 2?"), ("assistant", "4")]


@pytest.mark.parametrize(
    "value",
    [
        CHAT,
        {"messages": CHAT},
        json.dumps(CHAT),
        json.dumps({"messages": CHAT, "id": 7}),
        {"messages": json.dumps(CHAT)},
        [{"from": turn["role"], "value": turn["content"]} for turn in CHAT],
        {"conversations": [{"from": turn["role"], "value": turn["content"]} for turn in CHAT]},
        [{**turn, "name": None, "tool_calls": None} for turn in CHAT],
        [{"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]} for turn in CHAT],
    ],
    ids=[
        "list",
        "record",
        "JSON",
        "JSON of a record",
        "JSON in a record",
        "ShareGPT",
        "conversations",
        "nulls",
        "parts",
    ],
)
def test_a_chat_is_its_turns(value):
    assert told(value) == TURNS
    assert in_a_line(told(value)) == "user: What is 2 + 2? / assistant: 4"
    assert length(value) == len("What is 2 + 2?\n4") == len(text_of(CHAT))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("[1, 2]", "[1, 2]"),
        ('{"a": "role"', '{"a": "role"'),
        ('[{"role": "no content"}]', '[{"role": "no content"}]'),
        ("[" * 100_000 + '"role"', "[" * 100_000 + '"role"'),
        (["two", "texts"], "two\ntexts"),
        (12.5, "12.5"),
        ([], ""),
        ({"a": 1}, "{'a': 1}"),
    ],
)
def test_what_is_no_chat_is_a_text(value, expected):
    assert told(value) == expected
    assert length(value) == len(expected)


def test_no_text_is_none():
    assert told(None) is None
    assert length(None) is None
    assert in_a_line(None) == ""


def test_a_turn_without_words_says_what_it_calls():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "search"}}, "odd"]}
    assert told([call]) == [("assistant", "(calls search)")]
    assert told([{"role": "user", "content": [{"type": "image_url"}]}]) == [("user", "(image_url)")]
    assert told([{"role": None, "content": None}]) == [("", "")]


def test_long_chats_are_cut_system_turns_first():
    """What many samples share must not hide what they differ in."""
    chat = [
        {"role": "system", "content": "s" * 500},
        {"role": "user", "content": "u" * 100},
        *({"role": "assistant", "content": "a" * 100} for _ in range(5)),
    ]
    found = told(chat, 240)
    assert found[0] == ("system", "s" * 79 + "…")
    assert found[1] == ("user", "u" * 100)
    assert found[2] == ("assistant", "a" * 59 + "…")
    assert found[3:] == [("", "… and 4 more turns")]
    assert told("x" * 300, 240) == "x" * 239 + "…"
    assert length([{"role": "system", "content": "only that"}]) == 0
