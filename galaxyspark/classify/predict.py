"""The stage ``predict``: images that nobody has labelled to a catalogue, one row an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from galaxyspark.classify.calibration import log_of, with_temperature
from galaxyspark.classify.catalogue import MOST_ROWS, write_csv, write_table
from galaxyspark.classify.fitted import FittedClassifier
from galaxyspark.classify.outliers import OutlierScore
from galaxyspark.classify.saved import SavedClassifiers, open_classifiers
from galaxyspark.dataset.images import Images, find_images, read_images
from galaxyspark.dataset.reconcile import CANNOT_BE_READ
from galaxyspark.dataset.schema import VOTE_FIELDS
from galaxyspark.errors import UserError
from galaxyspark.features.extract import published_program, runtime_of_worker, threads_of_task
from galaxyspark.features.inference import Inference, Program, Runtime, infer
from galaxyspark.network.model import ModelCard, load_card
from galaxyspark.run_directory import RunDirectory, Staging, file_url
from galaxyspark.settings import PredictJob, PredictSettings
from galaxyspark.spark import input_split, progress
from galaxyspark.views.augment import ViewRecipe, make_views
from galaxyspark.views.reading import UnreadableImageError

_IMAGES_PER_TASK = 500


@dataclass(frozen=True)
class Model:
    """What a worker needs beside the network to classify images.

    Attributes:
        classes: Names by position.
        recipe: How views are made.
        num_views: Of each image, from view 0 on.
        temperature: Of the network's mean probabilities.
        svm: The SVM.
        outlier_score: How strange an image is.
        with_votes: Whether the network has learned votes.
    """

    classes: tuple[str, ...]
    recipe: ViewRecipe
    num_views: int
    temperature: float
    svm: FittedClassifier
    outlier_score: OutlierScore
    with_votes: bool

    def columns(self) -> dict[str, str]:
        """Names and types of the columns of ``catalogue_rows``."""
        numbers = [f"probability_{name}" for name in self.classes]
        numbers += [f"probability_svm_{name}" for name in self.classes]
        numbers += ["entropy", "agreement", "outlier_score", *(VOTE_FIELDS.values() if self.with_votes else ())]
        texts = dict.fromkeys(("galaxy_id", "class_cnn", "class_svm"), "string")
        last = {"path": "string", "quarantine_reason": "string", "features": "array<float>"}
        return texts | dict.fromkeys(numbers, "float") | last


def predict(spark: SparkSession, job: PredictJob) -> dict[str, Any]:
    """Write ``catalogue/`` (Parquet), ``catalogue.csv`` and, if asked for, FITS and VOTable of a run.

    Rows of images that are in the published catalogue and have not changed since are taken over from it, if they
    were made with the same network, classifiers and settings.

    Returns:
        The manifest that was published with them.

    Raises:
        UserError: There are no images, or no network and classifiers that belong together.
    """
    if not job.new_images:
        raise UserError("--new-images: which folder of images? (Or --like ID or --odd N, to look into the catalogue.)")
    run = RunDirectory(job.run)
    run.require_current("train", "extract", "classify")
    inputs = {stage: run.manifest(stage)["id"] for stage in ("train", "classify")}
    card, classifiers = load_card(run.path("model")), open_classifiers(run.path("classifiers"))
    model = make_model(card, classifiers, inputs["train"], job.predict)
    images = find_images(spark, job.new_images, "--new-images", card.recipe.reading.max_file_mb)
    made_with = inputs | {"views": job.predict.predict_views, "precision": job.inference.precision}
    with run.stage("predict", job, inputs | {"new_images": job.new_images}) as staging:
        kept_df = kept_rows(spark, run, images, made_with)
        num_kept = kept_df.count() if kept_df else 0
        with progress(spark, "predict"):
            url = file_url(staging.path("catalogue"))
            if kept_df is None or num_kept < images.files_df.count():
                program = published_program(spark, run, job.inference)
                classify_images(spark, images, kept_df, program, model, job.predict.min_confidence, url)
            if kept_df is not None and num_kept:
                with_class(kept_df, model.classes, job.predict.min_confidence).write.mode("append").parquet(url)
            add_unread(spark, images, url)
            catalogue_df = spark.read.parquet(url)
            write_files(catalogue_df, staging, job, made_with)
        staging.manifest = described(catalogue_df, images, num_kept) | {"made_with": made_with}
        staging.handled = staging.manifest["counts"]["images"] - num_kept, "images"
    return staging.manifest


def make_model(card: ModelCard, classifiers: SavedClassifiers, trained: str, settings: PredictSettings) -> Model:
    """Network and classifiers that belong together, as workers need them.

    Raises:
        UserError: The classifiers were fitted to features of another network, or for other classes.
    """
    saved = classifiers.card
    if saved.classes != card.classes:
        raise UserError(
            f"{classifiers.directory}: made for the classes {', '.join(saved.classes)}, but the network for "
            f"{', '.join(card.classes)}. Run the stage classify again."
        )
    if saved.model != trained:
        raise UserError(
            f"{classifiers.directory}: fitted to features of another network than that of model/. "
            "Run the stages extract and classify again."
        )
    return Model(
        classes=card.classes,
        recipe=card.recipe,
        num_views=settings.predict_views,
        temperature=saved.network_temperature["view0" if settings.predict_views == 1 else "mean16"],
        svm=classifiers.classifier("svm"),
        outlier_score=classifiers.outlier_score(),
        with_votes=card.objective == "votes",
    )


def kept_rows(spark: SparkSession, run: RunDirectory, images: Images, made_with: Mapping[str, Any]) -> DataFrame | None:
    """Rows of the published catalogue that still hold: classified, of files that are as they were; None for none."""
    published = run.published().get("predict")
    if published is None or published.get("made_with") != made_with:
        return None
    usable_df = images.files_df.where("reason IS NULL").select("path", "length", "modified")
    catalogue_df = spark.read.parquet(file_url(run.path("catalogue"))).where("class_cnn IS NOT NULL")
    return catalogue_df.join(usable_df, ["path", "length", "modified"], "left_semi").cache()


def classify_images(
    spark: SparkSession,
    images: Images,
    kept_df: DataFrame | None,
    program: Program,
    model: Model,
    min_confidence: float,
    url: str,
) -> None:
    """Write rows of the catalogue for the images that have none yet and can be read."""
    new_df = images.files_df.where("reason IS NULL")
    if kept_df is not None:
        new_df = new_df.join(F.broadcast(kept_df.select("path")), "path", "left_anti").cache()
    num_images, total_bytes, oldest = new_df.agg(F.count("*"), F.sum("length"), F.min("modified")).collect()[0]
    since = oldest if kept_df is not None else None
    with input_split(spark, num_images, total_bytes or 0, _IMAGES_PER_TASK):
        content_df = read_images(spark, replace(images, files_df=new_df), since)
        rows_df = catalogue_of(content_df, spark.sparkContext.broadcast(program), model, threads_of_task(spark))
        files_df = new_df.select("path", "length", "modified")
        dated_df = rows_df.join(F.broadcast(files_df), "path")
        with_class(dated_df, model.classes, min_confidence).write.parquet(url)


def with_class(rows_df: DataFrame, classes: tuple[str, ...], min_confidence: float) -> DataFrame:
    """Rows with ``class`` behind their id: the network's, where its probability reaches ``min_confidence``."""
    confidence = F.greatest(*(F.col(f"`probability_{name}`") for name in classes))
    named_df = rows_df.withColumn("class", F.when(confidence >= min_confidence, F.col("class_cnn")))
    first = ["galaxy_id", "class"]
    return named_df.select(*first, *(name for name in named_df.columns if name not in first))


def catalogue_of(content_df: DataFrame, program: Broadcast[Program], model: Model, num_threads: int) -> DataFrame:
    """Images with ``galaxy_id``, ``path`` and ``content`` to rows as ``catalogue_rows`` makes them."""
    sent = content_df.sparkSession.sparkContext.broadcast(model)
    schema = ", ".join(f"`{name}` {of_type}" for name, of_type in model.columns().items())

    def rows(batches: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
        runtime = runtime_of_worker(program, num_threads)
        for images_pdf in batches:
            yield catalogue_rows(images_pdf, runtime, sent.value)

    return content_df.select("galaxy_id", "path", "content").mapInPandas(rows, schema)


def catalogue_rows(images_pdf: pd.DataFrame, runtime: Runtime, model: Model) -> pd.DataFrame:
    """Classify some images.

    Args:
        images_pdf: Columns galaxy_id, path, content (bytes of the image file).
        runtime: The network.
        model: What else it takes.

    Returns:
        One row an image: galaxy_id, path; class_cnn and class_svm; probability_<class> and probability_svm_<class> (0
        to 1, calibrated); entropy in bits; agreement, the share of the views that the network puts into class_cnn
        (missing with one view); outlier_score, see ``OutlierScore``; Class1_1 to Class11_6, the votes; features, the
        mean over the views; quarantine_reason, null where the image was classified and otherwise the only thing known.
    """
    views, reasons = [], []
    for galaxy_id, content in zip(images_pdf["galaxy_id"], images_pdf["content"], strict=True):
        of_image, reason = _views_or_reason(content, galaxy_id, model.recipe, model.num_views)
        views += of_image
        reasons.append(reason)
    rows_pdf = images_pdf[["galaxy_id", "path"]].reset_index(drop=True)
    rows_pdf["quarantine_reason"] = pd.Series(reasons, dtype=object)
    readable = rows_pdf.index[rows_pdf["quarantine_reason"].isna()]
    said_pdf = pd.DataFrame(_columns(infer(runtime, views), model), index=readable) if views else pd.DataFrame()
    rows_pdf = rows_pdf.join(said_pdf).reindex(columns=list(model.columns()))
    for name, of_type in model.columns().items():
        if of_type != "float":  # Arrow takes NaN for a number
            rows_pdf[name] = rows_pdf[name].astype(object).mask(rows_pdf[name].isna(), None)
    return rows_pdf


def _columns(inference: Inference, model: Model) -> dict[str, Any]:
    """What is said of images whose views were looked at one after the other."""

    def by_image(values: NDArray[Any]) -> NDArray[Any]:
        return values.reshape(-1, model.num_views, values.shape[1])

    of_views = by_image(inference.probabilities)
    cnn = with_temperature(log_of(of_views.mean(axis=1)), model.temperature)
    svm = by_image(model.svm.probabilities(inference.features)).mean(axis=1)
    classes, chosen = np.array(model.classes, dtype=object), cnn.argmax(axis=1)
    agreement = (of_views.argmax(axis=2) == chosen[:, None]).mean(axis=1)
    columns: dict[str, Any] = {"class_cnn": classes[chosen], "class_svm": classes[svm.argmax(axis=1)]}
    for position, name in enumerate(model.classes):
        columns |= {f"probability_{name}": cnn[:, position], f"probability_svm_{name}": svm[:, position]}
    columns["entropy"] = -(cnn * np.log2(np.maximum(cnn, 1e-12))).sum(axis=1)
    columns["agreement"] = agreement if model.num_views > 1 else np.nan
    columns["outlier_score"] = model.outlier_score(by_image(inference.features)[:, 0])
    if inference.votes is not None:
        columns |= dict(zip(VOTE_FIELDS.values(), by_image(inference.votes).mean(axis=1).T, strict=True))
    columns["features"] = list(by_image(inference.features).mean(axis=1))
    return columns


def _views_or_reason(
    content: bytes, galaxy_id: str, recipe: ViewRecipe, num_views: int
) -> tuple[list[bytes], str | None]:
    try:
        return make_views(content, galaxy_id, recipe, range(num_views)), None
    except UnreadableImageError as problem:
        return [], str(problem)


def add_unread(spark: SparkSession, images: Images, url: str) -> None:
    """Append a row with the reason for every image that the catalogue does not have."""
    written_df = spark.read.parquet(url)
    missing_df = images.files_df.join(written_df.select("path"), "path", "left_anti").select(
        "galaxy_id",
        "path",
        "length",
        "modified",
        F.coalesce("reason", F.lit(CANNOT_BE_READ)).alias("quarantine_reason"),
    )
    all_columns_df = spark.createDataFrame([], written_df.schema)
    rows_df = all_columns_df.unionByName(missing_df, allowMissingColumns=True)
    rows_df.coalesce(1).write.mode("append").parquet(url)


def write_files(catalogue_df: DataFrame, staging: Staging, job: PredictJob, made_with: Mapping[str, Any]) -> None:
    """The catalogue in the other formats that are asked for."""
    if "csv" in job.predict.formats:
        write_csv(catalogue_df, staging.path("catalogue.csv"))
    endings = {"fits": "fits", "votable": "vot"}
    for name in job.predict.formats:
        if name in endings and catalogue_df.count() <= MOST_ROWS:
            keywords = {"run": str(job.run), "images": job.new_images, "network": str(made_with["train"])}
            write_table(staging.path("catalogue"), staging.path(f"catalogue.{endings[name]}"), keywords)


def described(catalogue_df: DataFrame, images: Images, num_kept: int) -> dict[str, Any]:
    """Counts for the manifest.

    Raises:
        RuntimeError: The catalogue has not one row for each image.
    """
    num_images = images.files_df.count()
    num_rows, num_read, num_named = catalogue_df.agg(F.count("*"), F.count("class_cnn"), F.count("class")).collect()[0]
    if num_rows != num_images:
        raise RuntimeError(f"{num_images} images in, {num_rows} rows in the catalogue.")
    counts = {
        "images": num_rows,
        "classified": num_read,
        "quarantined": num_rows - num_read,
        "under_min_confidence": num_read - num_named,
        "taken_over": num_kept,
    }
    by_class = catalogue_df.where("class IS NOT NULL").groupBy("class").count().collect()
    return {"counts": counts, "classes": {row[0]: row[1] for row in by_class}}
