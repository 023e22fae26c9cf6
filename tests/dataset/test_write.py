"""The dataset of views: complete, readable by everyone's tools, and the same bytes however it was made."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import shutil
import struct
import warnings
import zlib
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from petastorm import make_batch_reader, make_reader
from PIL import Image
from pydantic import TypeAdapter
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from galaxyspark.dataset.images import find_images, images_read
from galaxyspark.dataset.labels import read_labels
from galaxyspark.dataset.schema import views_schema
from galaxyspark.dataset.write import augment, make_views_df, row_group_mb, sample_of_training, with_labels
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.splits import SPLITS, SplitRule
from galaxyspark.run_directory import RunDirectory
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
    rule = SplitRule(SPLIT_FRACTIONS)
    assert all(splits["first"][galaxy_id] == rule.split_of(galaxy_id, "any class") for galaxy_id in images)
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
    recipe = TypeAdapter(ViewRecipe).validate_python(manifest["recipe"])
    labels = read_labels(spark, str(galaxies.labels))
    images = find_images(spark, str(galaxies.images))
    schema = views_schema(recipe.size_px, recipe.jpeg_quality)
    with images_read(spark, images, with_labels(images, labels), 60) as content_df:
        content_df = content_df.repartition(7, F.xxhash64("path"))
        again_df = make_views_df(content_df, schema, recipe, SplitRule(SPLIT_FRACTIONS))
        again = {(row[0], row[1]): bytes(row[2]) for row in again_df.select("galaxy_id", "view", "image").collect()}
    assert again == {(row.galaxy_id, row.view): row.image for row in views_pdf.itertuples()}
    some_id = views_pdf["galaxy_id"].iloc[0]
    outside_spark = make_views((galaxies.images / f"{some_id}.jpg").read_bytes(), some_id, recipe)
    assert outside_spark == [again[some_id, view] for view in range(16)]


def test_everyones_tools_read_the_same_rows(spark: SparkSession, augmented_run: Path, manifest, views_pdf) -> None:
    expected = {(row.galaxy_id, row.view): (row.split, row.image) for row in views_pdf.itertuples()}
    query = f"SELECT galaxy_id, view, split, image FROM read_parquet('{augmented_run}/views/*/*.parquet')"
    by_duckdb = {(row[0], row[1]): (row[2], row[3]) for row in duckdb.sql(query).fetchall()}
    assert by_duckdb == expected
    views_df = spark.read.parquet(str(augmented_run / "views")).select("galaxy_id", "view", "split", "image")
    assert {(row[0], row[1]): (row[2], bytes(row[3])) for row in views_df.collect()} == expected
    by_petastorm = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Its reader of one epoch now and then leaves out the last row group; without end it reads them all.
        with make_batch_reader(f"file://{augmented_run}/views", num_epochs=None, workers_count=1) as reader:
            num_row_groups = sum(files["row_groups"] for files in manifest["files"].values())
            for rows in islice(reader, num_row_groups):
                columns = (rows.galaxy_id, rows.view, rows.split, rows.image)
                by_petastorm |= {(key[0], key[1]): (key[2], key[3]) for key in zip(*columns, strict=True)}
    assert by_petastorm == expected


def test_row_groups_are_enough_and_described(augmented_run: Path, manifest: dict) -> None:
    for split, described in manifest["files"].items():
        files = sorted((augmented_run / "views" / f"split={split}").glob("*.parquet"))
        footers = [pq.read_metadata(file) for file in files]
        sizes = [f.row_group(n).total_byte_size / 2**20 for f in footers for n in range(f.num_row_groups)]
        assert described["files"] == len(files)
        assert described["bytes"] == sum(file.stat().st_size for file in files)
        assert described["row_groups"] == len(sizes)
        assert described["row_group_mb"]["max"] == pytest.approx(max(sizes), abs=0.01)


@pytest.mark.parametrize(
    ("num_images", "size_px", "largest", "expected"),
    [(61_578, 224, 32, 32), (61_578, 224, 64, 64), (61_578, 64, 32, 24), (1000, 64, 32, 1), (4096, 224, 32, 20)],
)
def test_row_groups_are_smaller_where_there_would_be_few(num_images, size_px, largest, expected) -> None:
    assert row_group_mb(num_images, size_px, largest) == expected


def test_views_of_a_galaxy_lie_apart(views_pdf: pd.DataFrame, augmented_run: Path) -> None:
    """As far as there are galaxies: with G of them in a file's split, any G rows in a row are of G galaxies."""
    for file in (augmented_run / "views").glob("*/*.parquet"):
        galaxy_ids = pd.read_parquet(file, columns=["galaxy_id"])["galaxy_id"].tolist()
        num_galaxies = len(set(galaxy_ids))
        for start in range(len(galaxy_ids) - num_galaxies + 1):
            assert len(set(galaxy_ids[start : start + num_galaxies])) == num_galaxies


def test_class_shares_are_those_of_a_recount(views_pdf: pd.DataFrame, manifest: dict) -> None:
    galaxies_pdf = views_pdf[views_pdf["view"] == 0]
    for split, shares in manifest["class_shares"].items():
        of_split = galaxies_pdf if split == "all" else galaxies_pdf[galaxies_pdf["split"] == split]
        counted = of_split["label"].value_counts(normalize=True).to_dict()
        assert shares == pytest.approx(dict.fromkeys(manifest["classes"], 0.0) | counted)


def broken_images(images: Path) -> dict[str, str]:
    """Break one image in every way that quarantine knows; returns file name -> reason."""
    files = iter(sorted(images.iterdir()))
    reasons = {}

    def broken(name: str, content: bytes, reason: str) -> None:
        file = next(files)
        file.write_bytes(content)
        new = file.with_name(name.format(file.stem))
        file.rename(new)
        reasons[new.name] = reason

    sound = next(files).read_bytes()
    broken("{}.jpg", b"", "empty file")
    broken("{}.jpg", b"GIF89a, or so", "not a JPEG, PNG or FITS image")
    broken("{}.jpg", sound[:-200], "truncated image: no end marker")
    broken("{}.tif", sound, "unsupported format .tif")
    broken("{}.jpg", bytes(40_000), "file larger than 0.03 MB")
    stream = io.BytesIO()
    Image.new("RGB", (33_000, 2)).save(stream, "PNG")
    broken("{}.png", stream.getvalue(), "image larger than 32766 px on a side")
    broken("{}.png", png_header(9_000, 9_000), "image larger than 64 megapixels")
    stream = io.BytesIO()
    Image.new("CMYK", (30, 30)).save(stream, "JPEG")
    broken("{}.jpg", stream.getvalue(), "CMYK image: its colours depend on the printer it was made for")
    stream = io.BytesIO()
    Image.new("RGBA", (30, 30), (1, 2, 3, 4)).save(stream, "PNG")
    broken("{}.png", stream.getvalue(), "image with transparent pixels")
    broken("{}.fits", b"SIMPLE  =                    T", "FITS image cannot be decoded, or is cut off")
    file = next(files)
    (images / "copy").mkdir()
    shutil.copy(file, images / "copy" / file.name)
    return reasons | {file.name: "same id as another file: 2 have it"}


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start, end = b"\x89PNG\r\n\x1a\n\0\0\0\x0d", b"\0\0\0\0IEND\xaeB`\x82"
    return start + header + struct.pack(">I", zlib.crc32(header)) + end


def test_what_cannot_be_used_is_quarantined_and_nothing_is_lost(spark: SparkSession, galaxies, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(galaxies.images, images)
    expected = broken_images(images)
    (images / "notes.txt").write_text("not an image")
    cut, bad_vote, violating, without_label, wrong_ending, healthy = sorted(images.glob("*.jpg"))[-6:]
    old_cut, old_healthy = cut.stem, healthy.stem
    cut.write_bytes(cut.read_bytes()[:-200])
    # What its content says counts, not its ending.
    wrong_ending.rename(wrong_ending.with_suffix(".png"))
    # A file that is no use beside a sound one of the same id is a file all the same.
    (images / f"{wrong_ending.stem}.gif").write_bytes(b"GIF89a")
    votes_pdf = pd.read_csv(galaxies.labels, dtype=str)
    votes_pdf.loc[votes_pdf["GalaxyID"] == bad_vote.stem, "Class2.1"] = "-1"
    of_violating = votes_pdf["GalaxyID"] == violating.stem
    votes_pdf.loc[of_violating, ["Class1.1", "Class1.2", "Class1.3"]] = ["0.5", "0.5", "0.5"]
    votes_pdf = votes_pdf[votes_pdf["GalaxyID"] != without_label.stem]
    # Names that mean a pattern to Spark: the broken one must not bring the healthy one along.
    cut, healthy = cut.rename(images / "a?[1].jpg"), healthy.rename(images / "ab1.jpg")
    votes_pdf["GalaxyID"] = votes_pdf["GalaxyID"].replace({old_cut: cut.stem, old_healthy: healthy.stem})
    votes_pdf.to_csv(tmp_path / "labels.csv", index=False)
    expected |= {
        f"{wrong_ending.stem}.gif": "unsupported format .gif",
        cut.name: "truncated image: no end marker",
        bad_vote.name: "votes: Class2.1 is not a number from 0 to 1",
        violating.name: "votes: answers to question 1 add up to 1.5000, but the share asked it is 1.0000",
        without_label.name: "no label",
    }

    settings = AugmentSettings(view_size_px=32, split_fractions=SPLIT_FRACTIONS, max_file_mb=0.03)
    job = AugmentJob(run=tmp_path / "run", images=str(images), labels=str(tmp_path / "labels.csv"), augment=settings)
    with pytest.raises(UserError, match=without_label.stem):
        augment(spark, job)
    assert not (tmp_path / "run").exists()

    settings = dataclasses.replace(settings, allow_unmatched=True)
    manifest = augment(spark, dataclasses.replace(job, augment=settings))
    counts = manifest["counts"]
    quarantine_pdf = pd.read_parquet(tmp_path / "run" / "quarantine")
    reasons = dict(zip(quarantine_pdf["path"].str.split("/").str[-1], quarantine_pdf["reason"], strict=True))
    assert reasons == expected
    quarantine_pdf = quarantine_pdf.set_index("path")
    assert quarantine_pdf["size"][f"file:{cut}"] == cut.stat().st_size
    written = set(pd.read_parquet(tmp_path / "run" / "views", columns=["galaxy_id"])["galaxy_id"])
    assert written & set(quarantine_pdf["galaxy_id"]) == {wrong_ending.stem}
    assert written | set(quarantine_pdf["galaxy_id"]) == {
        file.stem for file in images.rglob("*") if file.is_file() and file.name != "notes.txt"
    }
    # The file that is there twice is one image more, and so is the one beside a sound one.
    assert (counts["images"], counts["galaxies"], counts["quarantined"]) == (62, 62 - 17, 17)
    assert manifest["quarantined_by_reason"] == quarantine_pdf["reason"].value_counts().to_dict()
    assert manifest["other_files"] == 1

    # The one without a label is not counted: --allow-unmatched has allowed it.
    too_many = dataclasses.replace(settings, max_quarantined=15 / 62)
    with pytest.raises(UserError, match=r"16 of 62 images cannot be used, more than --max-quarantined.*\n  2  same id"):
        augment(spark, dataclasses.replace(job, seed=2, augment=too_many))
    assert RunDirectory(tmp_path / "run").manifest("augment")["id"] == manifest["id"]


def test_the_clean_rule_leaves_galaxies_out_and_lists_them(spark: SparkSession, galaxies, tmp_path: Path) -> None:
    votes_pdf = pd.read_csv(galaxies.labels, dtype={"GalaxyID": str}).set_index("GalaxyID")
    agreement = votes_pdf[["Class1.1", "Class1.2", "Class1.3"]].max(axis=1)
    unclear = set(agreement[agreement < 0.7].index)
    # They do not count as broken: --max-quarantined is for those.
    settings = AugmentSettings(
        view_size_px=32, split_fractions=SPLIT_FRACTIONS, label_rule="clean", min_agreement=0.7, max_quarantined=0.0
    )
    job = AugmentJob(run=tmp_path, images=str(galaxies.images), labels=str(galaxies.labels), augment=settings)
    counts = augment(spark, job)["counts"]
    assert 0 < counts["left_out"] == counts["quarantined"] == len(unclear) == 60 - counts["galaxies"]
    quarantine_pdf = pd.read_parquet(tmp_path / "quarantine")
    assert set(quarantine_pdf["galaxy_id"]) == unclear
    assert set(quarantine_pdf["reason"]) == {"left out: agreement below 0.7"}


def test_another_split_seed_splits_anew_and_draws_colours_from_its_own_training_galaxies(
    spark: SparkSession, galaxies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = []

    def sample(*arguments: Any) -> list[str]:
        samples.append(sample_of_training(*arguments))
        return samples[-1]

    monkeypatch.setattr("galaxyspark.dataset.write.sample_of_training", sample)
    settings = AugmentSettings(view_size_px=32, split_fractions=SPLIT_FRACTIONS, split_seed=3)
    job = AugmentJob(run=tmp_path, images=str(galaxies.images), labels=str(galaxies.labels), augment=settings)
    counts = augment(spark, job)["counts"]
    split = pd.read_parquet(tmp_path / "views", columns=["galaxy_id", "split"]).set_index("galaxy_id")["split"]
    rule = SplitRule(SPLIT_FRACTIONS, seed=3)
    assert all(of_view == rule.split_of(galaxy_id, "any class") for galaxy_id, of_view in split.items())
    assert {rule.split_of(galaxy_id, "any class") for galaxy_id in samples[0]} == {"train"}
    assert 16 * len(samples[0]) == counts["views"]["train"]


def test_strata_give_each_class_its_shares(spark: SparkSession, galaxies, tmp_path: Path) -> None:
    settings = AugmentSettings(view_size_px=32, split_fractions=SPLIT_FRACTIONS, stratify=True)
    job = AugmentJob(run=tmp_path, images=str(galaxies.images), labels=str(galaxies.labels), augment=settings)
    augment(spark, job)
    manifest = json.loads((tmp_path / "manifests" / "augment.json").read_text())
    views_pdf = pd.read_parquet(tmp_path / "views", columns=["galaxy_id", "label", "split"]).drop_duplicates()
    assert len(views_pdf) == 60
    found = views_pdf.groupby(["label", "split"], observed=True).size()
    for label, count in views_pdf["label"].value_counts().items():
        counts = {split: found.get((label, split), 0) for split in SPLITS}
        assert {split: manifest["galaxies_by_class"][split].get(label, 0) for split in SPLITS} == counts
        if count > 5:  # of fewer, each split has one before shares are looked at
            train, validation = math.ceil(0.6 * count), math.ceil(0.8 * count) - math.ceil(0.6 * count)
            assert counts == {"train": train, "validation": validation, "test": count - train - validation}
    assert views_pdf["label"].value_counts().max() > 5
    rule = TypeAdapter(SplitRule).validate_python(manifest["split"])
    assert all(rule.split_of(row.galaxy_id, row.label) == row.split for row in views_pdf.itertuples())


def test_fits_images_become_views_too(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    y, x = np.mgrid[:64, :64]
    for number in range(40):
        light = 200 * np.exp(-((x - 32) ** 2 + (y - 32) ** 2) / (20 + number))
        plane = np.random.default_rng(number).normal(light, 1).astype(np.float32)
        fits.PrimaryHDU(np.stack([plane] * 3)).writeto(tmp_path / "images" / f"{number}.fits")
    rows = "".join(f"{number},{'large' if number > 20 else 'small'}\n" for number in range(40))
    (tmp_path / "labels.csv").write_text("GalaxyID,label\n" + rows)
    settings = AugmentSettings(view_size_px=32, split_fractions=SPLIT_FRACTIONS, fits_scale=50.0, preview=True)
    job = AugmentJob(
        run=tmp_path / "run", images=str(tmp_path / "images"), labels=str(tmp_path / "labels.csv"), augment=settings
    )
    manifest = augment(spark, job)
    assert manifest["counts"]["views"]["train"] % 16 == 0
    assert sum(manifest["counts"]["views"].values()) == 640
    assert manifest["recipe"]["reading"]["fits_scale"] == 50.0
    views_pdf = pd.read_parquet(tmp_path / "run" / "views", filters=[("view", "=", 0)])
    for view in views_pdf["image"]:
        pixels = np.asarray(Image.open(io.BytesIO(view)))
        assert pixels[16, 16].min() > 120 > 60 > pixels[0, 0].max()
    preview = Image.open(tmp_path / "run" / "preview.png")
    assert preview.width > preview.height > 500


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
    total = find_images(spark, str(galaxies.images)).files_df.agg(F.sum("length")).collect()[0][0]
    assert total == sum(file.stat().st_size for file in galaxies.images.iterdir())
