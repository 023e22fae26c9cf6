"""Many pictures on one sheet, each with its caption, and the names of files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain, count
from pathlib import Path

import cv2
from matplotlib.figure import Figure

from galaxyspark.dream.ascent import Picture

Captioned = tuple[str, Picture]
"""A caption of one line or several, and what it belongs to."""

_PICTURE_INCHES = 1.75
_LINE_INCHES = 0.17
_TITLE_INCHES = 0.5
_LONGEST_NAME = 24
_LONGEST_FILE_NAME = 40


def draw_sheet(file: Path, title: str, rows: Sequence[Sequence[Captioned]]) -> None:
    """Write a PNG: a title of two lines, and rows of pictures of one shape with a caption above each of them."""
    num_columns = max(map(len, rows))
    height_px, width_px, _ = rows[0][0][1].shape
    caption_inches = _LINE_INCHES * (1 + max(caption.count("\n") + 1 for row in rows for caption, _ in row))
    width = num_columns * _PICTURE_INCHES * width_px / height_px
    height = len(rows) * (_PICTURE_INCHES + caption_inches) + _TITLE_INCHES
    figure = Figure(figsize=(width, height), dpi=120)
    figure.suptitle(title, fontsize=11, x=0.01, y=1 - 0.1 / height, ha="left", va="top", parse_math=False)
    axes = figure.subplots(len(rows), num_columns, squeeze=False)
    top = 1 - (_TITLE_INCHES + caption_inches) / height
    figure.subplots_adjust(
        left=0.005, right=0.995, bottom=0.005, top=top, wspace=0.04, hspace=caption_inches / _PICTURE_INCHES
    )
    for cell in axes.flat:
        cell.set_axis_off()
    for cells, row in zip(axes, rows, strict=True):
        for cell, (caption, picture) in zip(cells, row, strict=False):
            cell.imshow(picture)
            cell.set_title(caption, fontsize=9, pad=4, parse_math=False)
    figure.savefig(file)


def in_rows(pictures: Sequence[Captioned], num_columns: int) -> list[Sequence[Captioned]]:
    """The pictures in rows of so many."""
    return [pictures[start : start + num_columns] for start in range(0, len(pictures), num_columns)]


def shortened(name: str) -> str:
    """A name as it fits above a picture."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def safe_name(text: str) -> str:
    """A text as part of a file's name: 40 characters at most, of which those but letters, digits, . _ - become _."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII)[:_LONGEST_FILE_NAME]


def safe_names(texts: Iterable[str]) -> dict[str, str]:
    """For each text a ``safe_name`` of its own: ``a/b`` and ``a<b`` become ``a_b`` and ``a_b-2``."""
    names: dict[str, str] = {}
    for text in texts:
        plain = safe_name(text)
        numbered = (f"{plain}-{number}" for number in count(2))
        names[text] = next(name for name in chain([plain], numbered) if name not in names.values())
    return names


def encode_png(picture: Picture) -> bytes:
    """The picture as the content of a PNG file."""
    _, encoded = cv2.imencode(".png", picture[..., ::-1])
    return encoded.tobytes()
