"""Labels as users hand them in, good and bad, and the class that a rule makes of votes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from galaxyspark.dataset.images import find_images
from galaxyspark.dataset.labels import Labels, check_match, read_labels
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.tree import QUESTIONS, VOTE_COLUMNS
from galaxyspark.settings import AugmentSettings

CLASSES = ("smooth", "featured", "artifact")


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


def some_votes() -> pd.DataFrame:
    """Six galaxies that obey the tree, worked by hand: everyone who is asked a question gives its first answer."""
    rows = []
    for smooth, featured in ((0.7, 0.2), (0.2, 0.7), (0.05, 0.05), (0.45, 0.45), (0.5, 0.3), (0.3, 0.5)):
        votes = dict.fromkeys(VOTE_COLUMNS, 0.0)
        votes |= {"Class1.1": smooth, "Class1.2": featured, "Class1.3": round(1 - smooth - featured, 6)}
        votes |= {"Class6.1": 1.0, "Class8.1": 1.0, "Class7.1": smooth, "Class2.1": featured, "Class9.1": featured}
        rows.append({"GalaxyID": str(len(rows) + 1)} | votes)
    return pd.DataFrame(rows)


def written(votes_pdf: pd.DataFrame, directory: Path) -> str:
    votes_pdf.to_csv(directory / "votes.csv", index=False)
    return str(directory / "votes.csv")


def labels_and_reasons(labels: Labels) -> tuple[dict[str, str], dict[str, str]]:
    label_of = {row["galaxy_id"]: row["label"] for row in labels.galaxies_df.collect()}
    return label_of, {row["galaxy_id"]: row["reason"] for row in labels.unusable_df.collect()}


def test_the_rule_makes_the_class(spark: SparkSession, tmp_path: Path) -> None:
    votes = written(some_votes(), tmp_path)  # artifact: 0.1, 0.1, 0.9, 0.1, 0.2, 0.2
    argmax = {"1": "smooth", "2": "featured", "3": "artifact", "4": "smooth", "5": "smooth", "6": "featured"}
    assert labels_and_reasons(read_labels(spark, votes)) == (argmax, {})

    threshold = AugmentSettings(label_rule="threshold", artifact_threshold=0.2)
    expected = argmax | {"5": "artifact", "6": "artifact"}
    assert labels_and_reasons(read_labels(spark, votes, threshold)) == (expected, {})
    # Above any share that is there, even the commonest answer is none.
    threshold = AugmentSettings(label_rule="threshold", artifact_threshold=0.95)
    assert labels_and_reasons(read_labels(spark, votes, threshold))[0] == argmax | {"3": "smooth"}

    clean = AugmentSettings(label_rule="clean", min_agreement=0.7)
    kept, left_out = labels_and_reasons(read_labels(spark, votes, clean))
    assert kept == {galaxy_id: argmax[galaxy_id] for galaxy_id in ("1", "2", "3")}
    assert left_out == dict.fromkeys(("4", "5", "6"), "left out: agreement below 0.7")


def test_the_rule_does_not_touch_hard_labels(spark: SparkSession, tmp_path: Path) -> None:
    file = write_csv(tmp_path, "GalaxyID,label\n1,smooth\n2,artifact\n")
    for rule in ("argmax", "threshold", "clean"):
        labels = read_labels(spark, file, AugmentSettings(label_rule=rule))
        assert labels_and_reasons(labels) == ({"1": "smooth", "2": "artifact"}, {})


@pytest.mark.parametrize("number", range(1, 12))
def test_votes_that_violate_the_tree_are_set_aside_with_the_question(
    spark: SparkSession, tmp_path: Path, number: int
) -> None:
    question = QUESTIONS[number - 1]
    votes_pdf = some_votes()
    votes_pdf.loc[1, question.columns[-1]] += 0.05
    votes_pdf.loc[2, question.columns[-1]] += 0.009  # as coarse rounding does
    kept, reasons = labels_and_reasons(read_labels(spark, written(votes_pdf, tmp_path)))
    assert set(kept) == {"1", "3", "4", "5", "6"}
    given = votes_pdf.loc[1, list(question.columns)].sum()
    asked = votes_pdf.loc[1, list(question.asked_after)].sum() if question.asked_after else 1.0
    # A vote too many can violate a question that was asked before; only then is that one named first.
    if number not in (1, 2, 3, 4, 6):
        text = f"votes: answers to question {number} add up to {given:.4f}, but the share asked it is {asked:.4f}"
        assert reasons == {"2": text}
    assert list(reasons) == ["2"]
    tolerant = AugmentSettings(vote_tolerance=0.2)
    assert len(labels_and_reasons(read_labels(spark, written(votes_pdf, tmp_path), tolerant))[0]) == 6


@pytest.mark.parametrize("value", ["NaN", "nan", "inf", "-0.001", "1.001", "", "many", "0,5"])
def test_a_vote_that_is_no_share_is_set_aside(spark: SparkSession, tmp_path: Path, value: str) -> None:
    votes_pdf = some_votes().astype(str)
    votes_pdf.loc[3, "Class11.2"] = value
    _, reasons = labels_and_reasons(read_labels(spark, written(votes_pdf, tmp_path)))
    assert reasons == {"4": "votes: Class11.2 is not a number from 0 to 1"}


def test_rows_that_are_ragged_repeated_or_not_utf8_are_set_aside(spark: SparkSession, tmp_path: Path) -> None:
    rows = [
        "GalaxyID,label",
        "1,smooth",
        "2,featured",
        "3,smooth,featured",
        "4",
        "5,smooth",
        "5,smooth",
        "6,sm\xf6\xf6th",
    ]
    (tmp_path / "labels.csv").write_bytes("\n".join(rows).encode("latin-1"))
    kept, reasons = labels_and_reasons(read_labels(spark, str(tmp_path / "labels.csv")))
    assert kept == {"1": "smooth", "2": "featured"}
    assert reasons == {
        "3": "labels: row has more or fewer fields than the header",
        "4": "labels: row has more or fewer fields than the header",
        "5": "labels: 2 rows have this id",
        "6": "labels: row is not text in UTF-8",
    }


def test_a_file_of_votes_with_one_ragged_row_loses_that_row_only(spark: SparkSession, tmp_path: Path) -> None:
    file = Path(written(some_votes(), tmp_path))
    lines = file.read_text().splitlines()
    lines[2] = ",".join(lines[2].split(",")[:-3])
    lines[4] += ",0.5"
    file.write_text("\n".join(lines))
    kept, reasons = labels_and_reasons(read_labels(spark, str(file)))
    assert set(kept) == {"1", "3", "5", "6"}
    assert reasons == dict.fromkeys(("2", "4"), "labels: row has more or fewer fields than the header")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_a_file_in_another_encoding_is_refused_with_a_hint(spark: SparkSession, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "labels.csv").write_bytes("GalaxyID,label\n1,smooth\n2,featured\n".encode(encoding))
    with pytest.raises(UserError, match="no column GalaxyID.* Is it CSV in UTF-8?"):
        read_labels(spark, str(tmp_path / "labels.csv"))


def test_a_byte_order_mark_does_no_harm(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("GalaxyID,label\n1,smooth\n2,featured\n".encode("utf-8-sig"))
    assert labels_and_reasons(read_labels(spark, str(tmp_path / "labels.csv")))[0] == {"1": "smooth", "2": "featured"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\n1,smooth\n2,featured\n", "no column GalaxyID; its header has id, label"),
        ("GalaxyID,shape\n1,smooth\n", r"neither format.*a column label; the header has GalaxyID, shape"),
        ("GalaxyID,Class1.1,Class1.2\n1,0.5,0.5\n", r"missing: Class1.3, Class2.1, Class2.2"),
        ("", "empty"),
        ("GalaxyID,label\n1,smooth\n1,featured\n", "no row can be used, most of them for: labels: 2 rows have this id"),
        ("GalaxyID,label\n", "no row can be used"),
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


def test_missing_labels_file(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--labels .*nowhere.csv: no such file"):
        read_labels(spark, str(tmp_path / "nowhere.csv"))


def test_what_does_not_match_is_counted_and_named(spark: SparkSession, galaxies, tmp_path: Path) -> None:
    image = next(galaxies.images.iterdir())
    for name in ("1", "2", "3"):
        shutil.copy(image, tmp_path / f"{name}.jpg")
    files_df = find_images(spark, str(tmp_path)).files_df
    few = write_csv(tmp_path, "GalaxyID,label\n1,smooth\n2,featured\n")
    with pytest.raises(
        UserError, match=r"Images without a row in --labels .*, column GalaxyID: 1, such as 3\. .*--allow"
    ):
        check_match(files_df, read_labels(spark, few), str(tmp_path), few)
    (tmp_path / "other").mkdir()
    many = write_csv(tmp_path / "other", "GalaxyID,label\n1,smooth\n2,featured\n3,smooth\n4,smooth\n")
    with pytest.raises(UserError, match=r"Rows without an image in --images .*: 1, such as 4\. .*--allow"):
        check_match(files_df, read_labels(spark, many), str(tmp_path), many)
