"""The text of a record, in each layout that data sets have."""

import json

import pytest

from novelsum.text.texts import RecordError, digest_of, id_of, parsed, text_of

HI, LO = "Name a colour.", "Blue."


@pytest.mark.parametrize(
    "record",
    [
        {"text": f"{HI}\n{LO}"},
        {"messages": [{"role": "user", "content": HI}, {"role": "assistant", "content": LO}]},
        {"conversations": [{"from": "human", "value": HI}, {"from": "gpt", "value": LO}]},
        {"instruction": HI, "input": "", "output": LO},
        {"instruction": "Name a", "input": "colour.\nBlue.", "output": None, "text": f"{HI}\n{LO}"},
        {"prompt": HI, "completion": LO},
        {"prompt": [{"role": "user", "content": HI}], "response": [{"role": "assistant", "content": LO}]},
        {"prompt": HI, "messages": [{"role": "user", "content": HI}, {"role": "assistant", "content": LO}]},
        {"messages": None, "text": f"{HI}\n{LO}"},
        [{"from": "user", "value": HI}, {"from": "assistant", "value": LO}],
        f"{HI}\n{LO}",
        [HI, LO],
    ],
)
def test_a_sample_has_the_same_text_in_every_layout(record):
    """Turns are joined by one line break as the authors do: user_1, assistant_1, user_2, ..."""
    assert text_of(record) == "Name a colour.\nBlue."


def test_a_system_turn_is_left_out_and_a_tool_turn_is_not():
    chat = [
        {"role": "system", "content": "You are helpful."},
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": HI},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "#00f"},
        {"role": "assistant", "content": LO},
    ]
    assert text_of({"messages": chat}) == "Name a colour.\n#00f\nBlue."


def test_parts_of_a_content_are_joined_and_images_are_passed_over():
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "x"}}, "And that?"]
    assert text_of({"messages": [{"role": "user", "content": parts}]}) == "What is this?\nAnd that?"


def test_a_named_field_is_taken_whatever_else_there_is():
    record = {"text": "no", "body": "yes", "turns": [{"role": "user", "content": "turn"}]}
    assert text_of(record, "body") == "yes"
    assert text_of(record, "turns") == "turn"


def test_spaces_and_line_breaks_of_a_text_stay():
    assert text_of({"text": "  a\r\n\n b\t"}) == "  a\r\n\n b\t"


def test_half_of_a_surrogate_pair_becomes_a_replacement_character():
    assert text_of(parsed(b'{"text": "cut \\ud83d here, whole \\ud83d\\ude00"}')) == "cut \ufffd here, whole \U0001f600"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"txt": "a"}, "no text"),
        ({}, "no text"),
        ({"text": None}, "no text"),
        ({"text": ""}, "empty text"),
        ({"text": " \n\t"}, "empty text"),
        ({"messages": []}, "empty text"),
        ({"messages": [{"role": "system", "content": "Be brief."}]}, "empty text"),
        ({"text": 7}, "wrong type"),
        ({"text": True}, "wrong type"),
        ({"messages": [7]}, "wrong type"),
        ({"messages": [{"role": "user"}]}, "wrong type"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "wrong type"),
        (7, "wrong type"),
        (None, "wrong type"),
    ],
)
def test_a_record_without_a_text_is_told_why(record, reason):
    with pytest.raises(RecordError) as told:
        text_of(record)
    assert told.value.reason == reason


def test_a_named_field_that_is_not_there_is_no_text():
    with pytest.raises(RecordError) as told:
        text_of({"text": "a"}, "body")
    assert (told.value.reason, told.value.detail) == ("no text", "no field 'body'")


@pytest.mark.parametrize("raw", [b"{", b"{'a': 1}", b"\xff", b'{"a": 1} x', b"[" * 100_000, b""])
def test_what_is_no_json_is_told_so(raw):
    with pytest.raises(RecordError) as told:
        parsed(raw)
    assert told.value.reason == "not JSON"
    assert told.value.detail


def test_ids_are_strings_and_whole_numbers():
    assert id_of({"id": 'a"\n'}, "id") == 'a"\n'
    assert id_of({"id": ""}, "id") == ""
    assert id_of({"id": -7}, "id") == -7
    assert id_of({"uuid": "u"}, "id") is None
    assert id_of({"id": None}, "id") is None
    assert id_of(["x"], "id") is None
    for bad in (1.5, True, [1], {}, 2**63, json.loads('"\\ud800"')):
        with pytest.raises(RecordError) as told:
            id_of({"id": bad}, "id")
        assert told.value.reason == "bad id"


def test_a_digest_is_stable_and_of_the_text_alone():
    assert digest_of("Name a colour.\nBlue.").hex() == "bfc569dcb4a571a8388282e1d996df56"
    assert digest_of("a") != digest_of("a ")
