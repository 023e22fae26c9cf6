"""The networks to choose from, all of them torchvision's, and where their weights come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from galaxyspark.errors import UserError
from galaxyspark.network.card import Colour
from galaxyspark.network.devices import to_device

AUXILIARY_WEIGHT = 0.3
"""Weight of each auxiliary head's loss (Szegedy et al. 2015, section 5)."""

_CHOICE = "Choose --weights none to train from scratch, or --weights with another run or its weights.safetensors."
_WEIGHTS_OF_RUN = Path("model") / "weights.safetensors"


@dataclass(frozen=True)
class Architecture:
    """What is peculiar to one of torchvision's networks.

    Attributes:
        last_layers: The layers that depend on the number of outputs; the first of them takes the features.
        auxiliary: Heads that only training has.
        pixel_mean, pixel_std: Red, green and blue; an input is (pixel 0-255 - mean) / std.
        arguments: For torchvision's constructor.
    """

    last_layers: tuple[str, ...]
    pixel_mean: Colour = (123.675, 116.28, 103.53)  # ImageNet's, as torchvision's own training has them
    pixel_std: Colour = (58.395, 57.12, 57.375)
    arguments: tuple[tuple[str, bool], ...] = ()
    auxiliary: tuple[str, ...] = ()


ARCHITECTURES: dict[str, Architecture] = {
    # GoogLeNet's published weights expect -1 to 1 (torchvision calls it transform_input).
    "googlenet": Architecture(
        ("fc", "aux1.fc2", "aux2.fc2"),
        (127.5, 127.5, 127.5),
        (127.5, 127.5, 127.5),
        (("aux_logits", True), ("transform_input", False), ("init_weights", True)),
        ("aux1", "aux2"),
    ),
    "resnet18": Architecture(("fc",)),
    "resnet50": Architecture(("fc",)),
    "efficientnet_v2_s": Architecture(("classifier.1",)),
    "convnext_tiny": Architecture(("classifier.2",)),
}


def build_network(name: str, num_outputs: int, weights: str = "none") -> nn.Module:
    """One of ``ARCHITECTURES`` with ``num_outputs`` outputs; GoogLeNet with both auxiliary heads.

    Args:
        name: Torchvision's name of the network.
        num_outputs: Length of the logits.
        weights: ``none`` for random weights, ``imagenet`` for torchvision's, another run's directory, or a
            .safetensors file of the same network, whose last layers are used only where their number of outputs fits.

    Raises:
        UserError: The weights cannot be had.
    """
    architecture = ARCHITECTURES[name]
    network: nn.Module = get_model(name, weights=None, num_classes=num_outputs, **dict(architecture.arguments))
    if weights == "none":
        return network
    state = imagenet_weights(name) if weights == "imagenet" else _file_weights(weights)
    own = network.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    heads = tuple(f"{layer}." for layer in architecture.last_layers)
    unfit = sorted(key for key in own if key not in fitting and not key.startswith(heads))
    if unfit:
        raise UserError(f"--weights {weights}: not weights of {name} (without a fitting {unfit[0]}). {_CHOICE}")
    network.load_state_dict(fitting, strict=False)
    return network


def heads_of(name: str, network: nn.Module) -> Iterator[nn.Parameter]:
    """The weights to learn anew whatever comes with ``--weights``: those of the last layers and the auxiliary heads."""
    architecture = ARCHITECTURES[name]
    heads = tuple(f"{layer}." for layer in (*architecture.last_layers, *architecture.auxiliary))
    return (weight for key, weight in network.named_parameters() if key.startswith(heads))


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """Torchvision's ImageNet weights of a network, downloaded on first use into torch's cache.

    Raises:
        UserError: There is no network, or the download broke off.
    """
    try:
        state: dict[str, Tensor] = get_model_weights(name).IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"--weights imagenet: torchvision cannot download the ImageNet weights ({error}). {_CHOICE}"
        ) from None
    return state


def weights_file(place: str) -> Path:
    """The file that ``--weights`` means by a run's directory, or by the file itself; it need not be there."""
    return Path(place) / _WEIGHTS_OF_RUN if Path(place).is_dir() else Path(place)


def _file_weights(place: str) -> dict[str, Tensor]:
    file = weights_file(place)
    if not file.is_file():
        what = f"a directory without {_WEIGHTS_OF_RUN}" if Path(place).is_dir() else "no such file or trained run"
        raise UserError(f"--weights {place}: {what} (and not 'none' or 'imagenet'). {_CHOICE}")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"--weights {place}: not a safetensors file ({error}). {_CHOICE}") from None


def outputs_of_heads(output: Tensor | tuple[Tensor, ...]) -> Iterator[tuple[Tensor, float]]:
    """Logits in float32 and the weight of their loss, of every head that a network in training mode has."""
    if isinstance(output, Tensor):
        yield output.float(), 1.0
        return
    for logits, weight in zip(output, (1.0, AUXILIARY_WEIGHT, AUXILIARY_WEIGHT), strict=True):
        yield logits.float(), weight


def to_input(images: Tensor, pixel_mean: Colour, pixel_std: Colour) -> Tensor:
    """Pixels as the network takes them.

    Args:
        images: uint8 0-255, shape (views, size, size, 3), RGB, on the device that is to normalise them.
        pixel_mean: Of red, green and blue, in 0-255,
        pixel_std: and likewise.

    Returns:
        float32 (pixel - mean) / std, shape (views, 3, size, size), in channels-last memory order.
    """
    mean, std = (to_device(torch.tensor(colour), images.device).view(1, 3, 1, 1) for colour in (pixel_mean, pixel_std))
    return (images.permute(0, 3, 1, 2).to(torch.float32) - mean) / std


class FeatureNetwork(nn.Module):
    """A network for inference: pooled features and logits in one pass, without auxiliary heads."""

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        layer = ARCHITECTURES[name].last_layers[0]
        self.last_layer = network.get_submodule(layer)
        network.set_submodule(layer, nn.Identity())
        if name == "googlenet":
            network.aux1 = network.aux2 = None  # type: ignore[assignment]
            network.aux_logits = False  # type: ignore[assignment]
        self.trunk = network
        self.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of ``to_input`` -> features (views, 1024 in GoogLeNet) and logits (views, outputs), float32."""
        features = self.trunk(inputs).float()
        with torch.autocast(inputs.device.type, enabled=False):  # bf16 would cost the logits all but 3 digits
            return features, self.last_layer(features)
