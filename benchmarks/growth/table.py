"""The tables of what ``growth`` measured, as rows of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.growth.events import PHASES

Row = tuple[str, ...]
Run = Mapping[str, Any]
"""What ``measure_stage`` tells of one stage, with its number of executors and of galaxies."""


def efficiency(run: Run, runs: Sequence[Run]) -> float | None:
    """How much of its executors a run made use of: time of the work on one over executors x time here; None without."""
    for other in runs:
        if other["executors"] == 1 and all(other[name] == run[name] for name in ("stage", "galaxies")):
            return float(other["phases"]["work"] / (run["executors"] * run["phases"]["work"]))
    return None


def rate_rows(runs: Sequence[Run]) -> list[Row]:
    """A header, and for each run: how fast it was, its efficiency, and how busy its executors were while they worked.

    Efficiency is against one executor on as many galaxies; executors are busy while they have a task.
    """
    header: Row = (
        "stage",
        "executors",
        "galaxies",
        "wall s",
        "work s",
        "views/s",
        "efficiency",
        "busy",
        "executors' CPU s",
    )
    return [header] + [
        (
            run["stage"],
            str(run["executors"]),
            f"{run['galaxies']:,}",
            f"{run['wall_s']:.0f}",
            f"{run['phases']['work']:.1f}",
            f"{run['views'] / run['phases']['work']:,.0f}",
            "" if (of_one := efficiency(run, runs)) is None else f"{of_one:.2f}",
            f"{run['work_task_s'] / (run['executors'] * run['phases']['work']):.2f}",
            f"{run['executor_cpu_s']:.0f}",
        )
        for run in runs
    ]


def phase_rows(runs: Sequence[Run]) -> list[Row]:
    """A header, and for each run: seconds of each phase, and of the application while no task ran."""
    header: Row = ("stage", "executors", "galaxies", *(phase.replace("_", " ") for phase in PHASES), "no task")
    return [header] + [
        (
            *(run["stage"], str(run["executors"]), f"{run['galaxies']:,}"),
            *(f"{run['phases'][phase]:.1f}" for phase in PHASES),
            f"{run['idle_s']:.1f}",
        )
        for run in runs
    ]


def task_rows(runs: Sequence[Run]) -> list[Row]:
    """A header, and for each run: its tasks, their seconds by what they were spent on, and megabytes moved."""
    header: Row = ("stage", "executors", "galaxies", "tasks", "task s", "in Python s", "starting Python s", "GC s")
    header += ("deserialising s", "scheduler s", "shuffle MB", "results MB", "written MB")
    return [header] + [
        (
            *(run["stage"], str(run["executors"]), f"{run['galaxies']:,}", str(run["tasks"]["tasks"])),
            *(f"{run['tasks'][name]:.1f}" for name in ("task_s", "python_s", "python_start_s", "gc_s")),
            *(f"{run['tasks'][name]:.1f}" for name in ("deserialize_s", "scheduler_delay_s")),
            *(f"{run['tasks'][f'{name}_bytes'] / 1e6:.2f}" for name in ("shuffle_written", "result", "output")),
        )
        for run in runs
    ]


def memory_rows(runs: Sequence[Run]) -> list[Row]:
    """A header, and for each run: what was in use of the driver's heap, and the largest resident memory, all in MB."""
    roles = ("driver_jvm", "driver_python", "largest_executor_jvm", "largest_worker")
    header: Row = ("stage", "executors", "galaxies", "driver's heap in use", "driver's JVM", "driver's Python")
    header += ("largest executor's JVM", "largest Python worker")
    return [header] + [
        (
            *(run["stage"], str(run["executors"]), f"{run['galaxies']:,}", str(run["driver_heap_mb"])),
            *(f"{run['peaks_mb'].get(role, 0):,}" for role in roles),
        )
        for run in runs
    ]


def aligned(rows: Sequence[Row]) -> str:
    """Rows for a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
