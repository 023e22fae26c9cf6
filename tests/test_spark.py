"""How input is split into tasks, and what is said of a Spark job that fails, by real jobs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from galaxyspark.spark import cause_of, input_split


def files_of_tasks(spark: SparkSession, directory: Path) -> list[int]:
    """How many files each task reads."""
    files_df = spark.read.format("binaryFile").load(str(directory))
    return sorted(spark.sparkContext.runJob(files_df.rdd, lambda rows: [len(list(rows))]))


@pytest.mark.parametrize(("files_per_task", "expected"), [(1000, [30, 30]), (30, [30, 30]), (15, [15] * 4)])
def test_tasks_have_even_numbers_of_files_and_come_in_multiples_of_the_cores(
    spark: SparkSession, tmp_path: Path, files_per_task: int, expected: list[int]
) -> None:
    sizes = [10 + 3 * number for number in range(60)]  # 10 to 187 bytes
    for number, size in enumerate(sizes):
        (tmp_path / f"{number}.jpg").write_bytes(bytes(size))
    before = spark.conf.get("spark.sql.files.maxPartitionBytes")
    with input_split(spark, len(sizes), sum(sizes), files_per_task):
        tasks = files_of_tasks(spark, tmp_path)
    assert sum(tasks) == 60
    assert len(tasks) == len(expected)
    # A file of twice the bytes is a little more work only.
    assert all(abs(files - 60 / len(tasks)) <= 0.25 * 60 / len(tasks) + 1 for files in tasks)
    assert spark.conf.get("spark.sql.files.maxPartitionBytes") == before


def test_one_huge_file_among_small_ones_does_not_make_one_huge_task(spark: SparkSession, tmp_path: Path) -> None:
    for number in range(39):
        (tmp_path / f"{number}.jpg").write_bytes(bytes(100))
    (tmp_path / "39.jpg").write_bytes(bytes(100_000))
    with input_split(spark, 40, 39 * 100 + 100_000, 20):
        tasks = files_of_tasks(spark, tmp_path)
    assert sum(tasks) == 40
    assert max(tasks) <= 25


def failure_of(spark: SparkSession, error: Exception) -> Exception:
    """What Spark raises when a task raises this."""

    def fail(rows):  # type: ignore[no-untyped-def]
        raise error

    with pytest.raises(PySparkException) as raised:
        spark.range(1).mapInArrow(fail, "id long").collect()
    return raised.value


def test_a_task_that_fails_is_one_line_of_what_went_wrong(spark: SparkSession) -> None:
    cause = cause_of(failure_of(spark, ValueError("the moon is full")))
    assert "the moon is full" in cause
    assert "\n" not in cause


def test_a_full_disk_is_said_in_plain_words(spark: SparkSession) -> None:
    error = failure_of(spark, OSError(28, "No space left on device"))
    assert cause_of(error).startswith("No space left on device (where")


ENCRYPTED = """
import numpy as np
from pyspark.sql import SparkSession
from galaxyspark.spark import broadcast

settings = {"io.encryption.enabled": True, "ui.enabled": False, "driver.host": "127.0.0.1"}
builder = SparkSession.builder.master("local[1]")
for key, value in settings.items():
    builder = builder.config(f"spark.{key}", value)
spark = builder.getOrCreate()
sent = broadcast(spark, {"numbers": np.arange(1_000_000)})
print("sum", spark.sparkContext.parallelize([0], 1).map(lambda _: int(sent.value["numbers"].sum())).collect())
"""


def test_large_arrays_are_sent_where_scratch_files_are_encrypted() -> None:
    completed = subprocess.run([sys.executable, "-c", ENCRYPTED], capture_output=True, text=True, check=False)
    assert f"sum [{1_000_000 * 999_999 // 2}]" in completed.stdout, completed.stderr[-2000:]
