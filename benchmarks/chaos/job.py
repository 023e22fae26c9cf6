"""A stage on a cluster, started as its user starts it: watched while it runs, and looked into afterwards.

While it runs Spark's REST interface tells how far it is; afterwards Spark's event log tells, to the millisecond, what
became of every attempt at a task.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.chaos.input import SUBMIT
from benchmarks.processes import free_port

_FEWEST_TASKS = 8
_WITHIN_S = 600
_BAR = re.compile(r"^[\w ]+: *\d+(%\||task )")


@dataclass(frozen=True)
class Attempt:
    """An attempt at a task.

    Attributes:
        task: Spark's stage and the task's index in it.
        executor: Id of the executor.
        launched: In seconds since 1970; so is ``ended``, which is None where the event log does not say.
        outcome: ``Success`` or Spark's name of the failure; empty where the event log does not say.
    """

    task: tuple[int, int]
    executor: str
    launched: float
    ended: float | None = None
    outcome: str = ""


@dataclass(frozen=True)
class WatchedJob:
    """A running ``./submit.sh STAGE``.

    Attributes:
        stage: Its name.
        process: What was started.
        started: In seconds since 1970.
        terminal: File with all that a user would have seen.
        events: Directory of Spark's event log.
        web_port: Where the driver answers.
    """

    stage: str
    process: psutil.Popen
    started: float
    terminal: Path
    events: Path
    web_port: int

    def wait_until_in_the_middle(self) -> tuple[int, int]:
        """Wait until a fifth of the stage's tasks are done and others are running: how many are done, of how many.

        Raises:
            RuntimeError: The job has ended before, or less than a third was left when it was looked at.
        """
        for found in self._looks():
            done, tasks = found["numCompleteTasks"], found["numTasks"]
            if done >= tasks / 5 and found["numActiveTasks"]:
                if tasks - done < tasks / 3:
                    raise RuntimeError(f"{done} of {tasks} tasks were done already: the work is too little")
                return done, tasks
        raise RuntimeError(f"the job ended before it could be disturbed:\n{self.shown()}")

    def driver(self) -> psutil.Process:
        """The JVM of Spark's driver.

        Raises:
            RuntimeError: It has ended.
        """
        found = [process for process in self.process.children(recursive=True) if process.name() == "java"]
        if not found:
            raise RuntimeError("the driver has ended")
        return found[0]

    def wait(self) -> int:
        """Wait for its end: the exit status.

        Raises:
            RuntimeError: It goes on for too long.
        """
        try:
            status: int = self.process.wait(_WITHIN_S)
            return status
        except psutil.TimeoutExpired:
            raise RuntimeError(f"still running {_WITHIN_S} s later:\n{self.shown()}") from None

    def shown(self) -> str:
        """What its user has seen."""
        return "\n".join(self.shown_lines())

    def shown_lines(self) -> list[str]:
        """The lines that its user has seen, without bars."""
        text = self.terminal.read_text(errors="replace")
        return [line for line in re.split(r"[\r\n]+", text) if line.strip() and not _BAR.match(line)]

    def attempts(self) -> list[Attempt]:
        """All attempts at tasks, from the event log of a job that has ended."""
        found: dict[int, Attempt] = {}
        for event in self._events("SparkListenerTaskStart", "SparkListenerTaskEnd"):
            info = event["Task Info"]
            ended, outcome = info["Finish Time"] / 1000 or None, event.get("Task End Reason", {}).get("Reason", "")
            task = (event["Stage ID"], info["Index"])
            found[info["Task ID"]] = Attempt(task, info["Executor ID"], info["Launch Time"] / 1000, ended, outcome)
        return list(found.values())

    def kill(self) -> None:
        """End all of its processes on the driver's side."""
        with suppress(psutil.NoSuchProcess):
            for process in [*self.process.children(recursive=True), self.process]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.wait()

    def _looks(self) -> Iterator[dict[str, Any]]:
        """What Spark says of the stage's own work, which writes what it makes, again and again while the job runs."""
        deadline = time.monotonic() + _WITHIN_S
        while self.process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError, ValueError, IndexError):
                application = self._answer("applications")[0]["id"]
                for found in self._answer(f"applications/{application}/stages?status=active"):
                    listing = found.get("description") != self.stage or not found["outputBytes"]
                    if not listing and found["numTasks"] >= _FEWEST_TASKS:
                        yield found
            time.sleep(0.1)

    def _answer(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}/api/v1/{path}", timeout=5) as answer:
            return json.load(answer)

    def _events(self, *kinds: str) -> Iterator[dict[str, Any]]:
        for file in self.events.iterdir():
            for line in file.read_text().splitlines():
                event = json.loads(line)
                if event["Event"] in kinds:
                    yield event


@contextmanager
def watched_job(stage: str, flags: Sequence[str], profile: str, work: Path) -> Iterator[WatchedJob]:
    """Start a stage and leave nothing of it running on the driver's side.

    Args:
        stage: Its name; its progress bar, and so Spark's jobs, are called the same.
        flags: Of its command.
        profile: The text of a Spark properties file.
        work: An empty directory for logs.
    """
    events, file, terminal = work / "events", work / "profile.conf", work / "terminal.txt"
    events.mkdir()
    web_port = free_port()
    file.touch(mode=0o600)  # it has the cluster's secret
    file.write_text(
        f"{profile}\nspark.ui.enabled true\nspark.ui.port {web_port}\nspark.eventLog.enabled true\n"
        f"spark.eventLog.dir {events.as_uri()}\nspark.eventLog.compress false\nspark.eventLog.rolling.enabled false\n"
    )
    with open(terminal, "wb") as output:
        process = psutil.Popen(
            [SUBMIT, stage, "--profile", file, *flags],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    job = WatchedJob(stage, process, time.time(), terminal, events, web_port)
    try:
        yield job
    finally:
        job.kill()


def failures(attempts: Sequence[Attempt]) -> dict[str, int]:
    """How many attempts failed, by Spark's name of the failure."""
    return dict(Counter(attempt.outcome for attempt in attempts if attempt.outcome not in ("", "Success")))


def hit_by(attempts: Sequence[Attempt], executor: str, moment: float) -> set[tuple[int, int]]:
    """The tasks that were running on an executor at a moment (seconds since 1970)."""
    return {
        attempt.task
        for attempt in attempts
        if attempt.executor == executor and attempt.launched <= moment < (attempt.ended or float("inf"))
    }


def seconds_until_done(attempts: Sequence[Attempt], tasks: set[tuple[int, int]] | None, moment: float) -> list[float]:
    """Seconds from a moment until each of some tasks (None: any) was first done, where it was; in rising order."""
    first: dict[tuple[int, int], float] = {}
    for attempt in attempts:
        wanted = tasks is None or attempt.task in tasks
        if wanted and attempt.outcome == "Success" and attempt.ended and attempt.ended > moment:
            seconds = attempt.ended - moment
            first[attempt.task] = min(seconds, first.get(attempt.task, seconds))
    return sorted(first.values())
