"""Views a second of the stage ``augment``, against its kernel alone and against petastorm row by row.

All alternatives make the same views of the same simulated galaxies, OpenCV on one thread in every worker:

- ``spark``: the job's own path, from reading the images to the petastorm dataset;
- ``bare``: the kernel in a pool of processes, one a core: reads the images, writes nothing, no Spark;
- ``row_at_a_time``: as ``spark``, but every view is a Python dict that petastorm encodes into a row.

Session, Python workers and pool have been started before, and images and labels have been listed, as in the
job before it makes views.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path

import pyarrow.parquet as pq
import tyro
from petastorm.unischema import Unischema, dict_to_spark_row
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from benchmarks.harness import Alternative, BenchmarkSettings, measure, report
from galaxyspark.dataset.images import Images, find_images, read_images
from galaxyspark.dataset.labels import Labels, read_labels
from galaxyspark.dataset.schema import views_schema
from galaxyspark.dataset.simulate import simulate
from galaxyspark.dataset.write import make_dataset, make_recipe, row_group_mb, sample_of_training, write_views
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.splits import split_of
from galaxyspark.settings import SimulateJob, SimulateSettings
from galaxyspark.spark import start_session
from galaxyspark.views.augment import (
    NUM_VIEWS,
    ViewRecipe,
    make_views,
    view_pixels,
)

_SEED = 1
_VIEW_SIZE_PX = 224
_JPEG_QUALITY = 90
_SPLIT_FRACTIONS = (0.90, 0.05, 0.05)
_QUICK_GALAXIES = 32
_FILES_PER_CHUNK = 8


@dataclass(frozen=True, kw_only=True)
class AugmentBenchmark(BenchmarkSettings):
    """Views a second of the stage augment, against its kernel alone and against petastorm row by row."""

    num_galaxies: int = 768
    """Galaxies to simulate; each gets 16 views in every run."""

    def __post_init__(self) -> None:
        """Refuse settings with which nothing can be measured."""
        super().__post_init__()
        if self.num_galaxies < _QUICK_GALAXIES:
            raise UserError(f"--num-galaxies {self.num_galaxies}: at least {_QUICK_GALAXIES}.")


@dataclass(frozen=True)
class Work:
    """What every alternative has to do.

    Attributes:
        images: Folder of the images.
        images_df: The images, listed, as ``find_images`` returns them.
        labels: Their labels.
        recipe: Of their views.
    """

    images: Path
    images_df: DataFrame
    labels: Labels
    recipe: ViewRecipe

    @property
    def schema(self) -> Unischema:
        """Of the dataset to write."""
        return views_schema(self.recipe.size_px, self.recipe.jpeg_quality)


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them."""
    settings = tyro.cli(AugmentBenchmark, args=arguments, prog="bench augment")
    num_galaxies, rounds = (_QUICK_GALAXIES, 1) if settings.quick else (settings.num_galaxies, settings.rounds)
    spark = start_session("bench augment")
    num_cores = spark.sparkContext.defaultParallelism
    # Not forked: this process runs Spark's threads.
    processes = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as directory,
        processes.Pool(num_cores) as pool,
    ):
        work = prepare(spark, Path(directory), num_galaxies)
        alternatives = [
            Alternative("spark", partial(run_spark, spark, work), count_rows),
            Alternative("bare", partial(run_bare, pool, work)),
            Alternative("row_at_a_time", partial(run_row_at_a_time, spark, work), count_rows),
        ]
        measurement = measure(alternatives, NUM_VIEWS * num_galaxies, "views", rounds)
    report("augment", measurement, settings)


def prepare(spark: SparkSession, directory: Path, num_galaxies: int) -> Work:
    """Simulate galaxies below ``directory``, and do what the job does before it makes views."""
    settings = SimulateSettings(num_galaxies=num_galaxies, num_unlabelled=0)
    simulate(spark, SimulateJob(run=directory, seed=_SEED, simulate=settings))
    images = directory / "simulated" / "images"
    images_df = find_images(spark, str(images))
    labels = read_labels(spark, str(directory / "simulated" / "labels.csv"))
    recipe = ViewRecipe(
        seed=_SEED,
        size_px=_VIEW_SIZE_PX,
        field_of_view=0.5,
        colour_strength=0.1,
        colour_axes=colour_axes(spark, images_df, labels, _SPLIT_FRACTIONS),
        jpeg_quality=_JPEG_QUALITY,
    )
    work = Work(images, images_df, labels, recipe)
    return work


def run_spark(spark: SparkSession, work: Work, directory: Path) -> Path:
    """The job's own path; returns the dataset it wrote."""
    views_path = directory / "views"
    content_df = plan_partitions(spark, work.images_df, work.recipe, str(work.images))
    views_df = make_views_df(content_df, work.labels.galaxies_df, work.schema, work.recipe, _SPLIT_FRACTIONS)
    write_views(spark, views_df, views_path, work.schema)
    return views_path


def run_bare(pool: Pool, work: Work, directory: Path) -> int:
    """The kernel alone; returns how many views were made."""
    files = sorted(work.images.iterdir())
    return sum(pool.imap_unordered(partial(_num_views_of_file, work.recipe), files, _FILES_PER_CHUNK))


def _num_views_of_file(recipe: ViewRecipe, file: Path) -> int:
    return len(make_views(file.read_bytes(), file.stem, recipe))


def run_row_at_a_time(spark: SparkSession, work: Work, directory: Path) -> Path:
    """Petastorm's usual way, with the job's partitions and its writing; returns the dataset it wrote."""
    views_path = directory / "views"
    content_df = plan_partitions(spark, work.images_df, work.recipe, str(work.images))
    labelled_df = content_df.drop("path", "length").join(F.broadcast(work.labels.galaxies_df), "galaxy_id")
    rows = labelled_df.rdd.flatMap(partial(_rows_of_galaxy, work.schema, work.recipe))
    write_views(spark, spark.createDataFrame(rows, work.schema.as_spark_schema()), views_path, work.schema)
    return views_path


def _rows_of_galaxy(schema: Unischema, recipe: ViewRecipe, galaxy: Row) -> Iterator[Row]:
    values = galaxy.asDict()
    content = values.pop("content")
    split = split_of(galaxy.galaxy_id, _SPLIT_FRACTIONS)
    for view, pixels in enumerate(view_pixels(content, galaxy.galaxy_id, recipe)):
        yield dict_to_spark_row(schema, values | {"view": view, "image": pixels[..., ::-1], "split": split})


def count_rows(views_path: Path) -> int:
    """How many rows the files of a dataset say they have."""
    return sum(pq.read_metadata(file).num_rows for file in views_path.rglob("*.parquet"))
