"""Views a second that training is fed, against petastorm's own loader and against decoding alone.

All alternatives decode every view of the same simulated galaxies once, 224 px, in this process:

- ``loader``: ``TrainingViews``, from the dataset on disk to shuffled batches of pixels;
- ``petastorm``: ``make_reader`` with petastorm's ``DataLoader`` for torch and its shuffling, at their own settings;
- ``bare_decode``: the JPEGs, in memory before, through OpenCV on as many threads as there are cores; no batches.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import tyro
from numpy.typing import NDArray
from petastorm import TransformSpec, make_reader
from petastorm.pytorch import DataLoader

from benchmarks.harness import Alternative, BenchmarkSettings, measure, report
from galaxyspark.dataset.read import Shard, Split, TrainingViews
from galaxyspark.dataset.simulate import simulate
from galaxyspark.dataset.write import augment
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.tree import MORPHOLOGY_CLASSES
from galaxyspark.run_directory import file_url
from galaxyspark.settings import AugmentJob, AugmentSettings, SimulateJob, SimulateSettings
from galaxyspark.spark import start_session

_SEED = 1
_BATCH_SIZE = 32
_SHUFFLED_VIEWS = 2048
_QUICK_GALAXIES = 40


@dataclass(frozen=True, kw_only=True)
class LoaderBenchmark(BenchmarkSettings):
    """Views a second that training is fed, against petastorm's own loader and against decoding alone."""

    num_galaxies: int = 2048
    """Galaxies to simulate; nine of ten are in the training split, with 16 views each."""

    def __post_init__(self) -> None:
        """Refuse settings with which nothing can be measured."""
        super().__post_init__()
        if self.num_galaxies < _QUICK_GALAXIES:
            raise UserError(f"--num-galaxies {self.num_galaxies}: at least {_QUICK_GALAXIES}.")


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them."""
    settings = tyro.cli(LoaderBenchmark, args=arguments, prog="bench loader")
    num_galaxies, rounds = (_QUICK_GALAXIES, 1) if settings.quick else (settings.num_galaxies, settings.rounds)
    with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as directory:
        views = make_views(Path(directory), num_galaxies, view_size_px=224) / "views"
        jpegs = [jpeg for file in training_files(views) for jpeg in pq.read_table(file, columns=["image"])["image"]]
        encoded = [np.frombuffer(jpeg.as_buffer(), np.uint8) for jpeg in jpegs]
        alternatives = [
            Alternative("loader", partial(run_loader, views)),
            Alternative("petastorm", partial(run_petastorm, views, len(encoded))),
            Alternative("bare_decode", partial(run_bare_decode, encoded)),
        ]
        measurement = measure(alternatives, len(encoded), "views", rounds)
    report("loader", [measurement], settings)


def make_views(run: Path, num_galaxies: int, view_size_px: int) -> Path:
    """Simulate galaxies and augment them; returns the run's directory, without Spark holding on to any core."""
    spark = start_session("bench")
    simulate(
        spark, SimulateJob(run=run, seed=_SEED, simulate=SimulateSettings(num_galaxies=num_galaxies, num_unlabelled=0))
    )
    simulated = run / "simulated"
    settings = AugmentSettings(view_size_px=view_size_px)
    images, labels = str(simulated / "images"), str(simulated / "labels.csv")
    augment(spark, AugmentJob(run=run, seed=_SEED, images=images, labels=labels, augment=settings))
    return run


def training_files(views: Path) -> list[Path]:
    """The files of the training split."""
    return sorted((views / "split=train").glob("*.parquet"))


def run_loader(views: Path, _: Path) -> int:
    """Ours; returns how many views were decoded."""
    split = Split(views, "train", MORPHOLOGY_CLASSES)
    training = TrainingViews(split, _BATCH_SIZE, Shard(), _SEED, _SHUFFLED_VIEWS)
    with closing(training.epoch(1)) as batches:
        return sum(len(batch.images) for batch in batches)


def run_petastorm(views: Path, num_views: int, _: Path) -> int:
    """Petastorm's; returns how many views were decoded.

    Its reader, asked for one epoch, may end before the last row group: it is asked for no end and stopped.
    """
    num_seen = 0
    # A batch of torch tensors has no text.
    classes = TransformSpec(_with_class, [("position", np.int64, (), False)], removed_fields=["label"])
    url = file_url(views / "split=train")
    reader = make_reader(url, schema_fields=["label", "image"], num_epochs=None, seed=_SEED, transform_spec=classes)
    with DataLoader(reader, batch_size=_BATCH_SIZE, shuffling_queue_capacity=_SHUFFLED_VIEWS) as loader:
        for batch in loader:
            num_seen += len(batch["image"])
            if num_seen >= num_views:
                break
    return min(num_seen, num_views)


def _with_class(row: dict[str, Any]) -> dict[str, Any]:
    return {"image": row["image"], "position": MORPHOLOGY_CLASSES.index(row["label"])}


def run_bare_decode(encoded: Sequence[NDArray[np.uint8]], _: Path) -> int:
    """Decoding alone; returns how many views were decoded."""
    threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(_decode_all, [encoded[start::threads] for start in range(threads)]))


def _decode_all(encoded: Sequence[NDArray[np.uint8]]) -> int:
    return sum(cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB) is not None for jpeg in encoded)
