"""The catalogue of new images, three of them broken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from galaxyspark.classify.svm import load_svm
from galaxyspark.features.inference import Classifier
from galaxyspark.network.model import load_card, load_weights
from galaxyspark.views.augment import make_views


@pytest.fixture(scope="module")
def catalogue_pdf(finished_run: Path) -> pd.DataFrame:
    return pd.read_csv(finished_run / "catalogue.csv", dtype={"galaxy_id": str}).set_index("galaxy_id")


def test_one_row_an_image(catalogue_pdf: pd.DataFrame, galaxies, finished_run: Path) -> None:
    assert sorted(catalogue_pdf.index) == sorted(file.stem for file in galaxies.unlabelled.iterdir())
    counts = json.loads((finished_run / "manifests" / "predict.json").read_text())["counts"]
    assert counts == {"images": 9, "classified": 6, "quarantined": 3}


def test_broken_images_have_a_reason_and_nothing_else(catalogue_pdf: pd.DataFrame) -> None:
    broken_pdf = catalogue_pdf[catalogue_pdf["quarantine_reason"].notna()]
    assert broken_pdf["quarantine_reason"].to_dict() == {
        "cut off": "truncated image: no end marker",
        "empty": "empty file",
        "<b>text": "not a JPEG, PNG or FITS image",
    }
    assert broken_pdf.drop(columns=["quarantine_reason", "path"]).isna().all(axis=None)


def test_probabilities_are_the_mean_over_the_views(catalogue_pdf: pd.DataFrame, galaxies, finished_run: Path) -> None:
    card = load_card(finished_run / "model")
    classifier = Classifier(card, load_weights(finished_run / "model"), num_threads=1)
    svm = load_svm(finished_run / "classifiers" / "svm.skops")
    columns = [f"probability_{name}" for name in card.classes]
    for galaxy_id, row in catalogue_pdf[catalogue_pdf["quarantine_reason"].isna()].iterrows():
        views = make_views((galaxies.unlabelled / f"{galaxy_id}.jpg").read_bytes(), galaxy_id, card.recipe, range(2))
        expected = classifier.infer(views).probabilities.mean(axis=0)
        np.testing.assert_allclose(row[columns].astype(float), expected, atol=0.02)
        assert row["class_cnn"] == card.classes[int(row[columns].astype(float).argmax())]
        inference = classifier.infer(views)
        [by_svm] = svm.predict(inference.features.mean(axis=0, keepdims=True))
        assert row["class_svm"] == card.classes[by_svm]


def test_csv_and_parquet_say_the_same(catalogue_pdf: pd.DataFrame, finished_run: Path) -> None:
    parquet_pdf = pd.read_parquet(finished_run / "catalogue").set_index("galaxy_id").loc[catalogue_pdf.index]
    assert list(parquet_pdf.columns) == list(catalogue_pdf.columns)
    numbers = parquet_pdf.select_dtypes("number").columns
    np.testing.assert_allclose(parquet_pdf[numbers], catalogue_pdf[numbers], rtol=1e-6)
    for column in catalogue_pdf.columns.difference(numbers):
        assert parquet_pdf[column].fillna("").tolist() == catalogue_pdf[column].fillna("").tolist()
