"""What became of every image: views or the quarantine, counted from what was written."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import Any

import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from galaxyspark.dataset.images import Images, images_read
from galaxyspark.dataset.labels import LEFT_OUT, Labels
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.splits import SPLITS
from galaxyspark.storage import Place, as_url, filesystem_of
from galaxyspark.views.augment import NUM_VIEWS
from galaxyspark.views.batches import reasons_of_batches
from galaxyspark.views.reading import Reading

NO_LABEL = "no label"
_IMAGES_PER_TASK = 500
CANNOT_BE_READ = "file cannot be read"


def write_quarantine(
    spark: SparkSession,
    images: Images,
    labels: Labels,
    views_path: Place,
    quarantine_path: Place,
    reading: Reading,
    max_share: float,
) -> dict[str, int]:
    """Write ``galaxy_id``, ``path``, ``size`` (bytes), ``reason`` of every image that has no views.

    What is missing from the written views is what was lost, whatever the cause: so in = out + quarantined holds by
    construction, and retried tasks cannot count an image twice.

    Returns:
        How many images there are for each reason, the commonest first.

    Raises:
        UserError: More than ``max_share`` of the images are there, not counting those without a label (which the user
            allowed) and those that a label rule leaves out.
    """
    written_df = spark.read.parquet(as_url(views_path)).where("view = 0").select("galaxy_id")
    # A file that is no use may bear the id of one that is.
    unused_df = images.files_df.where("reason IS NOT NULL")
    lost_df = images.files_df.where("reason IS NULL").join(written_df, "galaxy_id", "left_anti")
    missing_df = unused_df.unionByName(lost_df).cache()
    labelled_df = missing_df.join(labels.unusable_df.withColumnRenamed("reason", "label_reason"), "galaxy_id", "left")
    known_df = labelled_df.join(
        labels.galaxies_df.select("galaxy_id", F.lit(True).alias("has_label")), "galaxy_id", "left"
    ).select(
        *("galaxy_id", "path", F.col("length").alias("size")),
        F.coalesce("reason", "label_reason", F.when(F.col("has_label").isNull(), NO_LABEL)).alias("reason"),
    )
    unreadable_df = lost_df.join(known_df.where("reason IS NULL").select("path"), "path", "left_semi")
    reasons_df = _reasons_of_unreadable(spark, images, unreadable_df, reading)
    quarantine_df = known_df.join(reasons_df.withColumnRenamed("reason", "found"), "path", "left").select(
        "galaxy_id", "path", "size", F.coalesce("reason", "found", F.lit(CANNOT_BE_READ)).alias("reason")
    )
    quarantine_df.coalesce(1).write.parquet(as_url(quarantine_path))
    rows = spark.read.parquet(as_url(quarantine_path)).groupBy("reason").count().orderBy(F.desc("count"), "reason")
    counts = {row["reason"]: row["count"] for row in rows.collect()}
    _refuse_too_many(spark, counts, images, quarantine_path, max_share)
    return counts


def _reasons_of_unreadable(
    spark: SparkSession, images: Images, unreadable_df: DataFrame, reading: Reading
) -> DataFrame:
    """``path`` and ``reason`` of images whose labels are sound, from reading them again."""
    reasons = partial(reasons_of_batches, reading=reading)
    with images_read(spark, images, unreadable_df, _IMAGES_PER_TASK) as content_df:
        reasons_df = content_df.select("path", "content").mapInArrow(reasons, "path string, reason string").cache()
        reasons_df.count()
    return reasons_df


def _refuse_too_many(
    spark: SparkSession, counts: dict[str, int], images: Images, quarantine_path: Place, max_share: float
) -> None:
    bad = {reason: count for reason, count in counts.items() if not reason.startswith((NO_LABEL, LEFT_OUT))}
    num_images = images.files_df.count()
    if sum(bad.values()) <= max_share * num_images:
        return
    rows_df = spark.read.parquet(as_url(quarantine_path)).groupBy("reason").agg(F.min("path").alias("path"))
    examples = {row["reason"]: row["path"] for row in rows_df.collect()}
    listed = "".join(f"\n  {count:,}  {reason}, such as {examples[reason]}" for reason, count in list(bad.items())[:8])
    raise UserError(
        f"--images {images.folder}: {sum(bad.values()):,} of {num_images:,} images cannot be used, more than "
        f"--max-quarantined {max_share:g} of them. Nothing was published.{listed}"
    )


def count_views(
    spark: SparkSession, images: Images, views_path: Place, classes: Sequence[str], quarantined: dict[str, int]
) -> dict[str, Any]:
    """Counts for the manifest, of the files as they are; the galaxies of each class in each split are those of view 0.

    Raises:
        UserError: A split has no galaxies.
        RuntimeError: Galaxies and quarantined images are not, together, the images that were listed.
    """
    views_df = spark.read.parquet(as_url(views_path))
    rows = views_df.groupBy("split", "label").agg(
        F.count_if(F.col("view") == 0).alias("galaxies"), F.count("*").alias("views")
    )
    galaxies = {split: dict.fromkeys(classes, 0) for split in SPLITS}
    views = dict.fromkeys(SPLITS, 0)
    for row in rows.collect():
        galaxies[row["split"]][row["label"]] = row["galaxies"]
        views[row["split"]] += row["views"]
    num_galaxies = sum(sum(of_split.values()) for of_split in galaxies.values())
    for split in SPLITS:
        if views[split] == 0:
            raise UserError(
                f"No galaxy of {num_galaxies:,} fell into the {split} split. More galaxies are needed, or a larger "
                f"share for it, such as --split-fractions 0.7 0.15 0.15, or --stratify."
            )
    num_images, num_quarantined = images.files_df.count(), sum(quarantined.values())
    if num_images != num_galaxies + num_quarantined or sum(views.values()) != NUM_VIEWS * num_galaxies:
        raise RuntimeError(
            f"{num_images} images in, but {num_galaxies} galaxies with {sum(views.values())} views and "
            f"{num_quarantined} quarantined out."
        )
    return {
        "counts": {
            "images": num_images,
            "galaxies": num_galaxies,
            "quarantined": num_quarantined,
            "left_out": sum(count for reason, count in quarantined.items() if reason.startswith(LEFT_OUT)),
            "views": views,
        },
        "quarantined_by_reason": quarantined,
        "galaxies_by_class": galaxies,
        "class_shares": class_shares(galaxies),
    }


def class_shares(galaxies: dict[str, dict[str, int]]) -> dict[str, dict[str, float]]:
    """Split -> class -> share of the split's galaxies, 0 to 1; ``all`` for the splits together."""
    together = {name: sum(of_split[name] for of_split in galaxies.values()) for name in next(iter(galaxies.values()))}
    shares = {}
    for split, of_split in {**galaxies, "all": together}.items():
        total = sum(of_split.values())
        shares[split] = {name: count / total if total else 0.0 for name, count in of_split.items()}
    return shares


def describe_files(views_path: Place) -> dict[str, Any]:
    """Number and size of the dataset's files and row groups, by split, from the files' footers."""
    filesystem, path = filesystem_of(views_path)
    return {split: _describe(filesystem, filesystem.glob(f"{path}/split={split}/*.parquet")) for split in SPLITS}


def _describe(filesystem: AbstractFileSystem, files: list[str]) -> dict[str, Any]:
    with ThreadPoolExecutor(8) as threads:
        footers = list(threads.map(partial(pq.read_metadata, filesystem=filesystem), files))
    row_groups = [footer.row_group(n).total_byte_size for footer in footers for n in range(footer.num_row_groups)]
    return {
        "files": len(files),
        "bytes": sum(filesystem.size(file) for file in files),
        "row_groups": len(row_groups),
        "row_group_mb": {
            "min": round(min(row_groups) / 2**20, 2),
            "median": round(median(row_groups) / 2**20, 2),
            "max": round(max(row_groups) / 2**20, 2),
        },
    }
