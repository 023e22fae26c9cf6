"""Some tasks of Spark, each with a GPU of its own by the profile given; tells what each of them was given and used."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyspark import Broadcast, TaskContext
from pyspark.sql import SparkSession

from galaxyspark.features.extract import runtime_of_worker


@dataclass(frozen=True)
class ProgramThatTells:
    """A program whose runtime is the name of the GPU that it was loaded on."""

    def load(self, num_threads: int, gpu: int | None = None) -> str:
        return f"loaded on {gpu}"


def told(rows: Iterator[float], program: Broadcast[ProgramThatTells]) -> Iterator[str]:
    """Process, address that Spark gave, and what the runtime is, of a task."""
    (seconds,) = rows
    runtime = runtime_of_worker(program, 1)
    time.sleep(seconds)
    (address,) = TaskContext.get().resources()["gpu"].addresses
    yield f"{os.getpid()} {address} {runtime}"


def main(profile: Path) -> None:
    builder = SparkSession.builder
    for line in profile.read_text().split("\n"):
        if line:
            builder = builder.config(*line.split(" ", 1))
    context = builder.getOrCreate().sparkContext
    # A worker looks for the class by its module's name.
    from tests.features.gpu_process import ProgramThatTells

    program = context.broadcast(ProgramThatTells())
    # Two workers first, then one task at a time: Spark gives it the first GPU, and whichever worker's turn it is.
    for seconds_of_tasks in ([1.0, 2.0], [0.0], [0.0], [0.0], [0.0]):
        rows = context.parallelize(seconds_of_tasks, len(seconds_of_tasks))
        tasks = rows.mapPartitions(lambda rows: told(rows, program)).collect()
        print("told", *tasks, sep="\t")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
