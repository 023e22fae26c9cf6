"""Pictures small enough to stand in the page itself, as data URIs of JPEGs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_QUALITY = 80
_SHEET_COLUMNS = 4

_Pixels = NDArray[Any]  # OpenCV's stubs say no more; all of them are uint8, BGR


def data_uri(jpeg: bytes) -> str:
    """A JPEG as the address of itself."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def thumbnail(image: bytes, side_px: int) -> str:
    """A square picture of one view (JPEG), ``side_px`` wide; no larger than the view is."""
    return _encoded(_decoded(image, side_px))


def contact_sheet(images: Sequence[bytes], side_px: int) -> str:
    """All views of a galaxy (JPEGs) in one picture, four in a row, each ``side_px`` wide; view 0 is the upper left."""
    cells = [_decoded(image, side_px) for image in images]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % _SHEET_COLUMNS)
    rows = [np.hstack(cells[start : start + _SHEET_COLUMNS]) for start in range(0, len(cells), _SHEET_COLUMNS)]
    return _encoded(np.vstack(rows))


def smaller(file: Path, width_px: int) -> str:
    """A picture of a file (PNG, JPEG), at most ``width_px`` wide; empty where it is missing or cannot be read."""
    pixels = cv2.imread(str(file), cv2.IMREAD_COLOR) if file.is_file() else None
    if pixels is None:
        return ""
    height, width = pixels.shape[:2]
    if width > width_px:
        pixels = cv2.resize(pixels, (width_px, round(height * width_px / width)), interpolation=cv2.INTER_AREA)
    return _encoded(pixels)


def _decoded(image: bytes, side_px: int) -> _Pixels:
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    side_px = min(side_px, len(pixels))
    return cv2.resize(pixels, (side_px, side_px), interpolation=cv2.INTER_AREA)


def _encoded(pixels: _Pixels) -> str:
    return data_uri(cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))[1].tobytes())
