"""The 16 views of a galaxy: each one affine of the image and one shift of its colour.

View 0 is the plain centre of the image. Views 1 to 15 are turned, mirrored, zoomed, shifted and perturbed in colour, by
amounts that depend on (seed, galaxy id, view) alone: a retry or another cluster makes the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from galaxyspark.views.decode import decode_image, encode_jpeg

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
    """

    seed: int
    size_px: int
    field_of_view: float
    colour_strength: float
    colour_axes: tuple[tuple[float, float, float], ...]
    jpeg_quality: int


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
    key = hashlib.blake2b(f"{seed}/{galaxy_id}/{view}".encode(), digest_size=16).digest()
    random = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    return Perturbation(
        rotation_rad=random.uniform(0, 2 * np.pi),
        mirrored=bool(random.integers(2)),
        zoom=float(np.exp(random.uniform(-np.log(MAX_ZOOM), np.log(MAX_ZOOM)))),
        shift=(random.uniform(-MAX_SHIFT, MAX_SHIFT), random.uniform(-MAX_SHIFT, MAX_SHIFT)),
        colour=tuple(random.standard_normal(3)),
    )


def make_views(
    content: bytes, galaxy_id: str, recipe: ViewRecipe, views: Iterable[int] = range(NUM_VIEWS)
) -> list[bytes]:
    """Decode an image and make views of it.

    Args:
        content: Bytes of a JPEG or PNG file.
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
    image = _shrink(decode_image(content), recipe)
    for view in views:
        yield _make_view(image, perturbation_of(recipe.seed, galaxy_id, view), recipe)


def _shrink(image: NDArray[np.uint8], recipe: ViewRecipe) -> NDArray[np.uint8]:
    """Scale the whole image down, once, to the resolution of the closest view, averaging over the pixels merged."""
    scale = recipe.size_px * MAX_ZOOM / (recipe.field_of_view * min(image.shape[:2]))
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
    if any(perturbation.colour):
        shift_rgb = recipe.colour_strength * np.asarray(perturbation.colour) @ np.asarray(recipe.colour_axes)
        view = cv2.add(view, (*shift_rgb[::-1], 0.0))  # type: ignore[call-overload]
    return view  # type: ignore[return-value]


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
    cosine, sine = np.cos(perturbation.rotation_rad), np.sin(perturbation.rotation_rad)
    turn = scale * np.array([[cosine, -sine], [sine, cosine]])
    if perturbation.mirrored:
        turn[:, 0] = -turn[:, 0]
    image_centre = np.array([width - 1, height - 1]) / 2 + side * np.asarray(perturbation.shift)
    view_centre = np.full(2, (recipe.size_px - 1) / 2)
    return np.column_stack([turn, image_centre - turn @ view_centre])
