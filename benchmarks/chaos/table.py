"""What was measured of each scenario, as a table for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.chaos.disturbances import DISTURBANCES
from benchmarks.pages import markdown

_HEADER = ("stage", "what happens", "exit status", "next task s", "lost tasks s", "run s", "times as long", "same data")
_LONGEST_CELL = 160


@dataclass(frozen=True)
class Again:
    """What came after the driver was killed.

    Attributes:
        untouched: Whether what had been published before stood as it was.
        left_behind: Names of what lay in the run that is not published.
        executors_gone_s: Seconds from the kill until no executor ran any more.
        exit_status: Of the same command, given again.
        left_behind_then: As ``left_behind``, after that.
    """

    untouched: bool
    left_behind: list[str]
    executors_gone_s: float
    exit_status: int
    left_behind_then: list[str]


@dataclass(frozen=True)
class Row:
    """What was measured of a stage in a scenario.

    Attributes:
        stage: Its name.
        scenario: One of ``DISTURBANCES``.
        not_measured: Why there is nothing else; else empty.
        tasks: Of the stage's own work.
        tasks_done: Of them, when the disturbance struck.
        tasks_hit: Tasks that then ran on the executor that was struck.
        exit_status: Of the command.
        shown: What its user saw that an undisturbed one does not, but for its numbers.
        next_task_s: From the disturbance until the next task was done.
        lost_tasks_s: From the disturbance until the last of those was done that were hit.
        failed_attempts: How many attempts at tasks failed, by Spark's name of the failure.
        seconds: From the command to its end; of a killed driver that of the same command, given again.
        times_as_long: As the undisturbed run.
        same_data: Whether the same rows were published, each once.
        again: Where the driver was killed.
    """

    stage: str
    scenario: str
    not_measured: str = ""
    tasks: int = 0
    tasks_done: int = 0
    tasks_hit: int = 0
    exit_status: int | None = None
    shown: list[str] = field(default_factory=list)
    next_task_s: float | None = None
    lost_tasks_s: float | None = None
    failed_attempts: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    times_as_long: float | None = None
    same_data: bool | None = None
    again: Again | None = None


def as_text(rows: Sequence[Row]) -> str:
    """For the terminal: one line a row, and below what users saw."""
    lines = [_HEADER, *(_figures(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    seen = [f"{row.stage}, {DISTURBANCES[row.scenario].title}: {seen_of(row)}" for row in rows]
    return "\n".join([*table, "", *seen])


def as_markdown(rows: Sequence[Row]) -> str:
    """For the docs: the same figures, and what users saw in the last column."""
    header = (*_HEADER, "what the user sees")
    return markdown([header, *((*_figures(row), _escaped(seen_of(row))) for row in rows)])


def seen_of(row: Row) -> str:
    """What the user sees, in a sentence or two."""
    if row.not_measured:
        return f"not run: {row.not_measured}"
    if not row.shown:
        return "nothing"
    first, *others = (_shortened(line) for line in row.shown)
    more = f" and {len(others)} more line" + "s" * (len(others) > 1)
    return f"`{first}`" + (more if others else "")


def _figures(row: Row) -> tuple[str, ...]:
    title = DISTURBANCES[row.scenario].title
    if row.not_measured:
        return (row.stage, title, *[""] * (len(_HEADER) - 2))
    status = f"{row.exit_status}" + (f", then {row.again.exit_status}" if row.again else "")
    figures = (_seconds(row.next_task_s), _seconds(row.lost_tasks_s), _seconds(row.seconds), f"{row.times_as_long:.1f}")
    return (row.stage, title, status, *figures, "yes" if row.same_data else "NO")


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f}"


def _shortened(line: str) -> str:
    """A line without the time before it and without what no cell has room for."""
    line = re.sub(r"^[\d:]+ ", "", line).rstrip()
    return line if len(line) <= _LONGEST_CELL else line[: _LONGEST_CELL - 3] + "..."


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
