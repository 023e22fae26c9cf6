"""Shards of a split, and the batches that ranks read from them."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from collections.abc import Generator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from petastorm import make_batch_reader
from petastorm.etl.dataset_metadata import UNISCHEMA_KEY

from galaxyspark.dataset.read import Batch, Shard, Split, TrainingViews, evaluation_batches
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.tree import VOTE_COLUMNS
from galaxyspark.network.devices import decode_on
from galaxyspark.storage import as_url

CLASSES = ("smooth", "featured", "artifact")


def split_pdf(run: Path, split: str) -> pd.DataFrame:
    return pd.read_parquet(run / "views" / f"split={split}", columns=["galaxy_id", "view", "label", "image"])


def checksum(image: np.ndarray) -> int:
    return hash(image.tobytes())


def expected_views(pdf: pd.DataFrame) -> Counter:
    """What the split holds, decoded here, class beside it."""
    decoded = (cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for jpeg in pdf["image"])
    return Counter(zip(map(checksum, decoded), map(CLASSES.index, pdf["label"]), strict=True))


def split_of(run: Path, name: str, **settings: Any) -> Split:
    return Split(run / "views", name, CLASSES, **settings)


def checksums(batches: Generator[Batch, None, None]) -> list[list[int]]:
    with closing(batches):
        return [[checksum(image) for image in batch.images] for batch in batches]


@pytest.mark.parametrize("num_shards", [1, 2, 3, 50])
def test_validation_counts_every_galaxy_once_whatever_the_shards(augmented_run: Path, num_shards: int) -> None:
    found: Counter = Counter()
    for rank in range(num_shards):
        for batch in evaluation_batches(split_of(augmented_run, "validation"), 4, Shard(rank, num_shards)):
            assert batch.images.dtype == np.uint8
            assert batch.images.shape[1:] == (48, 48, 3)
            assert len(batch.images) <= 4
            found.update(zip(map(checksum, batch.images), batch.classes.tolist(), strict=True))
    validation_pdf = split_pdf(augmented_run, "validation")
    assert found == expected_views(validation_pdf[validation_pdf["view"] == 0])


@pytest.mark.parametrize("num_shards", [1, 2])
def test_an_epoch_has_every_view_once_whatever_the_shards(augmented_run: Path, num_shards: int) -> None:
    seen: Counter = Counter()
    num_batches = set()
    for rank in range(num_shards):
        views = TrainingViews(split_of(augmented_run, "train"), 16, Shard(rank, num_shards), seed=1, buffer_views=100)
        with closing(views.epoch(3)) as batches:
            for number, batch in enumerate(batches):
                assert len(batch.images) == views.batch_sizes(number)[rank] <= 16
                seen.update(zip(map(checksum, batch.images), batch.classes.tolist(), strict=True))
        num_batches.add(number + 1)
        sizes = [views.batch_sizes(number)[rank] for number in range(views.num_batches)]
        assert max(sizes) - min(sizes) <= 1
    assert num_batches == {views.num_batches}
    assert seen == expected_views(split_pdf(augmented_run, "train"))


def test_a_pass_is_never_cut_short(augmented_run: Path) -> None:
    """As it was, now and then, with petastorm's own end of an epoch."""
    expected = len(split_pdf(augmented_run, "test").query("view == 0"))
    for _ in range(30):
        batches = evaluation_batches(split_of(augmented_run, "test"), 100, Shard())
        assert sum(len(batch.images) for batch in batches) == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_the_order_depends_on_seed_and_epoch_alone(augmented_run: Path, threads: int) -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        split = split_of(augmented_run, "train", decoding_threads=threads)
        return checksums(TrainingViews(split, 16, Shard(), seed, buffer_views=300).epoch(epoch))

    two_threads = checksums(TrainingViews(split_of(augmented_run, "train"), 16, Shard(), 1, 300).epoch(1))
    assert order(1, 1) == two_threads
    assert order(1, 2) != two_threads
    assert order(2, 1) != two_threads


def test_torchvision_may_decode_the_same_batches(augmented_run: Path) -> None:
    """As a GPU does with --train-gpu-decoding; its decoder rounds differently."""
    on_device = split_of(
        augmented_run, "validation", decode=partial(decode_on, torch.device("cpu")), decoding_threads=1
    )
    usual = split_of(augmented_run, "validation")
    for ours, theirs in zip(*(evaluation_batches(each, 8, Shard()) for each in (usual, on_device)), strict=True):
        assert (theirs.images.shape, theirs.images.dtype) == (ours.images.shape, torch.uint8)
        assert np.abs(theirs.images.numpy().astype(int) - ours.images).max() <= 2
        np.testing.assert_array_equal(theirs.classes, ours.classes)


@given(first=st.integers(0, 36))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_epoch_goes_on_where_it_was_left(augmented_run: Path, first: int) -> None:
    views = TrainingViews(split_of(augmented_run, "train"), 16, Shard(1, 2), 1, buffer_views=60)
    whole = checksums(views.epoch(2))
    assert checksums(views.epoch(2, min(first, len(whole)))) == whole[first:]


def test_votes_are_those_of_their_galaxy(augmented_run: Path) -> None:
    columns = [name.replace(".", "_") for name in VOTE_COLUMNS]
    pdf = pd.read_parquet(augmented_run / "views" / "split=validation", columns=["view", "image", *columns])
    decoded = (cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for jpeg in pdf["image"])
    votes_of = dict(zip(map(checksum, decoded), pdf[columns].to_numpy(np.float32), strict=True))
    for batch in evaluation_batches(split_of(augmented_run, "validation", with_votes=True), 5, Shard()):
        assert batch.votes.shape == (len(batch.images), 37)
        for image, votes in zip(batch.images, batch.votes, strict=True):
            np.testing.assert_array_equal(votes, votes_of[checksum(image)])


def test_a_batch_mixes_galaxies(augmented_run: Path) -> None:
    train_pdf = split_pdf(augmented_run, "train")
    decoded = (cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for jpeg in train_pdf["image"])
    galaxy_of = dict(zip(map(checksum, decoded), train_pdf["galaxy_id"], strict=True))
    first = checksums(TrainingViews(split_of(augmented_run, "train"), 32, Shard(), 1, buffer_views=400).epoch(1))[0]
    assert len({galaxy_of[image] for image in first}) > 12


def test_more_ranks_than_row_groups_are_refused_in_training(augmented_run: Path) -> None:
    with pytest.raises(UserError, match="row groups, fewer than the 50 ranks. Train with fewer ranks"):
        TrainingViews(split_of(augmented_run, "train"), 4, Shard(3, 50), seed=1)


def test_shards_too_unequal_to_work_together_are_refused(augmented_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Split, "row_groups", lambda _: [900, 3])
    with pytest.raises(UserError, match="of 2 ranks one would have 3 training views and another 900, too unequal"):
        TrainingViews(split_of(augmented_run, "train"), 4, Shard(0, 2), seed=1)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the training split is empty"):
        TrainingViews(Split(tmp_path, "train", CLASSES), 4, Shard(), seed=1)


class _Evil:
    """Pickled, it is a call."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return eval, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.mark.filterwarnings("ignore")  # petastorm's own
def test_a_schema_that_is_code_is_refused(augmented_run: Path, tmp_path: Path) -> None:
    views, marker = tmp_path / "views", tmp_path / "was here"
    shutil.copytree(augmented_run / "views", views)
    directory = views / "split=train"
    schema = pa.schema([("view", pa.int8())]).with_metadata({UNISCHEMA_KEY: pickle.dumps(_Evil(marker))})
    pq.write_metadata(schema, directory / "_common_metadata")
    with suppress(Exception):
        make_batch_reader(as_url(directory))
    assert marker.exists()  # this is what petastorm does
    marker.unlink()
    training = TrainingViews(Split(views, "train", ["smooth"]), 8, Shard(), seed=1)
    with pytest.raises(UserError, match="split=train/_common_metadata: not of galaxyspark"):
        next(training.epoch(0))
    assert not marker.exists()
