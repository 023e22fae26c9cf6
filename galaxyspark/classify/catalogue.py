"""The catalogue as files for other tools."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.table import Table
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from galaxyspark.storage import Place, as_url, filesystem_of, open_dataset

NOT_IN_FILES = ("features", "length", "modified")
"""Columns that only the Parquet files have."""
MOST_ROWS = 2_000_000
"""Rows up to which FITS and VOTable files are written: the driver holds them."""

_DESCRIBED = {
    "galaxy_id": (None, "name of the image file, without its ending"),
    "class": (None, "by the network, where its probability reaches --min-confidence"),
    "class_cnn": (None, "by the network"),
    "class_svm": (None, "by the SVM on its features"),
    "entropy": ("bit", "of the network's probabilities"),
    "agreement": (None, "share of the views that the network puts into class_cnn"),
    "outlier_score": (None, "robust standard deviations above the median galaxy"),
    "quarantine_reason": (None, "why the image could not be classified"),
}


def write_csv(catalogue_df: DataFrame, parts: Place, file: Path) -> None:
    """Write one CSV file with a header, through one task, so that the driver never holds the rows.

    Args:
        catalogue_df: The rows.
        parts: Where Spark writes, for a moment.
        file: The file.
    """
    catalogue_df.drop(*NOT_IN_FILES).orderBy("galaxy_id").coalesce(1).write.csv(as_url(parts), header=True, escape='"')
    filesystem, path = filesystem_of(parts)
    (part,) = filesystem.glob(f"{path}/part-*.csv")
    filesystem.get_file(part, str(file))
    filesystem.rm(path, recursive=True)


def write_table(catalogue: Place, file: Path, described: Mapping[str, str]) -> None:
    """Write a FITS binary table or a VOTable, by the file's ending: what astronomers open in TOPCAT.

    Args:
        catalogue: The Parquet files.
        file: ``.fits`` or ``.vot``.
        described: Keywords of the table's header.
    """
    dataset = open_dataset(catalogue)
    columns = [name for name in dataset.schema.names if name not in NOT_IN_FILES]
    rows = dataset.to_table(columns=columns).sort_by("galaxy_id")
    is_fits = file.suffix == ".fits"
    table = Table({_ascii(name) if is_fits else name: _plain(rows[name], is_fits) for name in columns})
    for name, (unit, description) in _DESCRIBED.items():
        if name in table.colnames:
            table[name].unit, table[name].description = unit, description
    table.meta.update({keyword: _ascii(text) for keyword, text in described.items()})
    with warnings.catch_warnings(action="ignore"):  # that a VOTable's ids are made from its columns' names
        table.write(file, format="fits" if is_fits else "votable")


def _plain(column: pa.ChunkedArray, ascii_only: bool) -> NDArray[Any]:
    """Numbers with NaN, texts with an empty one where there is no value."""
    if not pa.types.is_string(column.type):
        return column.to_numpy().astype(np.float32)
    texts = column.fill_null("").to_pylist()
    return np.array([_ascii(text).encode() for text in texts] if ascii_only else texts)


def _ascii(text: str) -> str:
    """FITS has no letters but ASCII's: others become escapes such as \\xe9."""
    return text.encode("ascii", "backslashreplace").decode()
