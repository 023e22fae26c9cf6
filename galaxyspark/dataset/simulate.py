"""The stage ``simulate``: galaxies made by Spark, laid out as the Galaxy Zoo challenge hands them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import cv2
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from galaxyspark.galaxyzoo.simulation import encode_jpeg, galaxy_ids, simulate_galaxy
from galaxyspark.galaxyzoo.tree import ID_COLUMN, VOTE_COLUMNS
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import SimulateJob
from galaxyspark.spark import progress
from galaxyspark.storage import Place, filesystem_of

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
        votes_df = make_galaxies(spark, labelled, job.seed, staging.place("simulated/images"))
        votes_pdf = votes_df.toPandas().sort_values(ID_COLUMN)
        labels_file = staging.path("simulated/labels.csv")
        labels_file.parent.mkdir(exist_ok=True)
        votes_pdf.to_csv(labels_file, index=False, float_format="%.6g")
        if unlabelled:
            make_galaxies(spark, unlabelled, job.seed, staging.place("simulated/unlabelled")).count()
        staging.handled = len(ids), "galaxies"
        staging.manifest = {"counts": {"galaxies": len(labelled), "unlabelled": len(unlabelled)}}
    return staging.manifest


def make_galaxies(spark: SparkSession, ids: list[str], seed: int, place: Place) -> DataFrame:
    """Galaxies to be simulated when the frame is used: their votes as rows, their images as files at ``place``.

    A task that is retried writes the same bytes to the same files.
    """
    num_tasks = -(-len(ids) // _GALAXIES_PER_TASK)
    ids_df = spark.createDataFrame([(galaxy_id,) for galaxy_id in ids], f"{ID_COLUMN} string").repartition(num_tasks)
    schema = ", ".join([f"{ID_COLUMN} string", *(f"`{column}` double" for column in VOTE_COLUMNS)])
    return ids_df.mapInArrow(partial(_galaxies_of_batches, seed=seed, place=place), schema)


def _galaxies_of_batches(batches: Iterable[pa.RecordBatch], seed: int, place: Place) -> Iterator[pa.RecordBatch]:
    cv2.setNumThreads(1)
    filesystem, path = filesystem_of(place)
    filesystem.makedirs(path, exist_ok=True)
    for batch in batches:
        ids = batch.column(ID_COLUMN).to_pylist()
        votes = []
        for galaxy_id in ids:
            galaxy = simulate_galaxy(galaxy_id, seed)
            filesystem.pipe_file(f"{path}/{galaxy_id}.jpg", encode_jpeg(galaxy.image, _CHALLENGE_JPEG_QUALITY))
            votes.append(dict(zip(VOTE_COLUMNS, galaxy.votes.tolist(), strict=True)))
        yield pa.RecordBatch.from_pylist([{ID_COLUMN: i} | v for i, v in zip(ids, votes, strict=True)])
