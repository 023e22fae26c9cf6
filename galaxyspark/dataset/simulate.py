"""The stage ``simulate``: galaxies made by Spark, laid out as the Galaxy Zoo challenge hands them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from galaxyspark.galaxyzoo.simulation import encode_jpeg, galaxy_ids, simulate_galaxy
from galaxyspark.galaxyzoo.tree import ID_COLUMN, VOTE_COLUMNS
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import SimulateJob
from galaxyspark.spark import progress

_GALAXIES_PER_TASK = 100
_CHALLENGE_JPEG_QUALITY = 75


def simulate(spark: SparkSession, job: SimulateJob) -> dict[str, Any]:
    """Write ``simulated/``: images/<GalaxyID>.jpg, labels.csv with 37 vote columns, unlabelled/<GalaxyID>.jpg.

    Returns:
        The manifest that was published with it.
    """
    settings = job.simulate
    ids = galaxy_ids(settings.num_galaxies + settings.num_unlabelled, job.seed)
    labelled, unlabelled = ids[: settings.num_galaxies], ids[settings.num_galaxies :]
    with RunDirectory(job.run).stage("simulate", job, {}) as staging, progress(spark, "simulate"):
        directory = staging.path("simulated")
        votes_df = make_galaxies(spark, labelled, job.seed, directory / "images")
        votes_pdf = votes_df.toPandas().sort_values(ID_COLUMN)
        votes_pdf.to_csv(directory / "labels.csv", index=False, float_format="%.6g")
        if unlabelled:
            make_galaxies(spark, unlabelled, job.seed, directory / "unlabelled").count()
        staging.handled = len(ids), "galaxies"
        staging.manifest = {"counts": {"galaxies": len(labelled), "unlabelled": len(unlabelled)}}
    return staging.manifest


def make_galaxies(spark: SparkSession, ids: list[str], seed: int, directory: Path) -> DataFrame:
    """Galaxies to be simulated when the frame is used: their votes as rows, their images as files in ``directory``.

    A task that is retried writes the same bytes to the same files.
    """
    directory.mkdir(parents=True)
    num_tasks = -(-len(ids) // _GALAXIES_PER_TASK)
    ids_df = spark.createDataFrame([(galaxy_id,) for galaxy_id in ids], f"{ID_COLUMN} string").repartition(num_tasks)
    schema = ", ".join([f"{ID_COLUMN} string", *(f"`{column}` double" for column in VOTE_COLUMNS)])
    return ids_df.mapInArrow(partial(_galaxies_of_batches, seed=seed, directory=directory), schema)


def _galaxies_of_batches(batches: Iterable[pa.RecordBatch], seed: int, directory: Path) -> Iterator[pa.RecordBatch]:
    cv2.setNumThreads(1)
    for batch in batches:
        ids = batch.column(ID_COLUMN).to_pylist()
        votes = []
        for galaxy_id in ids:
            galaxy = simulate_galaxy(galaxy_id, seed)
            (directory / f"{galaxy_id}.jpg").write_bytes(encode_jpeg(galaxy.image, _CHALLENGE_JPEG_QUALITY))
            votes.append(dict(zip(VOTE_COLUMNS, galaxy.votes.tolist(), strict=True)))
        yield pa.RecordBatch.from_pylist([{ID_COLUMN: i} | v for i, v in zip(ids, votes, strict=True)])
