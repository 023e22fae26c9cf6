"""The stage ``extract``: a pandas UDF over the views, with the network broadcast once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import pandas as pd
from pyspark import Broadcast
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from galaxyspark.features.inference import Classifier
from galaxyspark.network.model import ModelCard, load_card, load_weights
from galaxyspark.run_directory import RunDirectory, file_url
from galaxyspark.settings import ExtractJob
from galaxyspark.spark import progress

INFERENCE_TYPE = "features array<float>, probabilities array<float>"


def extract(spark: SparkSession, job: ExtractJob) -> dict[str, Any]:
    """Write ``features/`` of a run: galaxy_id, view, split, label, features (1,024), probabilities.

    Returns:
        The manifest that was published with it.

    Raises:
        UserError: The views or the model are not there, or the model was trained on views that were replaced since.
    """
    run = RunDirectory(job.run)
    data, model = run.manifest("augment"), run.manifest("train")
    run.require_current("train")
    with run.stage("extract", job, {"augment": data["id"], "train": model["id"]}) as staging:
        views_df = spark.read.parquet(file_url(run.path("views")))
        wanted_df = views_df.where((F.col("split") != "train") | (F.col("view") < job.extract.train_views))
        features_df = with_inference(spark, wanted_df, *load_published_model(run)).select(
            "galaxy_id", "view", "split", "label", "features", "probabilities"
        )
        with progress(spark, "extract"):
            features_df.write.parquet(file_url(staging.path("features")))
        num_views = spark.read.parquet(file_url(staging.path("features"))).count()
        staging.handled = num_views, "views"
        staging.manifest = {"classes": data["classes"], "counts": {"views": num_views}}
    return staging.manifest


def load_published_model(run: RunDirectory) -> tuple[ModelCard, dict[str, Any]]:
    """The card and the weights of a run's model.

    Raises:
        UserError: The run has no published model.
    """
    run.manifest("train")
    return load_card(run.path("model")), load_weights(run.path("model"))


def with_inference(spark: SparkSession, views_df: DataFrame, card: ModelCard, state: dict[str, Any]) -> DataFrame:
    """The views with two more columns, ``features`` and ``probabilities``, from their column ``image``."""
    model = spark.sparkContext.broadcast((card, state))
    num_threads = int(spark.conf.get("spark.task.cpus", "1") or 1)
    return views_df.withColumn("inference", inference_udf(model, num_threads)("image")).select("*", "inference.*")


def inference_udf(model: Broadcast[Any], num_threads: int) -> Callable[[str], Column]:
    """The pandas UDF: a column of JPEG views -> a struct of features and probabilities."""

    @F.pandas_udf(INFERENCE_TYPE)  # type: ignore[attr-defined,untyped-decorator]
    def infer(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        classifier = _classifier_of_worker(model, num_threads)
        for jpegs in batches:
            inference = classifier.infer(jpegs.tolist())
            yield pd.DataFrame({"features": list(inference.features), "probabilities": list(inference.probabilities)})

    return infer  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _classifier_of_worker(model: Broadcast[Any], num_threads: int) -> Classifier:
    """One network per Python worker, kept for all tasks that Spark gives it."""
    card, state = model.value
    return Classifier(card, state, num_threads)
