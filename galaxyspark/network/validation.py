"""How good a network is on a split that is spread over all ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from galaxyspark.dataset.read import Batch
from galaxyspark.network.devices import to_device
from galaxyspark.network.networks import Architecture, to_input
from galaxyspark.network.objectives import Objective

HIGHER_IS_BETTER = {"accuracy": True, "macro_f1": True, "loss": False, "rmse": False}
"""The metrics by which an epoch can be chosen."""


@dataclass(frozen=True)
class Validation:
    """Metrics of a split's views 0.

    Attributes:
        num_galaxies: Galaxies counted, over all ranks.
        loss: Mean cross-entropy of the classes in nats, unweighted and not smoothed.
        accuracy: Share classified right, 0 to 1.
        macro_f1: Mean F1 (0 to 1) of the classes that occur.
        recall: Class -> share of its galaxies found, 0 to 1; None where it does not occur.
        rmse: Root of the mean squared error over all galaxies and all 37 votes, the challenge's score; None where
            votes are not learned.
    """

    num_galaxies: int
    loss: float
    accuracy: float
    macro_f1: float
    recall: dict[str, float | None]
    rmse: float | None


class Sums:
    """What adds up, over batches and over ranks, to a ``Validation``.

    Attributes:
        values: float64: the loss, the squared error of the votes, the number of votes, and the confusion matrix row by
            row (a row for each true class).
    """

    def __init__(self, num_classes: int) -> None:
        self.values = torch.zeros(3 + num_classes**2, dtype=torch.float64)
        self.num_classes = num_classes

    def add(self, logits: Tensor, batch: Batch, objective: Objective) -> None:
        """Count a batch by its logits (float32, on the CPU)."""
        truth = torch.from_numpy(batch.classes)
        probabilities = objective.probabilities(logits)
        self.values[0] += nn.functional.nll_loss(probabilities.clamp_min(1e-12).log(), truth, reduction="sum")
        votes = objective.votes(logits)
        if votes is not None:
            self.values[1] += (votes - torch.from_numpy(batch.votes)).square().sum()
            self.values[2] += votes.numel()
        cells = truth * self.num_classes + probabilities.argmax(dim=1)
        self.values[3:] += torch.bincount(cells, minlength=self.num_classes**2)

    def validation(self, classes: Sequence[str]) -> Validation:
        """The metrics, once the values of all ranks have been added up."""
        loss, squared_error, num_votes = self.values[:3].tolist()
        confusion = self.values[3:].numpy().reshape(self.num_classes, -1)
        return Validation(
            num_galaxies=int(confusion.sum()),
            loss=float(loss / confusion.sum()),
            accuracy=float(np.trace(confusion) / confusion.sum()),
            macro_f1=_macro_f1(confusion),
            recall={
                name: _recall(row, position)
                for position, (name, row) in enumerate(zip(classes, confusion, strict=True))
            },
            rmse=(squared_error / num_votes) ** 0.5 if num_votes else None,
        )


@torch.no_grad()
def sums_of(
    network: nn.Module,
    architecture: Architecture,
    objective: Objective,
    batches: Iterable[Batch],
    num_classes: int,
    device: torch.device,
) -> Sums:
    """Sums over the batches of one rank; the network is put into evaluation mode."""
    network.eval()
    sums = Sums(num_classes)
    for batch in batches:
        inputs = to_input(to_device(batch.images, device), architecture.pixel_mean, architecture.pixel_std)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = network(inputs)
        sums.add(logits.float().cpu(), batch, objective)
    return sums


def _recall(row: NDArray[np.float64], position: int) -> float | None:
    return float(row[position] / row.sum()) if row.sum() else None


def _macro_f1(confusion: NDArray[np.float64]) -> float:
    right, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    occurring = true > 0
    return float(np.mean(2 * right[occurring] / (true + predicted)[occurring]))
