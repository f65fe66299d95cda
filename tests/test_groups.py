"""Groups in words: rows without one are told apart from every text."""

from novelsum.groups import in_words


def test_groups_are_told_apart_in_words():
    assert in_words(None) == "(no group)"
    assert in_words("None") == "None"
    assert in_words(" (no  group) ") == "' (no  group) '"
    assert in_words("(no group)") == "'(no group)'"
    assert len({in_words(group) for group in (None, "", "None", "(no group)", "null")}) == 5
