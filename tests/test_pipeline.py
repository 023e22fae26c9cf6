"""Which paths the stages of a pipeline read, and how it ends."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, STDOUT

import psutil
import pytest

from galaxyspark.errors import UserError
from galaxyspark.pipeline import SUBMIT, with_paths
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import PipelineJob, SimulateSettings


def paths(job: PipelineJob) -> tuple[str, str, str]:
    filled = with_paths(job, RunDirectory(job.run))
    return filled.images, filled.labels, filled.new_images


def test_without_images_they_are_the_simulated_ones(tmp_path: Path) -> None:
    job = PipelineJob(run=tmp_path)
    simulated = f"{tmp_path}/simulated"
    assert paths(job) == (f"{simulated}/images", f"{simulated}/labels.csv", f"{simulated}/unlabelled")
    none_unlabelled = dataclasses.replace(job, simulate=SimulateSettings(num_unlabelled=0))
    assert paths(none_unlabelled) == (f"{simulated}/images", f"{simulated}/labels.csv", f"{simulated}/images")


def test_ones_own_images_are_the_catalogues_too_unless_others_are_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = PipelineJob(run=tmp_path / "run", images="cutouts", labels="hdfs://host/labels.csv")
    assert paths(job) == (f"{tmp_path}/cutouts", "hdfs://host/labels.csv", f"{tmp_path}/cutouts")
    named = dataclasses.replace(job, new_images="s3a://bucket/new")
    assert paths(named)[2] == "s3a://bucket/new"


def test_going_on_from_training_takes_the_images_that_were_augmented(tmp_path: Path) -> None:
    job = PipelineJob(run=tmp_path, start_at="train")
    with pytest.raises(UserError, match="stage 'augment' has not been published"):
        paths(job)
    with RunDirectory(tmp_path).stage("augment", job, {"images": "/sky/images", "labels": "/sky/votes.csv"}):
        pass
    assert paths(job) == ("/sky/images", "/sky/votes.csv", "/sky/images")


def test_new_images_that_are_not_there_are_found_out_at_once(tmp_path: Path) -> None:
    job = PipelineJob(run=tmp_path, images="a", labels="b", new_images=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"--new-images .*nowhere: no such folder"):
        paths(job)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "number", "status"),
    [(os.kill, signal.SIGTERM, 143), (os.killpg, signal.SIGINT, 130)],
    ids=["a scheduler", "Ctrl-C, which a terminal sends to all processes in the foreground"],
)
def test_who_ends_the_pipeline_ends_its_stage_too(
    send: Callable[[int, int], None], number: int, status: int, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [SUBMIT, "pipeline", "--run", run, "--num-galaxies", 5000, "--weights", "none"]
    environment = os.environ | {"GALAXYSPARK_READY": "1"}
    pipeline = subprocess.Popen(
        list(map(str, command)), env=environment, stdout=PIPE, stderr=STDOUT, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not any(run.glob(".staging-simulate-*")):
        assert time.monotonic() < deadline and pipeline.poll() is None
        time.sleep(0.1)
    send(pipeline.pid, number)
    shown = pipeline.communicate(timeout=60)[0]
    assert pipeline.returncode == status
    assert f"stage 'simulate' ended with status {status}" in shown
    assert number == signal.SIGINT or "Traceback" not in shown  # at Ctrl-C py4j logs one of its own
    settings = run / "settings" / "pipeline.yaml"
    assert f"./submit.sh pipeline --start-at simulate --config {settings} --run {run}" in shown
    while processes_with(str(run)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def processes_with(argument: str) -> set[int]:
    return {
        found.pid for found in psutil.process_iter(["cmdline"]) if argument in " ".join(found.info["cmdline"] or ())
    }
