"""What a published dataset of views says, whatever its files are called and however many there are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow.dataset

Row = tuple[str, int, str, str, tuple[float, ...], str]


def digest(run: Path) -> list[Row]:
    """The rows of ``RUN/views``: galaxy id, view, split, label, votes and the SHA-256 of the JPEG, in order.

    A list and not a set, so that a row that was written twice counts twice. Read by pyarrow, which knows nothing of
    Spark or petastorm.
    """
    table = pyarrow.dataset.dataset(run / "views", format="parquet", partitioning="hive").to_table()
    columns = table.sort_by([("galaxy_id", "ascending"), ("view", "ascending")]).to_pydict()
    votes = zip(*(values for name, values in sorted(columns.items()) if name.startswith("Class")), strict=True)
    images = [hashlib.sha256(image).hexdigest() for image in columns["image"]]
    keys = ("galaxy_id", "view", "split", "label")
    return list(zip(*(columns[key] for key in keys), votes, images, strict=True))
