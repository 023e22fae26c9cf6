"""Views by the Arrow batch: what a Spark worker runs, without Spark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from galaxyspark.galaxyzoo.splits import SPLITS, SplitRule
from galaxyspark.memory import keep_freed_memory
from galaxyspark.views.augment import NUM_VIEWS, ViewRecipe, make_views
from galaxyspark.views.colour import ColourSums
from galaxyspark.views.decode import decode_image
from galaxyspark.views.reading import Reading, UnreadableImageError

SPREAD = 256
"""Views of one galaxy lie at least this many rows apart, wherever a task has that many galaxies of the split."""

_ROWS_OF_BATCH = 256


def views_of_batches(
    batches: Iterable[pa.RecordBatch],
    recipe: ViewRecipe,
    split_rule: SplitRule,
    num_views: int = NUM_VIEWS,
) -> Iterator[pa.RecordBatch]:
    """Views of every galaxy whose image can be decoded; the others are left out (and found by what is missing).

    Galaxies wait until there are enough of their split: then view 0 of all of them is written, then view 1, so that a
    reader's window of ``SPREAD`` rows has no galaxy twice. What waits is bounded: twice ``SPREAD`` galaxies a split.

    Args:
        batches: With ``galaxy_id``, ``label``, ``content`` (bytes of the image file) and any others; all but
            ``content`` are repeated for every view.
        recipe: What all views have in common.
        split_rule: Which split a galaxy of a class belongs to.
        num_views: Views of each galaxy, from view 0 on.

    Yields:
        Batches of up to 256 rows of one split: the columns that came in, with ``content`` replaced by ``view`` (int8),
        ``image`` (JPEG) and ``split``.
    """
    keep_freed_memory()
    waiting = {split: _Waiting(split, num_views) for split in SPLITS}
    for batch in batches:
        rows_of_split: dict[str, list[int]] = {split: [] for split in SPLITS}
        galaxy_ids, labels_of_rows = batch.column("galaxy_id").to_pylist(), batch.column("label").to_pylist()
        contents = batch.column("content")
        for row, (galaxy_id, label) in enumerate(zip(galaxy_ids, labels_of_rows, strict=True)):
            try:
                views = make_views(contents[row].as_py(), galaxy_id, recipe, range(num_views))
            except UnreadableImageError:
                continue
            split = split_rule.split_of(galaxy_id, label)
            waiting[split].views.append(views)
            rows_of_split[split].append(row)
        labels = batch.select([name for name in batch.schema.names if name != "content"])
        for split, rows in rows_of_split.items():
            waiting[split].labels.append(labels.take(pa.array(rows, pa.int32())))
            if len(waiting[split].views) >= 2 * SPREAD:
                yield from waiting[split].take(SPREAD)
    for of_split in waiting.values():
        yield from of_split.take(len(of_split.views))


class _Waiting:
    """Galaxies of one split that wait to be written: their columns, and their encoded views."""

    def __init__(self, split: str, num_views: int) -> None:
        self.split = split
        self.num_views = num_views
        self.labels: list[pa.RecordBatch] = []
        self.views: list[list[bytes]] = []

    def take(self, num_galaxies: int) -> Iterator[pa.RecordBatch]:
        """Take out the first galaxies, view after view."""
        if num_galaxies == 0:
            return
        labels = pa.Table.from_batches(self.labels).combine_chunks()
        self.labels = labels.slice(num_galaxies).to_batches()
        views, self.views = self.views[:num_galaxies], self.views[num_galaxies:]
        view, galaxy = np.divmod(np.arange(self.num_views * num_galaxies), num_galaxies)
        for start in range(0, len(view), _ROWS_OF_BATCH):
            rows = slice(start, start + _ROWS_OF_BATCH)
            yield self._batch(labels.take(pa.array(galaxy[rows])), view[rows], galaxy[rows], views)

    def _batch(
        self, labels: pa.Table, view: NDArray[Any], galaxy: NDArray[Any], views: list[list[bytes]]
    ) -> pa.RecordBatch:
        images = [views[of_galaxy][number] for of_galaxy, number in zip(galaxy.tolist(), view.tolist(), strict=True)]
        columns = {name: labels.column(name).combine_chunks() for name in labels.column_names}
        columns["view"] = pa.array(view.astype(np.int8))
        columns["image"] = pa.array(images, pa.binary())
        columns["split"] = pa.array([self.split] * len(images), pa.string())
        return pa.RecordBatch.from_pydict(columns)


def reasons_of_batches(batches: Iterable[pa.RecordBatch], reading: Reading) -> Iterator[pa.RecordBatch]:
    """Why images could not be used: ``path`` and ``content`` in; ``path`` and ``reason`` out."""
    for batch in batches:
        reasons = [_reason(content.as_py(), reading) for content in batch.column("content")]
        yield pa.RecordBatch.from_pydict({"path": batch.column("path"), "reason": pa.array(reasons, pa.string())})


def _reason(content: bytes, reading: Reading) -> str:
    try:
        decode_image(content, reading)
    except UnreadableImageError as problem:
        return str(problem)
    return "could not be decoded the first time, but the second: is the storage reliable?"


def colour_sums_of_batches(batches: Iterable[pa.RecordBatch], reading: Reading) -> Iterator[pa.RecordBatch]:
    """``ColourSums`` of all decodable images of a batch: ``num_pixels``, ``total`` (3) and ``products`` (9)."""
    for batch in batches:
        sums = ColourSums(0, np.zeros(3), np.zeros((3, 3)))
        for content in batch.column("content"):
            try:
                sums += ColourSums.of_image(decode_image(content.as_py(), reading))
            except UnreadableImageError:
                continue
        yield pa.RecordBatch.from_pydict(
            {"num_pixels": [sums.num_pixels], "total": [sums.total], "products": [sums.products.ravel()]}
        )
