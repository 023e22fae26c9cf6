"""Features on the driver: each split as one block of numbers, read with pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from galaxyspark.errors import UserError


@dataclass(frozen=True)
class SplitFeatures:
    """What was extracted of the galaxies of one split, in the order of their ids.

    Attributes:
        galaxy_ids: As text.
        views: The views there are of each galaxy.
        truth: Positions of the true classes, int64, shape (galaxies,).
        features: float32, shape (galaxies, views, 1024 in GoogLeNet).
        probabilities: The network's, float32 0 to 1, shape (galaxies, views, classes).
        votes, true_votes: float32 0 to 1, (galaxies, views, 37) and (galaxies, 37), of a network that has learned them.
    """

    galaxy_ids: list[str]
    views: tuple[int, ...]
    truth: NDArray[np.int64]
    features: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    votes: NDArray[np.float32] | None = None
    true_votes: NDArray[np.float32] | None = None


def read_split(features: Path, split: str, classes: Sequence[str], view: int | None = None) -> SplitFeatures:
    """The features of a split, of all its views or of one.

    Raises:
        UserError: There are none, a galaxy lacks a view that others have, or a number is not finite.
    """
    dataset = ds.dataset(features, format="parquet")
    wanted = ds.field("split") == split
    table = dataset.to_table(filter=wanted if view is None else wanted & (ds.field("view") == view))
    if table.num_rows == 0:
        what = f"the {split} split" if view is None else f"view {view} of the {split} split"
        raise UserError(f"{features}: nothing there of {what}. Run the stage extract for it.")
    ids, number = table["galaxy_id"].to_numpy(), table["view"].to_numpy()
    order = np.lexsort((number, ids))
    views = tuple(np.unique(number).tolist())
    galaxy_ids = _galaxies_with(views, ids[order], number[order], features, split)
    blocks = {
        name: _block(table[name], order).reshape(len(galaxy_ids), len(views), -1)
        for name in ("features", "probabilities", "votes", "true_votes")
        if name in table.column_names
    }
    for name, block in blocks.items():
        _check_finite(block, name, galaxy_ids, views, features)
    position = {name: index for index, name in enumerate(classes)}
    labels = table["label"].to_pylist()
    true_votes = blocks.pop("true_votes", None)
    return SplitFeatures(
        galaxy_ids=galaxy_ids,
        views=views,
        truth=np.array([position[labels[row]] for row in order[:: len(views)]], dtype=np.int64),
        true_votes=None if true_votes is None else true_votes[:, 0],
        **blocks,
    )


def _galaxies_with(
    views: Sequence[int], ids: NDArray[np.object_], number: NDArray[np.int8], features: Path, split: str
) -> list[str]:
    """The ids of the galaxies, each of which has all the views; both arrays are in order."""
    galaxy_ids, counts = np.unique(ids.astype(str), return_counts=True)
    if (counts != len(views)).any():
        galaxy_id = galaxy_ids[counts != len(views)][0]
        lacking = sorted(set(views) - set(number[ids == galaxy_id].tolist()))
        raise UserError(
            f"{features}: galaxy {galaxy_id} of the {split} split lacks view {', '.join(map(str, lacking)) or 'once'} "
            "that others have. Run the stage extract again."
        )
    return galaxy_ids.tolist()


def _block(column: pa.ChunkedArray, order: NDArray[np.int64]) -> NDArray[np.float32]:
    """A column of lists of equal length, its rows in this order: shape (rows, length)."""
    # A list column of one chunk could not have more than 2^31 numbers.
    values = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
    return values.reshape(len(order), -1)[order]


def _check_finite(
    block: NDArray[np.float32], name: str, galaxy_ids: Sequence[str], views: Sequence[int], features: Path
) -> None:
    bad = np.argwhere(~np.isfinite(block).all(axis=2))
    if len(bad):
        galaxy, view = bad[0]
        raise UserError(
            f"{features}: {name} of galaxy {galaxy_ids[galaxy]}, view {views[view]}, are not all finite numbers "
            f"({len(bad):,} views like that). Was the training sound? See history.jsonl; then run extract again."
        )
