"""Groups of samples: the text of a value in the column of groups, or None for a row that has none."""

Group = str | None

NO_GROUP = "(no group)"


def group_of(value: object) -> Group:
    """The group that a value of the column stands for."""
    return None if value is None else str(value)


def in_order(group: Group) -> tuple[bool, str]:
    """What groups are sorted by: their text, and the rows without one last."""
    return group is None, group or ""


def in_words(group: Group) -> str:
    """The group as a reader sees it; one with the very words for none is quoted."""
    if group is None:
        return NO_GROUP
    return repr(group) if " ".join(group.split()) == NO_GROUP else group
