"""A fitted classifier of features: scikit-learn's pipeline, and the temperatures that calibrate it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from galaxyspark.classify.calibration import Temperatures, log_of

Features = NDArray[np.float32]
Truth = NDArray[np.int64]


@dataclass(frozen=True)
class FittedClassifier:
    """From features to probabilities.

    Attributes:
        pipeline: Fitted, of anything that scikit-learn has for more than two classes.
        num_classes: All there are; the pipeline may have seen fewer.
        temperatures: Of its scores, and of the mean of its probabilities over several views.
    """

    pipeline: Pipeline
    num_classes: int
    temperatures: Temperatures = Temperatures()

    def scores(self, features: Features) -> NDArray[np.float64]:
        """Logits or what is like them, shape (views, classes), for features of shape (views, 1024 in GoogLeNet).

        Minus infinity for classes that the pipeline has never seen.
        """
        if hasattr(self.pipeline, "decision_function"):
            raw = self.pipeline.decision_function(features)
            if raw.ndim == 1:  # of two classes scikit-learn gives the second one's alone
                raw = np.stack([-raw / 2, raw / 2], axis=1)
            elif isinstance(self.pipeline[-1], SVC):
                raw = _sums_of_margins(raw, len(self.pipeline.classes_))
        else:
            raw = log_of(self.pipeline.predict_proba(features))
        scores = np.full((len(features), self.num_classes), -np.inf)
        scores[:, self.pipeline.classes_] = raw
        return scores

    def scores_by_view(self, features: Features) -> NDArray[np.float64]:
        """``scores`` of shape (galaxies, views, classes), for features of shape (galaxies, views, 1024)."""
        num_galaxies, num_views, num_features = features.shape
        return self.scores(features.reshape(-1, num_features)).reshape(num_galaxies, num_views, -1)

    def probabilities(self, features: Features) -> NDArray[np.float64]:
        """Calibrated probabilities, shape (galaxies, classes), for features of shape (galaxies, views, 1024)."""
        return self.temperatures.mean_over_views(self.scores_by_view(features))

    def calibrated(self, features: Features, truth: Truth) -> FittedClassifier:
        """The same with temperatures fitted to features (galaxies, views, 1024), of which view 0 comes first."""
        return replace(self, temperatures=Temperatures.fitted(self.scores_by_view(features), truth))


def _sums_of_margins(margins: NDArray[np.float64], num_classes: int) -> NDArray[np.float64]:
    """Of libsvm's margins between every two classes, a score for each: those for it less those against it.

    scikit-learn's own scores count votes, and jump where a galaxy passes from one class to another.
    """
    scores = np.zeros((len(margins), num_classes))
    for (first, second), margin in zip(combinations(range(num_classes), 2), margins.T, strict=True):
        scores[:, first] += margin
        scores[:, second] -= margin
    return scores
