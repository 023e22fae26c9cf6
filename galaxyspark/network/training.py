"""Training with Horovod: the same function on every rank, whatever has started the ranks."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa  # noqa: F401  (before torch, as petastorm asks)

import horovod.torch as hvd  # isort: skip
import torch
from horovod.common.exceptions import HorovodInternalError

from galaxyspark.dataset.read import Shard, TrainingViews
from galaxyspark.memory import keep_freed_memory
from galaxyspark.network.card import ModelCard
from galaxyspark.network.model import save_model
from galaxyspark.network.networks import build_network
from galaxyspark.network.objectives import make_objective
from galaxyspark.network.ranks import error_of_all_ranks, start_horovod
from galaxyspark.network.starting_point import starting_point
from galaxyspark.network.trainer import Trainer, require_validation, split_of
from galaxyspark.network.unseen import require_unseen_galaxies
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import TrainJob
from galaxyspark.storage import write_atomically


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
        raise error_of_all_ranks("Another rank has ended. Run it again to go on from the last checkpoint.", 1) from None
    return None


def _train_and_publish(job: TrainJob, run: RunDirectory, data: dict[str, Any]) -> dict[str, Any]:
    with run.stage("train", job, {"augment": data["id"]}) as staging:
        trainer = Trainer(job, run, data)
        trainer.run_epochs()
        card = trainer.card()
        save_model(staging.path("model"), trainer.best_state, card)
        write_atomically(staging.path("history.jsonl"), "".join(json.dumps(row) + "\n" for row in trainer.history))
        staging.manifest = {
            # That of training itself, without the start, validation and checkpoints.
            "rate": {"per_s": trainer.views_per_s(), "unit": "views"},
            "earlier_sittings_s": round(trainer.earlier_duration_s, 2),
            "ranks": hvd.size(),
            "cut_short_by": trainer.cut_short_by(),
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
    split = split_of(job, run, data, "train", torch.device("cpu"))
    TrainingViews(split, job.train.batch_size, Shard(0, job.ranks), job.seed)
    require_validation(run, data)
