"""Views a second of the stage ``augment``, against its kernel alone and against other ways to do all of it.

All alternatives make the same views of the same simulated galaxies, one worker a core, each on one thread:

- ``spark``: the job's own path, from reading the images to the petastorm dataset;
- ``bare``: the kernel in a pool of processes: reads the images, writes nothing, no Spark;
- ``row_at_a_time``: as ``spark``, but every view is a Python dict that petastorm encodes into a row, as its
  documentation has it;
- ``ray``: Ray Data, from reading the images to Parquet, in an environment of its own.

The job is compared with one of them at a time, run by run in turn, while the others are not there: idle, Ray takes a
few per cent of a core, and rows leave the JVM's compiled code tuned to rows. Session, pool and Ray have been started
before; right before each run its alternative makes the views of 32 other galaxies, untimed, so that its workers are
there; and images and labels have been listed, as in the job before it makes views. The kernel by itself, in one
process: ``kernel`` against ``pillow`` and ``torchvision``.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import tyro
from petastorm.unischema import Unischema, dict_to_spark_row
from pyspark.sql import Row, SparkSession

from benchmarks.harness import Alternative, GalaxiesBenchmarkSettings, Measurement, measure, report
from benchmarks.ray_data import RayData
from galaxyspark.dataset.images import Images, find_images, images_read
from galaxyspark.dataset.labels import Labels, read_labels
from galaxyspark.dataset.schema import views_schema
from galaxyspark.dataset.simulate import simulate
from galaxyspark.dataset.write import (
    GALAXIES_PER_TASK,
    make_dataset,
    make_recipe,
    make_split_rule,
    row_group_mb,
    sample_of_training,
    with_labels,
    write_views,
)
from galaxyspark.galaxyzoo.splits import SplitRule
from galaxyspark.memory import keep_freed_memory
from galaxyspark.settings import AugmentSettings, SimulateJob, SimulateSettings
from galaxyspark.spark import start_session
from galaxyspark.views.augment import NUM_VIEWS, ViewRecipe, make_views, view_pixels

_SEED = 1
_SETTINGS = AugmentSettings(view_size_px=224)
_FEW_GALAXIES = 32
_FILES_PER_CHUNK = 8
_GALAXIES_OF_KERNEL = 200


@dataclass(frozen=True, kw_only=True)
class AugmentBenchmark(GalaxiesBenchmarkSettings):
    """Views a second of the stage augment, against its kernel alone, petastorm row by row, and Ray Data."""

    num_galaxies: int = 4096
    """Galaxies to simulate; each gets 16 views in every run."""


@dataclass(frozen=True)
class Work:
    """What every alternative has to do.

    Attributes:
        images: The images, listed.
        labels_file: Their labels, in the challenge's format,
        labels: and as read.
        split_rule: Which split each galaxy belongs to.
        recipe: Of their views.
    """

    images: Images
    labels_file: Path
    labels: Labels
    split_rule: SplitRule
    recipe: ViewRecipe

    @property
    def files(self) -> list[Path]:
        """The image files."""
        return sorted(Path(self.images.folder).iterdir())


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them."""
    settings = tyro.cli(AugmentBenchmark, args=arguments, prog="bench augment")
    num_galaxies, rounds = settings.amount()
    spark = start_session("bench augment")
    with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as directory:
        work = prepare(spark, Path(directory) / "all", num_galaxies)
        little = prepare(spark, Path(directory) / "few", _FEW_GALAXIES)
        measurements = measure_all(spark, work, little, rounds)
    report("augment", measurements, settings)


def prepare(spark: SparkSession, directory: Path, num_galaxies: int) -> Work:
    """Simulate galaxies below ``directory``, and do what the job does before it makes views."""
    settings = SimulateSettings(num_galaxies=num_galaxies, num_unlabelled=0)
    simulate(spark, SimulateJob(run=directory, seed=_SEED, simulate=settings))
    images = find_images(spark, str(directory / "simulated" / "images"))
    labels_file = directory / "simulated" / "labels.csv"
    labels = read_labels(spark, str(labels_file), _SETTINGS)
    split_rule = make_split_rule(images, labels, _SETTINGS)
    sample = sample_of_training(images, labels, split_rule)
    return Work(images, labels_file, labels, split_rule, make_recipe(spark, _SETTINGS, _SEED, images, sample))


def measure_all(spark: SparkSession, work: Work, little: Work, rounds: int) -> list[Measurement]:
    """The stage against each other way to do it, and the kernel against other libraries."""

    def alternative(name: str, run: Callable[..., Any], count: Callable[[Any], int], *arguments: Any) -> Alternative:
        return Alternative(name, partial(run, *arguments, work), count, wake=partial(run, *arguments, little))

    def against(other: Alternative) -> Measurement:
        return measure([ours, other], NUM_VIEWS * len(work.files), "views", rounds)

    ours = alternative("spark", run_spark, count_rows, spark)
    with RayData() as ray_data:
        ray = against(alternative("ray", run_ray, count_rows, ray_data))
    # Not forked: this process runs Spark's threads.
    with multiprocessing.get_context("spawn").Pool(spark.sparkContext.defaultParallelism, keep_freed_memory) as pool:
        bare = against(alternative("bare", run_bare, int, pool))
        kernel = measure_kernel(pool, work, rounds)
    # The last, for what it does to the session.
    row_at_a_time = against(alternative("row_at_a_time", run_row_at_a_time, count_rows, spark))
    return [bare, row_at_a_time, ray, kernel]


def measure_kernel(pool: Pool, work: Work, rounds: int) -> Measurement:
    """The kernel in one process, by ours and other libraries."""
    files = work.files[:_GALAXIES_OF_KERNEL]
    alternatives = [
        Alternative(name, partial(run_kernel, pool, name, files, work.recipe))
        for name in ("kernel", "pillow", "torchvision")
    ]
    return measure(alternatives, NUM_VIEWS * len(files), "views", rounds)


def run_spark(spark: SparkSession, work: Work, directory: Path) -> Path:
    """The job's own path; returns the dataset it wrote."""
    views_path = directory / "views"
    make_dataset(spark, work.images, work.labels, work.recipe, work.split_rule, views_path, _SETTINGS.row_group_mb)
    return views_path


def run_bare(pool: Pool, work: Work, directory: Path) -> int:
    """The kernel alone; returns how many views were made."""
    return sum(pool.imap_unordered(partial(_num_views_of_file, make_views, work.recipe), work.files, _FILES_PER_CHUNK))


def _num_views_of_file(kernel: Callable[..., list[bytes]], recipe: ViewRecipe, file: Path) -> int:
    return len(kernel(file.read_bytes(), file.stem, recipe))


def run_ray(ray: RayData, work: Work, directory: Path) -> Path:
    """Ray Data; returns the dataset it wrote."""
    return ray.run(Path(work.images.folder), work.labels_file, work.recipe, work.split_rule, directory)


def run_kernel(pool: Pool, name: str, files: list[Path], recipe: ViewRecipe, _: Path) -> int:
    """A kernel in one process; returns how many views were made."""
    return pool.apply(_num_views_by, (name, recipe, files))


def _num_views_by(name: str, recipe: ViewRecipe, files: list[Path]) -> int:
    # Here, so that torch is not loaded into the workers of all other alternatives.
    from benchmarks.kernels import pillow_views, torchvision_views

    kernel = {"kernel": make_views, "pillow": pillow_views, "torchvision": torchvision_views}[name]
    return sum(_num_views_of_file(kernel, recipe, file) for file in files)


def run_row_at_a_time(spark: SparkSession, work: Work, directory: Path) -> Path:
    """Petastorm's usual way, with the job's partitions and its writing; returns the dataset it wrote."""
    views_path = directory / "views"
    schema = views_schema(work.recipe.size_px, work.recipe.jpeg_quality)
    labelled_df = with_labels(work.images, work.labels)
    row_groups_mb = row_group_mb(labelled_df.count(), work.recipe.size_px, _SETTINGS.row_group_mb)
    with images_read(spark, work.images, labelled_df, GALAXIES_PER_TASK) as content_df:
        columns_df = content_df.select(*labelled_df.columns, "content").drop("path", "length", "modified", "reason")
        rows = columns_df.rdd.flatMap(partial(_rows_of_galaxy, schema, work.recipe, work.split_rule))
        views_df = spark.createDataFrame(rows, schema.as_spark_schema())
        write_views(spark, views_df, views_path, schema, row_groups_mb)
    return views_path


def _rows_of_galaxy(schema: Unischema, recipe: ViewRecipe, split_rule: SplitRule, galaxy: Row) -> Iterator[Row]:
    keep_freed_memory()
    values = galaxy.asDict()
    content = values.pop("content")
    split = split_rule.split_of(galaxy.galaxy_id, galaxy.label)
    for view, pixels in enumerate(view_pixels(content, galaxy.galaxy_id, recipe)):
        yield dict_to_spark_row(schema, values | {"view": view, "image": pixels[..., ::-1], "split": split})


def count_rows(views_path: Path) -> int:
    """How many rows the files of a dataset say they have."""
    return sum(pq.read_metadata(file).num_rows for file in views_path.rglob("*.parquet"))
