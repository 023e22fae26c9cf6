"""What all benchmarks share: alternatives measured in turn, the table and the results file.

The alternatives run one after the other, A B C A B C ..., so that a machine that slows down slows all of them
down. Each warms up before, unmeasured. Runs of the same round are compared with each other: a ratio is the median
over the rounds of rate / rate.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from galaxyspark.errors import UserError
from galaxyspark.run_directory import versions
from galaxyspark.storage import write_atomically

RESULTS = Path(__file__).parent / "results"
_ROOT = Path(__file__).parents[1]
_TOLD = "units a second: "


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """What every benchmark can be told."""

    rounds: int = 3
    """How often each alternative is measured, after one run to warm up."""
    quick: bool = False
    """Measure one round of very little work, to try the benchmark; writes no file except --out."""
    out: Path | None = None
    """Where to write the results, instead of benchmarks/results/NAME.json."""

    def __post_init__(self) -> None:
        """Refuse settings with which nothing can be measured."""
        if self.rounds < 1:
            raise UserError(f"--rounds {self.rounds}: at least 1.")


@dataclass(frozen=True, kw_only=True)
class GalaxiesBenchmarkSettings(BenchmarkSettings):
    """What every benchmark on simulated galaxies can be told."""

    num_galaxies: int
    """Galaxies to simulate."""
    least_galaxies: ClassVar[int] = 40
    """With ``quick``."""

    def __post_init__(self) -> None:
        """Refuse settings with which nothing can be measured."""
        super().__post_init__()
        if self.num_galaxies < self.least_galaxies:
            raise UserError(f"--num-galaxies {self.num_galaxies}: at least {self.least_galaxies}.")

    def amount(self) -> tuple[int, int]:
        """Galaxies and rounds."""
        return (self.least_galaxies, 1) if self.quick else (self.num_galaxies, self.rounds)


@dataclass(frozen=True)
class Alternative:
    """One way to do the work.

    Attributes:
        name: Its name in the table and the results.
        run: Does all the work once, in a fresh, empty directory that is deleted afterwards. This is timed.
        count: From what ``run`` returned to the units of work that were done. This is not timed.
        wake: Does a little of the work right before every run, in another directory. This is not timed: what is left
            idle while others run may have been ended or swapped out (Spark ends idle Python workers after a minute).
    """

    name: str
    run: Callable[[Path], Any]
    count: Callable[[Any], int] = int
    wake: Callable[[Path], Any] | None = None


@dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes:
        unit: Of the rates, such as ``views/s``.
        runs: Alternative -> its rate in each round. The first is the subject that others are compared with.
    """

    unit: str
    runs: dict[str, list[float]]

    def rates(self) -> dict[str, dict[str, Any]]:
        """Alternative -> ``median``, ``min``, ``max``, ``unit``, ``runs``."""
        return {
            name: {
                "median": _rounded(median(rates)),
                "min": _rounded(min(rates)),
                "max": _rounded(max(rates)),
                "unit": self.unit,
                "runs": [_rounded(rate) for rate in rates],
            }
            for name, rates in self.runs.items()
        }

    def ratios(self) -> dict[str, float]:
        """``<subject>_vs_<other>`` -> median over the rounds of subject's rate / other's rate."""
        subject, *others = self.runs
        return {
            f"{subject}_vs_{other}": _rounded(
                median(ours / theirs for ours, theirs in zip(self.runs[subject], self.runs[other], strict=True))
            )
            for other in others
        }


def measure(
    alternatives: Sequence[Alternative],
    units: int,
    unit: str,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Measurement:
    """Run every alternative once to warm up and then once in every round, in the order given.

    Args:
        alternatives: At least one; the first is the subject.
        units: Units of work that every run has to do.
        unit: What is counted, such as ``views``.
        rounds: At least 1.
        clock: Seconds.

    Raises:
        RuntimeError: A run did more or less than ``units``.
    """
    runs: dict[str, list[float]] = {alternative.name: [] for alternative in alternatives}
    for number in range(rounds + 1):
        for alternative in alternatives:
            rate = units / _seconds(alternative, units, unit, clock)
            which = f"round {number} of {rounds}" if number else "warm-up"
            print(f"{which}: {alternative.name} {rate:,.1f} {unit}/s", file=sys.stderr)
            if number:
                runs[alternative.name].append(rate)
    return Measurement(f"{unit}/s", runs)


def _seconds(alternative: Alternative, units: int, unit: str, clock: Callable[[], float]) -> float:
    if alternative.wake:
        with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as directory:
            alternative.wake(Path(directory))
    with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as directory:
        start = clock()
        result = alternative.run(Path(directory))
        seconds = clock() - start
        done = alternative.count(result)
    if done != units:
        raise RuntimeError(f"{alternative.name} did {done:,} {unit} where all alternatives have to do {units:,}.")
    return seconds


@dataclass(frozen=True)
class ProcessAlternative:
    """One way to do the work in processes of its own, which warm up and take the time themselves.

    Attributes:
        name: Its name in the table and the results.
        command: What follows ``python``; one of the processes ends with ``tell_rate``.
        launcher: What goes before ``python``.
        environment: Variables it needs.
    """

    name: str
    command: Sequence[str]
    launcher: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def measure_processes(alternatives: Sequence[ProcessAlternative], unit: str, rounds: int) -> Measurement:
    """Run every alternative once in every round, in the order given; the first is the subject.

    Raises:
        RuntimeError: One failed.
    """
    runs: dict[str, list[float]] = {alternative.name: [] for alternative in alternatives}
    for number in range(1, rounds + 1):
        for alternative in alternatives:
            rate = _told_rate(alternative)
            print(f"round {number} of {rounds}: {alternative.name} {rate:,.1f} {unit}/s", file=sys.stderr)
            runs[alternative.name].append(rate)
    return Measurement(f"{unit}/s", runs)


def tell_rate(rate: float) -> None:
    """End the process of a ``ProcessAlternative``."""
    print(f"\n{_TOLD}{rate:.3f}")


def _told_rate(alternative: ProcessAlternative) -> float:
    completed = subprocess.run(
        [*alternative.launcher, sys.executable, *alternative.command],
        cwd=_ROOT,
        env=os.environ | alternative.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in completed.stdout.splitlines() if _TOLD in line]  # horovodrun puts the rank before it
    if completed.returncode or not told:
        raise RuntimeError(f"{alternative.name} failed:\n{completed.stderr[-2000:]}")
    return float(told[0].rpartition(_TOLD)[2])


def report(
    name: str,
    measurements: Sequence[Measurement],
    settings: BenchmarkSettings,
    further: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
) -> None:
    """Print the tables and write the results of benchmark ``name``.

    ``further`` are tables of other figures, title -> row -> column -> figure.
    """
    further = further or {}
    print("\n\n".join(format_table(measurement) for measurement in measurements))
    for title, rows in further.items():
        print(f"\n{title}")
        for row, figures in rows.items():
            print(f"  {row}: " + ", ".join(f"{column} {_told(figure)}" for column, figure in figures.items()))
    file = settings.out or (None if settings.quick else RESULTS / f"{name}.json")
    if file:
        write_atomically(file, json.dumps(results(measurements) | dict(further), indent=2) + "\n")
        print(f"\nWritten to {file}.")


def results(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """The content of a results file; ``rates`` are as measured in each comparison."""
    return {
        "ratios": {name: ratio for measurement in measurements for name, ratio in measurement.ratios().items()},
        "rates": [measurement.rates() for measurement in measurements],
        "machine": machine(),
        "versions": versions(),
    }


def format_table(measurement: Measurement) -> str:
    """One line an alternative: its name, its rates and the subject's rate in relation to it."""
    subject, *others = measurement.runs
    ratios = {other: f"{ratio:.3f}" for other, ratio in zip(others, measurement.ratios().values(), strict=True)}
    header = ("", f"median {measurement.unit}", "min - max", f"{subject} / this")
    lines = [header] + [
        (name, f"{rate['median']:,.1f}", f"{rate['min']:,.1f} - {rate['max']:,.1f}", ratios.get(name, ""))
        for name, rate in measurement.rates().items()
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])] + [cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in lines
    )


def machine() -> dict[str, Any]:
    """What the benchmark ran on; ``cores`` are those that this process may use. Linux only."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "os": platform.freedesktop_os_release()["PRETTY_NAME"],
        "kernel": platform.release(),
    }


def _told(figure: Any) -> str:
    return f"{figure:.5g}" if isinstance(figure, float) else str(figure)


def _rounded(value: float) -> float:
    """To five significant digits: the sixth is noise in any benchmark."""
    return float(f"{value:.5g}")
