"""The page's figures of accuracy, learning and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from galaxyspark.report.drawing import (
    MOST_IN_LEGEND,
    NUM_COLOURS,
    PALETTE,
    Drawing,
    class_colour,
    finish,
    in_legend,
    style,
)

_LABELLED_CLASSES = 12
_DARK_CELL = 0.66
_LONGEST_NAME = 20
_SHOWN_CONFIDENCE = 0.9
_LEAST_IN_BIN = 5
_DASHES = ("-", "--", ":", "-.")
CLASSIFIER_COLOURS = {"cnn_mean16": class_colour(0), "svm_mean16": class_colour(1)}
"""Colours of the classifiers that are drawn together."""


def draw_confusion(name: str, title: str, confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Drawing:
    """A heat map of the share of each true class, with counts and percentages up to 12 classes.

    Args:
        name: Of the file, without its ending.
        title: In words.
        confusion: Counts of galaxies, a row for each true class and a column for each predicted one.
        classes: Names of the classes, in the order of rows and columns.
    """
    counts = np.array(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labelled = len(classes) <= _LABELLED_CLASSES
    side_inches = len(classes) * (0.72 if labelled else 0.2)
    with style():
        figure = Figure(figsize=(side_inches, side_inches))
        axes = figure.add_axes((0, 0, 1, 1))
        _fill_cells(axes, counts, shares, labelled)
        _name_classes(axes, classes, font_size=9 if labelled else 7)
        return finish(figure, name, title, f"{title}. {_in_words(counts, classes)}" if labelled else "")


def _in_words(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    rows = (
        f"True class {true}: " + ", ".join(f"{count:,} as {said}" for count, said in zip(row, classes, strict=True))
        for true, row in zip(classes, counts, strict=True)
    )
    return ". ".join(rows)


def draw_loss(name: str, title: str, history: Sequence[Mapping[str, Any]], chosen_epoch: int) -> Drawing:
    """Training and validation loss, in nats, over the epochs of history.jsonl."""
    epochs = [row["epoch"] for row in history]
    with style():
        figure, axes = _curve_axes("loss (nats)")
        axes.plot(epochs, [row["train_loss"] for row in history], "--", color=PALETTE["training"], label="training")
        _draw_validation(axes, history, "loss", chosen_epoch)
        return finish(figure, name, title)


def draw_accuracy(name: str, title: str, history: Sequence[Mapping[str, Any]], chosen_epoch: int) -> Drawing:
    """Validation accuracy over the epochs of history.jsonl."""
    with style():
        figure, axes = _curve_axes("accuracy")
        _draw_validation(axes, history, "accuracy", chosen_epoch)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        return finish(figure, name, title)


def draw_runs(name: str, title: str, histories: Mapping[str, Sequence[Mapping[str, Any]]], quantity: str) -> Drawing:
    """A validation metric of history.jsonl over the epochs, a line for each run.

    Args:
        name: Of the file, without its ending.
        title: In words.
        histories: By the name of the run.
        quantity: ``accuracy`` or ``loss``.
    """
    with style():
        figure, axes = _curve_axes(quantity)
        for position, (run, history) in enumerate(histories.items()):
            values = {row["epoch"]: row[quantity] for row in history}
            colour, dashes = class_colour(position), _DASHES[position // NUM_COLOURS % len(_DASHES)]
            axes.plot(
                list(values),
                list(values.values()),
                dashes,
                color=colour,
                marker="o",
                markersize=3,
                label=in_legend(run),
            )
        if quantity == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.legend(loc="best", fontsize=8)
        return finish(figure, name, title)


def draw_reliability(name: str, title: str, of_split: Mapping[str, Any], titles: Mapping[str, str]) -> Drawing:
    """Accuracy against mean confidence of each bin of five galaxies or more; a point is as large as its share of them.

    Args:
        name: Of the file, without its ending.
        title: In words.
        of_split: The metrics of one split by classifier.
        titles: Names of the classifiers as people read them.
    """
    with style():
        figure, axes = _square_axes(
            "confidence: the probability given to the class", "accuracy: how often it was right"
        )
        axes.plot((0, 1), (0, 1), "--", color=PALETTE["muted"], linewidth=1, label="what it should be")
        for classifier, colour in CLASSIFIER_COLOURS.items():
            bins = [each for each in of_split[classifier]["calibration"]["bins"] if each["n"] >= _LEAST_IN_BIN]
            confidence, accuracy = ([each[key] for each in bins] for key in ("confidence", "accuracy"))
            sizes = [12 + 150 * each["n"] / of_split[classifier]["n"] for each in bins]
            error = of_split[classifier]["calibration"]["expected_calibration_error"]
            axes.plot(confidence, accuracy, "-", color=colour, linewidth=1)
            axes.scatter(confidence, accuracy, sizes, color=colour, label=f"{titles[classifier]}, error {error:.1%}")
        axes.set_xlim(_least_confidence(of_split) - 0.05, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.legend(loc="best", fontsize=8, markerscale=0.6)
        return finish(figure, name, title)


def _least_confidence(of_split: Mapping[str, Any]) -> float:
    bins = [each for name in CLASSIFIER_COLOURS for each in of_split[name]["calibration"]["bins"]]
    return min(each["confidence"] for each in bins)


def draw_share_classified(name: str, title: str, of_split: Mapping[str, Any], titles: Mapping[str, str]) -> Drawing:
    """Accuracy on the galaxies whose confidence reaches a limit, against their share, for all limits."""
    with style():
        figure, axes = _square_axes("share of the galaxies that are classified", "accuracy on those")
        for classifier, colour in CLASSIFIER_COLOURS.items():
            rows = [row for row in of_split[classifier]["by_confidence"] if row["accuracy"] is not None]
            axes.plot(
                [row["share"] for row in rows],
                [row["accuracy"] for row in rows],
                "-",
                color=colour,
                marker="o",
                markersize=3,
                label=titles[classifier],
            )
            limit = next((row for row in rows if row["min_confidence"] == _SHOWN_CONFIDENCE), None)
            if limit:
                axes.plot(limit["share"], limit["accuracy"], "o", markersize=9, markerfacecolor="none", color=colour)
        axes.plot([], [], "o", markersize=9, markerfacecolor="none", color=PALETTE["ink"], label="confidence 0.9")
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(top=1.01)
        axes.legend(loc="best", fontsize=8)
        return finish(figure, name, title)


def draw_map(
    name: str,
    title: str,
    places: NDArray[np.float64],
    truth: NDArray[np.int64],
    right: NDArray[np.bool_],
    classes: Sequence[str],
) -> Drawing:
    """The map of the feature space as a picture.

    Args:
        name: Of the file, without its ending.
        title: In words.
        places: Shape (galaxies, 2).
        truth: Positions of the true classes, shape (galaxies,).
        right: Where the network says so too.
        classes: Names of the classes.
    """
    with style():
        figure = Figure(figsize=(6, 6))
        axes = figure.add_axes((0, 0, 1, 1))
        for position, class_name in enumerate(classes):
            for inside, marker in ((right, "o"), (~right, "x")):
                chosen = inside & (truth == position)
                axes.scatter(
                    places[chosen, 0],
                    places[chosen, 1],
                    s=12,
                    marker=marker,
                    linewidth=0.8,
                    color=class_colour(position),
                    label=in_legend(class_name) if marker == "o" else None,
                    rasterized=True,
                )
        axes.set_axis_off()
        axes.set_aspect("equal")
        if len(classes) <= MOST_IN_LEGEND:
            axes.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=4, fontsize=8)
        return finish(figure, name, title)


def _fill_cells(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64], labelled: bool) -> None:
    red, green, blue = matplotlib.colors.to_rgb(PALETTE["heat"])
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            colour = (red, green, blue, float(share))
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, linewidth=0))
        if labelled:
            ink = PALETTE["on-heat" if share > _DARK_CELL else "ink"]
            percent = f"{share:.1%}" if counts[row].any() else "–"
            axes.text(column, row - 0.04, f"{counts[row, column]:,}", ha="center", size=11, weight="bold", color=ink)
            axes.text(column, row + 0.26, percent, ha="center", size=8, color=ink)
    if labelled:
        edges = np.arange(len(counts) + 1) - 0.5
        axes.hlines(edges, -0.5, len(counts) - 0.5, color=PALETTE["line"], linewidth=0.8)
        axes.vlines(edges, -0.5, len(counts) - 0.5, color=PALETTE["line"], linewidth=0.8)


def _name_classes(axes: Axes, classes: Sequence[str], font_size: int) -> None:
    names = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in classes]
    positions = range(len(names))
    upright = max(map(len, names)) <= 9 and len(names) <= _LABELLED_CLASSES
    axes.set_xticks(positions, names, size=font_size)
    axes.set_yticks(positions, names, size=font_size)
    for label in () if upright else axes.get_xticklabels():
        label.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    axes.spines[:].set_color(PALETTE["line"])
    axes.spines[:].set_visible(True)


def _square_axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4, 3.6))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.grid(linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _curve_axes(quantity: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.6, 2.5))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlabel("epoch")
    axes.set_ylabel(quantity)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(axis="y", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.03, y=0.12)
    return figure, axes


def _draw_validation(axes: Axes, history: Sequence[Mapping[str, Any]], quantity: str, chosen_epoch: int) -> None:
    """The validation's line, and a ring around the epoch whose weights were kept."""
    colour = PALETTE["validation"]
    values = {row["epoch"]: row[quantity] for row in history}
    axes.plot(list(values), list(values.values()), "-", color=colour, marker="o", markersize=3, label="validation")
    if chosen_epoch in values:
        axes.plot(
            [chosen_epoch],
            [values[chosen_epoch]],
            linestyle="none",
            marker="o",
            markersize=10,
            markerfacecolor="none",
            markeredgecolor=PALETTE["ink"],
            label=f"chosen: epoch {chosen_epoch}",
        )
    axes.legend(loc="best")
