"""Every stage in order, each as the process it would be alone, and a short table at the end."""

from __future__ import annotations

import dataclasses
import subprocess
import time
from pathlib import Path

from galaxyspark.command_line import to_yaml
from galaxyspark.errors import UserError
from galaxyspark.run_directory import RunDirectory, write_atomically
from galaxyspark.settings import STAGES, PipelineJob
from galaxyspark.summary import summary

SUBMIT = Path(__file__).parent.parent / "submit.sh"


def run_pipeline(job: PipelineJob) -> None:
    """Run the stages from ``start_at`` on.

    Raises:
        UserError: The settings contradict each other, the weights cannot be had, or a stage ended with an error.
    """
    simulated = not job.images
    if bool(job.images) != bool(job.labels):
        raise UserError("--images and --labels go together; without both, galaxies are simulated.")
    if job.start_at == "simulate" and not simulated:
        job = dataclasses.replace(job, start_at="augment")
    stages = STAGES[STAGES.index(job.start_at) :]
    if "train" in stages:
        _check_weights(job.train.weights)
    run = RunDirectory(job.run)
    config_file = run.path("settings") / "pipeline.yaml"
    write_atomically(config_file, to_yaml(_with_paths(job, run)))
    start = time.perf_counter()
    for number, stage in enumerate(stages, 1):
        print(f"\n[{number}/{len(stages)}] {stage}", flush=True)
        ranks = ["-np", str(job.ranks)] if stage == "train" else []
        status = subprocess.run([str(SUBMIT), stage, *ranks, "--config", str(config_file)], check=False).returncode
        if status:
            raise UserError(f"stage '{stage}' ended with status {status}; what was before it stays published.", status)
    print("\n" + "\n".join(summary(run)))
    print(f"All in {(time.perf_counter() - start) / 60:.1f} minutes.")


def _check_weights(weights: str) -> None:
    """Find out before the long work whether training will be able to start."""
    if weights != "none":
        from galaxyspark.network.googlenet import build_network  # torch takes seconds to load

        build_network(num_classes=2, weights=weights)


def _with_paths(job: PipelineJob, run: RunDirectory) -> PipelineJob:
    """The settings with every path filled in that the stages read."""
    if not job.images:
        simulated = run.path("simulated")
        job = dataclasses.replace(job, images=str(simulated / "images"), labels=str(simulated / "labels.csv"))
        return dataclasses.replace(job, new_images=job.new_images or str(simulated / "unlabelled"))
    return dataclasses.replace(job, new_images=job.new_images or job.images)
