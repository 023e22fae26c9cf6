"""A folder of image files to a few large Parquet files of them, which are listed and read in a fraction of the time."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from galaxyspark.dataset.images import Images, find_images, images_read
from galaxyspark.errors import UserError
from galaxyspark.settings import PackImagesJob
from galaxyspark.spark import progress

_ROW_GROUP_BYTES = 8 * 2**20


def pack_images(spark: SparkSession, job: PackImagesJob) -> dict[str, int]:
    """Write Parquet files of ``path`` (below the folder), ``length``, and ``content``, the bytes of the image file.

    Images that cannot be read, those of no bytes or too many, and formats that are not read have a row without content,
    so that their ids are not lost. After an error nothing is left.

    Returns:
        How many ``images`` there are, how many of them ``without_content``, and the number of ``shards``.

    Raises:
        UserError: There are no images, or the folder to write is there already.
    """
    if _exists(spark, job.packed):
        raise UserError(f"--packed {job.packed}: is there already. Name another folder, or remove it.")
    try:
        return _pack(spark, job)
    except BaseException:
        _remove(spark, job.packed)
        raise


def _pack(spark: SparkSession, job: PackImagesJob) -> dict[str, int]:
    images = find_images(spark, job.images, max_file_mb=job.max_file_mb)
    name = _name_below(spark, job.images)
    wanted_df = images.files_df.where(F.coalesce("length", F.lit(1)).between(1, int(job.max_file_mb * 1e6)))
    with (
        progress(spark, "pack-images"),
        images_read(spark, images, wanted_df, _images_of_shard(images, job.shard_mb)) as content_df,
    ):
        _write(content_df.select(name, "length", "content"), job.packed)
        written_df = spark.read.parquet(job.packed).select("path")
        unread_df = images.files_df.select(name, "length").join(written_df, "path", "left_anti")
        if not unread_df.isEmpty():
            _write(unread_df.withColumn("content", F.lit(None).cast("binary")).coalesce(1), job.packed)
    packed_df = spark.read.parquet(job.packed)
    num_images, num_content = packed_df.agg(F.count("*"), F.count("content")).collect()[0]
    if num_images != images.files_df.count():
        raise RuntimeError(f"{images.files_df.count()} images in, {num_images} packed.")
    shards = len(packed_df.inputFiles())
    return {"images": num_images, "without_content": num_images - num_content, "shards": shards}


def _write(rows_df: DataFrame, packed: str) -> None:
    # Small row groups, so that a few images out of many are soon found; JPEG bytes do not shrink.
    writer = rows_df.write.mode("append").option("compression", "none")
    writer.option("parquet.block.size", _ROW_GROUP_BYTES).parquet(packed)


def _images_of_shard(images: Images, shard_mb: float) -> int:
    num_images, num_bytes = images.files_df.agg(F.count("*"), F.sum("length")).collect()[0]
    return max(1, int(shard_mb * 1e6 * num_images / max(1, num_bytes or 0)))


def _name_below(spark: SparkSession, folder: str) -> Column:
    """The column ``path``: what stands behind the folder's own."""
    path = spark._jvm.org.apache.hadoop.fs.Path(folder)  # type: ignore[union-attr]
    root = path.getFileSystem(spark._jsc.hadoopConfiguration()).makeQualified(path).toString() + "/"
    below = F.substring(F.col("path"), len(root) + 1, 2**31 - 1)
    return F.when(F.col("path").startswith(root), below).otherwise(F.col("path")).alias("path")


def _remove(spark: SparkSession, folder: str) -> None:
    path = spark._jvm.org.apache.hadoop.fs.Path(folder)  # type: ignore[union-attr]
    path.getFileSystem(spark._jsc.hadoopConfiguration()).delete(path, True)


def _exists(spark: SparkSession, folder: str) -> bool:
    path = spark._jvm.org.apache.hadoop.fs.Path(folder)  # type: ignore[union-attr]
    exists: bool = path.getFileSystem(spark._jsc.hadoopConfiguration()).exists(path)
    return exists
