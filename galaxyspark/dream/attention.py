"""Where a network looked for the class it chose: Grad-CAM (Selvaraju et al. 2017), by Captum."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from numpy.typing import NDArray

from galaxyspark.dream.ascent import Picture
from galaxyspark.dream.goals import DreamNetwork

_LEAST_PLACES = 8
_COLOURS = "inferno"
_OPACITY = 0.6


def attention_layer(network: DreamNetwork, size_px: int) -> str:
    """The deepest layer whose map has at least 8 places on a side.

    Args:
        network: Whose layers they are.
        size_px: Side of the pictures that it is to see.
    """
    blank = torch.zeros(1, 3, size_px, size_px)
    for layer in reversed(network.layers):
        with torch.no_grad():
            num_places = network.activations(blank, layer).shape[-1]
        if num_places >= _LEAST_PLACES:
            return layer
    return network.layers[0]


def attention(
    network: DreamNetwork, layer: str, pictures: NDArray[np.uint8], positions: Sequence[int]
) -> NDArray[np.float32]:
    """How much each place of a picture speaks for a class.

    Args:
        network: The network.
        layer: Whose activations are weighted, by the mean gradient of the class's log odds.
        pictures: Pixels 0-255, shape (pictures, size, size, 3), RGB.
        positions: Of a class, for each picture.

    Returns:
        0 to 1, which is the strongest place of each picture, or 0 all over, where nothing speaks for the class; shape
        (pictures, size, size).
    """
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    method = LayerGradCam(network.class_logits, network.trunk.get_submodule(layer))
    maps = method.attribute(pixels, torch.tensor(positions, device=network.runtime.device), relu_attributions=True)
    fine = LayerAttribution.interpolate(maps, pictures.shape[1:3], "bilinear")[:, 0].detach().cpu().numpy()
    strongest = fine.max(axis=(1, 2), keepdims=True)
    return np.divide(fine, strongest, out=np.zeros_like(fine), where=strongest > 0)


def beside_attention(picture: Picture, of_places: NDArray[np.float32]) -> Picture:
    """A picture, and to the right of it the same with colours over it, from clear (0) to bright yellow (1).

    Args:
        picture: Of shape (height, width, 3).
        of_places: 0 to 1, of any shape.

    Returns:
        Of shape (height, 2 * width, 3).
    """
    height, width, _ = picture.shape
    of_pixels = cv2.resize(of_places, (width, height), interpolation=cv2.INTER_LINEAR)
    colours = 255 * matplotlib.colormaps[_COLOURS](of_pixels)[..., :3]
    opacity = _OPACITY * of_pixels[..., None]
    covered = (1 - opacity) * picture + opacity * colours
    return np.concatenate([picture, covered.round().astype(np.uint8)], axis=1)
