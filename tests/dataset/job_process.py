"""The job ``augment`` as processes of the operating system: started as a user does, watched, and disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil
import pyspark

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
SPARK_HOME = Path(pyspark.__file__).parent
VIEW_SIZE_PX = 64
SPLIT_FRACTIONS = (0.6, 0.2, 0.2)
_DEADLINE_S = 600
_MARK = "GALAXYSPARK_TEST_JOB"
# A task of these tests takes a worker ten times as long, and a worker without a task takes next to nothing.
_AT_WORK_CPU_S = 0.1

Found = TypeVar("Found")


def wait_for(condition: Callable[[], Found], what: str) -> Found:
    """Ask again and again until the answer is true, and return it."""
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {_DEADLINE_S} s in vain: {what}")


@dataclass
class JobProcess:
    """A running ``spark-submit jobs/augment.py``.

    Attributes:
        submitted: What was started; spark-submit turns into the driver's JVM, which starts all the others.
        run: The run that it publishes into.
        terminal: File with all that a user would have seen.
        events: Directory of Spark's event log.
        mark: In the environment of all its processes, so that those whose parents were killed are found too.
    """

    submitted: subprocess.Popen[bytes]
    run: Path
    terminal: Path
    events: Path
    mark: str
    _cpu_s_before: dict[int, float] = field(default_factory=dict)

    def shown(self) -> str:
        """What a user has seen so far."""
        return self.terminal.read_text()

    def wait(self) -> int:
        """Wait for the end of it: the exit status."""
        return self.submitted.wait(timeout=_DEADLINE_S)

    def processes(self) -> list[psutil.Process]:
        """All processes of the job that still run, whosever children they are by now, as they are at this moment."""
        found = psutil.process_iter(["environ", "cmdline", "ppid", "cpu_times"])
        return [process for process in found if (process.info["environ"] or {}).get(_MARK) == self.mark]

    def java(self) -> psutil.Process:
        """The JVM of Spark's driver."""
        return psutil.Process(self.submitted.pid)

    def driver(self) -> psutil.Process:
        """The Python process of Spark's driver, which runs jobs/augment.py."""
        return next(process for process in self._named("jobs/augment.py") if process.pid != self.submitted.pid)

    def executors(self) -> list[psutil.Process]:
        """The JVMs of executors; there are none in Spark's local mode, where the driver's has their part."""
        return self._named("CoarseGrainedExecutorBackend")

    def workers(self) -> list[psutil.Process]:
        """The Python workers: what the daemons of pyspark have forked."""
        daemons = self._named("pyspark.daemon")
        return [process for process in daemons if process.info["ppid"] in {daemon.pid for daemon in daemons}]

    def _named(self, part_of_command: str) -> list[psutil.Process]:
        return [process for process in self.processes() if part_of_command in " ".join(process.info["cmdline"] or ())]

    def wait_for_a_worker_at_work(self) -> psutil.Process:
        """A Python worker in the middle of the first task that it has of those that make and write views."""

        def at_work() -> psutil.Process | None:
            if self.submitted.poll() is not None:
                raise AssertionError(f"the job was over before any worker made views:\n{self.shown()}")
            # Spark makes this directory when the writing begins; before that the workers looked at colours.
            if not any("_temporary" in directories for _, directories, _ in os.walk(self.run)):
                return None
            for worker in self.workers():
                cpu_s = sum(worker.info["cpu_times"][:2])
                if cpu_s - self._cpu_s_before.setdefault(worker.pid, cpu_s) > _AT_WORK_CPU_S:
                    return worker
            return None

        return wait_for(at_work, "a Python worker that makes views")

    def wait_until_all_processes_are_gone(self) -> None:
        wait_for(lambda: not self.processes(), f"the end of {self.processes()}")

    def events_of(self, kind: str) -> list[dict]:
        """Spark's own record of what happened: events such as SparkListenerTaskEnd."""
        lines = [line for file in self.events.iterdir() for line in file.read_text().splitlines()]
        return [event for event in map(json.loads, lines) if event["Event"] == kind]

    def failed_tasks(self) -> Counter[str]:
        """How many attempts at a task failed, by Spark's reason."""
        reasons = Counter(event["Task End Reason"]["Reason"] for event in self.events_of("SparkListenerTaskEnd"))
        del reasons["Success"]
        return reasons


@contextmanager
def started_augment(
    run: Path,
    galaxies: Path,
    logs: Path,
    *,
    master: str = "local[2]",
    seed: int = 1,
    parallelism: int | None = None,
    spark_home: Path = SPARK_HOME,
) -> Iterator[JobProcess]:
    """Start the job as submit.sh does, and leave none of its processes behind.

    Args:
        run: ``--run``.
        galaxies: Holds ``images`` and ``labels.csv``.
        logs: Directory for the event log and for what would have been on the terminal.
        master: ``--master``.
        seed: ``--seed``.
        parallelism: How many cores Spark is to plan partitions for, where not those that it has.
        spark_home: Spark itself.
    """
    mark = uuid.uuid4().hex
    terminal, events = logs / f"terminal-{mark}.txt", logs / f"events-{mark}"
    events.mkdir()
    # A JVM that lives for seconds only is better off without its second compiler, which takes half of the time.
    java_options = "-XX:TieredStopAtLevel=1"
    spark_settings = {
        "spark.driver.extraJavaOptions": java_options,
        "spark.executor.extraJavaOptions": java_options,
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": events.as_uri(),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }
    if parallelism is not None:
        spark_settings["spark.default.parallelism"] = str(parallelism)
    command = [BIN / "spark-submit", "--properties-file", ROOT / "conf" / "spark" / "local.conf", "--master", master]
    for name, value in spark_settings.items():
        command += ["--conf", f"{name}={value}"]
    command += [ROOT / "jobs" / "augment.py", "--run", run, "--images", galaxies / "images"]
    command += ["--labels", galaxies / "labels.csv", "--seed", seed, "--view-size-px", VIEW_SIZE_PX]
    command += ["--split-fractions", *SPLIT_FRACTIONS]
    python = str(BIN / "python")
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYSPARK_PYTHON": python,
        "PYSPARK_DRIVER_PYTHON": python,
        "SPARK_CONF_DIR": str(ROOT / "conf" / "spark"),
        "SPARK_HOME": str(spark_home),
        # Executors of a cluster on this machine talk to each other, and to nobody else.
        "SPARK_LOCAL_IP": "127.0.0.1",
        _MARK: mark,
    }
    with open(terminal, "wb") as stream:
        submitted = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment
        )
    job = JobProcess(submitted, run, terminal, events, mark)
    try:
        yield job
    finally:
        for process in job.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        submitted.wait()
