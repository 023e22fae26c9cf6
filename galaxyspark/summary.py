"""A run in a few lines for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
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


def augmented(run: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What the stage augment has made: counts, reasons of the quarantine, class shares, and what to look at.

    Args:
        run: The run's directory.
        manifest: As the stage published it.
    """
    counts, reasons = manifest["counts"], manifest["quarantined_by_reason"]
    made = f"{counts['images']:,} images: {sum(counts['views'].values()):,} views of {counts['galaxies']:,} galaxies"
    lines = [f"{made} ({format_rate(manifest['rate'])}). Quarantined: {counts['quarantined'] - counts['left_out']:,}."]
    if counts["left_out"]:
        lines.append(f"Left out by --label-rule {manifest['label_rule']}: {counts['left_out']:,}.")
    if manifest["label_rule"] is None:
        lines.append("The labels are classes already: there was nothing for a --label-rule to do.")
    lines += [f"  {count:,}  {reason}" for reason, count in reasons.items()]
    if manifest["other_files"]:
        lines.append(f"  Passed over, as no image's name ends like theirs: {manifest['other_files']:,}.")
    lines += ["", *class_table(manifest["galaxies_by_class"], manifest["class_shares"]), "", "Look at:"]
    outputs = ["preview.png", "quarantine"] if counts["quarantined"] else ["preview.png"]
    lines += [f"  {run / name}" for name in outputs if (run / name).exists()]
    lines.append(f"  {run / 'views'}")
    return lines


def class_table(galaxies: Mapping[str, Mapping[str, int]], shares: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Galaxies of each class and their share of the split, a column a split and one for all."""
    together = {name: sum(of_split[name] for of_split in galaxies.values()) for name in shares["all"]}
    columns = {**galaxies, "all": together}
    width = max(len("galaxies"), *(len(name) for name in together))
    lines = [f"{'':<{width}}" + "".join(f"{split:>18}" for split in columns)]
    for name in together:
        cells = (f"{of_split[name]:,}  {shares[split][name]:6.2%}" for split, of_split in columns.items())
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>18}" for cell in cells))
    totals = (f"{sum(of_split.values()):,}  {'':6}" for of_split in columns.values())
    lines.append(f"{'galaxies':<{width}}" + "".join(f"{cell:>18}" for cell in totals))
    return [line.rstrip() for line in lines]


def format_rate(rate: dict[str, Any] | None) -> str:
    """A manifest's rate, such as ``3,100 views/s``; empty where a stage has none."""
    return f"{rate['per_s']:,.0f} {rate['unit']}/s" if rate else ""
