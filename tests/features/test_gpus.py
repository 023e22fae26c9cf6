"""GPUs that are none: Spark finds them by our script and a stand-in for nvidia-smi, and hands them out for real."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import horovod.torch as hvd
import pytest
import torch

from galaxyspark.errors import UserError
from galaxyspark.network.devices import device_of

ROOT = Path(__file__).parents[2]
DISCOVERY = ROOT / "conf" / "spark" / "gpus.sh"

# Each executor and each task has so many GPUs; two cores, so that two tasks run at a time.
CLUSTER = """
spark.master local-cluster[1,2,1024]
spark.executor.memory 512m
spark.worker.resource.gpu.amount 2
spark.worker.resource.gpu.discoveryScript {discovery}
spark.executor.resource.gpu.amount {of_executor}
spark.executor.cores {of_executor}
spark.task.resource.gpu.amount 1
spark.driver.host 127.0.0.1
spark.driver.bindAddress 127.0.0.1
spark.ui.enabled false
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Puts a stand-in on the PATH that prints what is given, as the real one prints the numbers of GPUs."""

    def stand_in(printed: str, status: int = 0) -> None:
        script = tmp_path / "bin" / "nvidia-smi"
        script.parent.mkdir()
        asked = '[ "$*" = "--query-gpu=index --format=csv,noheader" ] || exit 2'
        script.write_text(f"#!/bin/sh\n{asked}\n{printed}\nexit {status}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")

    return stand_in


@pytest.fixture
def profile(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Writes a profile of a cluster with two such GPUs, so many of them for each executor."""

    def write(of_executor: int) -> Path:
        file = tmp_path / "gpus.conf"
        file.write_text(CLUSTER.format(discovery=DISCOVERY, of_executor=of_executor))
        return file

    return write


@pytest.mark.parametrize(
    ("printed", "addresses"),
    [("echo 0", ["0"]), ("for gpu in 0 1 2 10; do echo $gpu; done", ["0", "1", "2", "10"])],
    ids=["one", "many"],
)
def test_spark_is_told_the_numbers_of_the_gpus(nvidia_smi, printed: str, addresses: list[str]) -> None:
    nvidia_smi(printed)
    completed = subprocess.run([DISCOVERY], capture_output=True, text=True, check=True)
    assert json.loads(completed.stdout) == {"name": "gpu", "addresses": addresses}


@pytest.mark.parametrize(
    ("printed", "status"),
    [("echo 'No devices were found'", 0), ("echo 'NVIDIA-SMI has failed: no driver' >&2", 9), ("", 0)],
    ids=["no GPU", "no driver", "nothing"],
)
def test_without_a_gpu_the_script_says_so_with_status_1(nvidia_smi, printed: str, status: int) -> None:
    nvidia_smi(printed, status)
    completed = subprocess.run([DISCOVERY], capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stdout) == (1, "")
    said = printed.partition("'")[2].partition("'")[0]
    assert f"nvidia-smi says: {said}" in completed.stderr


def test_without_a_driver_the_script_says_so_with_status_1(tmp_path: Path) -> None:
    for tool in ("bash", "uname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    completed = subprocess.run([DISCOVERY], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stdout) == (1, "")
    assert "there is no nvidia-smi, which comes with NVIDIA's driver" in completed.stderr


def test_a_worker_that_is_given_another_gpu_loads_the_network_there(nvidia_smi, profile) -> None:
    nvidia_smi("echo 3; echo 5")
    completed = subprocess.run(
        [sys.executable, "-m", "tests.features.gpu_process", profile(of_executor=2)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    rounds = [line.split("\t")[1:] for line in completed.stdout.splitlines() if line.startswith("told")]
    assert len(rounds) == 5, completed.stderr[-2000:]
    seen: dict[str, set[str]] = {}
    for tasks in rounds:
        for pid, address, runtime in (task.split(" ", 2) for task in tasks):
            assert runtime == f"loaded on {address}"
            seen.setdefault(pid, set()).add(address)
    assert sorted(task.split()[1] for task in rounds[0]) == ["3", "5"]
    assert {"3", "5"} in seen.values()  # else this was no test of it


@pytest.mark.slow
def test_ranks_on_executors_are_each_given_a_gpu_or_refused(
    nvidia_smi, profile, augmented_run: Path, run_submit, tmp_path: Path
) -> None:
    nvidia_smi("echo 3; echo 5")
    run = tmp_path / "a run"
    shutil.copytree(augmented_run, run)
    flags = ["--launcher", "spark", "--run", run, "--profile", profile(of_executor=1)]
    completed = run_submit("train", "-np", 2, *flags, "--weights", "none", "--network", "resnet18", "--epochs", 1)
    assert completed.returncode == 2
    # Both are there for want of a real one.
    refusal = r"GPU [35] on .*: torch can use 0 GPUs there" if hvd.nccl_built() else "Horovod was compiled without"
    said = completed.stdout + completed.stderr
    assert re.search(refusal, said), said
    assert "Traceback" not in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_no_reason_to_compute_on_the_processor() -> None:
    assert device_of(None) == torch.device("cpu")
    with pytest.raises(UserError, match=r"GPU 1 on .*: torch can use 0 GPUs there. .* new enough for CUDA 13"):
        device_of(1)
