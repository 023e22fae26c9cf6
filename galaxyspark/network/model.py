"""The published model: weights as safetensors and a JSON card that says all one needs to use them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from galaxyspark.errors import UserError
from galaxyspark.network.networks import Colour, build_network
from galaxyspark.network.objectives import ClassesObjective, Objective, VotesObjective
from galaxyspark.views.augment import ViewRecipe

_WEIGHTS, _CARD = "weights.safetensors", "card.json"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What the weights are and what they expect.

    Attributes:
        classes: Names in the order of the logits.
        recipe: How the views it was trained on were made; ``size_px`` is the side of its input.
        training: How it was trained: settings, epoch chosen, validation metrics, manifest of the data.
        versions: Of the packages it was trained with.
        network: Torchvision's name of the architecture.
        objective: What the logits are: ``classes``, or ``votes`` (softmax by question, shared out along the tree).
        colour_order: Order of the input's channels.
        pixel_mean, pixel_std: Of red, green and blue; an input is (pixel 0-255 - mean) / std.
    """

    classes: tuple[str, ...]
    recipe: ViewRecipe
    training: dict[str, Any]
    versions: dict[str, str]
    network: Literal["googlenet", "resnet18", "resnet50", "efficientnet_v2_s", "convnext_tiny"]
    objective: Literal["classes", "votes"]
    pixel_mean: Colour
    pixel_std: Colour
    colour_order: str = "RGB"


def save_model(directory: Path, state: dict[str, Tensor], card: ModelCard) -> None:
    """Write ``weights.safetensors`` and ``card.json`` into a new directory."""
    directory.mkdir(parents=True)
    # safetensors' own writer would let nobody else read the file.
    (directory / _WEIGHTS).write_bytes(save({name: value.contiguous() for name, value in state.items()}))
    (directory / _CARD).write_text(json.dumps(asdict(card), indent=2))


def load_card(directory: Path) -> ModelCard:
    """The card of a published model.

    Raises:
        UserError: It is missing, or not a card of this version.
    """
    file = directory / _CARD
    try:
        return TypeAdapter(ModelCard).validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); is this the model/ of a run?") from None
    except ValidationError as error:
        raise UserError(
            f"{file}: not the card of a model: {error.errors()[0]['loc']} {error.errors()[0]['msg']}"
        ) from None


def load_weights(directory: Path) -> dict[str, Tensor]:
    """The weights of a published model by torchvision's names.

    Raises:
        UserError: They are missing or damaged.
    """
    try:
        return load_file(directory / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{directory / _WEIGHTS}: cannot be read ({error}). Run the stage train again.") from None


def objective_of(card: ModelCard) -> Objective:
    """From the network's outputs to classes and votes."""
    return VotesObjective() if card.objective == "votes" else ClassesObjective([1.0] * len(card.classes))


def load_network(card: ModelCard, state: dict[str, Tensor]) -> nn.Module:
    """The network with published weights."""
    network = build_network(card.network, objective_of(card).num_outputs)
    network.load_state_dict(state)
    return network
