"""Shards of a split, and the batches that ranks read from them."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from galaxyspark.dataset.read import Shard, evaluation_batches, training_batches
from galaxyspark.errors import UserError

CLASSES = ("smooth", "featured", "artifact")


def split_pdf(run: Path, split: str) -> pd.DataFrame:
    return pd.read_parquet(run / "views" / f"split={split}", columns=["galaxy_id", "view", "label", "image"])


def checksum(image: np.ndarray) -> int:
    return hash(image.tobytes())


def expected_views(pdf: pd.DataFrame) -> Counter:
    """What the split holds, decoded here, class beside it."""
    decoded = (cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for jpeg in pdf["image"])
    return Counter(zip(map(checksum, decoded), map(CLASSES.index, pdf["label"]), strict=True))


@pytest.mark.parametrize("num_shards", [1, 2, 3, 50])
def test_validation_counts_every_galaxy_once_whatever_the_shards(augmented_run: Path, num_shards: int) -> None:
    found: Counter = Counter()
    for rank in range(num_shards):
        batches = evaluation_batches(augmented_run / "views", "validation", CLASSES, 4, Shard(rank, num_shards))
        for batch in batches:
            assert batch.images.dtype == np.uint8
            assert batch.images.shape[1:] == (48, 48, 3)
            assert len(batch.images) <= 4
            found.update(zip(map(checksum, batch.images), batch.classes.tolist(), strict=True))
    validation_pdf = split_pdf(augmented_run, "validation")
    assert found == expected_views(validation_pdf[validation_pdf["view"] == 0])


def test_shards_of_the_training_split_are_disjoint_and_complete(augmented_run: Path) -> None:
    """Without a buffer as many batches of one view as a shard has rows are one pass: every view of it, once."""
    files = sorted((augmented_run / "views" / "split=train").glob("*.parquet"))
    num_rows = [pq.read_metadata(file).num_rows for file in files]  # these files have one row group each
    seen: Counter = Counter()
    for rank in range(2):
        batches = training_batches(augmented_run / "views", CLASSES, 1, Shard(rank, 2), seed=1, buffer_views=0)
        with closing(batches):
            for batch in itertools.islice(batches, sum(num_rows[rank::2])):
                seen[checksum(batch.images[0]), int(batch.classes[0])] += 1
    assert seen == expected_views(split_pdf(augmented_run, "train"))


def test_a_pass_is_never_cut_short(augmented_run: Path) -> None:
    """As it was, now and then, with petastorm's own end of an epoch."""
    expected = len(split_pdf(augmented_run, "test").query("view == 0"))
    for _ in range(30):
        batches = evaluation_batches(augmented_run / "views", "test", CLASSES, 100, Shard())
        assert sum(len(batch.images) for batch in batches) == expected


def test_training_order_is_shuffled_by_the_seed_alone(augmented_run: Path) -> None:
    def first_views(seed: int) -> list[int]:
        with closing(training_batches(augmented_run / "views", CLASSES, 16, Shard(), seed, 300)) as batches:
            return [checksum(image) for batch in itertools.islice(batches, 6) for image in batch.images]

    assert first_views(seed=1) == first_views(seed=1)
    assert first_views(seed=1) != first_views(seed=2)


def test_a_batch_mixes_galaxies(augmented_run: Path) -> None:
    train_pdf = split_pdf(augmented_run, "train")
    decoded = (cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for jpeg in train_pdf["image"])
    galaxy_of = dict(zip(map(checksum, decoded), train_pdf["galaxy_id"], strict=True))
    with closing(training_batches(augmented_run / "views", CLASSES, 32, Shard(), 1, buffer_views=400)) as batches:
        galaxies = {galaxy_of[checksum(image)] for image in next(batches).images}
    assert len(galaxies) > 12


def test_more_ranks_than_row_groups_are_refused_in_training(augmented_run: Path) -> None:
    with pytest.raises(UserError, match="row groups, fewer than the 50 ranks. Train with fewer ranks"):
        next(training_batches(augmented_run / "views", CLASSES, 4, Shard(3, 50), seed=1))
