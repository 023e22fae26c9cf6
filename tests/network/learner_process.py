"""A rank of test_learner: one step of a small network on batches of unequal size, then one with frozen layers."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pyarrow as pa  # noqa: F401  (before torch, as petastorm asks)

import horovod.torch as hvd  # isort: skip
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from galaxyspark.dataset.read import Batch
from galaxyspark.network import learner
from galaxyspark.network.learner import Learner
from galaxyspark.network.objectives import ClassesObjective
from galaxyspark.settings import TrainSettings

SIZES = (6, 2)


class Small(nn.Module):
    """A network whose views do not look at each other; the names of its layers are those of ResNet18's ends."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.tanh(self.conv1(inputs)).mean(dim=(2, 3)))
        return logits


def small_learner(**settings: object) -> Learner:
    """A learner of the small network."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(learner, "build_network", lambda *_: Small())
        of_all = {"network": "resnet18", "weights": "none", "learning_rate": 1e-3}
        all_settings = TrainSettings(**of_all | settings)  # type: ignore[arg-type]
        return Learner(all_settings, ClassesObjective([1.0, 2.0, 0.5]), seed=5, device=torch.device("cpu"))


def batch_of(rank: int) -> Batch:
    """Different for each rank."""
    random = np.random.default_rng(rank)
    size = SIZES[rank]
    images = random.integers(0, 256, (size, 12, 12, 3), np.uint8)
    return Batch(images, random.integers(0, 3, size), np.empty((size, 0), np.float32))


def inputs_of(ours: Learner, batch: Batch, numbers: Sequence[int]) -> list[NDArray[np.uint8]]:
    """The pixels that the network sees in steps on the same batch; every rank has one as large."""
    seen: list[NDArray[np.uint8]] = []
    mean, std = (np.array(colour) for colour in (ours.architecture.pixel_mean, ours.architecture.pixel_std))

    def look(_: nn.Module, arguments: tuple[Tensor]) -> None:
        pixels = arguments[0].permute(0, 2, 3, 1).numpy() * std + mean
        seen.append(np.rint(pixels).astype(np.uint8))

    ours.network.register_forward_pre_hook(look)  # type: ignore[arg-type]
    for number in numbers:
        ours.step(batch, len(batch.images) * hvd.size(), number, rate=1.0, stop=False)
    return seen


def main(file: str) -> None:
    """Write what rank 0 has after its steps."""
    hvd.init()
    ours = small_learner(max_gradient_norm=0.0, turn_views=False)  # ranks turn views each in their own way
    ours.step(batch_of(hvd.rank()), sum(SIZES), 0, rate=1.0, stop=False)
    gradients = {name: weight.grad.clone() for name, weight in ours.network.named_parameters()}
    rates = sorted({group["lr"] for group in ours.optimizer.param_groups})
    frozen = small_learner()
    frozen.freeze(True)
    frozen.step(batch_of(hvd.rank()), sum(SIZES), 0, rate=1.0, stop=False)
    learned = [name for name, weight in frozen.network.named_parameters() if frozen.optimizer.state.get(weight)]
    (views,) = inputs_of(small_learner(turn_views=True), batch_of(1), [0])
    turned = [torch.from_numpy(of_rank) for of_rank in hvd.allgather_object(views)]
    if hvd.rank() == 0:
        torch.save({"gradients": gradients, "rates": rates, "learned": learned, "turned": turned}, file)


if __name__ == "__main__":
    main(sys.argv[1])
