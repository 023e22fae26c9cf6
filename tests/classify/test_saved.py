"""Classifiers on disk: the same after reloading, and refused when something is wrong with them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import skops.io
from sklearn.datasets import make_blobs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

from galaxyspark.classify.outliers import fit_outlier_score
from galaxyspark.classify.rivals import fit_rival
from galaxyspark.classify.saved import open_classifiers, save_classifiers
from galaxyspark.classify.svm import fit_svm
from galaxyspark.errors import UserError
from galaxyspark.settings import ClassifySettings, RivalName

TRAIN, VALIDATION, NEW = (
    make_blobs([50, 50, 50], n_features=6, cluster_std=4, center_box=(-5, 5), random_state=seed) for seed in (1, 2, 3)
)


@pytest.fixture(scope="module")
def fitted() -> dict:
    classifiers = {name: fit_rival(name, TRAIN, VALIDATION, 3, "balanced", seed=1)[0] for name in get_args(RivalName)}
    views = VALIDATION[0][:, None]
    classifiers = {name: fitted.calibrated(views, VALIDATION[1]) for name, fitted in classifiers.items()}
    machines = {"svm": {"svm_kernels": ("rbf",)}, "svm_linear": {"svm_kernels": ("linear",)}}
    machines["svm_nystroem"] = machines["svm"] | {"svm_minutes": 0}
    for name, settings in machines.items():
        classifiers[name], _ = fit_svm(
            TRAIN, VALIDATION, 3, ClassifySettings(**settings), seed=1, say=lambda line: None
        )
    return classifiers


@pytest.fixture
def saved(fitted: dict, tmp_path: Path) -> Path:
    directory = tmp_path / "classifiers"
    save_classifiers(
        directory,
        fitted,
        fit_outlier_score(TRAIN[0], VALIDATION[0], seed=1),
        classes=("smooth", "featured", "artifact"),
        model="an id",
        num_features=6,
        network_temperature={"view0": 1.5, "mean16": 1.2},
        versions={"scikit-learn": "1"},
    )
    return directory


def replace_file(directory: Path, content: bytes) -> None:
    """Also in the card, as someone would who knows of it."""
    (directory / "svm.skops").write_bytes(content)
    card = json.loads((directory / "card.json").read_text())
    card["sha256"]["svm.skops"] = hashlib.sha256(content).hexdigest()
    (directory / "card.json").write_text(json.dumps(card))


def test_all_say_the_same_after_reloading(fitted: dict, saved: Path) -> None:
    classifiers = open_classifiers(saved)
    views = NEW[0].reshape(50, 3, 6)
    for name, classifier in fitted.items():
        np.testing.assert_allclose(
            classifiers.classifier(name).probabilities(views), classifier.probabilities(views), atol=1e-12
        )
    expected = fit_outlier_score(TRAIN[0], VALIDATION[0], seed=1)(NEW[0])
    np.testing.assert_allclose(classifiers.outlier_score()(NEW[0]), expected)
    assert classifiers.card.network_temperature == {"view0": 1.5, "mean16": 1.2}


def test_one_changed_byte_is_found_out(saved: Path) -> None:
    content = bytearray((saved / "svm.skops").read_bytes())
    content[len(content) // 2] ^= 1
    (saved / "svm.skops").write_bytes(content)
    with pytest.raises(UserError, match=r"svm\.skops: is not the file that was saved.*classify"):
        open_classifiers(saved).classifier("svm")


@pytest.mark.parametrize(("function", "name"), [(os.system, "system"), (eval, "eval")])
def test_a_file_that_would_run_code_is_not_loaded(function: object, name: str, saved: Path) -> None:
    replace_file(saved, skops.io.dumps(make_pipeline(FunctionTransformer(function), SVC())))
    with pytest.raises(UserError) as error:
        open_classifiers(saved).classifier("svm")
    assert str(error.value).startswith(f"{saved}/svm.skops: holds types")
    assert name in str(error.value)
    assert "Not loaded" in str(error.value)


def test_what_is_no_classifier_is_refused(saved: Path) -> None:
    replace_file(saved, b"not a classifier")
    with pytest.raises(UserError, match=r"svm.skops: not a classifier in skops' format .*stage classify"):
        open_classifiers(saved).classifier("svm")


def test_a_missing_file_is_named_with_the_stage_that_writes_it(saved: Path) -> None:
    (saved / "svm.skops").unlink()
    with pytest.raises(UserError, match=r"svm\.skops: no such file; .*classify"):
        open_classifiers(saved).classifier("svm")


@pytest.mark.parametrize("content", [None, "{}", "not json", '{"classes": ["a"]}'])
def test_a_card_that_is_none_is_refused(saved: Path, content: str | None) -> None:
    (saved / "card.json").unlink()
    if content is not None:
        (saved / "card.json").write_text(content)
    with pytest.raises(UserError, match=r"card\.json: .*classify"):
        open_classifiers(saved)
