"""The views that benchmarks work on."""

from __future__ import annotations

from pathlib import Path

from galaxyspark.dataset.simulate import simulate
from galaxyspark.dataset.write import augment
from galaxyspark.settings import AugmentJob, AugmentSettings, SimulateJob, SimulateSettings
from galaxyspark.spark import start_session

SEED = 1
VIEW_SIZE_PX = 224
_SETTINGS = AugmentSettings(view_size_px=VIEW_SIZE_PX)


def make_views(run: Path, num_galaxies: int, settings: AugmentSettings = _SETTINGS) -> Path:
    """Simulate galaxies and augment them; returns the run's directory, once Spark has stopped."""
    spark = start_session("bench")
    simulate(
        spark, SimulateJob(run=run, seed=SEED, simulate=SimulateSettings(num_galaxies=num_galaxies, num_unlabelled=0))
    )
    simulated = run / "simulated"
    images, labels = str(simulated / "images"), str(simulated / "labels.csv")
    augment(spark, AugmentJob(run=run, seed=SEED, images=images, labels=labels, augment=settings))
    spark.stop()
    return run
