"""Sections of a page that one can read by themselves: outliers and crowds, quotas, text lengths."""

from typing import Any

from novelsum.groups import in_words
from novelsum.report import figures, pieces
from novelsum.report.text import escaped, number

_TEXT = 240


def extremes(data: dict[str, Any]) -> str:
    """The sparsest and the densest candidates with their texts."""
    columns = []
    for side, title, tells in (
        ("lowest", "Outliers", "far from their neighbours: rare, or broken, or of another kind"),
        ("highest", "Crowds", "close to their neighbours: boilerplate, templates, near-copies"),
    ):
        items = "".join(
            f"<li><span class=measure>{number(one['density'])}</span> {pieces.sample(one, _TEXT)}"
            f"<p class=fate>{_fate(one)}</p></li>"
            for one in data["extremes"][side]
        )
        columns.append(
            f"<div><h3>{title}</h3><p class=note>The {len(data['extremes'][side])} candidates with the {side} σ: "
            f"{tells}.</p><ol class=near aria-label='{title.lower()}'>{items}</ol></div>"
        )
    return pieces.section(
        "Outliers and crowds",
        "<p>Read these before trusting a selection: a rule that seeks novelty finds what is broken first, and crowds "
        f"of copies weigh more than all else.</p><div class=pair>{''.join(columns)}</div>",
    )


def _fate(one: dict[str, Any]) -> str:
    if one["pick"] is not None:
        return f"pick {one['pick']:,}"
    return "selected before" if one["selected_before"] else "left out"


def quotas(data: dict[str, Any]) -> str:
    """What was asked of each group, and what was picked; empty without quotas."""
    found = data["quotas"]
    if found is None:
        return ""
    rows = [
        (
            pieces.name(in_words(row["group"]), 40),
            escaped(row["given"], 40),
            f"{row['least']:,}",
            f"{row['most']:,}",
            f"{row['picks']:,}" + (" <b>(too few)</b>" if row["picks"] < row["least"] else ""),
        )
        for row in found["groups"]
    ]
    if others := found["others"]:
        fewest, most = others["fewest_picks"], others["most_picks"]
        each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
        rows.append((f"* ({others['count']:,} others)", escaped(others["given"], 40), "–", "–", f"{each} each"))
    left = found["count"] - len(found["groups"])
    more = f" {left:,} more quotas are met or told of in the manifest." if left else ""
    return pieces.table(
        ("quota", "asked", "at least", "at most", "picks"), rows, f"At most counts what the pool has of a group.{more}"
    )


def lengths(data: dict[str, Any], numbered: pieces.Numbering) -> str:
    """How long the texts are in pool and selection."""
    found = data["lengths"]
    rows = [
        (key, f"{found['pool_quantiles'][key]:,}", f"{found['selected_quantiles'][key]:,}")
        for key in found["pool_quantiles"]
    ]
    rows.append(("mean", number(found["pool_mean"], 4), number(found["selected_mean"], 4)))
    medians = found["selected_quantiles"]["50%"], found["pool_quantiles"]["50%"]
    ratio = medians[0] / max(1, medians[1])
    lean = f"{'longer' if ratio > 1 else 'shorter'} than" if abs(ratio - 1) > 0.05 else "about as long as"
    measured = f"{found['selected_texts']:,} picks"
    picture = numbered.figure(
        figures.lengths(data),
        f"Lengths of {found['pool_texts']:,} texts drawn from the pool at random (filled) and of the texts of "
        f"{measured} (hatched).",
    )
    text = (
        f"<p>The median pick is {lean} the median of the pool ({medians[0]:,} characters, {medians[1]:,}). What is "
        "picked by its embedding may be picked for its length: very short texts lie apart from all others, and very "
        "long ones are embedded by their beginning alone where the model cuts them.</p>"
    )
    table = pieces.table(
        ("quantile of length", "pool", "selection"), rows, "In characters; of a chat without its roles."
    )
    return pieces.section("Text lengths", f"<div class=pair>{picture}<div>{text}{table}</div></div>")
