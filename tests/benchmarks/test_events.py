"""An event log whose times are chosen by hand, and one that Spark writes of work whose size is known."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.growth.events import EventLog, covered

SQL = "org.apache.spark.sql.execution.ui."
SPARK_PROGRAM = """
import time
from pyspark.sql import SparkSession

def slow(batches):
    for batch in batches:
        time.sleep(0.5)
        yield batch

spark = SparkSession.builder.master("local[2]").getOrCreate()
spark.range(10).count()
time.sleep(1)
spark.range(0, 4_000, numPartitions=4).mapInArrow(slow, "id long").repartition(2).write.parquet("{out}")
"""


def task(stage: int, launch: int, finish: int, **more: int) -> dict[str, Any]:
    """A task that ran for all of its time but 30 ms, of which 10 were for its code and 5 for its result."""
    metrics = {
        "Executor Deserialize Time": 10,
        "Executor Run Time": finish - launch - 30,
        "Executor CPU Time": 40_000_000,
        "JVM GC Time": 7,
        "Result Serialization Time": 5,
        "Result Size": more.get("result", 100),
        "Shuffle Read Metrics": {"Remote Bytes Read": 3, "Local Bytes Read": 4},
        "Shuffle Write Metrics": {"Shuffle Bytes Written": 6},
        "Input Metrics": {"Bytes Read": 1000},
        "Output Metrics": {"Bytes Written": more.get("output", 0)},
    }
    python = [("time to start Python workers", 20), ("time to initialize Python workers", 30)]
    python += [("time to run Python workers", 60), ("data sent to Python workers", 500)]
    info = {
        **{"Launch Time": launch, "Finish Time": finish, "Getting Result Time": 0, "Failed": False, "Killed": False},
        "Accumulables": [{"ID": 1}, *({"Name": name, "Update": str(value)} for name, value in python)],
    }
    return {"Event": "SparkListenerTaskEnd", "Stage ID": stage, "Task Info": info, "Task Metrics": metrics}


# Process from 1 s; Spark up at 3 s; asked at 5.5 s; work from 7.5 to 9.5 s; in place at 9.8 s; end at 13 s.
EVENTS: list[dict[str, Any]] = [
    {"Event": "SparkListenerBlockManagerAdded", "Block Manager ID": {"Executor ID": "driver"}, "Timestamp": 3000},
    {"Event": "SparkListenerApplicationStart", "Timestamp": 2000},
    {"Event": "SparkListenerExecutorAdded", "Timestamp": 4000},
    {"Event": "SparkListenerBlockManagerAdded", "Block Manager ID": {"Executor ID": "0"}, "Timestamp": 4100},
    {"Event": "SparkListenerExecutorAdded", "Timestamp": 4500},
    {"Event": f"{SQL}SparkListenerSQLExecutionStart", "executionId": 0, "time": 5500},
    {"Event": "SparkListenerJobStart", "Job ID": 0, "Submission Time": 5600, "Stage IDs": [0], "Properties": {}},
    task(0, 5700, 6200),
    {"Event": "SparkListenerJobEnd", "Job ID": 0, "Completion Time": 6300},
    {"Event": f"{SQL}SparkListenerSQLExecutionEnd", "executionId": 0, "time": 6400},
    {"Event": f"{SQL}SparkListenerSQLExecutionStart", "executionId": 1, "time": 6500},
    {
        **{"Event": "SparkListenerJobStart", "Job ID": 1, "Submission Time": 6600, "Stage IDs": [1, 2]},
        "Properties": {"spark.sql.execution.id": "1"},
    },
    task(1, 7000, 9000, output=800),
    task(2, 7500, 9500, output=900),
    {"Event": "SparkListenerJobEnd", "Job ID": 1, "Completion Time": 9600},
    {"Event": f"{SQL}SparkListenerSQLExecutionEnd", "executionId": 1, "time": 9800},
    {"Event": "SparkListenerJobStart", "Job ID": 2, "Submission Time": 10_000, "Stage IDs": [3], "Properties": {}},
    task(3, 10_100, 10_600),
    {"Event": "SparkListenerJobEnd", "Job ID": 2, "Completion Time": 10_700},
    {"Event": "SparkListenerApplicationEnd", "Timestamp": 12_000},
]


def test_the_phases_follow_each_other_and_fill_the_time() -> None:
    phases = EventLog(EVENTS).phases(begin_s=1.0, end_s=13.0)
    assert phases == pytest.approx(
        {"start": 2, "first_look": 2.5, "preparing": 2.0, "work": 2.0, "commit": 0.3, "checking": 2.2, "stop": 1}
    )
    assert sum(phases.values()) == pytest.approx(12)


def test_tasks_are_added_up() -> None:
    log = EventLog(EVENTS)
    assert log.work_task_s() == 2.0  # of the stage that wrote most
    assert log.idle_s() == pytest.approx(10 - 0.5 - 2.5 - 0.5)  # those two overlap
    assert log.executors_up_s() == 2.5
    assert log.largest_result_bytes() == 100
    totals = log.totals()
    assert totals == pytest.approx(
        {
            **{"tasks": 4, "failed_tasks": 0, "task_s": 5.0, "run_s": 4.88, "jvm_cpu_s": 0.16, "gc_s": 0.028},
            # 30 ms of each were not run: 10 for the code, 5 for the result, and the rest waited.
            **{"deserialize_s": 0.04, "scheduler_delay_s": 0.06},
            **{"shuffle_read_bytes": 28, "shuffle_written_bytes": 24, "result_bytes": 400},
            **{"input_bytes": 4000, "output_bytes": 1700, "python_start_s": 0.2, "python_s": 0.24},
            **{"to_python_bytes": 2000, "from_python_bytes": 0},
        }
    )


def test_a_task_whose_executor_was_lost_is_counted() -> None:
    lost = task(2, 7600, 8600)
    del lost["Task Metrics"]
    totals = EventLog([*EVENTS, lost]).totals()
    assert (totals["tasks"], totals["failed_tasks"], totals["task_s"]) == (5, 1, 6.0)


def test_spans_that_overlap_or_lie_in_each_other_count_once() -> None:
    assert covered([(10, 20), (15, 18), (18, 25), (40, 41)]) == 16
    assert covered([]) == 0


@pytest.mark.slow
def test_what_spark_writes_is_read(tmp_path: Path) -> None:
    """Four batches that wait for half a second each, two at a time, and 4,000 rows through a shuffle."""
    events = tmp_path / "events"
    events.mkdir()
    settings = {"eventLog.enabled": "true", "eventLog.compress": "false", "eventLog.rolling.enabled": "false"}
    settings |= {"eventLog.dir": events.as_uri(), "ui.enabled": "false", "driver.host": "127.0.0.1"}
    settings |= {"driver.bindAddress": "127.0.0.1", "pyspark.python": sys.executable}
    flags = [flag for name, value in settings.items() for flag in ("--conf", f"spark.{name}={value}")]
    program = tmp_path / "program.py"
    program.write_text(SPARK_PROGRAM.replace("{out}", str(tmp_path / "out")))
    begin_s = time.time()
    subprocess.run(
        [str(Path(sys.executable).with_name("spark-submit")), *flags, str(program)], check=True, capture_output=True
    )
    end_s = time.time()

    log = EventLog.read(next(events.iterdir()))
    phases, totals = log.phases(begin_s, end_s), log.totals()
    assert min(phases.values()) >= 0
    assert sum(phases.values()) == pytest.approx(end_s - begin_s, abs=0.01)
    assert phases["preparing"] >= 1  # the second of sleep
    assert phases["work"] >= 1  # two rounds of half a second
    assert log.work_task_s() >= 2
    assert log.idle_s() >= 1
    assert totals["python_s"] >= 2
    assert totals["shuffle_written_bytes"] == totals["shuffle_read_bytes"] > 0
    assert totals["output_bytes"] == sum(file.stat().st_size for file in (tmp_path / "out").glob("*.parquet"))
