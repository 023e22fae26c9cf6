"""A picture of what augmentation does to some galaxies, to look at before it is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from galaxyspark.errors import UserError
from galaxyspark.views.augment import NUM_VIEWS, ViewRecipe, perturb_colour, view_pixels
from galaxyspark.views.reading import UnreadableImageError

COLOUR_STEPS = (-3, -2, -1, 0, 1, 2, 3)
"""Weights of one colour axis at a time, in standard deviations of the perturbation."""

_AXIS_NAMES = ("first", "second", "third")
_GALAXIES = 8
_GALAXIES_OF_COLOURS = 2
_CELL_INCHES = 0.9
_TITLE_CELLS = 0.75
_Pixels = NDArray[np.uint8]  # 0-255, shape (size, size, 3), colour order BGR


def write_contact_sheet(contents: Mapping[str, bytes], recipe: ViewRecipe, file: Path) -> None:
    """Write a PNG: a row of 16 views a galaxy, and below them colour series along each axis for the first galaxies.

    Args:
        contents: Galaxy id -> bytes of its image file; the first 8 that can be read are shown.
        recipe: Of the views.
        file: Where to write it.

    Raises:
        UserError: None of the images can be read.
    """
    every = ((galaxy_id, _views(content, galaxy_id, recipe)) for galaxy_id, content in contents.items())
    views = dict(islice(((galaxy_id, pixels) for galaxy_id, pixels in every if pixels), _GALAXIES))
    if not views:
        raise UserError(f"--preview: none of these images can be read: {', '.join(contents)}.")
    series = _colour_series(views, recipe)
    heights = [_CELL_INCHES * (len(rows) + _TITLE_CELLS) for rows in (views, series)]
    figure = Figure(figsize=(_CELL_INCHES * (NUM_VIEWS + 1.6), sum(heights)), dpi=120)
    above, below = figure.subfigures(2, 1, height_ratios=heights)  # type: ignore[misc]
    _grid(above, "The 16 views of a galaxy. View 0 is the plain centre.", views, range(NUM_VIEWS))
    title = "View 0 with its colour shifted along one axis at a time, in standard deviations of the perturbation"
    _grid(below, f"{title} (strength {recipe.colour_strength:g}).", series, COLOUR_STEPS)
    figure.savefig(file)


def _views(content: bytes, galaxy_id: str, recipe: ViewRecipe) -> list[_Pixels]:
    try:
        return list(view_pixels(content, galaxy_id, recipe))
    except UnreadableImageError:
        return []


def _colour_series(views: Mapping[str, list[_Pixels]], recipe: ViewRecipe) -> dict[str, list[_Pixels]]:
    """Name of the row -> view 0 of a galaxy in all ``COLOUR_STEPS`` along one axis."""
    series = {}
    for galaxy_id, (view, *_) in islice(views.items(), _GALAXIES_OF_COLOURS):
        for axis, name in enumerate(_AXIS_NAMES):
            weights = [[step if axis == of else 0.0 for of in range(3)] for step in COLOUR_STEPS]
            series[f"{galaxy_id}\n{name} axis"] = [perturb_colour(view, of_step, recipe) for of_step in weights]
    return series


def _grid(figure: SubFigure, title: str, rows: Mapping[str, Sequence[_Pixels]], columns: Sequence[int]) -> None:
    """Pictures in rows and columns with names."""
    figure.suptitle(title, fontsize=11, x=0.01, y=1 - 0.1 / (len(rows) + _TITLE_CELLS), ha="left", va="top")
    axes = figure.subplots(len(rows), NUM_VIEWS, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    figure.subplots_adjust(left=0.085, right=0.995, bottom=0.005, top=1 - _TITLE_CELLS / (len(rows) + _TITLE_CELLS))
    for cell in axes.flat:
        cell.set_axis_off()
    for cells, (name, pictures) in zip(axes, rows.items(), strict=True):
        cells[0].text(-0.08, 0.5, name, transform=cells[0].transAxes, ha="right", va="center", fontsize=8)
        for cell, picture in zip(cells, pictures, strict=False):
            cell.imshow(picture[..., ::-1])
    for cell, column in zip(axes[0], columns, strict=False):
        cell.set_title(f"{column:+d}" if min(columns) < 0 else str(column), fontsize=8, pad=3)
