"""Images packed into shards: the same views and the same catalogue as from a folder, and nothing lost."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from galaxyspark.dataset.images import Images, find_images, images_read
from galaxyspark.dataset.pack import pack_images
from galaxyspark.dataset.write import augment
from galaxyspark.errors import UserError
from galaxyspark.settings import AugmentJob, AugmentSettings, PackImagesJob
from tests.conftest import SPLIT_FRACTIONS

SHARD_ROWS = 25


def as_tar(files: list[Path], directory: Path) -> None:
    directory.mkdir()
    for number, start in enumerate(range(0, len(files), SHARD_ROWS)):
        with tarfile.open(directory / f"shard-{number:04}.tar", "w") as tar:
            for file in files[start : start + SHARD_ROWS]:
                tar.add(file, file.name)


def as_parquet(files: list[Path], directory: Path) -> None:
    """Ids and images alone: how long the images are, only reading them would tell."""
    directory.mkdir()
    for number, start in enumerate(range(0, len(files), SHARD_ROWS)):
        packed = files[start : start + SHARD_ROWS]
        table = pa.table({"galaxy_id": [int(f.stem) for f in packed], "image": [f.read_bytes() for f in packed]})
        pq.write_table(table, directory / f"part-{number}.parquet", row_group_size=10)


@pytest.fixture(scope="module")
def folder(galaxies, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated galaxies with three broken files among them, the last of which is larger than the limit."""
    directory = tmp_path_factory.mktemp("images")
    for file in galaxies.images.iterdir():
        (directory / file.name).hardlink_to(file)
    cut, text, huge = sorted(directory.iterdir())[:3]
    whole = cut.read_bytes()
    for file, content in ((cut, whole[:2000]), (text, b"not an image"), (huge, huge.read_bytes() + bytes(200_000))):
        file.unlink()
        file.write_bytes(content)
    return directory


def views_and_quarantine(spark: SparkSession, images: Path, labels: Path, run: Path) -> tuple[pd.DataFrame, dict, dict]:
    settings = AugmentSettings(view_size_px=48, split_fractions=SPLIT_FRACTIONS, max_file_mb=0.15)
    manifest = augment(spark, AugmentJob(run=run, images=str(images), labels=str(labels), augment=settings))
    views_pdf = pd.read_parquet(run / "views").sort_values(["galaxy_id", "view"]).reset_index(drop=True)
    quarantine_pdf = pd.read_parquet(run / "quarantine")
    assert set(views_pdf["galaxy_id"]).isdisjoint(quarantine_pdf["galaxy_id"])
    return views_pdf, dict(zip(quarantine_pdf["galaxy_id"], quarantine_pdf["reason"], strict=True)), manifest


@pytest.fixture(scope="module")
def of_folder(spark: SparkSession, folder: Path, galaxies, tmp_path_factory) -> tuple[pd.DataFrame, dict, dict]:
    return views_and_quarantine(spark, folder, galaxies.labels, tmp_path_factory.mktemp("runs") / "folder")


@pytest.mark.parametrize("pack", [as_tar, as_parquet])
def test_the_same_bytes_make_the_same_views_however_they_are_packed(
    spark: SparkSession, folder: Path, of_folder, galaxies, pack, tmp_path: Path
) -> None:
    pack(sorted(folder.iterdir()), tmp_path / "packed")
    views_pdf, reasons, manifest = views_and_quarantine(spark, tmp_path / "packed", galaxies.labels, tmp_path / "run")
    expected_pdf, expected_reasons, expected_manifest = of_folder
    pd.testing.assert_frame_equal(views_pdf, expected_pdf)
    assert len(expected_reasons) == 3
    assert reasons == expected_reasons
    assert manifest["recipe"] == expected_manifest["recipe"]
    assert manifest["counts"] == expected_manifest["counts"]
    quarantine_pdf = pd.read_parquet(tmp_path / "run" / "quarantine")
    inside = quarantine_pdf["path"].str.removeprefix(f"file:{tmp_path}/packed/")
    assert set(inside) <= {f"shard-0000.tar/{id}.jpg" for id in reasons} | {f"part-0.parquet/{id}" for id in reasons}


def test_a_packed_folder_holds_what_the_folder_held(spark: SparkSession, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "images")
    (tmp_path / "images" / "deep er").mkdir()
    (tmp_path / "images" / "deep er" / "x+y 1%.png").write_bytes(b"any bytes")
    (tmp_path / "images" / "deep er" / "empty.jpg").touch()
    packed = str(tmp_path / "packed")
    counts = pack_images(spark, PackImagesJob(images=str(tmp_path / "images"), packed=packed, shard_mb=0.2))
    assert counts["images"] == 62
    files = sorted((tmp_path / "packed").glob("*.parquet"))
    assert len(files) == counts["shards"] > 3
    rows_pdf = pd.concat([pd.read_parquet(file) for file in files]).set_index("path")
    files = [file for file in (tmp_path / "images").rglob("*") if file.is_file()]
    expected = {str(file.relative_to(tmp_path / "images")): file.read_bytes() for file in files}
    assert rows_pdf["content"].to_dict() == expected | {"deep er/empty.jpg": None}
    assert rows_pdf["length"].to_dict() == {name: len(content) for name, content in expected.items()}
    images = find_images(spark, packed, max_file_mb=0.15)
    reasons = {row["galaxy_id"]: row["reason"] for row in images.files_df.where("reason IS NOT NULL").collect()}
    assert sorted(reasons.values()) == ["empty file", "file larger than 0.15 MB"]
    assert reasons["empty"] == "empty file"
    assert read_all(spark, images)["x+y 1%"] == b"any bytes"
    with pytest.raises(UserError, match=r"--packed .*packed: is there already"):
        pack_images(spark, PackImagesJob(images=str(folder), packed=packed))
    pack_images(spark, PackImagesJob(images=str(folder), packed=f"{tmp_path}/again"))
    again = list((tmp_path / "again").glob("*.parquet"))
    assert again and all(pq.read_metadata(file).num_rows for file in again)


def read_all(spark: SparkSession, images: Images) -> dict[str, bytes]:
    with images_read(spark, images, images.files_df.where("reason IS NULL"), 3) as content_df:
        assert content_df.rdd.getNumPartitions() > 2
        return {row["galaxy_id"]: bytes(row["content"]) for row in content_df.collect()}


def test_ids_that_occur_twice_within_and_across_shards_are_not_used(spark: SparkSession, tmp_path: Path) -> None:
    once = pa.table({"id": [str(number) for number in range(20)], "content": [b"x"] * 20})
    twice = pa.table({"id": ["a", "a", "3"], "content": [b"1", b"2", b"3"]})
    for name, table in (("once", once), ("twice", twice)):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    images = find_images(spark, str(tmp_path))
    reasons = [row["galaxy_id"] for row in images.files_df.where("reason LIKE 'same id%: 2 have it'").collect()]
    assert sorted(reasons) == ["3", "3", "a", "a"]
    assert images.files_df.count() == images.files_df.select("path").distinct().count() == 23
    assert set(read_all(spark, images)) == {str(number) for number in range(20)} - {"3"}


def test_what_is_gone_since_it_was_listed_has_no_row(spark: SparkSession, tmp_path: Path) -> None:
    for shard in "ab":
        table = pa.table({"id": [f"{shard}{number}" for number in range(10)], "content": [b"x"] * 10})
        pq.write_table(table, tmp_path / f"{shard}.parquet")
    images = find_images(spark, str(tmp_path))
    (tmp_path / "a.parquet").unlink()
    assert set(read_all(spark, images)) == {f"b{number}" for number in range(10)}


def test_folders_that_leave_a_question_are_refused(spark: SparkSession, galaxies, tmp_path: Path) -> None:
    image = next(galaxies.images.iterdir())
    as_tar([image], tmp_path / "a")
    (tmp_path / "a" / "of webdataset.cls").write_text("1")
    images = find_images(spark, str(tmp_path / "a"))
    assert (images.files_df.count(), images.num_other_files, images.packed) == (1, 1, True)
    whole = (tmp_path / "a" / "shard-0000.tar").read_bytes()
    (tmp_path / "a" / "cut.tar").write_bytes(whole[:-10_240])
    (tmp_path / "a" / "empty.parquet").touch()
    with pytest.raises(
        UserError, match=r"(?s)shards that cannot be used: 2\..*cut\.tar: .*empty\.parquet: not a whole"
    ):
        find_images(spark, str(tmp_path / "a"))
    (tmp_path / "a" / "1.jpg").write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"image files \(1\) and shards \(.tar, .parquet; 3\) lie there. Keep them apart"
    ):
        find_images(spark, str(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "shard.tar.gz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"--new-images .*b: 1 compressed tar files .* Unpack them"):
        find_images(spark, str(tmp_path / "b"), "--new-images")
