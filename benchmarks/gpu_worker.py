"""One measurement of ``gpu``: makes some steps of one of its alternatives and tells their rate."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, redirect_stdout
from itertools import repeat
from pathlib import Path

import pyarrow.parquet as pq  # before torch, as petastorm asks
import torch
from torch import nn

from benchmarks.extract import random_network
from benchmarks.harness import tell_rate
from benchmarks.train_worker import batches_without_end, step_of
from galaxyspark.dataset.read import Batch
from galaxyspark.features.inference import infer
from galaxyspark.features.torch_runtime import TorchProgram
from galaxyspark.memory import keep_freed_memory
from galaxyspark.network.devices import to_device
from galaxyspark.network.learner import Learner, Step
from galaxyspark.network.ranks import start_horovod
from galaxyspark.network.trainer import Trainer
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import TrainJob, TrainSettings
from galaxyspark.views.decode import decode_views

_WARM_UP_STEPS = 4
_VIEWS_OF_FEATURES = 128


class PlainLearner(Learner):
    """What a ``Learner`` does, without Horovod."""

    def _optimizer(self) -> torch.optim.Optimizer:
        return self._adamw()

    def step(self, batch: Batch, views_of_all: int, number: int, rate: float, stop: bool) -> Step:
        """As ``Learner`` has it, of one rank."""
        self.optimizer.zero_grad()
        loss = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.max_gradient_norm)
        if not math.isfinite(float(loss.detach()) + float(norm)):
            raise RuntimeError("the loss is no number")
        self.optimizer.step()
        self.average.update_parameters(self.network)
        return Step(float(loss.detach()), stop=False)


def main(run: Path, name: str, batch_size: int, steps: int) -> None:
    """Make the steps and print their rate."""
    keep_freed_memory()
    start_horovod()
    work = features(run, name) if name.startswith("features") else training(run, name, batch_size)
    with closing(work):
        for _ in range(_WARM_UP_STEPS):
            next(work)
        start = time.perf_counter()
        images = sum(next(work) for _ in range(steps))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        tell_rate(images / (time.perf_counter() - start))


def training(run: Path, name: str, batch_size: int) -> Generator[int, None, None]:
    """A step of training after the other; yields the views of each."""
    with redirect_stdout(sys.stderr):
        directory = RunDirectory(run)
        settings = TrainSettings(
            weights="none", epochs=100, resume=False, batch_size=batch_size, train_gpu_decoding=name == "fed_by_nvjpeg"
        )
        trainer = Trainer(TrainJob(run=run, train=settings), directory, directory.manifest("augment"))
    learner = trainer.learner
    if name == "plain":
        trainer.learner = PlainLearner(settings, learner.objective, trainer.job.seed, learner.device)
    step = step_of(trainer)
    with closing(batches_without_end(trainer)) as batches:
        feed: Iterator[tuple[Batch, int]] = (
            batches if name.startswith("fed") else repeat(kept(*next(batches), learner.device))
        )
        for batch, views_of_all in feed:
            step(batch, views_of_all)
            yield views_of_all


def kept(batch: Batch, views_of_all: int, device: torch.device) -> tuple[Batch, int]:
    """A batch that is on the device already."""
    arrays = (to_device(array, device) for array in (batch.images, batch.classes, batch.votes))
    return Batch(*arrays), views_of_all  # type: ignore[arg-type]


def features(run: Path, name: str) -> Generator[int, None, None]:
    """The features of the same views again and again; yields how many there are."""
    card, state = random_network(RunDirectory(run).manifest("augment")["recipe"])
    program = TorchProgram(card, state, "bfloat16", gpu_decoding=name == "features_by_nvjpeg")
    runtime = program.load(torch.get_num_threads())
    file = next((run / "views" / "split=train").glob("*.parquet"))
    jpegs = pq.read_table(file, columns=["image"])["image"].to_pylist()[:_VIEWS_OF_FEATURES]
    pixels = decode_views(jpegs)
    while True:
        inference = runtime(pixels) if name == "features_of_pixels" else infer(runtime, jpegs)
        yield len(inference.features)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
