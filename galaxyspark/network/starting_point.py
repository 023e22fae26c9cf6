"""Where a training that was stopped goes on: from which checkpoint, and after which step."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from galaxyspark.errors import UserError
from galaxyspark.network.checkpoints import Checkpoints
from galaxyspark.network.progress import SETTINGS_TO_GO_ON_WITH
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import TrainJob

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
    before, now = found["identity"], identity_of(job, data)
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


def step_to_go_on_after(found: Mapping[str, Any], steps_per_epoch: int) -> int:
    """The step that a checkpoint was written after, where an epoch may have other steps now: another number of ranks.

    It is at the same share of its epoch, and neither at its start nor its end where the checkpoint is not, unless an
    epoch has a single step now.

    Args:
        found: A checkpoint's ``step`` and ``steps_per_epoch``.
        steps_per_epoch: Those of an epoch now.
    """
    epochs, steps = divmod(found["step"], found["steps_per_epoch"])
    if not steps:
        return epochs * steps_per_epoch
    share = steps / found["steps_per_epoch"]
    return epochs * steps_per_epoch + max(1, min(round(share * steps_per_epoch), steps_per_epoch - 1))


def identity_of(job: TrainJob, data: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for a checkpoint to be gone on from."""
    settings = {name: value for name, value in asdict(job.train).items() if name not in _MAY_CHANGE}
    return {"views": data["id"], "seed": job.seed, **settings}


def _settings_of_before(run: RunDirectory) -> str:
    has_file = run.has(SETTINGS_TO_GO_ON_WITH)
    return f"--config {shlex.quote(str(run.place(SETTINGS_TO_GO_ON_WITH)))}" if has_file else "the same settings"
