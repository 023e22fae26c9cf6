"""The stage ``classify``: fit the SVM on the driver, and measure it and the network on the same galaxies."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from sklearn.pipeline import Pipeline

from galaxyspark.classify.metrics import evaluate
from galaxyspark.classify.svm import fit_svm, save_svm
from galaxyspark.errors import UserError
from galaxyspark.run_directory import RunDirectory, file_url, write_atomically
from galaxyspark.settings import ClassifyJob

SVM_FILE = "svm.skops"


def classify(spark: SparkSession, job: ClassifyJob) -> dict[str, Any]:
    """Write ``classifiers/`` and ``metrics.json`` of a run.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: The features are not there or not those of the model, or the training split has one class only.
    """
    run = RunDirectory(job.run)
    features = run.manifest("extract")
    run.require_current("train", "extract")
    classes = tuple(features["classes"])
    train_pdf, judged_pdf = load_features(spark, run, classes)
    if train_pdf["truth"].nunique() < 2:
        raise UserError(f"{run.root}: all training galaxies are of one class; an SVM needs two at least.")
    with run.stage("classify", job, {"extract": features["id"]}) as staging:
        start = time.perf_counter()
        commonest = int(train_pdf["truth"].mode()[0])
        view0_pdf = judged_pdf[(judged_pdf["view"] == 0) & (judged_pdf["split"] == "validation")]
        svm, choice = fit_svm(_xy(train_pdf), _xy(view0_pdf), job.classify.svm_c, job.seed)
        choice |= {"training_views": len(train_pdf), "fit_s": round(time.perf_counter() - start, 2)}
        save_svm(svm, staging.path("classifiers") / SVM_FILE)
        metrics = {
            "classes": classes,
            "epoch": run.manifest("train")["training"]["chosen"]["epoch"],
            "svm": choice,
            "splits": {
                split: judge(judged_pdf[judged_pdf["split"] == split], svm, classes, commonest)
                for split in ("validation", "test")
            },
        }
        write_atomically(staging.path("metrics.json"), json.dumps(metrics, indent=2))
        staging.manifest = {"svm": choice}
    return metrics


def load_features(spark: SparkSession, run: RunDirectory, classes: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Features on the driver: the training split's, and those of validation and test.

    Returns:
        Two frames with galaxy_id, view, split, truth (position of the class), features and probabilities. The first
        holds training galaxies, all their extracted views; the second all 16 views of the others, with the features
        of view 0 only, since no more are used.
    """
    features_df = spark.read.parquet(file_url(run.path("features")))
    position = F.array_position(F.lit(list(classes)), F.col("label")) - 1
    needed = F.when((F.col("split") == "train") | (F.col("view") == 0), F.col("features")).alias("features")
    columns_df = features_df.select("galaxy_id", "view", "split", position.alias("truth"), needed, "probabilities")
    ordered_df = columns_df.orderBy("galaxy_id", "view")
    return ordered_df.where("split = 'train'").toPandas(), ordered_df.where("split != 'train'").toPandas()


def judge(split_pdf: pd.DataFrame, svm: Pipeline, classes: Sequence[str], commonest: int) -> dict[str, Any]:
    """Metrics of every classifier on the galaxies of one split, 16 rows each.

    Beside the network and the SVM stands what answering the training split's ``commonest`` class would give.
    """
    view0_pdf = split_pdf[split_pdf["view"] == 0]
    truth = view0_pdf["truth"].to_numpy()
    mean16 = split_pdf.groupby("galaxy_id", sort=True)["probabilities"].agg(lambda views: np.mean(list(views), axis=0))
    predictions = {
        "cnn_view0": np.stack(view0_pdf["probabilities"].tolist()).argmax(axis=1),
        "cnn_mean16": np.stack(mean16[view0_pdf["galaxy_id"]].tolist()).argmax(axis=1),
        "svm": svm.predict(_xy(view0_pdf)[0]),
        "always_commonest": np.full_like(truth, commonest),
    }
    return {name: evaluate(truth, predicted, classes) for name, predicted in predictions.items()}


def _xy(pdf: pd.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.stack(pdf["features"].tolist()), pdf["truth"].to_numpy(dtype=np.int64)
