"""What all tests share: one Spark session, some galaxies, and one run that went through every stage."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from galaxyspark.settings import (
    AugmentJob,
    AugmentSettings,
    SimulateJob,
    SimulateSettings,
)

os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # for the session's Python workers

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
SPLIT_FRACTIONS = (0.6, 0.2, 0.2)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """One session for the whole suite; start_session then finds it."""
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", False)
        .config("spark.ui.showConsoleProgress", False)
        .config("spark.sql.shuffle.partitions", 2)
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.executorEnv.PYTHONWARNINGS", "ignore")
        .config("spark.executorEnv.OMP_NUM_THREADS", 1)
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    # The settings that every job's session has.
    from galaxyspark.spark import start_session

    start_session("tests")
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


@dataclass(frozen=True)
class Galaxies:
    """Simulated galaxies on disk, in the challenge's layout."""

    images: Path
    labels: Path
    unlabelled: Path


@pytest.fixture(scope="session")
def simulated_run(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the stage ``simulate`` published: 60 galaxies with votes, 6 without."""
    from galaxyspark.dataset.simulate import simulate

    # A space in the path must not matter anywhere.
    run = tmp_path_factory.mktemp("runs") / "a run"
    simulate(spark, SimulateJob(run=run, simulate=SimulateSettings(num_galaxies=60, num_unlabelled=6)))
    return run


@pytest.fixture(scope="session")
def galaxies(simulated_run: Path) -> Galaxies:
    simulated = simulated_run / "simulated"
    return Galaxies(simulated / "images", simulated / "labels.csv", simulated / "unlabelled")


@pytest.fixture(scope="session")
def augmented_run(spark: SparkSession, simulated_run: Path, galaxies: Galaxies) -> Path:
    """The same run with ``augment`` published too: views of 48 px."""
    from galaxyspark.dataset.write import augment

    settings = AugmentSettings(view_size_px=48, split_fractions=SPLIT_FRACTIONS)
    augment(
        spark, AugmentJob(run=simulated_run, images=str(galaxies.images), labels=str(galaxies.labels), augment=settings)
    )
    return simulated_run


@pytest.fixture(scope="session")
def finished_run(augmented_run: Path, galaxies: Galaxies) -> Path:
    """The same run taken to its end as a user does: real spark-submit, horovodrun with two ranks, broken new images."""
    whole = next(galaxies.unlabelled.iterdir()).read_bytes()
    (galaxies.unlabelled / "cut off.jpg").write_bytes(whole[:2000])
    (galaxies.unlabelled / "empty.jpg").write_bytes(b"")
    (galaxies.unlabelled / "<b>text.png").write_text("not an image")
    flags = ["--run", augmented_run, "--images", galaxies.images, "--labels", galaxies.labels]
    flags += ["--new-images", galaxies.unlabelled, "--start-at", "train", "--weights", "none", "--epochs", 2]
    flags += ["--batch-size", 16, "--train-views", 0, 1, 2, "--predict-views", 2, "--svm-c", 0.1, 1]
    flags += ["--formats", "csv", "fits", "votable"]
    flags += ["--dream-size-px", 64, "--octaves", 1, "--dream-steps", 1]
    completed = _run(ROOT / "submit.sh", "pipeline", *flags)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    (augmented_run / "terminal.txt").write_text(completed.stdout + completed.stderr)
    return augmented_run


@pytest.fixture(scope="session")
def run_submit() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ./submit.sh with the arguments given."""
    return partial(_run, ROOT / "submit.sh")


@pytest.fixture(scope="session")
def run_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command as a user does who has activated the virtual environment."""
    return _run


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "GALAXYSPARK_READY": "1", "OMP_NUM_THREADS": "1"}
    arguments = [str(argument) for argument in command]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=400, env=environment, check=False)
