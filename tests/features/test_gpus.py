"""Spark's own scheduler hands out a GPU that is none; what the task then lets CUDA see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, sys
from pyspark.sql import SparkSession
from galaxyspark.features.extract import see_gpus_of_task

settings = {
    "worker.resource.gpu.amount": 1, "worker.resource.gpu.discoveryScript": sys.argv[1],
    "executor.resource.gpu.amount": 1, "task.resource.gpu.amount": 1,
    "ui.enabled": False, "driver.host": "127.0.0.1", "driver.bindAddress": "127.0.0.1",
}
builder = SparkSession.builder.master("local-cluster[1,1,1024]")
for key, value in settings.items():
    builder = builder.config(f"spark.{key}", value)

def seen(rows):
    see_gpus_of_task()
    yield os.environ["CUDA_VISIBLE_DEVICES"]

print("seen", builder.getOrCreate().sparkContext.parallelize([0], 1).mapPartitions(seen).collect())
"""


def test_a_task_sees_the_gpu_that_spark_gave_it(tmp_path: Path) -> None:
    discovery = tmp_path / "gpus.sh"
    discovery.write_text("""#!/bin/sh\necho '{"name": "gpu", "addresses": ["5"]}'\n""")
    discovery.chmod(0o755)
    completed = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(discovery)], capture_output=True, text=True, timeout=120, check=False
    )
    assert "seen ['5']" in completed.stdout, completed.stderr[-2000:]
