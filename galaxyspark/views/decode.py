"""From the bytes of an image file to pixels, or to the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import cv2
import numpy as np
from numpy.typing import NDArray

EMPTY_FILE = "empty file"
MAX_SIDE_PX = 32_766
"""OpenCV's affine transform takes no longer sides."""

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_PADDING = b"\x00\xff\n\r "


class UnreadableImageError(ValueError):
    """The bytes are not an image we can use; the message is the reason that quarantine records."""


def decode_image(content: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG file.

    Args:
        content: The file's bytes.

    Returns:
        Pixels 0-255, shape (height, width, 3), colour order BGR (OpenCV's own).

    Raises:
        UnreadableImageError: Empty, neither JPEG nor PNG, without an end marker at its end (cut off, or with foreign
            bytes behind it), or not decodable. A JPEG with some bytes damaged inside is decoded all the same.
    """
    if not content:
        raise UnreadableImageError(EMPTY_FILE)
    if content.startswith(_JPEG_START):
        complete = content.rstrip(_PADDING).endswith(_JPEG_END)
    elif content.startswith(_PNG_START):
        complete = content.rstrip(_PADDING).endswith(_PNG_END)
    else:
        raise UnreadableImageError("not a JPEG or PNG image")
    if not complete:
        raise UnreadableImageError("truncated image: no end marker")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # its header claims more than the 2^30 pixels that OpenCV decodes
        pixels = None
    if pixels is None:
        raise UnreadableImageError("image cannot be decoded")
    if max(pixels.shape) > MAX_SIDE_PX:
        raise UnreadableImageError(f"image larger than {MAX_SIDE_PX} px on a side")
    return pixels  # type: ignore[return-value]


def encode_jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Encode pixels 0-255 of shape (height, width, 3), colour order BGR, as JPEG of the given quality (0-100)."""
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()


def decode_views(jpegs: Sequence[bytes], threads: Executor | None = None) -> NDArray[np.uint8]:
    """Decode views of equal size into one array.

    Args:
        jpegs: JPEG files that ``encode_jpeg`` made.
        threads: Where to decode, outside Python's global lock; None decodes here.

    Returns:
        Pixels 0-255, shape (views, size, size, 3), colour order RGB.
    """
    first = _decode_rgb(jpegs[0])
    views = np.empty((len(jpegs), *first.shape), dtype=np.uint8)

    def decode_into(position: int) -> None:
        views[position] = _decode_rgb(jpegs[position])

    for _ in (threads.map if threads else map)(decode_into, range(len(jpegs))):
        pass
    return views


def _decode_rgb(jpeg: bytes) -> NDArray[np.uint8]:
    return cv2.imdecode(np.frombuffer(jpeg, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)  # type: ignore[return-value]
