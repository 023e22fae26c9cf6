"""How far a training has come and with what settings: small files beside its newest checkpoint, read without torch."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from galaxyspark.command_line import to_yaml
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import TrainJob
from galaxyspark.storage import write_atomically

_FILE, _SETTINGS = "progress.json", "settings.yaml"

SETTINGS_TO_GO_ON_WITH = f"checkpoints/{_SETTINGS}"
"""Where in a run the settings are of the training whose checkpoints are there."""


@dataclass(frozen=True)
class Progress:
    """What the newest checkpoint holds.

    Attributes:
        views: The id of the manifest of ``augment`` whose views are trained on.
        finished: Whether the training has come to its end.
        step: Steps made.
        steps_per_epoch: Steps of an epoch.
        total_steps: Steps planned; None where ``max_minutes`` is to decide on them and the speed is not known yet.
        history: What history.jsonl is to have of the epochs that are over, a row each.
    """

    views: str
    finished: bool
    step: int
    steps_per_epoch: int
    total_steps: int | None
    history: list[dict[str, Any]]

    @property
    def where(self) -> str:
        """Such as ``epoch 3 of 30, step 250 of 2,500``."""
        epoch = math.ceil(self.step / self.steps_per_epoch)
        if self.total_steps is None:
            return f"epoch {epoch:,}, step {self.step:,}"
        epochs = math.ceil(self.total_steps / self.steps_per_epoch)
        return f"epoch {epoch:,} of {epochs:,}, step {self.step:,} of {self.total_steps:,}"


def write_progress(checkpoints: Path, progress: Progress, job: TrainJob) -> None:
    """Say in the directory of the checkpoints what the newest of them holds, and with what settings it goes on."""
    write_atomically(checkpoints / _SETTINGS, to_yaml(replace(job, train=replace(job.train, resume=True))))
    write_atomically(checkpoints / _FILE, json.dumps(asdict(progress)))


def read_progress(checkpoints: Path) -> tuple[Progress, float] | None:
    """What the newest checkpoint holds, and when it was written, in seconds since 1970. None where nothing says so."""
    file = checkpoints / _FILE
    try:
        return Progress(**json.loads(file.read_bytes())), file.stat().st_mtime
    except (OSError, ValueError, TypeError):  # none there, or of another version
        return None


def unfinished_training(run: RunDirectory, views: str | None) -> tuple[Progress, float] | None:
    """As ``read_progress``, of a training that has not ended, on views that are still there.

    Args:
        run: In which it trains.
        views: The id of the manifest of ``augment``; None where there is none.
    """
    found = read_progress(run.path(f"checkpoints/{_FILE}").parent)
    return found if found and not found[0].finished and found[0].views == views else None


def clear_progress(checkpoints: Path) -> None:
    """Forget it, as the checkpoints are removed."""
    for name in (_FILE, _SETTINGS):
        (checkpoints / name).unlink(missing_ok=True)
