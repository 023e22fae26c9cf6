"""A fitted classifier of features: scikit-learn's pipeline, and the temperature that calibrates it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from galaxyspark.classify.calibration import log_of, with_temperature

Features = NDArray[np.float32]
Truth = NDArray[np.int64]


@dataclass(frozen=True)
class FittedClassifier:
    """From features to probabilities.

    Attributes:
        pipeline: Fitted, of anything that scikit-learn has for more than two classes.
        num_classes: All there are; the pipeline may have seen fewer.
        temperature: Of its scores; see ``calibration.fit_temperature``.
    """

    pipeline: Pipeline
    num_classes: int
    temperature: float = 1.0

    def scores(self, features: Features) -> NDArray[np.float64]:
        """Logits or what is like them, shape (views, classes), for features of shape (views, 1024 in GoogLeNet).

        Minus infinity for classes that the pipeline has never seen.
        """
        if hasattr(self.pipeline, "decision_function"):
            raw = self.pipeline.decision_function(features)
            if raw.ndim == 1:  # of two classes scikit-learn gives the second one's alone
                raw = np.stack([-raw / 2, raw / 2], axis=1)
        else:
            raw = log_of(self.pipeline.predict_proba(features))
        scores = np.full((len(features), self.num_classes), -np.inf)
        scores[:, self.pipeline.classes_] = raw
        return scores

    def probabilities(self, features: Features) -> NDArray[np.float64]:
        """Calibrated probabilities, shape (views, classes), for features of shape (views, 1024 in GoogLeNet)."""
        return with_temperature(self.scores(features), self.temperature)
