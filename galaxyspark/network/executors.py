"""Training in Spark's executors: Horovod starts one rank in each task, as horovodrun starts them on hosts."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import horovod.spark
from pyspark.sql import SparkSession

from galaxyspark.command_line import quiet_libraries
from galaxyspark.errors import UserError
from galaxyspark.settings import TrainJob
from galaxyspark.spark import cause_of

_START_TIMEOUT_S = 120


def train_on_executors(spark: SparkSession, job: TrainJob) -> dict[str, Any]:
    """Train on ``job.ranks`` tasks of Spark, all at a time; each sees the run's directory.

    Returns:
        The manifest that was published.

    Raises:
        UserError: Spark has too few cores for all ranks at a time, or a rank ended with an error.
    """
    slots = spark.sparkContext.defaultParallelism // int(spark.conf.get("spark.task.cpus", "1") or 1)
    if job.ranks > slots:
        raise UserError(
            f"--ranks {job.ranks}: Spark has room for {slots} tasks at a time. Ask for fewer, or more executors."
        )
    # What is wrong with the input is said once, before the ranks start.
    from galaxyspark.network.training import train

    train(dataclasses.replace(job, check=True))
    try:
        with _failures_of_threads() as failures:
            results = horovod.spark.run(
                _rank,
                args=(job,),
                num_proc=job.ranks,
                start_timeout=_START_TIMEOUT_S,
                use_gloo=True,
                # Horovod sends it in clear: no more of the driver's environment than is Horovod's own.
                env={name: value for name, value in os.environ.items() if name.startswith("HOROVOD_")},
                verbose=1 if job.verbose else 0,
                executable=spark.sparkContext.pythonExec,  # executors may have another than the driver
            )
    except Exception as error:
        said = [(str(error).strip() or type(error).__name__).splitlines()[-1], *map(cause_of, failures)]
        why = ". ".join(reason.rstrip(".") for reason in said)
        raise UserError(
            f"a rank on Spark's executors ended: {why}. The executors' logs say more. Run it again to go on.", 1
        ) from error
    told: dict[str, Any] | UserError = next(result for result in results if result)
    if isinstance(told, UserError):
        raise told
    return told


@contextmanager
def _failures_of_threads() -> Iterator[list[Exception]]:
    """What threads fail with, instead of their tracebacks on the terminal: Horovod runs Spark's job in one."""
    failures: list[Exception] = []

    def keep(told: threading.ExceptHookArgs) -> None:
        if isinstance(told.exc_value, Exception) and "SPARK_JOB_CANCELLED" not in str(told.exc_value):
            failures.append(told.exc_value)

    before, threading.excepthook = threading.excepthook, keep
    try:
        yield failures
    finally:
        threading.excepthook = before


def _rank(job: TrainJob) -> dict[str, Any] | UserError | None:
    """One rank, in an executor: rank 0 returns what was published, or why nothing was."""
    quiet_libraries(job.verbose)
    from galaxyspark.network.training import train

    try:
        return train(job)
    except UserError as error:
        return error
    except SystemExit:  # of the other ranks
        return None
