"""A run in a few lines for the terminal."""

from __future__ import annotations

import json
from typing import Any

from galaxyspark.run_directory import RunDirectory

CLASSIFIERS = {
    "cnn_mean16": "CNN, mean of 16 views",
    "cnn_view0": "CNN, one view",
    "svm": "SVM on features of one view",
    "always_commonest": "Always the commonest class",
}
"""The classifiers of metrics.json as people read them, in the order they are shown."""


def summary(run: RunDirectory) -> list[str]:
    """Accuracy of every classifier on the test galaxies, the rate of every stage, and what to look at."""
    lines = []
    manifests = run.published()
    if "classify" in manifests:
        test = json.loads(run.path("metrics.json").read_text())["splits"]["test"]
        galaxies = f"On {test['svm']['n']:,} test galaxies"
        lines.append(f"{galaxies:<30}accuracy   95% interval   macro-F1")
        for name, title in CLASSIFIERS.items():
            low, high = test[name]["accuracy_interval"]
            metric = test[name]
            lines.append(f"  {title:<28}{metric['accuracy']:8.3f}   {low:.3f}-{high:.3f}   {metric['macro_f1']:8.3f}")
    lines.append(f"\n{'Stage':<30}seconds   rate")
    for stage, manifest in manifests.items():
        lines.append(f"  {stage:<28}{manifest['duration_s']:7.0f}   {format_rate(manifest['rate'])}".rstrip())
    lines.append("\nLook at:")
    for name in ("report/index.html", "catalogue.csv", "metrics.json"):
        if run.path(name).exists():
            lines.append(f"  {run.path(name)}")
    return lines


def format_rate(rate: dict[str, Any] | None) -> str:
    """A manifest's rate, such as ``3,100 views/s``; empty where a stage has none."""
    return f"{rate['per_s']:,.0f} {rate['unit']}/s" if rate else ""
