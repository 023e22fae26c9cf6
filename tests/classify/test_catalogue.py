"""The catalogue's files, read back by astropy, and its answers, against a search by brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io.votable import is_votable
from astropy.table import Table
from sklearn.preprocessing import StandardScaler

from galaxyspark.classify.catalogue import write_table
from galaxyspark.classify.look import NUM_LIKE, listed, most_like, strangest
from galaxyspark.errors import UserError

NUM_IMAGES = 60


@pytest.fixture(scope="module")
def catalogue_pdf() -> pd.DataFrame:
    random = np.random.default_rng(4)
    classified = pd.DataFrame(
        {
            "galaxy_id": [f"{number:03d}" for number in range(NUM_IMAGES)],
            "class": "smooth",
            "class_cnn": "smooth",
            "probability_smooth": random.random(NUM_IMAGES).astype(np.float32),
            "outlier_score": random.normal(size=NUM_IMAGES).astype(np.float32),
            "probability_irrégulière": np.float32(0.25),
            "path": [f"file:/sky/Pléiades {number}.jpg" for number in range(NUM_IMAGES)],
            "quarantine_reason": None,
            "features": list((random.normal(size=(NUM_IMAGES, 8)) + 100).astype(np.float32)),
            "length": 1000,
        }
    )
    unread = pd.DataFrame({"galaxy_id": ["bad"], "path": ["file:/sky/bad.jpg"], "quarantine_reason": ["empty file"]})
    return pd.concat([classified, unread], ignore_index=True).sample(frac=1, random_state=2)


@pytest.fixture(scope="module")
def catalogue(catalogue_pdf: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run") / "catalogue"
    directory.mkdir()
    schema = pa.Table.from_pandas(catalogue_pdf, preserve_index=False).schema
    for number, rows in enumerate(np.array_split(np.arange(len(catalogue_pdf)), 3)):
        part = pa.Table.from_pandas(catalogue_pdf.iloc[rows], schema, preserve_index=False)
        pq.write_table(part, directory / f"part-{number}.parquet")
    return directory


@pytest.mark.parametrize("ending", ["fits", "vot"])
def test_astropy_reads_every_row_and_number(
    ending: str, catalogue: Path, catalogue_pdf: pd.DataFrame, tmp_path: Path
) -> None:
    file = tmp_path / f"catalogue.{ending}"
    write_table(catalogue, file, {"run": "runs/é"})
    assert is_votable(file) == (ending == "vot")
    table = Table.read(file, **({} if ending == "fits" else {"use_names_over_ids": True}))
    expected_pdf = catalogue_pdf.sort_values("galaxy_id", ignore_index=True)
    assert list(table["galaxy_id"]) == expected_pdf["galaxy_id"].tolist()
    accented = "probability_irr\\xe9guli\\xe8re" if ending == "fits" else "probability_irrégulière"
    names = {"probability_smooth": "probability_smooth", accented: "probability_irrégulière"}
    for name, original in names.items():
        np.testing.assert_array_equal(np.ma.filled(table[name], np.nan), expected_pdf[original])
    reasons = np.ma.filled(table["quarantine_reason"], "").tolist()
    assert reasons == expected_pdf["quarantine_reason"].fillna("").tolist()
    assert not {"features", "length"} & set(table.colnames)
    accent = "\\xe9" if ending == "fits" else "é"
    assert table["path"][7] == f"file:/sky/Pl{accent}iades 7.jpg"


def test_the_most_alike_are_those_of_the_nearest_directions(catalogue: Path, catalogue_pdf: pd.DataFrame) -> None:
    features_pdf = catalogue_pdf[catalogue_pdf["class"].notna()].set_index("galaxy_id")["features"]
    features = np.stack(features_pdf.tolist()).astype(float)
    scaler = StandardScaler().fit(features)
    from_mean = (features - features.mean(axis=0)) / features.std(axis=0)
    wanted = from_mean[features_pdf.index.get_loc("017")]
    cosines = from_mean @ wanted / np.linalg.norm(from_mean, axis=1) / np.linalg.norm(wanted)
    expected = pd.Series(cosines, features_pdf.index).drop("017").nlargest(NUM_LIKE)
    rows = most_like(catalogue, "017", scaler)
    assert [row["galaxy_id"] for row in rows] == expected.index.tolist()
    np.testing.assert_allclose([row["similarity"] for row in rows], expected, atol=1e-4)
    assert "features" not in rows[0]


def test_the_strangest_come_first(catalogue: Path, catalogue_pdf: pd.DataFrame) -> None:
    expected_pdf = catalogue_pdf[catalogue_pdf["class"].notna()].nlargest(5, "outlier_score")
    rows = strangest(catalogue, 5)
    assert [row["galaxy_id"] for row in rows] == expected_pdf["galaxy_id"].tolist()
    assert len(strangest(catalogue, 1000)) == NUM_IMAGES
    lines = listed(rows, "outlier_score")
    assert len(lines) == 6
    assert lines[1].startswith(rows[0]["galaxy_id"])
    assert rows[0]["path"] in lines[1]


@pytest.mark.parametrize(("galaxy_id", "message"), [("nobody", "no image of this id"), ("bad", "could not be read")])
def test_an_image_that_nothing_is_known_of_has_none_alike(galaxy_id: str, message: str, catalogue: Path) -> None:
    with pytest.raises(UserError, match=message):
        most_like(catalogue, galaxy_id, StandardScaler())
