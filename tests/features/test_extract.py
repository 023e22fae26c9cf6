"""The pandas UDF against the pure function, on the same views."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from galaxyspark.errors import UserError
from galaxyspark.features.extract import check_fit, runtime_of_worker, threads_of_task, wanted_views
from galaxyspark.features.inference import infer
from galaxyspark.features.programs import make_program
from galaxyspark.network.card import load_card
from galaxyspark.network.model import load_weights
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import ExtractSettings


@pytest.fixture(scope="module")
def features_pdf(finished_run: Path) -> pd.DataFrame:
    return pd.read_parquet(finished_run / "features").sort_values(["galaxy_id", "view"], ignore_index=True)


@pytest.fixture(scope="module")
def views_pdf(finished_run: Path) -> pd.DataFrame:
    columns = ["galaxy_id", "view", "split", "image"]
    views_pdf = pd.read_parquet(finished_run / "views", columns=columns)
    return views_pdf.sort_values(["galaxy_id", "view"], ignore_index=True)


def test_training_galaxies_have_the_views_asked_for_and_the_others_all_16(features_pdf, views_pdf) -> None:
    wanted = views_pdf[(views_pdf["split"] != "train") | (views_pdf["view"] < 3)]
    pd.testing.assert_frame_equal(
        features_pdf[["galaxy_id", "view", "split"]],
        wanted[["galaxy_id", "view", "split"]].reset_index(drop=True),
        check_dtype=False,
        check_categorical=False,
    )


def test_spark_says_what_the_network_says(finished_run: Path, features_pdf, views_pdf) -> None:
    model = finished_run / "model"
    runtime = make_program(load_card(model), load_weights(model), "torch", "float32").load(num_threads=1)
    both = features_pdf.merge(views_pdf[["galaxy_id", "view", "image"]], on=["galaxy_id", "view"]).iloc[::17]
    inference = infer(runtime, both["image"].tolist())
    features = np.stack(both["features"].tolist())
    assert features.shape == (len(both), 1024)
    # Spark's workers ran OpenVINO in bf16, which keeps 8 bits.
    np.testing.assert_allclose(features, inference.features, rtol=0.05, atol=0.02)
    np.testing.assert_allclose(np.stack(both["probabilities"].tolist()), inference.probabilities, atol=0.02)


def test_probabilities_add_up(features_pdf: pd.DataFrame) -> None:
    sums = np.stack(features_pdf["probabilities"].tolist()).sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_any_views_of_any_splits(spark, finished_run: Path) -> None:
    views_df = spark.read.parquet(str(finished_run / "views"))
    settings = ExtractSettings(splits=("train", "test"), train_views=(3, 7), other_views=(0,))
    wanted_pdf = wanted_views(views_df, settings).select("split", "view").distinct().toPandas()
    assert set(wanted_pdf.itertuples(index=False, name=None)) == {("train", 3), ("train", 7), ("test", 0)}


def test_a_worker_loads_the_network_once_with_no_more_threads_than_it_has_cores(spark) -> None:
    assert threads_of_task(spark) == 1
    loaded: list[int] = []
    program = Mock(**{"value.load": lambda num_threads, gpu: loaded.append(num_threads)})
    runtime_of_worker(program, 1000)
    runtime_of_worker(program, 1000)
    assert loaded == [len(os.sched_getaffinity(0))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["round", "flat", "odd"]}, "but the views are of round, flat, odd at 48 px"),
        ({"recipe": {"size_px": 64}}, "made for smooth, featured, artifact at 48 px, but .* at 64 px"),
    ],
)
def test_a_network_made_for_other_views_is_refused(finished_run: Path, change: dict, message: str) -> None:
    run, card = RunDirectory(finished_run), load_card(finished_run / "model")
    data = run.manifest("augment")
    check_fit(card, data, run)
    with pytest.raises(UserError, match=message):
        check_fit(card, data | change, run)


def test_what_workers_import_does_not_bring_torch() -> None:
    code = "import sys, galaxyspark.features.extract, galaxyspark.classify.rows; print('torch' in sys.modules)"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "False"
