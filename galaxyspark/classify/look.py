"""What a published catalogue answers: what is like this galaxy, what is strange."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from galaxyspark.classify.saved import open_classifiers
from galaxyspark.errors import UserError
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import PredictJob

NUM_LIKE = 10
"""Images that ``most_like`` lists."""

_BATCH_ROWS = 8_192


def look(job: PredictJob) -> list[str]:
    """Answer ``--like`` or ``--odd`` of a run's catalogue, in lines for the terminal.

    Raises:
        UserError: There is no catalogue of the network and classifiers that the run has now, it has no such image, or
            more is asked for at a time.
    """
    if job.new_images or (job.like and job.odd):
        raise UserError("--like and --odd look into the catalogue there is: one of them, and without --new-images.")
    run = RunDirectory(job.run)
    run.require_current("predict")
    if job.odd:
        return listed(strangest(run.path("catalogue"), job.odd), "outlier_score")
    scaler = open_classifiers(run.path("classifiers")).outlier_score().pipeline[0]
    return listed(most_like(run.path("catalogue"), job.like, scaler), "similarity")


def most_like(catalogue: Path, galaxy_id: str, scaler: StandardScaler) -> list[dict[str, Any]]:
    """The images whose features are nearest in direction to those of one, nearest first, itself left out.

    Args:
        catalogue: The Parquet files.
        galaxy_id: Of the one.
        scaler: Of training features. Directions are seen from their mean: from zero all galaxies lie close together.

    Returns:
        Rows of the catalogue without features, each with ``similarity``, the cosine (-1 to 1).

    Raises:
        UserError: The catalogue has no such image, or it was not classified.
    """
    dataset = ds.dataset(catalogue, format="parquet")
    of_id = dataset.to_table(columns=["features"], filter=ds.field("galaxy_id") == galaxy_id)["features"]
    if not len(of_id):
        raise UserError(f"--like {galaxy_id}: the catalogue {catalogue} has no image of this id.")
    known = of_id.drop_null()
    if not len(known):
        raise UserError(f"--like {galaxy_id}: this image could not be read, so there is nothing to compare with.")
    wanted = _directions(np.asarray(known[0].values)[None], scaler)[0]
    nearest: list[dict[str, Any]] = []
    for batch in _classified(dataset, list(dataset.schema.names)):
        features = batch["features"].flatten().to_numpy().reshape(batch.num_rows, -1)
        similarity = _directions(features, scaler) @ wanted
        others = batch.select([name for name in batch.schema.names if name != "features"])
        best = np.argsort(-similarity)[: NUM_LIKE + 1]
        rows = others.take(pa.array(best)).to_pylist()
        nearest += [row | {"similarity": float(of_row)} for row, of_row in zip(rows, similarity[best], strict=True)]
        nearest = sorted(nearest, key=lambda row: -row["similarity"])[: NUM_LIKE + 1]
    return [row for row in nearest if row["galaxy_id"] != galaxy_id][:NUM_LIKE]


def _directions(features: NDArray[np.float32], scaler: StandardScaler) -> NDArray[np.float32]:
    scaled = scaler.transform(features)
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def strangest(catalogue: Path, count: int) -> list[dict[str, Any]]:
    """Rows of the catalogue with the largest outlier scores, the largest first, without features."""
    dataset = ds.dataset(catalogue, format="parquet")
    columns = [name for name in dataset.schema.names if name != "features"]
    largest: list[dict[str, Any]] = []
    for batch in _classified(dataset, columns):
        order = np.argsort(-batch["outlier_score"].to_numpy(zero_copy_only=False))[:count]
        largest += batch.take(pa.array(order)).to_pylist()
        largest = sorted(largest, key=lambda row: -row["outlier_score"])[:count]
    return largest


def _classified(dataset: ds.Dataset, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of images that were classified, some at a time."""
    for batch in dataset.to_batches(columns=columns, filter=ds.field("class_cnn").is_valid(), batch_size=_BATCH_ROWS):
        if batch.num_rows:
            yield batch


def listed(rows: list[dict[str, Any]], quantity: str) -> list[str]:
    """Rows of ``most_like`` or ``strangest`` as lines for the terminal."""
    width = max([len("galaxy_id"), *(len(row["galaxy_id"]) for row in rows)])
    lines = [f"{'galaxy_id':<{width}}   {quantity.replace('_', ' '):>13}   class"]
    for row in rows:
        name = row["class_cnn"]
        lines.append(
            f"{row['galaxy_id']:<{width}}   {row[quantity]:13.3f}   {name} ({row[f'probability_{name}']:.2f})   "
            f"{row['path']}"
        )
    return lines
