"""What all tests share: one Spark session, some galaxies, and one run that went through every stage."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from galaxyspark.settings import (
    AugmentJob,
    AugmentSettings,
    ClassifyJob,
    ClassifySettings,
    ExtractJob,
    PredictJob,
    PredictSettings,
    ReportJob,
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
def trained_run(augmented_run: Path) -> Path:
    """The same run with ``train`` published too, by two real Horovod ranks."""
    arguments = ["--run", str(augmented_run), "--weights", "none", "--epochs", "2", "--batch-size", "16"]
    completed = horovodrun(2, *arguments)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return augmented_run


@pytest.fixture(scope="session")
def finished_run(spark: SparkSession, trained_run: Path, galaxies: Galaxies) -> Path:
    """The same run with every stage published; three of the new images are broken."""
    from galaxyspark.classify.compare import classify
    from galaxyspark.classify.predict import predict
    from galaxyspark.features.extract import extract
    from galaxyspark.report.page import write_report

    extract(spark, ExtractJob(run=trained_run))
    classify(spark, ClassifyJob(run=trained_run, classify=ClassifySettings(svm_c=(0.1, 1.0))))
    whole = next(galaxies.unlabelled.iterdir()).read_bytes()
    (galaxies.unlabelled / "cut off.jpg").write_bytes(whole[:2000])
    (galaxies.unlabelled / "empty.jpg").write_bytes(b"")
    (galaxies.unlabelled / "<script>text.png").write_text("not an image")
    predict(
        spark,
        PredictJob(run=trained_run, new_images=str(galaxies.unlabelled), predict=PredictSettings(predict_views=2)),
    )
    write_report(ReportJob(run=trained_run))
    return trained_run


def horovodrun(ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """jobs/train.py on real ranks, one thread each."""
    command = [str(BIN / "horovodrun"), "-np", str(ranks), sys.executable, str(ROOT / "jobs" / "train.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment(), check=False)


def environment() -> dict[str, str]:
    """Of a user who has activated the virtual environment."""
    return os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "GALAXYSPARK_READY": "1", "OMP_NUM_THREADS": "1"}
