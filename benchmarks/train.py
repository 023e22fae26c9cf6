"""Images a second of training GoogLeNet, against a plain loop and against itself on two ranks.

All alternatives train on the same views on all cores, each in processes of its own:

- ``loop``: the trainer of ``jobs/train.py``, one rank on all cores;
- ``eager_fp32``: a loop as tutorials have it, in float32, fed by the same batches;
- ``two_ranks``: the trainer by horovodrun on two ranks, each on half of the cores.

What is timed is the steps, after some to warm up; not the start of the processes. 224 px and 112 px.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.harness import BenchmarkSettings, Measurement, report
from benchmarks.loader import make_views
from galaxyspark.errors import UserError

_QUICK_GALAXIES = 40
_STEPS = {"loop": 12, "eager_fp32": 4, "two_ranks": 8}
_SIZES_PX = (224, 112)
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class TrainBenchmark(BenchmarkSettings):
    """Images a second of training, against a plain loop and against itself on two ranks."""

    num_galaxies: int = 160
    """Galaxies to simulate for the views to train on."""

    def __post_init__(self) -> None:
        """Refuse settings with which nothing can be measured."""
        super().__post_init__()
        if self.num_galaxies < _QUICK_GALAXIES:
            raise UserError(f"--num-galaxies {self.num_galaxies}: at least {_QUICK_GALAXIES}.")


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them."""
    settings = tyro.cli(TrainBenchmark, args=arguments, prog="bench train")
    num_galaxies, rounds = (_QUICK_GALAXIES, 1) if settings.quick else (settings.num_galaxies, settings.rounds)
    with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as directory:
        runs = {size: make_views(Path(directory) / str(size), num_galaxies, size) for size in _SIZES_PX}
        measurements = [m for size, run in runs.items() for m in measure_size(run, size, rounds)]
    report("train", measurements, settings)


def measure_size(run: Path, size_px: int, rounds: int) -> list[Measurement]:
    """Loop against eager, and two ranks against the loop's one process; names of all but 224 px end with the size."""
    rates: dict[str, list[float]] = {name: [] for name in _STEPS}
    for number in range(1, rounds + 1):
        for name, steps in _STEPS.items():
            rate = images_per_s(run, name, steps)
            print(f"round {number} of {rounds}, {size_px} px: {name} {rate:,.1f} images/s", file=sys.stderr)
            rates[name].append(rate)
    end = "" if size_px == _SIZES_PX[0] else f"_{size_px}px"
    return [
        Measurement("images/s", {"loop": rates["loop"], f"eager_fp32{end}": rates["eager_fp32"]}),
        Measurement("images/s", {"two_ranks": rates["two_ranks"], f"one_process{end}": rates["loop"]}),
    ]


def images_per_s(run: Path, name: str, steps: int) -> float:
    """One measurement, in processes of its own."""
    cores = len(os.sched_getaffinity(0))
    ranks = 2 if name == "two_ranks" else 1
    worker = [sys.executable, "-m", "benchmarks.train_worker", str(run), name, str(steps)]
    horovodrun = [str(Path(sys.executable).with_name("horovodrun")), "-np", str(ranks)]
    completed = subprocess.run(
        [*(horovodrun if ranks > 1 else []), *worker],
        cwd=_ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(max(1, cores // ranks))},
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in completed.stdout.splitlines() if "images/s:" in line]
    if completed.returncode or not told:
        raise RuntimeError(f"{name} failed:\n{completed.stderr[-2000:]}")
    return float(told[0].rpartition(":")[2])
