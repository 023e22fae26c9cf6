"""The pandas UDF against the pure function, on the same views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from galaxyspark.features.inference import Classifier
from galaxyspark.network.model import load_card, load_weights


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
    classifier = Classifier(load_card(model), load_weights(model), num_threads=1)
    both = features_pdf.merge(views_pdf[["galaxy_id", "view", "image"]], on=["galaxy_id", "view"]).iloc[::17]
    inference = classifier.infer(both["image"].tolist())
    features = np.stack(both["features"].tolist())
    assert features.shape == (len(both), 1024)
    # bf16 keeps 8 bits: batches of another size may round the last one differently.
    np.testing.assert_allclose(features, inference.features, rtol=0.05, atol=0.02)
    np.testing.assert_allclose(np.stack(both["probabilities"].tolist()), inference.probabilities, atol=0.02)


def test_probabilities_add_up(features_pdf: pd.DataFrame) -> None:
    sums = np.stack(features_pdf["probabilities"].tolist()).sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=1e-5)
