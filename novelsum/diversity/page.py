"""The page beside the tables: ``diversity.html``, in the look of a selection's report, with nothing loaded or run.

All that comes from the input or from settings goes through :func:`~novelsum.report.text.escaped`.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

from novelsum.diversity.novelsum import Value
from novelsum.diversity.ranking import Ranked, are_apart, setting_in_words
from novelsum.errors import UsageError
from novelsum.report import figures, pieces
from novelsum.report.template import whole
from novelsum.report.text import escaped, number

PAGE = "diversity.html"
_NAME = 60
_OWN_STYLE = """
.told { max-width: 46rem; margin: 0; padding-left: 1.2em; }
.told li { margin: 0 0 .5em; }
@media print { .told { max-width: none; } }
"""


def check_page() -> None:
    """Raise UsageError when the page cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "the page is drawn with matplotlib, which is not installed; install it (pip install matplotlib) or run "
            "with --no-report"
        )


def draw_page(
    manifest: dict[str, Any], rows: Sequence[dict[str, Any]], ranked: Sequence[Ranked], grid: Sequence[Value]
) -> str:
    """The whole page, from the manifest of a run, the rows of its tables, the ranking, and the settings measured."""
    told = manifest["told"]
    settings = manifest["settings"]
    sections = [
        _ranking(ranked, settings["metric"]),
        pieces.section("What disagrees, and why", _list(told["contradictions"])) if told["contradictions"] else "",
        _spread(ranked, settings["metric"]),
        _settings(rows, ranked, grid),
        pieces.section("How to read it", _list(told["notes"])),
        _provenance(manifest),
    ]
    lead = "".join(f"<p>{escaped(sentence)}</p>" for sentence in [*told["verdict"], *told["random"]])
    facts = [
        ("data sets", f"{len(ranked):,}"),
        ("rows compared", f"{ranked[0].compared.rows:,}"),
        ("dimensions", f"{manifest['inputs'][0]['dimension']:,}"),
        ("random subsets", f"{ranked[0].yardstick.draws:,}" if ranked[0].yardstick else "–"),
    ]
    return whole("Diversity report", _title(ranked), manifest["finished"], lead, facts, sections, _OWN_STYLE)


def _title(ranked: Sequence[Ranked]) -> str:
    first, others = ranked[0], ranked[1:]
    name = escaped(first.name, _NAME)
    if not others:
        return f"How diverse {name} is"
    if all(are_apart(first, other) for other in others):
        return f"{name} is the most diverse of {len(ranked)} data sets"
    return f"{len(ranked)} data sets, none surely the most diverse"


def _list(sentences: Sequence[str]) -> str:
    return f"<ul class=told>{''.join(f'<li>{escaped(sentence)}</li>' for sentence in sentences)}</ul>"


def _ranking(ranked: Sequence[Ranked], metric: str) -> str:
    rows = [
        (
            f"{one.rank}. {pieces.name(one.name, _NAME)}",
            number(one.compared.values[0], 4),
            _range(*one.compared.interval),
            "–" if one.own is None else number(one.own.values[0], 4),
            "–" if one.yardstick is None else number(one.yardstick.means[0], 4),
            _signed(one.above_random),
        )
        for one in ranked
    ]
    drawn = "" if all(one.compared.rows == one.rows for one in ranked) else ", larger sets by random subsets of it"
    note = (
        f"Mean and interval at {ranked[0].compared.rows:,} rows each{drawn}. Random: subsets of the pool (the "
        "reference, or else all sets together) as large as the set, beside the mean of the set at that size"
    )
    most = max((one.yardstick.rows for one in ranked if one.yardstick), default=0)
    if any(one.yardstick and one.yardstick.rows < one.rows for one in ranked):
        note += f", of {most:,} rows at most"
    table = pieces.table(("set", "mean", "95% interval", "its mean", "random", "sd above"), rows, f"{note}.")
    band = " The band is where random subsets of the pool lie." if _random(ranked) else ""
    caption = (
        f"<b>Figure 1.</b> Mean NovelSum of each set at {ranked[0].compared.rows:,} rows (dot) and its 95% interval "
        f"(line). Sets whose lines overlap are not told apart.{band}"
    )
    picture = f"<figure><div class=plate>{_picture(ranked, metric)}</div><figcaption>{caption}</figcaption></figure>"
    return pieces.section("Ranking", f"<div class=pair>{picture}<div>{table}</div></div>")


def _random(ranked: Sequence[Ranked]) -> tuple[float, float] | None:
    """Where random subsets of the size compared at are expected: least and greatest."""
    for one in ranked:
        if one.yardstick is not None and one.yardstick.rows == one.compared.rows:
            half = one.yardstick.expected * one.yardstick.deviations[0]
            return one.yardstick.means[0] - half, one.yardstick.means[0] + half
    return None


def _picture(ranked: Sequence[Ranked], metric: str) -> str:
    """Dots and intervals, the most diverse set on top."""
    with figures.drawing(1.05 + 0.24 * len(ranked)) as figure:
        axes = figure.subplots()
        band = _random(ranked)
        if band is not None:
            axes.axvspan(
                *band, facecolor="#e3e6ea", edgecolor=figures.POOL, hatch="....", linewidth=0.6, label="random"
            )
        for place, one in enumerate(ranked):
            low, high = one.compared.interval
            axes.plot([low, high], [place, place], color=figures.PICKED, linewidth=2.0, solid_capstyle="butt")
        means = [one.compared.values[0] for one in ranked]
        axes.plot(means, range(len(ranked)), "o", markersize=5.5, color=figures.PICKED, label="set")
        figure.name_rows(axes, [one.name for one in ranked])
        axes.grid(axis="x", color="#e3e6ea", linewidth=0.6)
        axes.set_ylim(len(ranked) - 0.4, -0.6)
        axes.locator_params(axis="x", nbins=5)
        figures.separate_thousands(axes.xaxis)
        axes.set_xlabel(f"mean NovelSum (weighted {metric} distance)")
        axes.spines["left"].set_visible(False)
        figures.legend_above(axes)
    return figure.svg("ranking", "Mean NovelSum of each data set with its interval")


def _spread(ranked: Sequence[Ranked], metric: str) -> str:
    spreads = [(one, one.compared.spread) for one in ranked]
    columns: list[tuple[str, list[float | None]]] = [
        ("nearest", [spread.nearest for _, spread in spreads]),
        ("pairs", [spread.pair for _, spread in spreads]),
        ("coverage", [spread.coverage for _, spread in spreads]),
        ("σ", [spread.density for _, spread in spreads]),
    ]
    shown = [(heading, values) for heading, values in columns if values[0] is not None]
    rows = [
        (pieces.name(one.name, _NAME), f"{one.rows:,}", *(number(values[at]) for _, values in shown))
        for at, (one, _) in enumerate(spreads)
    ]
    meanings = {
        "nearest": f"the mean {metric} distance of a row to the nearest other",
        "pairs": "of two rows to each other",
        "coverage": "of a row of the reference to the nearest of the set",
        "σ": "the median density factor",
    }
    note = "; ".join(f"{heading}: {meanings[heading]}" for heading, _ in shown)
    note = f"At the size that all are compared at. {note[0].upper()}{note[1:]}."
    return pieces.section(
        "How the sets are spread", pieces.table(("set", "rows", *(heading for heading, _ in shown)), rows, note)
    )


def _settings(rows: Sequence[dict[str, Any]], ranked: Sequence[Ranked], grid: Sequence[Value]) -> str:
    """NovelSum of all rows of each set in every setting, and of random subsets; ``rows`` are those of the tables."""
    same_size = len({row["rows"] for row in rows}) == 1
    table = []
    for one in ranked:
        first = one.number * len(grid)
        for value, row in zip(grid, rows[first : first + len(grid)], strict=True):
            exact = row["measured_rows"] == row["rows"]
            table.append(
                (
                    f"{pieces.name(one.name, _NAME)}, <bdi>{escaped(setting_in_words(value))}</bdi>",
                    number(row["novelsum_mean"], 4),
                    *([] if exact else [_range(row["mean_low"], row["mean_high"])]),
                    *([number(row["novelsum_sum"], 4)] * same_size),
                    number(row["random_mean"], 4),
                    _signed(row["above_random"]),
                )
            )
    # A set that was sampled has one cell more, its interval; where some are, the others have a word there.
    most = max(map(len, table))
    table = [cells if len(cells) == most else (*cells[:2], "exact", *cells[2:]) for cells in table]
    sampled = ["95% interval"] if most > 4 + same_size else []
    note = "" if same_size else "Sums are left out, as they grow with the number of rows. "
    if any(row["random_rows"] not in (None, row["rows"]) for row in rows):
        note += "Random subsets have fewer rows than a set, and are compared with as many of it."
    headings = ("set and setting", "mean", *sampled, *(["NovelSum"] * same_size), "random", "sd above")
    return pieces.section("All rows of each set, in every setting", pieces.table(headings, table, note))


def _range(low: float, high: float) -> str:
    return f"<bdi>{number(low, 4)} – {number(high, 4)}</bdi>"


def _signed(above: float | None) -> str:
    return "–" if above is None else f"{above:+.1f}".replace("-", "\N{MINUS SIGN}")


def _provenance(manifest: dict[str, Any]) -> str:
    settings = [(f"<code>{escaped(name)}</code>", _joined(value)) for name, value in manifest["settings"].items()]
    seconds = [(escaped(name), f"{value:,.1f}") for name, value in manifest["seconds"].items()]
    versions = [(escaped(name), escaped(value)) for name, value in manifest["versions"].items()]
    inputs = [*manifest["inputs"], *([manifest["reference"]] if manifest["reference"] else [])]
    counts = [
        (
            pieces.name(one["path"], 120),
            f"{one['input_rows']:,}",
            f"{one['duplicates_dropped']:,}",
            f"{one['candidates']:,}",
        )
        for one in inputs
    ]
    parts = [
        "<div>" + pieces.table(("setting", "value"), settings) + "</div><div>",
        pieces.table(("input", "rows", "duplicates", "left"), counts),
        pieces.table(("stage", "seconds"), seconds, "Up to the drawing of this page."),
        pieces.table(("version of", ""), versions) + "</div>",
    ]
    return pieces.section("How it was made", f"<div class=pair>{''.join(parts)}</div>")


def _joined(value: Any) -> str:
    """A value of a setting, or several."""
    return ", ".join(map(pieces.value, value)) if isinstance(value, list | tuple) else pieces.value(value)
