"""Calibration against labels drawn from known probabilities, and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import log_loss

from galaxyspark.classify.calibration import (
    CONFIDENCES,
    Temperatures,
    accuracy_at,
    by_confidence,
    fit_temperature,
    log_of,
    reliability,
    with_temperature,
)

SEEDS = st.integers(0, 2**31)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_is_found_again(temperature: float) -> None:
    random = np.random.default_rng(2)
    scores = random.normal(size=(20_000, 3)) * 3
    cumulative = softmax(scores / temperature, axis=1).cumsum(axis=1)
    truth = (random.random((len(scores), 1)) > cumulative).sum(axis=1)
    assert fit_temperature(scores, truth) == pytest.approx(temperature, rel=0.05)
    # Shifting a galaxy's scores by a constant changes no probability.
    assert fit_temperature(scores + random.normal(size=(len(scores), 1)), truth) == pytest.approx(temperature, rel=0.05)


def test_a_few_galaxies_that_are_all_right_do_not_make_every_galaxy_certain() -> None:
    scores = log_of(np.array([[0.6, 0.4], [0.7, 0.3], [0.9, 0.1]]))
    all_right, all_wrong = (fit_temperature(scores, np.full(3, position)) for position in (0, 1))
    assert 0.2 < all_right < 1 < all_wrong < 5
    assert 0.6 < with_temperature(scores, all_right)[0, 0] < 0.9


def test_the_mean_over_views_has_a_temperature_of_its_own() -> None:
    """Views that disagree by chance: their mean is less sure than it is right."""
    random = np.random.default_rng(7)
    truth = random.integers(3, size=4000)
    scores = 2 * np.eye(3)[truth][:, None] + random.normal(size=(4000, 16, 3)) * 2
    temperatures = Temperatures.fitted(scores, truth)
    assert temperatures.mean16 < 1
    plain = Temperatures(temperatures.view).mean_over_views(scores)
    np.testing.assert_allclose(plain, with_temperature(scores, temperatures.view).mean(axis=1))
    calibrated = temperatures.mean_over_views(scores)
    assert log_loss(truth, calibrated) < log_loss(truth, plain)
    of_view0 = temperatures.mean_over_views(scores[:, :1])
    np.testing.assert_allclose(of_view0, with_temperature(scores[:, 0], temperatures.view))


@given(SEEDS)
def test_no_galaxy_changes_its_class_and_the_loss_does_not_grow(seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities, truth = random.dirichlet((1, 1, 1), 30), random.integers(3, size=30)
    scores = log_of(probabilities)
    calibrated = with_temperature(scores, fit_temperature(scores, truth))
    np.testing.assert_array_equal(calibrated.argmax(axis=1), probabilities.argmax(axis=1))
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)
    assert log_loss(truth, calibrated, labels=range(3)) <= log_loss(truth, probabilities, labels=range(3)) + 1e-6


def test_a_class_that_cannot_be_does_not_spoil_the_temperature() -> None:
    scores = np.array([[2.0, 0, -np.inf], [0, 1, -np.inf], [1, 0, -np.inf], [0, 3, -np.inf]])
    truth = np.array([0, 1, 1, 1])
    with_one_more = fit_temperature(np.vstack([scores, scores[:1]]), np.append(truth, 2))
    assert with_one_more == pytest.approx(fit_temperature(scores, truth))


def test_reliability_by_hand() -> None:
    """Bins are a fifteenth wide: two galaxies of confidence 0.9, one right; one of 0.6, right; one of 1, right."""
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.0, 1.0]])
    result = reliability(probabilities, np.array([0, 0, 0, 1]))
    assert [each["n"] for each in result["bins"]] == [1, 2, 1]
    assert [each["confidence"] for each in result["bins"]] == pytest.approx([0.6, 0.9, 1.0])
    assert [each["accuracy"] for each in result["bins"]] == [1.0, 0.5, 1.0]
    assert result["expected_calibration_error"] == pytest.approx((0.4 + 2 * 0.4 + 0) / 4)


@given(SEEDS)
def test_the_bins_are_all_galaxies(seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities, truth = random.dirichlet((0.3, 0.3, 0.3), 50), random.integers(3, size=50)
    bins = reliability(probabilities, truth)["bins"]
    assert sum(each["n"] for each in bins) == 50
    right = sum(each["n"] * each["accuracy"] for each in bins)
    assert right == pytest.approx((probabilities.argmax(axis=1) == truth).sum())


def test_accuracy_against_share_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    truth = np.array([0, 1, 1, 0])
    assert accuracy_at(probabilities, truth, 0.0) == {"min_confidence": 0.0, "share": 1.0, "accuracy": 0.5}
    assert accuracy_at(probabilities, truth, 0.8) == {"min_confidence": 0.8, "share": 0.5, "accuracy": 1.0}
    assert accuracy_at(probabilities, truth, 0.99) == {"min_confidence": 0.99, "share": 0.0, "accuracy": None}
    shares = [row["share"] for row in by_confidence(probabilities, truth)]
    assert len(shares) == len(CONFIDENCES)
    assert shares == sorted(shares, reverse=True)
