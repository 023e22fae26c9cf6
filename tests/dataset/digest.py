"""What a published dataset of views says, whatever its files are called and however many there are."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import islice
from pathlib import Path

import pyarrow.dataset

Row = tuple[str, int, str, str, tuple[float, ...], str]


def digest(run: Path) -> list[Row]:
    """The rows of ``RUN/views``: galaxy id, view, split, label, votes and the SHA-256 of the JPEG, in order.

    A list and not a set, so that a row that was written twice counts twice. Read by pyarrow, which knows nothing of
    Spark or petastorm.
    """
    return rows_of(pyarrow.dataset.dataset(run / "views", format="parquet", partitioning="hive"))


def rows_of(views: pyarrow.dataset.Dataset) -> list[Row]:
    """The same of a dataset that lies anywhere."""
    table = views.to_table()
    columns = table.sort_by([("galaxy_id", "ascending"), ("view", "ascending")]).to_pydict()
    votes = zip(*(values for name, values in sorted(columns.items()) if name.startswith("Class")), strict=True)
    images = [hashlib.sha256(image).hexdigest() for image in columns["image"]]
    keys = ("galaxy_id", "view", "split", "label")
    return list(zip(*(columns[key] for key in keys), votes, images, strict=True))


def differences(found: list[Row], expected: list[Row]) -> list[str]:
    """A few of the rows that only one of the two has; none where they are the same rows, each as often.

    For messages: pytest itself compares lists of thousands of rows for longer than the jobs take that wrote them.
    """
    missing, surplus = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    rows = [*(("missing", row) for row in missing), *(("surplus", row) for row in surplus)]
    return [f"{what}: {' '.join(map(str, row[:4]))}, {row[5][:8]}" for what, row in islice(rows, 8)]
