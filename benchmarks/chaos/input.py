"""Galaxies to work on, and a run of them that is published up to ``classify``."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from galaxyspark.cluster import PROFILES
from galaxyspark.galaxyzoo.tree import ID_COLUMN
from galaxyspark.run_directory import RunDirectory

SUBMIT = Path(__file__).parents[2] / "submit.sh"
# Many small tasks, for something to be done and something to be left when a disturbance strikes.
MANY_TASKS = "spark.default.parallelism 16\nspark.sql.files.maxPartitionBytes 6m\n"
_COPIES = 8


@dataclass(frozen=True)
class Input:
    """What the stages work on.

    Attributes:
        images: Folder of galaxies.
        labels: CSV of their votes.
        run: Published up to ``classify``; never changed.
    """

    images: Path
    labels: Path
    run: Path

    def flags(self, stage: str) -> list[str]:
        """Of the command of a stage, but for ``--run``."""
        return {
            "augment": ["--images", str(self.images), "--labels", str(self.labels), "--view-size-px", "224"],
            "extract": [],
            "predict": ["--new-images", str(self.images), "--predict-views", "4", "--formats", "csv"],
        }[stage]

    @contextmanager
    def copy_of_run(self) -> Iterator[Path]:
        """A run like the one that is given, of links to its files: stages replace files and never write into them."""
        with tempfile.TemporaryDirectory(prefix="run-", dir=self.run.parent) as directory:
            run = Path(directory) / "run"
            shutil.copytree(self.run, run, copy_function=os.link)
            yield run


def prepared(directory: Path, num_galaxies: int) -> Input:
    """Make the input in a directory, unless it is there already.

    Raises:
        RuntimeError: A stage failed.
    """
    directory = directory / f"{num_galaxies}-galaxies"
    given = Input(directory / "images", directory / "labels.csv", directory / "run")
    if "classify" in RunDirectory(given.run).published():
        return given
    shutil.rmtree(directory, ignore_errors=True)  # half made
    many_galaxies(directory, num_galaxies)
    profile = directory / "local.conf"
    profile.write_text((PROFILES / "local.conf").read_text() + MANY_TASKS)
    on_run = ["--run", given.run]
    _submit("augment", *on_run, "--profile", profile, "--images", given.images, "--labels", given.labels)
    _submit("train", "-np", 1, *on_run, "--weights", "none", "--epochs", 1, "--max-minutes", 0.5)
    _submit("extract", *on_run)
    _submit("classify", *on_run, "--svm-kernels", "linear", "--svm-c", 1, "--fit-views", "view0", "--rivals")
    return given


def many_galaxies(directory: Path, num_galaxies: int) -> Input:
    """Make galaxies in a directory, and a run in which nothing is published.

    Raises:
        RuntimeError: They could not be simulated.
    """
    given = Input(directory / "images", directory / "labels.csv", directory / "run")
    simulated = directory / "original"
    _submit("simulate", "--run", simulated, "--num-galaxies", -(-num_galaxies // _COPIES), "--num-unlabelled", 0)
    given.run.mkdir(parents=True)
    _copy_galaxies(simulated / "simulated", given, num_galaxies)
    return given


def _submit(*arguments: object) -> None:
    words = [str(word) for word in (SUBMIT, *arguments)]
    completed = subprocess.run(words, capture_output=True, text=True, check=False)
    if completed.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{completed.stdout[-2000:]}{completed.stderr[-2000:]}")


def _copy_galaxies(simulated: Path, given: Input, num_galaxies: int) -> None:
    """Link each image under several ids: another id makes other views, and to simulate takes longer than to augment."""
    given.images.mkdir()
    with open(simulated / "labels.csv", newline="") as source, open(given.labels, "w", newline="") as target:
        rows = csv.DictReader(source)
        writer = csv.DictWriter(target, rows.fieldnames or [])
        writer.writeheader()
        copies = [(copy, row) for row in rows for copy in range(_COPIES)]
        for copy, row in copies[:num_galaxies]:
            galaxy_id = f"{row[ID_COLUMN]}{copy}"
            os.link(simulated / "images" / f"{row[ID_COLUMN]}.jpg", given.images / f"{galaxy_id}.jpg")
            writer.writerow(row | {ID_COLUMN: galaxy_id})
