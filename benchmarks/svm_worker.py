"""One measurement of ``svm``: fits the SVM in this process and prints what it took, as JSON."""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np
from sklearn.preprocessing import StandardScaler

from galaxyspark.classify.fitted import Features, Truth
from galaxyspark.classify.svm import costs, fit_svm
from galaxyspark.settings import ClassifySettings

_NUM_FEATURES, _DIRECTIONS, _SHARES = 1024, 40, (0.43, 0.54, 0.03)
_SEED, _VALIDATION_ROWS = 1, 3_000


def make_rows(num_rows: int, seed: int) -> tuple[Features, Truth]:
    """Features (rows, 1024) and classes (rows,); the mixing of directions is the same for every seed."""
    mixing = np.random.default_rng(_SEED).normal(size=(_DIRECTIONS, _NUM_FEATURES)) / np.arange(1, 41)[:, None]
    random = np.random.default_rng((_SEED, seed))
    truth = random.choice(len(_SHARES), num_rows, p=_SHARES)
    latent = random.normal(size=(num_rows, _DIRECTIONS))
    latent[:, :3] += 2.2 * np.eye(3)[truth]
    noise = 0.1 * random.normal(size=(num_rows, _NUM_FEATURES))
    return np.maximum(latent @ mixing + noise, 0).astype(np.float32), truth


def main(num_rows: int) -> None:
    """Fit once."""
    train, validation = make_rows(num_rows, 1), make_rows(_VALIDATION_ROWS, 2)
    settings = ClassifySettings()
    scaled = StandardScaler().fit_transform(train[0]), train[1]
    linear, rbf, nystroem = costs(scaled, _VALIDATION_ROWS, settings, _SEED)
    del scaled
    before_mb = _peak_mb()
    start = time.perf_counter()
    _, choice = fit_svm(train, validation, len(_SHARES), settings, _SEED, say=lambda line: print(line, file=sys.stderr))
    seconds = time.perf_counter() - start
    kernels = [each["kernel"] for each in choice["candidates"]]
    approximate = any("Nystroem" in kernel for kernel in kernels)
    told = {
        "candidates": len(kernels),
        "seconds": seconds,
        "memory_mb": _peak_mb() - before_mb,
        "forecast_s": linear.seconds + (nystroem if approximate else rbf).seconds,
        "forecast_mb": max(linear.memory_mb, (nystroem if approximate else rbf).memory_mb),
        "rbf_machines": "Nystroem" if approximate else "exact",
        "rbf_forecast_s": rbf.seconds,
        "chosen": choice["kernel"],
    }
    best = {kernel: max(_scores(choice, kernel)) for kernel in dict.fromkeys(kernels)}
    print(json.dumps(told | {f"macro_f1_{kernel.split()[0]}": score for kernel, score in best.items()}))


def _scores(choice: dict, kernel: str) -> list[float]:  # type: ignore[type-arg]
    return [each["validation_macro_f1"] for each in choice["candidates"] if each["kernel"] == kernel]


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main(int(sys.argv[1]))
