"""What fitting the SVM costs: seconds and memory, forecast and measured, for more and more rows.

The rows are made to be like GoogLeNet's features: 1,024 positive numbers that vary in few directions, three classes of
which one is rare and two overlap. Each number of rows is fitted in a process of its own, with the settings of the stage
classify; what it chose says whether the RBF machine still fitted into its time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from benchmarks.harness import BenchmarkSettings, report


@dataclass(frozen=True, kw_only=True)
class SvmBenchmark(BenchmarkSettings):
    """What fitting the SVM costs, for more and more rows."""

    rows: tuple[int, ...] = (5_000, 20_000, 55_000)
    """Numbers of rows to fit."""
    rounds: int = 1
    """Not used: each is fitted once."""


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them."""
    settings = tyro.cli(SvmBenchmark, args=arguments, prog="bench svm")
    costs = {f"{rows:,} rows": cost(rows) for rows in ((500,) if settings.quick else settings.rows)}
    report("svm", [], settings, {"svm": costs})


def cost(rows: int) -> dict[str, Any]:
    """What ``svm_worker`` tells, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.svm_worker", str(rows)]
    completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    cost: dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
    print(f"{rows:,} rows: {cost}", file=sys.stderr)
    return cost
