"""The stage ``extract``: a pandas UDF over the views, with the network broadcast once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import pandas as pd
from pyspark import Broadcast
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from galaxyspark.errors import UserError
from galaxyspark.features.inference import Program, Runtime, infer
from galaxyspark.galaxyzoo.tree import VOTE_FIELDS
from galaxyspark.network.card import ModelCard, load_card
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import ExtractJob, ExtractSettings, InferenceSettings
from galaxyspark.spark import broadcast, gpu_of_task, progress
from galaxyspark.storage import as_url


def extract(spark: SparkSession, job: ExtractJob) -> dict[str, Any]:
    """Write ``features/`` of a run: galaxy_id, view, split, label, features (1,024), probabilities.

    Of a network that has learned votes there are ``votes`` (37) too, and beside them the volunteers' ``true_votes``.

    Returns:
        The manifest that was published with it.

    Raises:
        UserError: The views or the model are not there, or the model was trained on other views than these.
    """
    run = RunDirectory(job.run)
    data, model = run.manifest("augment"), run.manifest("train")
    run.require_current("train")
    card = load_card(run.path("model"))
    check_fit(card, data, run)
    with run.stage("extract", job, {"augment": data["id"], "train": model["id"]}) as staging:
        program = published_program(spark, run, card, job.inference)
        views_df = wanted_views(spark.read.parquet(as_url(run.place("views"))), job.extract)
        columns = ["galaxy_id", "view", "split", "label", "features", "probabilities"]
        if card.objective == "votes":
            views_df = views_df.withColumn("true_votes", F.array(*VOTE_FIELDS.values()))
            columns += ["votes", "true_votes"]
        with progress(spark, "extract"):
            features_df = with_inference(spark, views_df, program, card).select(*columns)
            features_df.write.parquet(as_url(staging.place("features")))
        num_views = spark.read.parquet(as_url(staging.place("features"))).count()
        staging.handled = num_views, "views"
        staging.manifest = {
            "classes": data["classes"],
            "runtime": type(program).__name__.removesuffix("Program").lower(),
            "precision": job.inference.precision,
            "counts": {"views": num_views},
        }
    return staging.manifest


def check_fit(card: ModelCard, data: Mapping[str, Any], run: RunDirectory) -> None:
    """Whether the network was made for views such as these.

    Raises:
        UserError: It was made for others, as when model/ was copied from another run.
    """
    expected = (tuple(data["classes"]), data["recipe"]["size_px"])
    found = (card.classes, card.recipe.size_px)
    if found != expected:
        names = [f"{', '.join(classes)} at {size_px} px" for classes, size_px in (found, expected)]
        raise UserError(
            f"{run.place('model')}: made for {names[0]}, but the views are of {names[1]}. "
            f"Train on these views: ./submit.sh train --run {run.root} ..."
        )


def wanted_views(views_df: DataFrame, settings: ExtractSettings) -> DataFrame:
    """The splits and views that the settings name."""
    of_training = (F.col("split") == "train") & F.col("view").isin(*settings.train_views)
    of_others = (F.col("split") != "train") & F.col("view").isin(*settings.other_views)
    return views_df.where(F.col("split").isin(*settings.splits) & (of_training | of_others))


def published_program(spark: SparkSession, run: RunDirectory, card: ModelCard, settings: InferenceSettings) -> Program:
    """A run's network, whose card this is, prepared for the runtime that the settings name.

    Raises:
        UserError: The weights are missing, damaged or of another network.
    """
    # These bring torch, which workers do without.
    from galaxyspark.features.programs import make_program
    from galaxyspark.network.model import load_weights

    on_gpus = float(spark.conf.get("spark.executor.resource.gpu.amount", "0") or 0) > 0
    state = load_weights(run.path("model"))
    return make_program(card, state, settings.runtime, settings.precision, on_gpus, settings.gpu_decoding)


def with_inference(spark: SparkSession, views_df: DataFrame, program: Program, card: ModelCard) -> DataFrame:
    """The views with what the network says of their column ``image``: the fields of ``Inference`` as columns."""
    udf = inference_udf(broadcast(spark, program), threads_of_task(spark), card.objective == "votes")
    return views_df.withColumn("inference", udf("image")).select("*", "inference.*")


def threads_of_task(spark: SparkSession) -> int:
    """Threads to compute with in one task: as many as Spark gives it cores."""
    return int(spark.conf.get("spark.task.cpus", "1") or 1)


def inference_udf(program: Broadcast[Program], num_threads: int, with_votes: bool) -> Callable[[str], Column]:
    """The pandas UDF: a column of JPEG views -> a struct of what the network says."""
    names = ["features", "probabilities", "votes"] if with_votes else ["features", "probabilities"]

    @F.pandas_udf(", ".join(f"{name} array<float>" for name in names))  # type: ignore[attr-defined,untyped-decorator]
    def infer_views(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        runtime = runtime_of_worker(program, num_threads)
        for jpegs in batches:
            inference = infer(runtime, jpegs.tolist())
            yield pd.DataFrame({name: list(getattr(inference, name)) for name in names})

    return infer_views  # type: ignore[no-any-return]


def runtime_of_worker(program: Broadcast[Program], num_threads: int) -> Runtime:
    """One network per Python worker, kept for its next task; where Spark gives that one another GPU, loaded there."""
    return _loaded(program, min(num_threads, len(os.sched_getaffinity(0))), gpu_of_task())


@lru_cache(maxsize=1)
def _loaded(program: Broadcast[Program], num_threads: int, gpu: int | None) -> Runtime:
    return program.value.load(num_threads, gpu)
