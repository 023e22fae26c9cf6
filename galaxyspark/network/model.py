"""The published model: weights as safetensors and a JSON card that says all one needs to use them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from galaxyspark.errors import UserError
from galaxyspark.network.card import CARD, ModelCard
from galaxyspark.network.networks import build_network
from galaxyspark.network.objectives import ClassesObjective, Objective, VotesObjective

_WEIGHTS = "weights.safetensors"


def save_model(directory: Path, state: dict[str, Tensor], card: ModelCard) -> None:
    """Write ``weights.safetensors`` and ``card.json`` into a new directory."""
    directory.mkdir(parents=True)
    # safetensors' own writer would let nobody else read the file.
    (directory / _WEIGHTS).write_bytes(save({name: value.contiguous() for name, value in state.items()}))
    (directory / CARD).write_text(json.dumps(asdict(card), indent=2))


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
    """The network with published weights.

    Raises:
        UserError: They are of another network.
    """
    network = build_network(card.network, objective_of(card).num_outputs)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        what = f"{card.network} with {objective_of(card).num_outputs} outputs"
        raise UserError(f"{_WEIGHTS}: not the weights of {what}, which card.json describes: {error}") from None
    return network
