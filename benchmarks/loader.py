"""Views a second that training is fed, against petastorm's own loader and against decoding alone.

All alternatives decode every view of the same simulated galaxies once, 224 px, each in a process of its own:

- ``loader``: ``TrainingViews``, from the dataset on disk to shuffled batches of pixels, in a process that is set up as
  that of training is;
- ``petastorm``: ``make_reader`` with petastorm's ``DataLoader`` for torch and its shuffling, at their own settings;
- ``bare_decode``: the JPEGs, in memory before, by the loader's own decoder on as many threads as there are cores.

What is timed is the second pass over the views, not the start of the process and the first pass.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.harness import GalaxiesBenchmarkSettings, ProcessAlternative, measure_processes, report
from benchmarks.views import make_views

_ALTERNATIVES = ("loader", "petastorm", "bare_decode")


@dataclass(frozen=True, kw_only=True)
class LoaderBenchmark(GalaxiesBenchmarkSettings):
    """Views a second that training is fed, against petastorm's own loader and against decoding alone."""

    num_galaxies: int = 2048
    """Galaxies to simulate; nine of ten are in the training split, with 16 views each."""


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them."""
    settings = tyro.cli(LoaderBenchmark, args=arguments, prog="bench loader")
    num_galaxies, rounds = settings.amount()
    with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as directory:
        views = make_views(Path(directory), num_galaxies) / "views"
        alternatives = [
            ProcessAlternative(name, ("-m", "benchmarks.loader_worker", str(views), name)) for name in _ALTERNATIVES
        ]
        measurement = measure_processes(alternatives, "views", rounds)
    report("loader", [measurement], settings)
