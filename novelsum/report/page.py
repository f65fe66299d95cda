"""The page of a report: its words, tables and style around the pictures of :mod:`~novelsum.report.figures`.

All that comes from the input or from settings goes through :func:`~novelsum.report.text.escaped`.
"""

from typing import Any

from novelsum.formulas import EQUATIONS
from novelsum.groups import in_words
from novelsum.report import comparison, figures, pieces, sections
from novelsum.report.picklist import list_of_picks
from novelsum.report.script import SCRIPT
from novelsum.report.template import whole
from novelsum.report.text import escaped, number, percent, share
from novelsum.report.words import aim, measure, strategy_of, summary

_TEXT, _NEIGHBOR_TEXT = 420, 240


def page(data: dict[str, Any]) -> str:
    """The whole page."""
    metric = data["settings"]["metric"]
    numbered = pieces.Numbering()
    shown = [
        _novelty(data, metric, numbered),
        _pool(data, metric, numbered),
        sections.extremes(data),
        _groups(data, numbered) if data["groups"] else "",
        sections.lengths(data, numbered) if data["lengths"] else "",
        _novelsum_of_parts(data),
        _comparison(data, metric, numbered) if data["comparison"] else "",
        _first_picks(data, metric),
        pieces.section("All picks", list_of_picks(data)),
        _provenance(data),
    ]
    picks, candidates = data["selected"]["picks"], data["input"]["candidates"]
    title = f"{picks:,} of {candidates:,} samples selected"
    return whole("Selection report", title, data["finished"], summary(data), _facts(data), shown, script=SCRIPT)


# --- the head ---------------------------------------------------------------------------------------------


def _facts(data: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [
        ("picks", f"{data['selected']['picks']:,}"),
        ("candidates", f"{data['input']['candidates']:,}"),
        ("of the pool", share(data["selected"]["picks"], data["input"]["candidates"])),
        ("dimensions", f"{data['input']['dimension']:,}"),
    ]
    if data["groups"]:
        facts.append(("groups reached", f"{data['groups']['reached']:,} of {data['groups']['count']:,}"))
    recall = data["density_estimate"].get("recall")
    if recall is not None:
        facts.append(("recall of neighbours", f"{100 * recall:.1f}%"))
    return facts


# --- sections ---------------------------------------------------------------------------------------------


def _novelty(data: dict[str, Any], metric: str, numbered: pieces.Numbering) -> str:
    found, typical, begun = (
        data["novelty"],
        data["density"]["typical_neighbor_distance"],
        data["novelty"]["selected_before"],
    )
    is_ordered = found["verdict"] != "unordered"
    columns = [("pick", [f"{row['pick']:,}" for row in found["doublings"]])]
    if begun:
        columns.append(("samples in S", [f"{row['selected']:,}" for row in found["doublings"]]))
    columns.append(("novelty", [number(row["novelty"]) for row in found["doublings"]]))
    if is_ordered:
        columns.append(("growth over half as many", [percent(row["growth"]) for row in found["doublings"]]))
    columns.append(("nearest before", [number(row["nearest_earlier"]) for row in found["doublings"]]))
    mark = "The dashed line marks where returns flatten. " if found["flat_from_pick"] else ""
    compared = (
        f"The dotted line is the mean distance of the pool’s median candidate to its {data['settings']['neighbors']} "
        f"nearest neighbours, {typical:.3g}: picks closer than that repeat each other as much as the pool does."
        if typical is not None
        else ""
    )
    all_before = (
        f"all samples before it, the {begun:,} selected before the run among them" if begun else "all picks before it"
    )
    text = (
        f"<p>The novelty of a pick is summed over {all_before}, the nearest counting most, so it rises at first "
        "whatever is picked: more samples mean more terms. So returns are read from doublings of S and not from single "
        "steps. Where the curve falls, the picks crowd: each adds less than the one before.</p>"
        "<p>Flatness is a rule of thumb for choosing a budget, not a property of the data: the rule is the same for "
        "every run, so budgets can be compared, but what a sample is worth in training it cannot tell.</p>"
        if is_ordered
        else f"<p>The novelty of a pick is summed over {all_before}. These picks were chosen together and listed "
        "afterwards, so the curve shows that order, and no returns.</p>"
    )
    table = pieces.table(
        [heading for heading, _ in columns],
        list(zip(*(cells for _, cells in columns), strict=True)),
        "Means over the picks within 5% of that number." + (" S counts the samples selected before." if begun else ""),
    )
    summed = " (times the number of samples before it)" if EQUATIONS[data["settings"]["formula"]].averaged else ""
    caption = (
        f"Above: novelty of each pick when it was picked{summed}. Below: its {metric} distance to the nearest sample "
        f"selected before it. {mark}{compared}"
    )
    return pieces.section(
        "Where returns flatten" if is_ordered else "Novelty of the picks",
        f"<div class=pair>{numbered.figure(figures.novelty(data, metric), caption)}<div>{text}{table}</div></div>",
    )


def _novelsum_of_parts(data: dict[str, Any]) -> str:
    """NovelSum of the first picks, and what it has to do with how they were picked."""
    parts, picks = data["novelsum"], data["selected"]["picks"]
    if not parts:
        return ""
    rows = [
        (
            f"{part['picks']:,}",
            f"{100 * part['picks'] / picks:.0f}%",
            number(part["novelsum_mean"], 4) + (_interval(part["mean_interval"])),
            number(part["novelsum_sum"], 4),
        )
        for part in parts
    ]
    sampled = max((part["sampled_rows"] or 0 for part in parts), default=0)
    notes = [f"95% intervals in brackets, where {sampled:,} rows drawn by the seed were measured."] if sampled else []
    if parts[-1]["picks"] < picks:
        notes.append("Greater parts were not measured: their points would take more than 2 GiB of scratch.")
    ordered = (
        ""
        if strategy_of(data) != "k-means"
        else " k-means chooses all its picks together: its first ones are not what a smaller budget would have had."
    )
    before = " Samples selected before do not count." if data["novelty"]["selected_before"] else ""
    text = (
        f"<p>{measure(data)} of the first picks, among themselves, with the σ they have in the pool.{before} The "
        "mean grows with the number of samples, whatever they are, so compare it, and the sum all the more, only with "
        f"other sets of the same size.{ordered}</p><p>{aim(data)}</p>"
    )
    table = pieces.table(("first picks", "of all", "mean NovelSum", "sum"), rows, " ".join(notes))
    return pieces.section("How diverse they are", f"<div class=pair><div>{text}</div><div>{table}</div></div>")


def _interval(of: list[float] | None) -> str:
    return "" if of is None else f" ({number(of[0], 4)} to {number(of[1], 4)})"


def _pool(data: dict[str, Any], metric: str, numbered: pieces.Numbering) -> str:
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
    density += pieces.table(("quantile of σ", "pool", "selection"), quantiles, "Quantiles are exact to about 2%.")
    density += _crowded(data)
    drawn = len(pool_map["picks"])
    evenly = f", {drawn:,} drawn evenly over the order of picking" if drawn < data["selected"]["picks"] else ""
    chart = numbered.figure(
        figures.pool_map(data, metric),
        f"{len(pool_map['pool']):,} candidates drawn at random (dots) and the picks (diamonds{evenly}); the first are "
        f"numbered. The axes hold {shares[0]:.1f}% and {shares[1]:.1f}% of the variance, so {100 - sum(shares):.0f}% "
        "of what tells samples apart is not on this map: points that lie together here may be far apart.",
    )
    chart += pieces.table(
        ("mean squared distance to the pool’s centre, in all dimensions", ""),
        [("pool", number(spread["pool"])), ("picks", number(spread["selected"]))],
        "All points of the map are in report.json.",
    )
    return pieces.section("Where the picks lie", f"<div class=pair><div>{density}</div><div>{chart}</div></div>")


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


def _groups(data: dict[str, Any], numbered: pieces.Numbering) -> str:
    found, pool, picked = data["groups"], data["input"]["candidates"], data["selected"]["picks"]
    listed = [(pieces.name(in_words(row["group"]), 40), row["pool"], row["selected"]) for row in found["largest"]]
    if found["smaller"]["count"]:
        smaller = found["smaller"]
        listed.append((f"{smaller['count']:,} smaller groups", smaller["pool"], smaller["selected"]))
    rows = [
        (
            name,
            f"{of_pool:,}",
            share(of_pool, pool),
            f"{of_picks:,}",
            share(of_picks, picked),
            f"{of_picks * pool / (of_pool * picked):.2f} ×" if of_pool else "–",
        )
        for name, of_pool, of_picks in listed
    ]
    picture = numbered.figure(
        figures.groups(data),
        f"Share of each value of {pieces.name(found['column'], 60)} in the pool (circles) and in the selection "
        "(diamonds), largest first.",
    )
    table = pieces.table(("group", "pool", "share", "picks", "share", "over pool"), rows)
    return pieces.section("Groups", f"<div class=pair>{picture}<div>{table}{sections.quotas(data)}</div></div>")


def _comparison(data: dict[str, Any], metric: str, numbered: pieces.Numbering) -> str:
    found = data["comparison"]
    picture = numbered.figure(figures.comparison(found, metric), comparison.caption(found, metric))
    beside = f"<div><p>{escaped(found['verdict'])}</p>{pieces.table(*comparison.table(found))}</div>"
    return pieces.section("Against other strategies", f"<div class=pair>{picture}{beside}</div>")


def _first_picks(data: dict[str, Any], metric: str) -> str:
    if not data["first_picks"]:
        return ""
    cards = []
    for pick in data["first_picks"]:
        near = "".join(
            f"<li><span class=measure>{number(one['distance'])}</span> {pieces.sample(one, _NEIGHBOR_TEXT)}</li>"
            for one in pick["nearest_rejected"]
        )
        near = f"<ol class=near aria-label='rejected, nearest first'>{near}</ol>" if near else ""
        cards.append(
            f"<li><div class=number>{pick['pick']}</div><div>{pieces.sample(pick, _TEXT)}"
            f"<p class=measures>novelty {number(pick['novelty'])} · density {number(pick['density'])}"
            f"{_nearest_earlier(pick)}</p>"
            f"{near}</div></li>"
        )
    hint = "" if data["settings"]["text_column"] else " Name a column with <code>--text-column</code> to read them."
    return pieces.section(
        "First picks, and what they made redundant",
        f"<p>Under each pick stand the rejected candidates nearest to it, with their {metric} distance; a candidate "
        "stands under the nearest of these picks only. Read them together: where they say the same, nothing was lost "
        f"by leaving them out.{hint}</p>"
        f"<ol class=picks>{''.join(cards)}</ol>",
    )


def _nearest_earlier(pick: dict[str, Any]) -> str:
    if pick["nearest_distance"] is None:
        return ""
    return (
        f" · {number(pick['nearest_distance'])} from {pieces.name(pick['nearest_earlier'], 120)}, the nearest before it"
    )


def _provenance(data: dict[str, Any]) -> str:
    settings = [(f"<code>{escaped(name)}</code>", pieces.value(value)) for name, value in data["settings"].items()]
    seconds = [(escaped(name), f"{value:,.1f}") for name, value in data["seconds"].items()]
    versions = [(escaped(name), escaped(value)) for name, value in data["versions"].items()]
    found = [
        (escaped(name.replace("_", " ")), pieces.value(value))
        for name, value in pieces.flat(data["input"])
        if name != "bad_rows"
    ]
    parts = [
        "<div>" + pieces.table(("setting", "value"), settings) + "</div>",
        "<div>" + pieces.table(("input", ""), found),
        pieces.table(
            ("density factors", ""),
            [(escaped(k.replace("_", " ")), pieces.value(v)) for k, v in pieces.flat(_estimate(data))],
        ),
        pieces.table(("stage", "seconds"), seconds, "Up to the drawing of this page."),
        pieces.table(("version of", ""), versions) + "</div>",
    ]
    return pieces.section("How it was made", f"<div class=pair>{''.join(parts)}</div>")


def _estimate(data: dict[str, Any]) -> dict[str, Any]:
    """What the run says of its density factors: method, and recall where they are approximate."""
    found: dict[str, Any] = data["density_estimate"]
    return {**found, "recall": 1} if found["method"] == "exact" else found
