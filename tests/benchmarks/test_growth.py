"""The benchmark on executors with a share of a core: what it refuses, and a small run of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.growth.bench import GrowthBenchmark
from galaxyspark.errors import UserError


def test_every_configuration_is_run_once_the_small_ones_first() -> None:
    assert GrowthBenchmark().configurations() == [(2, 1), (1, 4), (2, 4), (4, 4), (2, 16)]
    part = GrowthBenchmark(num_galaxies=100, executors=(1,), scales=(), for_executors=1)
    assert part.configurations() == [(1, 1)]


def test_the_driver_is_left_some_of_the_machine() -> None:
    assert GrowthBenchmark().share(cores=2) == pytest.approx(0.4)  # four times that is 1.6 of 2 cores
    assert GrowthBenchmark(executors=(1, 2)).share(cores=2) == pytest.approx(0.8)
    assert GrowthBenchmark().share(cores=64) == 1  # an executor of one core has no use for more
    with pytest.raises(UserError, match=r"--core-share 0.5: 4 executors would take all 2 cores"):
        GrowthBenchmark(core_share=0.5).share(cores=2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_galaxies": 320}, r"--num-galaxies 320: 20 for the least of --scales; at least 100"),
        ({"executors": (), "scales": ()}, "nothing to run"),
        ({"executors": (0, 1)}, r"--executors \(0, 1\): numbers from 1"),
        ({"scales": (3, 16)}, r"--scales \(3, 16\): the largest must be a multiple of each"),
    ],
)
def test_what_cannot_be_measured_is_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GrowthBenchmark(**flags)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make control groups")
def test_an_executor_gets_its_share_and_does_the_work(
    tmp_path: Path, run_submit: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    out = tmp_path / "growth.json"
    flags = ["--num-galaxies", 100, "--executors", 1, "--scales", "--for-executors", 1, "--for-scales", 1]
    completed = run_submit("bench", "growth", *flags, "--core-share", 0.7, "--view-size-px", 48, "--out", out)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    augment, extract = json.loads(out.read_text())["runs"]
    assert (augment["stage"], augment["views"]) == ("augment", 1_600)
    assert (extract["stage"], extract["galaxies"]) == ("extract", 100)
    assert 400 < extract["views"] < 1_600  # 4 of a training galaxy, 16 of the others
    for run in (augment, extract):
        assert sum(run["phases"].values()) == pytest.approx(run["wall_s"], abs=0.01)
        assert 0 < run["executor_cpu_s"] <= 0.7 * run["wall_s"] + 1
        # What the tasks computed, the group was charged for.
        assert run["tasks"]["jvm_cpu_s"] < run["executor_cpu_s"]
        assert {"driver_jvm", "driver_python", "largest_executor_jvm", "largest_worker"} <= set(run["peaks_mb"])
    assert not list(Path("/sys/fs/cgroup").rglob("galaxyspark-*"))
