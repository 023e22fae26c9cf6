"""What a job on Spark did, from Spark's event log: one JSON object a line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PHASES = ("start", "first_look", "preparing", "work", "commit", "checking", "stop")
"""The parts of a stage, one after the other: see ``EventLog.phases``."""

_PYTHON_TIMES = {
    "time to start Python workers": "python_start_s",
    "time to initialize Python workers": "python_start_s",
    "time to run Python workers": "python_s",
}
_PYTHON_BYTES = {
    "data sent to Python workers": "to_python_bytes",
    "data returned from Python workers": "from_python_bytes",
}


@dataclass(frozen=True)
class EventLog:
    """The events of one application, in their order; times are in milliseconds since 1970."""

    events: list[dict[str, Any]]

    @staticmethod
    def read(file: Path) -> EventLog:
        """Read a log that is neither compressed nor split."""
        with open(file) as lines:
            return EventLog([json.loads(line) for line in lines])

    def named(self, name: str) -> list[dict[str, Any]]:
        """The events of a kind, such as ``TaskEnd``."""
        return [event for event in self.events if event["Event"].rpartition(".")[2] == f"SparkListener{name}"]

    def phases(self, begin_s: float, end_s: float) -> dict[str, float]:
        """Seconds of each of ``PHASES`` of a stage whose process began and ended then, in seconds since 1970.

        start: until Spark is up; first_look: until its first job (files are listed, a network is prepared); preparing:
        the jobs before the one that wrote most; work: from the first to the last task that wrote; commit: until what
        they wrote is in place; checking: until all is counted and published; stop: until the process has ended.
        """
        driver = next(e for e in self.named("BlockManagerAdded") if e["Block Manager ID"]["Executor ID"] == "driver")
        asked = [e["time"] for e in self.named("SQLExecutionStart")]
        asked += [e["Submission Time"] for e in self.named("JobStart")]
        job = self._main_job()
        tasks = self._tasks_of(job)
        execution = job.get("Properties", {}).get("spark.sql.execution.id")
        ends = [e["time"] for e in self.named("SQLExecutionEnd") if str(e["executionId"]) == execution]
        ends += [e["Completion Time"] for e in self.named("JobEnd") if e["Job ID"] == job["Job ID"]]
        boundaries_ms = [
            begin_s * 1e3,
            driver["Timestamp"],
            min(asked),
            min(launch for launch, _ in tasks),
            max(finish for _, finish in tasks),
            max(ends),
            self.named("ApplicationEnd")[0]["Timestamp"],
            end_s * 1e3,
        ]
        spans = zip(boundaries_ms, boundaries_ms[1:], strict=False)
        return {name: (to - since) / 1e3 for name, (since, to) in zip(PHASES, spans, strict=True)}

    def work_task_s(self) -> float:
        """Seconds of the tasks of the phase ``work``, together."""
        return sum(finish - launch for launch, finish in self._tasks_of(self._main_job())) / 1e3

    def idle_s(self) -> float:
        """Seconds of the application in which no task ran: the driver worked alone, or waited."""
        since = self.named("ApplicationStart")[0]["Timestamp"]
        until = self.named("ApplicationEnd")[0]["Timestamp"]
        return (until - since) / 1e3 - covered(map(_span, self.named("TaskEnd"))) / 1e3

    def executors_up_s(self) -> float:
        """Seconds from the application's start until its last executor was there."""
        since = self.named("ApplicationStart")[0]["Timestamp"]
        return (max(e["Timestamp"] for e in self.named("ExecutorAdded")) - since) / 1e3

    def totals(self) -> dict[str, float]:
        """Sums over all tasks: their number, seconds of theirs by what they were spent on, and bytes.

        ``run_s`` has ``gc_s`` and the Python times in it; ``jvm_cpu_s`` is that of the JVM's thread alone. Scheduler
        delay is what is left of a task between its launch and its end, as Spark's own pages reckon it.
        """
        totals: Counter[str] = Counter()
        for task in self.named("TaskEnd"):
            totals.update(_of_task(task))
        return dict(totals)

    def largest_result_bytes(self) -> float:
        """What the tasks of a job's last stage sent to the driver together, at most: this is what Spark limits."""
        return max(self._sum_of_job(job, "result_bytes") for job in self.named("JobStart"))

    def _main_job(self) -> dict[str, Any]:
        """The start of the job that wrote most."""
        return max(self.named("JobStart"), key=lambda job: self._sum_of_job(job, "output_bytes"))

    def _sum_of_job(self, job: Mapping[str, Any], figure: str) -> float:
        return sum(_of_task(task).get(figure, 0) for task in self._ends_in(job))

    def _tasks_of(self, job: Mapping[str, Any]) -> list[tuple[int, int]]:
        return [_span(task) for task in self._ends_in(job)]

    def _ends_in(self, job: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The ends of the tasks of a job's last stage; those before it may be other jobs' too."""
        return [task for task in self.named("TaskEnd") if task["Stage ID"] == max(job["Stage IDs"], default=None)]


def covered(spans: Iterable[tuple[int, int]]) -> int:
    """The length of the union of some spans (from, to)."""
    total, until = 0, 0
    for since, to in sorted(spans):
        total += max(0, to - max(since, until))
        until = max(until, to)
    return total


def _span(task: Mapping[str, Any]) -> tuple[int, int]:
    """When a task was launched and when it had ended."""
    return task["Task Info"]["Launch Time"], task["Task Info"]["Finish Time"]


def _of_task(task: Mapping[str, Any]) -> dict[str, float]:
    info, metrics = task["Task Info"], task.get("Task Metrics")
    launch, finish = _span(task)
    if metrics is None:  # its executor was lost
        return {"tasks": 1, "failed_tasks": 1, "task_s": (finish - launch) / 1e3}
    getting = finish - info["Getting Result Time"] if info["Getting Result Time"] else 0
    known_ms = metrics["Executor Deserialize Time"] + metrics["Executor Run Time"]
    known_ms += metrics["Result Serialization Time"] + getting
    read, written = metrics["Shuffle Read Metrics"], metrics["Shuffle Write Metrics"]
    figures = {
        "tasks": 1,
        "failed_tasks": int(info["Failed"] or info["Killed"]),
        "task_s": (finish - launch) / 1e3,
        "run_s": metrics["Executor Run Time"] / 1e3,
        "jvm_cpu_s": metrics["Executor CPU Time"] / 1e9,
        "gc_s": metrics["JVM GC Time"] / 1e3,
        "deserialize_s": metrics["Executor Deserialize Time"] / 1e3,
        "scheduler_delay_s": max(0, finish - launch - known_ms) / 1e3,
        "shuffle_read_bytes": read["Remote Bytes Read"] + read["Local Bytes Read"],
        "shuffle_written_bytes": written["Shuffle Bytes Written"],
        "result_bytes": metrics["Result Size"],
        "input_bytes": metrics["Input Metrics"]["Bytes Read"],
        "output_bytes": metrics["Output Metrics"]["Bytes Written"],
        **dict.fromkeys((*_PYTHON_TIMES.values(), *_PYTHON_BYTES.values()), 0.0),
    }
    for accumulable in info["Accumulables"]:
        name = accumulable.get("Name", "")
        if name in _PYTHON_TIMES:
            figures[_PYTHON_TIMES[name]] += int(accumulable["Update"]) / 1e3
        elif name in _PYTHON_BYTES:
            figures[_PYTHON_BYTES[name]] += int(accumulable["Update"])
    return figures
