"""Folders of images as users hand them in: what is listed, what is read, and why not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from galaxyspark.dataset.images import Images, find_images, images_read
from galaxyspark.errors import UserError


def read_all(spark: SparkSession, images: Images) -> dict[str, bytes]:
    """Id -> bytes of all images that are to be read."""
    with images_read(spark, images, images.files_df.where("reason IS NULL"), 2) as content_df:
        return {row["galaxy_id"]: bytes(row["content"]) for row in content_df.collect()}


def test_images_are_found_in_subfolders_and_empty_ones_are_not_lost(spark: SparkSession, galaxies, tmp_path) -> None:
    image = next(galaxies.images.iterdir())
    (tmp_path / "deep er").mkdir()
    names = ("a.jpg", "deep er/b.c.png", "UPPER.JPG", "Mixed.JpEg", "flux.fits", "F.FIT", "packed.fits.fz", "z.Fits.GZ")
    for name in names:
        shutil.copy(image, tmp_path / name)
    (tmp_path / "deep er" / "nothing at 100%.jpg").touch()
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "table.csv").touch()
    images = find_images(spark, str(tmp_path))
    rows = {row["galaxy_id"]: row for row in images.files_df.collect()}
    sound = {"a", "b.c", "UPPER", "Mixed", "flux", "F", "packed", "z"}
    assert set(rows) == sound | {"nothing at 100%"}
    assert images.num_other_files == 2
    assert rows["a"]["length"] == image.stat().st_size
    assert {galaxy_id: row["reason"] for galaxy_id, row in rows.items()} == dict.fromkeys(sound) | {
        "nothing at 100%": "empty file"
    }
    assert rows["nothing at 100%"]["path"] == f"file:{tmp_path}/deep er/nothing at 100%.jpg"
    assert read_all(spark, images) == dict.fromkeys(sound, image.read_bytes())


def test_what_cannot_be_used_by_its_name_or_size_is_listed_but_not_read(
    spark: SparkSession, galaxies, tmp_path
) -> None:
    image = next(galaxies.images.iterdir())
    (tmp_path / "other").mkdir()
    for name in ("a.jpg", "twice.jpg", "other/twice.png", "picture.TIF", "moving.gif", "a.gif"):
        shutil.copy(image, tmp_path / name)
    (tmp_path / "huge.jpg").write_bytes(image.read_bytes() + bytes(100_000))
    images = find_images(spark, str(tmp_path), max_file_mb=0.1)
    assert sorted(
        (row["path"].split("/")[-1], row["reason"]) for row in images.files_df.collect() if row["reason"]
    ) == [
        ("a.gif", "unsupported format .gif"),
        ("huge.jpg", "file larger than 0.1 MB"),
        ("moving.gif", "unsupported format .gif"),
        ("picture.TIF", "unsupported format .tif"),
        ("twice.jpg", "same id as another file: 2 have it"),
        ("twice.png", "same id as another file: 2 have it"),
    ]
    assert list(read_all(spark, images)) == ["a"]


def test_single_files_are_read_by_their_names_whatever_those_mean_to_spark(spark: SparkSession, tmp_path: Path) -> None:
    names = ["a?[1]", "ab1", "{x,y}", "x", "gone", *(f"other {number}" for number in range(8))]
    for name in names:
        (tmp_path / f"{name}.jpg").write_text(name)
    images = find_images(spark, str(tmp_path))
    (tmp_path / "gone.jpg").unlink()
    for wanted in (["a?[1]", "{x,y}", "gone"], ["gone"]):
        with images_read(spark, images, images.files_df.where(F.col("galaxy_id").isin(wanted)), 2) as content_df:
            read = {row["galaxy_id"]: bytes(row["content"]).decode() for row in content_df.collect()}
        assert read == {name: name for name in wanted if name != "gone"}


def test_a_file_that_goes_after_it_was_listed_has_no_row(spark: SparkSession, galaxies, tmp_path: Path) -> None:
    for number, image in enumerate(list(galaxies.images.iterdir())[:3]):
        shutil.copy(image, tmp_path / f"{number}.jpg")
    images = find_images(spark, str(tmp_path))
    (tmp_path / "1.jpg").unlink()
    assert set(read_all(spark, images)) == {"0", "2"}


def test_a_path_that_spark_cannot_read_is_one_message(spark: SparkSession) -> None:
    with pytest.raises(UserError, match=r"^--images s3x://bucket/images: Spark cannot read it: [^\n]+$"):
        find_images(spark, "s3x://bucket/images")


def test_unusable_folders_are_refused_by_flag(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--images .*nowhere: no such folder"):
        find_images(spark, str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"--new-images .*: no .jpg, .jpeg, .png, .fits files there"):
        find_images(spark, str(tmp_path), flag="--new-images")
