"""For the tests of real jobs: galaxies enough for a job that can be disturbed, and what undisturbed ones wrote."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from galaxyspark.dataset.write import augment
from galaxyspark.settings import AugmentJob, AugmentSettings
from tests.dataset.digest import Row, digest
from tests.dataset.job_process import SPLIT_FRACTIONS, VIEW_SIZE_PX

NUM_GALAXIES = 300


@dataclass(frozen=True)
class Undisturbed:
    """A run whose stage ``augment`` was published, and the digest of its views."""

    run: Path
    rows: list[Row]


@pytest.fixture(scope="session")
def many_galaxies(galaxies, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some simulated galaxies many times over: a new id means new views, and copies are cheap."""
    directory = tmp_path_factory.mktemp("many galaxies")
    (directory / "images").mkdir()
    votes_pdf = pd.read_csv(galaxies.labels, dtype={"GalaxyID": str})
    many_pdf = votes_pdf.sample(NUM_GALAXIES, replace=True, random_state=1).reset_index(drop=True)
    for number, original in enumerate(many_pdf["GalaxyID"]):
        shutil.copy(galaxies.images / f"{original}.jpg", directory / "images" / f"{number:06}.jpg")
    many_pdf["GalaxyID"] = [f"{number:06}" for number in many_pdf.index]
    many_pdf.to_csv(directory / "labels.csv", index=False)
    return directory


@pytest.fixture(scope="session")
def undisturbed(spark: SparkSession, many_galaxies: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Seed 1, two cores, nothing in its way; in the session of the tests, which is another way to start it."""
    return _augment(spark, many_galaxies, tmp_path_factory, seed=1)


@pytest.fixture(scope="session")
def undisturbed_of_seed_2(
    spark: SparkSession, many_galaxies: Path, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    return _augment(spark, many_galaxies, tmp_path_factory, seed=2)


def _augment(
    spark: SparkSession, many_galaxies: Path, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> Undisturbed:
    run = tmp_path_factory.mktemp("undisturbed") / "a run"
    settings = AugmentSettings(view_size_px=VIEW_SIZE_PX, split_fractions=SPLIT_FRACTIONS)
    images, labels = str(many_galaxies / "images"), str(many_galaxies / "labels.csv")
    augment(spark, AugmentJob(run=run, images=images, labels=labels, seed=seed, augment=settings))
    rows = digest(run)
    assert len(rows) == 16 * NUM_GALAXIES
    return Undisturbed(run, rows)
