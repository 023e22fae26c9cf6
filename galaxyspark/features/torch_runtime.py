"""A network run by torch, on the GPU where there is one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from galaxyspark.features.inference import Inference
from galaxyspark.memory import keep_freed_memory
from galaxyspark.network.card import ModelCard
from galaxyspark.network.model import load_network, objective_of
from galaxyspark.network.networks import FeatureNetwork, to_input
from galaxyspark.settings import Precision

_BATCH_VIEWS = 64


class PixelNetwork(nn.Module):
    """From pixels to everything the network says, normalisation included."""

    def __init__(self, card: ModelCard, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.card, self.objective = card, objective_of(card)
        self.network = FeatureNetwork(card.network, load_network(card, state))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """uint8 images (views, size, size, 3) -> float32 features, probabilities and, where it has learned them, votes.

        Shapes (views, 1024 in GoogLeNet), (views, classes) and (views, 37).
        """
        features, logits = self.network(to_input(images, self.card.pixel_mean, self.card.pixel_std))
        with torch.autocast(images.device.type, enabled=False):
            probabilities, votes = self.objective.probabilities(logits), self.objective.votes(logits)
        return (features, probabilities) if votes is None else (features, probabilities, votes)


@dataclass(frozen=True)
class TorchProgram:
    """Card and weights."""

    card: ModelCard
    state: dict[str, Tensor]
    precision: Precision

    def load(self, num_threads: int) -> TorchRuntime:
        """Build the network in this process."""
        return TorchRuntime(PixelNetwork(self.card, self.state), num_threads, self.precision)


class TorchRuntime:
    """Channels-last, and in bfloat16 but for the last layer."""

    def __init__(self, network: PixelNetwork, num_threads: int, precision: Precision) -> None:
        keep_freed_memory()
        torch.set_num_threads(num_threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network, self.half = network.to(self.device), precision == "bfloat16"

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Inference:
        """As ``Runtime`` has it; some views at a time, as memory is not endless."""
        parts = [self._run(images[start : start + _BATCH_VIEWS]) for start in range(0, len(images), _BATCH_VIEWS)]
        return Inference(*(torch.cat(outputs).cpu().numpy() for outputs in zip(*parts, strict=True)))

    def _run(self, images: NDArray[np.uint8]) -> tuple[Tensor, ...]:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
            return self.network(torch.from_numpy(images).to(self.device))  # type: ignore[no-any-return]
