"""What may be read as an image, and why something may not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_SIDE_PX = 32_766
"""OpenCV's affine transform takes no longer sides."""


@dataclass(frozen=True)
class Reading:
    """How image files are read.

    Attributes:
        max_file_mb: Larger files are not read.
        max_megapixels: Larger images are refused by their header, before they are decoded; for FITS a quarter of it,
            since it takes some 70 bytes a pixel to make colours of flux.
        fits_planes: Planes of a FITS cube, from 0, that become red, green and blue; None: the last, middle and first
            of three, as surveys store bands from blue to red.
        fits_stretch: How flux becomes brightness above the image's own sky: ``lupton``, the colour-preserving asinh of
            Lupton et al. 2004, or ``linear``.
        fits_scale: In the image's own unit of flux. ``lupton``: its "stretch", up to which brightness is about linear
            (None: ten times the noise of the image's sky). ``linear``: the flux that becomes white (None: the 99.5th
            percentile of the image).
        fits_softening: Lupton's ``Q``, which sets how far above ``fits_scale`` details are still seen.
    """

    max_file_mb: float = 32.0
    max_megapixels: float = 64.0
    fits_planes: tuple[int, int, int] | None = None
    fits_stretch: Literal["lupton", "linear"] = "lupton"
    fits_scale: float | None = None
    fits_softening: float = 8.0


class UnreadableImageError(ValueError):
    """The bytes are not an image we can use; the message is the reason that quarantine records."""


def check_size(width: int, height: int, max_megapixels: float) -> None:
    """Refuse an image for its size in pixels.

    Raises:
        UnreadableImageError: It has no pixels, a side over ``MAX_SIDE_PX``, or more than ``max_megapixels``.
    """
    if min(width, height) < 1:
        raise UnreadableImageError("image without pixels")
    if max(width, height) > MAX_SIDE_PX:
        raise UnreadableImageError(f"image larger than {MAX_SIDE_PX} px on a side")
    if width * height > max_megapixels * 1e6:
        raise UnreadableImageError(f"image larger than {max_megapixels:g} megapixels")
