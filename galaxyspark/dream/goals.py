"""What a trained network can be asked for: the response of a layer, likeness to another picture, a class."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from galaxyspark.dream.ascent import Goal, Picture, to_pixels
from galaxyspark.errors import UserError
from galaxyspark.features.torch_runtime import TorchProgram
from galaxyspark.network.card import ModelCard, load_card
from galaxyspark.network.model import load_weights
from galaxyspark.network.networks import to_input
from galaxyspark.run_directory import RunDirectory


def _blocks(*counts: int) -> Iterator[str]:
    """The blocks of a ResNet, whose four layers have so many each."""
    return (f"layer{layer}.{block}" for layer, count in enumerate(counts, 1) for block in range(count))


LAYERS: dict[str, tuple[str, ...]] = {
    "googlenet": (
        *("conv1", "conv2", "conv3", "inception3a", "inception3b"),
        *("inception4a", "inception4b", "inception4c", "inception4d", "inception4e", "inception5a", "inception5b"),
    ),
    "resnet18": ("conv1", *_blocks(2, 2, 2, 2)),
    "resnet50": ("conv1", *_blocks(3, 4, 6, 3)),
    "efficientnet_v2_s": tuple(f"features.{part}" for part in range(8)),
    "convnext_tiny": tuple(f"features.{part}" for part in range(8)),
}
"""The layers to dream of, by network, from shallow to deep; torchvision's names. Each gives a map for every channel."""

_GUIDE_PLACES = 1_024
"""Of a guide's places as many at most are compared with: all of a shallow layer's would take gigabytes."""


class DreamNetwork:
    """A trained network, in float32, on the GPU where there is one."""

    def __init__(self, card: ModelCard, state: dict[str, Tensor]) -> None:
        """Build the network.

        Raises:
            UserError: The weights are of another network than the card describes.
        """
        self.card = card
        self.runtime = TorchProgram(card, state, "float32").load(torch.get_num_threads())
        self.network = self.runtime.network.requires_grad_(False)
        self.trunk: nn.Module = self.network.network.trunk
        self._up_to: dict[str, nn.Module] = {}

    @property
    def layers(self) -> tuple[str, ...]:
        """Its layers, from shallow to deep."""
        return LAYERS[self.card.network]

    def activations(self, pixels: Tensor, layer: str) -> Tensor:
        """What a layer gives; of the network only what leads to it is run.

        Args:
            pixels: float32 0-255, shape (pictures, 3, height, width), RGB.
            layer: One of ``layers``.

        Returns:
            float32, shape (pictures, channels, rows, columns).
        """
        if layer not in self._up_to:
            self._up_to[layer] = create_feature_extractor(self.trunk, [layer], suppress_diff_warning=True)
        inputs = to_input(self._as_images(pixels), self.card.pixel_mean, self.card.pixel_std)
        return self._up_to[layer](inputs)[layer]

    def class_logits(self, pixels: Tensor) -> Tensor:
        """``log_odds`` of the classes, shape (pictures, classes), for pixels as ``activations`` takes them."""
        return log_odds(self.network(self._as_images(pixels))[1])

    def _as_images(self, pixels: Tensor) -> Tensor:
        return pixels.to(self.runtime.device).permute(0, 2, 3, 1)


def open_network(run: RunDirectory) -> DreamNetwork:
    """The network that a run has trained.

    Raises:
        UserError: The model is missing or damaged.
    """
    return DreamNetwork(load_card(run.path("model")), load_weights(run.path("model")))


def log_odds(probabilities: Tensor) -> Tensor:
    """Each class's probability against that of all others together: log(p / (1 - p)), whatever the network has learned.

    Unlike probabilities they go on growing when the network is sure, and have a gradient there.

    Args:
        probabilities: float32, shape (pictures, classes), each row adding up to 1.

    Returns:
        float32, of the same shape.
    """
    # 1 - p would be 0 where p is nearly 1.
    others = probabilities @ (1 - torch.eye(probabilities.shape[1], device=probabilities.device))
    least = torch.finfo(probabilities.dtype).tiny
    return probabilities.clamp(min=least).log() - others.clamp(min=least).log()


def layer_goal(network: DreamNetwork, layer: str) -> Goal:
    """More of whatever the layer responds to: half the variance of its activations over the picture, mean of channels.

    What is the same all over the picture does not count: a layer can respond strongly to an empty one too, and then
    nothing would grow out of noise.

    Raises:
        UserError: There is no such layer.
    """
    _check_layer(network, layer)
    return lambda pixels: network.activations(pixels, layer).var(dim=(2, 3), correction=0).mean() / 2


def class_goal(network: DreamNetwork, name: str) -> Goal:
    """The log odds of a class.

    Raises:
        UserError: There is no such class.
    """
    classes = network.card.classes
    if name not in classes:
        raise UserError(f"--dream-class {name}: no class of this run. Its classes: {', '.join(classes)}.")
    position = classes.index(name)
    return lambda pixels: network.class_logits(pixels)[0, position]


def guided_goal(network: DreamNetwork, layer: str, guide: Picture) -> Goal:
    """Activations like another picture's: at every place more of those of the guide that are most like them already.

    They are compared and made stronger as differences from the guide's mean, for the reason that ``layer_goal`` gives.

    Raises:
        UserError: There is no such layer.
    """
    _check_layer(network, layer)
    with torch.no_grad():
        everywhere = network.activations(to_pixels(guide), layer)[0].flatten(1)
    mean = everywhere.mean(dim=1, keepdim=True)
    of_guide = everywhere[:, :: -(-everywhere.shape[1] // _GUIDE_PLACES)] - mean

    def likeness(pixels: Tensor) -> Tensor:
        activations = network.activations(pixels, layer)[0].flatten(1) - mean
        with torch.no_grad():
            nearest = of_guide[:, (activations.T @ of_guide).argmax(dim=1)]
        return (activations * nearest).mean()

    return likeness


def _check_layer(network: DreamNetwork, layer: str) -> None:
    if layer not in network.layers:
        known = ", ".join(network.layers)
        raise UserError(
            f"--layer {layer}: no layer of {network.card.network} to dream of. From shallow to deep: {known}."
        )
