"""The images that the user hands in: listed without being read, then read with their bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from galaxyspark.errors import UserError
from galaxyspark.spark import told_plainly
from galaxyspark.views.decode import EMPTY_FILE

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "fits", "fit", "fits.gz", "fits.fz")
_OTHER_FORMATS = ("gif", "tif", "tiff", "bmp", "webp", "jp2", "heic", "avif")
# Upper and lower case, since a glob cannot pass over it: *.{[jJ][pP][gG],...}
_IMAGE_GLOB = f"*.{{{','.join(re.sub('[a-z]', lambda c: f'[{c[0]}{c[0].upper()}]', e) for e in IMAGE_ENDINGS)}}}"
_ID = rf"(?i)([^/]+?)\.(?:{'|'.join((*IMAGE_ENDINGS, *_OTHER_FORMATS)).replace('.', '[.]')})$"


@dataclass(frozen=True)
class Images:
    """Image files below a folder.

    Attributes:
        folder: Any path Spark reads.
        files_df: One row an image: ``path``, ``length`` (bytes), ``modified`` (milliseconds since 1970, null for
            empty files), ``galaxy_id`` (the file's name without its ending) and ``reason``, why it cannot be used,
            null where it is to be read.
        num_other_files: Files there that are no images by their name, which are passed over.
        max_file_mb: Larger files are not read.
    """

    folder: str
    files_df: DataFrame
    num_other_files: int
    max_file_mb: float


def find_images(spark: SparkSession, folder: str, flag: str = "--images", max_file_mb: float = 32.0) -> Images:
    """List the images below a folder, without reading them.

    Args:
        spark: The session.
        folder: Any path Spark reads.
        flag: The flag that named the folder, for messages.
        max_file_mb: Larger files are listed with a reason, and will not be read.

    Raises:
        UserError: The folder is missing or has no images.
    """
    listed_df = _binary_files(spark, folder, flag)
    files_df = listed_df.select("path", "length", _modified(), galaxy_id_of_path()).cache()
    files_df = files_df.union(_empty_files(spark, listed_df, files_df.select("path"))).cache()
    images_df = files_df.where("galaxy_id != ''")
    num_files, num_images = files_df.count(), images_df.count()
    if not num_images:
        endings = ", ".join(f".{ending}" for ending in IMAGE_ENDINGS[:4])
        raise UserError(f"{flag} {folder}: no {endings} files there, nor in its subfolders.")
    reason = (
        F.when(F.col("length") == 0, EMPTY_FILE)
        .when(_ending().isin(*_OTHER_FORMATS), F.concat(F.lit("unsupported format ."), _ending()))
        .when(F.col("length") > max_file_mb * 1e6, f"file larger than {max_file_mb:g} MB")
    )
    images_df = _with_same_id(images_df.withColumn("reason", reason))
    return Images(folder, images_df, num_files - num_images, max_file_mb)


def _with_same_id(images_df: DataFrame) -> DataFrame:
    """The same rows; files that could be read but share their id, of which any could be meant, have a reason too."""
    counts_df = images_df.where("reason IS NULL").groupBy("galaxy_id").agg(F.count("*").alias("same_id"))
    same_id = F.when(
        F.col("same_id").isNotNull(), F.concat(F.lit("same id as another file: "), "same_id", F.lit(" have it"))
    )
    joined_df = images_df.join(F.broadcast(counts_df.where("same_id > 1")), "galaxy_id", "left")
    return joined_df.withColumn("reason", F.coalesce("reason", same_id)).drop("same_id").cache()


def read_images(spark: SparkSession, images: Images) -> DataFrame:
    """The images without a ``reason``, with their bytes.

    Columns ``path``, ``length``, ``modified``, ``galaxy_id``, ``content``. Files that cannot be read, or are gone
    since, have no row.
    """
    content_df = (
        _reader(spark)
        .option("pathGlobFilter", _IMAGE_GLOB)
        .option("recursiveFileLookup", True)
        .load(images.folder)
        .where(F.col("length") <= int(images.max_file_mb * 1e6))  # binaryFile does not read what this leaves out
        .select(*_content_columns())
    )
    # The folder is listed again; what has come since is not of these images.
    listed_df = images.files_df.where("reason IS NULL").select("path")
    return content_df.join(F.broadcast(listed_df), "path", "left_semi")


def read_some_images(spark: SparkSession, paths: list[str]) -> DataFrame:
    """The same columns for single files. Files that are gone, or cannot be read, have no row."""
    hadoop = spark._jvm.org.apache.hadoop.fs.Path  # type: ignore[union-attr]
    configuration = spark._jsc.hadoopConfiguration()
    # Spark refuses a list that names one file that is not there. Names may have characters that mean a pattern to it.
    present = [path for path in paths if hadoop(path).getFileSystem(configuration).exists(hadoop(path))]
    quoted = [re.sub(r"([\[\]{}*?\\])", r"\\\1", path) for path in present]
    if not quoted:
        return spark.createDataFrame([], "path string, length long, modified long, galaxy_id string, content binary")
    return _reader(spark).load(quoted).select(*_content_columns())


def _content_columns() -> tuple[Column, ...]:
    return F.col("path"), F.col("length"), _modified(), galaxy_id_of_path(), F.col("content")


def _modified() -> Column:
    return F.unix_millis("modificationTime").alias("modified")


def galaxy_id_of_path() -> Column:
    """The column ``galaxy_id``: the file's name without folder and ending; empty where the ending is no image's."""
    return F.regexp_extract("path", _ID, 1).alias("galaxy_id")


def _ending() -> Column:
    return F.lower(F.regexp_extract("path", r"[.]([^./]+)$", 1))


def _reader(spark: SparkSession):  # type: ignore[no-untyped-def]
    """Spark's reader of whole files. What it cannot read it leaves out, and we find by what is missing."""
    return spark.read.format("binaryFile").option("ignoreCorruptFiles", True).option("ignoreMissingFiles", True)


def _binary_files(spark: SparkSession, folder: str, flag: str) -> DataFrame:
    try:
        return _reader(spark).option("recursiveFileLookup", True).load(folder)
    except (PySparkException, Py4JJavaError) as error:
        raise unreadable(f"{flag} {folder}", "folder", error) from None


def unreadable(given: str, what: str, error: PySparkException | Py4JJavaError) -> UserError:
    """What Spark says of a path, without its stack of calls."""
    if isinstance(error, PySparkException) and error.getCondition() == "PATH_NOT_FOUND":
        return UserError(f"{given}: no such {what}.")
    reason = error.java_exception.toString() if isinstance(error, Py4JJavaError) else str(error)
    return UserError(f"{given}: Spark cannot read it: {told_plainly(reason) or reason.splitlines()[0]}")


def _empty_files(spark: SparkSession, listed_df: DataFrame, rows_df: DataFrame) -> DataFrame:
    """The files of no bytes, which Spark's file sources find and then pass over: path, length (0) and galaxy_id."""
    found = listed_df._jdf.inputFiles()  # stays in the JVM: there may be millions
    paths: list[str] = []
    if spark._jvm.java.lang.reflect.Array.getLength(found) > rows_df.count():  # type: ignore[union-attr]
        listed = {row[0] for row in rows_df.collect()}
        paths = [path for path in (_as_in_rows(url) for url in found) if path not in listed]
    rows = [(path, 0, None) for path in paths]
    empty_df = spark.createDataFrame(rows, "path string, length long, modified long")
    return empty_df.select("path", "length", "modified", galaxy_id_of_path())


def _as_in_rows(url: str) -> str:
    """A path as the binaryFile source writes it into its rows: unquoted, and file:/ with one slash."""
    return re.sub("^file:/+", "file:/", unquote(url))
