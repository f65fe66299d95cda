"""How the page of a report is laid out: its skeleton, with places to fill, and its style sheet."""

import base64
import hashlib
from collections.abc import Iterable

from novelsum.report.text import escaped

_SKELETON = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
{allowed}base-uri 'none'; form-action 'none'">
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
<p class=kicker><span>novelsum</span> <span>{kind}</span> <span>{finished}</span></p>
<h1>{title}</h1>
<div class=lead>{summary}</div>
<dl class=facts>{facts}</dl>
</header>
{sections}
</main>
{script}</body>
</html>
"""

STYLE = """
:root { color-scheme: only light; --ink: #1c1c1c; --soft: #5b6470; --rule: #c9ced5; --pick: #8c2f24;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
  --serif: Charter, "Bitstream Charter", "Iowan Old Style", Palatino, Cambria, Georgia, "Liberation Serif", serif; }
* { box-sizing: border-box; }
html { background: #fff; -webkit-text-size-adjust: 100%; }
body { margin: 0; color: var(--ink); background: #fff; font: 1.0625rem/1.5 var(--serif); overflow-wrap: anywhere; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
p { margin: 0 0 .8em; }
sub { line-height: 0; }
.kicker { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 0 0 1.2rem; padding-bottom: .5rem;
  border-bottom: 2px solid var(--ink); font: .8125rem var(--sans); color: var(--soft); }
.kicker span:first-child { font-weight: 700; color: var(--ink); }
.kicker span:last-child { margin-left: auto; }
h1 { margin: 0 0 1rem; font-size: clamp(1.7rem, 4.5vw, 2.6rem); line-height: 1.12; font-weight: 600;
  letter-spacing: -.01em; }
h2 { margin: 0 0 1rem; font-size: 1.35rem; line-height: 1.2; font-weight: 600; }
.lead > p { max-width: 46rem; }
section { margin-top: 2.2rem; padding-top: 1.1rem; border-top: 1px solid var(--rule); }
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
.plate [id*="-halo-"] text { paint-order: stroke; stroke: #fff; stroke-width: 3px; }
figcaption, .note, .measures, .id, .near { font: .8125rem/1.45 var(--sans); }
figcaption { margin-top: .5rem; color: #3a4048; }
.note { margin: -.7rem 0 1.2rem; color: var(--soft); }
.table { margin: 0 0 1.2rem; overflow-x: auto; }
section > :last-child { margin-bottom: 0; }
table { width: 100%; border-collapse: collapse; font: .8125rem/1.35 var(--sans);
  font-variant-numeric: lining-nums tabular-nums; }
thead th { vertical-align: bottom; font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--ink); }
th, td { padding: .26rem 0 .26rem .7rem; text-align: right; vertical-align: top; white-space: nowrap; }
th, td bdi { white-space: normal; }
thead th { overflow-wrap: normal; }
th:first-child { padding-left: 0; text-align: left; }
tbody th { font-weight: 400; min-width: 6.5em; white-space: normal; }
tbody tr { border-bottom: 1px solid #e6e9ec; }
tbody tr:last-child { border-bottom: 1px solid var(--rule); }
.picks { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 0 2.8rem; margin: 0; padding: 0;
  list-style: none; }
.picks > li { display: grid; grid-template-columns: 2.2rem minmax(0, 1fr); padding: .9rem 0 .5rem;
  border-top: 1px solid var(--rule); break-inside: avoid; }
.number { font-size: 1.35rem; line-height: 1.15; color: var(--pick); font-variant-numeric: lining-nums; }
.id { margin: 0 0 .2rem; font-weight: 600; }
.id .group { font-weight: 400; color: var(--soft); }
.text { margin: 0 0 .3rem; font-size: .9688rem; line-height: 1.42; }
.measures { margin: 0 0 .5rem; color: var(--soft); }
.near { margin: 0; padding: 0; list-style: none; }
.near li { position: relative; margin: 0 0 .5rem; padding-left: 3.6rem; }
.near .measure { position: absolute; left: 0; color: var(--soft); font-variant-numeric: tabular-nums; }
.near .id { font-weight: 400; color: var(--soft); margin: 0; }
.near .text { font: .8125rem/1.4 var(--serif); margin: 0; }
h3 { margin: 0 0 .4rem; font-size: 1.05rem; line-height: 1.25; font-weight: 600; }
h3 + .note { margin-top: 0; }
.features { columns: 24rem 2; column-gap: 2.8rem; margin: 1rem 0; padding: .8rem 0 .3rem; list-style: none;
  border: solid var(--rule); border-width: 1px 0; font-size: .9375rem; line-height: 1.45; }
.features li { margin: 0 0 .5rem; break-inside: avoid; }
.turn { margin-bottom: .15rem; }
.role { font: 600 .86em var(--sans); color: var(--soft); }
.fate { margin: 0; font: .8125rem/1.45 var(--sans); color: var(--soft); }
.tools { display: flex; flex-wrap: wrap; align-items: center; gap: .4rem .8rem; margin: 0 0 .8rem;
  font: .8125rem/1.4 var(--sans); }
.tools[hidden] { display: none; }
.tools input { flex: 0 1 20rem; min-width: 10rem; padding: .3rem .5rem; border: 1px solid var(--soft);
  border-radius: 2px; color: var(--ink); background: #fff; font: inherit; }
.tools [role=status] { color: var(--soft); font-variant-numeric: tabular-nums; }
.list .id { margin: 0; font-weight: 400; color: inherit; min-width: 8em; max-width: 14em; }
.list .group { max-width: 9em; color: var(--soft); }
.list .text { width: 45%; margin: 0; padding-left: 1.4rem; font: .875rem/1.4 var(--serif); }
.list .id, .list .group, .list .text { text-align: left; white-space: normal; }
.list thead .text { font: inherit; font-weight: 600; }
.list thead .id, .list thead .group { color: var(--soft); font-weight: 600; }
.list .pick { min-width: 0; color: var(--pick); font-weight: 600; }
.list thead .pick { color: var(--soft); }
.list button { margin: 0; padding: 0 0 1px; border: 0; background: none; color: inherit; font: inherit;
  text-align: inherit; white-space: nowrap; cursor: pointer; text-decoration: underline;
  text-decoration-color: var(--rule); text-underline-offset: 3px; }
[aria-sort=ascending] button, [aria-sort=descending] button { color: var(--ink); text-decoration-color: var(--ink); }
[aria-sort=ascending] button::after { content: " ↑"; }
[aria-sort=descending] button::after { content: " ↓"; }
.more { margin-top: .8rem; padding: .35rem .8rem; border: 1px solid var(--soft); border-radius: 2px; background: #fff;
  color: var(--ink); font: .8125rem var(--sans); cursor: pointer; }
:focus-visible { outline: 2px solid var(--pick); outline-offset: 2px; }
code { font: .9em ui-monospace, Menlo, Consolas, "Liberation Mono", monospace; }
@media screen and (max-width: 54rem) {
  main { padding: 1.2rem 1rem 3rem; }
  .pair, .picks { grid-template-columns: minmax(0, 1fr); }
  .kicker span:last-child { margin-left: 0; }
  th, td { padding-left: .45rem; }
  tbody th { min-width: 5em; }
  table { font-size: .78rem; }
  section { margin-top: 2rem; }
  .list, .list thead, .list tbody, .list tbody tr, .list .text { display: block; width: auto; max-width: none; }
  .list thead tr { display: flex; flex-wrap: wrap; gap: .1rem 1rem; padding: .3rem 0; }
  .list thead th { padding: 0; border: 0; min-width: 0; }
  .list thead { border-bottom: 1px solid var(--ink); }
  .list thead .text, .list thead .id { display: none; }
  .list tbody tr { padding: .5rem 0; }
  .list tbody th, .list tbody td { display: inline; padding: 0 .45rem 0 0; max-width: none; white-space: normal; }
  .list tbody .text { display: block; padding: .15rem 0 0; }
  .list button { padding: .35rem 0; }
  .list tbody .novelty::before { content: "novelty "; }
  .list tbody .density::before { content: "σ "; }
  .list tbody .nearest::before { content: "nearest "; }
  .list tbody .length::before { content: "length "; }
  .list tbody .novelty, .list tbody .density, .list tbody .nearest, .list tbody .length { color: var(--soft); }
}
@media print {
  @page { margin: 16mm 15mm; }
  body { font-size: 9.5pt; }
  main { max-width: none; padding: 0; }
  h1 { font-size: 22pt; }
  h2 { font-size: 13pt; break-after: avoid; }
  section { margin-top: 1.4rem; padding-top: .7rem; }
  figure, tr, .facts, .near li { break-inside: avoid; }
  .tools label, .tools input, .more { display: none !important; }
  .features, .fate, .tools { font-size: 8pt; }
  .list .text { font-size: 8pt; }
  h3 { font-size: 10pt; break-after: avoid; }
  .table { overflow: visible; }
  .lead > p, section > p { max-width: none; }
  section > p { break-inside: avoid; break-after: avoid; }
  table, figcaption, .note, .measures, .id, .near { font-size: 7.5pt; }
  .text { font-size: 9pt; }
  .near .text { font-size: 7.8pt; }
  .pair { gap: .8rem 1.6rem; }
  .facts { gap: .6rem 1.8rem; }
  .facts dd { font-size: 15pt; }
  th, td { padding-top: .12rem; padding-bottom: .12rem; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def whole(
    kind: str,
    title: str,
    finished: str,
    summary: str,
    facts: Iterable[tuple[str, str]],
    sections: Iterable[str],
    style: str = "",
    script: str = "",
) -> str:
    """A page of parts that are HTML; ``finished``: when its run was, as a manifest says it; sections that are empty are
    left out. It loads nothing, and runs nothing but the ``script``.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _SKELETON.format(
        kind=kind,
        title=title,
        finished=escaped(finished.replace("T", " ").replace("Z", " UTC")),
        summary=summary,
        facts="".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts),
        sections="\n".join(filter(None, sections)),
        style=STYLE + style,
        script=f"<script>{script}</script>\n" if script else "",
        allowed=f"script-src 'sha256-{digest}'; " if script else "",
    )
