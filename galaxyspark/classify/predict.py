"""The stage ``predict``: images that nobody has labelled to a catalogue, one row an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from galaxyspark import __version__
from galaxyspark.classify.catalogue import MOST_ROWS, write_csv, write_table
from galaxyspark.classify.rows import Model, catalogue_rows
from galaxyspark.classify.saved import SavedClassifiers, open_classifiers
from galaxyspark.dataset.images import Images, find_images, images_read
from galaxyspark.dataset.reconcile import CANNOT_BE_READ
from galaxyspark.errors import UserError
from galaxyspark.features.extract import published_program, runtime_of_worker, threads_of_task
from galaxyspark.features.inference import Program
from galaxyspark.network.card import ModelCard, load_card
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import PredictJob, PredictSettings
from galaxyspark.spark import broadcast, progress
from galaxyspark.storage import Staging, as_url

_IMAGES_PER_TASK = 500
_FEWEST_TO_RATE = 100


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
    program = published_program(spark, run, card, job.inference)
    images = find_images(spark, job.new_images, "--new-images", card.recipe.reading.max_file_mb)
    made_with = inputs | {"views": job.predict.predict_views, **asdict(job.inference)}
    with run.stage("predict", job, inputs | {"new_images": job.new_images}) as staging:
        kept_df = kept_rows(spark, run, images, made_with)
        num_kept = kept_df.count() if kept_df else 0
        with progress(spark, "predict"):
            url = as_url(staging.place("catalogue"))
            with images_read(
                spark, images, new_images(images, kept_df if num_kept else None), _IMAGES_PER_TASK
            ) as content_df:
                rows_df = catalogue_of(content_df, broadcast(spark, program), model, threads_of_task(spark))
                with_class(rows_df, model, job.predict.min_confidence).write.parquet(url)
            if kept_df is not None and num_kept:
                with_class(kept_df, model, job.predict.min_confidence).write.mode("append").parquet(url)
            add_unread(spark, images, url)
            catalogue_df = spark.read.parquet(url)
            left_out = write_files(catalogue_df, staging, job, made_with)
        staging.manifest = described(catalogue_df, images, num_kept) | {"made_with": made_with, "left_out": left_out}
        staging.manifest["counts"]["dropped"] = num_dropped(spark, run, images)
        num_new = staging.manifest["counts"]["classified"] - num_kept
        if num_new >= _FEWEST_TO_RATE:  # of fewer, most of the time is the start
            staging.handled = num_new, "images"
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
    usable_df = images.files_df.where("reason IS NULL").select("path", "length", "modified").alias("now")
    catalogue_df = spark.read.parquet(as_url(run.place("catalogue"))).where("class_cnn IS NOT NULL").alias("before")
    same_length = F.col("now.length").eqNullSafe(F.col("before.length"))  # of some packed images it is not known
    unchanged = (F.col("now.path") == F.col("before.path")) & (F.col("now.modified") == F.col("before.modified"))
    return catalogue_df.join(usable_df, unchanged & same_length, "left_semi")


def num_dropped(spark: SparkSession, run: RunDirectory, images: Images) -> int:
    """Images of the published catalogue that are not in the folder, and so will not be in the new one."""
    if "predict" not in run.published():
        return 0
    paths_df = spark.read.parquet(as_url(run.place("catalogue"))).select("path")
    return paths_df.join(images.files_df.select("path"), "path", "left_anti").count()


def new_images(images: Images, kept_df: DataFrame | None) -> DataFrame:
    """The images that can be read and have no row yet."""
    usable_df = images.files_df.where("reason IS NULL")
    return usable_df if kept_df is None else usable_df.join(kept_df.select("path"), "path", "left_anti")


def with_class(rows_df: DataFrame, model: Model, min_confidence: float) -> DataFrame:
    """Rows with ``class`` behind their id: the network's, where its probability reaches ``min_confidence``."""
    confidence = F.greatest(*(F.col(f"`probability_{name}`") for name in model.classes))
    named_df = rows_df.withColumn("class", F.when(confidence >= min_confidence, F.col("class_cnn")))
    rest = [name for name in model.columns() if name != "galaxy_id"]  # in one order, whatever joins made of it
    return named_df.select("galaxy_id", "class", *(f"`{name}`" for name in rest))


def catalogue_of(content_df: DataFrame, program: Broadcast[Program], model: Model, num_threads: int) -> DataFrame:
    """Images with ``galaxy_id``, ``path`` and ``content`` to rows as ``catalogue_rows`` makes them."""
    sent = broadcast(content_df.sparkSession, model)
    schema = ", ".join(f"`{name}` {of_type}" for name, of_type in model.columns().items())

    def rows(batches: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
        runtime = runtime_of_worker(program, num_threads)
        for images_pdf in batches:
            yield catalogue_rows(images_pdf, runtime, sent.value)

    return content_df.select("galaxy_id", "path", "content", "length", "modified").mapInPandas(rows, schema)


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


def write_files(catalogue_df: DataFrame, staging: Staging, job: PredictJob, made_with: Mapping[str, Any]) -> list[str]:
    """The catalogue in the other formats that are asked for; returns the files that would be too large."""
    if "csv" in job.predict.formats:
        write_csv(catalogue_df, staging.place("catalogue.parts"), staging.path("catalogue.csv"))
    endings = {"fits": "fits", "votable": "vot"}
    files = [f"catalogue.{endings[name]}" for name in job.predict.formats if name in endings]
    if catalogue_df.count() > MOST_ROWS:
        return files
    keywords = {"run": str(RunDirectory(job.run).root), "images": job.new_images, "network": str(made_with["train"])}
    keywords |= {"views": str(made_with["views"]), "minconf": f"{job.predict.min_confidence:g}"}
    keywords |= {"software": f"galaxyspark {__version__}", "date": datetime.now(UTC).isoformat(timespec="seconds")}
    for file in files:
        write_table(staging.place("catalogue"), staging.path(file), keywords)
    return []


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
