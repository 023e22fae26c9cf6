"""The 16 views of a galaxy as other libraries make them, from the same perturbations as ours.

Each function is what an experienced user of its library would write for speed. It shows the same pixels as
``make_views`` up to how the library interpolates and rounds, and up to what it puts outside the image: Pillow black,
torch the colour of the nearest edge, ours a reflection. Up to a field of view of 0.53 no view reaches outside.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import grid_sample
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg
from torchvision.transforms.v2.functional import resize

from galaxyspark.views.augment import MAX_ZOOM, NUM_VIEWS, Perturbation, ViewRecipe, perturbation_of, view_to_image

# One worker a core, as for OpenCV: threads of its own would only fight with the other workers.
torch.set_num_threads(1)


def pillow_views(content: bytes, galaxy_id: str, recipe: ViewRecipe) -> list[bytes]:
    """The 16 views by Pillow, one after the other.

    Args:
        content: Bytes of a JPEG file.
        galaxy_id: With the recipe's seed it determines the perturbations.
        recipe: What all views of the dataset have in common.

    Returns:
        One JPEG a view, as ``make_views`` returns them.
    """
    with Image.open(io.BytesIO(content)) as opened:
        size = _size_needed(opened.width, opened.height, recipe)
        opened.draft("RGB", size)  # libjpeg decodes at a half, a quarter or an eighth where that is enough
        image = opened.convert("RGB")
    if image.size != size:
        image = image.resize(size, Image.Resampling.BOX)
    return [_pillow_view(image, perturbation_of(recipe.seed, galaxy_id, view), recipe) for view in range(NUM_VIEWS)]


def _pillow_view(image: Image.Image, perturbation: Perturbation, recipe: ViewRecipe) -> bytes:
    matrix = view_to_image(perturbation, (image.height, image.width), recipe)
    # To Pillow the corner of the first pixel is (0, 0), to view_to_image its centre is, in the view as in the image.
    matrix[:, 2] += 0.5 - matrix[:, :2] @ (0.5, 0.5)
    view_size = (recipe.size_px, recipe.size_px)
    view = image.transform(view_size, Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BILINEAR)
    # A table for each channel: the whole of the colour shift is one look-up a byte.
    shifted = np.arange(256) + _colour_shift(perturbation, recipe)[:, None]
    view = view.point(np.rint(shifted).clip(0, 255).astype(int).ravel().tolist())
    stream = io.BytesIO()
    view.save(stream, "JPEG", quality=recipe.jpeg_quality, subsampling="4:2:0")
    return stream.getvalue()


@torch.inference_mode()
def torchvision_views(content: bytes, galaxy_id: str, recipe: ViewRecipe) -> list[bytes]:
    """The 16 views by torchvision's JPEG functions, with one call of torch's ``grid_sample`` for all of them between.

    torchvision's own ``affine`` is ``grid_sample`` too, but a view at a time, of the whole image's size, and without
    mirrors: several times the work.

    Args:
        content: Bytes of a JPEG file.
        galaxy_id: With the recipe's seed it determines the perturbations.
        recipe: What all views of the dataset have in common.

    Returns:
        One JPEG a view, as ``make_views`` returns them.
    """
    # A copy, as torch wants bytes that it may write to.
    image = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)
    width, height = _size_needed(image.shape[2], image.shape[1], recipe)
    if image.shape[1:] != (height, width):
        image = resize(image, [height, width], antialias=True)
    perturbations = [perturbation_of(recipe.seed, galaxy_id, view) for view in range(NUM_VIEWS)]
    views = grid_sample(
        image.float().expand(NUM_VIEWS, -1, -1, -1),
        _grid_of_views(perturbations, (height, width), recipe),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    shifts = np.array([_colour_shift(perturbation, recipe) for perturbation in perturbations], np.float32)
    views += torch.from_numpy(shifts)[:, :, None, None]
    pixels = views.round_().clamp_(0, 255).to(torch.uint8)
    return [jpeg.numpy().tobytes() for jpeg in encode_jpeg(list(pixels), recipe.jpeg_quality)]


def _grid_of_views(perturbations: list[Perturbation], image_shape: tuple[int, int], recipe: ViewRecipe) -> torch.Tensor:
    """Where in the image the pixels of each view lie, from -1 to 1 between its outer edges: (views, size, size, 2).

    torch's ``affine_grid`` multiplies a matrix with every pixel; the sum of a row's part and a column's part is faster.
    """
    matrices = np.array([view_to_image(perturbation, image_shape, recipe) for perturbation in perturbations])
    matrices[:, :, 2] += 0.5  # from centres of pixels to edges, here of the image only
    matrices *= 2 / np.array(image_shape[::-1])[:, None]
    matrices[:, :, 2] -= 1
    along_x, along_y, start = torch.from_numpy(matrices.astype(np.float32)).unbind(2)
    pixel = torch.arange(recipe.size_px)[:, None]
    of_columns = pixel * along_x[:, None]
    of_rows = pixel * along_y[:, None] + start[:, None]
    return of_rows[:, :, None] + of_columns[:, None]


def _size_needed(width: int, height: int, recipe: ViewRecipe) -> tuple[int, int]:
    """Width and height to scale an image down to at first, as ``make_views`` does: the closest view's resolution."""
    scale = min(1.0, recipe.size_px * MAX_ZOOM / (recipe.field_of_view * min(width, height)))
    return round(width * scale), round(height * scale)


def _colour_shift(perturbation: Perturbation, recipe: ViewRecipe) -> NDArray[np.float64]:
    """What a view's colours are shifted by: RGB, in grey levels."""
    return recipe.colour_strength * np.asarray(perturbation.colour) @ np.asarray(recipe.colour_axes)
