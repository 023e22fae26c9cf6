"""Reading features that Spark has written in any order, and refusing those that are not whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from galaxyspark.classify import features
from galaxyspark.classify.compare import read_judged
from galaxyspark.classify.features import read_split
from galaxyspark.errors import UserError

CLASSES = ("smooth", "featured")
IDS = ["10", "9", "a b"]


def feature_of(galaxy_id: str, view: int) -> list[float]:
    return [IDS.index(galaxy_id), view, 0.5]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes features of ``views`` views, as several files whose rows are in any order."""

    def write(views: int = 16, change: Callable[[pd.DataFrame], pd.DataFrame] = lambda pdf: pdf) -> Path:
        rows = [
            {
                "galaxy_id": galaxy_id,
                "view": np.int8(view),
                "split": split,
                "label": CLASSES[IDS.index(galaxy_id) % 2],
                "features": feature_of(galaxy_id, view),
                "probabilities": [0.25, 0.75],
            }
            for split in ("train", "test")
            for galaxy_id in IDS
            for view in range(views)
        ]
        features_pdf = change(pd.DataFrame(rows)).sample(frac=1, random_state=1)
        directory = tmp_path / "features"
        directory.mkdir()
        for number, part in enumerate(np.array_split(np.arange(len(features_pdf)), 3)):
            features_pdf.iloc[part].to_parquet(directory / f"part-{number}.parquet")
        return directory

    return write


def test_every_number_is_where_it_belongs(write: Callable[..., Path]) -> None:
    split = read_split(write(4), "test", CLASSES)
    assert split.galaxy_ids == sorted(IDS)
    assert split.views == (0, 1, 2, 3)
    expected = [[feature_of(galaxy_id, view) for view in range(4)] for galaxy_id in sorted(IDS)]
    np.testing.assert_array_equal(split.features, expected)
    assert split.truth.tolist() == [IDS.index(galaxy_id) % 2 for galaxy_id in sorted(IDS)]
    assert split.probabilities.shape == (3, 4, 2)
    assert split.votes is None


def test_one_view_alone(write: Callable[..., Path]) -> None:
    split = read_split(write(4), "train", CLASSES, view=2)
    assert split.features[:, 0, 1].tolist() == [2, 2, 2]
    assert split.features.shape == (3, 1, 3)


def test_a_galaxy_that_lacks_a_view_is_named(write: Callable[..., Path]) -> None:
    directory = write(4, lambda pdf: pdf[(pdf["galaxy_id"] != "9") | (pdf["view"] != 3)])
    with pytest.raises(UserError, match="galaxy 9 of the test split lacks view 3 "):
        read_split(directory, "test", CLASSES)


def test_a_number_that_is_none_is_told_with_its_place(write: Callable[..., Path]) -> None:
    def spoil(pdf: pd.DataFrame) -> pd.DataFrame:
        bad = (pdf["galaxy_id"] == "a b") & (pdf["view"] == 1)
        pdf.loc[bad, "features"] = pd.Series([[0.0, np.nan, 1.0]] * len(pdf), index=pdf.index)[bad]
        return pdf

    with pytest.raises(UserError, match="features of galaxy a b, view 1, are not all finite .*1 views"):
        read_split(write(2, spoil), "test", CLASSES)


def test_a_split_that_was_not_extracted_is_named(write: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="nothing there of the validation split"):
        read_split(write(1), "validation", CLASSES)


def test_classifiers_are_judged_on_all_views_of_the_same_network(write: Callable[..., Path]) -> None:
    directory = write(15)
    with pytest.raises(UserError, match="the test split lacks view 15"):
        read_judged(directory, "test", CLASSES, 3)


def test_features_of_another_length_are_of_another_network(write: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="of 3 numbers in the test split, but of 1,024 in training"):
        read_judged(write(), "test", CLASSES, 1024)


def test_features_of_unequal_length_are_refused(write: Callable[..., Path]) -> None:
    def spoil(pdf: pd.DataFrame) -> pd.DataFrame:
        pdf.at[pdf.index[-1], "features"] = [1.0, 2.0]
        return pdf

    with pytest.raises(UserError, match="features of unequal length"):
        read_split(write(4, spoil), "test", CLASSES)


def test_features_that_do_not_fit_into_memory_are_not_read(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features.psutil, "virtual_memory", lambda: SimpleNamespace(available=100))
    with pytest.raises(UserError, match="they take .* GB of memory, and 0.0 GB are free"):
        read_split(write(4), "test", CLASSES)
