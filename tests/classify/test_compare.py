"""metrics.json of a real run against scikit-learn and pandas on the same features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

from galaxyspark.classify.compare import classify, rmse_of
from galaxyspark.classify.features import SplitFeatures
from galaxyspark.classify.saved import open_classifiers
from galaxyspark.errors import UserError
from galaxyspark.settings import ClassifyJob, ClassifySettings
from galaxyspark.summary import CLASSIFIERS


@pytest.fixture(scope="module")
def metrics(finished_run: Path) -> dict:
    return json.loads((finished_run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def judged_pdf(finished_run: Path) -> pd.DataFrame:
    features_pdf = pd.read_parquet(finished_run / "features")
    return features_pdf[features_pdf["split"] == "test"].sort_values(["galaxy_id", "view"])


@pytest.fixture(scope="module")
def truth(metrics: dict, judged_pdf: pd.DataFrame) -> np.ndarray:
    labels = judged_pdf[judged_pdf["view"] == 0]["label"]
    return labels.map(metrics["classes"].index).to_numpy()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_every_classifier_is_measured(metrics: dict, split: str) -> None:
    assert set(metrics["splits"][split]) == set(CLASSIFIERS)
    for name, metric in metrics["splits"][split].items():
        assert np.sum(metric["confusion"]) == metric["n"] > 0
        for low, high in (metric["accuracy_interval"], metric["bootstrap"]["accuracy"]):
            assert 0 <= low <= metric["accuracy"] <= high <= 1
        assert ("against_svm" in metric) == (not name.startswith("svm"))
        assert 0 <= metric["calibration"]["expected_calibration_error"] <= 1


def test_the_networks_figures_on_test_galaxies(metrics: dict, judged_pdf: pd.DataFrame, truth: np.ndarray) -> None:
    of_views = np.stack(judged_pdf["probabilities"].tolist()).reshape(len(truth), 16, -1)
    positions = range(len(metrics["classes"]))
    for name, said in (("cnn_view0", of_views[:, 0]), ("cnn_mean16", of_views.mean(axis=1))):
        metric = metrics["splits"]["test"][name]
        assert metric["accuracy"] == pytest.approx(accuracy_score(truth, said.argmax(axis=1)))
        assert metric["confusion"] == confusion_matrix(truth, said.argmax(axis=1), labels=positions).tolist()
        powered = said.astype(float) ** (1 / metrics["network"]["temperature"][name.removeprefix("cnn_")])
        calibrated = powered / powered.sum(axis=1, keepdims=True)
        assert metric["log_loss"] == pytest.approx(log_loss(truth, calibrated, labels=positions), rel=1e-4)


@pytest.mark.parametrize("classifier", ["svm", "random_forest"])
def test_the_classifiers_on_disk_give_the_figures(
    finished_run: Path, metrics: dict, judged_pdf: pd.DataFrame, truth: np.ndarray, classifier: str
) -> None:
    fitted = open_classifiers(finished_run / "classifiers").classifier(classifier)
    features = np.stack(judged_pdf["features"].tolist()).reshape(len(truth), 16, -1)
    for name, said in (("view0", fitted.probabilities(features[:, :1])), ("mean16", fitted.probabilities(features))):
        metric = metrics["splits"]["test"][f"{classifier}_{name}"]
        assert metric["accuracy"] == pytest.approx(accuracy_score(truth, said.argmax(axis=1)))
        assert metric["log_loss"] == pytest.approx(log_loss(truth, said, labels=range(said.shape[1])), rel=1e-4)


def test_commonest_is_that_of_the_training_split(
    finished_run: Path, metrics: dict, judged_pdf: pd.DataFrame, truth: np.ndarray
) -> None:
    by_class = json.loads((finished_run / "manifests" / "augment.json").read_text())["galaxies_by_class"]["train"]
    commonest = max(by_class, key=by_class.get)
    share = (judged_pdf[judged_pdf["view"] == 0]["label"] == commonest).mean()
    metric = metrics["splits"]["test"]["always_commonest"]
    assert metric["accuracy"] == pytest.approx(share)
    total = sum(by_class.values())
    shares = [by_class[metrics["classes"][position]] / total for position in truth]
    assert metric["log_loss"] == pytest.approx(-np.mean(np.log(np.clip(shares, 1e-7, 1))))


def test_every_prediction_is_kept(finished_run: Path, metrics: dict, truth: np.ndarray) -> None:
    predictions_pdf = pd.read_parquet(finished_run / "predictions.parquet")
    of_test = predictions_pdf[predictions_pdf["split"] == "test"]
    assert list(of_test["label"].map(metrics["classes"].index)) == truth.tolist()
    for name in CLASSIFIERS:
        said = np.stack(of_test[name].tolist()).argmax(axis=1)
        assert metrics["splits"]["test"][name]["accuracy"] == pytest.approx((said == truth).mean())


def test_how_strange_each_galaxy_is_is_kept(finished_run: Path, judged_pdf: pd.DataFrame) -> None:
    """The median validation galaxy has 0, and the score is that of view 0's features."""
    predictions_pdf = pd.read_parquet(finished_run / "predictions.parquet")
    scores = predictions_pdf.groupby("split")["outlier_score"]
    assert scores.median()["validation"] == pytest.approx(0, abs=1e-6)
    view0 = np.stack(judged_pdf[judged_pdf["view"] == 0]["features"].tolist())
    expected = open_classifiers(finished_run / "classifiers").outlier_score()(view0)
    assert scores.get_group("test").to_numpy() == pytest.approx(expected, rel=1e-3)


def test_votes_are_scored_by_question_too() -> None:
    """Question 1 (answers 1 to 3) is off by 0.3 in one of two galaxies' first answers, question 2 by nothing."""
    votes, true_votes = np.zeros((2, 16, 37), np.float32), np.zeros((2, 37), np.float32)
    true_votes[0, 0] = 0.3
    true_votes[1, 36] = 0.6
    nothing = np.zeros((2, 16, 1), np.float32)
    split = SplitFeatures(["a", "b"], tuple(range(16)), np.zeros(2, np.int64), nothing, nothing, votes, true_votes)
    rmse = rmse_of(split)
    assert rmse is not None
    assert rmse["by_question"][1] == pytest.approx(np.sqrt(0.09 / 6))
    assert rmse["by_question"][2] == 0
    assert rmse["by_question"][11] == pytest.approx(np.sqrt(0.36 / 12))
    assert rmse["mean16"] == pytest.approx(np.sqrt((0.09 + 0.36) / 74))


def test_what_the_original_showed_is_there(finished_run: Path, metrics: dict) -> None:
    shares = json.loads((finished_run / "manifests" / "augment.json").read_text())["class_shares"]
    assert metrics["class_shares"] == shares
    assert metrics["epoch"] in (1, 2)
    seconds = metrics["seconds_an_image"]
    assert seconds["cnn_mean16"] == pytest.approx(16 * seconds["cnn_view0"])
    assert all(seconds[name] > seconds[f"cnn_{name.rpartition('_')[2]}"] for name in seconds if name[:3] != "cnn")
    assert metrics["network"]["votes_rmse"] == {"validation": None, "test": None}


def test_nothing_is_half_written_when_the_features_are_not_whole(finished_run: Path, tmp_path: Path) -> None:
    """A run beside the real one, whose features lack the views that --other-views left out."""
    run = tmp_path / "run"
    (run / "manifests").mkdir(parents=True)
    for stage in ("augment", "train", "extract"):
        (run / "manifests" / f"{stage}.json").write_text((finished_run / "manifests" / f"{stage}.json").read_text())
    features_pdf = pd.read_parquet(finished_run / "features")
    (run / "features").mkdir()
    features_pdf[features_pdf["view"] < 8].to_parquet(run / "features" / "part.parquet")
    with pytest.raises(UserError, match="the validation split lacks view 8, 9, 10"):
        classify(ClassifyJob(run=run), say=lambda line: None)
    features_pdf = features_pdf[(features_pdf["split"] != "train") | (features_pdf["label"] == "smooth")]
    features_pdf.to_parquet(run / "features" / "part.parquet")
    with pytest.raises(UserError, match="all training galaxies are of one class"):
        classify(ClassifyJob(run=run), say=lambda line: None)
    assert sorted(path.name for path in run.iterdir()) == ["features", "manifests"]


def test_the_svm_can_be_fitted_to_view_0_alone_and_without_rivals(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "manifests").mkdir(parents=True)
    for stage in ("augment", "train", "extract"):
        (run / "manifests" / f"{stage}.json").write_text((finished_run / "manifests" / f"{stage}.json").read_text())
    (run / "features").symlink_to(finished_run / "features")
    settings = ClassifySettings(fit_views="view0", rivals=(), svm_kernels=("linear",), svm_c=(1.0,))
    metrics = classify(ClassifyJob(run=run, classify=settings), say=lambda line: None)
    num_galaxies = sum(
        json.loads((run / "manifests" / "augment.json").read_text())["galaxies_by_class"]["train"].values()
    )
    assert metrics["classifiers"]["svm"]["training_views"] == num_galaxies
    assert set(metrics["splits"]["test"]) == {
        "cnn_view0",
        "cnn_mean16",
        "svm_view0",
        "svm_mean16",
        "always_commonest",
    }
