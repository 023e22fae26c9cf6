"""One training on one rank, from the first step to the best epoch's weights.

All that a step does depends on the weights, the settings and (seed, epoch, step, rank): so a checkpoint of rank 0 is
enough for all ranks to go on as if nothing had happened. With ``max_minutes`` it depends on the clock, too.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa  # noqa: F401  (before torch, as petastorm asks)

import horovod.torch as hvd  # isort: skip
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from galaxyspark.dataset.read import Shard, Split, TrainingViews, evaluation_batches
from galaxyspark.errors import UserError
from galaxyspark.network.card import ModelCard
from galaxyspark.network.checkpoints import Checkpoints
from galaxyspark.network.devices import GpuDecoder
from galaxyspark.network.learner import Learner, NotFiniteError
from galaxyspark.network.networks import ARCHITECTURES
from galaxyspark.network.objectives import make_objective
from galaxyspark.network.progress import Progress, clear_progress, write_progress
from galaxyspark.network.ranks import STOPPED, device_of_rank, error_of_all_ranks
from galaxyspark.network.schedule import Plan
from galaxyspark.network.starting_point import identity_of, starting_point, step_to_go_on_after
from galaxyspark.network.unseen import require_unseen_galaxies
from galaxyspark.network.validation import HIGHER_IS_BETTER, Validation, sums_of
from galaxyspark.run_directory import RunDirectory, versions
from galaxyspark.settings import TrainJob, TrainSettings
from galaxyspark.views.augment import ViewRecipe

_STEPS_BETWEEN_PLANS = 20
"""Their median is the speed that is planned with: the very first ones are slower, and some wait for a disk."""


class Trainer:
    """One training on one rank: epochs, validation, checkpoints."""

    def __init__(self, job: TrainJob, run: RunDirectory, data: dict[str, Any]) -> None:
        """Get ready for the first step, or for the one after the newest checkpoint.

        Raises:
            UserError: The views, the weights or the checkpoints cannot be had.
        """
        self.started_at = time.monotonic()
        require_validation(run, data)
        require_unseen_galaxies(job.train.weights, data)
        self.job, self.run, self.data = job, run, data
        self.settings: TrainSettings = job.train
        self.classes: tuple[str, ...] = tuple(data["classes"])
        self.shard = Shard(hvd.rank(), hvd.size())
        device = device_of_rank()
        split = split_of(job, run, data, "train", device)
        self.views = TrainingViews(split, self.settings.batch_size, self.shard, job.seed)
        self.learner = Learner(self.settings, make_objective(self.settings, data), job.seed, device)
        self.plan = Plan(self.views.num_batches, self.views.num_batches * self.settings.epochs)
        self.step = 0
        self.epoch_loss, self.epoch_views = 0.0, 0
        self.history: list[dict[str, Any]] = []
        self.best_state: dict[str, Tensor] = {}
        # Before it was stopped: of training, and of everything, up to its last checkpoint.
        self.earlier_s, self.earlier_duration_s = 0.0, 0.0
        self.total_is_known = not self.settings.max_minutes  # else once the speed is
        # Since this process has started:
        self.steps_here, self.views_here = 0, 0
        self.training_s = 0.0
        self.last_s: deque[float] = deque(maxlen=_STEPS_BETWEEN_PLANS)
        # The other ranks neither read nor write any.
        directory = run.path("checkpoints") if hvd.rank() == 0 else Path()
        self.checkpoints = Checkpoints(directory, self.settings.keep_checkpoints)
        self.checkpoint_at = time.monotonic()
        self.stop_asked = False
        self._resume()
        self.tensorboard: SummaryWriter | None = None
        if hvd.rank() == 0:
            self.tensorboard = SummaryWriter(str(run.path("tensorboard")), purge_step=self.step + 1)

    def run_epochs(self) -> None:
        """Every epoch: all its steps, then validation, a row of history, and the best weights kept."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._ask_to_stop)
            # The launcher's ssh has ended, or the terminal; unless nohup has us stay.
            if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
                signal.signal(signal.SIGHUP, self._ask_to_stop)
        bar = tqdm(desc="train", unit="step", disable=hvd.rank() != 0, mininterval=1.0, initial=self.step)
        try:
            with bar:
                while True:
                    epoch, first = divmod(self.step, self.plan.steps_per_epoch)
                    steps_are_done = self.step >= self.plan.total_steps
                    if self.epoch_views and (first == 0 or steps_are_done):
                        self._end_epoch(epoch if first == 0 else epoch + 1)
                    if steps_are_done or self._has_stopped_getting_better():
                        return
                    self._run_epoch(epoch + 1, first, bar)
        finally:
            if self.tensorboard:
                self.tensorboard.close()

    def _run_epoch(self, epoch: int, first: int, bar: tqdm) -> None:
        """The steps of one epoch from number ``first`` on."""
        self.learner.freeze(epoch <= self.settings.freeze)
        start = time.perf_counter()
        with closing(self.views.epoch(epoch, first)) as batches:
            for number, batch in enumerate(batches, first):
                views_of_all = sum(self.views.batch_sizes(number))
                rate = self.plan.learning_rate_factor(self.step)
                try:
                    step = self.learner.step(batch, views_of_all, self.step, rate, self.stop_asked)
                except NotFiniteError as error:
                    raise self._given_up(error) from None
                self._count(step.loss, views_of_all, time.perf_counter() - start)
                self._show(epoch, rate, bar)
                self._after_step(step.stop)
                if self.step >= self.plan.total_steps:
                    break
                start = time.perf_counter()

    def _count(self, loss: float, views: int, seconds: float) -> None:
        self.step += 1
        self.epoch_loss += loss * views
        self.epoch_views += views
        self.steps_here += 1
        self.views_here += views
        self.training_s += seconds
        self.last_s.append(seconds)

    def _after_step(self, stop: bool) -> None:
        if stop:
            raise self._stopped()
        if self.steps_here % _STEPS_BETWEEN_PLANS == 0 and self.step < self.plan.total_steps:
            self._fit_plan_into_time(median(self.last_s))
        if hvd.rank() == 0 and time.monotonic() - self.checkpoint_at > 60 * self.settings.checkpoint_minutes:
            self.write_checkpoint()

    def _fit_plan_into_time(self, seconds_per_step: float) -> None:
        """All ranks take the plan that rank 0 makes by its clock, so that they make the same number of steps.

        Made again and again, for a laptop slows down once it is warm.
        """
        if not self.settings.max_minutes:
            return
        seconds_left = 60 * self.settings.max_minutes - self.earlier_s - self.training_s
        self.plan.fit_into(seconds_left, seconds_per_step, self.step)
        self.plan.total_steps = hvd.broadcast_object(self.plan.total_steps, root_rank=0)
        self.total_is_known = True

    def _show(self, epoch: int, rate: float, bar: tqdm) -> None:
        loss = self.epoch_loss / self.epoch_views
        bar.total = self.plan.total_steps if self.total_is_known else None  # else it tells of hours at first
        of_all = f"/{self.plan.epochs}" if self.total_is_known else ""
        state = f"epoch {epoch}{of_all}, loss {loss:.3f}, {self.views_per_s():.0f} views/s"
        bar.set_postfix_str(state, refresh=False)
        bar.update()
        if self.tensorboard:
            self.tensorboard.add_scalar("train/loss", loss, self.step)
            self.tensorboard.add_scalar("train/learning_rate_share", rate, self.step)

    def _end_epoch(self, epoch: int) -> None:
        if hvd.rank() == 0:
            self.write_checkpoint()  # who is killed while validating validates again
        validation = self.validate()
        train_loss = self.epoch_loss / self.epoch_views
        row = {"epoch": epoch, "step": self.step, "train_loss": train_loss, **asdict(validation)}
        best = not self.history or self._compared(row, self._best()) >= 0
        self.history.append(row | {"best": best})
        self.epoch_loss, self.epoch_views = 0.0, 0
        if not self.tensorboard:
            return
        if best:
            state = self.learner.judged.state_dict()
            self.best_state = {name: value.detach().cpu().clone() for name, value in state.items()}
        self.write_checkpoint()
        _show_validation(row, self.tensorboard)

    def validate(self) -> Validation:
        """Every galaxy of the validation split once, whatever the number of ranks.

        All ranks take rank 0's weights: the average is up to date there only, and each rank has its own running means
        of batch normalisation.
        """
        learner = self.learner
        hvd.broadcast_parameters(learner.judged.state_dict(), root_rank=0)
        split = split_of(self.job, self.run, self.data, "validation", learner.device)
        batches = evaluation_batches(split, self.settings.batch_size, self.shard)
        sums = sums_of(
            learner.judged, learner.architecture, learner.objective, batches, len(self.classes), learner.device
        )
        sums.values = hvd.allreduce(sums.values, op=hvd.Sum, name="validation")
        return sums.validation(self.classes)

    def _best(self) -> dict[str, Any]:
        return [row for row in self.history if row["best"]][-1]

    def _compared(self, row: dict[str, Any], other: dict[str, Any]) -> float:
        """By how much an epoch is better than another; of equally good ones the later is kept."""
        metric = self.settings.best_by
        difference = row[metric] - other[metric]
        return float(difference if HIGHER_IS_BETTER[metric] else -difference)

    def _has_stopped_getting_better(self) -> bool:
        """Whether the last epochs, as many as patience has, were no better than one before them."""
        patience = self.settings.patience
        if not 0 < patience < len(self.history):
            return False
        before, last = self.history[:-patience], self.history[-patience:]
        return not any(all(self._compared(row, other) > 0 for other in before) for row in last)

    # Stopping and going on

    def write_checkpoint(self, finished: bool = False) -> None:
        """Write all that a training needs to go on after this step; rank 0 alone does."""
        identity = identity_of(self.job, self.data)
        content = {
            "finished": finished,
            "identity": identity,
            "step": self.step,
            "steps_per_epoch": self.plan.steps_per_epoch,
            "training_s": self.earlier_s + self.training_s,
            "duration_s": self.earlier_duration_s + time.monotonic() - self.started_at,
            "epoch_loss": self.epoch_loss,
            "epoch_views": self.epoch_views,
            "history": self.history,
            "learner": self.learner.state_dict(),
            "best_state": self.best_state,
        }
        self.checkpoints.write(self.step, content)
        plan = self.plan
        progress = Progress(
            views=identity["views"],
            finished=finished,
            step=self.step,
            steps_per_epoch=plan.steps_per_epoch,
            total_steps=plan.total_steps if self.total_is_known or self.step >= plan.total_steps else None,
            history=self.history,
        )
        write_progress(self.checkpoints.directory, progress, replace(self.job, ranks=hvd.size()))
        self._keep(finished)
        self.checkpoint_at = time.monotonic()

    def _keep(self, finished: bool) -> None:
        """Bring checkpoints and curves to the run; what is not the end of it may be made up for by the next time."""
        try:
            for name in ("checkpoints", "tensorboard"):
                self.run.keep(name)
        except Exception as error:  # every kind of storage has its own
            if finished:
                raise
            tqdm.write(f"The checkpoint of step {self.step:,} is on this machine only: {error}")

    def _resume(self) -> None:
        """All ranks take the state of the checkpoint that rank 0 finds, if it finds one."""
        found = starting_point(self.job, self.run, self.data) if hvd.rank() == 0 else None
        found = hvd.broadcast_object(found, root_rank=0, name="checkpoint")  # else named by its type
        if found is None:
            if hvd.rank() == 0:
                self._start_over()
            return
        self.learner.load_state_dict(found["learner"])
        self.history, self.best_state = found["history"], found["best_state"]
        self.epoch_loss, self.epoch_views = found["epoch_loss"], found["epoch_views"]
        self.step = step_to_go_on_after(found, self.plan.steps_per_epoch)
        self.earlier_s = found.get("training_s", 0.0)  # earlier versions did not write it
        self.earlier_duration_s = found.get("duration_s", self.earlier_s)
        if self.earlier_s:
            self._fit_plan_into_time(self.earlier_s / self.step)
        if hvd.rank() == 0:
            tqdm.write(f"Going on after {self._where()}.")

    def _where(self) -> str:
        """Such as ``step 250 of 2,500``."""
        return f"step {self.step:,}" + (f" of {self.plan.total_steps:,}" if self.total_is_known else "")

    def _start_over(self) -> None:
        """Remove what another training has left; what it published stays until this one has ended."""
        if self.checkpoints.files():
            why = "the last one had finished, or on other views" if self.settings.resume else "as asked"
            tqdm.write(f"Starting a new training ({why}).")
        self.checkpoints.clear()
        clear_progress(self.checkpoints.directory)
        shutil.rmtree(self.run.path("tensorboard"), ignore_errors=True)
        self._keep(finished=False)

    def _ask_to_stop(self, number: int, frame: Any) -> None:
        self.stop_asked = True

    def _stopped(self) -> BaseException:
        """All ranks stop after the same step."""
        if hvd.rank() == 0:
            self.write_checkpoint()
        hvd.barrier()
        return error_of_all_ranks(f"Stopped after {self._where()}, as asked. Run it again to go on.", STOPPED)

    def _given_up(self, error: NotFiniteError) -> BaseException:
        return error_of_all_ranks(
            f"Step {self.step + 1:,}: {error}. Stopped before it; the last checkpoint is kept. Start over, with a "
            "lower --learning-rate or --max-gradient-norm and --no-resume.",
            1,
        )

    # What comes of it

    def views_per_s(self) -> float:
        """Training throughput of all ranks, without validation and checkpoints."""
        return round(self.views_here / self.training_s, 1) if self.training_s else 0.0

    def cut_short_by(self) -> str | None:
        """The flag that ended it before all its epochs were made; None where they were."""
        if self.step >= self.plan.asked_steps:
            return None
        if self.step >= self.plan.total_steps:
            return f"--max-minutes {self.settings.max_minutes:g}"
        return f"--patience {self.settings.patience}"

    def card(self) -> ModelCard:
        """The card of the best epoch's weights."""
        architecture = ARCHITECTURES[self.settings.network]
        return ModelCard(
            classes=self.classes,
            recipe=TypeAdapter(ViewRecipe).validate_python(self.data["recipe"]),
            training={
                "augment": self.data["id"],
                "labels": self.data["inputs"]["labels"],
                "label_rule": self.data["label_rule"],
                "split": self.data.get("split"),
                "galaxies_by_class": self.data["galaxies_by_class"]["train"],
                "settings": asdict(self.settings),
                "seed": self.job.seed,
                "ranks": hvd.size(),
                "steps": self.step,
                "asked_steps": self.plan.asked_steps,
                "chosen": self._best(),
            },
            versions=versions(),
            network=self.settings.network,
            objective=self.settings.objective,
            pixel_mean=architecture.pixel_mean,
            pixel_std=architecture.pixel_std,
        )


def require_validation(run: RunDirectory, data: dict[str, Any]) -> None:
    """Refuse views of which none would judge the epochs.

    Raises:
        UserError: No galaxy is in the validation split.
    """
    if not any(data["galaxies_by_class"]["validation"].values()):
        raise UserError(
            f"{run.root}: no galaxy is in the validation split. Augment more, or with --split-fractions or --stratify."
        )


def split_of(job: TrainJob, run: RunDirectory, data: dict[str, Any], name: str, device: torch.device) -> Split:
    """One of ``train``, ``validation`` and ``test``, decoded where and by as many threads as the device asks for."""
    split = Split(run.place("views"), name, tuple(data["classes"]), with_votes=job.train.objective == "votes")
    if device.type != "cuda":
        return split
    if job.train.train_gpu_decoding:
        return replace(split, decode=GpuDecoder(device), decoding_threads=1)
    return replace(split, decoding_threads=torch.get_num_threads())  # the cores have nothing else to do


def _show_validation(row: dict[str, Any], tensorboard: SummaryWriter) -> None:
    scalars = {name: row[name] for name in HIGHER_IS_BETTER if row[name] is not None}
    scalars |= {f"recall_{name}": value for name, value in row["recall"].items() if value is not None}
    for name, value in scalars.items():
        tensorboard.add_scalar(f"validation/{name}", value, row["step"])
    tensorboard.flush()
    rmse = "" if row["rmse"] is None else f", RMSE of votes {row['rmse']:.4f}"
    tqdm.write(
        f"epoch {row['epoch']}: training loss {row['train_loss']:.3f}; validation loss {row['loss']:.3f}, accuracy "
        f"{row['accuracy']:.3f}, macro-F1 {row['macro_f1']:.3f}{rmse}, of {row['num_galaxies']:,} galaxies"
    )
