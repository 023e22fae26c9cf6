"""The support vector machine on the network's features: which one, at what cost, chosen on the validation split."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import psutil
from joblib import Parallel, delayed
from sklearn.kernel_approximation import Nystroem
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from galaxyspark.classify.fitted import Features, FittedClassifier, Truth
from galaxyspark.classify.metrics import macro_f1
from galaxyspark.errors import UserError
from galaxyspark.settings import ClassifySettings

CORES = len(os.sched_getaffinity(0))
_PILOT_ROWS = 2_000
_LEAST_OF_CLASS = 10
_MOST_CACHE_MB = 2_000
_WITHOUT_CACHE = 3.0  # times longer, measured on 20,000 rows with a cache for an eighth of the kernel matrix
_LINEAR_C = 0.01
_NYSTROEM_COMPONENTS = 1_000

Machine: TypeAlias = SVC | LinearSVC
Rows = tuple[Features, Truth]


@dataclass(frozen=True)
class Cost:
    """What fitting all machines of some kind is going to take, on this machine.

    Attributes:
        seconds: With the prediction of the validation split.
        memory_mb: At most, beside the features as they were read.
    """

    seconds: float
    memory_mb: float

    def __str__(self) -> str:
        """As people say it."""
        time_needed = f"{self.seconds:.0f} s" if self.seconds < 120 else f"{self.seconds / 60:.0f} minutes"
        return f"about {time_needed} and {self.memory_mb / 1000:.1f} GB"


@dataclass(frozen=True)
class _Family:
    """Machines that differ in C alone, on a map of the features that they share."""

    kernel: str
    gamma: float | None
    feature_map: Nystroem | None
    machines: dict[float, Machine]


def fit_svm(
    train: Rows,
    validation: Rows,
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

    Raises:
        UserError: There is too little memory for any machine.
    """
    scaler = StandardScaler().fit(train[0])
    scaled = scaler.transform(train[0]), train[1]
    scaled_validation = scaler.transform(validation[0])
    approximate = is_approximate(scaled, len(validation[0]), settings, seed, say)
    candidates: list[dict[str, Any]] = []
    best: tuple[float, FittedClassifier, dict[str, Any]] | None = None
    for family in _families(settings, scaled[0].shape, approximate, seed):
        mapped, mapped_validation = scaled[0], scaled_validation
        if family.feature_map:
            mapped = family.feature_map.fit_transform(scaled[0])
            mapped_validation = family.feature_map.transform(scaled_validation)
        for c, machine, seconds in _fitted(family.machines, (mapped, train[1])):
            predicted = FittedClassifier(make_pipeline(machine), num_classes).scores(mapped_validation).argmax(axis=1)
            score = macro_f1(validation[1], predicted)
            chosen = {"kernel": family.kernel, "c": c, "gamma": family.gamma}
            candidates.append(chosen | {"validation_macro_f1": score, "fit_s": round(seconds, 2)})
            if best is None or score > best[0]:
                pipeline = make_pipeline(scaler, *([family.feature_map] if family.feature_map else []), machine)
                best = score, FittedClassifier(pipeline, num_classes), chosen
    assert best is not None
    return best[1], best[2] | {"candidates": candidates}


def _fitted(machines: dict[float, Machine], rows: Rows) -> Iterator[tuple[float, Machine, float]]:
    """C, machine and seconds, as they become ready; libsvm and liblinear let go of Python's lock."""
    jobs = (delayed(_fit)(c, machine, rows) for c, machine in machines.items())
    yield from Parallel(n_jobs=CORES, prefer="threads", return_as="generator")(jobs)


def _fit(c: float, machine: Machine, rows: Rows) -> tuple[float, Machine, float]:
    start = time.perf_counter()
    return c, machine.fit(*rows), time.perf_counter() - start


def _families(settings: ClassifySettings, shape: tuple[int, ...], approximate: bool, seed: int) -> Iterator[_Family]:
    """What there is to choose from; machines of an approximated kernel are linear ones on its map."""
    num_rows, num_features = shape
    if "linear" in settings.svm_kernels:
        yield _Family(
            "linear", None, None, {_LINEAR_C * c: _linear(_LINEAR_C * c, settings, seed) for c in settings.svm_c}
        )
    for factor in settings.svm_gamma if "rbf" in settings.svm_kernels else ():
        gamma = factor / num_features
        if approximate:
            nystroem = Nystroem(gamma=gamma, n_components=min(_NYSTROEM_COMPONENTS, num_rows), random_state=seed)
            yield _Family("rbf (Nystroem)", gamma, nystroem, {c: _linear(c, settings, seed) for c in settings.svm_c})
        else:
            machines = {c: _rbf(c, gamma, settings, _cache_mb(num_rows)) for c in settings.svm_c}
            yield _Family("rbf", gamma, None, machines)


def _linear(c: float, settings: ClassifySettings, seed: int) -> LinearSVC:
    return LinearSVC(C=c, class_weight=settings.weights, dual=False, random_state=seed)


def _rbf(c: float, gamma: float, settings: ClassifySettings, cache_mb: float) -> SVC:
    # The margins of all pairs of classes, of which FittedClassifier makes scores.
    return SVC(C=c, gamma=gamma, class_weight=settings.weights, cache_size=cache_mb, decision_function_shape="ovo")


def _kernel_mb(num_rows: int) -> float:
    """Of libsvm's kernel matrix, in float32."""
    return max(1.0, 4e-6 * num_rows**2)


def _cache_mb(num_rows: int) -> float:
    return min(_kernel_mb(num_rows), _MOST_CACHE_MB)


def is_approximate(
    scaled: Rows, num_validation: int, settings: ClassifySettings, seed: int, say: Callable[[str], None]
) -> bool:
    """Whether Nystroem's approximation has to stand in for the RBF machine; says what all of it will cost.

    Raises:
        UserError: There is too little memory for any machine.
    """
    free_mb = psutil.virtual_memory().available / 1e6
    linear, rbf, nystroem = costs(scaled, num_validation, settings, seed)
    say(f"SVM on {len(scaled[0]):,} rows of {scaled[0].shape[1]:,} features.")
    needed_mb = linear.memory_mb
    approximate = False
    if "linear" in settings.svm_kernels:
        say(f"  Linear machines take {linear}.")
    if "rbf" in settings.svm_kernels:
        approximate = rbf.seconds > 60 * settings.svm_minutes or rbf.memory_mb > free_mb
        if approximate:
            say(f"  RBF machines would take {rbf}; --svm-minutes is {settings.svm_minutes:g}.")
            say(f"  Nystroem's approximation of them stands in and takes {nystroem}.")
        else:
            say(f"  RBF machines take {rbf}.")
        needed_mb = max(needed_mb, nystroem.memory_mb) if approximate else needed_mb
    if needed_mb > free_mb:
        raise UserError(
            f"the SVM needs {needed_mb / 1000:.1f} GB beside the features, and {free_mb / 1000:.1f} GB are free. "
            "Fit to fewer views: --fit-views view0."
        )
    return approximate


def costs(scaled: Rows, num_validation: int, settings: ClassifySettings, seed: int) -> tuple[Cost, Cost, Cost]:
    """What the linear machines, the RBF machines and Nystroem's will cost, from fitting each kind to some 2,000 rows.

    Linear machines take as long as there are rows, libsvm's as their square, and both a little longer, as more rows
    take more iterations: by the fourth root, as was measured (bench svm). Both keep the rows in float64, liblinear with
    an index beside each number; a libsvm machine keeps its support vectors too.
    """
    (num_rows, num_features), pilot = scaled[0].shape, _pilot(scaled, seed)
    more, num_gammas = num_rows / len(pilot[0]), len(settings.svm_gamma)
    together = min(CORES, len(settings.svm_c))
    turns = -(-len(settings.svm_c) // together)
    c, gamma = max(settings.svm_c), min(settings.svm_gamma) / num_features
    linear_s = more**1.25 * _seconds([_linear(_LINEAR_C * c, settings, seed) for _ in range(together)], pilot)
    rbf = [_rbf(c, gamma, settings, _cache_mb(len(pilot[0]))) for _ in range(together)]
    rbf_s = more**2.25 * _seconds(rbf, pilot) * (1 if _kernel_mb(num_rows) <= _MOST_CACHE_MB else _WITHOUT_CACHE)
    predict_s = num_validation * more * _seconds_a_row(rbf[0], pilot)
    components = min(_NYSTROEM_COMPONENTS, num_rows)
    map_mb, numbers = num_rows * components * 4 / 1e6, 24e-6 * together
    scaled_mb = 4e-6 * scaled[0].size
    return (
        Cost(turns * linear_s, scaled_mb + numbers * scaled[0].size),
        Cost(
            num_gammas * (turns * rbf_s + len(settings.svm_c) * predict_s),
            scaled_mb + 16e-6 * together * scaled[0].size + _cache_mb(num_rows) * together,
        ),
        Cost(
            num_gammas * 2 * turns * linear_s * components / num_features,
            scaled_mb + map_mb + numbers * num_rows * components,
        ),
    )


def _pilot(scaled: Rows, seed: int) -> Rows:
    """About 2,000 rows with some of every class."""
    random, (features, truth) = np.random.default_rng(seed), scaled
    share = min(1.0, _PILOT_ROWS / len(truth))
    rows = [
        random.permutation(np.flatnonzero(truth == position))[: max(_LEAST_OF_CLASS, round(share * count))]
        for position, count in zip(*np.unique(truth, return_counts=True), strict=True)
    ]
    chosen = np.concatenate(rows)
    return features[chosen], truth[chosen]


def _seconds(machines: Sequence[Machine], rows: Rows) -> float:
    """Of fitting machines at a time, as is done later: two cores may be one that is shared."""
    start = time.perf_counter()
    list(_fitted(dict(enumerate(machines)), rows))
    return time.perf_counter() - start


def _seconds_a_row(machine: Machine, rows: Rows) -> float:
    start = time.perf_counter()
    machine.decision_function(rows[0])
    return (time.perf_counter() - start) / len(rows[0])
