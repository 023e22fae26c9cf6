"""The SVM on blobs: against scikit-learn's own machine, for few rows and for many."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import make_blobs
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from galaxyspark.classify import svm
from galaxyspark.classify.svm import costs, fit_svm
from galaxyspark.errors import UserError
from galaxyspark.settings import ClassifySettings

CENTRES = [[0, 0, 0, 0], [6, 6, 0, 0], [0, 6, 600, 0]]


def blobs(spread: float, seed: int, sizes: tuple[int, ...] = (40, 40, 40)) -> tuple[NDArray, NDArray]:
    centres = CENTRES[: len(sizes)]
    features, classes = make_blobs(list(sizes), centers=centres, cluster_std=spread, random_state=seed)
    return features.astype(np.float32), classes


def fit(train, validation, num_classes: int = 3, **settings):
    lines: list[str] = []
    fitted, choice = fit_svm(train, validation, num_classes, ClassifySettings(**settings), seed=1, say=lines.append)
    return fitted, choice, "\n".join(lines)


@pytest.mark.parametrize(
    ("settings", "kernel"),
    [
        ({"svm_kernels": ("linear",)}, "linear"),
        ({"svm_kernels": ("rbf",)}, "rbf"),
        ({"svm_kernels": ("rbf",), "svm_minutes": 0}, "rbf (Nystroem)"),
    ],
)
@pytest.mark.parametrize("num_classes", [2, 3])
def test_separable_classes_are_separated_by_every_machine(settings: dict, kernel: str, num_classes: int) -> None:
    sizes = (40,) * num_classes
    fitted, choice, _ = fit(blobs(0.5, 1, sizes), blobs(0.5, 2, sizes), num_classes, **settings)
    features, classes = blobs(0.5, 3, sizes)
    probabilities = fitted.probabilities(features[:, None])
    assert (probabilities.argmax(axis=1) == classes).all()
    assert probabilities.shape == (len(classes), num_classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert choice["kernel"] == kernel
    assert max(each["validation_macro_f1"] for each in choice["candidates"]) == 1


def test_the_machine_with_the_best_macro_f1_on_validation_is_kept() -> None:
    (features, classes), (new_features, new_classes) = blobs(4, 1), blobs(4, 2)
    values, gammas = (1e-2, 1.0, 1e4), (0.1, 1.0)
    train, validation = (features, classes), (new_features, new_classes)
    fitted, choice, _ = fit(train, validation, svm_kernels=("rbf",), svm_c=values, svm_gamma=gammas)

    mean, deviation = features.mean(axis=0), features.std(axis=0)
    expected = {}
    for c in values:
        for factor in gammas:
            machine = SVC(C=c, gamma=factor / 4, class_weight="balanced", decision_function_shape="ovo")
            margins = machine.fit((features - mean) / deviation, classes).decision_function(
                (new_features - mean) / deviation
            )
            of_0_and_1, of_0_and_2, of_1_and_2 = margins.T
            scores = (of_0_and_1 + of_0_and_2, of_1_and_2 - of_0_and_1, -of_0_and_2 - of_1_and_2)
            predicted = np.argmax(scores, axis=0)
            f1 = []
            for name in range(3):
                hits = ((predicted == name) & (new_classes == name)).sum()
                f1.append(2 * hits / ((predicted == name).sum() + (new_classes == name).sum()))
            expected[c, factor / 4] = np.mean(f1)
    assert len(set(expected.values())) > 3
    found = {(each["c"], each["gamma"]): each["validation_macro_f1"] for each in choice["candidates"]}
    assert found == pytest.approx(expected, abs=0.01)
    assert (choice["c"], choice["gamma"]) == max(expected, key=expected.get)
    assert (fitted.pipeline[-1].C, fitted.pipeline[-1].gamma) == (choice["c"], choice["gamma"])


def test_nystroems_machine_says_about_what_the_kernel_machine_says() -> None:
    train, validation = blobs(3, 1, (150, 150, 150)), blobs(3, 2)
    same = {"svm_kernels": ("rbf",), "svm_c": (1.0,), "svm_gamma": (1.0,)}
    exact, _, _ = fit(train, validation, **same)
    approximate, _, _ = fit(train, validation, **same, svm_minutes=0)
    features, _ = blobs(3, 3, (300, 300, 300))
    agreeing = exact.probabilities(features[:, None]).argmax(axis=1) == approximate.probabilities(
        features[:, None]
    ).argmax(axis=1)
    assert agreeing.mean() > 0.95


def test_what_it_will_cost_is_said_beforehand() -> None:
    train, validation = blobs(3, 1), blobs(3, 2)
    said = fit(train, validation)[2]
    assert re.fullmatch(
        r"SVM on 120 rows of 4 features\.\n  Linear machines take about \d+ s and 0.0 GB\.\n"
        r"  RBF machines take about \d+ s and 0\.\d GB\.",
        said,
    )
    said = fit(train, validation, svm_minutes=0)[2]
    assert "--svm-minutes is 0.\n  Nystroem's approximation of them stands in and takes about" in said
    assert "RBF" not in fit(train, validation, svm_kernels=("linear",))[2]


def test_more_rows_are_known_to_cost_more() -> None:
    """Four times the rows: four times a linear machine's memory, and much more than that of an RBF machine's time."""
    settings = ClassifySettings()
    few, many = (
        (StandardScaler().fit_transform(features), truth)
        for features, truth in (blobs(3, 1, (700, 700, 10)), blobs(3, 1, (2800, 2800, 40)))
    )
    (linear, rbf, _), (more_linear, more_rbf, _) = (costs(rows, 100, settings, seed=1) for rows in (few, many))
    assert more_linear.memory_mb == pytest.approx(4 * linear.memory_mb, rel=0.02)
    assert more_rbf.seconds > 4 * rbf.seconds > 0


def test_without_memory_for_any_machine_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(UserError, match="the SVM needs .* GB beside the features, and 0.0 GB are free"):
        fit(blobs(3, 1), blobs(3, 2))


def test_an_rbf_machines_probabilities_change_without_a_jump() -> None:
    """From one class's centre to another's: libsvm's own votes would jump by a third of the scale."""
    train = blobs(3, 1, (200, 200, 200))
    fitted, _, _ = fit(train, blobs(3, 2), svm_kernels=("rbf",), svm_c=(1.0,), svm_gamma=(1.0,))
    path = np.linspace(CENTRES[0], CENTRES[1], 400).astype(np.float32)
    steps = np.abs(np.diff(fitted.calibrated(train[0][:, None], train[1]).probabilities(path[:, None]), axis=0))
    assert steps.max() < 0.02


def test_rare_classes_are_not_given_up() -> None:
    train, validation = blobs(2.5, 1, (300, 12, 12)), blobs(2.5, 2)
    features, classes = blobs(2.5, 3)
    found = {}
    for class_weight in ("balanced", "none"):
        fitted, _, _ = fit(train, validation, svm_c=(0.1,), svm_kernels=("rbf",), class_weight=class_weight)
        predicted = fitted.probabilities(features[:, None]).argmax(axis=1)
        found[class_weight] = min((predicted[classes == name] == name).mean() for name in range(3))
    assert found["balanced"] > 0.6
    assert found["none"] < found["balanced"]


def test_a_class_that_was_never_seen_is_never_predicted() -> None:
    fitted, _, _ = fit(blobs(1, 1), blobs(1, 2), num_classes=5)
    probabilities = fitted.probabilities(blobs(1, 3)[0][:, None])
    assert probabilities.shape == (120, 5)
    assert (probabilities[:, 3:] == 0).all()
