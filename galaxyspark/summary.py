"""A run in a few lines for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from galaxyspark.errors import UserError
from galaxyspark.run_directory import RunDirectory, duration_s
from galaxyspark.settings import PredictJob, PredictSettings

NAMES = {
    "cnn": "CNN",
    "svm": "SVM",
    "logistic_regression": "Logistic regression",
    "nearest_neighbours": "Nearest neighbours",
    "random_forest": "Random forest",
    "gradient_boosting": "Gradient boosting",
}
_WHICH = {"mean16": "mean of 16 views", "view0": "one view"}
CLASSIFIERS = {
    f"{classifier}_{which}": f"{name}, {of_views}"
    for classifier, name in NAMES.items()
    for which, of_views in _WHICH.items()
} | {"always_commonest": "Always the commonest class"}
"""The classifiers of metrics.json as people read them, in the order they are shown."""

_LEAST_TO_RECKON = 1_000


def summary(run: RunDirectory) -> list[str]:
    """Accuracy of every classifier on the test galaxies, the rate of every stage, and what to look at."""
    lines = []
    manifests = run.published()
    if "classify" in manifests:
        lines += accuracy_table(read_metrics(run), "test")
    lines.append(f"\n{'Stage':<30}seconds   rate")
    for stage, manifest in manifests.items():
        lines.append(f"  {stage:<28}{duration_s(manifest):7.0f}   {format_rate(manifest['rate'])}".rstrip())
    lines.append("\nLook at:")
    for name in ("report/index.html", "catalogue.csv", "metrics.json"):
        if run.has(name):
            lines.append(f"  {run.place(name)}")
    return lines


def what_cut_training_short(manifest: Mapping[str, Any]) -> str:
    """Such as ``ended by --max-minutes 10 after 2,265 of the 25,230 steps of 30 epochs``; empty where nothing did.

    Args:
        manifest: Of ``train``, perhaps of an older version.
    """
    if not manifest.get("cut_short_by"):
        return ""
    training = manifest["training"]
    epochs = training["settings"]["epochs"]
    of_all = f"{training['asked_steps']:,} steps of {epochs:,} epoch{'s' if epochs > 1 else ''}"
    return f"ended by {manifest['cut_short_by']} after {training['steps']:,} of the {of_all}"


def read_metrics(run: RunDirectory) -> dict[str, Any]:
    """The content of metrics.json.

    Raises:
        UserError: It is missing, or an older version of galaxyspark wrote it.
    """
    file = run.path("metrics.json")
    if not file.is_file():
        raise UserError(f"{file}: is missing. Run the stage classify again.")
    metrics: dict[str, Any] = json.loads(file.read_text())
    if "f1" not in metrics["splits"]["test"].get("svm_mean16", {}):
        raise UserError(f"{file}: of an older version. Run the stages extract and classify again.")
    return metrics


def accuracy_table(metrics: Mapping[str, Any], split: str) -> list[str]:
    """A line for each classifier of metrics.json, on one split."""
    of_split = metrics["splits"][split]
    galaxies = f"On {of_split['cnn_mean16']['n']:,} {split} galaxies"
    lines = [f"{galaxies:<40}accuracy   95% interval   macro-F1   log loss   differs from SVM"]
    for name, title in CLASSIFIERS.items():
        if name in of_split:
            metric = of_split[name]
            low, high = metric["accuracy_interval"]
            figures = f"{metric['accuracy']:8.3f}   {low:.3f}-{high:.3f}    {metric['macro_f1']:8.3f}   "
            lines.append(f"  {title:<38}{figures}{metric['log_loss']:8.3f}   {difference(metric)}".rstrip())
    return lines


def difference(metric: Mapping[str, Any]) -> str:
    """Of a classifier to the SVM, and whether it is more than chance; empty where unknown."""
    if "against_svm" not in metric:
        return ""
    difference, p_value = metric["against_svm"]["difference"], metric["against_svm"]["p_value"]
    return f"{difference:+.3f} ({p_in_words(p_value)})"


def p_in_words(p_value: float) -> str:
    """A p value, 0 to 1, such as ``p = 0.039`` or ``p < 0.001``."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def augmented(run: RunDirectory, manifest: Mapping[str, Any]) -> list[str]:
    """What the stage augment has made: counts, reasons of the quarantine, class shares, and what to look at.

    Args:
        run: The run.
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
    lines += [f"  {run.place(name)}" for name in outputs if run.has(name)]
    lines.append(f"  {run.place('views')}")
    return lines


def predicted(job: PredictJob, manifest: Mapping[str, Any], cores: int) -> list[str]:
    """What the stage predict has made: counts, classes, rate and cost, and what to look at."""
    counts, run = manifest["counts"], RunDirectory(job.run)
    parts = [f"{count:,} {name}" for name, count in sorted(manifest["classes"].items())]
    if counts["under_min_confidence"]:
        parts.append(f"{counts['under_min_confidence']:,} below --min-confidence {job.predict.min_confidence:g}")
    if counts["quarantined"]:
        parts.append(f"{counts['quarantined']:,} that could not be read (the catalogue says why)")
    lines = [f"{counts['images']:,} images: {', '.join(parts)}."]
    if counts["taken_over"]:
        lines.append(f"Taken over from the catalogue before, as they have not changed: {counts['taken_over']:,}.")
    if counts["dropped"]:
        lines.append(f"No longer in the catalogue, as they are not in this folder: {counts['dropped']:,}.")
    if job.predict.min_confidence:
        lines += _confident(run, job.predict)
    if manifest["left_out"]:
        lines.append(f"Too many rows for {', '.join(manifest['left_out'])}: read the Parquet files in catalogue/.")
    num_new, rate = counts["classified"] - counts["taken_over"], format_rate(manifest["rate"])
    lines.append(f"{num_new:,} classified in {manifest['duration_s']:.0f} s{f', {rate}' if rate else ''}.")
    if rate and num_new >= _LEAST_TO_RECKON:
        hours = 1e6 * cores / manifest["rate"]["per_s"] / 3600
        lines.append(f"At that rate a million images take {hours:,.0f} core hours, on these cores.")
    names = ("catalogue.csv", "catalogue.fits", "catalogue.vot", "catalogue")
    return [*lines, "", "Look at:", *(f"  {run.place(name)}" for name in names if run.has(name))]


def _confident(run: RunDirectory, settings: PredictSettings) -> list[str]:
    """How many test galaxies reach the confidence, and how often their class was right."""
    least = settings.min_confidence
    which = "cnn_view0" if settings.predict_views == 1 else "cnn_mean16"
    rows = read_metrics(run)["splits"]["test"][which]["by_confidence"]
    row = max((row for row in rows if row["min_confidence"] <= least), key=itemgetter("min_confidence"))
    if row["accuracy"] is None:
        return []
    galaxies = f"Among the test galaxies, by {CLASSIFIERS[which].partition(', ')[2]}, {row['share']:.1%} reach"
    return [f"{galaxies} {row['min_confidence']:g}; of those {row['accuracy']:.1%} are classified right."]


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
    """A manifest's rate, such as ``3,100 views/s`` or ``0.19 pictures/s``; empty where a stage has none."""
    if not rate:
        return ""
    per_s = rate["per_s"]
    return f"{per_s:,.0f} {rate['unit']}/s" if per_s >= 1 else f"{per_s:.2g} {rate['unit']}/s"
