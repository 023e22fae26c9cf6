"""GoogLeNet with its auxiliary heads, and where its weights come from."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import GoogLeNet, GoogLeNet_Weights

from galaxyspark.errors import UserError

NUM_FEATURES = 1024
"""Length of the pooled feature vector before the last layer."""

PIXEL_MEAN, PIXEL_STD = 127.5, 127.5
"""Pixels 0-255 become -1 to 1, as the published GoogLeNet weights expect (torchvision calls it transform_input)."""

_CHOICE = "Choose --weights none to train from scratch, or --weights FILE.safetensors to start from another run."
_HEADS = ("fc.", "aux1.fc2.", "aux2.fc2.")


def build_network(num_classes: int, weights: str) -> GoogLeNet:
    """GoogLeNet for ``num_classes``, with both auxiliary heads.

    Args:
        num_classes: Length of the logits.
        weights: ``none`` for random weights, ``imagenet`` for torchvision's, or a .safetensors file of GoogLeNet
            weights, whose last layers are used only where their number of classes fits.

    Raises:
        UserError: The weights cannot be had.
    """
    network = GoogLeNet(num_classes=num_classes, aux_logits=True, transform_input=False, init_weights=True)
    if weights == "none":
        return network
    state = imagenet_weights() if weights == "imagenet" else _file_weights(weights)
    own = network.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    unfit = sorted(name for name in own if name not in fitting and not name.startswith(_HEADS))
    if unfit:
        raise UserError(f"--weights {weights}: not weights of GoogLeNet (without a fitting {unfit[0]}). {_CHOICE}")
    network.load_state_dict(fitting, strict=False)
    return network


def imagenet_weights() -> dict[str, Tensor]:
    """Torchvision's ImageNet weights of GoogLeNet, downloaded on first use into torch's cache.

    Raises:
        UserError: There is no network, or the download broke off.
    """
    try:
        state: dict[str, Tensor] = GoogLeNet_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"--weights imagenet: torchvision cannot download the ImageNet weights ({error}). {_CHOICE}"
        ) from None
    return state


def _file_weights(file: str) -> dict[str, Tensor]:
    if not Path(file).is_file():
        raise UserError(f"--weights {file}: no such file (and not 'none' or 'imagenet'). {_CHOICE}")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"--weights {file}: not a safetensors file ({error}). {_CHOICE}") from None


def to_input(images: Tensor) -> Tensor:
    """Pixels as the network takes them.

    Args:
        images: uint8 0-255, shape (views, size, size, 3), RGB.

    Returns:
        float32 -1 to 1, shape (views, 3, size, size), in channels-last memory order.
    """
    return (images.permute(0, 3, 1, 2).to(torch.float32) - PIXEL_MEAN) / PIXEL_STD


class FeatureNetwork(nn.Module):
    """GoogLeNet for inference: pooled features and logits in one pass, without the auxiliary heads."""

    def __init__(self, network: GoogLeNet) -> None:
        super().__init__()
        self.last_layer = network.fc
        network.fc = nn.Identity()  # type: ignore[assignment]
        network.aux1 = network.aux2 = None
        network.aux_logits = False
        self.trunk = network
        self.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of ``to_input`` -> features (views, 1024) and logits (views, classes), float32."""
        features = self.trunk(inputs).float()
        with torch.autocast(inputs.device.type, enabled=False):  # bf16 would cost the logits all but 3 digits
            return features, self.last_layer(features)
