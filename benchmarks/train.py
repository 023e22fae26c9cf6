"""Images a second of training GoogLeNet, against a plain loop and against itself on two ranks.

All alternatives train on the same views on all cores, each in processes of its own:

- ``loop``: the trainer of ``jobs/train.py``, one rank on all cores;
- ``eager_fp32``: a loop as tutorials have it, in float32, fed by the same batches;
- ``torchvisions_layers``: the trainer with torchvision's layers instead of the compiled ones;
- ``two_ranks``: the trainer by horovodrun on two ranks, each on half of the cores.

What is timed is the steps, after some to warm up; not the start of the processes. 224 px and 112 px.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.harness import GalaxiesBenchmarkSettings, Measurement, ProcessAlternative, measure_processes, report
from benchmarks.views import make_views
from galaxyspark.settings import AugmentSettings

_STEPS = {"loop": 20, "eager_fp32": 6, "torchvisions_layers": 20, "two_ranks": 10}
_SIZES_PX = (224, 112)


@dataclass(frozen=True, kw_only=True)
class TrainBenchmark(GalaxiesBenchmarkSettings):
    """Images a second of training, against a plain loop and against itself on two ranks."""

    num_galaxies: int = 160
    """Galaxies to simulate for the views to train on."""


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them."""
    settings = tyro.cli(TrainBenchmark, args=arguments, prog="bench train")
    num_galaxies, rounds = settings.amount()
    with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as directory:
        runs = {
            size: make_views(Path(directory) / str(size), num_galaxies, AugmentSettings(view_size_px=size))
            for size in _SIZES_PX
        }
        measurements = [m for size, run in runs.items() for m in measure_size(run, size, rounds)]
    report("train", measurements, settings)


def measure_size(run: Path, size_px: int, rounds: int) -> list[Measurement]:
    """Loop against others, and two ranks against the loop's one process; names of all but 224 px end with the size."""
    print(f"{size_px} px", file=sys.stderr)
    alternatives = [alternative(run, name, steps) for name, steps in _STEPS.items()]
    measured = measure_processes(alternatives, "images", rounds)
    end = "" if size_px == _SIZES_PX[0] else f"_{size_px}px"
    rates = measured.runs
    return [
        Measurement(
            measured.unit,
            {"loop": rates["loop"]} | {f"{name}{end}": rates[name] for name in ("eager_fp32", "torchvisions_layers")},
        ),
        Measurement(measured.unit, {"two_ranks": rates["two_ranks"], f"one_process{end}": rates["loop"]}),
    ]


def alternative(run: Path, name: str, steps: int) -> ProcessAlternative:
    """How ``train_worker`` is started."""
    cores = len(os.sched_getaffinity(0))
    ranks = 2 if name == "two_ranks" else 1
    horovodrun = (str(Path(sys.executable).with_name("horovodrun")), "-np", str(ranks))
    return ProcessAlternative(
        name,
        ("-m", "benchmarks.train_worker", str(run), name, str(steps)),
        horovodrun if ranks > 1 else (),
        {"OMP_NUM_THREADS": str(max(1, cores // ranks))},
    )
