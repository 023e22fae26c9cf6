"""How the page's figures look: drawn once, as SVG that takes the page's colours, and as files on white."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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

_OKABE_ITO = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c")
NUM_COLOURS = len(_OKABE_ITO)
MOST_IN_LEGEND = 16
"""Classes that a legend has room for."""
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
        files: Contents of the files by their endings, ``.svg`` and ``.png``; on white.
        alternative: What it shows, in words, for those who cannot see it; the title where empty.
    """

    name: str
    title: str
    svg: str
    files: Mapping[str, bytes]
    alternative: str = ""


def class_colour(position: int) -> str:
    """A colour for the class at this position; after ``NUM_COLOURS`` they come again.

    Those of Okabe & Ito 2008, "Color Universal Design", which colour-blind people tell apart; with grey for black,
    which a dark page hides, and without yellow, which a white one does.
    """
    return _OKABE_ITO[position % NUM_COLOURS]


def in_legend(name: str) -> str:
    """A name as Matplotlib's legends show it: one that begins with _ they leave out."""
    return f" {name}" if name.startswith("_") else name


@contextmanager
def style() -> Iterator[None]:
    """What is drawn inside looks like the page."""
    with matplotlib.rc_context(_STYLE):
        yield


def finish(figure: Figure, name: str, title: str, alternative: str = "") -> Drawing:
    """Save as SVG without the title, for the page, and with it as files. The name salts the SVG's ids."""
    FigureCanvasAgg(figure)
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        svg = _saved(figure, "svg", facecolor="none", metadata=no_metadata)
        if len(figure.axes) == 1:
            figure.axes[0].set_title(title, pad=10)
        else:
            figure.suptitle(title, y=1.03)
        files = {
            ".svg": _saved(figure, "svg", facecolor="white", metadata=no_metadata),
            ".png": _saved(figure, "png", facecolor="white", dpi=_PNG_DPI),
        }
    return Drawing(name, title, _with_page_colours(svg.decode()), files, alternative)


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=kind, bbox_inches="tight", pad_inches=0.05, **options)
    return content.getvalue()


def _with_page_colours(svg: str) -> str:
    """The ``<svg>`` element alone, in CSS colours, without the groups' ids: all figures have the same."""
    element = re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])
    return re.sub(r'style="[^"]*"', lambda match: _with_variables(match[0]), element)


def _with_variables(style: str) -> str:
    for name, colour in PALETTE.items():
        style = style.replace(f": {colour}", f": var(--{name})")
    return style
