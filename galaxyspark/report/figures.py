"""The page's figures: drawn once, as SVG that takes the page's colours and as PNG on white."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

PALETTE = {
    "ink": "#1c2128",
    "muted": "#59636e",
    "line": "#d3d8de",
    "heat": "#0a4a86",
    "on-heat": "#fefefe",
    "training": "#b35300",
    "validation": "#0569b5",
}
"""Colours of the figures in the light theme. In the SVG each becomes the CSS variable of its name."""

_LABELLED_CLASSES = 12
_DARK_CELL = 0.66
_LONGEST_NAME = 20
_PNG_DPI = 200
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": PALETTE["ink"],
    "text.parse_math": False,
    "axes.labelcolor": PALETTE["muted"],
    "axes.edgecolor": PALETTE["line"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlecolor": PALETTE["ink"],
    "axes.titlesize": 10,
    "grid.color": PALETTE["line"],
    "legend.frameon": False,
    "xtick.color": PALETTE["line"],
    "ytick.color": PALETTE["line"],
    "xtick.labelcolor": PALETTE["ink"],
    "ytick.labelcolor": PALETTE["ink"],
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Drawing:
    """A figure, finished.

    Attributes:
        name: Of the file, without its ending.
        title: In words; the PNG bears it, the page sets it as a caption.
        svg: The ``<svg>`` element, its colours CSS variables and its background transparent.
        png: The file's content.
    """

    name: str
    title: str
    svg: str
    png: bytes


def draw_confusion(name: str, title: str, confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Drawing:
    """A heat map of the share of each true class, with counts and percentages up to 12 classes.

    Args:
        name: Of the file, without its ending.
        title: In words.
        confusion: Counts of galaxies, a row for each true class and a column for each predicted one.
        classes: Names of the classes, in the order of rows and columns.
    """
    counts = np.array(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labelled = len(classes) <= _LABELLED_CLASSES
    side_inches = len(classes) * (0.72 if labelled else 0.2)
    with _style():
        figure = Figure(figsize=(side_inches, side_inches))
        axes = figure.add_axes((0, 0, 1, 1))
        _fill_cells(axes, counts, shares, labelled)
        _name_classes(axes, classes, font_size=9 if labelled else 7)
        return _finish(figure, name, title)


def draw_loss(name: str, title: str, history: Sequence[Mapping[str, Any]], chosen_epoch: int) -> Drawing:
    """Training and validation loss, in nats, over the epochs of history.jsonl."""
    epochs = [row["epoch"] for row in history]
    with _style():
        figure, axes = _curve_axes("loss (nats)")
        axes.plot(epochs, [row["train_loss"] for row in history], "--", color=PALETTE["training"], label="training")
        _draw_validation(axes, history, "loss", chosen_epoch)
        return _finish(figure, name, title)


def draw_accuracy(name: str, title: str, history: Sequence[Mapping[str, Any]], chosen_epoch: int) -> Drawing:
    """Validation accuracy over the epochs of history.jsonl."""
    with _style():
        figure, axes = _curve_axes("accuracy")
        _draw_validation(axes, history, "accuracy", chosen_epoch)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        return _finish(figure, name, title)


def _fill_cells(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64], labelled: bool) -> None:
    red, green, blue = matplotlib.colors.to_rgb(PALETTE["heat"])
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            colour = (red, green, blue, float(share))
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, linewidth=0))
        if labelled:
            ink = PALETTE["on-heat" if share > _DARK_CELL else "ink"]
            percent = f"{share:.1%}" if counts[row].any() else "–"
            axes.text(column, row - 0.04, f"{counts[row, column]:,}", ha="center", size=11, weight="bold", color=ink)
            axes.text(column, row + 0.26, percent, ha="center", size=8, color=ink)
    if labelled:
        edges = np.arange(len(counts) + 1) - 0.5
        axes.hlines(edges, -0.5, len(counts) - 0.5, color=PALETTE["line"], linewidth=0.8)
        axes.vlines(edges, -0.5, len(counts) - 0.5, color=PALETTE["line"], linewidth=0.8)


def _name_classes(axes: Axes, classes: Sequence[str], font_size: int) -> None:
    names = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in classes]
    positions = range(len(names))
    upright = max(map(len, names)) <= 9 and len(names) <= _LABELLED_CLASSES
    axes.set_xticks(positions, names, size=font_size)
    axes.set_yticks(positions, names, size=font_size)
    for label in () if upright else axes.get_xticklabels():
        label.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    axes.spines[:].set_color(PALETTE["line"])
    axes.spines[:].set_visible(True)


def _curve_axes(quantity: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.6, 2.5))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlabel("epoch")
    axes.set_ylabel(quantity)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(axis="y", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.03, y=0.12)
    return figure, axes


def _draw_validation(axes: Axes, history: Sequence[Mapping[str, Any]], quantity: str, chosen_epoch: int) -> None:
    """The validation's line, and a ring around the epoch whose weights were kept."""
    colour = PALETTE["validation"]
    values = {row["epoch"]: row[quantity] for row in history}
    axes.plot(list(values), list(values.values()), "-", color=colour, marker="o", markersize=3, label="validation")
    if chosen_epoch in values:
        axes.plot(
            [chosen_epoch],
            [values[chosen_epoch]],
            linestyle="none",
            marker="o",
            markersize=10,
            markerfacecolor="none",
            markeredgecolor=PALETTE["ink"],
            label=f"chosen: epoch {chosen_epoch}",
        )
    axes.legend(loc="best")


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.rc_context(_STYLE):
        yield


def _finish(figure: Figure, name: str, title: str) -> Drawing:
    """Save as SVG without the title, then as PNG with it. The name salts the ids: figures share a page."""
    FigureCanvasAgg(figure)
    svg, png = io.StringIO(), io.BytesIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(svg, format="svg", bbox_inches="tight", pad_inches=0.02, facecolor="none", metadata=no_metadata)
    figure.axes[0].set_title(title, pad=10)
    figure.savefig(png, format="png", bbox_inches="tight", facecolor="white", dpi=_PNG_DPI)
    return Drawing(name, title, _with_page_colours(svg.getvalue()), png.getvalue())


def _with_page_colours(svg: str) -> str:
    """The ``<svg>`` element alone, in CSS colours, without the groups' ids: all figures have the same."""
    element = re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])
    for name, colour in PALETTE.items():
        element = element.replace(f": {colour}", f": var(--{name})")
    return element
