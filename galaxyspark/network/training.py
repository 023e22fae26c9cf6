"""Training with Horovod: the same function on every rank, whatever has started the ranks.

All that a step does depends on the weights, the settings and (seed, epoch, step, rank): so a checkpoint of rank 0 is
enough for all ranks to go on as if nothing had happened.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from contextlib import closing
from dataclasses import asdict
from typing import Any

import pyarrow as pa  # noqa: F401  (before torch, as petastorm asks)

import horovod.torch as hvd  # isort: skip
import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from galaxyspark.dataset.read import Batch, Shard, Split, TrainingViews, evaluation_batches
from galaxyspark.errors import UserError
from galaxyspark.network.checkpoints import Checkpoints
from galaxyspark.network.model import ModelCard, save_model
from galaxyspark.network.networks import ARCHITECTURES, build_network, heads_of, outputs_of_heads, to_input
from galaxyspark.network.objectives import ClassesObjective, Objective, VotesObjective, class_weights
from galaxyspark.network.schedule import Plan
from galaxyspark.network.validation import HIGHER_IS_BETTER, Validation, sums_of
from galaxyspark.run_directory import RunDirectory, versions, write_atomically
from galaxyspark.settings import TrainJob, TrainSettings
from galaxyspark.views.augment import ViewRecipe

STOPPED = 143
"""Exit status after SIGTERM, as shells have it."""
_TIMED_STEPS = 12
_MAY_CHANGE = ("epochs", "max_minutes", "best_by", "patience", "checkpoint_minutes", "keep_checkpoints")


def train(job: TrainJob) -> dict[str, Any] | None:
    """Train on the published views of a run and publish ``model/``; called by every rank.

    Returns:
        The manifest that was published; None on ranks other than 0, and with ``check``.

    Raises:
        UserError: The views, the weights or the checkpoints cannot be had, the loss is no number any more, or the
            training was asked to stop.
    """
    run = RunDirectory(job.run)
    data = run.manifest("augment")
    if job.check:
        check(job, run, data)
        return None
    if not torch.cuda.is_available():  # looking for work every millisecond, its default, takes the ranks' own cores
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "10")
    hvd.init()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // hvd.local_size()))
    if hvd.rank() != 0:
        Trainer(job, run, data).run_epochs()
        return None
    with run.stage("train", job, {"augment": data["id"]}) as staging:
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
    trainer.write_checkpoint(finished=True)
    return staging.manifest


def check(job: TrainJob, run: RunDirectory, data: dict[str, Any]) -> None:
    """Find out, in one process and before any rank is started, what is wrong with settings, views or checkpoints.

    Raises:
        UserError: As ``train`` would, later.
    """
    settings = job.train
    build_network(settings.network, make_objective(settings, data).num_outputs, settings.weights)
    training_views(job, run, data, Shard(0, job.ranks))
    if sum(data["galaxies_by_class"]["validation"].values()) == 0:
        raise UserError(
            f"{run.root}: no galaxy is in the validation split. Augment more, or with other --split-fractions."
        )
    starting_point(job, run, data)


def make_objective(settings: TrainSettings, data: dict[str, Any]) -> Objective:
    """What is to be learned from the views.

    Raises:
        UserError: They have no votes, or only one class.
    """
    galaxies = data["galaxies_by_class"]["train"]
    if settings.objective == "votes":
        if data["label_rule"] is None:  # the labels are classes
            raise UserError(
                "--objective votes: the views have no votes. Augment with labels in the challenge's format (37 vote "
                "columns), or train with --objective classes."
            )
        return VotesObjective()
    if settings.best_by == "rmse":
        raise UserError("--best-by rmse: votes are learned with --objective votes only.")
    if sum(count > 0 for count in galaxies.values()) < 2:
        raise UserError("All training galaxies are of one class; there is nothing to tell apart. Check the labels.")
    weights = class_weights({name: galaxies.get(name, 0) for name in data["classes"]}, settings.class_balance)
    return ClassesObjective(weights, settings.label_smoothing)


def training_views(job: TrainJob, run: RunDirectory, data: dict[str, Any], shard: Shard) -> TrainingViews:
    """A rank's shard of the training split."""
    split = _split(job, run, data, "train")
    return TrainingViews(split, job.train.batch_size, shard, job.seed)


def _split(job: TrainJob, run: RunDirectory, data: dict[str, Any], name: str) -> Split:
    return Split(run.path("views"), name, tuple(data["classes"]), with_votes=job.train.objective == "votes")


def starting_point(job: TrainJob, run: RunDirectory, data: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint to go on from; None where there is none, or that of a training that was finished.

    Raises:
        UserError: It belongs to another training.
    """
    checkpoints = Checkpoints(run.path("checkpoints"), job.train.keep_checkpoints)
    found = checkpoints.newest() if job.resume else None
    if found is None or found["finished"]:
        return None
    wanted = _identity(job, data)
    differing = sorted(name for name in wanted if found["identity"].get(name) != wanted[name])
    if differing:
        name = differing[0]
        raise UserError(
            f"{checkpoints.directory}: the training that was stopped had {name} {found['identity'].get(name)}, not "
            f"{wanted[name]}. Go on with the same settings, or start over with --no-resume."
        )
    return found


def _identity(job: TrainJob, data: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for a checkpoint to be gone on from."""
    settings = {name: value for name, value in asdict(job.train).items() if name not in _MAY_CHANGE}
    return {"views": data["id"], "seed": job.seed, **settings}


def _device() -> torch.device:
    """This rank's GPU, where there is one and Horovod was built for it: Spark's choice in its executors."""
    if not (hvd.cuda_built() and torch.cuda.is_available()):
        return torch.device("cpu")
    from horovod.spark.task import get_available_devices

    given = get_available_devices()
    return torch.device("cuda", int(given[0]) if given else hvd.local_rank())


class Trainer:
    """The state of one training on one rank."""

    def __init__(self, job: TrainJob, run: RunDirectory, data: dict[str, Any]) -> None:
        self.job, self.run, self.data = job, run, data
        self.settings: TrainSettings = job.train
        self.classes: tuple[str, ...] = tuple(data["classes"])
        self.objective = make_objective(self.settings, data)
        self.shard = Shard(hvd.rank(), hvd.size())
        self.views = training_views(job, run, data, self.shard)
        self.plan = Plan(self.views.num_batches, self.views.num_batches * self.settings.epochs)
        self.device = _device()

        torch.manual_seed(job.seed)
        # Inputs are channels-last, weights are not: as fast, and Horovod takes contiguous tensors only.
        network = build_network(self.settings.network, self.objective.num_outputs, self.settings.weights)
        self.network = network.to(self.device)
        self.optimizer = self._optimizer()
        self.average = AveragedModel(self.network, multi_avg_fn=self._average, use_buffers=True)

        self.step = 0
        self.epoch_loss, self.epoch_views = 0.0, 0
        self.history: list[dict[str, Any]] = []
        self.best_state: dict[str, Tensor] = {}
        self.plan_fits = not self.settings.max_minutes
        self.steps_here, self.views_here, self.training_s = 0, 0, 0.0
        self.checkpoints = Checkpoints(run.path("checkpoints"), self.settings.keep_checkpoints)
        self.checkpoint_at = time.monotonic()
        self._resume()
        self.tensorboard = self._tensorboard()
        self.stop_asked = False
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._ask_to_stop)

    # The parts of it

    def _optimizer(self) -> Any:
        """AdamW, its weights in four groups: new or pretrained, with weight decay or, as vectors are, without."""
        heads = {id(weight) for weight in heads_of(self.settings.network, self.network)}
        pretrained = self.settings.weights != "none"
        peak = self.settings.learning_rate * math.sqrt(hvd.size())
        groups = []
        for new in (True, False):
            for matrix in (True, False):
                weights = [
                    w for w in self.network.parameters() if ((id(w) in heads) == new) and ((w.ndim > 1) == matrix)
                ]
                groups.append(
                    {
                        "params": weights,
                        "new": new,
                        "peak": peak if new or not pretrained else peak * self.settings.pretrained_rate,
                        "weight_decay": self.settings.weight_decay if matrix else 0.0,
                    }
                )
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=peak, fused=True)
        return hvd.DistributedOptimizer(optimizer, named_parameters=self.network.named_parameters())

    @torch.no_grad()
    def _average(self, averaged: Any, current: Any, num_averaged: Any) -> None:
        """Exponential moving average that forgets the random start faster than its decay would, in place."""
        steps = int(num_averaged)
        decay = min(self.settings.ema_decay, (1 + steps) / (10 + steps))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - decay)
        else:
            torch._foreach_copy_(averaged, current)

    def _tensorboard(self) -> SummaryWriter | None:
        if hvd.rank() != 0:
            return None
        return SummaryWriter(str(self.run.path("tensorboard")), purge_step=self.step + 1)

    def _ask_to_stop(self, number: int, frame: Any) -> None:
        self.stop_asked = True

    # The loop

    def run_epochs(self) -> None:
        """Every epoch: all its steps, then validation, a row of history, and the best weights kept."""
        bar = tqdm(desc="train", unit="step", disable=hvd.rank() != 0, mininterval=1.0, initial=self.step)
        with bar:
            while self.step < self.plan.total_steps and not self._has_stopped_getting_better():
                epoch, first = divmod(self.step, self.plan.steps_per_epoch)
                self._run_epoch(epoch + 1, first, bar)
                self._end_epoch(epoch + 1)
        if self.tensorboard:
            self.tensorboard.close()

    def _run_epoch(self, epoch: int, first: int, bar: tqdm) -> None:
        """The steps of one epoch from number ``first`` on."""
        self._freeze(epoch <= self.settings.freeze)
        start = time.perf_counter()
        with closing(self.views.epoch(epoch, first)) as batches:
            for number, batch in enumerate(batches, first):
                if self.step == self.plan.total_steps:
                    break
                self._train_step(batch, sum(self.views.batch_sizes(number)))
                self.training_s += time.perf_counter() - start
                start = time.perf_counter()
                self._fit_plan_into_time()
                self._show(epoch, bar)
                if hvd.rank() == 0 and time.monotonic() - self.checkpoint_at > 60 * self.settings.checkpoint_minutes:
                    self.write_checkpoint()

    def _train_step(self, batch: Batch, views_of_all: int) -> None:
        """One step of all ranks together: the gradient is that of the mean loss over all their views."""
        torch.manual_seed(_seed_of(self.job.seed, self.step, hvd.rank()))
        share = len(batch.images) * hvd.size() / views_of_all
        images, classes, votes = (self._to_device(array) for array in (batch.images, batch.classes, batch.votes))
        architecture = ARCHITECTURES[self.settings.network]
        inputs = to_input(images, architecture.pixel_mean, architecture.pixel_std)
        self._set_rates()
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            output = self.network(inputs)
        heads = outputs_of_heads(output)
        losses = [weight * self.objective.loss(logits, classes, votes) for logits, weight in heads]
        loss = share * torch.stack(losses).sum()
        told = hvd.allreduce_async(torch.tensor([float(loss.detach()), float(self.stop_asked)]), name="told")
        loss.backward()
        self.optimizer.synchronize()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.max_gradient_norm or math.inf)
        mean_loss, stop = hvd.synchronize(told).tolist()
        if not math.isfinite(mean_loss + float(norm)):
            self._give_up(float(loss.detach()))
        with self.optimizer.skip_synchronize():
            self.optimizer.step()
        if hvd.rank() == 0:  # the others are given it for validation
            self.average.update_parameters(self.network)
        self.step += 1
        self.steps_here += 1
        self.epoch_loss += mean_loss * views_of_all
        self.epoch_views += views_of_all
        self.views_here += views_of_all
        if stop:
            self._stop()

    def _to_device(self, array: Any) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def _set_rates(self) -> None:
        factor = self.plan.learning_rate_factor(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor if group["new"] or not self.frozen else 0.0

    def _freeze(self, frozen: bool) -> None:
        """Let the last layers alone learn, or all: what is frozen gets no gradient, no decay and no new statistics."""
        self.frozen = frozen
        self.network.train()
        heads = {id(weight) for weight in heads_of(self.settings.network, self.network)}
        for module in self.network.modules():
            own = list(module.parameters(recurse=False))
            for weight in own:
                weight.requires_grad_(not frozen or id(weight) in heads)
            if frozen and own and not any(weight.requires_grad for weight in own):
                module.eval()

    def _fit_plan_into_time(self) -> None:
        """All ranks take the plan that rank 0 makes by its clock, so that they make the same number of steps."""
        if self.plan_fits or self.steps_here < _TIMED_STEPS:
            return
        seconds_left = 60 * self.settings.max_minutes - self.training_s
        self.plan.fit_into(seconds_left, self.training_s / self.steps_here, self.step)
        self.plan.total_steps = hvd.broadcast_object(self.plan.total_steps, root_rank=0)
        self.plan_fits = True

    def _show(self, epoch: int, bar: tqdm) -> None:
        loss = self.epoch_loss / self.epoch_views
        bar.total = self.plan.total_steps
        bar.set_postfix_str(
            f"epoch {epoch}/{self.plan.epochs}, loss {loss:.3f}, {self.views_per_s():.0f} views/s", False
        )
        bar.update()
        if self.tensorboard:
            self.tensorboard.add_scalar("train/loss", loss, self.step)
            self.tensorboard.add_scalar("train/learning_rate", self.optimizer.param_groups[0]["lr"], self.step)

    # The end of an epoch

    def _end_epoch(self, epoch: int) -> None:
        validation = self.validate()
        row = {
            "epoch": epoch,
            "step": self.step,
            "train_loss": self.epoch_loss / self.epoch_views,
            **asdict(validation),
        }
        best = not self.history or self._is_better(row, self._best())
        self.history.append(row | {"best": best})
        self.epoch_loss, self.epoch_views = 0.0, 0
        if best and hvd.rank() == 0:
            self.best_state = {name: value.cpu().clone() for name, value in self.judged.state_dict().items()}
        if self.tensorboard:
            self.write_checkpoint()
            self._log(row)

    def _log(self, row: dict[str, Any]) -> None:
        assert self.tensorboard
        scalars = {name: row[name] for name in ("loss", "accuracy", "macro_f1", "rmse") if row[name] is not None}
        scalars |= {f"recall_{name}": value for name, value in row["recall"].items() if value is not None}
        for name, value in scalars.items():
            self.tensorboard.add_scalar(f"validation/{name}", value, self.step)
        self.tensorboard.flush()
        rmse = "" if row["rmse"] is None else f", RMSE of votes {row['rmse']:.4f}"
        tqdm.write(
            f"epoch {row['epoch']}: training loss {row['train_loss']:.3f}; validation loss {row['loss']:.3f}, accuracy "
            f"{row['accuracy']:.3f}, macro-F1 {row['macro_f1']:.3f}{rmse} of {row['num_galaxies']:,} galaxies"
        )

    def _best(self) -> dict[str, Any]:
        return [row for row in self.history if row["best"]][-1]

    def _is_better(self, row: dict[str, Any], than: dict[str, Any]) -> bool:
        """Whether an epoch is to be kept rather than an earlier one; the later of equals."""
        metric = self.settings.best_by
        return bool(row[metric] >= than[metric] if HIGHER_IS_BETTER[metric] else row[metric] <= than[metric])

    def _has_stopped_getting_better(self) -> bool:
        if not (self.settings.patience and self.history):
            return False
        return len(self.history) - self._best()["epoch"] >= self.settings.patience

    @property
    def judged(self) -> torch.nn.Module:
        """The network that is judged and kept: the average, where there is one."""
        return self.average.module if self.settings.ema_decay else self.network

    def validate(self) -> Validation:
        """Every galaxy of the validation split once, whatever the number of ranks.

        The weights are equal on all ranks, but each has its own running means of batch normalisation: all ranks take
        those of rank 0, whose network is saved.
        """
        hvd.broadcast_parameters(self.judged.state_dict(), root_rank=0)
        split = _split(self.job, self.run, self.data, "validation")
        batches = evaluation_batches(split, self.settings.batch_size, self.shard)
        sums = sums_of(self.settings.network, self.judged, self.objective, batches, len(self.classes), self.device)
        sums.values = hvd.allreduce(sums.values, op=hvd.Sum, name="validation")
        return sums.validation(self.classes)

    # Stopping and going on

    def write_checkpoint(self, finished: bool = False) -> None:
        """Write all that a training needs to go on after this step; rank 0 alone does."""
        content = {
            "finished": finished,
            "identity": _identity(self.job, self.data),
            "step": self.step,
            "steps_per_epoch": self.plan.steps_per_epoch,
            "total_steps": self.plan.total_steps if self.settings.max_minutes else None,
            "epoch_loss": self.epoch_loss,
            "epoch_views": self.epoch_views,
            "history": self.history,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_state": self.best_state,
        }
        self.checkpoints.write(self.step, content)
        self.checkpoint_at = time.monotonic()

    def _resume(self) -> None:
        """Take the state of the newest checkpoint on all ranks, or rank 0's weights where there is none."""
        found = starting_point(self.job, self.run, self.data) if hvd.rank() == 0 else None
        found = hvd.broadcast_object(found, root_rank=0)
        if found is None:
            if hvd.rank() == 0:
                self.checkpoints.clear()
            hvd.broadcast_parameters(self.network.state_dict(), root_rank=0)
            return
        self.network.load_state_dict(found["network"])
        self.average.load_state_dict(found["average"])
        self.optimizer.load_state_dict(found["optimizer"])
        self.history, self.best_state = found["history"], found["best_state"]
        # With other ranks an epoch has other steps: go on at the same share of it.
        scale = self.plan.steps_per_epoch / found["steps_per_epoch"]
        self.step = round(found["step"] * scale)
        self.epoch_loss, self.epoch_views = found["epoch_loss"], found["epoch_views"]
        if found["total_steps"] and self.settings.max_minutes:
            self.plan.total_steps, self.plan_fits = round(found["total_steps"] * scale), True
        if hvd.rank() == 0:
            tqdm.write(f"Going on from step {self.step:,} of {self.plan.total_steps:,}.")

    def _stop(self) -> None:
        """All ranks stop after the same step."""
        if hvd.rank() == 0:
            self.write_checkpoint()
        hvd.barrier()
        raise _on_rank_0(
            f"Stopped at step {self.step:,} of {self.plan.total_steps:,}, as asked. Run it again to go on.", STOPPED
        )

    def _give_up(self, loss: float) -> None:
        """All ranks stop before a step whose loss or gradient is no finite number."""
        losses = hvd.allgather_object(loss)
        broken = [rank for rank, value in enumerate(losses) if not math.isfinite(value)]
        what = f"the loss of rank {broken[0]} is {losses[broken[0]]}" if broken else "the gradient is not finite"
        raise _on_rank_0(
            f"Step {self.step + 1:,}: {what}. Stopped before it; the last checkpoint is kept. "
            "A lower --learning-rate or --max-gradient-norm may help; start over with --no-resume.",
            1,
        )

    # What comes of it

    def views_per_s(self) -> float:
        """Training throughput of all ranks, without validation."""
        return round(self.views_here / self.training_s, 1) if self.training_s else 0.0

    def card(self) -> ModelCard:
        """The card of the best epoch's weights."""
        return ModelCard(
            classes=self.classes,
            recipe=TypeAdapter(ViewRecipe).validate_python(self.data["recipe"]),
            training={
                "augment": self.data["id"],
                "galaxies_by_class": self.data["galaxies_by_class"]["train"],
                "settings": asdict(self.settings),
                "seed": self.job.seed,
                "ranks": hvd.size(),
                "steps": self.step,
                "planned_steps": self.plan.steps_per_epoch * self.settings.epochs,
                "chosen": self._best(),
            },
            versions=versions(),
            network=self.settings.network,
            objective=self.settings.objective,
            pixel_mean=ARCHITECTURES[self.settings.network].pixel_mean,
            pixel_std=ARCHITECTURES[self.settings.network].pixel_std,
        )


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def _on_rank_0(message: str, status: int) -> BaseException:
    """An error for the user from rank 0; the other ranks end with the same status in silence."""
    if hvd.rank() == 0:
        return UserError(message, status)
    time.sleep(1)  # horovodrun ends all ranks when one has ended: let rank 0 be heard
    return SystemExit(status)
