"""The images that the user hands in: listed without being read, then read with their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from galaxyspark.dataset.folder import IMAGE_ENDINGS, folder_read, list_folder
from galaxyspark.dataset.packed import list_shards, read_packed
from galaxyspark.dataset.shards import SHARD_ENDINGS
from galaxyspark.errors import UserError
from galaxyspark.spark import even_tasks
from galaxyspark.views.decode import EMPTY_FILE

_OTHER_FORMATS = ("gif", "tif", "tiff", "bmp", "webp", "jp2", "heic", "avif")
_ID = rf"(?i)([^/]+?)\.(?:{'|'.join((*IMAGE_ENDINGS, *_OTHER_FORMATS)).replace('.', '[.]')})$"
_SHARD = rf"(?i)\.(?:{'|'.join(SHARD_ENDINGS)})$"
_COMPRESSED_SHARD = r"(?i)\.(?:tgz|tar\.(?:gz|bz2|xz|zst|lz4))$"


@dataclass(frozen=True)
class Images:
    """Images below a folder: files of their own, or packed into shards.

    Attributes:
        folder: Any path Spark reads.
        files_df: One row an image: ``path``, ``length`` (bytes; null where only reading it would tell), ``modified``
            (milliseconds since 1970, null for empty files), ``galaxy_id`` (the file's name without its ending) and
            ``reason``, why it cannot be used, null where it is to be read. Of packed images also where they lie.
        num_other_files: What is there too but is no image by its name, and is passed over.
        max_file_mb: Larger files are not read.
        packed: Whether they are in shards.
    """

    folder: str
    files_df: DataFrame
    num_other_files: int
    max_file_mb: float
    packed: bool = False


def find_images(spark: SparkSession, folder: str, flag: str = "--images", max_file_mb: float = 32.0) -> Images:
    """List the images below a folder, without reading them.

    Args:
        spark: The session.
        folder: Any path Spark reads, of image files or of shards; what lies there tells which.
        flag: The flag that named the folder, for messages.
        max_file_mb: Larger files are listed with a reason, and will not be read.

    Raises:
        UserError: The folder is missing or has no images, has both files and shards, or shards that are broken.
    """
    files_df = list_folder(spark, folder, flag).withColumn("galaxy_id", galaxy_id_of("path")).cache()
    shards_df = files_df.where(F.col("path").rlike(_SHARD))
    num_files, num_images, num_shards, num_compressed = files_df.agg(
        F.count("*"),
        F.count_if(F.col("galaxy_id") != ""),
        F.count_if(F.col("path").rlike(_SHARD)),
        F.count_if(F.col("path").rlike(_COMPRESSED_SHARD)),
    ).collect()[0]
    given = f"{flag} {folder}"
    if num_images and num_shards:
        raise UserError(
            f"{given}: image files ({num_images:,}) and shards (.tar, .parquet; {num_shards:,}) lie there. Keep them "
            "apart: it is not clear which of them are meant."
        )
    if num_compressed and not num_images:
        raise UserError(
            f"{given}: {num_compressed:,} compressed tar files lie there, which can be read from their beginning "
            "only. Unpack them to .tar (images are compressed already)."
        )
    if num_shards:
        members_df = list_shards(shards_df, given).withColumn("galaxy_id", _galaxy_id_of_member()).drop("name").cache()
        num_files, num_images = num_files - num_shards + members_df.count(), members_df.where("galaxy_id != ''").count()
        files_df = members_df
    if not num_images:
        endings = ", ".join(f".{ending}" for ending in IMAGE_ENDINGS[:4])
        raise UserError(
            f"{given}: no {endings} files there, nor in its subfolders, nor shards (.tar, .parquet) of them."
        )
    images_df = _with_same_id(files_df.where("galaxy_id != ''").withColumn("reason", _reason(max_file_mb)))
    return Images(folder, images_df, num_files - num_images, max_file_mb, packed=num_shards > 0)


@contextmanager
def images_read(spark: SparkSession, images: Images, wanted_df: DataFrame, images_per_task: int) -> Iterator[DataFrame]:
    """Images with their ``content`` (bytes of the file), split into tasks of even work while the body runs.

    Args:
        spark: The session.
        images: All images.
        wanted_df: Rows of ``images.files_df`` to read, and any other columns, which are kept.
        images_per_task: About as many, where there are enough for all cores.

    Yields:
        The rows of ``wanted_df``. Images that cannot be read, or are gone since, have no row.
    """
    # Found out before the body's split holds, which would take what these rows come from apart too.
    wanted_df = wanted_df.cache()
    try:
        if images.packed:
            yield read_packed(wanted_df, even_tasks(spark, wanted_df.count(), images_per_task))
            return
        with folder_read(
            spark, images.folder, images.files_df, wanted_df, images.max_file_mb, images_per_task
        ) as content_df:
            yield content_df
    finally:
        wanted_df.unpersist()


def galaxy_id_of(column: str) -> Column:
    """A file's name without folder and ending; empty where the ending is no image's."""
    return F.regexp_extract(column, _ID, 1)


def _galaxy_id_of_member() -> Column:
    """As of a file; but all rows of a Parquet file are images, and their names may be ids without an ending."""
    by_ending = galaxy_id_of("name")
    is_row = F.lower("shard").endswith(".parquet") & (by_ending == "")
    return F.when(is_row, F.substring_index("name", "/", -1)).otherwise(by_ending)


def _reason(max_file_mb: float) -> Column:
    """Why an image cannot be used, as far as its name and its length tell; null where it is to be read."""
    ending = F.lower(F.regexp_extract("path", r"[.]([^./]+)$", 1))
    return (
        F.when(F.col("length") == 0, EMPTY_FILE)
        .when(ending.isin(*_OTHER_FORMATS), F.concat(F.lit("unsupported format ."), ending))
        .when(F.col("length") > max_file_mb * 1e6, f"file larger than {max_file_mb:g} MB")
    )


def _with_same_id(images_df: DataFrame) -> DataFrame:
    """The same rows; files that could be read but share their id, of which any could be meant, have a reason too."""
    counts_df = images_df.where("reason IS NULL").groupBy("galaxy_id").agg(F.count("*").alias("same_id"))
    same_id = F.when(
        F.col("same_id").isNotNull(), F.concat(F.lit("same id as another file: "), "same_id", F.lit(" have it"))
    )
    joined_df = images_df.join(counts_df.where("same_id > 1"), "galaxy_id", "left")
    return joined_df.withColumn("reason", F.coalesce("reason", same_id)).drop("same_id").cache()
