"""The Spark session of a job and its progress bar."""

from __future__ import annotations

import atexit
import math
import os
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import pyarrow as pa  # noqa: F401  (petastorm asks that pyarrow be imported before torch, which jobs import later)
from py4j.protocol import Py4JError
from pyspark import Broadcast, SparkConf, TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from tqdm import tqdm

from galaxyspark.errors import UserError

Value = TypeVar("Value")

# What the code relies on, unless a profile says otherwise.
_SETTINGS = {
    # Images are large: 64 of them make an Arrow batch of about a megabyte.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "64",
    # Tables come to the driver as Arrow, not row by row.
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # One open writer per split, so that rows full of pixels are not sorted by split before they are written.
    "spark.sql.maxConcurrentOutputFileWriters": "3",
    # An input partition is as many files as its bytes say, where a stage does not plan its own (split_input).
    "spark.sql.files.openCostInBytes": "0",
    "spark.sql.files.maxPartitionBytes": "8m",
    # Some hundred single files or folders are listed by some tasks, not by one each.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "64",
}


def start_session(name: str, verbose: bool = False) -> SparkSession:
    """The session that spark-submit prepared, or a local one on all cores where a job is started as plain Python.

    Raises:
        UserError: Spark does not start, as where the profile's master does not answer.
    """
    builder = SparkSession.builder.appName(f"galaxyspark {name}")
    # Hadoop, which writes Spark's files, has an umask of its own, also on executors.
    builder = builder.config("spark.hadoop.fs.permissions.umask-mode", f"{_umask():03o}")
    if not verbose:
        builder = builder.config("spark.executorEnv.PYTHONWARNINGS", "ignore")
    try:
        spark = builder.getOrCreate()
    except (Py4JError, PySparkException) as error:
        if verbose:
            raise
        raise UserError(_why_it_does_not_start(error)) from error
    spark.sparkContext.setLogLevel("WARN" if verbose else "ERROR")
    configured = spark.sparkContext.getConf()
    for key, value in _SETTINGS.items():
        if not configured.contains(key):
            spark.conf.set(key, value)
    atexit.register(spark.stop)  # executors of a cluster end in good order
    return spark


def _why_it_does_not_start(error: Exception) -> str:
    master = SparkConf().get("spark.master", "local[*]") or ""
    cause = (
        "nothing there takes this job, with its secret and encryption"
        if "stopped SparkContext" in str(error)
        else cause_of(error)
    )
    advice = ""
    if master.startswith("spark://"):
        advice = " Is it up? The cluster to try out is started by ./submit.sh cluster start."
    return f"--profile: Spark does not start on {master}: {cause}.{advice}"


def _umask() -> int:
    """The umask of this process, which can be asked for only by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def even_tasks(spark: SparkSession, num_files: int, files_per_task: int) -> int:
    """A multiple of the cores, so that all are busy to the end; of about so many files each where there are enough."""
    cores = spark.sparkContext.defaultParallelism
    return cores * max(1, round(num_files / (cores * files_per_task)))


@contextmanager
def input_split(spark: SparkSession, num_files: int, total_bytes: int, files_per_task: int) -> Iterator[None]:
    """Split what the body reads, many files of about equal work, into tasks that keep every core busy to the end.

    Args:
        spark: The session.
        num_files: Files to be read.
        total_bytes: Their length together.
        files_per_task: About as many, where there are enough for all cores; as many tasks as a multiple of the cores.
    """
    num_tasks = even_tasks(spark, num_files, files_per_task)
    # Spark packs files by length. A file is work in itself, which its length hardly changes: so let opening one cost
    # as much as ten of average length.
    open_cost = 10 * max(1, total_bytes // max(1, num_files))
    settings = {
        "spark.sql.files.openCostInBytes": open_cost,
        "spark.sql.files.maxPartitionBytes": math.ceil((total_bytes + num_files * open_cost) / num_tasks) + open_cost,
        "spark.sql.files.minPartitionNum": 1,
    }
    before = {key: spark.conf.get(key, None) for key in settings}
    for key, value in settings.items():
        spark.conf.set(key, str(value))
    try:
        yield
    finally:
        for key, old in before.items():
            spark.conf.unset(key) if old is None else spark.conf.set(key, old)


@contextmanager
def progress(spark: SparkSession, description: str) -> Iterator[None]:
    """Show one bar over the tasks of all Spark jobs that the body starts."""
    group = f"galaxyspark-{description}"
    context = spark.sparkContext
    context.setJobGroup(group, description)
    done = threading.Event()
    with tqdm(desc=description, unit="task", mininterval=0.5, leave=True) as bar:
        watcher = threading.Thread(target=_follow, args=(spark, group, bar, done), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            context.setLocalProperty("spark.jobGroup.id", None)  # type: ignore[arg-type]


class _InOnePiece:
    """A value that is pickled as bytes are, and unpickled as itself."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Callable[[bytes], object], tuple[bytes]]:
        return pickle.loads, (pickle.dumps(self.value, pickle.HIGHEST_PROTOCOL),)


def broadcast(spark: SparkSession, value: Value) -> Broadcast[Value]:
    """Send a value to all executors once.

    Where Spark encrypts its scratch files, pyspark's own cannot send large arrays (ChunkedStream asks for their
    ``len``, which the buffers that pickle writes them from do not have).
    """
    return spark.sparkContext.broadcast(cast(Value, _InOnePiece(value)))


def gpu_of_task() -> int | None:
    """Number of the GPU that Spark's scheduler gave to this task; None where it gives none."""
    context = TaskContext.get()
    gpus = context.resources().get("gpu") if context else None
    return int(gpus.addresses[0]) if gpus else None


_PLAINLY = {
    "No space left on device": "No space left on device (where the run or Spark's own files lie, spark.local.dir)",
    "Disk quota exceeded": "Disk quota exceeded (where the run or Spark's own files lie, spark.local.dir)",
    "A secret key must be specified": "the profile has no spark.authenticate.secret",
    "S3AFileSystem not found": "it lacks the connector for s3a://. Add it to the profile: --profile local,s3a",
}


def told_plainly(text: str) -> str:
    """What a text of Spark's means, where it is one that users meet; else empty."""
    return next((plainly for known, plainly in _PLAINLY.items() if known in text), "")


def cause_of(error: Exception) -> str:
    """What is at the bottom of a failed Spark job, in one line."""
    text = str(error)
    if told := told_plainly(text):
        return told
    # A Python worker's traceback ends with what went wrong; Java says it behind the last "Caused by".
    raised = re.findall(
        r"^(?:\w+\.)*\w*(?:Error|Exception)(?:: .+)?$", text.partition("Traceback (most")[2], re.MULTILINE
    )
    causes = [line.strip().removeprefix("Caused by: ") for line in text.splitlines() if "Caused by: " in line]
    thrown = re.findall(r"^: (.+)$", text, re.MULTILINE)  # behind what was called
    return (raised[:1] or causes[-1:] or thrown[:1] or text.splitlines()[:1] or [type(error).__name__])[0].rstrip(".")


def _follow(spark: SparkSession, group: str, bar: tqdm, done: threading.Event) -> None:
    tracker = spark.sparkContext.statusTracker()
    while True:
        finished = done.wait(0.5)
        jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
        stages = [tracker.getStageInfo(stage) for job in jobs if job for stage in job.stageIds]
        bar.total = sum(stage.numTasks for stage in stages if stage)
        bar.n = sum(stage.numCompletedTasks for stage in stages if stage)
        if finished:  # Spark skips tasks whose output it has already
            bar.total = bar.n
        bar.refresh()
        if finished:
            return
