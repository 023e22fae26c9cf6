"""From the dataset of views to batches of pixels: petastorm reads row groups, a buffer shuffles, threads decode."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from petastorm import make_batch_reader

from galaxyspark.dataset.petastorm_files import petastorm_files
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.tree import VOTE_FIELDS
from galaxyspark.storage import Place, as_url, filesystem_of
from galaxyspark.views.decode import decode_views

BUFFER_VIEWS = 16_384
"""Encoded views that training draws from at random; about 100 MB of 224 px."""
_LEAST_VIEWS_OF_A_BATCH = 2


@dataclass(frozen=True)
class Shard:
    """The part of a split that one rank reads: every ``count``-th row group, from number ``rank`` on."""

    rank: int = 0
    count: int = 1


@dataclass(frozen=True)
class Batch:
    """Views with what is known of their galaxies.

    Attributes:
        images: uint8 0-255, shape (views, size, size, 3), colour order RGB; a tensor where a GPU decoded them.
        classes: int64 positions in the list of classes, shape (views,).
        votes: float32 shares in [0, 1], shape (views, 37), in the tree's order; (views, 0) where not asked for.
    """

    images: NDArray[np.uint8]
    classes: NDArray[np.int64]
    votes: NDArray[np.float32]


class _EncodedView(NamedTuple):
    jpeg: bytes
    position: int
    votes: NDArray[np.float32]


@dataclass(frozen=True)
class Split:
    """How to read a split of the dataset of views.

    Attributes:
        views: Where the dataset lies.
        name: train, validation or test.
        classes: Names of the classes.
        with_votes: Whether to read the 37 votes too.
        decode: What makes pixels of JPEG files, as ``decode_views`` does, or on a GPU.
        decoding_threads: Threads that decode, outside Python's global lock.
    """

    views: Place
    name: str
    classes: Sequence[str]
    with_votes: bool = False
    decode: Callable[[Sequence[bytes]], Any] = decode_views
    decoding_threads: int = 2

    @property
    def place(self) -> str:
        """Where the split's files lie."""
        return f"{as_url(self.views)}/split={self.name}"

    def row_groups(self) -> list[int]:
        """Rows of every row group, from the footers, in the order in which petastorm deals them out to shards."""
        filesystem, path = filesystem_of(self.place)
        with ThreadPoolExecutor(8) as threads:
            files = sorted(filesystem.glob(f"{path}/*.parquet"))
            footers = list(threads.map(partial(pq.read_metadata, filesystem=filesystem), files))
        return [footer.row_group(number).num_rows for footer in footers for number in range(footer.num_row_groups)]


class TrainingViews:
    """A shard of the training split, epoch after epoch: every view once in each, in an order of that epoch's own.

    All shards have equally many batches, and those of one shard are of equal size but for one view: where shards are
    unequal, so are the sizes of their batches. The order depends on the seed, the epoch and the shard alone.
    """

    def __init__(
        self, split: Split, batch_size: int, shard: Shard, seed: int, buffer_views: int = BUFFER_VIEWS
    ) -> None:
        """Count the views of all shards.

        Args:
            split: The training split.
            batch_size: Most views in a batch of any shard.
            shard: Which row groups to read.
            seed: Of the order of row groups and of the draws from the buffer.
            buffer_views: Encoded views to draw from at random.

        Raises:
            UserError: There are no views, or too few row groups for all shards to have some.
        """
        self.split, self.shard, self.seed, self.buffer_views = split, shard, seed, buffer_views
        rows = split.row_groups()
        if not rows:
            raise UserError(f"{split.views}: the training split is empty. Augment more galaxies.")
        if len(rows) < shard.count:
            raise UserError(
                f"{split.views}: the training split has {len(rows)} row groups, fewer than the {shard.count} ranks. "
                "Train with fewer ranks, or on more galaxies."
            )
        self.views_of_shards = [sum(rows[rank :: shard.count]) for rank in range(shard.count)]
        self.num_batches = -(-max(self.views_of_shards) // batch_size)
        self._row_groups = len(rows[shard.rank :: shard.count])
        if min(self.views_of_shards) < _LEAST_VIEWS_OF_A_BATCH * self.num_batches:
            raise UserError(
                f"{split.views}: of {shard.count} ranks one would have {min(self.views_of_shards):,} training views "
                f"and another {max(self.views_of_shards):,}, too unequal to work together. Train with fewer ranks."
            )

    def batch_sizes(self, number: int) -> list[int]:
        """Views that batch ``number`` of an epoch has, of each shard."""
        return [_part(views, number, self.num_batches) for views in self.views_of_shards]

    def epoch(self, epoch: int, first: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch, from number ``first`` on; those before it are drawn too, but not decoded."""

        def draw() -> Generator[list[_EncodedView], None, None]:
            random = np.random.default_rng((self.seed, epoch, self.shard.rank))
            # petastorm takes 0 for no seed
            order = 1 + int(random.integers(2**31))
            buffer: list[_EncodedView] = []
            left = self.views_of_shards[self.shard.rank]
            with closing(_row_groups(self.split, self.shard, seed=order)) as row_groups:
                for number in range(self.num_batches):
                    size = self.batch_sizes(number)[self.shard.rank]
                    while len(buffer) < min(self.buffer_views + size, left):
                        buffer.extend(next(row_groups))
                    left -= size
                    views = _take_any(buffer, size, random)
                    if number >= first:
                        yield views

        yield from _decoded(draw(), self.split)


def evaluation_batches(split: Split, batch_size: int, shard: Shard) -> Generator[Batch, None, None]:
    """Batches of view 0 of every galaxy in a shard of a split, once each; all shards together are the whole split.

    Where there are fewer row groups than shards, rank 0 reads them all and the others none.
    """
    num_row_groups = len(split.row_groups())
    if num_row_groups < shard.count:
        if shard.rank > 0 or num_row_groups == 0:
            return
        shard = Shard()

    def once() -> Generator[list[_EncodedView], None, None]:
        buffer: list[_EncodedView] = []
        with closing(_row_groups(split, shard, only_view=0)) as row_groups:
            for row_group in islice(row_groups, len(range(shard.rank, num_row_groups, shard.count))):
                buffer.extend(row_group)
                while len(buffer) >= batch_size:
                    yield [buffer.pop() for _ in range(batch_size)]
        if buffer:
            yield buffer

    yield from _decoded(once(), split)


def _refuse_pickle(split: Split) -> None:
    """petastorm would unpickle a schema that lies beside the files of a split, where augment never writes one.

    Raises:
        UserError: There is one.
    """
    filesystem, path = filesystem_of(split.place)
    if filesystem.exists(f"{path}/_common_metadata"):
        file = f"{split.place}/_common_metadata"
        raise UserError(f"{file}: not of galaxyspark; reading it could run code of whoever made it. Augment again.")


def _row_groups(
    split: Split, shard: Shard, seed: int | None = None, only_view: int | None = None
) -> Generator[list[_EncodedView], None, None]:
    """The encoded views of one row group after another, pass after pass for ever.

    One reading thread keeps the order reproducible; it reads bytes far faster than they are decoded. Whoever wants
    one pass counts row groups: petastorm's reader, asked for one epoch, now and then ends before the last of them
    (ThreadPool.get_results looks whether all is done and whether all was handed out one after the other).
    """
    _refuse_pickle(split)
    position = {name: index for index, name in enumerate(split.classes)}
    vote_fields = list(VOTE_FIELDS.values()) if split.with_votes else []
    reader = make_batch_reader(
        split.place,
        filesystem=petastorm_files(split.place),
        schema_fields=["view", "label", "image", *vote_fields],
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
            votes = np.empty((len(rows.view), len(vote_fields)), np.float32)
            for column, field in enumerate(vote_fields):
                votes[:, column] = getattr(rows, field)
            columns = zip(rows.view, rows.image, rows.label, votes, strict=True)
            yield [
                _EncodedView(jpeg, position[label], of_view)
                for view, jpeg, label, of_view in columns
                if only_view in (None, view)
            ]
    finally:
        reader.stop()
        reader.join()


def _part(total: int, number: int, count: int) -> int:
    """Size of part ``number`` where ``total`` is divided into ``count`` parts as even as can be."""
    return total * (number + 1) // count - total * number // count


def _take_any(buffer: list[_EncodedView], count: int, random: np.random.Generator) -> list[_EncodedView]:
    """Take so many out of the buffer at random; the last ones fill the gaps."""
    taken = []
    for chosen in random.integers(np.arange(len(buffer), len(buffer) - count, -1)).tolist():
        buffer[chosen], buffer[-1] = buffer[-1], buffer[chosen]
        taken.append(buffer.pop())
    return taken


def _decoded(encoded: Generator[list[_EncodedView], None, None], split: Split) -> Generator[Batch, None, None]:
    """The batches in their order, each decoded by one thread, as many ahead of what is used as there are threads."""
    with closing(encoded), ThreadPoolExecutor(split.decoding_threads) as threads:
        ahead: deque[Future[Batch]] = deque()
        for views in encoded:
            ahead.append(threads.submit(_batch_of, views, split.decode))
            if len(ahead) > split.decoding_threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _batch_of(views: Sequence[_EncodedView], decode: Callable[[Sequence[bytes]], Any]) -> Batch:
    jpegs, positions, votes = zip(*views, strict=True)
    return Batch(decode(jpegs), np.array(positions, dtype=np.int64), np.stack(votes))
