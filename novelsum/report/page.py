"""The page of a report: its words, tables and style around the pictures of :mod:`~novelsum.report.figures`.

All that comes from the input or from settings goes through :func:`~novelsum.report.text.escaped`.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from novelsum.formulas import EQUATIONS
from novelsum.groups import in_words
from novelsum.report import comparison, figures
from novelsum.report.template import SKELETON, STYLE
from novelsum.report.text import escaped, number

_TEXT, _NEIGHBOR_TEXT = 420, 240


def page(data: dict[str, Any]) -> str:
    """The whole page."""
    metric = data["settings"]["metric"]
    numbered = _Numbering()
    sections = [
        _novelty(data, metric, numbered),
        _pool(data, metric, numbered),
        _groups(data, numbered) if data["groups"] else "",
        _comparison(data, metric, numbered) if data["comparison"] else "",
        _first_picks(data, metric),
        _provenance(data),
    ]
    picks, candidates = data["selected"]["picks"], data["input"]["candidates"]
    title = f"{picks:,} of {candidates:,} samples selected"
    return SKELETON.format(
        title=title,
        style=STYLE,
        finished=escaped(data["finished"].replace("T", " ").replace("Z", " UTC")),
        summary=_summary(data),
        facts=_facts(data),
        sections="\n".join(filter(None, sections)),
    )


class _Numbering:
    """Numbers of figures in the order of the page."""

    def __init__(self) -> None:
        self._last = 0

    def figure(self, svg: str, caption: str) -> str:
        """A picture with its numbered caption."""
        self._last += 1
        return (
            f"<figure><div class=plate>{svg}</div>"
            f"<figcaption><b>Figure {self._last}.</b> {caption}</figcaption></figure>"
        )


# --- words ------------------------------------------------------------------------------------------------


def _summary(data: dict[str, Any]) -> str:
    """What was asked and what came out."""
    settings, found, selected = data["settings"], data["input"], data["selected"]
    set_aside = [f"{rows:,} {escaped(reason)}" for reason, rows in found["bad_rows"].items()]
    for name, what in (("duplicates_dropped", "duplicates"), ("near_duplicates_dropped", "near-copies")):
        if found[name]:
            set_aside.append(f"{found[name]:,} {what}")
    dropped = f", of which {', '.join(set_aside)} were set aside" if set_aside else ""
    first = "as asked" if settings["first"] is not None else f"drawn by seed {selected['seed']}"
    words = EQUATIONS[settings["formula"]].words
    powers = " and ".join(
        f"κ<sub>{index}</sub>&nbsp;=&nbsp;{settings[name]:g}"
        for index, name in ((1, "proximity_power"), (2, "density_power"))
    )
    asked = (
        f"<p>NovelSelect was asked for <b>{selected['picks']:,}</b> samples of {_name(settings['input'], 200)}, "
        f"{found['input_rows']:,} rows{dropped}. Each pick is the most novel candidate against all picks "
        f"before it, by {words} with {settings['metric']} distance, K&nbsp;=&nbsp;{settings['neighbors']}, {powers}. "
        f"The first pick, {_name(selected['first'], 80)}, was {first}.</p>"
    )
    out = [f"<p>{returns_in_words(data)}"]
    medians = [data["density"][f"{which}_quantiles"]["50%"] for which in ("selected", "pool")]
    if medians[0] < 0.99 * medians[1]:
        lean = "leans to sparse regions of the pool"
    else:
        lean = "leans to dense regions of the pool" if medians[0] > 1.01 * medians[1] else "is as dense as the pool"
    out.append(f"By density the selection {lean} (median factor {medians[0]:.3g}, the pool’s {medians[1]:.3g}).")
    if data["groups"]:
        out.append(f"It reaches {data['groups']['reached']:,} of {data['groups']['count']:,} groups{_shifts(data)}.")
    return asked + " ".join(out) + "</p>"


def _shifts(data: dict[str, Any]) -> str:
    """The groups that gain and lose the most share."""
    pool, picked = data["input"]["candidates"], data["selected"]["picks"]
    rows = sorted(data["groups"]["largest"], key=lambda row: row["selected"] / picked - row["pool"] / pool)
    low, high = rows[0], rows[-1]
    if high["selected"] * pool <= high["pool"] * picked:
        return ", each by its share of the pool"
    return (
        f"; against the pool {_name(in_words(high['group']), 40)} gains most "
        f"({_share(high['pool'], pool)} → {_share(high['selected'], picked)}) and "
        f"{_name(in_words(low['group']), 40)} loses most "
        f"({_share(low['pool'], pool)} → {_share(low['selected'], picked)})"
    )


def returns_in_words(data: dict[str, Any]) -> str:
    """Where returns flatten, as a sentence."""
    found, picks = data["novelty"], data["selected"]["picks"]
    growth = found["doublings"][-1]["growth"]
    if found["flat_from_pick"]:
        return (
            f"<b>Returns are flat from pick {found['flat_from_pick']:,} on</b>: from there to the end, twice the picks "
            f"raise the novelty of the next one by less than {found['flat_below_growth']:.0%}."
        )
    if growth is None or growth < found["flat_below_growth"]:
        return "The budget is too small to tell where returns flatten."
    return (
        f"<b>Returns have not flattened yet</b>: from pick {picks // 2:,} to pick {picks:,} novelty grew by "
        f"{_percent(growth).lstrip('+')}, and under {found['flat_below_growth']:.0%} a doubling counts as flat."
    )


def _facts(data: dict[str, Any]) -> str:
    facts = [
        (f"{data['selected']['picks']:,}", "picks"),
        (f"{data['input']['candidates']:,}", "candidates"),
        (_share(data["selected"]["picks"], data["input"]["candidates"]), "of the pool"),
        (f"{data['input']['dimension']:,}", "dimensions"),
    ]
    if data["groups"]:
        facts.append((f"{data['groups']['reached']:,} of {data['groups']['count']:,}", "groups reached"))
    recall = data["density_estimate"].get("recall")
    if recall is not None:
        facts.append((f"{100 * recall:.1f}%", "recall of neighbours"))
    return "".join(f"<div><dt>{what}</dt><dd>{value}</dd></div>" for value, what in facts)


# --- sections ---------------------------------------------------------------------------------------------


def _novelty(data: dict[str, Any], metric: str, numbered: _Numbering) -> str:
    found, typical = data["novelty"], data["density"]["typical_neighbor_distance"]
    rows = [
        (f"{row['pick']:,}", number(row["novelty"]), _percent(row["growth"]), number(row["nearest_earlier"]))
        for row in found["doublings"]
    ]
    mark = "The dashed line marks where returns flatten. " if found["flat_from_pick"] else ""
    compared = (
        f" The dotted line is the mean distance of the pool’s median candidate to its {data['settings']['neighbors']} "
        f"nearest neighbours, {typical:.3g}: picks closer than that repeat each other as much as the pool does."
        if typical is not None
        else ""
    )
    text = (
        "<p>The novelty of a pick is summed over all picks before it, the nearest counting "
        "most, so it rises at first whatever is picked: with few picks, more of them mean more terms. That is why "
        "returns are read from doublings and not from single steps. Where the curve falls, the picks crowd: each adds "
        "less than the one before.</p>"
        "<p>Flatness is a rule of thumb for choosing a budget, not a property of the data: the rule is the same for "
        "every run, so budgets can be compared, but what a sample is worth in training it cannot tell.</p>"
    )
    table = _table(
        ("pick", "novelty", "growth over half as many", "nearest earlier pick"),
        rows,
        "Means over the picks within 5% of that number.",
    )
    summed = " (times the number of picks before it)" if EQUATIONS[data["settings"]["formula"]].averaged else ""
    caption = (
        f"Above: novelty of each pick when it was picked{summed}. Below: its {metric} distance to the nearest earlier "
        f"pick. {mark}{compared}"
    )
    return _section(
        "Where returns flatten",
        f"<div class=pair>{numbered.figure(figures.novelty(data, metric), caption)}<div>{text}{table}</div></div>",
    )


def _pool(data: dict[str, Any], metric: str, numbered: _Numbering) -> str:
    found, pool_map = data["density"], data["map"]
    shares = [100 * share for share in pool_map["variance_shares"]]
    spread = pool_map["mean_squared_distance_to_center"]
    quantiles = [
        (name, number(found["pool_quantiles"][name]), number(found["selected_quantiles"][name]))
        for name in found["pool_quantiles"]
    ]
    density = numbered.figure(
        figures.density(data, metric),
        f"Density factors of the {data['input']['candidates']:,} candidates (filled) and the "
        f"{data['selected']['picks']:,} picks (hatched). A high factor means close neighbours.",
    )
    density += _table(("quantile of σ", "pool", "selection"), quantiles, "Quantiles are exact to about 2%.")
    density += _crowded(data)
    drawn = len(pool_map["picks"])
    evenly = f", {drawn:,} drawn evenly over the order of picking" if drawn < data["selected"]["picks"] else ""
    chart = numbered.figure(
        figures.pool_map(data, metric),
        f"{len(pool_map['pool']):,} candidates drawn at random (dots) and the picks (diamonds{evenly}); the first are "
        f"numbered. The axes hold {shares[0]:.1f}% and {shares[1]:.1f}% of the variance, so {100 - sum(shares):.0f}% "
        "of what tells samples apart is not on this map: points that lie together here may be far apart.",
    )
    chart += _table(
        ("mean squared distance to the pool’s centre, in all dimensions", ""),
        [("pool", number(spread["pool"])), ("picks", number(spread["selected"]))],
        "All points of the map are in report.json.",
    )
    return _section("Where the picks lie", f"<div class=pair><div>{density}</div><div>{chart}</div></div>")


def _crowded(data: dict[str, Any]) -> str:
    """A warning of picks in crowds of near-copies, empty where there are none."""
    found = data["selected"]["crowded"]
    if not found["picks"]:
        return ""
    suggested = found.get("suggested_near_duplicates")
    advice = "Drop near-copies from the reference."
    if suggested is not None:
        advice = f"<code>--near-duplicates {suggested}</code> would leave one row of each crowd."
    return (
        f"<p><b>{found['picks']:,} of the picks lie in crowds of near-copies</b>: their density factor is above 100 "
        f"times the pool’s median, up to {found['greatest_ratio']:,.0f} times, and what is far from them counts as "
        f"novel whatever else it is near to. {advice}</p>"
    )


def _groups(data: dict[str, Any], numbered: _Numbering) -> str:
    found, pool, picked = data["groups"], data["input"]["candidates"], data["selected"]["picks"]
    listed = [(_name(in_words(row["group"]), 40), row["pool"], row["selected"]) for row in found["largest"]]
    if found["smaller"]["count"]:
        smaller = found["smaller"]
        listed.append((f"{smaller['count']:,} smaller groups", smaller["pool"], smaller["selected"]))
    rows = [
        (
            name,
            f"{of_pool:,}",
            _share(of_pool, pool),
            f"{of_picks:,}",
            _share(of_picks, picked),
            f"{of_picks * pool / (of_pool * picked):.2f} ×" if of_pool else "–",
        )
        for name, of_pool, of_picks in listed
    ]
    picture = numbered.figure(
        figures.groups(data),
        f"Share of each value of {_name(found['column'], 60)} in the pool (circles) and in the selection "
        "(diamonds), largest first.",
    )
    table = _table(("group", "pool", "share", "picks", "share", "over pool"), rows)
    return _section("Groups", f"<div class=pair>{picture}<div>{table}</div></div>")


def _comparison(data: dict[str, Any], metric: str, numbered: _Numbering) -> str:
    found = data["comparison"]
    picture = numbered.figure(figures.comparison(found, metric), comparison.caption(found, metric))
    beside = f"<div><p>{escaped(found['verdict'])}</p>{_table(*comparison.table(found))}</div>"
    return _section("Against other strategies", f"<div class=pair>{picture}{beside}</div>")


def _first_picks(data: dict[str, Any], metric: str) -> str:
    if not data["first_picks"]:
        return ""
    cards = []
    for pick in data["first_picks"]:
        near = "".join(
            f"<li><span class=measure>{number(one['distance'])}</span> {_sample(one, _NEIGHBOR_TEXT)}</li>"
            for one in pick["nearest_rejected"]
        )
        near = f"<ol class=near aria-label='rejected, nearest first'>{near}</ol>" if near else ""
        cards.append(
            f"<li><div class=number>{pick['pick']}</div><div>{_sample(pick)}"
            f"<p class=measures>novelty {number(pick['novelty'])} · density {number(pick['density'])}"
            f"{_nearest_earlier(pick)}</p>"
            f"{near}</div></li>"
        )
    hint = "" if data["settings"]["text_column"] else " Name a column with <code>--text-column</code> to read them."
    return _section(
        "First picks, and what they made redundant",
        f"<p>Under each pick stand the rejected candidates nearest to it, with their {metric} distance; a candidate "
        "stands under the nearest of these picks only. Read them together: where they say the same, nothing was lost "
        f"by leaving them out.{hint}</p>"
        f"<ol class=picks>{''.join(cards)}</ol>",
    )


def _nearest_earlier(pick: dict[str, Any]) -> str:
    if pick["nearest_distance"] is None:
        return ""
    return f" · {number(pick['nearest_distance'])} from {_name(pick['nearest_earlier'], 120)}, the nearest before it"


def _sample(one: dict[str, Any], width: int = _TEXT) -> str:
    """Id, group and text of a sample."""
    group = "" if one["group"] is None else f" <span class=group>· {_name(one['group'], 60)}</span>"
    text = "" if one["text"] is None else f"<p class=text dir=auto>{escaped(one['text'], width)}</p>"
    return f"<p class=id>{_name(one['id'], 120)}{group}</p>{text}"


def _provenance(data: dict[str, Any]) -> str:
    settings = [(f"<code>{escaped(name)}</code>", _value(value)) for name, value in data["settings"].items()]
    seconds = [(escaped(name), f"{value:,.1f}") for name, value in data["seconds"].items()]
    versions = [(escaped(name), escaped(value)) for name, value in data["versions"].items()]
    found = [
        (escaped(name.replace("_", " ")), _value(value)) for name, value in _flat(data["input"]) if name != "bad_rows"
    ]
    parts = [
        "<div>" + _table(("setting", "value"), settings) + "</div>",
        "<div>" + _table(("input", ""), found),
        _table(("density factors", ""), [(escaped(k.replace("_", " ")), _value(v)) for k, v in _flat(_estimate(data))]),
        _table(("stage", "seconds"), seconds, "Up to the drawing of this page."),
        _table(("version of", ""), versions) + "</div>",
    ]
    return _section("How it was made", f"<div class=pair>{''.join(parts)}</div>")


def _estimate(data: dict[str, Any]) -> dict[str, Any]:
    """What the run says of its density factors: method, and recall where they are approximate."""
    found: dict[str, Any] = data["density_estimate"]
    return {**found, "recall": 1} if found["method"] == "exact" else found


# --- pieces of HTML ---------------------------------------------------------------------------------------


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{heading}</h2>{content}</section>"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> str:
    """A table whose cells are HTML; the first column heads its row."""
    head = "".join(f"<th scope=col>{heading}</th>" for heading in headings)
    body = "".join(
        f"<tr><th scope=row>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows
    )
    note = f"<p class=note>{note}</p>" if note else ""
    return f"<div class=table><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"


def _flat(values: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Nested values with their names joined."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _flat(value, f"{above}{name} ") if isinstance(value, dict) else [(f"{above}{name}", value)]
    return found


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else _name(value, 200)


def _name(value: object, width: int) -> str:
    """A name from outside, which may be broken after its punctuation."""
    breakable = re.sub(r"([_:/.-])", r"\1<wbr>", escaped(value, width))
    return f"<bdi>{breakable}</bdi>"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}%".replace("-", "\N{MINUS SIGN}")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f}%"
