"""metrics.json of a real run against scikit-learn and pandas on the same features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix

from galaxyspark.classify.svm import load_svm


@pytest.fixture(scope="module")
def metrics(finished_run: Path) -> dict:
    return json.loads((finished_run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def judged_pdf(finished_run: Path) -> pd.DataFrame:
    features_pdf = pd.read_parquet(finished_run / "features")
    return features_pdf[features_pdf["split"] == "test"]


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("classifier", ["cnn_view0", "cnn_mean16", "svm", "always_commonest"])
def test_the_shape_of_a_classifiers_metrics(metrics: dict, split: str, classifier: str) -> None:
    metric = metrics["splits"][split][classifier]
    assert set(metric) == {"n", "accuracy", "accuracy_interval", "macro_f1", "recall", "confusion"}
    assert set(metric["recall"]) == set(metrics["classes"])
    assert np.sum(metric["confusion"]) == metric["n"] > 0
    low, high = metric["accuracy_interval"]
    assert 0 <= low <= metric["accuracy"] <= high <= 1


def test_the_networks_figures_on_test_galaxies(metrics: dict, judged_pdf: pd.DataFrame) -> None:
    classes = metrics["classes"]
    by_galaxy = judged_pdf.sort_values("view").groupby("galaxy_id")
    truth = by_galaxy["label"].first()
    view0 = by_galaxy["probabilities"].first().map(lambda of_view: classes[int(np.argmax(of_view))])
    mean16 = by_galaxy["probabilities"].agg(lambda views: classes[int(np.argmax(np.mean(list(views), axis=0)))])
    for name, predicted in (("cnn_view0", view0), ("cnn_mean16", mean16)):
        metric = metrics["splits"]["test"][name]
        assert metric["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
        assert metric["confusion"] == confusion_matrix(truth, predicted, labels=classes).tolist()


def test_the_svm_on_disk_gives_the_svms_figures(finished_run: Path, metrics: dict, judged_pdf: pd.DataFrame) -> None:
    view0_pdf = judged_pdf[judged_pdf["view"] == 0]
    predicted = load_svm(finished_run / "classifiers" / "svm.skops").predict(np.stack(view0_pdf["features"].tolist()))
    truth = [metrics["classes"].index(label) for label in view0_pdf["label"]]
    assert metrics["splits"]["test"]["svm"]["accuracy"] == pytest.approx(accuracy_score(truth, predicted))


def test_commonest_is_that_of_the_training_split(finished_run: Path, metrics: dict, judged_pdf: pd.DataFrame) -> None:
    by_class = json.loads((finished_run / "manifests" / "augment.json").read_text())["galaxies_by_class"]["train"]
    commonest = max(by_class, key=by_class.get)
    share = (judged_pdf[judged_pdf["view"] == 0]["label"] == commonest).mean()
    assert metrics["splits"]["test"]["always_commonest"]["accuracy"] == pytest.approx(share)
