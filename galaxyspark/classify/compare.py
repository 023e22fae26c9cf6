"""The stage ``classify``: fit the SVM and its rivals on the driver, and measure them and the network."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from galaxyspark.classify.calibration import fit_temperature, log_of, with_temperature
from galaxyspark.classify.features import SplitFeatures, read_split
from galaxyspark.classify.fitted import FittedClassifier
from galaxyspark.classify.metrics import evaluate, paired, votes_rmse
from galaxyspark.classify.outliers import OutlierScore, fit_outlier_score
from galaxyspark.classify.rivals import fit_rival
from galaxyspark.classify.saved import save_classifiers
from galaxyspark.classify.svm import fit_svm
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.tree import QUESTIONS
from galaxyspark.run_directory import RunDirectory, versions
from galaxyspark.settings import ClassifyJob, ClassifySettings
from galaxyspark.storage import write_atomically
from galaxyspark.views.augment import NUM_VIEWS

JUDGED = ("validation", "test")
_Probabilities = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Fitted:
    """All classifiers of features, calibrated, and what is to be told of them: how they were chosen, their seconds."""

    classifiers: dict[str, FittedClassifier]
    told: dict[str, dict[str, Any]]


def classify(job: ClassifyJob, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Write ``classifiers/``, ``predictions.parquet`` and ``metrics.json`` of a run.

    Args:
        job: The settings.
        say: Is told what is going to take long.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: The features are not there, not those of the model, or not whole; or the training split has one
            class only.
    """
    run = RunDirectory(job.run)
    extracted, augmented, trained = (run.manifest(stage) for stage in ("extract", "augment", "train"))
    run.require_current("train", "extract")
    classes = tuple(extracted["classes"])
    features = run.path("features")
    train = read_split(features, "train", classes, view=0 if job.classify.fit_views == "view0" else None)
    if len(np.unique(train.truth)) < 2:
        raise UserError(f"{run.root}: all training galaxies are of one class; an SVM needs two at least.")
    if 0 not in train.views:
        raise UserError(f"{features}: the train split lacks view 0. Run the stage extract with it in --train-views.")
    judged = {split: read_judged(features, split, classes, train.features.shape[2]) for split in JUDGED}
    with run.stage("classify", job, {"extract": extracted["id"]}) as staging:
        fitted = fit_all(train, judged["validation"], len(classes), job.classify, job.seed, say)
        temperatures = network_temperatures(judged["validation"])
        outliers = fit_outlier_score(
            train.features[:, train.views.index(0)], judged["validation"].features[:, 0], job.seed
        )
        save_classifiers(
            staging.path("classifiers"),
            fitted.classifiers,
            outliers,
            classes=classes,
            model=trained["id"],
            num_features=train.features.shape[2],
            network_temperature=temperatures,
            versions=versions(),
        )
        said = {split: all_probabilities(judged[split], train, fitted, temperatures) for split in JUDGED}
        write_predictions(staging.path("predictions.parquet"), judged, said, outliers, classes)
        metrics = {
            "classes": classes,
            "epoch": trained["training"]["chosen"]["epoch"],
            "class_shares": augmented["class_shares"],
            "network": {
                "temperature": temperatures,
                "seconds_a_view": 1 / extracted["rate"]["per_s"],
                "votes_rmse": {split: rmse_of(judged[split]) for split in JUDGED},
            },
            "classifiers": fitted.told,
            "seconds_an_image": seconds_an_image(1 / extracted["rate"]["per_s"], fitted),
            "splits": {split: measured(judged[split], said[split], classes, job.seed) for split in JUDGED},
        }
        write_atomically(staging.path("metrics.json"), json.dumps(metrics, indent=2))
        staging.manifest = {"svm": fitted.told["svm"]}
    return metrics


def read_judged(features: Path, split: str, classes: tuple[str, ...], num_features: int) -> SplitFeatures:
    """The features of a split that classifiers are judged on, which has all views.

    Raises:
        UserError: It has not, or its features are of another length than those of training.
    """
    judged = read_split(features, split, classes)
    if len(judged.views) < NUM_VIEWS:
        lacking = sorted(set(range(NUM_VIEWS)) - set(judged.views))
        raise UserError(
            f"{features}: the {split} split lacks view {', '.join(map(str, lacking))}. "
            "Run the stage extract again, without --other-views."
        )
    if judged.features.shape[2] != num_features:
        raise UserError(
            f"{features}: features of {judged.features.shape[2]:,} numbers in the {split} split, but of "
            f"{num_features:,} in training: they are of different networks. Run the stage extract again."
        )
    return judged


def fit_all(
    train: SplitFeatures,
    validation: SplitFeatures,
    num_classes: int,
    settings: ClassifySettings,
    seed: int,
    say: Callable[[str], None],
) -> Fitted:
    """Fit the SVM and its rivals on the training views, choose by view 0 of validation, and calibrate on its views."""
    views = train.features.reshape(-1, train.features.shape[2]), train.truth.repeat(len(train.views))
    view0 = validation.features[:, 0], validation.truth
    fitted = Fitted({}, {})
    fits: dict[str, Callable[[], tuple[FittedClassifier, dict[str, Any]]]] = {
        "svm": partial(fit_svm, views, view0, num_classes, settings, seed, say)
    }
    fits |= {
        name: partial(fit_rival, name, views, view0, num_classes, settings.weights, seed) for name in settings.rivals
    }
    for name, fit in fits.items():
        start = time.perf_counter()
        classifier, choice = fit()
        fit_s = time.perf_counter() - start
        start = time.perf_counter()
        classifier.scores(view0[0])
        predict_s = (time.perf_counter() - start) / len(view0[0])
        classifier = classifier.calibrated(validation.features, validation.truth)
        fitted.classifiers[name] = classifier
        temperatures = asdict(classifier.temperatures)
        costs = {"temperatures": temperatures, "fit_s": round(fit_s, 2), "seconds_a_view": predict_s}
        fitted.told[name] = {"training_views": len(views[0])} | choice | costs
        say(f"  {name.replace('_', ' ')}: fitted in {fit_s:.1f} s")
    return fitted


def network_temperatures(validation: SplitFeatures) -> dict[str, float]:
    """Temperatures of the network's probabilities: of view 0, and of the mean over all views."""
    means = {"view0": validation.probabilities[:, 0], "mean16": validation.probabilities.mean(axis=1)}
    return {name: fit_temperature(log_of(mean), validation.truth) for name, mean in means.items()}


def all_probabilities(
    judged: SplitFeatures, train: SplitFeatures, fitted: Fitted, temperatures: Mapping[str, float]
) -> _Probabilities:
    """Calibrated probabilities, shape (galaxies, classes), of every classifier on view 0 and on the mean of 16 views.

    Beside them stands what the shares of the classes in training say, whatever the galaxy.
    """
    said = {
        "cnn_view0": with_temperature(log_of(judged.probabilities[:, 0]), temperatures["view0"]),
        "cnn_mean16": with_temperature(log_of(judged.probabilities.mean(axis=1)), temperatures["mean16"]),
    }
    for name, classifier in fitted.classifiers.items():
        scores = classifier.scores_by_view(judged.features)
        said[f"{name}_view0"] = classifier.temperatures.mean_over_views(scores[:, :1])
        said[f"{name}_mean16"] = classifier.temperatures.mean_over_views(scores)
    shares = np.bincount(train.truth, minlength=judged.probabilities.shape[2]) / len(train.truth)
    return said | {"always_commonest": np.tile(shares, (len(judged.truth), 1))}


def measured(
    judged: SplitFeatures, said: _Probabilities, classes: tuple[str, ...], seed: int
) -> dict[str, dict[str, Any]]:
    """The metrics of every classifier on one split, with ``against_svm`` where they are not the SVM's own."""
    metrics = {}
    for name, probabilities in said.items():
        metrics[name] = evaluate(judged.truth, probabilities, classes, seed)
        svm = "svm_mean16" if name.endswith("mean16") else "svm_view0"
        if name != svm:
            metrics[name]["against_svm"] = paired(judged.truth, probabilities, said[svm])
    return metrics


def seconds_an_image(network_s: float, fitted: Fitted) -> dict[str, float]:
    """What an image takes from its views on, by classifier: the network on one view or 16, and then the classifier."""
    a_view = {"cnn": 0.0} | {name: told["seconds_a_view"] for name, told in fitted.told.items()}
    return {
        f"{name}_{which}": views * (network_s + own_s)
        for name, own_s in a_view.items()
        for which, views in (("view0", 1), ("mean16", NUM_VIEWS))
    }


def rmse_of(judged: SplitFeatures) -> dict[str, Any] | None:
    """The challenge's score of the network's votes, of view 0 and of the mean of 16; None where it has learned none.

    ``by_question`` has the mean of 16's for the answers to each question alone, by its number.
    """
    if judged.votes is None or judged.true_votes is None:
        return None
    mean16, true_votes = judged.votes.mean(axis=1), judged.true_votes
    return {
        "view0": votes_rmse(judged.votes[:, 0], true_votes),
        "mean16": votes_rmse(mean16, true_votes),
        "by_question": {
            question.number: votes_rmse(mean16[:, question.positions], true_votes[:, question.positions])
            for question in QUESTIONS
        },
    }


def write_predictions(
    file: Path,
    judged: Mapping[str, SplitFeatures],
    said: Mapping[str, _Probabilities],
    outliers: OutlierScore,
    classes: tuple[str, ...],
) -> None:
    """What is said of every galaxy: split, galaxy_id, label, outlier_score, and a list of probabilities by classifier.

    Of a network that has learned votes also its ``votes``, the mean over the views, and the volunteers' ``true_votes``.
    """
    tables = []
    for split, galaxies in judged.items():
        columns: dict[str, Any] = {
            "split": [split] * len(galaxies.galaxy_ids),
            "galaxy_id": galaxies.galaxy_ids,
            "label": [classes[position] for position in galaxies.truth],
            "outlier_score": outliers(galaxies.features[:, 0]),
        }
        columns |= {name: list(probabilities) for name, probabilities in said[split].items()}
        if galaxies.votes is not None and galaxies.true_votes is not None:
            columns |= {"votes": list(galaxies.votes.mean(axis=1)), "true_votes": list(galaxies.true_votes)}
        tables.append(pa.table(columns))
    pq.write_table(pa.concat_tables(tables), file)
