"""The card of a model: everything but the weights that one needs to use it. No torch here: workers do without it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from galaxyspark.errors import UserError
from galaxyspark.views.augment import ViewRecipe

CARD = "card.json"

Colour = tuple[float, float, float]
"""Red, green and blue."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What the weights are and what they expect.

    Attributes:
        classes: Names in the order of the logits.
        recipe: How the views it was trained on were made; ``size_px`` is the side of its input.
        training: How it was trained: settings, epoch chosen, validation metrics, the labels and splits it learned from.
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


def load_card(directory: Path) -> ModelCard:
    """The card of a published model.

    Raises:
        UserError: It is missing, or not a card of this version.
    """
    file = directory / CARD
    try:
        return TypeAdapter(ModelCard).validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); is this the model/ of a run?") from None
    except ValidationError as error:
        raise UserError(
            f"{file}: not the card of a model: {error.errors()[0]['loc']} {error.errors()[0]['msg']}"
        ) from None
