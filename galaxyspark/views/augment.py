"""The 16 views of a galaxy: each one affine of the image and one shift of its colour.

View 0 is the plain centre of the image. Views 1 to 15 are turned, mirrored, zoomed, shifted and perturbed in colour, by
amounts that depend on (seed, galaxy id, view) alone: a retry or another cluster makes the same bytes.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from galaxyspark.views.decode import decode_image, encode_jpeg
from galaxyspark.views.reading import Reading

NUM_VIEWS = 16
MAX_ZOOM = 1.3
MAX_SHIFT = 4 / 424
"""Largest shift along each axis as a share of the image's side: 4 px in the challenge's 424 px images."""

# A worker makes one view at a time: OpenCV's own threads would only fight with the other workers.
cv2.setNumThreads(1)


@dataclass(frozen=True)
class ViewRecipe:
    """What all views of a dataset have in common.

    Attributes:
        seed: Seed of the perturbations.
        size_px: Side of a view in pixels.
        field_of_view: Share of the image's shorter side that a view shows at zoom 1, in (0, 1].
        colour_strength: Standard deviation of the colour perturbation, in units of ``colour_axes``.
        colour_axes: Three RGB vectors in pixel values (0-255): the principal axes of the training images' colours,
            each as long as one standard deviation along it.
        jpeg_quality: 0 to 100.
        reading: How the image files are read.
    """

    seed: int
    size_px: int
    field_of_view: float
    colour_strength: float
    colour_axes: tuple[tuple[float, float, float], ...]
    jpeg_quality: int
    reading: Reading = field(default_factory=Reading)


@dataclass(frozen=True)
class Perturbation:
    """How one view differs from the plain centre of its image.

    Attributes:
        rotation_rad: Counter-clockwise, 0 to 2 pi.
        mirrored: Left and right exchanged after the rotation.
        zoom: Above 1 the galaxy appears larger; 1/1.3 to 1.3, log-uniform.
        shift: Of the view's centre along x and y, as a share of the image's side.
        colour: Standard normal weights of the three colour axes.
    """

    rotation_rad: float = 0.0
    mirrored: bool = False
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    colour: tuple[float, float, float] = (0.0, 0.0, 0.0)


def perturbation_of(seed: int, galaxy_id: str, view: int) -> Perturbation:
    """The perturbation of one view (0 to 15) of one galaxy; that of view 0 changes nothing."""
    if view == 0:
        return Perturbation()
    # A hash is a generator whose every draw can be had by itself, in any language: 8 numbers of 53 bits, in [0, 1).
    digest = hashlib.blake2b(f"{seed}/{galaxy_id}/{view}".encode(), digest_size=64).digest()
    whole = struct.unpack("<8Q", digest)
    turn, zoom, shift_x, shift_y, *for_colour = ((number >> 11) * 2.0**-53 for number in whole)
    return Perturbation(
        rotation_rad=2 * math.pi * turn,
        mirrored=bool(whole[0] & 1),  # a bit that ``turn`` leaves out
        zoom=MAX_ZOOM ** (2 * zoom - 1),
        shift=(MAX_SHIFT * (2 * shift_x - 1), MAX_SHIFT * (2 * shift_y - 1)),
        colour=_three_normals(*for_colour),
    )


def _three_normals(first: float, second: float, third: float, fourth: float) -> tuple[float, float, float]:
    """Standard normal numbers from four uniform ones in [0, 1) (Box and Muller 1958)."""
    radius, other_radius = math.sqrt(-2 * math.log(1 - first)), math.sqrt(-2 * math.log(1 - third))
    angle, other_angle = 2 * math.pi * second, 2 * math.pi * fourth
    return radius * math.cos(angle), radius * math.sin(angle), other_radius * math.cos(other_angle)


def make_views(
    content: bytes, galaxy_id: str, recipe: ViewRecipe, views: Iterable[int] = range(NUM_VIEWS)
) -> list[bytes]:
    """Decode an image and make views of it.

    Args:
        content: Bytes of a JPEG, PNG or FITS file.
        galaxy_id: With the recipe's seed it determines the perturbations.
        recipe: What all views of the dataset have in common.
        views: The views to make, each 0 to 15.

    Returns:
        One JPEG a view, ``size_px`` x ``size_px``, in the order of ``views``.

    Raises:
        UnreadableImageError: The image cannot be decoded.
    """
    return [encode_jpeg(pixels, recipe.jpeg_quality) for pixels in view_pixels(content, galaxy_id, recipe, views)]


def view_pixels(
    content: bytes, galaxy_id: str, recipe: ViewRecipe, views: Iterable[int] = range(NUM_VIEWS)
) -> Iterator[NDArray[np.uint8]]:
    """The same views before they are encoded: pixels 0-255, shape (size_px, size_px, 3), colour order BGR."""
    side_px = recipe.size_px * MAX_ZOOM / recipe.field_of_view
    image = _shrink(decode_image(content, recipe.reading, side_px), side_px)
    for view in views:
        yield _make_view(image, perturbation_of(recipe.seed, galaxy_id, view), recipe)


def _shrink(image: NDArray[np.uint8], side_px: float) -> NDArray[np.uint8]:
    """Scale the whole image down, once, to the resolution of the closest view, averaging over the pixels merged."""
    scale = side_px / min(image.shape[:2])
    if scale >= 1:
        return image
    height, width = image.shape[:2]
    size = (round(width * scale), round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _make_view(image: NDArray[np.uint8], perturbation: Perturbation, recipe: ViewRecipe) -> NDArray[np.uint8]:
    view = cv2.warpAffine(
        image,
        view_to_image(perturbation, image.shape[:2], recipe),
        (recipe.size_px, recipe.size_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return perturb_colour(view, perturbation.colour, recipe) if any(perturbation.colour) else view  # type: ignore[arg-type,return-value]


def perturb_colour(pixels: NDArray[np.uint8], weights: Sequence[float], recipe: ViewRecipe) -> NDArray[np.uint8]:
    """Shift all pixels (0-255, BGR) by ``weights`` times ``colour_strength`` of the three colour axes."""
    shift_rgb = recipe.colour_strength * np.asarray(weights) @ np.asarray(recipe.colour_axes)
    return cv2.add(pixels, (*shift_rgb[::-1], 0.0))  # type: ignore[call-overload,return-value]


def view_to_image(perturbation: Perturbation, image_shape: tuple[int, ...], recipe: ViewRecipe) -> NDArray[np.float64]:
    """The affine that takes pixel centres of a view to positions in the image.

    Args:
        perturbation: Of this view.
        image_shape: (height, width) in pixels.
        recipe: Its ``size_px`` and ``field_of_view`` are used.

    Returns:
        Shape (2, 3): ``image_xy = matrix @ (view_x, view_y, 1)``, pixel (0, 0) being the centre of the first pixel.
    """
    height, width = image_shape
    side = min(height, width)
    scale = recipe.field_of_view * side / (recipe.size_px * perturbation.zoom)
    cosine, sine = scale * math.cos(perturbation.rotation_rad), scale * math.sin(perturbation.rotation_rad)
    mirror = -1 if perturbation.mirrored else 1
    centre = (recipe.size_px - 1) / 2
    x = (width - 1) / 2 + side * perturbation.shift[0]
    y = (height - 1) / 2 + side * perturbation.shift[1]
    return np.array(
        [
            [mirror * cosine, -sine, x - centre * (mirror * cosine - sine)],
            [mirror * sine, cosine, y - centre * (mirror * sine + cosine)],
        ]
    )
