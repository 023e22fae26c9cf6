"""The SVM on blobs, on disk, and a file that is not to be trusted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import skops.io
from numpy.typing import NDArray
from sklearn.datasets import make_blobs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

from galaxyspark.classify import svm
from galaxyspark.classify.svm import fit_svm, load_svm, save_svm
from galaxyspark.errors import UserError

CENTRES = [[0, 0, 0, 0], [6, 6, 0, 0], [0, 6, 600, 0]]


def blobs(spread: float, seed: int, sizes: tuple[int, ...] = (40, 40, 40)) -> tuple[NDArray, NDArray]:
    features, classes = make_blobs(list(sizes), centers=CENTRES, cluster_std=spread, random_state=seed)
    return features.astype(np.float32), classes


@pytest.mark.parametrize(("max_kernel_rows", "kernel"), [(1000, "rbf"), (10, "linear")])
def test_separable_classes_are_separated_by_either_kernel(
    max_kernel_rows: int, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svm, "MAX_KERNEL_ROWS", max_kernel_rows)
    pipeline, choice = fit_svm(blobs(0.5, 1), blobs(0.5, 2), (1.0, 10.0), seed=1)
    features, classes = blobs(0.5, 3)
    assert (pipeline.predict(features) == classes).all()
    assert choice["kernel"] == kernel
    assert choice["validation_macro_f1"]["10.0"] == 1


def test_the_c_with_the_best_macro_f1_on_validation_is_kept() -> None:
    (features, classes), (new_features, new_classes) = blobs(4, 1), blobs(4, 2)
    candidates = (1e-4, 1.0, 1e4)
    pipeline, choice = fit_svm((features, classes), (new_features, new_classes), candidates, seed=1)

    mean, deviation = features.mean(axis=0), features.std(axis=0)
    expected = {}
    for c in candidates:
        machine = SVC(C=c, class_weight="balanced").fit((features - mean) / deviation, classes)
        predicted = machine.predict((new_features - mean) / deviation)
        f1 = []
        for name in range(3):
            hits = ((predicted == name) & (new_classes == name)).sum()
            f1.append(2 * hits / ((predicted == name).sum() + (new_classes == name).sum()))
        expected[str(c)] = np.mean(f1)
    assert len(set(expected.values())) == 3
    assert choice["validation_macro_f1"] == pytest.approx(expected, abs=0.01)
    assert str(choice["c"]) == max(expected, key=expected.get)
    assert choice["c"] == pipeline[-1].C


def test_of_equally_good_values_of_c_the_first_is_kept() -> None:
    assert fit_svm(blobs(0.5, 1), blobs(0.5, 2), (3.0, 1.0, 2.0), seed=1)[1]["c"] == 3.0


def test_rare_classes_are_not_given_up() -> None:
    pipeline, _ = fit_svm(blobs(2.5, 1, (300, 12, 12)), blobs(2.5, 2), (0.1,), seed=1)
    features, classes = blobs(2.5, 3)
    found = [(pipeline.predict(features[classes == name]) == name).mean() for name in range(3)]
    assert min(found) > 0.6


@pytest.mark.parametrize(("max_kernel_rows", "kernel"), [(svm.MAX_KERNEL_ROWS, "rbf"), (1, "linear")])
def test_a_saved_svm_predicts_the_same(
    max_kernel_rows: int, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svm, "MAX_KERNEL_ROWS", max_kernel_rows)
    pipeline, choice = fit_svm(blobs(4, 1), blobs(4, 2), (1.0,), seed=1)
    assert choice["kernel"] == kernel
    file = tmp_path / "classifiers" / "svm.skops"
    save_svm(pipeline, file)
    features, _ = blobs(5, 3)
    loaded = load_svm(file)
    np.testing.assert_array_equal(loaded.predict(features), pipeline.predict(features))
    np.testing.assert_allclose(loaded.decision_function(features), pipeline.decision_function(features))


def test_a_missing_file_is_named_with_the_stage_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"svm\.skops: no such file; .*classify"):
        load_svm(tmp_path / "svm.skops")


@pytest.mark.parametrize(("function", "name"), [(os.system, "system"), (eval, "eval")])
def test_a_file_that_would_run_code_is_not_loaded(function: object, name: str, tmp_path: Path) -> None:
    file = tmp_path / "svm.skops"
    skops.io.dump(make_pipeline(FunctionTransformer(function), SVC()), file)
    with pytest.raises(UserError) as error:
        load_svm(file)
    assert str(error.value).startswith(f"{file}: ")
    assert name in str(error.value)
    assert "Not loaded" in str(error.value)


def test_a_damaged_file_is_named_with_the_stage_that_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "svm.skops"
    file.write_bytes(b"not a classifier")
    with pytest.raises(UserError, match=r"svm.skops: not a classifier in skops' format .*stage classify"):
        load_svm(file)
