"""A trained network as a function from encoded views to features and probabilities. No Spark here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from galaxyspark.network.memory import keep_freed_memory
from galaxyspark.network.model import ModelCard, load_network, objective_of
from galaxyspark.network.networks import FeatureNetwork, to_input
from galaxyspark.views.decode import decode_views


@dataclass(frozen=True)
class Inference:
    """What the network says of some views.

    Attributes:
        features: float32, shape (views, 1024 in GoogLeNet): the pooled layer before the last.
        probabilities: float32 0 to 1, shape (views, classes), each row adding up to 1.
    """

    features: NDArray[np.float32]
    probabilities: NDArray[np.float32]


class Classifier:
    """A trained network ready for inference, on the GPU where there is one."""

    def __init__(self, card: ModelCard, state: dict[str, Tensor], num_threads: int) -> None:
        keep_freed_memory()
        torch.set_num_threads(num_threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.card, self.objective = card, objective_of(card)
        self.network = FeatureNetwork(card.network, load_network(card, state)).to(self.device)

    @torch.inference_mode()
    def infer(self, jpegs: Sequence[bytes]) -> Inference:
        """Features and probabilities of encoded views (JPEG, of the size the network was trained on)."""
        images = torch.from_numpy(decode_views(jpegs)).to(self.device)
        inputs = to_input(images, self.card.pixel_mean, self.card.pixel_std)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            features, logits = self.network(inputs)
        probabilities = self.objective.probabilities(logits.float())
        return Inference(features.float().cpu().numpy(), probabilities.cpu().numpy())
