"""The stage ``augment``: images and labels in, the petastorm dataset of views and the quarantine out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from petastorm.etl.dataset_metadata import materialize_dataset
from petastorm.unischema import Unischema
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from galaxyspark.dataset.inputs import (
    Labels,
    check_match,
    find_images,
    read_images,
    read_labels,
    read_some_images,
)
from galaxyspark.dataset.schema import views_schema
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.splits import SPLITS, split_of
from galaxyspark.run_directory import RunDirectory, file_url
from galaxyspark.settings import AugmentJob
from galaxyspark.spark import progress
from galaxyspark.views.augment import NUM_VIEWS, ViewRecipe
from galaxyspark.views.batches import colour_sums_of_batches, reasons_of_batches, views_of_batches
from galaxyspark.views.colour import ColourSums, principal_axes
from galaxyspark.views.decode import EMPTY_FILE

ROW_GROUP_MB = 32
_COLOUR_SAMPLE = 400
_FILE_MB = 128
_QUARANTINE_COLUMNS = "galaxy_id string, path string, length long, reason string"


def augment(spark: SparkSession, job: AugmentJob) -> dict[str, Any]:
    """Write ``views/`` and ``quarantine/`` of a run.

    Returns:
        The manifest that was published with them.

    Raises:
        UserError: The input cannot be used as it is; the message says what to do.
    """
    settings = job.augment
    if not math.isclose(sum(settings.split_fractions), 1) or min(settings.split_fractions) <= 0:
        raise UserError(f"--split-fractions {settings.split_fractions}: three shares above 0 that add up to 1.")
    images_df = find_images(spark, job.images)
    labels = read_labels(spark, job.labels)
    if not settings.allow_unmatched:
        check_match(images_df, labels, job.images, job.labels)

    with RunDirectory(job.run).stage("augment", job, {"images": job.images, "labels": job.labels}) as staging:
        recipe = ViewRecipe(
            seed=job.seed,
            size_px=settings.view_size_px,
            field_of_view=settings.field_of_view,
            colour_strength=settings.colour_strength,
            colour_axes=colour_axes(spark, images_df, labels, settings.split_fractions),
            jpeg_quality=settings.jpeg_quality,
        )
        schema = views_schema(recipe.size_px, recipe.jpeg_quality)
        views_path, quarantine_path = staging.path("views"), staging.path("quarantine")
        with progress(spark, "augment"):
            content_df = plan_partitions(spark, images_df, recipe, job.images)
            views_df = make_views_df(content_df, labels.galaxies_df, schema, recipe, settings.split_fractions)
            write_views(spark, views_df, views_path, schema)
        quarantined = quarantine(spark, images_df, labels, views_path, quarantine_path)
        staging.manifest = {
            "recipe": asdict(recipe),
            "classes": labels.classes,
            **_counts(spark, views_path, labels, images_df.count(), quarantined),
        }
        staging.handled = sum(staging.manifest["counts"]["views"].values()), "views"
    return staging.manifest


def colour_axes(
    spark: SparkSession, images_df: DataFrame, labels: Labels, split_fractions: Sequence[float]
) -> tuple[tuple[float, float, float], ...]:
    """The principal axes of colour over a sample of the training images; see ``views.colour``."""
    candidates = (
        images_df.join(labels.galaxies_df, "galaxy_id", "left_semi")
        .orderBy(F.xxhash64("galaxy_id"))
        .select("galaxy_id", "path")
        .limit(4 * _COLOUR_SAMPLE)
        .collect()
    )
    paths = [row["path"] for row in candidates if split_of(row["galaxy_id"], split_fractions) == "train"]
    if not paths:
        raise UserError("No galaxy falls into the training split: more galaxies are needed.")
    sample_df = read_some_images(spark, paths[:_COLOUR_SAMPLE]).select("content")
    schema = "num_pixels long, total array<double>, products array<double>"
    rows = sample_df.mapInArrow(colour_sums_of_batches, schema).collect()
    zero = ColourSums(0, np.zeros(3), np.zeros((3, 3)))
    sums = sum(
        (ColourSums(row[0], np.array(row[1]), np.array(row[2]).reshape(3, 3)) for row in rows),
        start=zero,
    )
    if sums.num_pixels == 0:
        raise UserError(f"None of {len(paths[:_COLOUR_SAMPLE])} training images can be decoded, such as {paths[0]}.")
    return principal_axes(sums)


def plan_partitions(spark: SparkSession, images_df: DataFrame, recipe: ViewRecipe, images: str) -> DataFrame:
    """The images with their bytes, in as many Spark partitions as give every core work and files of fair size."""
    num_images, total_bytes = images_df.agg(F.count("*"), F.sum("length")).collect()[0]
    view_bytes = 0.3 * recipe.size_px**2
    for_file_size = num_images * NUM_VIEWS * view_bytes / (_FILE_MB * 2**20)
    num_partitions = max(4 * spark.sparkContext.defaultParallelism, math.ceil(for_file_size))
    spark.conf.set("spark.sql.files.maxPartitionBytes", str(max(1, total_bytes // num_partitions)))
    return read_images(spark, images)


def make_views_df(
    content_df: DataFrame,
    galaxies_df: DataFrame,
    schema: Unischema,
    recipe: ViewRecipe,
    split_fractions: Sequence[float],
) -> DataFrame:
    """Images with their bytes, and labels, to one row a view; the columns are those of ``schema``."""
    labelled_df = content_df.select("galaxy_id", "content").join(F.broadcast(galaxies_df), "galaxy_id")
    columns = list(schema.fields)
    make_views = partial(views_of_batches, recipe=recipe, split_fractions=split_fractions)
    ordered = partial(_in_order, make_views, columns)
    return labelled_df.mapInArrow(ordered, schema.as_spark_schema())


def _in_order(make_views, columns, batches):  # type: ignore[no-untyped-def]
    """Spark takes the columns of Arrow batches by position."""
    for batch in make_views(batches):
        yield batch.select(columns)


def write_views(spark: SparkSession, views_df: DataFrame, path: Path, schema: Unischema) -> None:
    """Write the petastorm dataset, a directory per split, its JPEG bytes as they are: they do not shrink."""
    url = file_url(path)
    with materialize_dataset(spark, url, schema, ROW_GROUP_MB):
        views_df.write.partitionBy("split").option("compression", "none").parquet(url)


def quarantine(
    spark: SparkSession, images_df: DataFrame, labels: Labels, views_path: Path, quarantine_path: Path
) -> int:
    """Write ``galaxy_id``, ``path``, ``length``, ``reason`` of every image that has no views, and count them.

    What is missing from the written views is what was lost, whatever the cause: so in = out + quarantined holds by
    construction, and retried tasks cannot count an image twice.
    """
    written_df = spark.read.parquet(file_url(views_path)).where("view = 0").select("galaxy_id")
    missing_df = images_df.join(written_df, "galaxy_id", "left_anti").cache()
    bad_label_df = missing_df.join(labels.unusable_df, "galaxy_id")
    no_label_df = missing_df.join(labels.galaxies_df, "galaxy_id", "left_anti").join(
        labels.unusable_df, "galaxy_id", "left_anti"
    )
    empty_df = missing_df.where("length = 0")
    columns = ["galaxy_id", "path", "length", "reason"]
    reasons_df = (
        bad_label_df.select(columns)
        .union(no_label_df.withColumn("reason", F.lit("no label")).select(columns))
        .union(empty_df.withColumn("reason", F.lit(EMPTY_FILE)).select(columns))
        .dropDuplicates(["galaxy_id"])
    )
    unreadable = [row["path"] for row in missing_df.join(reasons_df, "galaxy_id", "left_anti").select("path").collect()]
    if unreadable:
        content_df = read_some_images(spark, unreadable)
        reasons_df = reasons_df.union(content_df.mapInArrow(reasons_of_batches, _QUARANTINE_COLUMNS))
    reasons_df.coalesce(1).write.parquet(file_url(quarantine_path))
    return spark.read.parquet(file_url(quarantine_path)).count()


def _counts(
    spark: SparkSession, views_path: Path, labels: Labels, num_images: int, num_quarantined: int
) -> dict[str, Any]:
    """Counts for the manifest; the galaxies of each class in each split are those of view 0."""
    views_df = spark.read.parquet(file_url(views_path))
    rows = views_df.groupBy("split", "label").agg(
        F.count_if(F.col("view") == 0).alias("galaxies"), F.count("*").alias("views")
    )
    galaxies = {split: dict.fromkeys(labels.classes, 0) for split in SPLITS}
    views = dict.fromkeys(SPLITS, 0)
    for row in rows.collect():
        galaxies[row["split"]][row["label"]] = row["galaxies"]
        views[row["split"]] += row["views"]
    num_galaxies = sum(sum(of_split.values()) for of_split in galaxies.values())
    if num_galaxies + num_quarantined != num_images:
        raise RuntimeError(f"{num_images} images in, but {num_galaxies} + {num_quarantined} quarantined out.")
    for split in SPLITS:
        if views[split] == 0:
            raise UserError(
                f"No galaxy of {num_galaxies:,} fell into the {split} split. More galaxies are needed, or a larger "
                f"share for it, such as --split-fractions 0.7 0.15 0.15."
            )
    return {
        "counts": {
            "images": num_images,
            "galaxies": num_galaxies,
            "quarantined": num_quarantined,
            "views": views,
        },
        "galaxies_by_class": galaxies,
    }
