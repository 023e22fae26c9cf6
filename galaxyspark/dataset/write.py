"""The stage ``augment``: images and labels in, the petastorm dataset of views and the quarantine out."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from petastorm.etl.dataset_metadata import materialize_dataset
from petastorm.unischema import Unischema
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from galaxyspark.dataset.images import Images, find_images, images_read
from galaxyspark.dataset.labels import Labels, check_match, read_labels
from galaxyspark.dataset.petastorm_files import petastorm_files
from galaxyspark.dataset.reconcile import count_views, describe_files, write_quarantine
from galaxyspark.dataset.schema import views_schema
from galaxyspark.dataset.stratify import stratified
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.splits import SplitRule
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import AugmentJob, AugmentSettings
from galaxyspark.spark import progress
from galaxyspark.storage import Place, as_url
from galaxyspark.views.augment import NUM_VIEWS, ViewRecipe
from galaxyspark.views.batches import colour_sums_of_batches, views_of_batches
from galaxyspark.views.colour import ColourSums, principal_axes
from galaxyspark.views.preview import write_contact_sheet
from galaxyspark.views.reading import Reading

_COLOUR_SAMPLE = 400
_COLOUR_IMAGES_PER_TASK = 50
_PREVIEW_IMAGES = 24
GALAXIES_PER_TASK = 5_000
"""About as many in a task, where there are enough for all cores."""
_MIN_ROW_GROUPS = 32


def augment(spark: SparkSession, job: AugmentJob) -> dict[str, Any]:
    """Write ``views/`` and ``quarantine/`` of a run, and ``preview.png`` if asked for.

    Returns:
        The manifest that was published with them.

    Raises:
        UserError: The input cannot be used as it is; the message says what to do.
    """
    settings = job.augment
    if not math.isclose(sum(settings.split_fractions), 1) or min(settings.split_fractions) <= 0:
        raise UserError(f"--split-fractions {settings.split_fractions}: three shares above 0 that add up to 1.")
    images = find_images(spark, job.images, max_file_mb=settings.max_file_mb)
    labels = read_labels(spark, job.labels, settings)
    if not settings.allow_unmatched:
        check_match(images.files_df, labels, job.images, job.labels)

    with RunDirectory(job.run).stage("augment", job, {"images": job.images, "labels": job.labels}) as staging:
        split_rule = make_split_rule(images, labels, settings)
        sample = sample_of_training(images, labels, split_rule)
        recipe = make_recipe(spark, settings, job.seed, images, sample)
        if settings.preview:
            write_preview(spark, images, sample[:_PREVIEW_IMAGES], recipe, staging.path("preview.png"))
        views_path = staging.place("views")
        with progress(spark, "augment"):
            make_dataset(spark, images, labels, recipe, split_rule, views_path, settings.row_group_mb)
        quarantined = write_quarantine(
            spark, images, labels, views_path, staging.place("quarantine"), recipe.reading, settings.max_quarantined
        )
        counts = count_views(spark, images, views_path, labels.classes, quarantined)
        staging.manifest = {
            "recipe": asdict(recipe),
            "classes": labels.classes,
            "label_rule": labels.rule,
            "split": asdict(split_rule),
            "other_files": images.num_other_files,
            **counts,
            "files": describe_files(views_path),
        }
        staging.handled = sum(counts["counts"]["views"].values()), "views"
    return staging.manifest


def make_split_rule(images: Images, labels: Labels, settings: AugmentSettings) -> SplitRule:
    """How the galaxies that have an image and a label are shared out."""
    rule = SplitRule(settings.split_fractions, settings.split_seed)
    return stratified(rule, with_labels(images, labels)) if settings.stratify else rule


def sample_of_training(images: Images, labels: Labels, split_rule: SplitRule) -> list[str]:
    """Ids of some hundred images of the training split, the same ones however the images are listed."""
    candidates = (
        with_labels(images, labels)
        .orderBy(F.xxhash64("galaxy_id"))
        .select("galaxy_id", "label")
        .limit(4 * _COLOUR_SAMPLE)
        .collect()
    )
    sample = [galaxy_id for galaxy_id, label in candidates if split_rule.split_of(galaxy_id, label) == "train"]
    if not candidates:
        reasons = images.files_df.where("reason IS NOT NULL").groupBy("reason").count().orderBy(F.desc("count"))
        most = "".join(f", most of them for: {row['reason']}" for row in reasons.limit(1).collect())
        raise UserError(f"--images {images.folder}: no image can be used with a label{most}.")
    if not sample:
        raise UserError("No galaxy falls into the training split: more galaxies are needed.")
    return sample[:_COLOUR_SAMPLE]


def make_recipe(
    spark: SparkSession, settings: AugmentSettings, seed: int, images: Images, sample: list[str]
) -> ViewRecipe:
    """What all views have in common, with the colour axes of a sample of training images."""
    reading = Reading(
        max_file_mb=settings.max_file_mb,
        max_megapixels=settings.max_megapixels,
        fits_planes=settings.fits_planes,
        fits_stretch=settings.fits_stretch,
        fits_scale=settings.fits_scale,
        fits_softening=settings.fits_softening,
    )
    return ViewRecipe(
        seed=seed,
        size_px=settings.view_size_px,
        field_of_view=settings.field_of_view,
        colour_strength=settings.colour_strength,
        colour_axes=colour_axes(spark, images, sample, reading),
        jpeg_quality=settings.jpeg_quality,
        reading=reading,
    )


def colour_axes(
    spark: SparkSession, images: Images, sample: list[str], reading: Reading
) -> tuple[tuple[float, float, float], ...]:
    """The principal axes of colour over the images of some ids; see ``views.colour``."""
    schema = "num_pixels long, total array<double>, products array<double>"
    sums_of_batches = partial(colour_sums_of_batches, reading=reading)
    with images_read(spark, images, of_ids(images, sample), _COLOUR_IMAGES_PER_TASK) as content_df:
        rows = content_df.select("content").mapInArrow(sums_of_batches, schema).collect()
    zero = ColourSums(0, np.zeros(3), np.zeros((3, 3)))
    sums = sum(
        (ColourSums(row[0], np.array(row[1]), np.array(row[2]).reshape(3, 3)) for row in rows),
        start=zero,
    )
    if sums.num_pixels == 0:
        raise UserError(f"None of {len(sample)} training images can be decoded, such as that of {sample[0]}.")
    return principal_axes(sums)


def of_ids(images: Images, galaxy_ids: list[str]) -> DataFrame:
    """The images to be read of a few ids."""
    return images.files_df.where(F.col("reason").isNull() & F.col("galaxy_id").isin(galaxy_ids))


def write_preview(spark: SparkSession, images: Images, sample: list[str], recipe: ViewRecipe, file: Path) -> None:
    """Draw the views of some galaxies."""
    with images_read(spark, images, of_ids(images, sample), _COLOUR_IMAGES_PER_TASK) as content_df:
        rows = content_df.select("galaxy_id", "content").orderBy(F.xxhash64("galaxy_id")).collect()
    write_contact_sheet({row["galaxy_id"]: bytes(row["content"]) for row in rows}, recipe, file)


def make_dataset(
    spark: SparkSession,
    images: Images,
    labels: Labels,
    recipe: ViewRecipe,
    split_rule: SplitRule,
    path: Place,
    largest_row_group_mb: int,
) -> None:
    """Images and labels to the petastorm dataset of views."""
    schema = views_schema(recipe.size_px, recipe.jpeg_quality)
    labelled_df = with_labels(images, labels)
    row_groups_mb = row_group_mb(labelled_df.count(), recipe.size_px, largest_row_group_mb)
    with images_read(spark, images, labelled_df, GALAXIES_PER_TASK) as content_df:
        views_df = make_views_df(content_df, schema, recipe, split_rule)
        write_views(spark, views_df, path, schema, row_groups_mb)


def with_labels(images: Images, labels: Labels) -> DataFrame:
    """The images to be read that have a label, with it: joined before there are pixels, since this may be shuffled."""
    return images.files_df.where("reason IS NULL").join(labels.galaxies_df, "galaxy_id")


def row_group_mb(num_images: int, view_size_px: int, largest_mb: int) -> int:
    """Size of row groups: small datasets too are to have some dozens, for the ranks to share and to shuffle."""
    expected_mb = num_images * NUM_VIEWS * 0.2 * view_size_px**2 / 2**20
    return max(1, min(largest_mb, round(expected_mb / _MIN_ROW_GROUPS)))


def make_views_df(content_df: DataFrame, schema: Unischema, recipe: ViewRecipe, split_rule: SplitRule) -> DataFrame:
    """Images with their ``content`` and labels to one row a view; the columns are those of ``schema``."""
    columns = list(schema.fields)
    of_galaxy = [name for name in columns if name not in ("view", "image", "split")]
    make_views = partial(views_of_batches, recipe=recipe, split_rule=split_rule)
    ordered = partial(_in_order, make_views, columns)
    return content_df.select(*of_galaxy, "content").mapInArrow(ordered, schema.as_spark_schema())


def _in_order(make_views, columns, batches):  # type: ignore[no-untyped-def]
    """Spark takes the columns of Arrow batches by position."""
    for batch in make_views(batches):
        yield batch.select(columns)


def write_views(spark: SparkSession, views_df: DataFrame, path: Place, schema: Unischema, row_group_mb: int) -> None:
    """Write the petastorm dataset, a directory per split, its JPEG bytes as they are: they do not shrink."""
    url = as_url(path)
    factory = None if url.startswith("file:") else partial(petastorm_files, url)
    with materialize_dataset(spark, url, schema, row_group_mb, filesystem_factory=factory):
        views_df.write.partitionBy("split").option("compression", "none").parquet(url)
