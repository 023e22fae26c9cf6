"""What a galaxy costs, out of what the benchmarks measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, linear_regression
from typing import Any

from benchmarks.growth.table import Run, efficiency
from galaxyspark.errors import UserError
from galaxyspark.views.augment import NUM_VIEWS


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What was measured. Sizes in pixels are those of a view; seconds of cores are of this machine's.

    Attributes:
        image_bytes, row_groups, shuffle_bytes, result_bytes, heap_bytes: For each galaxy: of its image file, in the
            dataset of views, through the shuffle, in results that tasks send to the driver, on the driver's heap.
        heap_mb: On the driver's heap whatever the number of galaxies.
        view_bytes: Size in px -> bytes of a galaxy's 16 views.
        feature_bytes: Of one view's features.
        augment_core_s: Size -> seconds of a core for a galaxy.
        extract_core_s, train_core_s: Size -> seconds of a core for a view.
        classify_s, classify_bytes: Seconds and memory of the driver's machine for a view, beside its features.
        fixed_s, driver_s: Stage -> seconds in which no task ran: of each run, and of each galaxy.
        first_look_s: Seconds for each galaxy until augment's first job: its file is listed once.
        efficiency: Stage -> share of its executors that the largest number of them makes use of.
    """

    image_bytes: float
    shuffle_bytes: float
    result_bytes: float
    heap_bytes: float
    heap_mb: float
    view_bytes: Mapping[int, float]
    feature_bytes: float
    augment_core_s: Mapping[int, float]
    extract_core_s: Mapping[int, float]
    train_core_s: Mapping[int, float]
    classify_s: float
    classify_bytes: float
    fixed_s: Mapping[str, float]
    driver_s: Mapping[str, float]
    first_look_s: float
    efficiency: Mapping[str, float]


def read_results(folder: Path) -> dict[str, Any]:
    """The results by the names of the benchmarks.

    Raises:
        UserError: One is missing.
    """
    results = {}
    for name in ("augment", "extract", "growth", "scale", "svm", "train"):
        file = folder / f"{name}.json"
        if not file.is_file():
            raise UserError(f"{file}: not there. Measure it: ./submit.sh bench {name}")
        results[name] = json.loads(file.read_text())
    return results


def costs_of(results: Mapping[str, Any]) -> Costs:
    """The costs out of the results by the names of the benchmarks, as ``read_results`` gives them."""
    growth, cores = results["growth"], results["growth"]["machine"]["cores"]
    size_px, runs = growth["view_size_px"], growth["runs"]
    augment, extract = growing(runs, "augment"), growing(runs, "extract")
    largest = results["scale"]["runs"][-1]
    svm_rows, svm = max((int(rows.split()[0].replace(",", "")), told) for rows, told in results["svm"]["svm"].items())
    loops = [rates["loop"]["median"] for rates in results["train"]["rates"] if "loop" in rates]
    alone = {name: line(of_stage, idle_s) for name, of_stage in (("augment", augment), ("extract", extract))}
    return Costs(
        image_bytes=augment[-1]["image_bytes"] / augment[-1]["galaxies"],
        shuffle_bytes=line(augment, lambda run: run["tasks"]["shuffle_written_bytes"])[1],
        result_bytes=line(augment, lambda run: run["largest_result_bytes"])[1],
        heap_bytes=2**20 * line(augment, lambda run: run["driver_heap_mb"])[1],
        heap_mb=line(augment, lambda run: run["driver_heap_mb"])[0],
        view_bytes={
            size_px: augment[-1]["view_bytes"] / augment[-1]["galaxies"],
            224: largest["bytes"] / largest["galaxies"],
        },
        feature_bytes=extract[-1]["tasks"]["output_bytes"] / extract[-1]["views"],
        augment_core_s={
            size_px: line(augment, lambda run: run["executor_cpu_s"])[1],
            224: NUM_VIEWS * cores / results["augment"]["rates"][0]["spark"]["median"],
        },
        extract_core_s={
            size_px: line(extract, lambda run: run["executor_cpu_s"], "views")[1],
            224: cores / results["extract"]["rates"][0]["spark"]["median"],
        },
        train_core_s={224: cores / loops[0], 112: cores / loops[1]},
        classify_s=svm["seconds"] / svm_rows,
        classify_bytes=svm["memory_mb"] * 1e6 / svm_rows,
        fixed_s={stage: fitted[0] for stage, fitted in alone.items()},
        driver_s={stage: fitted[1] for stage, fitted in alone.items()},
        first_look_s=line(augment, lambda run: run["phases"]["first_look"])[1],
        efficiency={stage: least_efficiency(runs, stage) for stage in alone},
    )


def growing(runs: Sequence[Run], stage: str) -> list[Run]:
    """The runs of a stage on one number of executors and more and more galaxies.

    Raises:
        UserError: There are not two.
    """
    sizes: dict[int, dict[int, Run]] = {}
    for run in runs:
        if run["stage"] == stage:
            sizes.setdefault(run["executors"], {})[run["galaxies"]] = run
    most = max(sizes.values(), key=len, default={})
    if len(most) < 2:
        raise UserError("growth.json: has one number of galaxies only. ./submit.sh bench growth --scales 1 4 16")
    return [most[galaxies] for galaxies in sorted(most)]


def line(runs: Sequence[Run], figure: Callable[[Run], float], of: str = "galaxies") -> tuple[float, float]:
    """Where a figure begins and how much it grows with each galaxy, by least squares; one that shrinks is constant."""
    figures = [figure(run) for run in runs]
    slope, intercept = linear_regression([run[of] for run in runs], figures)
    return (intercept, slope) if slope > 0 else (fmean(figures), 0.0)


def idle_s(run: Run) -> float:
    """Seconds of a stage in which no task ran: the driver worked alone, or waited for executors."""
    return float(run["idle_s"])


def least_efficiency(runs: Sequence[Run], stage: str) -> float:
    """That on the largest number of executors; 1 where there was one alone."""
    compared = [run for run in runs if run["stage"] == stage and efficiency(run, runs) is not None]
    if not compared:
        return 1.0
    return min(1.0, efficiency(max(compared, key=lambda run: run["executors"]), runs) or 1.0)
