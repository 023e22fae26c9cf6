"""Views by the Arrow batch: what a Spark worker runs, without Spark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from galaxyspark.galaxyzoo.splits import split_of
from galaxyspark.views.augment import NUM_VIEWS, ViewRecipe, make_views
from galaxyspark.views.colour import ColourSums
from galaxyspark.views.decode import UnreadableImageError, decode_image


def views_of_batches(
    batches: Iterable[pa.RecordBatch],
    recipe: ViewRecipe,
    split_fractions: Sequence[float],
    num_views: int = NUM_VIEWS,
) -> Iterator[pa.RecordBatch]:
    """Views of every galaxy whose image can be decoded; the others are left out (and found by what is missing).

    Args:
        batches: With ``galaxy_id``, ``content`` (bytes of the image file) and any other columns, which are repeated
            for every view.
        recipe: What all views have in common.
        split_fractions: Shares of train, validation and test.
        num_views: Views of each galaxy, from view 0 on.

    Yields:
        One batch for each that came in: its columns, with ``content`` replaced by ``view`` (int8), ``image`` (JPEG)
        and ``split``. View 0 of all galaxies comes first, then view 1, so that views of a galaxy lie apart.
    """
    for batch in batches:
        decoded: list[int] = []
        views: list[list[bytes]] = []
        galaxy_ids = batch.column("galaxy_id").to_pylist()
        contents = batch.column("content")
        for row, galaxy_id in enumerate(galaxy_ids):
            try:
                views.append(make_views(contents[row].as_py(), galaxy_id, recipe, range(num_views)))
                decoded.append(row)
            except UnreadableImageError:
                continue
        splits = [split_of(galaxy_ids[row], split_fractions) for row in decoded]
        kept = batch.take(pa.array(decoded * num_views, pa.int32()))
        columns = {name: kept.column(name) for name in batch.schema.names if name != "content"}
        columns["view"] = pa.array(np.repeat(np.arange(num_views, dtype=np.int8), len(decoded)))
        columns["image"] = pa.array([of_galaxy[view] for view in range(num_views) for of_galaxy in views], pa.binary())
        columns["split"] = pa.array(splits * num_views, pa.string())
        yield pa.RecordBatch.from_pydict(columns)


def reasons_of_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Why images could not be used: ``galaxy_id``, ``path``, ``length`` and ``content`` in; ``reason`` out for it."""
    for batch in batches:
        reasons = [_reason(content.as_py()) for content in batch.column("content")]
        columns = {name: batch.column(name) for name in ("galaxy_id", "path", "length")}
        yield pa.RecordBatch.from_pydict(columns | {"reason": pa.array(reasons, pa.string())})


def _reason(content: bytes) -> str:
    try:
        decode_image(content)
    except UnreadableImageError as problem:
        return str(problem)
    return "could not be decoded the first time, but the second: is the storage reliable?"


def colour_sums_of_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """``ColourSums`` of all decodable images of a batch: ``num_pixels``, ``total`` (3) and ``products`` (9)."""
    for batch in batches:
        sums = ColourSums(0, np.zeros(3), np.zeros((3, 3)))
        for content in batch.column("content"):
            try:
                sums += ColourSums.of_image(decode_image(content.as_py()))
            except UnreadableImageError:
                continue
        yield pa.RecordBatch.from_pydict(
            {"num_pixels": [sums.num_pixels], "total": [sums.total], "products": [sums.products.ravel()]}
        )
