"""The support vector machine on the network's features, fitted by scikit-learn and saved without pickle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import skops.io
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from galaxyspark.classify.metrics import macro_f1
from galaxyspark.errors import UserError

MAX_KERNEL_ROWS = 20_000
"""Above this many training views the kernel machine, quadratic in them, gives way to a linear one."""


def fit_svm(
    train: tuple[NDArray[np.float32], NDArray[np.int64]],
    validation: tuple[NDArray[np.float32], NDArray[np.int64]],
    candidates: Sequence[float],
    seed: int,
) -> tuple[Pipeline, dict[str, Any]]:
    """Fit an SVM for each candidate C and keep the one with the best macro-F1 on the validation split.

    Args:
        train: Features (views, 1024) and classes (views,).
        validation: Likewise; only C is chosen on it.
        candidates: Values of C.
        seed: Of the solver, where it is random.

    Returns:
        The fitted pipeline of scaler and SVM, and how it was chosen: kernel, C, macro-F1 of every candidate.
    """
    features, classes = train
    fitted = {c: make_pipeline(StandardScaler(), _machine(c, len(features), seed)) for c in candidates}
    scores = {}
    for c, pipeline in fitted.items():
        predicted = pipeline.fit(features, classes).predict(validation[0])
        scores[c] = macro_f1(validation[1], predicted)
    best = max(scores, key=lambda c: scores[c])
    kernel = "rbf" if isinstance(fitted[best][-1], SVC) else "linear"
    return fitted[best], {
        "kernel": kernel,
        "c": best,
        "validation_macro_f1": {str(c): score for c, score in scores.items()},
    }


def _machine(c: float, num_rows: int, seed: int) -> SVC | LinearSVC:
    if num_rows <= MAX_KERNEL_ROWS:
        return SVC(C=c, class_weight="balanced", cache_size=500)
    return LinearSVC(C=c, class_weight="balanced", dual=False, random_state=seed)


def save_svm(pipeline: Pipeline, file: Path) -> None:
    """Write a fitted pipeline in skops' format, which holds no code."""
    file.parent.mkdir(parents=True)
    skops.io.dump(pipeline, file)


def load_svm(file: Path) -> Pipeline:
    """Read a fitted pipeline.

    Raises:
        UserError: The file is missing or damaged, or holds types that a pipeline of ours has not.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file; run the stage classify first.")
    try:
        foreign = skops.io.get_untrusted_types(file=file)
    except (BadZipFile, KeyError, ValueError) as error:
        raise UserError(f"{file}: not a classifier in skops' format ({error}). Run the stage classify again.") from None
    if foreign:
        raise UserError(f"{file}: holds types that no classifier of ours has: {', '.join(foreign)}. Not loaded.")
    pipeline: Pipeline = skops.io.load(file, trusted=[])
    return pipeline
