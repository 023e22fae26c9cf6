"""The rivals and the outlier score on blobs."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.datasets import make_blobs

from galaxyspark.classify.outliers import fit_outlier_score
from galaxyspark.classify.rivals import fit_rival
from galaxyspark.settings import RivalName


@pytest.mark.parametrize("name", get_args(RivalName))
@pytest.mark.parametrize("class_weight", ["balanced", None])
def test_a_rival_separates_what_can_be_separated(name: RivalName, class_weight: str | None) -> None:
    centres = [[0] * 8, [6] * 8, [0] * 4 + [600] * 4]
    train, validation, new = (make_blobs([60, 60, 60], centers=centres, random_state=seed) for seed in range(3))
    fitted, choice = fit_rival(name, train, validation, 4, class_weight, seed=1)
    probabilities = fitted.probabilities(new[0][:, None])
    assert (probabilities.argmax(axis=1) == new[1]).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities[:, 3] == 0).all()
    assert choice["validation_macro_f1"][choice["chosen"]] == 1


@pytest.mark.parametrize("name", get_args(RivalName))
def test_a_handful_of_galaxies_is_enough(name: RivalName) -> None:
    train = np.arange(12.0).reshape(6, 2), np.array([0, 0, 0, 1, 1, 2])
    fitted, _ = fit_rival(name, train, train, 3, "balanced", seed=1)
    assert fitted.probabilities(train[0][:, None]).shape == (6, 3)


def test_the_rival_that_is_best_on_validation_is_kept() -> None:
    """On noise that has a few right neighbours, the number of neighbours decides."""
    train = make_blobs([200, 200], centers=[[0, 0], [1.5, 0]], random_state=1)
    validation = make_blobs([200, 200], centers=[[0, 0], [1.5, 0]], random_state=2)
    fitted, choice = fit_rival("nearest_neighbours", train, validation, 2, None, seed=1)
    scores = choice["validation_macro_f1"]
    assert len(set(scores.values())) == 3
    assert choice["chosen"] == max(scores, key=scores.get) == f"{fitted.pipeline[-1].n_neighbors} neighbours"


def test_the_outlier_score_is_the_likelihood_of_a_normal_distribution() -> None:
    random = np.random.default_rng(5)
    train, validation, new = (random.normal(size=(n, 5)) * [9, 4, 1, 1, 1] + 3 for n in (400, 101, 20))
    score = fit_outlier_score(train, validation, seed=1)

    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scaled = (train - mean) / deviation
    covariance = np.cov(scaled.T)
    values, vectors = np.linalg.eigh(covariance)
    kept = 4  # of 5: the last direction is noise, of its own variance
    model = (vectors[:, -kept:] * values[-kept:]) @ vectors[:, -kept:].T + values[0] * np.outer(
        vectors[:, 0], vectors[:, 0]
    )
    surprise = [
        -multivariate_normal(np.zeros(5), model).logpdf((features - mean) / deviation) for features in (validation, new)
    ]
    lower, median, upper = np.percentile(surprise[0], (25, 50, 75))
    np.testing.assert_allclose(score(new), (surprise[1] - median) / ((upper - lower) / 1.349), rtol=1e-3, atol=1e-3)
    assert np.median(score(validation)) == pytest.approx(0, abs=1e-6)


def test_what_is_far_from_all_galaxies_is_strange_also_where_there_are_few() -> None:
    random = np.random.default_rng(5)
    train = random.normal(size=(6, 20))
    score = fit_outlier_score(train, train, seed=1)
    assert score(np.full((1, 20), 50.0))[0] > score(train).max() + 5


def test_features_that_hardly_vary_have_a_score_too() -> None:
    """As a network that was trained for a minute gives them: numbers in few directions, many of them always 0."""
    random = np.random.default_rng(5)
    mixing = random.normal(size=(3, 300))
    train, validation = (np.maximum(random.normal(size=(n, 3)) @ mixing, 0).astype(np.float32) for n in (200, 50))
    train[:, 100:200] = validation[:, 100:200] = 0
    train[:, 200:] = validation[:, 200:] = train[0, 200:]
    score = fit_outlier_score(train, validation, seed=1)
    assert np.isfinite([score.median, score.spread, *score(validation), *score(train * 0 + 5)]).all()
    assert score(100 * validation[:1])[0] > score(validation).max()


def test_features_that_vary_in_one_direction_only_are_judged_by_that_one() -> None:
    random = np.random.default_rng(5)
    amount, direction = random.normal(size=(200, 1)), random.uniform(0.5, 2, size=(1, 50))
    score = fit_outlier_score(amount @ direction, amount @ direction, seed=1)
    strangeness = np.abs(amount[:, 0] - amount.mean())
    np.testing.assert_array_equal(np.argsort(score(amount @ direction)), np.argsort(strangeness))


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
def test_where_all_are_alike_none_is_strange() -> None:
    alike = np.ones((100, 50))
    assert (fit_outlier_score(alike, alike, seed=1)(alike) == 0).all()
