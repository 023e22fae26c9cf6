"""How far a training has come, said beside its checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from galaxyspark.command_line import parse
from galaxyspark.network.checkpoints import Checkpoints
from galaxyspark.network.progress import Progress, clear_progress, read_progress, write_progress
from galaxyspark.settings import TrainJob


def test_a_real_training_says_what_its_checkpoint_holds(finished_run: Path) -> None:
    found = read_progress(finished_run / "checkpoints")
    content = Checkpoints(finished_run / "checkpoints", keep=2).newest()
    assert found is not None
    assert content is not None
    progress, written_at = found
    assert (progress.step, progress.finished) == (content["step"], True)
    assert progress.views == content["identity"]["views"]
    published = parse(TrainJob, ["--config", str(finished_run / "settings" / "train.yaml")])
    going_on = parse(TrainJob, ["--config", str(finished_run / "checkpoints" / "settings.yaml")])
    assert going_on == replace(published, ranks=2, launcher="horovodrun")
    assert published.train.resume
    assert progress.history == [json.loads(line) for line in (finished_run / "history.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in progress.history]
    assert progress.where == f"epoch 2 of 2, step {steps[-1]} of {steps[-1]}"
    [newest] = list((finished_run / "checkpoints").glob(f"step-{progress.step:08d}.pt"))
    assert written_at == pytest.approx(newest.stat().st_mtime, abs=5)


@pytest.mark.parametrize(("step", "epoch"), [(1, 1), (99, 1), (100, 1), (101, 2), (2_999, 30), (3_000, 30)])
def test_the_epoch_is_the_one_of_the_last_step(step: int, epoch: int, tmp_path: Path) -> None:
    progress = Progress("id", finished=False, step=step, steps_per_epoch=100, total_steps=3_000, history=[])
    write_progress(tmp_path, progress, TrainJob(run=tmp_path))
    found = read_progress(tmp_path)
    assert found is not None
    assert found[0].where == f"epoch {epoch} of 30, step {step:,} of 3,000"
    assert replace(found[0], total_steps=None).where == f"epoch {epoch}, step {step:,}"


@pytest.mark.parametrize("content", ["", "not JSON", "[]", '{"step": 3}'])
def test_what_cannot_be_read_says_nothing(content: str, tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    write_progress(tmp_path, Progress("id", False, 1, 100, 3_000, []), TrainJob(run=tmp_path))
    (tmp_path / "progress.json").write_text(content)
    assert read_progress(tmp_path) is None
    clear_progress(tmp_path)
    assert list(tmp_path.iterdir()) == []
