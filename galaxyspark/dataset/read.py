"""From the dataset of views to batches of pixels: petastorm reads row groups, a buffer shuffles, threads decode."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from numpy.typing import NDArray
from petastorm import make_batch_reader

from galaxyspark.errors import UserError
from galaxyspark.run_directory import file_url
from galaxyspark.views.decode import decode_views

_COLUMNS = ["view", "label", "image"]
_DECODING_THREADS = 2
_EncodedView = tuple[bytes, int]


@dataclass(frozen=True)
class Shard:
    """The part of a split that one rank reads: every ``count``-th row group, from number ``rank`` on."""

    rank: int = 0
    count: int = 1


@dataclass(frozen=True)
class Batch:
    """Views with their classes.

    Attributes:
        images: uint8 0-255, shape (views, size, size, 3), colour order RGB.
        classes: int64 positions in the list of classes, shape (views,).
    """

    images: NDArray[np.uint8]
    classes: NDArray[np.int64]


def training_batches(
    views: Path, classes: Sequence[str], batch_size: int, shard: Shard, seed: int, buffer_views: int = 16_384
) -> Generator[Batch, None, None]:
    """Batches of all views in a shard of the training split, pass after pass for ever, shuffled by ``seed``.

    Args:
        views: The dataset's directory.
        classes: Names of the classes.
        batch_size: Views in a batch.
        shard: Which row groups to read.
        seed: Of the order of row groups and of the draws from the buffer.
        buffer_views: Encoded views to draw from at random.

    Raises:
        UserError: The split has fewer row groups than there are shards.
    """

    num_row_groups = count_row_groups(views, "train")
    if num_row_groups < shard.count:
        raise UserError(
            f"{views}: the training split has {num_row_groups} row groups, fewer than the {shard.count} ranks. "
            "Train with fewer ranks, or on more galaxies."
        )

    def draw() -> Generator[Batch, None, None]:
        random = np.random.default_rng((seed, shard.rank))
        buffer: list[_EncodedView] = []
        with closing(_row_groups(views, "train", classes, shard, seed=seed)) as row_groups:
            for row_group in row_groups:
                buffer.extend(row_group)
                while len(buffer) >= buffer_views + batch_size:
                    yield _decode([_take_any(buffer, random) for _ in range(batch_size)], threads)

    with ThreadPoolExecutor(_DECODING_THREADS) as threads:
        yield from _one_ahead(draw())


def evaluation_batches(
    views: Path, split: str, classes: Sequence[str], batch_size: int, shard: Shard
) -> Generator[Batch, None, None]:
    """Batches of view 0 of every galaxy in a shard of a split, once each; all shards together are the whole split.

    Where there are fewer row groups than shards, rank 0 reads them all and the others none.
    """
    num_row_groups = count_row_groups(views, split)
    if num_row_groups < shard.count:
        if shard.rank > 0:
            return
        shard = Shard()

    def once() -> Generator[Batch, None, None]:
        buffer: list[_EncodedView] = []
        with closing(_row_groups(views, split, classes, shard, only_view=0)) as row_groups:
            for row_group in islice(row_groups, len(range(shard.rank, num_row_groups, shard.count))):
                buffer.extend(row_group)
                while len(buffer) >= batch_size:
                    yield _decode([buffer.pop() for _ in range(batch_size)], threads)
        if buffer:
            yield _decode(buffer, threads)

    with ThreadPoolExecutor(_DECODING_THREADS) as threads:
        yield from _one_ahead(once())


def count_row_groups(views: Path, split: str) -> int:
    """Row groups in the files of a split, from their footers."""
    fragments = ds.dataset(views / f"split={split}", format="parquet").get_fragments()
    return sum(fragment.num_row_groups for fragment in fragments)


def _row_groups(
    views: Path,
    split: str,
    classes: Sequence[str],
    shard: Shard,
    seed: int | None = None,
    only_view: int | None = None,
) -> Generator[list[_EncodedView], None, None]:
    """The encoded views of one row group after another, pass after pass for ever, each with the position of its class.

    One reading thread keeps the order reproducible; it reads bytes far faster than they are decoded. Whoever wants
    one pass counts row groups: petastorm's reader, asked for one epoch, now and then ends before the last of them
    (ThreadPool.get_results looks whether all is done and whether all was handed out one after the other).
    """
    position = {name: index for index, name in enumerate(classes)}
    reader = make_batch_reader(
        file_url(views / f"split={split}"),
        schema_fields=_COLUMNS,
        workers_count=1,
        results_queue_size=2,
        shuffle_row_groups=seed is not None,
        seed=seed,
        num_epochs=None,
        cur_shard=shard.rank,
        shard_count=shard.count,
    )
    try:
        for rows in reader:
            columns = zip(rows.view, rows.image, rows.label, strict=True)
            yield [(image, position[label]) for view, image, label in columns if only_view in (None, view)]
    finally:
        reader.stop()
        reader.join()


def _take_any(buffer: list[_EncodedView], random: np.random.Generator) -> _EncodedView:
    chosen = int(random.integers(len(buffer)))
    buffer[chosen], buffer[-1] = buffer[-1], buffer[chosen]
    return buffer.pop()


def _decode(encoded: list[_EncodedView], threads: ThreadPoolExecutor) -> Batch:
    images, classes = zip(*encoded, strict=True)
    return Batch(decode_views(images, threads), np.array(classes, dtype=np.int64))


def _one_ahead(batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
    """The same batches, each prepared in another thread while the one before is used."""
    with closing(batches), ThreadPoolExecutor(1) as preparing:
        upcoming = preparing.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = preparing.submit(next, batches, None)
            yield batch
