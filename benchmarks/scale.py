"""Time, size and memory of the job ``augment`` at 1, 4 and 16 times the galaxies: memory must not grow with them.

Each size is a run of its own, started as a user starts it, whose processes are looked at twice a second.
"""

from __future__ import annotations

import csv
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import tyro

from benchmarks.harness import RESULTS, machine
from benchmarks.processes import memory_mb, peaks_until_the_end
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.tree import ID_COLUMN
from galaxyspark.run_directory import RunDirectory, versions
from galaxyspark.storage import write_atomically

_SUBMIT = Path(__file__).parents[1] / "submit.sh"
_SIZES = (16, 4, 1)
_ROLES = ("driver_jvm", "driver_python", "largest_worker", "all_processes")


@dataclass(frozen=True, kw_only=True)
class ScaleBenchmark:
    """Time, size and memory of the stage augment at a 16th, a quarter and all of some galaxies."""

    num_galaxies: int = 61_578
    """Galaxies to simulate, unless --images and --labels are given."""
    images: Path | None = None
    """Folder of images, none of them in subfolders."""
    labels: Path | None = None
    """CSV of their labels."""
    work: Path | None = None
    """Where the runs go, and stay; empty: a temporary directory, deleted at the end."""
    view_size_px: int = 224
    """Side of a view in pixels."""
    out: Path = RESULTS / "scale.json"
    """Where to write the results."""


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them."""
    settings = tyro.cli(ScaleBenchmark, args=arguments, prog="bench scale")
    with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as temporary:
        work = require_empty(settings.work or Path(temporary))
        images, labels = galaxies_to_measure(settings.images, settings.labels, settings.num_galaxies, work)
        measured = [_measure(images, labels, work / f"1-{divisor}", divisor, settings) for divisor in _SIZES]
    print(_table(measured))
    write_atomically(
        settings.out, json.dumps({"runs": measured, "machine": machine(), "versions": versions()}, indent=2) + "\n"
    )
    print(f"\nWritten to {settings.out}.")


def require_empty(work: Path) -> Path:
    """The directory, by its absolute path.

    Raises:
        UserError: Something is there already, which would be measured in place of what is asked for.
    """
    if work.is_dir() and any(work.iterdir()):
        raise UserError(f"--work {work}: is not empty. Name another directory.")
    return work.absolute()


def galaxies_to_measure(images: Path | None, labels: Path | None, num_galaxies: int, work: Path) -> tuple[Path, Path]:
    """The images and labels given, or so many simulated ones.

    Raises:
        UserError: Images are given, or labels, but not both.
    """
    if bool(images) != bool(labels):
        raise UserError("--images and --labels go together; without both, galaxies are simulated.")
    if images and labels:
        return images, labels
    flags = ["--num-galaxies", str(num_galaxies), "--num-unlabelled", "0"]
    subprocess.run([_SUBMIT, "simulate", "--run", work / "all", *flags], check=True)
    return work / "all" / "simulated" / "images", work / "all" / "simulated" / "labels.csv"


def _measure(images: Path, labels: Path, work: Path, divisor: int, settings: ScaleBenchmark) -> dict[str, Any]:
    """Run the job on every ``divisor``-th galaxy."""
    some_images, some_labels = some_of(images, labels, work, divisor)
    command: list[str | Path] = [
        _SUBMIT,
        "augment",
        "--images",
        some_images,
        "--labels",
        some_labels,
        "--run",
        work / "run",
        "--view-size-px",
        str(settings.view_size_px),
    ]
    start = time.perf_counter()
    job = subprocess.Popen(command)
    peaks = peaks_until_the_end(job, lambda: memory_mb(psutil.Process(job.pid)))
    wall_s = time.perf_counter() - start
    if job.returncode:
        raise RuntimeError(f"augment ended with status {job.returncode}.")
    manifest = RunDirectory(work / "run").manifest("augment")
    files = manifest["files"].values()
    num_views = sum(manifest["counts"]["views"].values())
    return {
        "galaxies": manifest["counts"]["galaxies"],
        "views": num_views,
        "wall_s": round(wall_s, 1),
        "stage_s": manifest["duration_s"],
        "views_per_s_of_wall": round(num_views / wall_s, 1),
        "bytes": sum(of_split["bytes"] for of_split in files),
        "files": sum(of_split["files"] for of_split in files),
        "row_groups": sum(of_split["row_groups"] for of_split in files),
        "row_group_mb_of_train": manifest["files"]["train"]["row_group_mb"],
        "peak_mb": peaks,
    }


def some_of(images: Path, labels: Path, work: Path, divisor: int) -> tuple[Path, Path]:
    """Every ``divisor``-th galaxy: a folder of links to its images, and a file of its labels."""
    folder = work / "images"
    folder.mkdir(parents=True)
    chosen = set()
    for image in sorted(images.iterdir())[::divisor]:
        (folder / image.name).symlink_to(image.absolute())
        chosen.add(image.stem)
    with open(labels, newline="") as source, open(work / "labels.csv", "w", newline="") as target:
        rows = csv.DictReader(source)
        writer = csv.DictWriter(target, rows.fieldnames or [])
        writer.writeheader()
        writer.writerows(row for row in rows if row[ID_COLUMN] in chosen)
    return folder, work / "labels.csv"


def _table(measured: list[dict[str, Any]]) -> str:
    header = ("galaxies", "views", "wall s", "views/s", "GB", "files", "row groups", *(f"{role} MB" for role in _ROLES))
    rows = [
        (
            f"{run['galaxies']:,}",
            f"{run['views']:,}",
            f"{run['wall_s']:,.0f}",
            f"{run['views_per_s_of_wall']:,.0f}",
            f"{run['bytes'] / 1e9:.2f}",
            f"{run['files']:,}",
            f"{run['row_groups']:,}",
            *(f"{run['peak_mb'][role]:,.0f}" for role in _ROLES),
        )
        for run in measured
    ]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)
    )
