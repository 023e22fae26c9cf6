"""Figures of votes: how far the network's are from the volunteers', as the decision tree and as a scatter."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from numpy.typing import NDArray

from galaxyspark.galaxyzoo.tree import QUESTIONS, Question
from galaxyspark.report.drawing import PALETTE, Drawing, class_colour, finish, style

_BOX = (2.35, 0.74)
_STEP = (3.3, 1.0)
_DARK_BOX = 0.55


def draw_tree(name: str, title: str, rmse: Mapping[str, float]) -> Drawing:
    """The decision tree, a box for each question; the darker, the larger the error of its votes.

    Args:
        name: Of the file, without its ending.
        title: In words.
        rmse: By the number of the question, as text.
    """
    places = {question.number: place for question, place in _places()}
    with style():
        figure = Figure(figsize=(11, 5.2))
        axes = figure.add_axes((0, 0, 1, 1))
        for question in QUESTIONS:
            _draw_branch(axes, question, places)
            _draw_question(axes, question, places[question.number], rmse[str(question.number)], max(rmse.values()))
        columns, rows = zip(*places.values(), strict=True)
        axes.set_xlim(min(columns) - _BOX[0] / 2 - 0.05, max(columns) + _BOX[0] / 2 + 0.05)
        axes.set_ylim(max(rows) + _BOX[1] / 2 + 0.05, min(rows) - _BOX[1] / 2 - 0.05)
        axes.set_axis_off()
        return finish(figure, name, title)


def draw_vote_scatter(
    name: str, title: str, votes: NDArray[np.float32], true_votes: NDArray[np.float32], rmse: Mapping[str, float]
) -> Drawing:
    """The network's votes against the volunteers', a panel for each question and a colour for each answer.

    Args:
        name: Of the file, without its ending.
        title: In words.
        votes: The network's, 0 to 1, shape (galaxies, 37),
        true_votes: and the volunteers'.
        rmse: By the number of the question, as text.
    """
    with style():
        figure = Figure(figsize=(11, 9.2))
        panels = figure.subplots(3, 4, sharex=True, sharey=True, gridspec_kw={"hspace": 0.42, "wspace": 0.12}).flat
        for axes, question in zip(panels, QUESTIONS, strict=False):
            axes.plot((0, 1), (0, 1), "--", color=PALETTE["muted"], linewidth=1)
            for number, (answer, position) in enumerate(zip(question.answers, question.positions, strict=True)):
                axes.scatter(
                    true_votes[:, position],
                    votes[:, position],
                    s=6,
                    color=class_colour(number),
                    alpha=0.8,
                    linewidth=0,
                    label=answer,
                    rasterized=True,
                )
            heading = f"{question.number}. {question.text}"
            axes.set_title(f"{textwrap.fill(heading, 30)}\nRMSE {rmse[str(question.number)]:.3f}", fontsize=8)
            axes.legend(fontsize=6, markerscale=2.5, loc="upper left", handletextpad=0.1, borderpad=0)
        panels = figure.axes
        panels[len(QUESTIONS)].set_axis_off()
        for axes in panels[8 : len(QUESTIONS)]:
            axes.set_xlabel("volunteers")
        for axes in panels[::4]:
            axes.set_ylabel("network")
        return finish(figure, name, title)


def _asked_after(question: Question) -> tuple[Question, str] | None:
    """The question before and the answer that leads on to this one; None where everyone is asked."""
    if not question.asked_after:
        return None
    column = question.asked_after[0]
    before = next(each for each in QUESTIONS if column in each.columns)
    return before, before.answers[before.columns.index(column)]


def _places() -> Iterator[tuple[Question, tuple[float, float]]]:
    """The middle of each question's box: a column for each step of the tree, rows so that branches do not cross."""
    next_row = 0

    def follow(question: Question, depth: int) -> Iterator[tuple[Question, tuple[float, float]]]:
        nonlocal next_row
        after = [each for each in QUESTIONS if (link := _asked_after(each)) and link[0] is question]
        after.sort(key=lambda each: question.columns.index(each.asked_after[0]))
        below = [list(follow(each, depth + 1)) for each in after]
        if below:
            row = float(np.mean([branch[-1][1][1] / _STEP[1] for branch in below]))
        else:
            row, next_row = float(next_row), next_row + 1
        for branch in below:
            yield from branch
        yield question, (depth * _STEP[0], row * _STEP[1])

    for question in QUESTIONS:
        if _asked_after(question) is None:
            yield from follow(question, 0)


def _draw_branch(axes: Axes, question: Question, places: Mapping[int, tuple[float, float]]) -> None:
    link = _asked_after(question)
    if link is None:
        return
    before, answer = link
    (from_x, from_y), (to_x, to_y) = places[before.number], places[question.number]
    start, end = from_x + _BOX[0] / 2, to_x - _BOX[0] / 2
    axes.plot(
        (start, start + 0.12, start + 0.2, end), (from_y, from_y, to_y, to_y), color=PALETTE["muted"], linewidth=1
    )
    axes.text(end - 0.06, to_y - 0.06, answer, ha="right", va="bottom", fontsize=7.5, color=PALETTE["muted"])


def _draw_question(axes: Axes, question: Question, place: tuple[float, float], rmse: float, largest: float) -> None:
    share = 0.75 * rmse / largest
    corner = (place[0] - _BOX[0] / 2, place[1] - _BOX[1] / 2)
    fill = (*matplotlib.colors.to_rgb(PALETTE["heat"]), share)
    axes.add_patch(
        FancyBboxPatch(corner, *_BOX, boxstyle="round,pad=0,rounding_size=0.08", fc=fill, ec=PALETTE["line"])
    )
    ink = PALETTE["on-heat" if share > _DARK_BOX else "ink"]
    heading = textwrap.fill(f"{question.number}. {question.text}", 26)
    axes.text(place[0], place[1] - 0.08, heading, ha="center", va="center", fontsize=8, color=ink)
    axes.text(
        place[0], place[1] + 0.24, f"RMSE {rmse:.3f}", ha="center", va="center", fontsize=8, weight="bold", color=ink
    )
