"""The page of a report: its words, tables and style around the pictures of :mod:`~novelsum.figures`.

All that comes from the input or from settings goes through :func:`~novelsum.plain.escaped`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from novelsum import figures
from novelsum.plain import escaped

_TEXT = 420


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
    return _PAGE.format(
        title=title, style=_STYLE, finished=escaped(data["finished"].replace("T", " ").replace("Z", " UTC")),
        summary=_summary(data), facts=_facts(data), sections="\n".join(filter(None, sections)),
    )  # fmt: skip


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
    if found["duplicates_dropped"]:
        set_aside.append(f"{found['duplicates_dropped']:,} duplicates")
    dropped = f", of which {', '.join(set_aside)} were set aside" if set_aside else ""
    first = "as asked" if settings["first"] is not None else f"drawn by seed {selected['seed']}"
    wording = "the published equation" if settings["formula"] == "paper" else "the formula of the authors’ released code"
    asked = (
        f"<p>NovelSelect was asked for <b>{selected['picks']:,}</b> diverse samples of <bdi>{escaped(settings['input'])}"
        f"</bdi>: {found['input_rows']:,} rows{dropped}. Each pick is the candidate with the greatest novelty against "
        f"all picks before it, by {wording} with {settings['metric']} distance, K&nbsp;=&nbsp;{settings.get('neighbors')}, "
        f"κ<sub>1</sub>&nbsp;=&nbsp;{settings['proximity_power']:g} and κ<sub>2</sub>&nbsp;=&nbsp;"
        f"{settings['density_power']:g}. The first pick, <bdi>{escaped(selected['first'], 80)}</bdi>, was {first}.</p>"
    )
    out = [f"<p>{_returns_in_words(data)}"]
    medians = [data["density"][f"{which}_quantiles"]["50%"] for which in ("selected", "pool")]
    if medians[0] < 0.99 * medians[1]:
        lean = "leans to sparse regions of the pool"
    else:
        lean = "leans to dense regions of the pool" if medians[0] > 1.01 * medians[1] else "is as dense as the pool"
    out.append(f"By density the selection {lean} (median factor {medians[0]:.3g} against {medians[1]:.3g}).")
    if data["groups"]:
        out.append(f"It reaches {data['groups']['reached']:,} of {data['groups']['count']:,} groups{_shifts(data)}.")
    return asked + " ".join(out) + _led(data) + "</p>"


def _shifts(data: dict[str, Any]) -> str:
    """The groups that gain and lose the most share."""
    rows = [row for row in data["groups"]["largest"] if row["pool"]]
    pool, picked = data["input"]["candidates"], data["selected"]["picks"]
    shifts = sorted((row["selected"] / picked - row["pool"] / pool, row) for row in rows) if len(rows) > 1 else []
    if not shifts:
        return ""
    low, high = shifts[0][1], shifts[-1][1]
    return (
        f"; against the pool <bdi>{escaped(high['group'], 40)}</bdi> gains most "
        f"({_share(high['pool'], pool)} → {_share(high['selected'], picked)}) and "
        f"<bdi>{escaped(low['group'], 40)}</bdi> loses most "
        f"({_share(low['pool'], pool)} → {_share(low['selected'], picked)})"
    )


def _led(data: dict[str, Any]) -> str:
    if not data["comparison"]:
        return ""
    best = data["comparison"][0]
    return f" Of {len(data['comparison'])} strategies at this budget, {escaped(best['name'])} has the highest NovelSum."


def _returns_in_words(data: dict[str, Any]) -> str:
    found, picks = data["novelty"], data["selected"]["picks"]
    growth = found["doublings"][-1]["growth"]
    if found["flat_from_pick"]:
        return (
            f"<b>Returns are flat from pick {found['flat_from_pick']:,} on</b>: from there to the end, twice the picks "
            f"raise the novelty of the next one by less than {found['flat_below_growth']:.0%}."
        )
    if growth is None:
        return "The budget is too small to tell where returns flatten."
    return (
        f"<b>Returns have not flattened yet</b>: from pick {picks // 2:,} to pick {picks:,} novelty grew by "
        f"{_percent(growth)}, and under {found['flat_below_growth']:.0%} a doubling counts as flat."
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
    return "".join(f"<div><dt>{what}</dt><dd>{value}</dd></div>" for value, what in facts)


# --- sections ---------------------------------------------------------------------------------------------


def _novelty(data: dict[str, Any], metric: str, numbered: _Numbering) -> str:
    found, typical = data["novelty"], data["density"]["typical_neighbor_distance"]
    rows = [
        (f"{row['pick']:,}", _number(row["novelty"]), _percent(row["growth"]), _number(row["nearest_earlier"]))
        for row in found["doublings"]
    ]
    mark = "The dashed line marks where returns flatten. " if found["flat_from_pick"] else ""
    compared = (
        f" The dotted line is the mean distance of the pool’s median candidate to its {data['settings']['neighbors']} "
        f"nearest neighbours, {typical:.3g}: picks closer together than that repeat each other as much as the pool does."
        if typical is not None
        else ""
    )
    text = (
        f"<p>{_returns_in_words(data)} The novelty of a pick is summed over all picks before it, the nearest counting "
        "most, so it rises at first whatever is picked: with few picks, more of them mean more terms. That is why "
        "returns are read from doublings and not from single steps. Where the curve falls, the picks crowd: each adds "
        "less than the one before.</p>"
        "<p>Flatness is a rule of thumb for choosing a budget, not a property of the data: the rule is the same for "
        "every run, so budgets can be compared, but what a sample is worth in training it cannot tell.</p>"
    )
    table = _table(
        ("pick", "novelty", "growth over half as many picks", "distance to nearest earlier pick"), rows,
        "Novelty is the mean over picks within 5% of that number; the distance is that of this very pick.",
    )  # fmt: skip
    summed = " (times the number of picks before it)" if data["settings"]["formula"] == "released" else ""
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
        (name, _number(found["pool_quantiles"][name]), _number(found["selected_quantiles"][name]))
        for name in found["pool_quantiles"]
    ]
    density = numbered.figure(
        figures.density(data, metric),
        f"Density factors of the {data['input']['candidates']:,} candidates (filled) and the "
        f"{data['selected']['picks']:,} picks (hatched). A high factor means close neighbours.",
    )
    density += _table(("quantile of σ", "pool", "selection"), quantiles, "Quantiles are exact to about 2%.")
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
        [("pool", _number(spread["pool"])), ("picks", _number(spread["selected"]))],
        "All points of the map are in report.json.",
    )
    return _section("Where the picks lie", f"<div class=pair><div>{density}</div><div>{chart}</div></div>")


def _groups(data: dict[str, Any], numbered: _Numbering) -> str:
    found, pool, picked = data["groups"], data["input"]["candidates"], data["selected"]["picks"]
    listed = [(f"<bdi>{escaped(row['group'], 40)}</bdi>", row["pool"], row["selected"]) for row in found["largest"]]
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
        f"Share of each value of <bdi>{escaped(found['column'], 60)}</bdi> in the pool (circles) and in the selection "
        "(diamonds), largest first.",
    )
    table = _table(("group", "pool", "share", "selected", "share", "over pool"), rows)
    return _section("Groups", f"<div class=pair>{picture}<div>{table}</div></div>")


def _comparison(data: dict[str, Any], metric: str, numbered: _Numbering) -> str:
    rows = [
        (
            escaped(row["name"], 40),
            _number(row.get("novelsum_mean")),
            _number(row.get("novelsum_sum")),
            _number(row.get("mean_nearest_distance")),
            _number(row.get("seconds")),
        )
        for row in data["comparison"]
    ]
    picture = numbered.figure(
        figures.comparison(data["comparison"], metric),
        f"{data['selected']['picks']:,} samples chosen by each strategy. NovelSum is what NovelSelect optimises; the mean "
        f"{metric} distance of a sample to the nearest other is not. Longer is more diverse in both.",
    )
    table = _table(("strategy", "mean NovelSum", "NovelSum", "mean nearest distance", "seconds"), rows)
    return _section("Against other strategies", f"<div class=pair>{picture}<div>{table}</div></div>")


def _first_picks(data: dict[str, Any], metric: str) -> str:
    if not data["first_picks"]:
        return ""
    cards = []
    for pick in data["first_picks"]:
        near = "".join(
            f"<li><span class=measure>{_number(one['distance'])}</span> {_sample(one)}</li>"
            for one in pick["nearest_rejected"]
        )
        near = f"<ol class=near aria-label='rejected, nearest first'>{near}</ol>" if near else ""
        cards.append(
            f"<li><div class=number>{pick['pick']}</div><div>{_sample(pick)}"
            f"<p class=measures>novelty {_number(pick['novelty'])} · density {_number(pick['density'])}</p>{near}</div></li>"
        )
    hint = "" if data["settings"]["text_column"] else " Name a column with <code>--text-column</code> to read them."
    return _section(
        "First picks, and what they made redundant",
        f"<p>Under each pick stand the rejected candidates nearest to it, with their {metric} distance; a candidate stands "
        f"under the nearest of these picks only. If a pick says what they say, they are rightly left out.{hint}</p>"
        f"<ol class=picks>{''.join(cards)}</ol>",
    )


def _sample(one: dict[str, Any]) -> str:
    """Id, group and text of a sample."""
    group = "" if one["group"] is None else f" <span class=group><bdi>{escaped(one['group'], 60)}</bdi></span>"
    text = "" if one["text"] is None else f"<p class=text dir=auto>{escaped(one['text'], _TEXT)}</p>"
    return f"<p class=id><bdi>{escaped(one['id'], 120)}</bdi>{group}</p>{text}"


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
    if data["density_estimate"]:
        return dict(data["density_estimate"])
    return {"method": f"given: {data['settings']['density']}" if data["job"] == "select_subset" else "exact, recall 1"}


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
    return _number(value) if isinstance(value, float) else f"<bdi>{escaped(value, 200)}</bdi>"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}%".replace("-", "\N{MINUS SIGN}")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f}%"


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="only light">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{title} · novelsum</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<p class=kicker><span>novelsum</span> <span>Selection report</span> <span>{finished}</span></p>
<h1>{title}</h1>
<div class=lead>{summary}</div>
<dl class=facts>{facts}</dl>
</header>
{sections}
</main>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: only light; --ink: #1c1c1c; --soft: #5b6470; --rule: #c9ced5; --pick: #8c2f24;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
  --serif: Charter, "Bitstream Charter", "Iowan Old Style", Palatino, Cambria, Georgia, "Liberation Serif", serif; }
* { box-sizing: border-box; }
html { background: #fff; -webkit-text-size-adjust: 100%; }
body { margin: 0; color: var(--ink); background: #fff; font: 1.0625rem/1.5 var(--serif); overflow-wrap: anywhere; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
p { margin: 0 0 .8em; }
.kicker { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 0 0 1.2rem; padding-bottom: .5rem;
  border-bottom: 2px solid var(--ink); font: .8125rem var(--sans); color: var(--soft); }
.kicker span:first-child { font-weight: 700; color: var(--ink); }
.kicker span:last-child { margin-left: auto; }
h1 { margin: 0 0 1rem; font-size: clamp(1.7rem, 4.5vw, 2.6rem); line-height: 1.12; font-weight: 600; letter-spacing: -.01em; }
h2 { margin: 0 0 1rem; font-size: 1.35rem; line-height: 1.2; font-weight: 600; }
.lead { max-width: 46rem; }
section { margin-top: 2.8rem; padding-top: 1.1rem; border-top: 1px solid var(--rule); }
section > p { max-width: 46rem; }
.facts { display: flex; flex-wrap: wrap; gap: .8rem 2.6rem; margin: 1.4rem 0 0; }
.facts div { display: flex; flex-direction: column-reverse; }
.facts dd { margin: 0; font-size: 1.6rem; line-height: 1.1; font-variant-numeric: lining-nums tabular-nums; }
.facts dt { font: .8125rem var(--sans); color: var(--soft); }
.pair { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1.2rem 2.8rem; align-items: start; }
figure { margin: 0 0 1.2rem; }
.plate svg { display: block; width: 100%; height: auto; forced-color-adjust: none; }
.plate svg * { stroke-linejoin: round; stroke-linecap: butt; }
.plate svg text { font-family: var(--sans) !important; }
figcaption, .note, .measures, .id, .near { font: .8125rem/1.45 var(--sans); }
figcaption { margin-top: .5rem; color: #3a4048; }
.note { margin: .4rem 0 1.4rem; color: var(--soft); }
.table { margin: 0 0 1.2rem; }
table { width: 100%; border-collapse: collapse; font: .8125rem/1.35 var(--sans);
  font-variant-numeric: lining-nums tabular-nums; }
thead th { vertical-align: bottom; font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--ink); }
th, td { padding: .26rem 0 .26rem .7rem; text-align: right; vertical-align: top; }
th:first-child { padding-left: 0; text-align: left; }
tbody th { font-weight: 400; }
tbody tr { border-bottom: 1px solid #e6e9ec; }
tbody tr:last-child { border-bottom: 1px solid var(--rule); }
.picks { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 0 2.8rem; margin: 0; padding: 0;
  list-style: none; }
.picks > li { display: grid; grid-template-columns: 2.2rem minmax(0, 1fr); padding: .9rem 0 .5rem;
  border-top: 1px solid var(--rule); break-inside: avoid; }
.number { font-size: 1.35rem; line-height: 1.15; color: var(--pick); font-variant-numeric: lining-nums; }
.id { margin: 0 0 .2rem; font-weight: 600; }
.id .group { font-weight: 400; color: var(--soft); margin-left: .5em; }
.text { margin: 0 0 .3rem; font-size: .9688rem; line-height: 1.42; }
.measures { margin: 0 0 .5rem; color: var(--soft); }
.near { margin: 0; padding: 0; list-style: none; }
.near li { position: relative; margin: 0 0 .5rem; padding-left: 3.6rem; }
.near .measure { position: absolute; left: 0; color: var(--soft); font-variant-numeric: tabular-nums; }
.near .id { font-weight: 400; color: var(--soft); margin: 0; }
.near .text { font: .8125rem/1.4 var(--serif); margin: 0; }
code { font: .9em ui-monospace, Menlo, Consolas, "Liberation Mono", monospace; }
@media (max-width: 46rem) {
  main { padding: 1.2rem 1rem 3rem; }
  .pair, .picks { grid-template-columns: minmax(0, 1fr); }
  .kicker span:last-child { margin-left: 0; }
  section { margin-top: 2rem; }
}
@media print {
  @page { margin: 16mm 15mm; }
  body { font-size: 9.5pt; }
  main { max-width: none; padding: 0; }
  h1 { font-size: 22pt; }
  h2 { font-size: 13pt; break-after: avoid; }
  section { margin-top: 1.4rem; padding-top: .7rem; }
  figure, tr, .facts { break-inside: avoid; }
  table, figcaption, .note, .measures, .id, .near { font-size: 7.5pt; }
  .text { font-size: 9pt; }
  .near .text { font-size: 7.8pt; }
  .pair { gap: .8rem 1.6rem; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
