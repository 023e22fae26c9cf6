"""The catalogue of new images, three of them broken, and what a rerun does on a grown folder."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from galaxyspark.classify.look import look
from galaxyspark.classify.predict import make_model, predict, with_class
from galaxyspark.classify.rows import NOT_FINITE, catalogue_rows
from galaxyspark.classify.saved import open_classifiers
from galaxyspark.errors import UserError
from galaxyspark.features.inference import Inference, infer
from galaxyspark.features.programs import make_program
from galaxyspark.galaxyzoo.tree import VOTE_FIELDS
from galaxyspark.network.card import load_card
from galaxyspark.network.model import load_weights
from galaxyspark.settings import InferenceSettings, PredictJob, PredictSettings
from galaxyspark.views.augment import make_views

NUM_VIEWS = 2


@pytest.fixture(scope="module")
def catalogue_pdf(finished_run: Path) -> pd.DataFrame:
    return pd.read_csv(finished_run / "catalogue.csv", dtype={"galaxy_id": str}).set_index("galaxy_id")


def test_one_row_an_image(catalogue_pdf: pd.DataFrame, galaxies, finished_run: Path) -> None:
    assert sorted(catalogue_pdf.index) == sorted(file.stem for file in galaxies.unlabelled.iterdir())
    counts = json.loads((finished_run / "manifests" / "predict.json").read_text())["counts"]
    expected = {"images": 9, "classified": 6, "quarantined": 3, "under_min_confidence": 0, "taken_over": 0}
    assert counts == expected | {"dropped": 0}


def test_broken_images_have_a_reason_and_nothing_else(catalogue_pdf: pd.DataFrame) -> None:
    broken_pdf = catalogue_pdf[catalogue_pdf["quarantine_reason"].notna()]
    assert broken_pdf["quarantine_reason"].to_dict() == {
        "cut off": "truncated image: no end marker",
        "empty": "empty file",
        "<b>text": "not a JPEG, PNG or FITS image",
    }
    assert broken_pdf.drop(columns=["quarantine_reason", "path"]).isna().all(axis=None)


def test_a_row_says_what_network_and_svm_say_of_the_views(
    catalogue_pdf: pd.DataFrame, galaxies, finished_run: Path
) -> None:
    card = load_card(finished_run / "model")
    runtime = make_program(card, load_weights(finished_run / "model"), "openvino", "bfloat16").load(num_threads=1)
    classifiers = open_classifiers(finished_run / "classifiers")
    svm, outlier_score = classifiers.classifier("svm"), classifiers.outlier_score()
    temperature = classifiers.card.network_temperature["mean16"]
    for galaxy_id, row in catalogue_pdf[catalogue_pdf["quarantine_reason"].isna()].iterrows():
        content = (galaxies.unlabelled / f"{galaxy_id}.jpg").read_bytes()
        inference = infer(runtime, make_views(content, galaxy_id, card.recipe, range(NUM_VIEWS)))
        powered = inference.probabilities.mean(axis=0) ** (1 / temperature)
        expected = powered / powered.sum()
        said = row[[f"probability_{name}" for name in card.classes]].astype(float).to_numpy()
        np.testing.assert_allclose(said, expected, atol=1e-4)
        assert row["class"] == row["class_cnn"] == card.classes[said.argmax()]
        assert row["entropy"] == pytest.approx(-sum(p * np.log2(p) for p in said if p > 0), abs=1e-5)
        assert row["agreement"] * NUM_VIEWS in range(NUM_VIEWS + 1)
        by_svm = svm.probabilities(inference.features[None])[0]
        said_by_svm = row[[f"svm_probability_{name}" for name in card.classes]].astype(float)
        np.testing.assert_allclose(said_by_svm, by_svm, atol=1e-4)
        assert row["class_svm"] == card.classes[int(said_by_svm.argmax())]
        assert row["outlier_score"] == pytest.approx(outlier_score(inference.features[:1])[0], rel=1e-3)


def test_all_formats_say_the_same(catalogue_pdf: pd.DataFrame, finished_run: Path) -> None:
    parquet_pdf = pd.read_parquet(finished_run / "catalogue").set_index("galaxy_id").loc[catalogue_pdf.index]
    assert [name for name in parquet_pdf if name not in ("features", "length", "modified")] == list(catalogue_pdf)
    numbers = catalogue_pdf.select_dtypes("number").columns
    np.testing.assert_allclose(parquet_pdf[numbers], catalogue_pdf[numbers], rtol=1e-6)
    for column in catalogue_pdf.columns.difference(numbers):
        assert parquet_pdf[column].fillna("").tolist() == catalogue_pdf[column].fillna("").tolist()
    for file in ("catalogue.fits", "catalogue.vot"):
        table = Table.read(finished_run / file)
        table.convert_bytestring_to_unicode()
        table_pdf = table.to_pandas().set_index("galaxy_id").loc[catalogue_pdf.index]
        np.testing.assert_allclose(table_pdf[numbers].astype(float), catalogue_pdf[numbers], rtol=1e-6)


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A run of its own with the same network and classifiers, and no catalogue."""
    root = tmp_path / "run"
    root.mkdir()
    for name in ("model", "classifiers"):
        (root / name).symlink_to(finished_run / name)
    shutil.copytree(finished_run / "manifests", root / "manifests")
    (root / "manifests" / "predict.json").unlink()
    return root


@pytest.fixture
def folder(galaxies, tmp_path: Path) -> Path:
    """Two images to classify."""
    directory = tmp_path / "new images"
    directory.mkdir()
    for file in sorted(galaxies.unlabelled.glob("[0-9]*.jpg"))[:2]:
        shutil.copy(file, directory)
    return directory


@pytest.fixture
def predict_again(spark, run: Path, folder: Path) -> Callable[..., dict]:
    def predict_again(**settings) -> dict:
        chosen = PredictSettings(**({"predict_views": 1, "formats": ("csv",)} | settings))
        predict(spark, PredictJob(run=run, new_images=str(folder), predict=chosen))
        return json.loads((run / "manifests" / "predict.json").read_text())["counts"]

    return predict_again


def test_a_grown_folder_costs_its_new_images_alone(
    predict_again: Callable[..., dict], run: Path, folder: Path, galaxies
) -> None:
    first, second = sorted(folder.iterdir())
    (folder / "broken.jpg").write_text("not an image")
    assert predict_again()["taken_over"] == 0
    before_pdf = pd.read_csv(run / "catalogue.csv", dtype={"galaxy_id": str}).set_index("galaxy_id")

    third = sorted(galaxies.unlabelled.glob("[0-9]*.jpg"))[2]
    shutil.copy(third, folder)
    second.unlink()
    counts = {"images": 3, "classified": 2, "quarantined": 1, "under_min_confidence": 0, "taken_over": 1, "dropped": 1}
    assert predict_again() == counts
    after_pdf = pd.read_csv(run / "catalogue.csv", dtype={"galaxy_id": str}).set_index("galaxy_id")
    assert sorted(after_pdf.index) == sorted([first.stem, third.stem, "broken"])
    pd.testing.assert_frame_equal(after_pdf.loc[[first.stem]], before_pdf.loc[[first.stem]])

    assert predict_again()["taken_over"] == 2
    os.utime(first, (1_000_000_000, 1_000_000_000))
    assert predict_again()["taken_over"] == 1
    assert predict_again(predict_views=2)["taken_over"] == 0


def test_packed_images_have_the_same_rows_and_a_new_shard_costs_its_own_images_alone(
    predict_again: Callable[..., dict], run: Path, folder: Path, galaxies
) -> None:
    predict_again()
    of_files_pdf = pd.read_csv(run / "catalogue.csv", dtype={"galaxy_id": str}).set_index("galaxy_id")
    files = sorted(folder.iterdir())
    rows = {"galaxy_id": [file.stem for file in files], "image": [file.read_bytes() for file in files]}
    for file in files:
        file.unlink()
    pd.DataFrame(rows).to_parquet(folder / "first.parquet")
    assert predict_again()["taken_over"] == 0
    packed_pdf = pd.read_csv(run / "catalogue.csv", dtype={"galaxy_id": str}).set_index("galaxy_id")
    pd.testing.assert_frame_equal(packed_pdf.drop(columns="path"), of_files_pdf.drop(columns="path"))
    assert packed_pdf["path"].tolist() == [f"file:{folder}/first.parquet/{file.stem}" for file in files]

    third = sorted(galaxies.unlabelled.glob("[0-9]*.jpg"))[2]
    with tarfile.open(folder / "second.tar", "w") as tar:
        tar.add(third, third.name)
    counts = predict_again()
    assert (counts["images"], counts["classified"], counts["taken_over"]) == (3, 3, 2)
    os.utime(folder / "first.parquet", (1_000_000_000, 1_000_000_000))
    assert predict_again()["taken_over"] == 1


def test_below_the_least_confidence_a_class_is_left_empty(predict_again: Callable[..., dict], run: Path) -> None:
    assert predict_again()["under_min_confidence"] == 0
    counts = predict_again(min_confidence=1.0)
    assert (counts["under_min_confidence"], counts["taken_over"]) == (2, 2)
    catalogue_pdf = pd.read_csv(run / "catalogue.csv")
    assert catalogue_pdf["class"].isna().all()
    assert catalogue_pdf["class_cnn"].notna().all()
    assert catalogue_pdf["agreement"].isna().all()  # of one view


@pytest.mark.parametrize(
    ("change", "message"),
    [({"classes": ("round", "flat")}, "made for the classes round, flat"), ({"model": "another"}, "another network")],
)
def test_classifiers_of_another_network_are_refused(finished_run: Path, change: dict, message: str) -> None:
    classifiers = open_classifiers(finished_run / "classifiers")
    trained = json.loads((finished_run / "manifests" / "train.json").read_text())["id"]
    card = load_card(finished_run / "model")
    make_model(card, classifiers, trained, PredictSettings())
    with pytest.raises(UserError, match=message):
        make_model(card, replace(classifiers, card=replace(classifiers.card, **change)), trained, PredictSettings())


def test_a_catalogue_with_neither_images_nor_question_is_refused(spark, run: Path) -> None:
    with pytest.raises(UserError, match="--new-images: which folder"):
        predict(spark, PredictJob(run=run, inference=InferenceSettings()))


@pytest.mark.parametrize(("question", "quantity"), [(["--odd", 3], "outlier score"), (["--like"], "similarity")])
def test_the_catalogue_answers_in_the_terminal(
    question: list, quantity: str, catalogue_pdf: pd.DataFrame, finished_run: Path, run_submit
) -> None:
    classified = catalogue_pdf.index[catalogue_pdf["class"].notna()]
    if question == ["--like"]:
        question = ["--like", classified[0]]
    completed = run_submit("predict", "--run", finished_run, *question)
    assert completed.returncode == 0, completed.stderr
    header, *lines = completed.stdout.strip().splitlines()
    assert quantity in header
    assert len(lines) == {"outlier score": 3, "similarity": len(classified) - 1}[quantity]
    assert {line.split()[0] for line in lines} <= set(classified)


@pytest.mark.parametrize(
    ("flags", "message"),
    [({"like": "1", "odd": 2}, "one of them"), ({"odd": 2, "new_images": "sky"}, "without --new-images")],
)
def test_one_question_at_a_time(finished_run: Path, flags: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        look(PredictJob(run=finished_run, **flags))


def test_a_catalogue_of_another_network_is_not_asked(run: Path, predict_again: Callable[..., dict]) -> None:
    predict_again()
    assert len(look(PredictJob(run=run, odd=1))) == 2
    manifest = run / "manifests" / "classify.json"
    manifest.write_text(manifest.read_text().replace('"id": "', '"id": "another '))
    with pytest.raises(UserError, match="stage 'classify' was run again after 'predict'"):
        look(PredictJob(run=run, odd=1))


def test_any_name_of_a_class_and_votes_and_numbers_that_are_none(finished_run: Path, galaxies, spark) -> None:
    """Rows of a network with a class whose name means something to SQL, and that fails on the second image."""
    card = load_card(finished_run / "model")
    classifiers = open_classifiers(finished_run / "classifiers")
    trained = json.loads((finished_run / "manifests" / "train.json").read_text())["id"]
    model = make_model(card, classifiers, trained, PredictSettings(predict_views=2))
    model = replace(model, classes=("0.5", "a b", "é"), with_votes=True)
    num_features = classifiers.card.num_features
    features = np.random.default_rng(1).random((4, num_features), np.float32)
    features[3, 7] = np.nan
    votes = np.tile(np.arange(37, dtype=np.float32), (4, 1))
    inference = Inference(features, np.tile(np.float32([[0.2, 0.7, 0.1]]), (4, 1)), votes)
    content = next(galaxies.unlabelled.glob("[0-9]*.jpg")).read_bytes()
    columns = {"galaxy_id": ["1", "2"], "path": ["p", "q"], "content": [content] * 2, "length": 9, "modified": 8}
    rows_pdf = catalogue_rows(pd.DataFrame(columns), Mock(return_value=inference), model)
    assert rows_pdf["class_cnn"].tolist() == ["a b", None]
    assert rows_pdf["quarantine_reason"].tolist() == [None, NOT_FINITE]
    assert rows_pdf.loc[0, list(VOTE_FIELDS.values())].tolist() == list(range(37))
    schema = ", ".join(f"`{name}` {of_type}" for name, of_type in model.columns().items())
    written_pdf = with_class(spark.createDataFrame(rows_pdf, schema), model, 0.0).toPandas()
    assert written_pdf["class"].tolist() == ["a b", None]
    assert "probability_0.5" in written_pdf
