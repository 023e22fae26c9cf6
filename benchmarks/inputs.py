"""Views a second of the stage ``augment`` from image files in a folder, against the same ones packed into shards.

- ``folder``: files of their own;
- ``parquet``: as ``pack-images`` packs them;
- ``tar``: tar shards of 512 files.

All make the same views of the same simulated galaxies by the job's own path, listing included, in turn.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro
from pyspark.sql import SparkSession

from benchmarks.augment import Work, count_rows, prepare
from benchmarks.harness import Alternative, GalaxiesBenchmarkSettings, measure, report
from galaxyspark.dataset.images import find_images
from galaxyspark.dataset.pack import pack_images
from galaxyspark.dataset.write import make_dataset
from galaxyspark.settings import AugmentSettings, PackImagesJob
from galaxyspark.spark import start_session
from galaxyspark.views.augment import NUM_VIEWS

_SETTINGS = AugmentSettings(view_size_px=112)
_FILES_OF_TAR = 512


@dataclass(frozen=True, kw_only=True)
class InputsBenchmark(GalaxiesBenchmarkSettings):
    """Views a second of the stage augment from a folder of image files, from Parquet and from tar shards."""

    num_galaxies: int = 4096
    """Galaxies to simulate; each gets 16 views in every run."""


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them."""
    settings = tyro.cli(InputsBenchmark, args=arguments, prog="bench inputs")
    num_galaxies, rounds = settings.amount()
    spark = start_session("bench inputs")
    with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as directory:
        work = prepare(spark, Path(directory), num_galaxies)
        folders = {"folder": work.images.folder} | pack(spark, work, Path(directory))
        alternatives = [
            Alternative(name, partial(run, spark, work, folder), count_rows) for name, folder in folders.items()
        ]
        measurement = measure(alternatives, NUM_VIEWS * num_galaxies, "views", rounds)
    report("inputs", [measurement], settings)


def pack(spark: SparkSession, work: Work, directory: Path) -> dict[str, str]:
    """The galaxies' images as Parquet files and as tar shards: the names of their folders."""
    parquet, tars = directory / "parquet", directory / "tar"
    pack_images(spark, PackImagesJob(images=work.images.folder, packed=str(parquet)))
    tars.mkdir()
    for first in range(0, len(work.files), _FILES_OF_TAR):
        with tarfile.open(tars / f"{first:08}.tar", "w") as tar:
            for file in work.files[first : first + _FILES_OF_TAR]:
                tar.add(file, file.name)
    return {"parquet": str(parquet), "tar": str(tars)}


def run(spark: SparkSession, work: Work, folder: str, directory: Path) -> Path:
    """List the images of a folder and make their views; returns the dataset."""
    views_path = directory / "views"
    make_dataset(
        spark, find_images(spark, folder), work.labels, work.recipe, work.split_rule, views_path, _SETTINGS.row_group_mb
    )
    return views_path
