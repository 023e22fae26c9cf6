"""What a stage has published, in an order of its own, so that two runs can be compared."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

_OUTPUTS = {
    "augment": ("views", ["galaxy_id", "view"]),
    "extract": ("features", ["galaxy_id", "view"]),
    "predict": ("catalogue", ["galaxy_id"]),
}


def published_rows(run: Path, stage: str) -> pa.Table:
    """The rows of views, features or catalogue, sorted, however many files they are in.

    Instead of each image there is the SHA-256 of its bytes. Read by pyarrow, which knows nothing of Spark.
    """
    name, keys = _OUTPUTS[stage]
    table = ds.dataset(run / name, format="parquet", partitioning="hive").to_table()
    if "image" in table.column_names:
        digests = [hashlib.sha256(image.as_buffer()).hexdigest() for image in table["image"]]
        table = table.set_column(table.column_names.index("image"), "image", pa.array(digests))
    return table.sort_by([(key, "ascending") for key in keys]).select(sorted(table.column_names))
