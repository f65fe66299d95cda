"""The pictures of a report as SVG to stand inside a page: text stays text, no colour carries meaning alone.

Matplotlib is imported where a picture is drawn and nowhere else.
"""

import io
import math
import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from novelsum.formulas import EQUATIONS
from novelsum.groups import in_words
from novelsum.report.text import number, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 4.0
"""Inches; a phone shows a picture at about its own size."""
INK, POOL, PICKED, RULE = "#1c1c1c", "#9aa3ad", "#8c2f24", "#5b6470"
NUMBERED = 10
"""Picks of the map that are marked and numbered."""
_LABEL = 24
"""Cells of the longest label beside an axis; a wide character takes two."""
_ASIDE = [(1, 1), (1, -1), (-1, 1), (-1, -1), (1.2, 0), (-1.2, 0), (0, 1.2), (0, -1.2)]
"""Directions from a mark in which its number may stand, the best first."""
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "font.family": ["DejaVu Sans"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.8,
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",
    "svg.hashsalt": "novelsum",
}


def novelty(data: dict[str, Any], metric: str) -> str:
    """Novelty of each pick, and its distance to the nearest pick before it."""
    curve, typical, flat = (
        data["novelty"],
        data["density"]["typical_neighbor_distance"],
        data["novelty"]["flat_from_pick"],
    )
    with drawing(3.9) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2]})
        for axes, values in ((upper, curve["novelty"]), (lower, curve["nearest_earlier"])):
            drawn = [(pick, value) for pick, value in zip(curve["pick"], values, strict=True) if value is not None]
            marker = {"marker": "o", "markersize": 2.6} if len(drawn) <= 40 else {}
            axes.plot(*zip(*drawn, strict=True), color=PICKED, **marker) if drawn else None
            axes.set_ylim(bottom=0)
            axes.grid(axis="y", color="#e3e6ea", linewidth=0.6)
            separate_thousands(axes.yaxis)
            if flat:
                axes.axvline(flat, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
        if flat:
            right = flat > 0.6 * curve["pick"][-1]
            upper.annotate(
                f"flat from pick {flat:,}",
                (flat, 0.06),
                xycoords=("data", "axes fraction"),
                xytext=(-4 if right else 4, 0),
                textcoords="offset points",
                ha="right" if right else "left",
            )
        if typical is not None:
            label = "typical of neighbours in the pool"
            lower.axhline(typical, color=INK, linewidth=1.1, linestyle=":", label=label)
            lower.legend(loc="lower left")
        upper.set_ylabel(f"novelty v\n(weighted {metric} distance)")
        lower.set_ylabel(f"nearest before\n({metric} distance)")
        lower.set_xlabel("pick (number)")
        lower.xaxis.set_major_formatter(_whole)
        lower.xaxis.get_major_locator().set_params(integer=True)
        lower.set_xlim(0, curve["pick"][-1] * 1.02)
        figure.align_ylabels()
    return figure.svg("novelty", "Novelty against pick number")


def density(data: dict[str, Any], metric: str) -> str:
    """Shares of pool and selection by density factor."""
    unit = EQUATIONS[data["settings"]["formula"]].unit(metric)
    label = f"density factor σ (1 / {unit}), sparse → dense"
    return _shares("density", "Density factors of pool and selection", data["density"], label)


def lengths(data: dict[str, Any]) -> str:
    """Shares of pool and selection by the length of their texts."""
    return _shares("lengths", "Lengths of texts in pool and selection", data["lengths"], "length of text (characters)")


def _shares(name: str, title: str, bins: dict[str, Any], label: str) -> str:
    """Shares of pool and selection in bins of equal width on a logarithmic axis."""
    with drawing(2.9) as figure:
        axes = figure.subplots()
        for rows, style in (
            (bins["pool"], {"color": "#d5d9de", "edgecolor": POOL, "fill": True, "label": "pool"}),
            (
                bins["selected"],
                {"edgecolor": PICKED, "fill": False, "hatch": "////", "linewidth": 1.3, "label": "selection"},
            ),
        ):
            shares = [100 * count / sum(rows) for count in rows]
            axes.stairs(shares, bins["edges"], **style)
        axes.set_xscale("log")
        _plain_log_ticks(axes, bins["edges"][0], bins["edges"][-1])
        axes.set_xlabel(label)
        axes.set_ylabel("share of samples (%)")
        axes.legend(loc="best")
    return figure.svg(name, title)


def groups(data: dict[str, Any]) -> str:
    """Share of each group in pool and selection."""
    found = data["groups"]
    rows = [(in_words(row["group"]), row["pool"], row["selected"]) for row in found["largest"]]
    if found["smaller"]["count"]:
        smaller = found["smaller"]
        rows.append((f"{smaller['count']:,} smaller groups", smaller["pool"], smaller["selected"]))
    totals = sum(row[1] for row in rows), max(1, sum(row[2] for row in rows))
    places = range(len(rows))
    pool, picked = ([100 * row[column] / totals[column - 1] for row in rows] for column in (1, 2))
    with drawing(1.1 + 0.19 * len(rows)) as figure:
        axes = figure.subplots()
        axes.hlines(places, pool, picked, color=POOL, linewidth=1.6)
        axes.plot(pool, places, "o", markersize=5, markerfacecolor="white", color=RULE, label="pool")
        axes.plot(picked, places, "D", markersize=4.2, color=PICKED, label="selection")
        figure.name_rows(axes, [row[0] for row in rows])
        axes.grid(axis="x", color="#e3e6ea", linewidth=0.6)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.set_xlabel("share of samples (%)")
        axes.spines["left"].set_visible(False)
        legend_above(axes)
    return figure.svg("groups", "Groups in pool and selection")


def pool_map(data: dict[str, Any], metric: str) -> str:
    """The pool's sample and the picks on the two axes along which the sample varies most."""
    found, space = data["map"], "unit vectors" if metric == "cosine" else "embedding units"
    with drawing(4.0) as figure:
        axes = figure.subplots()
        axes.plot(*zip(*found["pool"], strict=True), ".", markersize=2.4, color=POOL, label="pool (sample)")
        axes.plot(
            [pick[1] for pick in found["picks"]],
            [pick[2] for pick in found["picks"]],
            "D",
            markersize=3.4,
            markerfacecolor="none",
            markeredgewidth=0.9,
            color=PICKED,
            label="picks",
        )
        numbered = found["picks"][:NUMBERED]
        axes.plot([pick[1] for pick in numbered], [pick[2] for pick in numbered], "D", markersize=4.6, color=INK)
        axes.set_aspect("equal", adjustable="datalim")
        first, second = (f"{100 * share:.1f}% of variance" for share in found["variance_shares"])
        axes.set_xlabel(f"first principal axis ({space}; {first})")
        axes.set_ylabel(f"second principal axis ({space}; {second})")
        legend_above(axes, markerscale=1.5)
        places = figure.in_points(axes, [(x, y) for _, x, y in numbered])
        for (pick, x, y), aside in zip(numbered, _asides(places, [str(row[0]) for row in numbered]), strict=True):
            text = axes.annotate(
                str(pick),
                (x, y),
                xytext=aside,
                textcoords="offset points",
                fontweight="bold",
                ha="center",
                va="center",
                in_layout=False,
            )
            text.set_gid(f"halo-{pick}")
    return figure.svg("map", "Map of pool and picks")


def comparison(found: dict[str, Any], metric: str) -> str:
    """NovelSum and two distances of each strategy; the selection's own bar is solid, the others hatched."""
    strategies, by = found["strategies"], found["measured_as"]
    panels: tuple[tuple[Callable[[dict[str, Any]], float], str, str], ...] = (
        (lambda row: row["novelsum"][by]["mean"], f"novelsum_{by}", "mean NovelSum\n(weighted)"),
        (lambda row: row["mean_nearest_distance"], "mean_nearest_distance", f"nearest other\n({metric})"),
        (lambda row: row["coverage"], "coverage", f"coverage\n({metric})"),
    )
    with drawing(1.1 + 0.3 * len(strategies)) as figure:
        every = figure.subplots(1, 3, sharey=True)
        figure.name_rows(every[0], [row["name"] for row in strategies])
        for axes, (measure, name, label) in zip(every, panels, strict=True):
            values = [measure(row) for row in strategies]
            spread = [row.get("spread", {}).get(name) or 0.0 for row in strategies]
            bars = axes.barh(range(len(values)), values, height=0.62, color="white", edgecolor=RULE, linewidth=0.8)
            for bar, row in zip(bars, strategies, strict=True):
                own = row["own"]
                bar.set(
                    facecolor=PICKED if own else "white", edgecolor=PICKED if own else RULE, hatch="" if own else "////"
                )
            places = [place for place, of_row in enumerate(spread) if of_row]
            axes.errorbar(
                [values[place] for place in places],
                places,
                xerr=[spread[place] for place in places],
                fmt="none",
                ecolor=INK,
                elinewidth=1.2,
                capsize=2.5,
            )
            for place, value in enumerate(values):
                at = (value + spread[place], place)
                axes.annotate(number(value), at, (3, 0), textcoords="offset points", va="center", fontsize=8.0)
            axes.set_xlim(0, max(1e-12, *values) * 1.5)
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(len(values) - 0.4, -0.6)
            axes.locator_params(axis="x", nbins=3)
            separate_thousands(axes.xaxis)
            axes.set_xlabel(label)
    return figure.svg("comparison", "Comparison of strategies")


# --- from a figure to SVG ---------------------------------------------------------------------------------


class _Drawn:
    """A figure that is being drawn, then its SVG."""

    def __init__(self, figure: "Figure") -> None:
        self._figure = figure
        self.subplots: Callable[..., Any] = figure.subplots
        self.align_ylabels: Callable[[], None] = figure.align_ylabels
        self._content = ""
        self._names: dict[str, str] = {}

    def name_rows(self, axes: "Axes", names: Sequence[str]) -> None:
        """Write a name before each row of a picture.

        Matplotlib is given letters of about the same width, as its font may lack those of the name.
        """
        axes.tick_params(axis="y", length=0)
        labels = [_fitted(name) for name in names]
        axes.set_yticks(range(len(labels)), ["".join(_stand_in(c) for c in label) for label in labels])
        for row, (label, text) in enumerate(zip(axes.get_yticklabels(), labels, strict=True)):
            label.set_gid(f"name-{row}")
            self._names[f"name-{row}"] = text

    def in_points(self, axes: "Axes", places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        """Where places of the axes come to lie in the picture, in points."""
        self._figure.draw_without_rendering()
        scale = 72 / self._figure.dpi
        return [(scale * x, scale * y) for x, y in axes.transData.transform(places).tolist()]

    def finish(self) -> None:
        """Render while the style still holds."""
        content = io.StringIO()
        self._figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        self._content = content.getvalue()

    def svg(self, name: str, title: str) -> str:
        """The picture as an element of a page, its ids made unique by ``name``."""
        return _inline(self._content, name, title, self._names)


@contextmanager
def drawing(height: float) -> Iterator[_Drawn]:
    """A figure of the report's width and so many inches high, drawn in its style and in no other."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        drawn = _Drawn(Figure(figsize=(WIDTH, height), layout="constrained"))
        yield drawn
        drawn.finish()


def legend_above(axes: "Axes", **options: Any) -> None:
    """Where it hides nothing."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handletextpad=0.2, **options)


def _whole(value: float, _: object) -> str:
    return f"{value:,.0f}"


def separate_thousands(axis: "Axis") -> None:
    """Of an axis on which numbers are great."""
    if max(map(abs, axis.get_view_interval())) >= 1000:
        axis.set_major_formatter(_whole)


def _plain_log_ticks(axes: "Axes", low: float, high: float) -> None:
    """Fewer ticks over a wider range, each a number as people write it."""
    steps = (1.0,) if high / low > 300 else (1.0, 2.0, 5.0) if high / low > 15 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
    ticks = ticks[:: -(-len(ticks) // 8)] if len(ticks) > 1 else [low, high]
    axes.set_xticks(ticks, [f"{tick:,.0f}" if tick >= 1000 else f"{tick:.3g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(low, high)


def _cells(text: str) -> int:
    """How many letters of common width are about as wide."""
    return sum(len(_stand_in(c)) + (_stand_in(c) == "W") for c in text)


def _stand_in(character: str) -> str:
    """A letter that any font has and that is about as wide."""
    if character.isascii():
        return character
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return ""
    return "W" if unicodedata.east_asian_width(character) in "WF" else "n"


def _fitted(name: str) -> str:
    """A name cut so that it is no wider than ``_LABEL``."""
    text = shown(name)
    if _cells(text) <= _LABEL:
        return text
    while _cells(text) >= _LABEL:
        text = text[:-1]
    return f"{text}…"


def _asides(places: Sequence[tuple[float, float]], labels: Sequence[str]) -> list[tuple[float, float]]:
    """Where to write the label of each mark, from its middle, so that labels hide few marks and no other label."""
    taken = [(x, y, 3.5, 3.5) for x, y in places]  # middle and half of width and height, in points
    found = []
    for (x, y), label in zip(places, labels, strict=True):
        wide, high = 3.2 * len(label), 4.5
        offsets = [(far * right * (wide + 3), far * up * (high + 1)) for far in (1, 1.7) for right, up in _ASIDE]
        hidden = [sum(_overlap((x + right, y + up, wide, high), other) for other in taken) for right, up in offsets]
        found.append(offsets[hidden.index(min(hidden))])
        taken.append((x + found[-1][0], y + found[-1][1], wide, high))
    return found


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """The area that two boxes share, each given by its middle and half of its width and height."""
    sides = (min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i] - a[i + 2], b[i] - b[i + 2]) for i in (0, 1))
    return math.prod(max(0.0, side) for side in sides)


def _inline(content: str, name: str, title: str, names: dict[str, str]) -> str:
    """Matplotlib's SVG without its prologue and style sheet, with a title, and with ids and names of its own."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(content)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        if element.get("id") in names:
            element[0].text = names[element.attrib["id"]]
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key == f"{{{_XLINK}}}href":
                element.set(key, value.replace("#", f"#{name}-", 1))
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))
            elif key in ("d", "x", "y", "transform", "style"):
                element.set(key, _LONG.sub(lambda match: f"{float(match[0]):.2f}", value))
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title")
    root.insert(0, ET.Element(f"{{{_SVG}}}title", {"id": f"{name}-title"}))
    root[0].text = title
    return ET.tostring(root, encoding="unicode")


_LONG = re.compile(r"-?\d+\.\d{3,}")
