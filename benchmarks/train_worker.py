"""One measurement of ``train``: makes some steps of one of its alternatives and tells their rate."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing, redirect_stdout
from itertools import count
from pathlib import Path

import pyarrow as pa  # noqa: F401  (before torch, as petastorm asks)

import horovod.torch as hvd  # isort: skip
import torch
from torch import nn
from torchvision.models import googlenet

from benchmarks.harness import tell_rate
from galaxyspark.dataset.read import Batch
from galaxyspark.memory import keep_freed_memory
from galaxyspark.network import compiled_layers
from galaxyspark.network.networks import ARCHITECTURES, AUXILIARY_WEIGHT
from galaxyspark.network.ranks import start_horovod
from galaxyspark.network.trainer import Trainer
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import TrainJob, TrainSettings

_WARM_UP_STEPS = 4


def main(run: Path, name: str, steps: int) -> None:
    """Make the steps and print their rate, of all ranks."""
    if name != "eager_fp32":
        keep_freed_memory()
    if name == "torchvisions_layers":
        compiled_layers.WHY_MISSING = "they are compared with"
    start_horovod()
    job = TrainJob(run=run, train=TrainSettings(weights="none", epochs=100, resume=False))
    with redirect_stdout(sys.stderr):
        directory = RunDirectory(run)
        trainer = Trainer(job, directory, directory.manifest("augment"))
    step = eager_step() if name == "eager_fp32" else step_of(trainer)
    with closing(batches_without_end(trainer)) as batches:
        for _ in range(_WARM_UP_STEPS):
            step(*next(batches))
        start = time.perf_counter()
        images = sum(_made(step, *next(batches)) for _ in range(steps))
        seconds = time.perf_counter() - start
    if hvd.rank() == 0:
        tell_rate(images / seconds)


def batches_without_end(trainer: Trainer) -> Generator[tuple[Batch, int], None, None]:
    """Batches of one epoch after the other, each with the views that all ranks have in that step."""
    epoch = 0
    while True:
        epoch += 1
        for number, batch in enumerate(trainer.views.epoch(epoch)):
            yield batch, sum(trainer.views.batch_sizes(number))


def _made(step: Callable[[Batch, int], None], batch: Batch, views_of_all: int) -> int:
    step(batch, views_of_all)
    return views_of_all


def step_of(trainer: Trainer) -> Callable[[Batch, int], None]:
    """A step of ours."""
    numbers = count()

    def step(batch: Batch, views_of_all: int) -> None:
        trainer.learner.step(batch, views_of_all, next(numbers), rate=1.0, stop=False)

    return step


def eager_step() -> Callable[[Batch, int], None]:
    """A step as tutorials have it: float32, memory as it comes, torch's defaults."""
    network = googlenet(num_classes=3, init_weights=True).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    architecture = ARCHITECTURES["googlenet"]

    def step(batch: Batch, _: int) -> None:
        inputs = torch.from_numpy(batch.images).permute(0, 3, 1, 2).contiguous().float()
        inputs = (inputs - architecture.pixel_mean[0]) / architecture.pixel_std[0]
        targets = torch.from_numpy(batch.classes)
        optimizer.zero_grad()
        logits, *auxiliary = network(inputs)
        loss = loss_of(logits, targets) + AUXILIARY_WEIGHT * sum(loss_of(head, targets) for head in auxiliary)
        loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
