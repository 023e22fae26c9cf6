"""How good a classifier is on a set of galaxies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score

from galaxyspark.classify.calibration import by_confidence, log_of, reliability

CONFIDENCE = 0.95
RESAMPLES = 2_000
"""Bootstrap samples behind an interval."""


def evaluate(
    truth: NDArray[np.int64], probabilities: NDArray[np.float64], classes: Sequence[str], seed: int = 1
) -> dict[str, Any]:
    """Compare classes predicted with true ones; the class predicted is that of the largest probability.

    Args:
        truth: Positions in ``classes``, shape (galaxies,).
        probabilities: 0 to 1, shape (galaxies, classes), rows adding up to 1.
        classes: Names of the classes.
        seed: Of the bootstrap.

    Returns:
        ``n`` galaxies; ``accuracy`` (0 to 1); ``accuracy_interval``, Wilson's 95% interval of it; ``macro_f1``, the
        mean F1 of the classes that occur in the truth; ``bootstrap``, 95% intervals of both; ``recall``, ``precision``
        and ``f1`` by class, null where the class does not occur, is not predicted, or neither; ``log_loss`` in nats;
        ``confusion``, counts with a row for each true class and a column for each predicted one, and
        ``confusion_percent``, of the rows; ``calibration`` and ``by_confidence``, see ``calibration``.
    """
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(truth, predicted, labels=np.arange(len(classes)))
    right, total = int(np.trace(confusion)), len(truth)
    interval = binomtest(right, total).proportion_ci(CONFIDENCE, method="wilson")
    return {
        "n": total,
        "accuracy": right / total,
        "accuracy_interval": [float(interval.low), float(interval.high)],
        "macro_f1": macro_f1(truth, predicted),
        "bootstrap": bootstrap(confusion, seed),
        "recall": _shares(confusion, classes),
        "precision": _shares(confusion.T, classes),
        "f1": f1_by_class(confusion, classes),
        "log_loss": -float(np.take_along_axis(log_of(probabilities), truth[:, None], axis=1).mean()),
        "confusion": confusion.tolist(),
        "confusion_percent": [
            [100 * count / sum(row) if sum(row) else None for count in row] for row in confusion.tolist()
        ],
        "calibration": reliability(probabilities, truth),
        "by_confidence": by_confidence(probabilities, truth),
    }


def macro_f1(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """The mean F1 (0 to 1) of the classes that occur in the truth; arrays of shape (galaxies,)."""
    return float(f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0))


def f1_by_class(confusion: NDArray[np.int64], classes: Sequence[str]) -> dict[str, float | None]:
    """F1 (0 to 1) of each class; None where no galaxy is of the class and none is put into it."""
    right, galaxies = confusion.diagonal(), confusion.sum(axis=0) + confusion.sum(axis=1)
    return {
        name: float(2 * right[position] / galaxies[position]) if galaxies[position] else None
        for position, name in enumerate(classes)
    }


def bootstrap(confusion: NDArray[np.int64], seed: int) -> dict[str, list[float]]:
    """95% percentile intervals (Efron 1979) of ``accuracy`` and ``macro_f1``.

    Galaxies drawn anew with replacement fall into the cells of the confusion matrix as a multinomial does, so the cells
    are drawn and not the galaxies.

    Args:
        confusion: Counts, shape (true classes, predicted classes).
        seed: Of the draws.
    """
    total = confusion.sum()
    drawn = np.random.default_rng(seed).multinomial(total, confusion.ravel() / total, RESAMPLES)
    counts = drawn.reshape(RESAMPLES, *confusion.shape)
    right = counts.diagonal(axis1=1, axis2=2)
    occurring, predicted = counts.sum(axis=2), counts.sum(axis=1)
    f1 = 2 * right / np.maximum(occurring + predicted, 1)
    scores = {
        "accuracy": right.sum(axis=1) / total,
        "macro_f1": (f1 * (occurring > 0)).sum(axis=1) / (occurring > 0).sum(axis=1),
    }
    ends = (50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE))
    return {name: np.percentile(values, ends).tolist() for name, values in scores.items()}


def paired(
    truth: NDArray[np.int64], probabilities: NDArray[np.float64], others: NDArray[np.float64]
) -> dict[str, float]:
    """Whether a classifier differs from another on the same galaxies by more than chance.

    Returns:
        ``difference`` of their accuracies, and ``p_value`` of McNemar's exact test: how likely so many of the galaxies
        on which just one is right would go to one of the two if both were equally good.
    """
    right, other_right = probabilities.argmax(axis=1) == truth, others.argmax(axis=1) == truth
    only, other_only = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    p_value = float(binomtest(only, only + other_only).pvalue) if only + other_only else 1.0
    return {"difference": (only - other_only) / len(truth), "p_value": p_value}


def votes_rmse(votes: NDArray[np.float32], true_votes: NDArray[np.float32]) -> float:
    """The challenge's score: root of the mean squared error over all cells of two arrays (galaxies, 37)."""
    return float(np.sqrt(np.square(votes.astype(np.float64) - true_votes).mean()))


def _shares(confusion: NDArray[np.int64], classes: Sequence[str]) -> dict[str, float | None]:
    """Share of each row on the diagonal, by class."""
    rows = enumerate(zip(classes, confusion, strict=True))
    return {name: float(row[position] / row.sum()) if row.sum() else None for position, (name, row) in rows}
