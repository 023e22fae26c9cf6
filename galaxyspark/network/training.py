"""Training with Horovod: the same function on every rank, whatever has started the ranks.

All that a step does depends on the weights, the settings and (seed, epoch, step, rank): so a checkpoint of rank 0 is
enough for all ranks to go on as if nothing had happened. With ``max_minutes`` it depends on the clock, too.
"""

from __future__ import annotations

import json
import os
import shlex
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
from horovod.common.exceptions import HorovodInternalError
from pydantic import TypeAdapter
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from galaxyspark.dataset.read import Shard, Split, TrainingViews, evaluation_batches
from galaxyspark.errors import UserError
from galaxyspark.memory import keep_freed_memory
from galaxyspark.network.card import ModelCard
from galaxyspark.network.checkpoints import Checkpoints
from galaxyspark.network.devices import GpuDecoder, device_of
from galaxyspark.network.learner import Learner, NotFiniteError
from galaxyspark.network.model import save_model
from galaxyspark.network.networks import ARCHITECTURES, build_network
from galaxyspark.network.objectives import ClassesObjective, Objective, VotesObjective, class_weights
from galaxyspark.network.progress import SETTINGS_TO_GO_ON_WITH, Progress, clear_progress, write_progress
from galaxyspark.network.schedule import Plan
from galaxyspark.network.unseen import require_unseen_galaxies
from galaxyspark.network.validation import HIGHER_IS_BETTER, Validation, sums_of
from galaxyspark.run_directory import RunDirectory, versions
from galaxyspark.settings import TrainJob, TrainSettings
from galaxyspark.storage import write_atomically
from galaxyspark.views.augment import ViewRecipe

STOPPED = 143
"""Exit status of a rank after SIGTERM, as shells have it; horovodrun's own is then 1."""
_STEPS_BETWEEN_PLANS = 20
"""Their median is the speed that is planned with: the very first ones are slower, and some wait for a disk."""
_BEFORE_ITS_SETTING = {"turn_views": False}
"""What a training did before there were these settings, for checkpoints that do not have them."""
_MAY_CHANGE = (
    "epochs",
    "max_minutes",
    "patience",
    "resume",
    "checkpoint_minutes",
    "keep_checkpoints",
    "train_gpu_decoding",
)


def train(job: TrainJob) -> dict[str, Any] | None:
    """Train on the published views of a run and publish ``model/``; called by every rank.

    Returns:
        The manifest that was published; None on ranks other than 0, and with ``check``.

    Raises:
        UserError: The views, the weights or the checkpoints cannot be had, the loss is no number any more, another
            rank has died, or the training was asked to stop. Ranks other than 0 then raise SystemExit.
    """
    run = RunDirectory(job.run)
    data = run.manifest("augment")
    if job.check:
        check(job, run, data)
        return None
    keep_freed_memory()
    start_horovod()
    try:
        if hvd.rank() == 0:
            return _train_and_publish(job, run, data)
        Trainer(job, run, data).run_epochs()
    except HorovodInternalError:
        raise _on_rank_0("Another rank has ended. Run it again to go on from the last checkpoint.", 1) from None
    return None


def start_horovod() -> None:
    """Start Horovod, with this rank's share of the cores for torch."""
    if not _has_gpu():  # looking for work every millisecond, its default, takes the ranks' own cores
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "10")
    hvd.init()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // hvd.local_size()))


def _train_and_publish(job: TrainJob, run: RunDirectory, data: dict[str, Any]) -> dict[str, Any]:
    with run.stage("train", job, {"augment": data["id"]}) as staging:
        trainer = Trainer(job, run, data)
        trainer.run_epochs()
        card = trainer.card()
        save_model(staging.path("model"), trainer.best_state, card)
        write_atomically(staging.path("history.jsonl"), "".join(json.dumps(row) + "\n" for row in trainer.history))
        staging.manifest = {
            # That of training itself, without the start and validation.
            "rate": {"per_s": trainer.views_per_s(), "unit": "views"},
            "earlier_sittings_s": round(trainer.earlier_duration_s, 2),
            "ranks": hvd.size(),
            "training": card.training,
            "objectives": _objectives(run, data, card),
        }
    trainer.write_checkpoint(finished=True)
    return staging.manifest


def _objectives(run: RunDirectory, data: dict[str, Any], card: ModelCard) -> dict[str, Any]:
    """Objective -> validation metrics of the epoch chosen, for every objective trained on these views so far."""
    before = run.published().get("train", {})
    kept = before.get("objectives", {}) if before.get("inputs", {}).get("augment") == data["id"] else {}
    others = {name: chosen for name, chosen in kept.items() if name != card.objective}
    return others | {card.objective: card.training["chosen"] | {"network": card.network}}


def check(job: TrainJob, run: RunDirectory, data: dict[str, Any]) -> None:
    """Find out, in one process and before any rank is started, what is wrong with settings, views or checkpoints.

    Raises:
        UserError: As ``train`` would, later.
    """
    starting_point(job, run, data)  # before weights are downloaded that a stopped training did not start from
    require_unseen_galaxies(job.train.weights, data)
    build_network(job.train.network, make_objective(job.train, data).num_outputs, job.train.weights)
    split = _split(job, run, data, "train", torch.device("cpu"))
    TrainingViews(split, job.train.batch_size, Shard(0, job.ranks), job.seed)
    _require_validation(run, data)


def _require_validation(run: RunDirectory, data: dict[str, Any]) -> None:
    if not any(data["galaxies_by_class"]["validation"].values()):
        raise UserError(
            f"{run.root}: no galaxy is in the validation split. Augment more, or with --split-fractions or --stratify."
        )


def make_objective(settings: TrainSettings, data: dict[str, Any]) -> Objective:
    """What is to be learned from the views of a manifest.

    Raises:
        UserError: They have no votes, or only one class.
    """
    if settings.objective == "votes":
        if data["label_rule"] is None:
            raise UserError(
                "--objective votes: the views have classes, but no votes. Augment with labels in the challenge's "
                "format (37 vote columns), or train with --objective classes."
            )
        return VotesObjective()
    if settings.best_by == "rmse":
        raise UserError("--best-by rmse: votes are learned with --objective votes only.")
    galaxies = data["galaxies_by_class"]["train"]
    if sum(count > 0 for count in galaxies.values()) < 2:
        raise UserError("All training galaxies are of one class: there is nothing to tell apart. Check the labels.")
    weights = class_weights({name: galaxies.get(name, 0) for name in data["classes"]}, settings.class_balance)
    return ClassesObjective(weights, settings.label_smoothing)


def _split(job: TrainJob, run: RunDirectory, data: dict[str, Any], name: str, device: torch.device) -> Split:
    split = Split(run.place("views"), name, tuple(data["classes"]), with_votes=job.train.objective == "votes")
    if device.type != "cuda":
        return split
    if job.train.train_gpu_decoding:
        return replace(split, decode=GpuDecoder(device), decoding_threads=1)
    return replace(split, decoding_threads=torch.get_num_threads())  # the cores have nothing else to do


def starting_point(job: TrainJob, run: RunDirectory, data: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint to go on from; None where there is none, or that of a training that has nothing to go on with.

    That is one that was finished, or whose views have been replaced since.

    Raises:
        UserError: It is of a training with other settings.
    """
    checkpoints = Checkpoints(run.path("checkpoints"), job.train.keep_checkpoints)
    found = checkpoints.newest() if job.train.resume else None
    if found is None or found["finished"]:
        return None
    before, now = found["identity"], _identity(job, data)
    if before["views"] != now["views"]:
        return None
    before = _BEFORE_ITS_SETTING | before
    others = [f"{name} {before.get(name)}, not {now[name]}" for name in now if before.get(name) != now[name]]
    if others:
        raise UserError(
            f"{checkpoints.directory}: the training that was stopped there had {'; '.join(others)}. "
            f"Go on with {_settings_of_before(run)}, or start over with --no-resume."
        )
    return found


def _settings_of_before(run: RunDirectory) -> str:
    has_file = run.has(SETTINGS_TO_GO_ON_WITH)
    return f"--config {shlex.quote(str(run.place(SETTINGS_TO_GO_ON_WITH)))}" if has_file else "the same settings"


def _identity(job: TrainJob, data: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for a checkpoint to be gone on from."""
    settings = {name: value for name, value in asdict(job.train).items() if name not in _MAY_CHANGE}
    return {"views": data["id"], "seed": job.seed, **settings}


def _has_gpu() -> bool:
    return bool(hvd.cuda_built()) and torch.cuda.is_available()


def _device() -> torch.device:
    """This rank's GPU, where there is one and Horovod was built for it: in Spark's executors the one Spark gave it.

    Raises:
        UserError: This host has fewer GPUs than ranks, or Spark gave one that Horovod or torch cannot use.
    """
    from horovod.spark.task import get_available_devices

    given = get_available_devices()
    if given and not hvd.nccl_built():
        raise UserError("Spark gives each rank a GPU, but Horovod was compiled without: ./submit.sh setup --gpu")
    if given or _has_gpu():
        return device_of(int(given[0]) if given else hvd.local_rank())
    if torch.cuda.is_available() and hvd.rank() == 0:
        tqdm.write("There is a GPU here, but Horovod was compiled without: training on the processor.")
        tqdm.write("To train on the GPU: ./submit.sh setup --gpu")
    return torch.device("cpu")


class Trainer:
    """One training on one rank: epochs, validation, checkpoints."""

    def __init__(self, job: TrainJob, run: RunDirectory, data: dict[str, Any]) -> None:
        """Get ready for the first step, or for the one after the newest checkpoint.

        Raises:
            UserError: The views, the weights or the checkpoints cannot be had.
        """
        self.started_at = time.monotonic()
        _require_validation(run, data)
        require_unseen_galaxies(job.train.weights, data)
        self.job, self.run, self.data = job, run, data
        self.settings: TrainSettings = job.train
        self.classes: tuple[str, ...] = tuple(data["classes"])
        self.shard = Shard(hvd.rank(), hvd.size())
        device = _device()
        split = _split(job, run, data, "train", device)
        self.views = TrainingViews(split, self.settings.batch_size, self.shard, job.seed)
        self.learner = Learner(self.settings, make_objective(self.settings, data), job.seed, device)
        self.plan = Plan(self.views.num_batches, self.views.num_batches * self.settings.epochs)
        self.step = 0
        self.epoch_loss, self.epoch_views = 0.0, 0
        self.history: list[dict[str, Any]] = []
        self.best_state: dict[str, Tensor] = {}
        # Before it was stopped: of training, and of everything, up to its last checkpoint.
        self.earlier_s, self.earlier_duration_s = 0.0, 0.0
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
                        self._say_what_cut_it_short()
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
                start = time.perf_counter()
                self._show(epoch, rate, bar)
                self._after_step(step.stop)
                if self.step >= self.plan.total_steps:
                    break

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

    def _is_planned(self) -> bool:
        """Whether the total of steps holds: under ``max_minutes`` it is that of all epochs until the speed is known."""
        return bool(not self.settings.max_minutes or self.steps_here > _STEPS_BETWEEN_PLANS or self.earlier_s)

    def _show(self, epoch: int, rate: float, bar: tqdm) -> None:
        loss = self.epoch_loss / self.epoch_views
        bar.total = self.plan.total_steps if self._is_planned() else None  # else it tells of hours at first
        of_all = f"/{self.plan.epochs}" if self._is_planned() else ""
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
        split = _split(self.job, self.run, self.data, "validation", learner.device)
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

    def _say_what_cut_it_short(self) -> None:
        plan, settings = self.plan, self.settings
        if hvd.rank() != 0 or self.step >= plan.asked_steps:
            return
        in_time = self.step >= plan.total_steps
        setting = f"--max-minutes {settings.max_minutes:g}" if in_time else f"--patience {settings.patience}"
        epochs = f"{self.step / plan.steps_per_epoch:.1f} of {settings.epochs} epochs"
        tqdm.write(f"Ended by {setting} after {epochs}: {self.step:,} of {plan.asked_steps:,} steps.")

    # Stopping and going on

    def write_checkpoint(self, finished: bool = False) -> None:
        """Write all that a training needs to go on after this step; rank 0 alone does."""
        identity = _identity(self.job, self.data)
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
            total_steps=plan.total_steps if self._is_planned() else None,
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
        # With another number of ranks an epoch has other steps: go on at the same share of it.
        scale = self.plan.steps_per_epoch / found["steps_per_epoch"]
        self.step = round(found["step"] * scale)
        self.earlier_s = found.get("training_s", 0.0)  # earlier versions did not write it
        self.earlier_duration_s = found.get("duration_s", self.earlier_s)
        if self.earlier_s:
            self._fit_plan_into_time(self.earlier_s / found["step"])
        if hvd.rank() == 0:
            tqdm.write(f"Going on after step {self.step:,} of {self.plan.total_steps:,}.")

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
        where = f"step {self.step:,}" + (f" of {self.plan.total_steps:,}" if self._is_planned() else "")
        return _on_rank_0(f"Stopped after {where}, as asked. Run it again to go on.", STOPPED)

    def _given_up(self, error: NotFiniteError) -> BaseException:
        return _on_rank_0(
            f"Step {self.step + 1:,}: {error}. Stopped before it; the last checkpoint is kept. Start over, with a "
            "lower --learning-rate or --max-gradient-norm and --no-resume.",
            1,
        )

    # What comes of it

    def views_per_s(self) -> float:
        """Training throughput of all ranks, without validation."""
        return round(self.views_here / self.training_s, 1) if self.training_s else 0.0

    def card(self) -> ModelCard:
        """The card of the best epoch's weights."""
        architecture = ARCHITECTURES[self.settings.network]
        return ModelCard(
            classes=self.classes,
            recipe=TypeAdapter(ViewRecipe).validate_python(self.data["recipe"]),
            training={
                "augment": self.data["id"],
                "labels": self.data["inputs"]["labels"],
                "split": self.data.get("split"),
                "galaxies_by_class": self.data["galaxies_by_class"]["train"],
                "settings": asdict(self.settings),
                "seed": self.job.seed,
                "ranks": hvd.size(),
                "steps": self.step,
                "planned_steps": self.plan.asked_steps,
                "chosen": self._best(),
            },
            versions=versions(),
            network=self.settings.network,
            objective=self.settings.objective,
            pixel_mean=architecture.pixel_mean,
            pixel_std=architecture.pixel_std,
        )


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


def _on_rank_0(message: str, status: int) -> BaseException:
    """An error for the user from rank 0; the other ranks end with the same status in silence."""
    if hvd.rank() == 0:
        return UserError(message, status)
    time.sleep(1)  # horovodrun ends all ranks when one has ended: let rank 0 be heard
    return SystemExit(status)
