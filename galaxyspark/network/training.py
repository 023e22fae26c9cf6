"""Training with Horovod: the same function on every rank, started by horovodrun (or alone, as one rank)."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa  # noqa: F401  (before torch, as petastorm asks)

import horovod.torch as hvd  # isort: skip
import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from galaxyspark.dataset.read import Batch, Shard, evaluation_batches, training_batches
from galaxyspark.network.googlenet import build_network, to_input
from galaxyspark.network.model import ModelCard, save_model
from galaxyspark.run_directory import RunDirectory, versions, write_atomically
from galaxyspark.settings import TrainJob, TrainSettings
from galaxyspark.views.augment import ViewRecipe

AUXILIARY_WEIGHT = 0.3
"""Weight of each auxiliary head's loss (Szegedy et al. 2015, section 5)."""
WARM_UP_SHARE = 0.1
_TIMED_STEPS = 12
_SHUFFLE_VIEWS = 16_384


@dataclass(frozen=True)
class Validation:
    """Loss and accuracy of the validation split's views 0.

    Attributes:
        num_galaxies: Galaxies counted, over all ranks.
        loss: Mean cross-entropy in nats.
        accuracy: Share classified right, 0 to 1.
    """

    num_galaxies: int
    loss: float
    accuracy: float


@dataclass
class Plan:
    """How many steps are left to make: the epochs asked for, or what fits into the time allowed."""

    steps_per_epoch: int
    total_steps: int

    @property
    def epochs(self) -> int:
        """Epochs to run; the last one is cut short where the time does not allow for all of it."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def fit_into(self, seconds_left: float, seconds_per_step: float, steps_done: int) -> None:
        """Cut the plan down to the time left."""
        fitting = steps_done + max(1, int(seconds_left / seconds_per_step))
        self.total_steps = min(self.total_steps, fitting)

    def learning_rate_factor(self, step: int) -> float:
        """Linear warm-up over the first tenth of the steps, then half a cosine down to 0."""
        warm_up = max(1, int(WARM_UP_SHARE * self.total_steps))
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, self.total_steps - warm_up))))


def train(job: TrainJob) -> dict[str, Any] | None:
    """Train on the published views of a run and publish ``model/``; called by every rank.

    Returns:
        The manifest that was published; None on ranks other than 0, and with ``check``.

    Raises:
        UserError: The views or the weights cannot be had.
    """
    run = RunDirectory(job.run)
    data = run.manifest("augment")
    if job.check:
        build_network(len(data["classes"]), job.train.weights)
        return None
    hvd.init()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // hvd.local_size()))
    torch.manual_seed(job.seed)
    if hvd.rank() != 0:
        Trainer(job, run, data).run_epochs()
        return None
    with run.stage("train", job, {"augment": data["id"]}) as staging:
        shutil.rmtree(run.path("checkpoints"), ignore_errors=True)
        trainer = Trainer(job, run, data)
        trainer.run_epochs()
        card = trainer.card()
        save_model(staging.path("model"), trainer.best_state, card)
        write_atomically(staging.path("history.jsonl"), "".join(json.dumps(row) + "\n" for row in trainer.history))
        staging.manifest = {
            # That of training itself, without the start and validation.
            "rate": {"per_s": trainer.views_per_s(), "unit": "views"},
            "ranks": hvd.size(),
            "training": card.training,
        }
    return staging.manifest


def _device() -> torch.device:
    """This rank's GPU, where there is one and Horovod was built for it."""
    if hvd.cuda_built() and hvd.local_rank() < torch.cuda.device_count():
        return torch.device("cuda", hvd.local_rank())
    return torch.device("cpu")


class Trainer:
    """The state of one training run on one rank."""

    def __init__(self, job: TrainJob, run: RunDirectory, data: dict[str, Any]) -> None:
        self.job, self.run, self.data = job, run, data
        self.settings: TrainSettings = job.train
        self.classes: tuple[str, ...] = tuple(data["classes"])
        num_views = data["counts"]["views"]["train"]
        steps_per_epoch = math.ceil(num_views / (self.settings.batch_size * hvd.size()))
        self.plan = Plan(steps_per_epoch, steps_per_epoch * self.settings.epochs)
        self.shard = Shard(hvd.rank(), hvd.size())
        self.shuffle_views = min(_SHUFFLE_VIEWS, num_views // hvd.size())
        self.device = _device()

        # Inputs are channels-last, weights are not: as fast, and Horovod takes contiguous tensors only.
        self.network = build_network(len(self.classes), self.settings.weights).to(self.device)
        self.optimizer = self._optimizer()
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.plan.learning_rate_factor)
        hvd.broadcast_parameters(self.network.state_dict(), root_rank=0)
        hvd.broadcast_optimizer_state(self.optimizer, root_rank=0)
        torch.manual_seed(job.seed + hvd.rank())  # equal weights, but each rank its own dropout
        self.loss = nn.CrossEntropyLoss(label_smoothing=self.settings.label_smoothing)

        self.step = 0
        self.first_step_at = 0.0
        self.training_s = 0.0
        self.history: list[dict[str, Any]] = []
        self.best_state: dict[str, Tensor] = {}

    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.settings.learning_rate * math.sqrt(hvd.size()),
            weight_decay=self.settings.weight_decay,
        )
        return hvd.DistributedOptimizer(optimizer, named_parameters=self.network.named_parameters())  # type: ignore[no-any-return]

    def run_epochs(self) -> None:
        """Every epoch: all its steps, then validation, a row of history, and the best weights kept."""
        batches = training_batches(
            self.run.path("views"),
            self.classes,
            self.settings.batch_size,
            self.shard,
            self.job.seed,
            self.shuffle_views,
        )
        bar = tqdm(desc="train", unit="step", disable=hvd.rank() != 0, mininterval=1.0, total=self.plan.total_steps)
        with closing(batches), bar:
            epoch = 0
            while epoch < self.plan.epochs:
                epoch += 1
                train_loss = self._run_epoch(epoch, batches, bar)
                self._end_epoch(epoch, train_loss)

    def _run_epoch(self, epoch: int, batches: Generator[Batch, None, None], bar: tqdm) -> float:
        """The steps of one epoch; the mean loss over them, on this rank."""
        losses = []
        start = time.perf_counter()
        self.first_step_at = self.first_step_at or start
        while self.step < min(self.plan.total_steps, epoch * self.plan.steps_per_epoch):
            losses.append(self._train_step(next(batches)))
            self.step += 1
            if self.settings.max_minutes and self.step == _TIMED_STEPS:
                self._fit_plan_into_time()
            views_per_s = self.step * self.settings.batch_size * hvd.size() / (time.perf_counter() - self.first_step_at)
            bar.total = self.plan.total_steps
            bar.set_postfix_str(
                f"epoch {epoch}/{self.plan.epochs}, loss {losses[-1]:.3f}, {views_per_s:.0f} views/s", False
            )
            bar.update()
        self.training_s += time.perf_counter() - start
        return float(np.mean(losses))

    def _train_step(self, batch: Batch) -> float:
        self.network.train()
        inputs = to_input(torch.from_numpy(batch.images).to(self.device, non_blocking=True))
        targets = torch.from_numpy(batch.classes).to(self.device, non_blocking=True)
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            output = self.network(inputs)
        heads = (
            (output.logits, 1.0),
            (output.aux_logits1, AUXILIARY_WEIGHT),
            (output.aux_logits2, AUXILIARY_WEIGHT),
        )
        loss = sum((weight * self.loss(logits.float(), targets) for logits, weight in heads), start=torch.zeros(()))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())

    def _fit_plan_into_time(self) -> None:
        """All ranks take the plan that rank 0 makes by its clock, so that they make the same number of steps."""
        elapsed_s = time.perf_counter() - self.first_step_at
        self.plan.fit_into(60 * self.settings.max_minutes - elapsed_s, elapsed_s / self.step, self.step)
        self.plan.total_steps = hvd.broadcast_object(self.plan.total_steps, root_rank=0)

    def _end_epoch(self, epoch: int, train_loss: float) -> None:
        validation = self.validate()
        if hvd.rank() != 0:
            return
        best = not self.history or validation.accuracy >= max(row["accuracy"] for row in self.history)
        self.history.append(
            {"epoch": epoch, "step": self.step, "train_loss": train_loss, **asdict(validation), "best": best}
        )
        state = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
        write_atomically(self.run.path("checkpoints") / f"epoch-{epoch:03d}.safetensors", save(state))
        if best:
            self.best_state = state
        tqdm.write(
            f"epoch {epoch}: training loss {train_loss:.3f}; validation loss {validation.loss:.3f}, "
            f"accuracy {validation.accuracy:.3f} of {validation.num_galaxies} galaxies"
        )

    @torch.no_grad()
    def validate(self) -> Validation:
        """Every galaxy of the validation split once, whatever the number of ranks.

        The weights are equal on all ranks, but each has its own running means of batch normalisation: all ranks take
        those of rank 0, whose network is saved.
        """
        hvd.broadcast_parameters(self.network.state_dict(), root_rank=0)
        self.network.eval()
        sums = torch.zeros(3, dtype=torch.float64)
        batches = evaluation_batches(
            self.run.path("views"), "validation", self.classes, self.settings.batch_size, self.shard
        )
        for batch in batches:
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                logits = self.network(to_input(torch.from_numpy(batch.images).to(self.device))).float().cpu()
            targets = torch.from_numpy(batch.classes)
            loss = nn.functional.cross_entropy(logits, targets, reduction="sum")
            sums += torch.tensor([len(targets), float(loss), int((logits.argmax(1) == targets).sum())])
        count, loss_sum, right = hvd.allreduce(sums, op=hvd.Sum, name="validation").tolist()
        return Validation(int(count), loss_sum / count, right / count)

    def views_per_s(self) -> float:
        """Training throughput of all ranks, without validation."""
        return round(self.step * self.settings.batch_size * hvd.size() / self.training_s, 1)

    def card(self) -> ModelCard:
        """The card of the best epoch's weights."""
        chosen = [row for row in self.history if row["best"]][-1]
        return ModelCard(
            classes=self.classes,
            recipe=TypeAdapter(ViewRecipe).validate_python(self.data["recipe"]),
            training={
                "augment": self.data["id"],
                "galaxies_by_class": self.data["galaxies_by_class"]["train"],
                "settings": asdict(self.settings),
                "ranks": hvd.size(),
                "steps": self.step,
                "planned_steps": self.plan.steps_per_epoch * self.settings.epochs,
                "chosen": chosen,
            },
            versions=versions(),
        )
