"""Every stage in order, each as the process it would be alone, and a short table at the end."""

from __future__ import annotations

import dataclasses
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

from galaxyspark.command_line import to_yaml
from galaxyspark.errors import UserError
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import STAGES, PipelineJob
from galaxyspark.storage import write_atomically
from galaxyspark.summary import summary

SUBMIT = Path(__file__).parent.parent / "submit.sh"
_SETTINGS = "settings/pipeline.yaml"
_ON_SPARK = ("simulate", "augment", "extract", "predict")


def run_pipeline(job: PipelineJob) -> None:
    """Run the stages from ``start_at`` on.

    Raises:
        UserError: The settings contradict each other, the weights cannot be had, or a stage ended with an error.
    """
    if bool(job.images) != bool(job.labels):
        raise UserError("--images and --labels go together; without both, galaxies are simulated.")
    if job.start_at == "simulate" and job.images:
        job = dataclasses.replace(job, start_at="augment")
    stages = STAGES[STAGES.index(job.start_at) :]
    run = RunDirectory(job.run)
    settings = with_paths(job, run)
    if "train" in stages:
        _check_weights(job.train.network, job.train.weights)
    _save_settings(settings, run)
    start = time.perf_counter()
    for number, stage in enumerate(stages, 1):
        print(f"\n[{number}/{len(stages)}] {stage}", flush=True)
        started = {"train": ["-np", str(job.ranks)], **dict.fromkeys(_ON_SPARK, ["--profile", job.profile])}
        status = _run([str(SUBMIT), stage, *started.get(stage, []), "--config", str(run.path(_SETTINGS))])
        if status:
            file, place = (shlex.quote(str(path)) for path in (run.place(_SETTINGS), run.root))
            raise UserError(
                f"stage '{stage}' ended with status {status}; what was before it stays published. To go on from here: "
                f"./submit.sh pipeline --start-at {stage} --config {file} --run {place}",
                status,
            )
        if stage == "simulate":  # behind a URL, what it has published lies where nobody could know before
            _save_settings(with_paths(job, run), run)
    total_s = time.perf_counter() - start
    working_s = sum(run.manifest(stage)["duration_s"] for stage in stages)
    print("\n" + "\n".join(summary(run)))
    print(f"All in {total_s / 60:.1f} minutes, {total_s - working_s:.0f} s of them to start Spark, torch and the rest.")


def _save_settings(job: PipelineJob, run: RunDirectory) -> None:
    write_atomically(run.path(_SETTINGS), to_yaml(job))
    run.keep(_SETTINGS)


def _check_weights(network: str, weights: str) -> None:
    """Find out before the long work whether training will be able to start."""
    if weights != "none":
        from galaxyspark.network.networks import build_network  # torch takes seconds to load

        build_network(network, num_outputs=2, weights=weights)


def _run(command: list[str]) -> int:
    """Run a stage to its end, also when Ctrl-C reaches both of us; a request to end is passed on to it."""
    asked_to_end = False

    def pass_on(*_: object) -> None:
        nonlocal asked_to_end
        asked_to_end = True
        process.terminate()

    process = subprocess.Popen(command)
    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.wait()
        return 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGTERM, before)
    if asked_to_end:
        return 128 + signal.SIGTERM
    return status if status >= 0 else 128 - status  # as shells have it


def with_paths(job: PipelineJob, run: RunDirectory) -> PipelineJob:
    """The settings with every path filled in that the stages read: as given, as augmented before, or as simulated.

    Raises:
        UserError: ``new_images`` is a local folder that is not there.
    """
    simulated = run.place("simulated")
    images, labels, new_images = job.images, job.labels, job.new_images
    if not images and STAGES.index(job.start_at) > STAGES.index("augment"):
        images, labels = (run.manifest("augment")["inputs"][name] for name in ("images", "labels"))
    elif not images:
        images, labels = f"{simulated}/images", f"{simulated}/labels.csv"
    if new_images and not _is_url(new_images) and not Path(new_images).exists():
        raise UserError(f"--new-images {new_images}: no such folder.")
    if not new_images and images == f"{simulated}/images" and job.simulate.num_unlabelled:
        new_images = f"{simulated}/unlabelled"
    new_images = new_images or images
    return dataclasses.replace(
        job, images=_absolute(images), labels=_absolute(labels), new_images=_absolute(new_images)
    )


def _is_url(path: str) -> bool:
    return re.match(r"\w+:/", path) is not None


def _absolute(path: str) -> str:
    return path if _is_url(path) else str(Path(path).absolute())
