"""Carries out the scenarios, one job each, and writes down what became of them."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil
import pyarrow as pa
import tyro

from benchmarks import training_hosts
from benchmarks.chaos.cluster import Cluster, cluster_here, cluster_on_hosts
from benchmarks.chaos.disturbances import DISTURBANCES, Scene, executor_id, executors_of, wait_until_gone
from benchmarks.chaos.input import Input, prepared
from benchmarks.chaos.job import WatchedJob, failures, hit_by, seconds_until_done, watched_job
from benchmarks.chaos.rows import published_rows
from benchmarks.chaos.table import Again, Row, as_markdown, as_text
from benchmarks.harness import RESULTS, machine
from benchmarks.pages import write_table
from galaxyspark.errors import UserError
from galaxyspark.run_directory import RunDirectory, versions
from galaxyspark.storage import write_atomically

_DOCS = Path(__file__).parents[2] / "docs" / "chaos.md"
_GONE_WITHIN_S = 120

Stage = Literal["augment", "extract", "predict"]
Scenario = Literal["executor-killed", "worker-killed", "executor-paused", "disk-full", "network-cut", "driver-killed"]


@dataclass(frozen=True, kw_only=True)
class ChaosBenchmark:
    """Augment, extract and predict on a standalone cluster of two workers, each disturbed in several ways."""

    stages: tuple[Stage, ...] = ("augment", "extract", "predict")
    """Stages to disturb."""
    scenarios: tuple[Scenario, ...] = tuple(DISTURBANCES)  # type: ignore[arg-type]
    """What is to happen to each."""
    num_galaxies: int = 3_000
    """Galaxies, every eighth of them simulated and the others copies of it; enough for 20 s of each stage."""
    work: Path | None = None
    """Where the galaxies and their run go, and stay for the next time. None: a temporary directory."""
    out: Path | None = None
    """Where to write the results. None: with all stages and scenarios benchmarks/results/chaos.json, and the table into
    docs/chaos.md, and after it those of ``bench training_hosts``; else nowhere."""

    @property
    def is_whole(self) -> bool:
        """Whether every stage is to be disturbed in every way."""
        return len(set(self.stages)) == 3 and set(self.scenarios) == set(DISTURBANCES)


@dataclass(frozen=True)
class Undisturbed:
    """What a stage does when it is left alone.

    Attributes:
        seconds: From the command to its end.
        lines: What its user sees.
        rows: What it publishes.
    """

    seconds: float
    lines: list[str]
    rows: pa.Table


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them."""
    settings = tyro.cli(ChaosBenchmark, args=arguments, prog="bench chaos")
    with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as temporary:
        given = prepared((settings.work or Path(temporary)).absolute() / "chaos-input", settings.num_galaxies)
        rows: list[Row] = []
        for stage in settings.stages:
            for row in disturbed(stage, settings.scenarios, given):
                rows.append(row)
                _write(settings, rows)
    print(as_text(rows))
    if settings.is_whole and not settings.out:
        training_hosts.main([])


def _write(settings: ChaosBenchmark, rows: Sequence[Row]) -> None:
    """Write what there is so far: a later row may fail in a way that nobody has thought of."""
    out = settings.out or (RESULTS / "chaos.json" if settings.is_whole else None)
    if out:
        results = {"num_galaxies": settings.num_galaxies, "rows": [asdict(row) for row in rows]}
        results |= {"machine": machine(), "versions": versions()}
        write_atomically(out, json.dumps(results, indent=2) + "\n")
    if settings.is_whole and not settings.out:
        write_table(_DOCS, "chaos", as_markdown(rows))


def disturbed(stage: str, scenarios: Sequence[str], given: Input) -> Iterator[Row]:
    """A row for each scenario of a stage; one that cannot be carried out says why.

    Raises:
        RuntimeError: The stage fails undisturbed.
    """
    left: dict[bool, Undisturbed] = {}  # by whether workers have hosts of their own
    for scenario in sorted(scenarios, key=list(DISTURBANCES).index):
        on_hosts = DISTURBANCES[scenario].on_hosts
        if on_hosts not in left and not (on_hosts and os.geteuid() != 0):
            left[on_hosts] = left_alone(stage, given, on_hosts)
            _say(f"{stage}, undisturbed: {left[on_hosts].seconds:.0f} s")
        row = measured(stage, scenario, given, left.get(on_hosts))
        _say(f"{stage}, {scenario}: {row.not_measured or f'{row.seconds:.0f} s'}")
        yield row


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def left_alone(stage: str, given: Input, on_hosts: bool = False) -> Undisturbed:
    """Run a stage on a cluster to which nothing happens, with its workers here or on hosts of their own.

    Raises:
        RuntimeError: It fails.
    """
    with _on_cluster(given, on_hosts) as (cluster, run), _job(stage, given, cluster, run) as job:
        status, seconds = job.wait(), time.time() - job.started
        if status:
            raise RuntimeError(f"{stage} fails undisturbed:\n{job.shown()}")
        return Undisturbed(seconds, job.shown_lines(), published_rows(run, stage))


def measured(stage: str, scenario: str, given: Input, undisturbed: Undisturbed | None) -> Row:
    """Carry out one scenario and compare it with the undisturbed stage, None where this user cannot arrange that."""
    disturbance = DISTURBANCES[scenario]
    row = Row(stage, scenario)
    if undisturbed is None or (disturbance.needs_root and os.geteuid() != 0):
        return replace(row, not_measured="needs root")
    measure = _driver_killed if scenario == "driver-killed" else _worker_struck
    try:
        with _on_cluster(given, disturbance.on_hosts) as (cluster, run):
            return measure(row, given, cluster, run, undisturbed)
    except (RuntimeError, UserError, OSError, psutil.Error) as error:
        return replace(row, not_measured=str(error))


@contextmanager
def _on_cluster(given: Input, on_hosts: bool = False) -> Iterator[tuple[Cluster, Path]]:
    """A cluster of its own, and a run of its own."""
    kind = cluster_on_hosts if on_hosts else cluster_here
    with given.copy_of_run() as run, kind(run.with_name("cluster")) as cluster:
        yield cluster, run


@contextmanager
def _job(stage: str, given: Input, cluster: Cluster, run: Path) -> Iterator[WatchedJob]:
    logs = Path(tempfile.mkdtemp(prefix="job-", dir=run.parent))
    with watched_job(stage, ["--run", str(run), *given.flags(stage)], cluster.profile, logs) as job:
        yield job


def _worker_struck(row: Row, given: Input, cluster: Cluster, run: Path, undisturbed: Undisturbed) -> Row:
    before = RunDirectory(run).published()
    with _job(row.stage, given, cluster, run) as job, ExitStack() as undo:
        scene = Scene(job, cluster.workers[1], cluster.scratch, cluster.cut_off)
        done, tasks = job.wait_until_in_the_middle()
        executor = executor_id(scene.executor())
        struck = time.time()
        DISTURBANCES[row.scenario].strike(scene, undo)
        status = job.wait()
        seconds = time.time() - job.started
    attempts = job.attempts()
    hit = hit_by(attempts, executor, struck)
    if not hit:
        raise RuntimeError(f"no task ran on executor {executor} when it was struck")
    return replace(
        row,
        tasks=tasks,
        tasks_done=done,
        tasks_hit=len(hit),
        exit_status=status,
        shown=_shown_beside(undisturbed.lines, job),
        next_task_s=_rounded(seconds_until_done(attempts, None, struck)[:1]),
        lost_tasks_s=_rounded(seconds_until_done(attempts, hit, struck)[-1:]),
        failed_attempts=failures(attempts),
        seconds=round(seconds, 1),
        times_as_long=round(seconds / undisturbed.seconds, 2),
        same_data=_same_data(run, row.stage, before, undisturbed),
    )


def _driver_killed(row: Row, given: Input, cluster: Cluster, run: Path, undisturbed: Undisturbed) -> Row:
    directory = RunDirectory(run)
    before = directory.published()
    with _job(row.stage, given, cluster, run) as job, ExitStack() as undo:
        done, tasks = job.wait_until_in_the_middle()
        executors = [executor for worker in cluster.workers for executor in executors_of(worker)]
        DISTURBANCES[row.scenario].strike(Scene(job, cluster.workers[1], cluster.scratch, cluster.cut_off), undo)
        gone_s = wait_until_gone(executors, _GONE_WITHIN_S)
        status = job.wait()
    untouched = directory.published() == before
    left_behind = _left_behind(directory, row.stage)
    with _job(row.stage, given, cluster, run) as second:
        status_again = second.wait()
        seconds = time.time() - second.started
    return replace(
        row,
        tasks=tasks,
        tasks_done=done,
        exit_status=status,
        shown=_shown_beside(undisturbed.lines, job),
        seconds=round(seconds, 1),
        times_as_long=round(seconds / undisturbed.seconds, 2),
        same_data=_same_data(run, row.stage, before, undisturbed),
        again=Again(untouched, left_behind, round(gone_s, 1), status_again, _left_behind(directory, row.stage)),
    )


def _left_behind(run: RunDirectory, stage: str) -> list[str]:
    """What lies in the run unpublished, without the random end of its name."""
    return sorted(Path(path).name.rpartition("-")[0] for path in run.leftovers(stage))


def _same_data(run: Path, stage: str, before: Mapping[str, Any], undisturbed: Undisturbed) -> bool:
    """Whether the stage has published anew, and the same rows."""
    now = RunDirectory(run).published()
    return now.get(stage) not in (None, before.get(stage)) and published_rows(run, stage).equals(undisturbed.rows)


def _shown_beside(usual: list[str], job: WatchedJob) -> list[str]:
    """What a user saw that is not shown otherwise too, with other numbers."""
    known = {_without_numbers(line) for line in usual}
    return [line for line in job.shown_lines() if _without_numbers(line) not in known]


def _without_numbers(line: str) -> str:
    return re.sub(r"run-\w+|\d[\d.,]*", "#", line)


def _rounded(seconds: list[float]) -> float | None:
    return round(seconds[0], 1) if seconds else None
