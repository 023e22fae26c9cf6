"""How strange an image is to the network: how unlikely its features are among those of the training galaxies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from galaxyspark.classify.fitted import Features

_COMPONENTS = 64
_LEAST_VARIANCE = 1e-4  # of features scaled to 1: no galaxy is strange for what all the others have exactly alike
_BARELY_MORE = 1e-6
_NORMAL_IQR = 1.349  # of the standard normal distribution


@dataclass(frozen=True)
class OutlierScore:
    """From features to a score: 0 for the median validation galaxy, 1 a robust standard deviation above it.

    Attributes:
        pipeline: Scaler and principal components of training features; their likelihood is that of a normal
            distribution with equal noise in all other directions (Tipping & Bishop 1999).
        median, spread: Of the negative log-likelihood over validation galaxies, which the network has not learned;
            the spread is the interquartile range in standard deviations of a normal distribution.
    """

    pipeline: Pipeline
    median: float
    spread: float

    def __call__(self, features: Features) -> NDArray[np.float64]:
        """Scores, shape (views,), of features (views, 1024 in GoogLeNet)."""
        return (-self.pipeline.score_samples(features.astype(np.float64)) - self.median) / self.spread


def fit_outlier_score(train: Features, validation: Features, seed: int) -> OutlierScore:
    """Fit it to features of training galaxies, and its scale to those of validation galaxies."""
    components = max(1, min(_COMPONENTS, len(train) // 2, train.shape[1] - 1))
    pipeline = make_pipeline(StandardScaler(), PCA(components, svd_solver="randomized", random_state=seed))
    # In float32 the determinant of directions that hardly vary is lost.
    pipeline.fit(train.astype(np.float64))
    pca = pipeline[-1]
    pca.noise_variance_ = max(pca.noise_variance_, _LEAST_VARIANCE)
    # Directions in which nothing varies are as noisy as the rest; equal to it, they would be divided by zero.
    pca.explained_variance_ = np.maximum(pca.explained_variance_, pca.noise_variance_ * (1 + _BARELY_MORE))
    surprise = -pipeline.score_samples(validation.astype(np.float64))
    lower, median, upper = np.percentile(surprise, (25, 50, 75))
    return OutlierScore(pipeline, float(median), float(upper - lower) / _NORMAL_IQR or 1.0)
