"""How good a classifier is on a set of galaxies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score

CONFIDENCE = 0.95


def evaluate(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Compare classes predicted with true ones.

    Args:
        truth: Positions in ``classes``, shape (galaxies,).
        predicted: Likewise.
        classes: Names of the classes.

    Returns:
        ``n`` galaxies; ``accuracy`` (0 to 1); ``accuracy_interval``, Wilson's 95% interval of it; ``macro_f1``, the
        mean F1 of the classes that occur in the truth; ``recall`` by class, null where the class does not occur;
        ``confusion``, counts with a row for each true class and a column for each predicted one.
    """
    positions = np.arange(len(classes))
    confusion = confusion_matrix(truth, predicted, labels=positions)
    right, total = int(np.trace(confusion)), len(truth)
    interval = binomtest(right, total).proportion_ci(CONFIDENCE, method="wilson")
    recall = {
        name: float(row[position] / row.sum()) if row.sum() else None
        for position, (name, row) in enumerate(zip(classes, confusion, strict=True))
    }
    return {
        "n": total,
        "accuracy": right / total,
        "accuracy_interval": [float(interval.low), float(interval.high)],
        "macro_f1": macro_f1(truth, predicted),
        "recall": recall,
        "confusion": confusion.tolist(),
    }


def macro_f1(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """The mean F1 (0 to 1) of the classes that occur in the truth; arrays of shape (galaxies,)."""
    return float(f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0))
