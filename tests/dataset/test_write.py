"""The dataset of views: complete, readable by everyone's tools, and the same bytes however it was made."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from petastorm import make_reader
from PIL import Image
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from galaxyspark.dataset.inputs import find_images, read_images, read_labels
from galaxyspark.dataset.schema import views_schema
from galaxyspark.dataset.write import augment, make_views_df
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.splits import split_of
from galaxyspark.settings import AugmentJob, AugmentSettings
from galaxyspark.views.augment import ViewRecipe, make_views

SPLIT_FRACTIONS = (0.6, 0.2, 0.2)

COLUMNS = ["galaxy_id", "view", "label", "split", "Class1_1", "Class11_6", "image"]


@pytest.fixture(scope="module")
def manifest(augmented_run: Path) -> dict:
    return json.loads((augmented_run / "manifests" / "augment.json").read_text())


@pytest.fixture(scope="module")
def views_pdf(augmented_run: Path) -> pd.DataFrame:
    """Read by pandas, which knows nothing of Spark or petastorm."""
    return pd.read_parquet(augmented_run / "views", columns=COLUMNS)


def test_every_galaxy_has_16_views_in_one_split(views_pdf: pd.DataFrame, galaxies, manifest: dict) -> None:
    images = {file.stem for file in galaxies.images.iterdir()}
    views_of = views_pdf.groupby("galaxy_id")["view"].agg(sorted)
    assert set(views_of.index) == images
    assert all(views == list(range(16)) for views in views_of)
    splits = views_pdf.groupby("galaxy_id")["split"].agg(["nunique", "first"])
    assert (splits["nunique"] == 1).all()
    assert all(splits["first"][galaxy_id] == split_of(galaxy_id, SPLIT_FRACTIONS) for galaxy_id in images)
    assert manifest["counts"]["views"] == views_pdf.groupby("split").size().to_dict()
    assert manifest["counts"]["images"] == 60 == manifest["counts"]["galaxies"]


def test_labels_and_votes_are_those_of_the_csv(views_pdf: pd.DataFrame, galaxies, manifest: dict) -> None:
    votes_pdf = pd.read_csv(galaxies.labels, dtype={"GalaxyID": str}).set_index("GalaxyID")
    of_view = votes_pdf.loc[views_pdf["galaxy_id"]]
    np.testing.assert_allclose(views_pdf["Class1_1"], of_view["Class1.1"], atol=1e-6)
    np.testing.assert_allclose(views_pdf["Class11_6"], of_view["Class11.6"], atol=1e-6)
    first = of_view[["Class1.1", "Class1.2", "Class1.3"]].to_numpy().argmax(axis=1)
    assert list(views_pdf["label"]) == [manifest["classes"][position] for position in first]


def test_petastorm_decodes_what_pillow_decodes(augmented_run: Path, views_pdf: pd.DataFrame) -> None:
    jpegs = views_pdf.set_index(["galaxy_id", "view"])["image"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = make_reader(f"file://{augmented_run}/views", workers_count=1, shuffle_row_groups=False)
        rows = [next(reader) for _ in range(20)]
        reader.stop()
        reader.join()
    for row in rows:
        expected = np.asarray(Image.open(io.BytesIO(jpegs[row.galaxy_id, row.view])), dtype=int)
        assert row.image.shape == (48, 48, 3) == expected.shape
        assert np.abs(row.image.astype(int) - expected).mean() < 1.0


def test_bytes_do_not_depend_on_partitioning(spark: SparkSession, galaxies, augmented_run, manifest, views_pdf) -> None:
    recipe = ViewRecipe(**manifest["recipe"])
    labels = read_labels(spark, str(galaxies.labels))
    content_df = read_images(spark, str(galaxies.images)).repartition(7, F.xxhash64("path"))
    schema = views_schema(recipe.size_px, recipe.jpeg_quality)
    again_df = make_views_df(content_df, labels.galaxies_df, schema, recipe, SPLIT_FRACTIONS)
    again = {(row[0], row[1]): bytes(row[2]) for row in again_df.select("galaxy_id", "view", "image").collect()}
    assert again == {(row.galaxy_id, row.view): row.image for row in views_pdf.itertuples()}
    some_id = views_pdf["galaxy_id"].iloc[0]
    outside_spark = make_views((galaxies.images / f"{some_id}.jpg").read_bytes(), some_id, recipe)
    assert outside_spark == [again[some_id, view] for view in range(16)]


def test_what_cannot_be_used_is_quarantined_and_nothing_is_lost(spark: SparkSession, galaxies, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(galaxies.images, images)
    cut, empty, text, bad_vote, without_label, wide, healthy = sorted(images.iterdir())[:7]
    old_cut, old_healthy = cut.stem, healthy.stem
    cut.write_bytes(cut.read_bytes()[:-200])
    Image.new("RGB", (33_000, 2)).save(wide)
    empty.write_bytes(b"")
    text.write_text("GIF89a, or so")
    votes_pdf = pd.read_csv(galaxies.labels, dtype=str)
    votes_pdf.loc[votes_pdf["GalaxyID"] == bad_vote.stem, "Class2.1"] = "-1"
    votes_pdf = votes_pdf[votes_pdf["GalaxyID"] != without_label.stem]
    # Names that mean a pattern to Spark: the broken one must not bring the healthy one along.
    cut, healthy = cut.rename(images / "a?[1].jpg"), healthy.rename(images / "ab1.jpg")
    votes_pdf["GalaxyID"] = votes_pdf["GalaxyID"].replace({old_cut: cut.stem, old_healthy: healthy.stem})
    votes_pdf.to_csv(tmp_path / "labels.csv", index=False)

    settings = AugmentSettings(view_size_px=32, split_fractions=SPLIT_FRACTIONS)
    job = AugmentJob(run=tmp_path / "run", images=str(images), labels=str(tmp_path / "labels.csv"), augment=settings)
    with pytest.raises(UserError, match=without_label.stem):
        augment(spark, job)
    assert not (tmp_path / "run").exists()

    job = dataclasses.replace(job, augment=dataclasses.replace(settings, allow_unmatched=True))
    counts = augment(spark, job)["counts"]
    quarantine_pdf = pd.read_parquet(tmp_path / "run" / "quarantine").set_index("galaxy_id")
    assert quarantine_pdf["reason"].to_dict() == {
        cut.stem: "truncated image: no end marker",
        empty.stem: "empty file",
        text.stem: "not a JPEG or PNG image",
        bad_vote.stem: "votes: Class2.1 is not a number from 0 to 1",
        without_label.stem: "no label",
        wide.stem: "image larger than 32766 px on a side",
    }
    assert quarantine_pdf["length"][cut.stem] == cut.stat().st_size
    assert quarantine_pdf["path"][cut.stem] == f"file:{cut}"
    written = set(pd.read_parquet(tmp_path / "run" / "views", columns=["galaxy_id"])["galaxy_id"])
    assert written | set(quarantine_pdf.index) == {file.stem for file in images.iterdir()}
    assert not written & set(quarantine_pdf.index)
    assert (counts["images"], counts["galaxies"], counts["quarantined"]) == (60, 54, 6)


def test_a_split_without_galaxies_is_refused_and_nothing_is_published(spark: SparkSession, galaxies, tmp_path) -> None:
    settings = AugmentSettings(view_size_px=32, split_fractions=(0.99998, 0.00001, 0.00001))
    job = AugmentJob(run=tmp_path, images=str(galaxies.images), labels=str(galaxies.labels), augment=settings)
    with pytest.raises(UserError, match="No galaxy of 60 fell into the validation split.*--split-fractions"):
        augment(spark, job)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_shares_that_do_not_add_up_are_refused(spark: SparkSession, galaxies, tmp_path: Path) -> None:
    settings = AugmentSettings(split_fractions=(0.9, 0.2, 0.1))
    job = AugmentJob(run=tmp_path, images=str(galaxies.images), labels=str(galaxies.labels), augment=settings)
    with pytest.raises(UserError, match="--split-fractions .*add up to 1"):
        augment(spark, job)


def test_listing_counts_bytes_without_reading(spark: SparkSession, galaxies) -> None:
    total = find_images(spark, str(galaxies.images)).agg(F.sum("length")).collect()[0][0]
    assert total == sum(file.stat().st_size for file in galaxies.images.iterdir())
