"""Images a second on one GPU: training that the loader feeds, Horovod over NCCL, and features.

GoogLeNet on simulated galaxies, in bfloat16, each alternative in a process of its own:

- ``fed``: the trainer's steps on what the loader brings, against ``fed_by_nvjpeg``: decoded by the GPU, and ``kept``:
  on one batch that stays on the GPU;
- ``horovod``: these steps on the batch that stays, against ``plain``: the same without Horovod;
- ``features_of_jpegs``: what extract does with views in one process, against ``features_of_pixels``: decoded
  before, and ``features_by_nvjpeg``: decoded by the GPU.

What is timed is the steps, after some to warm up; not the start of the processes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa  # noqa: F401  (before torch, as petastorm asks)

import horovod.torch as hvd  # isort: skip
import torch
import tyro

from benchmarks.harness import GalaxiesBenchmarkSettings, Measurement, ProcessAlternative, measure_processes, report
from benchmarks.views import VIEW_SIZE_PX, make_views
from galaxyspark.errors import UserError
from galaxyspark.settings import AugmentSettings

_ALTERNATIVES = (
    "fed",
    "fed_by_nvjpeg",
    "kept",
    "plain",
    "features_of_jpegs",
    "features_of_pixels",
    "features_by_nvjpeg",
)
_QUICK_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class GpuBenchmark(GalaxiesBenchmarkSettings):
    """Images a second on one GPU: training that the loader feeds, Horovod over NCCL, and features."""

    num_galaxies: int = 320
    """Galaxies to simulate for the views."""
    view_size_px: int = VIEW_SIZE_PX
    """Side of a view."""
    batch_size: int = 128
    """Views in a step of training."""
    steps: int = 50
    """Steps to time; of features, as many times 128 views."""
    device: Literal["cuda", "cpu"] = "cuda"
    """cpu: try the benchmark on the processor, where its ratios say nothing about a GPU."""


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them.

    Raises:
        UserError: There is no GPU that torch and Horovod can use.
    """
    settings = tyro.cli(GpuBenchmark, args=arguments, prog="bench gpu")
    name = require_device(settings.device)
    num_galaxies, rounds = settings.amount()
    with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as directory:
        run = make_views(Path(directory), num_galaxies, AugmentSettings(view_size_px=settings.view_size_px))
        measured = measure_processes([alternative(run, each, settings) for each in _ALTERNATIVES], "images", rounds)
    report("gpu", compared(measured), settings, {"device": {"used": {"name": name}}})


def require_device(device: str) -> str:
    """The name of what is measured.

    Raises:
        UserError: There is no GPU that torch and Horovod can use.
    """
    if device == "cpu":
        return "the processor"
    if not torch.cuda.is_available():
        raise UserError("torch sees no GPU here, and nothing else is measured (--device cpu only tries the benchmark).")
    if not hvd.nccl_built():
        raise UserError("Horovod was compiled without NCCL: ./submit.sh setup --gpu")
    return torch.cuda.get_device_name(0)


def alternative(run: Path, name: str, settings: GpuBenchmark) -> ProcessAlternative:
    """How ``gpu_worker`` is started."""
    steps = _QUICK_STEPS if settings.quick else settings.steps
    command = ("-m", "benchmarks.gpu_worker", str(run), name, str(settings.batch_size), str(steps))
    hide_gpus: dict[str, Any] = {"CUDA_VISIBLE_DEVICES": ""} if settings.device == "cpu" else {}
    return ProcessAlternative(name, command, environment=hide_gpus)


def compared(measured: Measurement) -> list[Measurement]:
    """The three comparisons."""
    rates, unit = measured.runs, measured.unit
    features = [name for name in rates if name.startswith("features")]
    return [
        Measurement(unit, {name: rates[name] for name in ("fed", "fed_by_nvjpeg", "kept")}),
        Measurement(unit, {"horovod": rates["kept"], "plain": rates["plain"]}),
        Measurement(unit, {name: rates[name] for name in features}),
    ]
