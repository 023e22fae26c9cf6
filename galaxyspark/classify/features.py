"""Features on the driver: each split as one block of numbers, read with pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from galaxyspark.errors import UserError

_BLOCKS = ("features", "probabilities", "votes", "true_votes")
_BATCH_ROWS = 4_096


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
        UserError: There are none, they do not fit into the memory that is free, a galaxy lacks a view that others have,
            or a number is not finite.
    """
    dataset = ds.dataset(features, format="parquet")
    wanted = ds.field("split") == split
    if view is not None:
        wanted &= ds.field("view") == view
    rows = dataset.to_table(columns=["galaxy_id", "view", "label"], filter=wanted)
    if rows.num_rows == 0:
        what = f"the {split} split" if view is None else f"view {view} of the {split} split"
        raise UserError(f"{features}: nothing there of {what}. Run the stage extract for it.")
    ids, number = rows["galaxy_id"].to_numpy().astype(str), rows["view"].to_numpy()
    order = np.lexsort((number, ids))
    views = tuple(np.unique(number).tolist())
    galaxy_ids = _galaxies_with(views, ids, number, features, split)
    blocks = {
        name: block.reshape(len(galaxy_ids), len(views), -1)
        for name, block in _read_blocks(dataset, wanted, order, features).items()
    }
    for name, block in blocks.items():
        _check_finite(block, name, galaxy_ids, views, features)
    position = {name: index for index, name in enumerate(classes)}
    labels = rows["label"].to_pylist()
    true_votes = blocks.pop("true_votes", None)
    return SplitFeatures(
        galaxy_ids=galaxy_ids,
        views=views,
        truth=np.array([position[labels[row]] for row in order[:: len(views)]], dtype=np.int64),
        true_votes=None if true_votes is None else true_votes[:, 0],
        **blocks,
    )


def _galaxies_with(
    views: Sequence[int], ids: NDArray[np.str_], number: NDArray[np.int8], features: Path, split: str
) -> list[str]:
    """The ids of the galaxies, each of which has all the views."""
    galaxy_ids, counts = np.unique(ids, return_counts=True)
    if (counts != len(views)).any():
        galaxy_id = galaxy_ids[counts != len(views)][0]
        lacking = sorted(set(views) - set(number[ids == galaxy_id].tolist()))
        what = f"lacks view {', '.join(map(str, lacking))} that others have" if lacking else "has a view twice"
        raise UserError(f"{features}: galaxy {galaxy_id} of the {split} split {what}. Run the stage extract again.")
    return galaxy_ids.tolist()


def _read_blocks(
    dataset: ds.Dataset, wanted: ds.Expression, order: NDArray[np.int64], features: Path
) -> dict[str, NDArray[np.float32]]:
    """The columns of lists, each as an array (rows, length) in this order; in memory once, however many there are."""
    names = [name for name in _BLOCKS if name in dataset.schema.names]
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    blocks: dict[str, NDArray[np.float32]] = {}
    start = 0
    for batch in dataset.to_batches(columns=names, filter=wanted, batch_size=_BATCH_ROWS):
        for name in names if batch.num_rows else ():
            values = _as_array(batch[name], name, features)
            if name not in blocks:
                _check_memory(len(order) * values.shape[1] * 4, features)
                blocks[name] = np.empty((len(order), values.shape[1]), np.float32)
            if values.shape[1] != blocks[name].shape[1]:
                raise _unequal(name, features)
            blocks[name][place[start : start + len(values)]] = values
        start += batch.num_rows
    return blocks


def _as_array(column: pa.ListArray, name: str, features: Path) -> NDArray[np.float32]:
    """Lists of equal length as an array (rows, length)."""
    lengths = pc.list_value_length(column)
    if column.null_count or pc.min(lengths) != pc.max(lengths):
        raise _unequal(name, features)
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _unequal(name: str, features: Path) -> UserError:
    return UserError(f"{features}: {name} of unequal length: they are of different networks. Run extract again.")


def _check_memory(needed_bytes: int, features: Path) -> None:
    free_bytes = psutil.virtual_memory().available
    if needed_bytes > free_bytes:
        raise UserError(
            f"{features}: they take {needed_bytes / 1e9:.1f} GB of memory, and {free_bytes / 1e9:.1f} GB are free. "
            "Fit to fewer views: --fit-views view0."
        )


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
