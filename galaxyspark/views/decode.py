"""From the bytes of an image file to pixels, or to the reason why not.

JPEG and PNG files are looked at by their header first, without decoding, so that neither a picture that fills the
memory nor one whose colours would have to be guessed goes further. FITS files are ``views.fits``'s.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from galaxyspark.views.fits import FITS_STARTS, decode_fits
from galaxyspark.views.reading import Reading, UnreadableImageError, check_size

EMPTY_FILE = "empty file"

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_PADDING = b"\x00\xff\n\r "
# What a JPEG decoder can leave out while it decodes: it makes the image at a half, a quarter or an eighth of its size.
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


def decode_image(content: bytes, reading: Reading | None = None, side_px: float | None = None) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or FITS file, told apart by their first bytes, whatever the file's name.

    Greyscale becomes three equal channels, samples of 16 bits their upper 8, opaque alpha is left out.

    Args:
        content: The file's bytes.
        reading: Limits, and how FITS becomes colours; None: the defaults.
        side_px: If given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, by its cosine transform, where its
            shorter side stays at least that long; None: as it is.

    Returns:
        Pixels 0-255, shape (height, width, 3), colour order BGR (OpenCV's own).

    Raises:
        UnreadableImageError: Empty, none of the three formats, without an end marker at its end (cut off, or with
            foreign bytes behind it), of more bytes or pixels than ``reading`` allows, of colours that have no plain
            meaning (CMYK, transparent pixels), or not decodable. A JPEG with some bytes damaged inside is decoded all
            the same.
    """
    reading = reading or Reading()
    if not content:
        raise UnreadableImageError(EMPTY_FILE)
    if len(content) > reading.max_file_mb * 1e6:
        raise UnreadableImageError(f"file larger than {reading.max_file_mb:g} MB")
    if content.startswith(FITS_STARTS):
        return decode_fits(content, reading)
    if content.startswith(_JPEG_START):
        complete = content.rstrip(_PADDING).endswith(_JPEG_END)
    elif content.startswith(_PNG_START):
        complete = content.rstrip(_PADDING).endswith(_PNG_END)
    else:
        raise UnreadableImageError("not a JPEG, PNG or FITS image")
    if not complete:
        raise UnreadableImageError("truncated image: no end marker")
    width, height = _checked_header(content, reading)
    flag = cv2.IMREAD_COLOR
    if side_px is not None and content.startswith(_JPEG_START):
        flag = _reduction(width, height, side_px)
    pixels = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flag)
    if pixels is None:
        raise UnreadableImageError("image cannot be decoded")
    return pixels  # type: ignore[return-value]


def _checked_header(content: bytes, reading: Reading) -> tuple[int, int]:
    """Width and height in pixels, from an image that is neither too large nor of unclear colours."""
    try:
        image = Image.open(io.BytesIO(content))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImageError(f"image larger than {reading.max_megapixels:g} megapixels") from None
    except (OSError, SyntaxError, ValueError):
        raise UnreadableImageError("image cannot be decoded") from None
    check_size(image.width, image.height, reading.max_megapixels)
    if image.mode in ("CMYK", "YCCK"):
        raise UnreadableImageError("CMYK image: its colours depend on the printer it was made for")
    if (image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info) and _has_transparent_pixels(image):
        raise UnreadableImageError("image with transparent pixels")
    return image.size


def _has_transparent_pixels(image: Image.Image) -> bool:
    try:
        return image.convert("RGBA").getchannel("A").getextrema() != (255, 255)
    except (OSError, SyntaxError, ValueError):
        raise UnreadableImageError("image cannot be decoded") from None


def _reduction(width: int, height: int, side_px: float) -> int:
    """OpenCV's flag for the smallest size that is exact and not below ``side_px``."""
    for factor, flag in _REDUCED.items():
        if width % factor == height % factor == 0 and min(width, height) / factor >= side_px:
            return flag
    return cv2.IMREAD_COLOR


def encode_jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Encode pixels 0-255 of shape (height, width, 3), colour order BGR, as JPEG of the given quality (0-100)."""
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()


def decode_views(jpegs: Sequence[bytes]) -> NDArray[np.uint8]:
    """Decode views of equal size into one array, most of the time outside Python's global lock.

    Args:
        jpegs: JPEG files that ``encode_jpeg`` made.

    Returns:
        Pixels 0-255, shape (views, size, size, 3), colour order RGB.
    """
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpegs[0])
    views = np.empty((len(jpegs), height, width, 3), dtype=np.uint8)
    for view, jpeg in zip(views, jpegs, strict=True):
        simplejpeg.decode_jpeg(jpeg, "RGB", buffer=view)  # OpenCV would allocate each view and copy it
    return views
