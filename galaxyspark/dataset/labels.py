"""The labels that the user hands in: checked, and made into a class by a rule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from galaxyspark.dataset.folder import unreadable
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.tree import ID_COLUMN, MORPHOLOGY_CLASSES, QUESTIONS, VOTE_COLUMNS, VOTE_FIELDS, Question
from galaxyspark.settings import AugmentSettings

LABEL_COLUMN = "label"
LEFT_OUT = "left out: "
"""How the reason begins for galaxies that a label rule leaves out, though nothing is wrong with them."""
MAX_CLASSES = 50

_RAGGED = "_galaxyspark_ragged_row"
_NOT_UTF8 = "\ufffd"
_SHARES = [VOTE_FIELDS[column] for column in QUESTIONS[0].columns]


@dataclass(frozen=True)
class Labels:
    """The labels of galaxies.

    Attributes:
        galaxies_df: Columns ``galaxy_id``, ``label`` and the vote fields (null where there are only labels).
        unusable_df: Columns ``galaxy_id``, ``reason``: galaxies whose label or votes cannot be used, or that the rule
            leaves out.
        classes: Names of the classes, in the order in which counts and probabilities are given.
        rule: The label rule that made the classes; None where they were given.
    """

    galaxies_df: DataFrame
    unusable_df: DataFrame
    classes: tuple[str, ...]
    rule: str | None


def read_labels(spark: SparkSession, labels: str, settings: AugmentSettings | None = None) -> Labels:
    """Read labels in either format, told apart by the header.

    Args:
        spark: The session.
        labels: CSV in UTF-8 with a header: ``GalaxyID`` and the challenge's 37 vote columns, or ``GalaxyID,label``.
        settings: The rule that makes a class of votes, and how well votes must obey the tree; None: the defaults.

    Raises:
        UserError: The file is missing or empty, its columns are neither format, an id is missing, there is one class
            only, or ``label`` has values that cannot be classes.
    """
    settings = settings or AugmentSettings()
    rows_df = _read_csv(spark, labels)
    columns = [column for column in rows_df.columns if column != _RAGGED]
    if ID_COLUMN not in columns:
        encoding = " Is it CSV in UTF-8?" if any(_NOT_UTF8 in c or "\0" in c for c in columns) else ""
        raise UserError(f"--labels {labels}: no column {ID_COLUMN}; its header has {some(columns)}.{encoding}")
    if set(VOTE_COLUMNS) <= set(columns):
        galaxies_df = _from_votes(rows_df, settings)
    elif LABEL_COLUMN in columns:
        galaxies_df = _from_hard_labels(rows_df)
    else:
        missing = [column for column in VOTE_COLUMNS if column not in columns]
        raise UserError(
            f"--labels {labels}: neither format. Beside {ID_COLUMN} there must be the 37 vote columns Class1.1 to "
            f"Class11.6 (missing: {some(missing)}) or a column {LABEL_COLUMN}; the header has {some(columns)}."
        )
    galaxies_df = galaxies_df.cache()
    if without_id := galaxies_df.where("galaxy_id IS NULL").count():
        raise UserError(
            f"--labels {labels}: {without_id} rows have nothing in column {ID_COLUMN}; remove or mend them."
        )
    repeated_df = _repeated(galaxies_df)
    if not repeated_df.isEmpty():
        galaxies_df = galaxies_df.join(repeated_df, "galaxy_id", "left_anti")
    usable_df = galaxies_df.where("reason IS NULL").drop("reason")
    unusable_df = galaxies_df.where("reason IS NOT NULL").select("galaxy_id", "reason").union(repeated_df).cache()
    rule = settings.label_rule if set(VOTE_COLUMNS) <= set(columns) else None
    return Labels(usable_df, unusable_df, _classes(usable_df, unusable_df, labels), rule)


def _repeated(galaxies_df: DataFrame) -> DataFrame:
    """Ids that stand in several rows, of which any could be right: ``galaxy_id`` and ``reason``."""
    counts_df = galaxies_df.groupBy("galaxy_id").agg(F.count("*").alias("rows")).where("rows > 1")
    return counts_df.select(
        "galaxy_id", F.concat(F.lit("labels: "), "rows", F.lit(" rows have this id")).alias("reason")
    )


def _read_csv(spark: SparkSession, labels: str) -> DataFrame:
    """All columns as text, and ``_RAGGED``: the whole row, where it has more or fewer fields than the header."""
    # Quotes are doubled, as spreadsheets and pandas write them.
    reader = spark.read.options(header=True, escape='"', ignoreLeadingWhiteSpace=True, ignoreTrailingWhiteSpace=True)
    try:
        columns = reader.csv(labels).columns
        if not columns:
            raise UserError(f"--labels {labels}: the file is empty.")
        schema = ", ".join(f"`{column.replace('`', '``')}` string" for column in [*columns, _RAGGED])
        # All fields of a row are counted only where all are read.
        whole_rows = reader.options(columnNameOfCorruptRecord=_RAGGED, columnPruning=False)
        rows_df = whole_rows.csv(labels, schema=schema)
    except (PySparkException, Py4JJavaError) as error:
        raise unreadable(f"--labels {labels}", "file", error) from None
    filled = [_quoted(column) for column in columns]
    return rows_df.where(F.coalesce(*filled).isNotNull())  # spreadsheets end with rows of nothing


def _quoted(column: str) -> Column:
    """A column whose name may have dots in it."""
    return F.col("`" + column.replace("`", "``") + "`")


def _from_votes(rows_df: DataFrame, settings: AugmentSettings) -> DataFrame:
    votes = [F.expr(f"try_cast(`{column}` AS FLOAT)").alias(field) for column, field in VOTE_FIELDS.items()]
    votes_df = rows_df.select(F.col(ID_COLUMN).alias("galaxy_id"), *votes, _bad_row(rows_df).alias("bad_row"))
    outside = [F.coalesce(~F.col(field).between(0, 1), F.lit(True)) for field in VOTE_FIELDS.values()]
    first_bad = F.coalesce(*(F.when(bad, F.lit(column)) for bad, column in zip(outside, VOTE_FIELDS, strict=True)))
    reason = F.coalesce(
        F.col("bad_row"),
        F.concat(F.lit("votes: "), first_bad, F.lit(" is not a number from 0 to 1")),
        *(_violation(question, settings.vote_tolerance) for question in QUESTIONS),
        _left_out(settings),
    )
    label = _class_of_votes(settings).alias("label")
    return votes_df.select("galaxy_id", label, *VOTE_FIELDS.values(), reason.alias("reason"))


def _bad_row(rows_df: DataFrame) -> Column:
    """The reason why a row cannot be trusted whatever its values are; null where it can."""
    text = F.concat_ws("", *(_quoted(column) for column in rows_df.columns))
    return F.when(F.col(_RAGGED).isNotNull(), "labels: row has more or fewer fields than the header").when(
        text.contains(_NOT_UTF8), "labels: row is not text in UTF-8"
    )


def _violation(question: Question, tolerance: float) -> Column:
    """The reason where the answers to a question do not add up to the share of volunteers who were asked it."""
    given = _sum_of(question.columns)
    asked = _sum_of(question.asked_after) if question.asked_after else F.lit(1.0)
    text = f"votes: answers to question {question.number} add up to %.4f, but the share asked it is %.4f"
    return F.when(F.abs(given - asked) > tolerance, F.format_string(text, given, asked))


def _sum_of(columns: tuple[str, ...]) -> Column:
    return reduce(Column.__add__, (F.col(VOTE_FIELDS[column]).cast("double") for column in columns))


def _class_of_votes(settings: AugmentSettings) -> Column:
    """The class that the rule makes of the answers to question 1; of equal shares, the first."""
    commonest = _commonest(_SHARES, MORPHOLOGY_CLASSES)
    if settings.label_rule != "threshold":
        return commonest
    artifact = F.col(_SHARES[2]) >= F.lit(settings.artifact_threshold).cast("float")
    return F.when(artifact, MORPHOLOGY_CLASSES[2]).otherwise(_commonest(_SHARES[:2], MORPHOLOGY_CLASSES[:2]))


def _commonest(fields: list[str], names: tuple[str, ...]) -> Column:
    largest = F.greatest(*(F.col(field) for field in fields))
    return F.coalesce(*(F.when(F.col(field) == largest, name) for field, name in zip(fields, names, strict=True)))


def _left_out(settings: AugmentSettings) -> Column:
    if settings.label_rule != "clean":
        return F.lit(None).cast("string")
    agreement = F.greatest(*(F.col(field) for field in _SHARES))
    text = f"{LEFT_OUT}agreement below {settings.min_agreement:g}"
    return F.when(agreement < F.lit(settings.min_agreement).cast("float"), text)


def _from_hard_labels(rows_df: DataFrame) -> DataFrame:
    no_votes = [F.lit(None).cast("float").alias(field) for field in VOTE_FIELDS.values()]
    empty = F.when(F.coalesce(F.col(LABEL_COLUMN), F.lit("")) == "", "labels: no label in the row")
    reason = F.coalesce(_bad_row(rows_df), empty).alias("reason")
    return rows_df.select(F.col(ID_COLUMN).alias("galaxy_id"), F.col(LABEL_COLUMN), *no_votes, reason)


def _classes(galaxies_df: DataFrame, unusable_df: DataFrame, labels: str) -> tuple[str, ...]:
    """Question 1's classes in its order where the labels are of them, else the labels in alphabetical order."""
    found = [row[0] for row in galaxies_df.select("label").distinct().limit(MAX_CLASSES + 1).collect()]
    if len(found) > MAX_CLASSES:
        raise UserError(
            f"--labels {labels}: column {LABEL_COLUMN} has over {MAX_CLASSES} different values; not classes."
        )
    if not found:
        reasons = unusable_df.groupBy("reason").count().orderBy(F.desc("count")).limit(1).collect()
        most = f", most of them for: {reasons[0][0]}" if reasons else ""
        raise UserError(f"--labels {labels}: no row can be used{most}.")
    if len(found) < 2:
        raise UserError(f"--labels {labels}: all galaxies have the label {found[0]}; there is nothing to tell apart.")
    folded = [name.casefold() for name in found]
    for name in found:
        if folded.count(name.casefold()) > 1 or "`" in name:
            raise UserError(
                f"--labels {labels}: label {name!r} cannot name a column of the catalogue: it has a backtick, or "
                "differs from another label in upper and lower case only."
            )
    return MORPHOLOGY_CLASSES if set(found) <= set(MORPHOLOGY_CLASSES) else tuple(sorted(found))


def check_match(files_df: DataFrame, labels: Labels, images: str, labels_file: str) -> None:
    """Refuse images without a label and labels without an image.

    Raises:
        UserError: It counts and names some of them, and says how to go on without them.
    """
    labelled_df = labels.galaxies_df.select("galaxy_id").union(labels.unusable_df.select("galaxy_id"))
    unlabelled = files_df.join(labelled_df, "galaxy_id", "left_anti")
    without_image = labelled_df.join(files_df, "galaxy_id", "left_anti")
    for missing_df, what, where in (
        (unlabelled, "Images without a row", f"--labels {labels_file}, column {ID_COLUMN}"),
        (without_image, "Rows without an image", f"--images {images}"),
    ):
        if count := missing_df.count():
            examples = some([row["galaxy_id"] for row in missing_df.select("galaxy_id").limit(3).collect()], count)
            raise UserError(
                f"{what} in {where}: {count:,}, such as {examples}. "
                "Complete the input, or pass --allow-unmatched to leave them out."
            )


def some(names: list[str], count: int | None = None) -> str:
    """A few of many names, for a message."""
    shown = ", ".join(names[:4])
    return f"{shown}, ..." if (count or len(names)) > min(4, len(names)) else shown
