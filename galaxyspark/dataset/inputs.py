"""What the user hands in: a folder of images and a file of labels, checked before any long work."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from galaxyspark.dataset.schema import VOTE_FIELDS
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.tree import ID_COLUMN, MORPHOLOGY_CLASSES, VOTE_COLUMNS

IMAGE_FILES = "*.{[jJ][pP][gG],[jJ][pP][eE][gG],[pP][nN][gG]}"
LABEL_COLUMN = "label"
MAX_CLASSES = 50
_CLASS_VOTES = VOTE_COLUMNS[: len(MORPHOLOGY_CLASSES)]


@dataclass(frozen=True)
class Labels:
    """The labels of galaxies.

    Attributes:
        galaxies_df: Columns ``galaxy_id``, ``label`` and the vote fields (null where there are only labels).
        unusable_df: Columns ``galaxy_id``, ``reason``: rows whose label or votes cannot be used.
        classes: Names of the classes, in the order in which counts and probabilities are given.
    """

    galaxies_df: DataFrame
    unusable_df: DataFrame
    classes: tuple[str, ...]


def find_images(spark: SparkSession, images: str, flag: str = "--images") -> DataFrame:
    """List the images below a folder, without reading them. Files of no bytes are listed, with length 0.

    Args:
        spark: The session.
        images: Any path Spark reads.
        flag: The flag that named the folder, for messages.

    Returns:
        Columns ``path``, ``length`` (bytes) and ``galaxy_id`` (the file's name without its ending), one row an image.

    Raises:
        UserError: The folder is missing or has no images, or two images have the same id.
    """
    files_df = _binary_files(spark, images, flag)
    images_df = files_df.select("path", "length", galaxy_id_of_path()).cache()
    images_df = images_df.union(_empty_files(spark, files_df, images_df.select("path"))).cache()
    if images_df.isEmpty():
        raise UserError(f"{flag} {images}: no .jpg, .jpeg or .png files there, nor in its subfolders.")
    twice = images_df.groupBy("galaxy_id").agg(F.count("*").alias("n"), F.min("path"), F.max("path")).where("n > 1")
    for row in twice.limit(1).collect():
        raise UserError(
            f"{flag} {images}: two images have the id {row[0]}: {row[2]} and {row[3]}. "
            "The file's name is the galaxy's id; rename or remove one."
        )
    return images_df


def read_some_images(spark: SparkSession, paths: list[str]) -> DataFrame:
    """The same columns as ``read_images`` for single files; their names may have characters that mean a pattern."""
    quoted = [re.sub(r"([\[\]{}*?\\])", r"\\\1", path) for path in paths]
    return spark.read.format("binaryFile").load(quoted).select("path", "length", galaxy_id_of_path(), "content")


def read_images(spark: SparkSession, images: str) -> DataFrame:
    """The images below a folder with their bytes: columns ``path``, ``length``, ``galaxy_id``, ``content``.

    Spark's binaryFile source leaves out files of no bytes; ``find_images`` lists them.
    """
    return _binary_files(spark, images, "--images").select("path", "length", galaxy_id_of_path(), "content")


def _empty_files(spark: SparkSession, files_df: DataFrame, listed_df: DataFrame) -> DataFrame:
    """The files of no bytes, which Spark's file sources find and then pass over: path, length (0) and galaxy_id."""
    found = files_df._jdf.inputFiles()  # stays in the JVM: there may be millions
    paths: list[str] = []
    if spark._jvm.java.lang.reflect.Array.getLength(found) > listed_df.count():  # type: ignore[union-attr]
        listed = {row[0] for row in listed_df.collect()}
        paths = [path for path in (_as_in_rows(url) for url in found) if path not in listed]
    rows = [(path, 0) for path in paths]
    return spark.createDataFrame(rows, "path string, length long").select("path", "length", galaxy_id_of_path())


def _as_in_rows(url: str) -> str:
    """A path as the binaryFile source writes it into its rows: unquoted, and file:/ with one slash."""
    return re.sub("^file:/+", "file:/", unquote(url))


def galaxy_id_of_path() -> Column:
    """The column ``galaxy_id``: the file's name without folder and ending."""
    return F.regexp_extract("path", r"([^/]+)\.[^./]+$", 1).alias("galaxy_id")


def _binary_files(spark: SparkSession, images: str, flag: str) -> DataFrame:
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", True).option("pathGlobFilter", IMAGE_FILES)
    try:
        return reader.load(images)
    except (PySparkException, Py4JJavaError) as error:
        raise _unreadable(f"{flag} {images}", "folder", error) from None


def _unreadable(given: str, what: str, error: PySparkException | Py4JJavaError) -> UserError:
    """What Spark says of a path, without its stack of calls."""
    if isinstance(error, PySparkException) and error.getCondition() == "PATH_NOT_FOUND":
        return UserError(f"{given}: no such {what}.")
    reason = error.java_exception.toString() if isinstance(error, Py4JJavaError) else str(error)
    return UserError(f"{given}: Spark cannot read it: {reason.splitlines()[0]}")


def read_labels(spark: SparkSession, labels: str) -> Labels:
    """Read labels in either format, told apart by the header.

    Args:
        spark: The session.
        labels: CSV with a header: ``GalaxyID`` and the challenge's 37 vote columns (the class is then the answer to
            question 1 with most votes), or ``GalaxyID,label``.

    Raises:
        UserError: The file is missing or empty, its columns are neither format, an id is missing or stands twice,
            there is one class only, or ``label`` has values that cannot be classes.
    """
    rows_df = _read_csv(spark, labels)
    columns = rows_df.columns
    if ID_COLUMN not in columns:
        raise UserError(f"--labels {labels}: no column {ID_COLUMN}; its header has {_some(columns)}.")
    filled = [F.col("`" + column.replace("`", "``") + "`") for column in columns]
    rows_df = rows_df.where(F.coalesce(*filled).isNotNull())  # spreadsheets end with rows of nothing
    if without_id := rows_df.where(F.col(ID_COLUMN).isNull()).count():
        raise UserError(
            f"--labels {labels}: {without_id} rows have nothing in column {ID_COLUMN}; remove or mend them."
        )
    if set(VOTE_COLUMNS) <= set(columns):
        galaxies_df = _from_votes(rows_df)
    elif LABEL_COLUMN in columns:
        galaxies_df = _from_hard_labels(rows_df)
    else:
        missing = [column for column in VOTE_COLUMNS if column not in columns]
        raise UserError(
            f"--labels {labels}: neither format. Beside {ID_COLUMN} there must be the 37 vote columns Class1.1 to "
            f"Class11.6 (missing: {_some(missing)}) or a column {LABEL_COLUMN}; the header has {_some(columns)}."
        )
    galaxies_df = galaxies_df.cache()
    _refuse_repeated_ids(galaxies_df, labels)
    usable_df = galaxies_df.where("reason IS NULL").drop("reason")
    unusable_df = galaxies_df.where("reason IS NOT NULL").select("galaxy_id", "reason")
    return Labels(usable_df, unusable_df, _classes(usable_df, labels))


def _read_csv(spark: SparkSession, labels: str) -> DataFrame:
    try:
        # Quotes are doubled, as spreadsheets and pandas write them.
        rows_df = spark.read.csv(
            labels, header=True, escape='"', ignoreLeadingWhiteSpace=True, ignoreTrailingWhiteSpace=True
        )
    except (PySparkException, Py4JJavaError) as error:
        raise _unreadable(f"--labels {labels}", "file", error) from None
    if not rows_df.columns:
        raise UserError(f"--labels {labels}: the file is empty.")
    return rows_df


def _from_votes(rows_df: DataFrame) -> DataFrame:
    votes = [F.expr(f"try_cast(`{column}` AS FLOAT)").alias(field) for column, field in VOTE_FIELDS.items()]
    votes_df = rows_df.select(F.col(ID_COLUMN).alias("galaxy_id"), *votes)
    outside = [F.coalesce(~F.col(field).between(0, 1), F.lit(True)) for field in VOTE_FIELDS.values()]
    first_bad = F.coalesce(*(F.when(bad, F.lit(column)) for bad, column in zip(outside, VOTE_FIELDS, strict=True)))
    shares = [F.col(VOTE_FIELDS[column]) for column in _CLASS_VOTES]
    label = F.coalesce(
        *(F.when(share == F.greatest(*shares), name) for share, name in zip(shares, MORPHOLOGY_CLASSES, strict=True))
    )
    reason = F.concat(F.lit("votes: "), first_bad, F.lit(" is not a number from 0 to 1"))
    return votes_df.select("galaxy_id", label.alias("label"), *VOTE_FIELDS.values(), reason.alias("reason"))


def _from_hard_labels(rows_df: DataFrame) -> DataFrame:
    no_votes = [F.lit(None).cast("float").alias(field) for field in VOTE_FIELDS.values()]
    reason = F.when(F.coalesce(F.col(LABEL_COLUMN), F.lit("")) == "", "label: empty").alias("reason")
    return rows_df.select(F.col(ID_COLUMN).alias("galaxy_id"), F.col(LABEL_COLUMN), *no_votes, reason)


def _refuse_repeated_ids(galaxies_df: DataFrame, labels: str) -> None:
    for row in galaxies_df.groupBy("galaxy_id").count().where("count > 1").limit(1).collect():
        raise UserError(f"--labels {labels}: {ID_COLUMN} {row[0]} stands in {row[1]} rows; leave one.")


def _classes(galaxies_df: DataFrame, labels: str) -> tuple[str, ...]:
    """Question 1's classes in its order where the labels are of them, else the labels in alphabetical order."""
    found = [row[0] for row in galaxies_df.select("label").distinct().limit(MAX_CLASSES + 1).collect()]
    if len(found) > MAX_CLASSES:
        raise UserError(
            f"--labels {labels}: column {LABEL_COLUMN} has over {MAX_CLASSES} different values; not classes."
        )
    if len(found) < 2:
        raise UserError(
            f"--labels {labels}: all galaxies have the label {_some(found)}; there is nothing to tell apart."
        )
    folded = [name.casefold() for name in found]
    for name in found:
        if folded.count(name.casefold()) > 1 or "`" in name:
            raise UserError(
                f"--labels {labels}: label {name!r} cannot name a column of the catalogue: it has a backtick, or "
                "differs from another label in upper and lower case only."
            )
    return MORPHOLOGY_CLASSES if set(found) <= set(MORPHOLOGY_CLASSES) else tuple(sorted(found))


def check_match(images_df: DataFrame, labels: Labels, images: str, labels_file: str) -> None:
    """Refuse images without a label and labels without an image.

    Raises:
        UserError: It counts and names some of them, and says how to go on without them.
    """
    labelled_df = labels.galaxies_df.select("galaxy_id").union(labels.unusable_df.select("galaxy_id"))
    unlabelled = images_df.join(labelled_df, "galaxy_id", "left_anti")
    without_image = labelled_df.join(images_df, "galaxy_id", "left_anti")
    for missing_df, what, where in (
        (unlabelled, "Images without a row", f"--labels {labels_file}, column {ID_COLUMN}"),
        (without_image, "Rows without an image", f"--images {images}"),
    ):
        if count := missing_df.count():
            examples = _some([row["galaxy_id"] for row in missing_df.select("galaxy_id").limit(3).collect()], count)
            raise UserError(
                f"{what} in {where}: {count:,}, such as {examples}. "
                "Complete the input, or pass --allow-unmatched to leave them out."
            )


def _some(names: list[str], count: int | None = None) -> str:
    """A few of many names, for a message."""
    shown = ", ".join(names[:4])
    return f"{shown}, ..." if (count or len(names)) > min(4, len(names)) else shown
