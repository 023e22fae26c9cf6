"""The support vector machine on the network's features: which one, at what cost, chosen on the validation split."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.kernel_approximation import Nystroem
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from galaxyspark.classify.fitted import Features, FittedClassifier, Truth
from galaxyspark.classify.metrics import macro_f1
from galaxyspark.settings import ClassifySettings

CORES = len(os.sched_getaffinity(0))
_PILOT_ROWS = 1_000
_CACHE_MB = 200
_LINEAR_C = 0.01
_NYSTROEM_COMPONENTS = 1_000


@dataclass(frozen=True)
class Cost:
    """What fitting is going to take.

    Attributes:
        seconds: For all candidates, on this machine.
        memory_mb: At most, beside the features themselves.
    """

    seconds: float
    memory_mb: float


@dataclass(frozen=True)
class _Family:
    """Machines that differ in C alone, on a map of the features that they share."""

    kernel: str
    gamma: float | None
    feature_map: Nystroem | None
    machines: dict[float, SVC | LinearSVC]


def fit_svm(
    train: tuple[Features, Truth],
    validation: tuple[Features, Truth],
    num_classes: int,
    settings: ClassifySettings,
    seed: int,
    say: Callable[[str], None] = print,
) -> tuple[FittedClassifier, dict[str, Any]]:
    """Fit an SVM for each kernel, C and gamma and keep the one with the best macro-F1 on the validation split.

    Args:
        train: Features (views, 1024 in GoogLeNet) and positions of the classes (views,).
        validation: Likewise.
        num_classes: All there are.
        settings: What to choose from.
        seed: Of what is random in it.
        say: Is told beforehand what it will cost.

    Returns:
        The classifier, not calibrated yet, and how it was chosen: ``kernel``, ``c``, ``gamma`` (null for linear), and
        ``candidates``, each with its macro-F1 on validation and its seconds.
    """
    scaler = StandardScaler().fit(train[0])
    scaled, scaled_validation = scaler.transform(train[0]), scaler.transform(validation[0])
    approximate = "rbf" in settings.svm_kernels and _is_too_slow(scaled, train[1], settings, seed, say)
    candidates: list[dict[str, Any]] = []
    best: tuple[float, Pipeline, dict[str, Any]] | None = None
    for family in _families(settings, scaled.shape[1], len(scaled), approximate, seed):
        mapped, mapped_validation = scaled, scaled_validation
        if family.feature_map:
            mapped = family.feature_map.fit_transform(scaled)
            mapped_validation = family.feature_map.transform(scaled_validation)
        for c, machine, seconds in _fitted(family.machines, mapped, train[1]):
            score = macro_f1(validation[1], machine.predict(mapped_validation))
            chosen = {"kernel": family.kernel, "c": c, "gamma": family.gamma}
            candidates.append(chosen | {"validation_macro_f1": score, "fit_s": round(seconds, 2)})
            if best is None or score > best[0]:
                steps = [scaler, *([family.feature_map] if family.feature_map else []), machine]
                best = score, make_pipeline(*steps), chosen
    assert best is not None
    return FittedClassifier(best[1], num_classes), best[2] | {"candidates": candidates}


def _fitted(
    machines: dict[float, SVC | LinearSVC], features: Features, truth: Truth
) -> Iterator[tuple[float, SVC | LinearSVC, float]]:
    """C, machine and seconds, as they become ready; libsvm and liblinear let go of Python's lock."""
    jobs = (delayed(_fit)(c, machine, features, truth) for c, machine in machines.items())
    yield from Parallel(n_jobs=CORES, prefer="threads", return_as="generator")(jobs)


def _fit(c: float, machine: SVC | LinearSVC, features: Features, truth: Truth) -> tuple[float, SVC | LinearSVC, float]:
    start = time.perf_counter()
    return c, machine.fit(features, truth), time.perf_counter() - start


def _families(
    settings: ClassifySettings, num_features: int, num_rows: int, approximate: bool, seed: int
) -> Iterator[_Family]:
    """What there is to choose from; machines of an approximated kernel are linear ones on its map."""
    weights = None if settings.class_weight == "none" else settings.class_weight

    def linear(c: float) -> LinearSVC:
        return LinearSVC(C=_LINEAR_C * c, class_weight=weights, dual=False, random_state=seed)

    if "linear" in settings.svm_kernels:
        yield _Family("linear", None, None, {_LINEAR_C * c: linear(c) for c in settings.svm_c})
    for factor in settings.svm_gamma if "rbf" in settings.svm_kernels else ():
        gamma = factor / num_features
        if approximate:
            components = min(_NYSTROEM_COMPONENTS, num_rows)
            nystroem = Nystroem(gamma=gamma, n_components=components, random_state=seed)
            # The map's entries are small: C means what it means to the kernel machine.
            yield _Family("rbf (Nystroem)", gamma, nystroem, {c: linear(c / _LINEAR_C) for c in settings.svm_c})
        else:
            machines = {
                c: SVC(C=c, gamma=gamma, class_weight=weights, cache_size=_CACHE_MB, random_state=seed)
                for c in settings.svm_c
            }
            yield _Family("rbf", gamma, None, machines)


def _is_too_slow(
    scaled: Features, truth: Truth, settings: ClassifySettings, seed: int, say: Callable[[str], None]
) -> bool:
    """Whether an RBF machine would take longer than is allowed, found out on a few rows, and said."""
    cost = kernel_cost(scaled, truth, settings, seed)
    allowed_s = 60 * settings.svm_minutes
    what = f"{len(scaled):,} rows of {scaled.shape[1]:,} features"
    forecast = f"about {_said(cost.seconds)} and {cost.memory_mb / 1000:.1f} GB"
    if cost.seconds <= allowed_s:
        say(f"SVM on {what}: an RBF machine takes {forecast}.")
        return False
    say(
        f"SVM on {what}: an RBF machine would take {forecast}, more than --svm-minutes {settings.svm_minutes:g}. "
        f"Nystroem's approximation of it with {_NYSTROEM_COMPONENTS:,} components stands in, "
        f"in about {approximate_memory_mb(*scaled.shape) / 1000:.1f} GB."
    )
    return True


def kernel_cost(scaled: Features, truth: Truth, settings: ClassifySettings, seed: int) -> Cost:
    """What all RBF machines are going to cost, from fitting one of them to up to 1,000 rows.

    libsvm's time grows at least with the square of the rows; it keeps the rows in float64, and the support vectors of
    every machine that is being fitted.
    """
    rows = np.random.default_rng(seed).permutation(len(scaled))[:_PILOT_ROWS]
    start = time.perf_counter()
    if len(np.unique(truth[rows])) > 1:
        SVC(C=max(settings.svm_c), gamma=min(settings.svm_gamma) / scaled.shape[1]).fit(scaled[rows], truth[rows])
    pilot_s = time.perf_counter() - start
    num_machines = len(settings.svm_c) * len(settings.svm_gamma)
    together = min(CORES, len(settings.svm_c))
    seconds = pilot_s * (len(scaled) / len(rows)) ** 2 * num_machines / together
    copies_mb = scaled.size * (4 + 16 * together) / 1e6
    return Cost(seconds, copies_mb + _CACHE_MB * together)


def approximate_memory_mb(num_rows: int, num_features: int) -> float:
    """What fitting linear machines to Nystroem's map takes: the scaled rows, and the map in float32 and float64."""
    together = CORES
    return num_rows * (4 * num_features + min(_NYSTROEM_COMPONENTS, num_rows) * (4 + 8 * together)) / 1e6


def _said(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
