"""Shards by themselves, without Spark: what is listed of them, what is read, and which of them are broken."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxyspark.dataset.elsewhere import StorageFailedError, buffered
from galaxyspark.dataset.shards import BrokenShardError, list_members, read_members

CONTENTS = {"1.jpg": b"first" * 300, "2.jpg": b"", "deep/er/3.png": b"third" * 5_000}


def tar_of(contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def parquet_of(table: pa.Table, rows_of_group: int = 2) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=rows_of_group)
    return file.getvalue()


def read_all(shard: bytes, name: str) -> dict[str, bytes]:
    members = list(list_members(io.BytesIO(shard), name))
    positions, lengths = [member.position for member in members], [member.length for member in members]
    found = read_members(io.BytesIO(shard), name, positions, lengths)
    return {members[number].name: content for number, content in found}


def test_a_tar_shard_gives_back_what_was_packed() -> None:
    assert read_all(tar_of(CONTENTS), "s.tar") == CONTENTS


def test_long_names_folders_links_and_hidden_files_of_a_tar_shard(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{'x' * 120}.jpg").write_bytes(b"long")
    (tmp_path / "in" / "twin.jpg").hardlink_to(tmp_path / "in" / f"{'x' * 120}.jpg")
    (tmp_path / "in" / "out.jpg").symlink_to("/nowhere.jpg")
    (tmp_path / "in" / "._twin.jpg").write_bytes(b"of a Mac")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "in", ".")
    members = {member.name: member for member in list_members(io.BytesIO((tmp_path / "s.tar").read_bytes()), "s.tar")}
    assert set(members) == {f"{'x' * 120}.jpg", "twin.jpg", "out.jpg"}
    assert members["out.jpg"].position is None
    twins = [members[name] for name in ("twin.jpg", f"{'x' * 120}.jpg")]
    assert twins[0].position == twins[1].position
    shard = io.BytesIO((tmp_path / "s.tar").read_bytes())
    read = read_members(shard, "s.tar", [twin.position for twin in twins], [twin.length for twin in twins])
    assert list(read) == [(0, b"long"), (1, b"long")]


def test_a_name_that_is_not_utf_8_is_listed_all_the_same() -> None:
    shard = tar_of({"caf\udce9.jpg": b"image"})
    assert [member.name.encode() for member in list_members(io.BytesIO(shard), "s.tar")] == ["caf\ufffd.jpg".encode()]


@given(st.integers(0, len(tar_of(CONTENTS)) - 1))
def test_a_tar_shard_cut_anywhere_is_refused_unless_only_zeros_are_lost(length: int) -> None:
    whole = tar_of(CONTENTS)
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # behind the last block of the last image
    if length >= end + 512:
        assert len(list(list_members(io.BytesIO(whole[:length]), "s.tar"))) == len(CONTENTS)
        return
    with pytest.raises(BrokenShardError):
        list(list_members(io.BytesIO(whole[:length]), "s.tar"))


def test_damage_in_the_middle_of_a_tar_shard_is_found() -> None:
    whole = bytearray(tar_of(CONTENTS))
    header = whole.index(b"deep/er/3.png")
    whole[header : header + 512] = b"\x07" * 512
    with pytest.raises(BrokenShardError, match="cut off or damaged behind its first 2 members"):
        list(list_members(io.BytesIO(whole), "s.tar"))


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"galaxy_id": list(CONTENTS), "image": list(CONTENTS.values())}),
        pa.table({"path": list(CONTENTS), "content": pa.array(list(CONTENTS.values()), pa.large_binary())}),
        pa.table({"image": [{"bytes": content, "path": name} for name, content in CONTENTS.items()]}),
        pa.table({"file_name": pa.array(list(CONTENTS)).dictionary_encode(), "bytes": list(CONTENTS.values())}),
    ],
    ids=["galaxy_id, image", "path, content", "image as a struct", "file_name, bytes"],
)  # fmt: skip
def test_a_parquet_file_gives_back_what_was_packed(table: pa.Table) -> None:
    assert read_all(parquet_of(table), "s.parquet") == CONTENTS


def test_rows_are_read_by_number_from_any_row_group() -> None:
    contents = [f"image {number}".encode() * (number % 50) for number in range(1_000)]
    table = pa.table({"id": list(range(1_000)), "content": contents, "length": [len(c) for c in contents]})
    shard = parquet_of(table, rows_of_group=170)
    members = list(list_members(io.BytesIO(shard), "s.parquet"))
    assert [(member.name, member.length) for member in members[7:9]] == [("7", 7 * 7), ("8", 7 * 8)]
    rows = [0, 1, 169, 170, 339, 500, 998]
    read = list(read_members(io.BytesIO(shard), "s.parquet", rows, [0] * len(rows)))
    assert read == [(number, contents[row]) for number, row in enumerate(rows)]


def test_rows_without_an_id_are_listed_by_their_number_and_those_without_an_image_have_none() -> None:
    table = pa.table({"id": ["1", None], "content": pa.array([None, b"image"], pa.binary())})
    assert [member.name for member in list_members(io.BytesIO(parquet_of(table)), "s.parquet")][0] == "1"
    assert read_all(parquet_of(table), "far/s.parquet") == {"row 1 of s.parquet": b"image"}


def test_a_damaged_row_group_costs_its_own_rows_alone() -> None:
    contents = [bytes([number]) * 10_000 for number in range(6)]
    table = pa.table({"id": [str(number) for number in range(6)], "content": contents})
    shard = io.BytesIO()
    pq.write_table(table, shard, row_group_size=2, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(shard).metadata.row_group(1).column(1)
    broken = bytearray(shard.getvalue())
    broken[column.data_page_offset : column.data_page_offset + column.total_compressed_size] = b"\xff" * (
        column.total_compressed_size
    )
    assert read_all(bytes(broken), "s.parquet") == {str(number): contents[number] for number in (0, 1, 4, 5)}


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        (b"", "not a whole Parquet file"),
        (parquet_of(pa.table({"id": ["1"], "image": [b"x"]}))[:-9], "not a whole Parquet file"),
        (parquet_of(pa.table({"id": ["1"], "pixels": [b"x"]})), "none of the columns content, .* it has id, pixels"),
        (parquet_of(pa.table({"ra": [1.5], "image": [b"x"]})), "none of the columns galaxy_id, .* it has ra, image"),
    ],
    ids=["empty", "cut off", "no image", "no id"],
)
def test_unusable_parquet_files_say_why(shard: bytes, message: str) -> None:
    with pytest.raises(BrokenShardError, match=message):
        list(list_members(io.BytesIO(shard), "s.parquet"))


class FailsIn(io.BytesIO):
    """A file of a storage that stops answering, within a range of its bytes."""

    def __init__(self, content: bytes, failing: range) -> None:
        super().__init__(content)
        self.failing = failing

    def read(self, size: int | None = -1) -> bytes:
        start = self.tell()
        content = super().read(size)
        if range(max(start, self.failing.start), min(start + len(content), self.failing.stop)):
            raise TimeoutError("the storage does not answer")
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> None:
        """Says nothing, as HDFS's."""
        super().seek(offset, whence)


@pytest.mark.parametrize("ending", ["tar", "parquet"])
def test_a_storage_that_does_not_answer_is_no_damage_of_the_shard(ending: str) -> None:
    """Else galaxies would be left out, or shards refused, that are whole when the task is done again."""
    random = np.random.default_rng(1)
    contents = {f"{number}.jpg": random.bytes(40_000) for number in range(64)}
    table = pa.table({"name": list(contents), "content": list(contents.values())})
    shard, name = (tar_of(contents) if ending == "tar" else parquet_of(table, rows_of_group=8)), f"s.{ending}"
    members = list(list_members(io.BytesIO(shard), name))
    positions, lengths = [member.position for member in members], [40_000] * len(members)
    middle = len(shard) // 2
    with pytest.raises(StorageFailedError, match="does not answer"):
        list(read_members(buffered(FailsIn(shard, range(middle, middle + 1))), name, positions, lengths))
    start, end = (0, 1) if ending == "tar" else (len(shard) - 5, len(shard) - 4)
    with pytest.raises(StorageFailedError, match="does not answer"):
        list(list_members(buffered(FailsIn(shard, range(start, end))), name))
    assert len(list(list_members(buffered(FailsIn(shard, range(0))), name))) == 64
