"""The catalogue as files for other tools, and what it answers: what is like this galaxy, what is strange."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from astropy.table import Table
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from sklearn.preprocessing import StandardScaler

from galaxyspark.errors import UserError
from galaxyspark.run_directory import file_url

NOT_IN_FILES = ("features", "length", "modified")
"""Columns that only the Parquet files have."""
MOST_ROWS = 10_000_000
"""Rows up to which FITS and VOTable files are written: the driver holds them."""
NUM_LIKE = 10
"""Images that ``most_like`` lists."""


def write_csv(catalogue_df: DataFrame, file: Path) -> None:
    """Write one CSV file with a header, through one task, so that the driver never holds the rows."""
    parts = file.with_suffix(".parts")
    catalogue_df.drop(*NOT_IN_FILES).orderBy("galaxy_id").coalesce(1).write.csv(
        file_url(parts), header=True, escape='"'
    )
    (part,) = parts.glob("part-*.csv")
    os.rename(part, file)
    for leftover in parts.iterdir():
        leftover.unlink()
    parts.rmdir()


def write_table(catalogue: Path, file: Path, described: Mapping[str, str]) -> None:
    """Write a FITS binary table or a VOTable, by the file's ending: what astronomers open in TOPCAT.

    Args:
        catalogue: The Parquet files.
        file: ``.fits`` or ``.vot``.
        described: Keywords of the table's header.
    """
    dataset = ds.dataset(catalogue, format="parquet")
    columns = [name for name in dataset.schema.names if name not in NOT_IN_FILES]
    rows = dataset.to_table(columns=columns).sort_by("galaxy_id")
    table = Table({name: _plain(rows[name], ascii_only=file.suffix == ".fits") for name in columns})
    table.meta.update(described)
    table.write(file, format="fits" if file.suffix == ".fits" else "votable")


def _plain(column: pa.ChunkedArray, ascii_only: bool) -> NDArray[Any]:
    """Numbers with NaN, texts with an empty one where there is no value."""
    if not pa.types.is_string(column.type):
        return column.to_numpy().astype(np.float32)
    texts = column.fill_null("").to_pylist()
    # FITS has no letters but ASCII's.
    return np.array([text.encode("ascii", "backslashreplace").decode() for text in texts] if ascii_only else texts)


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
    [*of_id] = dataset.to_table(columns=["features"], filter=ds.field("galaxy_id") == galaxy_id)["features"]
    if not of_id:
        raise UserError(f"--like {galaxy_id}: the catalogue {catalogue} has no image of this id.")
    if not of_id[0].is_valid:
        raise UserError(f"--like {galaxy_id}: this image could not be read, so there is nothing to compare with.")
    wanted = _directions(np.asarray(of_id[0].values)[None], scaler)[0]
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
        order = np.argsort(-batch["outlier_score"].to_numpy())[:count]
        largest += batch.take(pa.array(order)).to_pylist()
        largest = sorted(largest, key=lambda row: -row["outlier_score"])[:count]
    return largest


def _classified(dataset: ds.Dataset, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of images that were classified, some at a time."""
    for batch in dataset.to_batches(columns=columns, filter=ds.field("class_cnn").is_valid()):
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
