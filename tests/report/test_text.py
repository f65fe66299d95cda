"""Texts and numbers as a reader sees them."""

import pytest

from novelsum.report.text import escaped, number, printed, shown


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\n\tb  c", "a b c"),
        ("\u202eabc\u200f\ufeff", "[U+202E]abc[U+200F][U+FEFF]"),
        ("\x00\x1b[31m", "[U+0000][U+001B][31m"),
        ("👩\u200d🚀 می\u200cخواهم", "👩\u200d🚀 می\u200cخواهم"),
        ("\ufffe\uffff", "[U+FFFE][U+FFFF]"),
        (None, "None"),
    ],
)
def test_unseen_characters_are_written_as_their_number(text, seen):
    assert shown(text) == seen
    assert escaped(f"{text}<'\"&>") == f"{seen}&lt;&#x27;&quot;&amp;&gt;"


def test_a_terminal_gets_no_character_that_it_might_obey():
    """Replaced one by one, so that text keeps its width."""
    assert printed("a\n\x1b[31m\u202eb\u200d\ufeff", 20) == "a �[31m�b��"
    assert printed("\x1b" * 9, 4) == "���…"


def test_text_is_cut_at_a_width():
    assert shown("abcdef", 6) == "abcdef"
    assert shown("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(
    ("value", "seen"),
    [(None, "–"), (0, "0"), (0.5, "0.500"), (123.4, "123"), (12345.6, "12,346"), (-2, "-2.00"), (1.5e-7, "1.50e-07")],
)
def test_numbers_have_three_digits_or_all_before_the_point(value, seen):
    assert number(value) == seen
