"""Images that are files of their own in a folder, listed and read by Spark's own source of whole files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from galaxyspark.errors import UserError
from galaxyspark.spark import input_split, told_plainly

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "fits", "fit", "fits.gz", "fits.fz")

# Upper and lower case, since a glob cannot pass over it: *.{[jJ][pP][gG],...}
_IMAGE_GLOB = f"*.{{{','.join(re.sub('[a-z]', lambda c: f'[{c[0]}{c[0].upper()}]', e) for e in IMAGE_ENDINGS)}}}"
_FEW_FILES = 2_000
_MOST_BROADCAST = 1_000_000


def list_folder(spark: SparkSession, folder: str, flag: str) -> DataFrame:
    """All files below a folder: ``path``, ``length`` (bytes) and ``modified`` (milliseconds since 1970).

    Empty files are among them; when those were modified is not known.

    Raises:
        UserError: There is no such folder, or Spark cannot read it.
    """
    try:
        listed_df = _reader(spark).option("recursiveFileLookup", True).load(folder)
    except (PySparkException, Py4JJavaError) as error:
        raise unreadable(f"{flag} {folder}", "folder", error) from None
    modified = F.unix_millis("modificationTime").alias("modified")
    files_df = listed_df.select("path", "length", modified).cache()
    return files_df.union(_empty_files(spark, listed_df, files_df.select("path")))


@contextmanager
def folder_read(
    spark: SparkSession,
    folder: str,
    files_df: DataFrame,
    wanted_df: DataFrame,
    max_file_mb: float,
    images_per_task: int,
) -> Iterator[DataFrame]:
    """Some files of a folder with their ``content``, split into tasks of even work while the body runs.

    Args:
        spark: The session.
        folder: The folder.
        files_df: All images there: ``path`` and ``length``.
        wanted_df: ``path`` and ``length`` of those to read, and any other columns.
        max_file_mb: Larger files are not read.
        images_per_task: About as many, where there are enough for all cores.
    """
    size = F.count("*"), F.coalesce(F.sum("length"), F.lit(0))
    (num_wanted, wanted_bytes), (num_files, num_bytes) = (df.agg(*size).collect()[0] for df in (wanted_df, files_df))
    if num_wanted <= min(_FEW_FILES, num_files / 4):
        content_df = _single_files(spark, [row["path"] for row in wanted_df.select("path").collect()])
        num_files, num_bytes = num_wanted, wanted_bytes
    else:  # lists the whole folder again, so that is what is split; what has come since is not wanted
        content_df = _whole_folder(spark, folder, max_file_mb)
    # Pixels are not shuffled if it can be helped, but more rows than this are too many to send to every executor.
    sent_df = F.broadcast(wanted_df) if num_wanted <= _MOST_BROADCAST else wanted_df
    with input_split(spark, num_files, num_bytes, images_per_task):
        yield content_df.join(sent_df, "path")


def unreadable(given: str, what: str, error: PySparkException | Py4JJavaError) -> UserError:
    """What Spark says of a path, without its stack of calls."""
    if isinstance(error, PySparkException) and error.getCondition() == "PATH_NOT_FOUND":
        return UserError(f"{given}: no such {what}.")
    reason = error.java_exception.toString() if isinstance(error, Py4JJavaError) else str(error)
    return UserError(f"{given}: Spark cannot read it: {told_plainly(reason) or reason.splitlines()[0]}")


def _whole_folder(spark: SparkSession, folder: str, max_file_mb: float) -> DataFrame:
    reader = _reader(spark).option("pathGlobFilter", _IMAGE_GLOB).option("recursiveFileLookup", True)
    small_enough = F.col("length") <= int(max_file_mb * 1e6)  # binaryFile does not read what this leaves out
    return reader.load(folder).where(small_enough).select("path", "content")


def _single_files(spark: SparkSession, paths: list[str]) -> DataFrame:
    """``path`` and ``content``. Files that are gone, or cannot be read, have no row."""
    hadoop = spark._jvm.org.apache.hadoop.fs.Path  # type: ignore[union-attr]
    configuration = spark._jsc.hadoopConfiguration()
    # Spark refuses a list that names one file that is not there. Names may have characters that mean a pattern to it.
    present = [path for path in paths if hadoop(path).getFileSystem(configuration).exists(hadoop(path))]
    quoted = [re.sub(r"([\[\]{}*?\\])", r"\\\1", path) for path in present]
    if not quoted:
        return spark.createDataFrame([], "path string, content binary")
    return _reader(spark).load(quoted).select("path", "content")


def _reader(spark: SparkSession):  # type: ignore[no-untyped-def]
    """Spark's reader of whole files. What it cannot read it leaves out, and we find by what is missing."""
    return spark.read.format("binaryFile").option("ignoreCorruptFiles", True).option("ignoreMissingFiles", True)


def _empty_files(spark: SparkSession, listed_df: DataFrame, rows_df: DataFrame) -> DataFrame:
    """The files of no bytes, which Spark's file sources find and then pass over: path, length (0) and modified."""
    found = listed_df._jdf.inputFiles()  # stays in the JVM: there may be millions
    nothing_df = spark.createDataFrame([], "path string, length long, modified long")
    if spark._jvm.java.lang.reflect.Array.getLength(found) == rows_df.count():  # type: ignore[union-attr]
        return nothing_df
    urls = spark._jvm.scala.collection.immutable.ArraySeq.unsafeWrapArray(found)  # type: ignore[union-attr]
    text = spark._jvm.org.apache.spark.sql.Encoders.STRING()  # type: ignore[union-attr]
    urls_df = DataFrame(spark._jsparkSession.createDataset(urls, text).toDF(), spark)
    # As the binaryFile source writes paths into its rows: unquoted, and file:/ with one slash.
    unquoted = F.url_decode(F.replace("value", F.lit("+"), F.lit("%2B")))
    paths_df = urls_df.select(F.regexp_replace(unquoted, "^file:/+", "file:/").alias("path"))
    empty_df = paths_df.join(rows_df, "path", "left_anti").select("path", F.lit(0).alias("length"))
    return nothing_df.unionByName(empty_df, allowMissingColumns=True)
