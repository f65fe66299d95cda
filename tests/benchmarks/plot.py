"""Seconds against the size of a case, a panel for each of what grows, on logarithmic axes."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from cost import exponent
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

_INK, _BLUE, _ORANGE, _GREY = "#222222", "#1f5fa8", "#c8641c", "#8a8a8a"


@dataclass(frozen=True)
class Panel:
    """Measured seconds by size, what the model says, and the floor; ``letter``: the size in a formula."""

    title: str
    label: str
    letter: str
    sizes: list[int]
    seconds: list[float]
    modelled: list[float]
    floor: list[float]


def draw(panels: list[Panel], path: Path) -> None:
    """Draw all panels beside one another, with one scale of seconds."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"font.size": 10, "axes.edgecolor": _GREY, "text.color": _INK, "axes.labelcolor": _INK})
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 4), sharey=True, layout="constrained")
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, panel)
    axes[0].set_ylabel("seconds on two cores")
    axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[0].yaxis.set_minor_formatter(NullFormatter())
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, [name.split(":")[0] for name in names], loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, facecolor="white")
    plt.close(figure)


def _draw_panel(axis: Axes, panel: Panel) -> None:
    """One panel: points, the line through them with its exponent, the model, and the floor."""
    sizes, seconds = np.array(panel.sizes), np.array(panel.seconds)
    along = np.geomspace(sizes.min() / 1.15, sizes.max() * 1.15, 50)
    power, factor = exponent(panel.sizes, panel.seconds)
    axis.plot(along, factor * along**power, color=_BLUE, linewidth=1.2, label="fit")
    axis.plot(sizes, seconds, "o", color=_BLUE, markersize=6, label="measured")
    axis.plot(sizes, panel.modelled, "x", color=_ORANGE, markersize=7, label="cost model")
    axis.plot(sizes, panel.floor, "s", color=_GREY, markersize=4, label="bare products (floor)")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel(panel.label)
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_title(panel.title, fontsize=10)
    axis.text(
        0.05, 0.94, f"seconds ∝ {panel.letter}$^{{{power:.2f}}}$", transform=axis.transAxes, va="top", color=_BLUE
    )
    axis.grid(True, which="major", color="#e4e4e4", linewidth=0.7)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
