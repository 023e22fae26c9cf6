"""Images in shards, listed and read by Spark's tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.types import BinaryType

from galaxyspark.dataset.elsewhere import StorageFailedError, buffered
from galaxyspark.dataset.shards import BrokenShardError, list_members, read_members
from galaxyspark.errors import UserError
from galaxyspark.storage import Place, filesystem_of

_MEMBERS = {
    "path": pa.string(),
    "name": pa.string(),
    "shard": pa.string(),
    "position": pa.int64(),
    "length": pa.int64(),
    "modified": pa.int64(),
    "broken": pa.string(),
}
_MEMBERS_SCHEMA = "path string, name string, shard string, position long, length long, modified long, broken string"
_ROWS_OF_LISTING = 10_000
_IMAGES_OF_BATCH = 64
_BYTES_OF_BATCH = 64 * 2**20


def list_shards(shards_df: DataFrame, given: str) -> DataFrame:
    """What is in shards, a task for each of them; their images are not read.

    Args:
        shards_df: ``path`` and ``modified`` of tar and Parquet files.
        given: The flag and the folder, for messages.

    Returns:
        One row a member: ``path`` (the shard's, with the member's name behind it), ``name``, ``shard`` (its path),
        ``position`` in it, ``length`` (null where only reading it would tell) and ``modified`` (the shard's).

    Raises:
        UserError: Shards are broken: what was lost with them cannot be counted. Or they lie where Python cannot read.
    """
    filesystem_of(_place(shards_df.first()["path"]))  # type: ignore[index]
    members_df = shards_df.select("path", "modified").mapInArrow(_members_of_batches, _MEMBERS_SCHEMA).cache()
    broken_df = members_df.where("broken IS NOT NULL")
    if num_broken := broken_df.count():
        rows = broken_df.orderBy("shard").limit(4).collect()
        listed = "".join(f"\n  {row['shard']}: {row['broken']}" for row in rows)
        raise UserError(
            f"{given}: shards that cannot be used: {num_broken:,}. What is in them is not known. "
            f"Make them again, or take them away.{listed}"
        )
    return members_df.drop("broken")


def read_packed(wanted_df: DataFrame, num_tasks: int) -> DataFrame:
    """Rows with ``shard``, ``position`` and ``length`` with their ``content`` instead of shard and position.

    Each task reads about as many images, most of them one behind the other. What cannot be read has no row.
    """
    placed_df = wanted_df.where("position IS NOT NULL").repartitionByRange(num_tasks, "shard", "position")
    kept = [name for name in wanted_df.columns if name not in ("shard", "position")]
    schema = wanted_df.select(*kept).schema.add("content", BinaryType())
    sorted_df = placed_df.sortWithinPartitions("shard", "position")
    return sorted_df.mapInArrow(partial(_contents_of_batches, kept=kept), schema)


def _place(path: str) -> Place:
    """Where a file lies, by its path as Spark writes it."""
    return Path(path.removeprefix("file:")) if path.startswith("file:/") else path


def _open(path: str) -> BinaryIO:
    """Open a shard.

    Raises:
        OSError: It is gone, or a disk cannot read it.
        StorageFailedError: A storage elsewhere did not give it.
    """
    place = _place(path)
    if isinstance(place, Path):
        return open(place, "rb")
    filesystem, path_there = filesystem_of(place)
    try:
        return buffered(filesystem.open(path_there, "rb"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageFailedError(f"{path}: {error}") from error


def _members_of_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for shard in batch.to_pylist():
            yield from _members_of_shard(shard["path"], shard["modified"])


def _members_of_shard(shard: str, modified: int | None) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, Any]] = []
    seen: Counter[str] = Counter()
    try:
        with _open(shard) as file:
            for member in list_members(file, shard):
                seen[member.name] += 1
                again = f" ({seen[member.name]})" if seen[member.name] > 1 else ""  # paths tell rows apart
                place = {"path": f"{shard}/{member.name}{again}", "shard": shard, "modified": modified}
                rows.append(vars(member) | place | {"broken": None})
                if len(rows) == _ROWS_OF_LISTING:
                    yield _as_batch(rows)
                    rows = []
    except (BrokenShardError, OSError) as error:
        rows.append(dict.fromkeys(_MEMBERS) | {"shard": shard, "broken": str(error)})
    yield _as_batch(rows)


def _as_batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    columns = {name: pa.array([row[name] for row in rows], of_type) for name, of_type in _MEMBERS.items()}
    return pa.RecordBatch.from_pydict(columns)


def _contents_of_batches(batches: Iterable[pa.RecordBatch], kept: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows of a task, sorted by shard and position, with their images."""
    held = list(batches)  # without pixels they are small
    if not held:
        return
    rows = pa.Table.from_batches(held).combine_chunks()
    for found in _in_batches(_contents(rows)):
        numbers, contents = zip(*found, strict=True)
        taken = rows.select(kept).take(pa.array(numbers))
        yield taken.append_column("content", pa.array(contents, pa.binary())).combine_chunks().to_batches()[0]


def _contents(rows: pa.Table) -> Iterator[tuple[int, bytes]]:
    """Numbers of rows, and the bytes of their images."""
    shards, positions, lengths = (rows.column(name).to_pylist() for name in ("shard", "position", "length"))
    first = 0
    for shard, of_shard in groupby(shards):
        end = first + len(list(of_shard))
        # What cannot be read is found by what is missing, as everywhere.
        with suppress(OSError, pa.ArrowException, BrokenShardError), _open(shard) as file:
            for number, content in read_members(file, shard, positions[first:end], lengths[first:end]):
                yield first + number, content
        first = end


def _in_batches(contents: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    held: list[tuple[int, bytes]] = []
    num_bytes = 0
    for number, content in contents:
        held.append((number, content))
        num_bytes += len(content)
        if len(held) == _IMAGES_OF_BATCH or num_bytes >= _BYTES_OF_BATCH:
            yield held
            held, num_bytes = [], 0
    if held:
        yield held
