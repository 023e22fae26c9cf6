"""Carries out the runs, each a job as its user starts it, and writes down what became of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import tyro

from benchmarks.extract import random_network
from benchmarks.growth.cpu_share import CpuShare, cpu_share
from benchmarks.growth.events import EventLog
from benchmarks.growth.table import aligned, memory_rows, phase_rows, rate_rows, task_rows
from benchmarks.harness import RESULTS, machine
from benchmarks.processes import free_port, memory_mb, peaks_until_the_end
from benchmarks.scale import galaxies_to_measure, require_empty, some_of
from galaxyspark.cluster import Daemon, start, stop
from galaxyspark.errors import UserError
from galaxyspark.network.model import save_model
from galaxyspark.run_directory import RunDirectory, versions
from galaxyspark.settings import ClusterJob, TrainJob
from galaxyspark.storage import write_atomically

_SUBMIT = Path(__file__).parents[2] / "submit.sh"
_FOR_EXECUTORS = 0.8
_LEAST_GALAXIES = 100
_FULL_GC_EVERY_S = 10
_AFTER_FULL_COLLECTION = re.compile(r"Pause Full \(System\.gc\(\)\) \d+M->(\d+)M")


@dataclass(frozen=True, kw_only=True)
class GrowthBenchmark:
    """Augment and extract on more and more executors with a share of a core each, and on more and more galaxies."""

    num_galaxies: int = 8_000
    """Galaxies to simulate, unless --images and --labels are given; the largest of --scales is all of them."""
    images: Path | None = None
    """Folder of images, none of them in subfolders."""
    labels: Path | None = None
    """CSV of their labels."""
    executors: tuple[int, ...] = (1, 2, 4)
    """Numbers of executors to try, each on --for-executors times the galaxies."""
    scales: tuple[int, ...] = (1, 4, 16)
    """Numbers of galaxies to try, in relation to the least, each on --for-scales executors."""
    for_executors: int = 4
    """How many galaxies the --executors are tried on, of those in --scales' unit."""
    for_scales: int = 2
    """How many executors the --scales are tried on."""
    core_share: float | None = None
    """What each executor gets of a core. None: as much that all of them take 0.8 of the machine."""
    view_size_px: int = 112
    """Side of a view in pixels."""
    work: Path | None = None
    """Where the images go, and stay; empty: a temporary directory, deleted at the end."""
    out: Path = RESULTS / "growth.json"
    """Where to write the results."""

    def __post_init__(self) -> None:
        """Refuse settings with which nothing can be measured."""
        for flag, numbers in (("--executors", self.executors), ("--scales", self.scales)):
            if min(numbers, default=1) < 1:
                raise UserError(f"{flag} {numbers}: numbers from 1.")
        if not self.configurations():
            raise UserError("--executors and --scales: without either there is nothing to run.")
        least = self.num_galaxies // self.largest
        if least < _LEAST_GALAXIES:
            raise UserError(
                f"--num-galaxies {self.num_galaxies}: {least} for the least of --scales; at least {_LEAST_GALAXIES}, "
                "so that each split has some."
            )
        if any(self.largest % scale for _, scale in self.configurations()):
            raise UserError(f"--scales {self.scales}: the largest must be a multiple of each, and of --for-executors.")

    @property
    def largest(self) -> int:
        """The largest scale."""
        return max((scale for _, scale in self.configurations()), default=1)

    def configurations(self) -> list[tuple[int, int]]:
        """Executors and scale of every run, none twice."""
        runs = [(executors, self.for_executors) for executors in self.executors]
        runs += [(self.for_scales, scale) for scale in self.scales]
        return sorted(set(runs), key=lambda run: (run[1], run[0]))

    def share(self, cores: int) -> float:
        """What each executor gets of a core on a machine of so many.

        Raises:
            UserError: --core-share leaves nothing for the driver.
        """
        most = max(executors for executors, _ in self.configurations())
        share = self.core_share or min(1.0, _FOR_EXECUTORS * cores / most)
        if share * most >= cores:
            raise UserError(
                f"--core-share {share:g}: {most} executors would take all {cores} cores, and leave none to the driver."
            )
        return share


@dataclass(frozen=True)
class LimitedCluster:
    """A standalone cluster whose workers have a share of a core each.

    Attributes:
        directory: With its pids, logs and its profile.
        shares: Of the workers.
    """

    directory: Path
    shares: list[CpuShare]

    def used_s(self) -> float:
        """Seconds of processor time of all workers, executors and Python workers so far."""
        return sum(share.used_s() for share in self.shares)

    def profile(self, executors: int, events: Path) -> Path:
        """The cluster's profile for a job on so many executors, which logs its events and the driver's collections."""
        own = {
            "spark.cores.max": executors,
            # A second attempt at a task would be counted as work.
            "spark.speculation": "false",
            "spark.eventLog.enabled": "true",
            "spark.eventLog.compress": "false",
            "spark.eventLog.rolling.enabled": "false",
            "spark.eventLog.dir": events.as_uri(),
            "spark.driver.extraJavaOptions": "-XX:+UseParallelGC -Xlog:gc:file=gc.log",
            # What is left after a full collection is what the driver holds.
            "spark.cleaner.periodicGC.interval": f"{_FULL_GC_EVERY_S}s",
        }
        text = (self.directory / "standalone.conf").read_text()
        file = self.directory / "growth.conf"
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(text + "".join(f"{name} {value}\n" for name, value in own.items()))
        return file


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them."""
    settings = tyro.cli(GrowthBenchmark, args=arguments, prog="bench growth")
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as temporary:
        work = require_empty(settings.work or Path(temporary))
        with limited_cluster(settings, work) as cluster:
            images, labels = galaxies_to_measure(settings.images, settings.labels, settings.num_galaxies, work)
            scales = sorted({scale for _, scale in settings.configurations()})
            galaxies = {n: some_of(images, labels, work / f"x{n}", settings.largest // n) for n in scales}
            for executors, scale in settings.configurations():
                runs += measure(cluster, executors, galaxies[scale], work / "run", settings.view_size_px)
                _write(settings, runs)  # what is measured is kept, whatever comes
    for rows in (rate_rows, phase_rows, task_rows, memory_rows):
        print(f"\n{aligned(rows(runs))}")
    print(f"\nWritten to {settings.out}.")


def _write(settings: GrowthBenchmark, runs: list[dict[str, Any]]) -> None:
    results = {
        "core_share": settings.share(len(os.sched_getaffinity(0))),
        "view_size_px": settings.view_size_px,
        "runs": runs,
        "machine": machine(),
        "versions": versions(),
    }
    write_atomically(settings.out, json.dumps(results, indent=2) + "\n")


@contextmanager
def limited_cluster(settings: GrowthBenchmark, work: Path) -> Iterator[LimitedCluster]:
    """A cluster with as many workers as are needed at most, stopped at the end."""
    most = max(executors for executors, _ in settings.configurations())
    job = ClusterJob(
        action="start", directory=work / "cluster", port=free_port(), web_port=free_port(), workers=most, cores=1
    )
    with ExitStack() as stack:
        share_of_core = settings.share(len(os.sched_getaffinity(0)))
        names = [f"galaxyspark-{os.getpid()}-{number}" for number in range(most)]
        shares = [stack.enter_context(cpu_share(name, share_of_core)) for name in names]
        stack.callback(stop, job)
        start(job)
        for number, share in enumerate(shares, start=1):
            worker = Daemon(f"worker-{number}", job.directory).process()
            if worker is None:
                raise UserError(f"worker-{number} has ended; see {job.directory}.", 1)
            share.take(worker.pid)
        yield LimitedCluster(job.directory, shares)


def measure(
    cluster: LimitedCluster, executors: int, galaxies: tuple[Path, Path], run: Path, view_size_px: int
) -> list[dict[str, Any]]:
    """Augment some galaxies (images, labels) and extract their features by a network as it is before training."""
    images, labels = galaxies
    flags = ["--images", images, "--labels", labels, "--view-size-px", view_size_px]
    augmented = measure_stage("augment", flags, cluster, executors, run)
    publish_network(run)
    extracted = measure_stage("extract", [], cluster, executors, run)
    manifest = RunDirectory(run).manifest("augment")
    of_all = {
        "galaxies": manifest["counts"]["galaxies"],
        "image_bytes": sum(image.stat().st_size for image in images.iterdir()),
        "view_bytes": sum(split["bytes"] for split in manifest["files"].values()),
        "row_groups": sum(split["row_groups"] for split in manifest["files"].values()),
    }
    shutil.rmtree(run)
    return [{"executors": executors} | of_all | measured for measured in (augmented, extracted)]


def publish_network(run: Path) -> None:
    """Give a run a network that nobody has trained: what it says is worthless, but takes as long."""
    directory = RunDirectory(run)
    data = directory.manifest("augment")
    with directory.stage("train", TrainJob(run=run), {"augment": data["id"]}) as staging:
        card, state = random_network(data["recipe"])
        save_model(staging.path("model"), state, card)


def measure_stage(
    stage: str, flags: Sequence[Any], cluster: LimitedCluster, executors: int, run: Path
) -> dict[str, Any]:
    """Run a stage as a user does; what it took.

    Returns:
        ``stage``, ``views``; seconds of ``wall_s``, of the ``phases``, of ``idle_s`` (no task ran), ``executors_up_s``
        and ``work_task_s`` (see ``EventLog``) and of ``executor_cpu_s`` (processor time of all executors and their
        Python workers); sums over all ``tasks``; what those of one Spark job sent to the driver, at
        most (``largest_result_bytes``); the largest memory of processes in MB (``peaks_mb``), and what was in use of
        the driver's heap after a full collection, at most (``driver_heap_mb``).
    """
    events = cluster.directory / "events"
    shutil.rmtree(events, ignore_errors=True)
    events.mkdir()
    profile = cluster.profile(executors, events)
    command = [str(word) for word in (_SUBMIT, stage, "--profile", profile, "--run", run, *flags)]
    used_before_s, begin_s = cluster.used_s(), time.time()
    print(f"{stage} on {executors} executors", file=sys.stderr)
    job = subprocess.Popen(command, cwd=events)  # the driver writes gc.log there
    peaks_mb = peaks_until_the_end(job, lambda: memory_mb(psutil.Process()))
    end_s = time.time()
    if job.returncode:
        raise RuntimeError(f"{stage} on {executors} executors ended with status {job.returncode}.")
    log = EventLog.read(next(events.glob("app-*")))
    counted = RunDirectory(run).manifest(stage)["counts"]["views"]
    return {
        "stage": stage,
        "views": counted if stage == "extract" else sum(counted.values()),
        "wall_s": end_s - begin_s,
        "phases": log.phases(begin_s, end_s),
        "idle_s": log.idle_s(),
        "executors_up_s": log.executors_up_s(),
        "work_task_s": log.work_task_s(),
        "executor_cpu_s": cluster.used_s() - used_before_s,
        "tasks": log.totals(),
        "largest_result_bytes": log.largest_result_bytes(),
        "peaks_mb": peaks_mb,
        "driver_heap_mb": max(map(int, _AFTER_FULL_COLLECTION.findall((events / "gc.log").read_text())), default=None),
    }
