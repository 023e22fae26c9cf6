"""Images and labels as users hand them in, good and bad."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from galaxyspark.dataset.inputs import check_match, find_images, read_labels
from galaxyspark.errors import UserError


def write_csv(directory: Path, text: str) -> str:
    file = directory / "labels.csv"
    file.write_text(text)
    return str(file)


def test_votes_give_the_answer_with_most_of_them(spark: SparkSession, galaxies) -> None:
    labels = read_labels(spark, str(galaxies.labels))
    expected_pdf = pd.read_csv(galaxies.labels, dtype={"GalaxyID": str}).set_index("GalaxyID")
    first_question = expected_pdf[["Class1.1", "Class1.2", "Class1.3"]].to_numpy()
    expected = dict(zip(expected_pdf.index, first_question.argmax(axis=1), strict=True))
    rows = labels.galaxies_df.collect()
    assert {row["galaxy_id"]: labels.classes.index(row["label"]) for row in rows} == expected
    for row in rows[:5]:
        assert row["Class11_6"] == pytest.approx(expected_pdf.loc[row["galaxy_id"], "Class11.6"], abs=1e-6)


def test_hard_labels_pass_through_and_name_the_classes(spark: SparkSession, tmp_path: Path) -> None:
    labels = read_labels(spark, write_csv(tmp_path, "GalaxyID,label\n587722981742215240,ring\nJ1213+14,bar\n"))
    assert labels.classes == ("bar", "ring")
    assert {(row["galaxy_id"], row["label"], row["Class1_1"]) for row in labels.galaxies_df.collect()} == {
        ("587722981742215240", "ring", None),
        ("J1213+14", "bar", None),
    }


def test_labels_of_question_1_keep_its_order_even_when_one_is_absent(spark: SparkSession, tmp_path: Path) -> None:
    labels = read_labels(spark, write_csv(tmp_path, "GalaxyID,label\n1,smooth\n2,featured\n"))
    assert labels.classes == ("smooth", "featured", "artifact")


def test_rows_whose_votes_are_no_shares_are_set_aside_with_the_column(spark: SparkSession, galaxies, tmp_path) -> None:
    votes_pdf = pd.read_csv(galaxies.labels, dtype=str)
    votes_pdf.loc[0, "Class4.1"] = "many"
    votes_pdf.loc[1, "Class1.1"] = "1.5"
    votes_pdf.loc[2, "Class7.3"] = None
    votes_pdf.to_csv(tmp_path / "votes.csv", index=False)
    labels = read_labels(spark, str(tmp_path / "votes.csv"))
    reasons = {row["galaxy_id"]: row["reason"] for row in labels.unusable_df.collect()}
    expected = zip(votes_pdf["GalaxyID"][:3], ("Class4.1", "Class1.1", "Class7.3"), strict=True)
    assert reasons == {galaxy_id: f"votes: {column} is not a number from 0 to 1" for galaxy_id, column in expected}
    assert labels.galaxies_df.count() == len(votes_pdf) - 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\n1,smooth\n2,featured\n", "no column GalaxyID; its header has id, label"),
        ("GalaxyID,shape\n1,smooth\n", r"neither format.*a column label; the header has GalaxyID, shape"),
        ("GalaxyID,Class1.1,Class1.2\n1,0.5,0.5\n", r"missing: Class1.3, Class2.1, Class2.2"),
        ("", "empty"),
        ("GalaxyID,label\n1,smooth\n1,featured\n", "GalaxyID 1 stands in 2 rows"),
        ("GalaxyID,label\n1,smooth\n2,smooth\n", "all galaxies have the label smooth"),
        ("GalaxyID,label\n" + "".join(f"{i},{i}\n" for i in range(60)), "over 50 different values"),
        ("GalaxyID,label\n1,smooth\n,featured\n,\n", "1 rows have nothing in column GalaxyID"),
        ("GalaxyID,label\n1,SBa\n2,SBA\n", "label 'SB[aA]' cannot name a column of the catalogue"),
    ],
)
def test_unusable_labels_are_refused_by_name(spark: SparkSession, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"--labels .*labels.csv: .*{message}"):
        read_labels(spark, write_csv(tmp_path, text))


def test_labels_as_spreadsheets_write_them(spark: SparkSession, tmp_path: Path) -> None:
    """Windows newlines, doubled quotes, a row of nothing at the end."""
    text = 'GalaxyID,label\r\n"M 31, the ""great"" one",spiral\r\nM 32, elliptical\r\n,\r\n'
    rows = read_labels(spark, write_csv(tmp_path, text)).galaxies_df.collect()
    assert {(row["galaxy_id"], row["label"]) for row in rows} == {
        ('M 31, the "great" one', "spiral"),
        ("M 32", "elliptical"),
    }


def test_a_path_that_spark_cannot_read_is_one_message(spark: SparkSession) -> None:
    with pytest.raises(UserError, match=r"^--images s3x://bucket/images: Spark cannot read it: [^\n]+$"):
        find_images(spark, "s3x://bucket/images")


def test_missing_labels_file(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--labels .*nowhere.csv: no such file"):
        read_labels(spark, str(tmp_path / "nowhere.csv"))


def test_images_are_found_in_subfolders_and_empty_ones_are_not_lost(spark: SparkSession, galaxies, tmp_path) -> None:
    image = next(galaxies.images.iterdir())
    (tmp_path / "deep er").mkdir()
    for name in ("a.jpg", "deep er/b.c.png", "UPPER.JPG", "Mixed.JpEg"):
        shutil.copy(image, tmp_path / name)
    (tmp_path / "deep er" / "nothing at 100%.jpg").touch()
    (tmp_path / "notes.txt").write_text("not listed")
    rows = {row["galaxy_id"]: row for row in find_images(spark, str(tmp_path)).collect()}
    assert set(rows) == {"a", "b.c", "UPPER", "Mixed", "nothing at 100%"}
    assert rows["a"]["length"] == image.stat().st_size
    assert rows["nothing at 100%"]["length"] == 0
    assert rows["nothing at 100%"]["path"] == f"file:{tmp_path}/deep er/nothing at 100%.jpg"


def test_unusable_folders_are_refused_by_flag(spark: SparkSession, galaxies, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--images .*nowhere: no such folder"):
        find_images(spark, str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"--new-images .*: no .jpg, .jpeg or .png files there"):
        find_images(spark, str(tmp_path), flag="--new-images")
    image = next(galaxies.images.iterdir())
    shutil.copy(image, tmp_path / "a.jpg")
    shutil.copy(image, tmp_path / "a.png")
    with pytest.raises(UserError, match=r"two images have the id a: .*a.jpg and .*a.png"):
        find_images(spark, str(tmp_path))


def test_what_does_not_match_is_counted_and_named(spark: SparkSession, galaxies, tmp_path: Path) -> None:
    image = next(galaxies.images.iterdir())
    for name in ("1", "2", "3"):
        shutil.copy(image, tmp_path / f"{name}.jpg")
    images_df = find_images(spark, str(tmp_path))
    few = write_csv(tmp_path, "GalaxyID,label\n1,smooth\n2,featured\n")
    with pytest.raises(
        UserError, match=r"Images without a row in --labels .*, column GalaxyID: 1, such as 3\. .*--allow"
    ):
        check_match(images_df, read_labels(spark, few), str(tmp_path), few)
    (tmp_path / "other").mkdir()
    many = write_csv(tmp_path / "other", "GalaxyID,label\n1,smooth\n2,featured\n3,smooth\n4,smooth\n")
    with pytest.raises(UserError, match=r"Rows without an image in --images .*: 1, such as 4\. .*--allow"):
        check_match(images_df, read_labels(spark, many), str(tmp_path), many)
