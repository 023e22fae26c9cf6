"""Probabilities that mean what they say: calibrated on the validation split, and measured on any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

NUM_BINS = 15
"""Bins of the reliability diagram (Guo et al. 2017)."""
CONFIDENCES = tuple(step / 20 for step in range(20)) + (0.99,)
"""Least confidences for which accuracy and share are told."""
_LOG_TEMPERATURES = (-4.0, 4.0)
_LEAST_PROBABILITY = 1e-7


def log_of(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """Logarithms, a probability of 0 taken for one in ten million."""
    return np.log(np.clip(probabilities.astype(np.float64), _LEAST_PROBABILITY, None))


def fit_temperature(scores: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """The temperature under which the true classes are likeliest (Guo et al. 2017, section 4.2).

    With a normal prior of width 1 on its logarithm, which a few galaxies outweigh: three galaxies that are all right
    would else make every galaxy certain.

    Args:
        scores: Logits, or logarithms of probabilities, shape (galaxies, classes); minus infinity for what cannot be.
        truth: Positions of the true classes, shape (galaxies,). Those that cannot be are left out.

    Returns:
        T of softmax(scores / T): above 1 the scores were too sure of themselves, below 1 not sure enough.
    """
    known = np.isfinite(np.take_along_axis(scores, truth[:, None], axis=1)[:, 0])
    scores, truth = scores[known], truth[known]

    def loss(log_temperature: float) -> float:
        log_probabilities = log_softmax(scores / np.exp(log_temperature), axis=1)
        return log_temperature**2 / 2 - float(np.take_along_axis(log_probabilities, truth[:, None], axis=1).sum())

    return float(np.exp(minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded").x))


def with_temperature(scores: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Probabilities of the same shape (..., classes), each row adding up to 1: softmax(scores / temperature)."""
    return softmax(scores / temperature, axis=-1)


@dataclass(frozen=True)
class Temperatures:
    """What calibrates a classifier whose scores of single views have no scale of their own.

    Attributes:
        view: Of the scores of a view.
        mean16: Of the mean over several views of the probabilities that those become.
    """

    view: float = 1.0
    mean16: float = 1.0

    @classmethod
    def fitted(cls, scores: NDArray[np.float64], truth: NDArray[np.int64]) -> Temperatures:
        """To scores (galaxies, views, classes), view 0 first, and positions of the true classes (galaxies,)."""
        view = fit_temperature(scores[:, 0], truth)
        return cls(view, fit_temperature(log_of(with_temperature(scores, view).mean(axis=1)), truth))

    def mean_over_views(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (galaxies, classes) from scores of shape (galaxies, views, classes)."""
        of_views = with_temperature(scores, self.view)
        if scores.shape[1] == 1:
            return of_views[:, 0]
        return with_temperature(log_of(of_views.mean(axis=1)), self.mean16)


def reliability(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> dict[str, Any]:
    """How far confidence and accuracy agree.

    Args:
        probabilities: Shape (galaxies, classes); the confidence is the largest of a row.
        truth: Positions of the true classes, shape (galaxies,).

    Returns:
        ``expected_calibration_error``, the mean over the galaxies of |accuracy - confidence| of their bin (0 to 1), and
        ``bins`` of equal width with ``n``, mean ``confidence`` and ``accuracy``; bins without galaxies are left out.
    """
    confidence, right = _confidence_and_right(probabilities, truth)
    of_bin = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    bins = []
    for number in np.unique(of_bin):
        inside = of_bin == number
        means = {"confidence": float(confidence[inside].mean()), "accuracy": float(right[inside].mean())}
        bins.append({"n": int(inside.sum())} | means)
    error = sum(each["n"] * abs(each["accuracy"] - each["confidence"]) for each in bins) / len(truth)
    return {"expected_calibration_error": error, "bins": bins}


def by_confidence(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> list[dict[str, Any]]:
    """For each of ``CONFIDENCES``: the ``share`` of galaxies that reach it and the ``accuracy`` on them.

    The accuracy is None where there are none.
    """
    return [accuracy_at(probabilities, truth, least) for least in CONFIDENCES]


def accuracy_at(probabilities: NDArray[np.float64], truth: NDArray[np.int64], least: float) -> dict[str, Any]:
    """``min_confidence``, the ``share`` of galaxies that reach it, and the ``accuracy`` on them."""
    confidence, right = _confidence_and_right(probabilities, truth)
    classified = confidence >= least
    accuracy = float(right[classified].mean()) if classified.any() else None
    return {"min_confidence": least, "share": float(classified.mean()), "accuracy": accuracy}


def _confidence_and_right(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
