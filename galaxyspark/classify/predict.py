"""The stage ``predict``: images that nobody has labelled to a catalogue, one row an image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from galaxyspark.classify.compare import SVM_FILE
from galaxyspark.classify.svm import load_svm
from galaxyspark.dataset.images import Images, find_images, read_images
from galaxyspark.dataset.reconcile import CANNOT_BE_READ
from galaxyspark.features.extract import load_published_model
from galaxyspark.features.inference import Classifier
from galaxyspark.run_directory import RunDirectory, file_url
from galaxyspark.settings import PredictJob
from galaxyspark.spark import input_split, progress
from galaxyspark.views.augment import ViewRecipe, make_views
from galaxyspark.views.reading import UnreadableImageError

_IMAGES_PER_TASK = 500


@dataclass(frozen=True)
class Model:
    """What a worker needs to classify images: the network, the SVM, and how views are made."""

    card: Any
    state: dict[str, Any]
    svm: Any
    num_views: int


def predict(spark: SparkSession, job: PredictJob) -> dict[str, Any]:
    """Write ``catalogue/`` (Parquet) and ``catalogue.csv`` of a run.

    Returns:
        The manifest that was published with them.

    Raises:
        UserError: There are no images, or no model and SVM that belong together.
    """
    run = RunDirectory(job.run)
    run.require_current("train", "extract", "classify")
    inputs = {stage: run.manifest(stage)["id"] for stage in ("train", "classify")}
    card, state = load_published_model(run)
    max_file_mb = card.recipe.reading.max_file_mb
    images = find_images(spark, job.new_images, flag="--new-images", max_file_mb=max_file_mb)
    svm = load_svm(run.path("classifiers") / SVM_FILE)
    with run.stage("predict", job, inputs | {"new_images": job.new_images}) as staging:
        model = spark.sparkContext.broadcast(Model(card, state, svm, job.predict.predict_views))
        num_threads = int(spark.conf.get("spark.task.cpus", "1") or 1)
        num_images, total_bytes = images.files_df.agg(F.count("*"), F.sum("length")).collect()[0]
        url = file_url(staging.path("catalogue"))
        with progress(spark, "predict"):
            with input_split(spark, num_images, total_bytes, _IMAGES_PER_TASK):
                rows_df = catalogue_of(read_images(spark, images), model, card.classes, num_threads)
                rows_df.write.parquet(url)
            add_unread(spark, images, url)
            catalogue_df = spark.read.parquet(url)
            write_csv(catalogue_df.orderBy("galaxy_id"), staging.path("catalogue.csv"))
        num_rows, num_classified = catalogue_df.agg(F.count("*"), F.count("class_cnn")).collect()[0]
        if num_rows != num_images:
            raise RuntimeError(f"{num_images} images in, {num_rows} rows in the catalogue.")
        staging.handled = num_rows, "images"
        staging.manifest = {
            "counts": {
                "images": num_rows,
                "classified": num_classified,
                "quarantined": num_rows - num_classified,
            },
            "classes": {row[0]: row[1] for row in catalogue_df.groupBy("class_cnn").count().collect() if row[0]},
        }
    return staging.manifest


def add_unread(spark: SparkSession, images: Images, url: str) -> None:
    """Append a row with the reason for every image that the catalogue does not have."""
    written_df = spark.read.parquet(url)
    missing_df = images.files_df.join(written_df.select("path"), "path", "left_anti").select(
        "galaxy_id", "path", F.coalesce("reason", F.lit(CANNOT_BE_READ)).alias("quarantine_reason")
    )
    all_columns_df = spark.createDataFrame([], written_df.schema)
    rows_df = all_columns_df.unionByName(missing_df, allowMissingColumns=True)
    rows_df.coalesce(1).write.mode("append").parquet(url)


def catalogue_of(content_df: DataFrame, model: Broadcast[Model], classes: Sequence[str], num_threads: int) -> DataFrame:
    """Images with ``galaxy_id``, ``path`` and ``content`` to rows of the catalogue."""
    probabilities = ", ".join(f"`probability_{name}` float" for name in classes)
    schema = (
        f"galaxy_id string, class_cnn string, class_svm string, {probabilities}, path string, quarantine_reason string"
    )

    def rows(batches: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
        classifier = _classifier_of_worker(model, num_threads)
        for images_pdf in batches:
            yield catalogue_rows(images_pdf, classifier, model.value)

    return content_df.select("galaxy_id", "path", "content").mapInPandas(rows, schema)


@lru_cache(maxsize=1)
def _classifier_of_worker(model: Broadcast[Model], num_threads: int) -> Classifier:
    return Classifier(model.value.card, model.value.state, num_threads)


def catalogue_rows(images_pdf: pd.DataFrame, classifier: Classifier, model: Model) -> pd.DataFrame:
    """Classify some images.

    Args:
        images_pdf: Columns galaxy_id, path, content (bytes of the image file).
        classifier: The network.
        model: Its card, the SVM and the number of views to average over.

    Returns:
        One row an image: galaxy_id; class_cnn, the class of the largest probability; class_svm, the SVM's class for
        the mean of the views' features; probability_<class> (0 to 1), the mean over the views; path;
        quarantine_reason, null where the image was classified and otherwise the only thing known.
    """
    reasons: list[str | None] = []
    jpegs: list[bytes] = []
    for galaxy_id, content in zip(images_pdf["galaxy_id"], images_pdf["content"], strict=True):
        views, reason = _views_or_reason(content, galaxy_id, model.card.recipe, model.num_views)
        jpegs += views
        reasons.append(reason)
    classes = np.array(model.card.classes)
    rows_pdf = images_pdf[["galaxy_id", "path"]].reset_index(drop=True)
    rows_pdf["quarantine_reason"] = pd.Series(reasons, dtype=object)
    rows_pdf[["class_cnn", "class_svm"]] = None
    probability_columns = [f"probability_{name}" for name in classes]
    rows_pdf[probability_columns] = np.nan
    readable = rows_pdf["quarantine_reason"].isna().to_numpy()
    if jpegs:
        inference = classifier.infer(jpegs)
        features = inference.features.reshape(-1, model.num_views, inference.features.shape[1]).mean(axis=1)
        probabilities = inference.probabilities.reshape(-1, model.num_views, len(classes)).mean(axis=1)
        rows_pdf.loc[readable, probability_columns] = probabilities
        rows_pdf.loc[readable, "class_cnn"] = classes[probabilities.argmax(axis=1)]
        rows_pdf.loc[readable, "class_svm"] = classes[model.svm.predict(features)]
    return rows_pdf[["galaxy_id", "class_cnn", "class_svm", *probability_columns, "path", "quarantine_reason"]]


def _views_or_reason(
    content: bytes, galaxy_id: str, recipe: ViewRecipe, num_views: int
) -> tuple[list[bytes], str | None]:
    try:
        return make_views(content, galaxy_id, recipe, range(num_views)), None
    except UnreadableImageError as problem:
        return [], str(problem)


def write_csv(catalogue_df: DataFrame, file: Path) -> None:
    """Write one CSV file with a header, through one task, so that the driver never holds the rows."""
    parts = file.with_suffix(".parts")
    catalogue_df.coalesce(1).write.csv(file_url(parts), header=True, escape='"')
    (part,) = parts.glob("part-*.csv")
    os.rename(part, file)
    for leftover in parts.iterdir():
        leftover.unlink()
    parts.rmdir()
