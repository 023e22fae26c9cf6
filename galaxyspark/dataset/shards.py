"""Files that hold many images: tar shards, and Parquet files with a column of image files. Without Spark.

A shard is listed without its images: of tar the headers are read, of Parquet the column of names. Its images are then
read by their positions, in the order in which they lie there.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

SHARD_ENDINGS = ("tar", "parquet")
NAME_COLUMNS = ("galaxy_id", "GalaxyID", "id", "name", "file_name", "filename", "path", "image.path")
"""Columns of a Parquet file that may name its images: the first of them that is there does."""
IMAGE_COLUMNS = ("content", "image", "bytes", "image.bytes")
"""Columns that may hold the bytes of the image files: the first that is there and binary does."""
LENGTH_COLUMN = "length"
"""The column that may say how many bytes an image has, so that it need not be read to know."""

_ROWS_OF_NAMES = 65_536
_ROWS_OF_IMAGES = 64
_BUFFER_BYTES = 2**20


@dataclass(frozen=True)
class Member:
    """One image of a shard.

    Attributes:
        name: Its file's name, maybe with folders before it, or its galaxy's id.
        position: Where to read it: its first byte in a tar shard, its row in a Parquet file; None where it is a link
            out of the shard, so that there is nothing to read.
        length: In bytes; None where only reading it would tell.
    """

    name: str
    position: int | None
    length: int | None


class BrokenShardError(ValueError):
    """A shard of which nobody can say what is in it; the message says why."""


def list_members(file: BinaryIO, shard: str) -> Iterator[Member]:
    """Everything in a shard that could be an image, by its name.

    Raises:
        BrokenShardError: The shard is cut off or damaged, or has no columns of names and images.
    """
    return _list_parquet(file, shard) if shard.lower().endswith(".parquet") else _list_tar(file)


def read_members(
    file: BinaryIO, shard: str, positions: Sequence[int], lengths: Sequence[int]
) -> Iterator[tuple[int, bytes]]:
    """Images by their positions, which ascend, and their lengths, which Parquet files know themselves.

    Yields:
        For each image its number among ``positions``, and its bytes. What cannot be read is left out.
    """
    if shard.lower().endswith(".parquet"):
        yield from _read_parquet(file, np.asarray(positions))
        return
    for number, (position, length) in enumerate(zip(positions, lengths, strict=True)):
        file.seek(position)
        content = file.read(length)
        if len(content) == length:
            yield number, content


def _list_tar(file: BinaryIO) -> Iterator[Member]:
    listed: dict[str, Member] = {}
    num_members = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                num_members += 1
                if info.isdir() or _is_hidden(info.name):
                    continue
                listed[info.name] = member = _member(info, listed)
                yield member
    except (tarfile.TarError, ValueError) as error:  # of what cannot be a number in a header
        raise BrokenShardError(f"not a whole tar file ({error}), {num_members:,} members are before that") from None
    # What cannot be a header ends the list without an error: only blocks of zeros are the end of a tar file.
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise BrokenShardError(f"cut off or damaged behind its first {num_members:,} members")


def _member(info: tarfile.TarInfo, listed: dict[str, Member]) -> Member:
    name = info.name.removeprefix("./").encode(errors="surrogateescape").decode(errors="replace")
    if info.isreg():
        return Member(name, info.offset_data, info.size)
    target = listed.get(info.linkname) if info.islnk() else None  # tar keeps a file with two names once
    return Member(name, target.position, target.length) if target else Member(name, None, 0)


def _is_hidden(name: str) -> bool:
    """Whether Spark would not look at a file of this name, in a folder."""
    return any(part.startswith((".", "_")) for part in name.split("/") if part != ".")


def _list_parquet(file: BinaryIO, shard: str) -> Iterator[Member]:
    try:
        parquet = pq.ParquetFile(file)
        name_column, _ = _columns(parquet.schema_arrow)
        columns = [name_column, LENGTH_COLUMN] if _has_lengths(parquet.schema_arrow) else [name_column]
        first = 0
        for batch in parquet.iter_batches(_ROWS_OF_NAMES, columns=columns):
            names = _leaf(batch, name_column).cast(pa.string()).to_pylist()
            lengths = batch.column(LENGTH_COLUMN).to_pylist() if len(columns) == 2 else [None] * len(names)
            for row, (name, length) in enumerate(zip(names, lengths, strict=True), first):
                yield Member(name or f"row {row} of {PurePosixPath(shard).name}", row, length)
            first += len(names)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise BrokenShardError(f"not a whole Parquet file ({str(error).splitlines()[0]})") from None


def _columns(schema: pa.Schema) -> tuple[str, str]:
    """The columns of names and of images; a field of a struct as ``image.bytes``."""
    types = {field.name: field.type for field in schema}
    structs = {name: of_type for name, of_type in types.items() if pa.types.is_struct(of_type)}
    types |= {f"{name}.{field.name}": field.type for name, of_type in structs.items() for field in of_type}
    names = [name for name in NAME_COLUMNS if name in types and _is_name(types[name])]
    images = [name for name in IMAGE_COLUMNS if name in types and _is_binary(types[name])]
    for found, what, known in ((names, "texts or whole numbers", NAME_COLUMNS), (images, "bytes", IMAGE_COLUMNS)):
        if not found:
            raise BrokenShardError(f"none of the columns {', '.join(known)} with {what}; it has {', '.join(types)}")
    return names[0], images[0]


def _is_name(of_type: pa.DataType) -> bool:
    if pa.types.is_dictionary(of_type):
        of_type = of_type.value_type
    return pa.types.is_string(of_type) or pa.types.is_large_string(of_type) or pa.types.is_integer(of_type)


def _is_binary(of_type: pa.DataType) -> bool:
    return pa.types.is_binary(of_type) or pa.types.is_large_binary(of_type)


def _has_lengths(schema: pa.Schema) -> bool:
    position = schema.get_field_index(LENGTH_COLUMN)
    return position >= 0 and pa.types.is_integer(schema.field(position).type)


def _leaf(batch: pa.RecordBatch, column: str) -> pa.Array:
    name, _, field = column.partition(".")
    return pc.struct_field(batch.column(name), [field]) if field else batch.column(name)


def _read_parquet(file: BinaryIO, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
    # Through a buffer: a whole column of a row group can be larger than what a worker may hold.
    parquet = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES)
    _, column = _columns(parquet.schema_arrow)
    first = 0
    for row_group in range(parquet.num_row_groups):
        end = first + parquet.metadata.row_group(row_group).num_rows
        start, stop = np.searchsorted(rows, [first, end]).tolist()
        if start < stop:
            for number, content in _read_row_group(parquet, row_group, column, rows[start:stop] - first):
                yield start + number, content
        first = end


def _read_row_group(
    parquet: pq.ParquetFile, row_group: int, column: str, rows: NDArray[np.int64]
) -> Iterator[tuple[int, bytes]]:
    """Images by their rows in the row group, up to where it is damaged: numbers among ``rows``, and bytes."""
    first = 0
    with suppress(OSError, pa.ArrowException):
        for batch in parquet.iter_batches(_ROWS_OF_IMAGES, row_groups=[row_group], columns=[column]):
            images = _leaf(batch, column)
            start, stop = np.searchsorted(rows, [first, first + len(batch)]).tolist()
            for number in range(start, stop):
                image = images[rows[number] - first]
                if image.is_valid:
                    yield number, image.as_py()
            first += len(batch)
            if stop == len(rows):
                return
