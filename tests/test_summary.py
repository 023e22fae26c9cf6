"""A run in a few lines, from manifests and metrics written by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from galaxyspark.errors import UserError
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import PredictJob, PredictSettings
from galaxyspark.summary import augmented, format_rate, predicted, summary


def rate(per_s: float, unit: str) -> dict:
    return {"per_s": per_s, "unit": unit}


MANIFESTS = {
    "predict": {"duration_s": 8.0, "rate": rate(12.5, "images")},
    "simulate": {"duration_s": 10.0, "rate": rate(110.0, "galaxies")},
    "augment": {"duration_s": 5.0, "rate": rate(3200.4, "views")},
    "train": {"duration_s": 95.4, "rate": rate(310.4, "views")},
    "extract": {"duration_s": 2.5, "rate": rate(2000.0, "views")},
    "classify": {"duration_s": 61.7, "rate": None},
}
RATES = {
    "simulate": "110 galaxies/s",
    "augment": "3,200 views/s",
    "train": "310 views/s",
    "extract": "2,000 views/s",
    "classify": "",
    "predict": "12 images/s",
}


def metric(accuracy: float, low: float, high: float, macro_f1: float) -> dict:
    metric = {"n": 1234, "accuracy": accuracy, "accuracy_interval": [low, high], "macro_f1": macro_f1}
    return metric | {"f1": {}, "log_loss": 0.5, "against_svm": {"difference": -0.1, "p_value": 0.0004}}


TEST = {
    "cnn_mean16": metric(0.9, 0.85, 0.94, 0.81),
    "cnn_view0": metric(0.88, 0.83, 0.92, 0.7987),
    "svm_mean16": metric(0.871, 0.82, 0.91, 0.9),
    "always_commonest": metric(0.6, 0.55, 0.65, 0.25),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "manifests").mkdir()
    for stage, manifest in MANIFESTS.items():
        (tmp_path / "manifests" / f"{stage}.json").write_text(json.dumps(manifest))
    other = {name: metric(0.1, 0.0, 0.2, 0.3) for name in TEST}
    (tmp_path / "metrics.json").write_text(json.dumps({"splits": {"validation": other, "test": TEST}}))
    return tmp_path


@pytest.mark.parametrize("stage", RATES)
def test_the_rate_of_a_stage_is_what_it_made_in_a_second(stage: str) -> None:
    assert format_rate(MANIFESTS[stage]["rate"]) == RATES[stage]


def test_every_classifier_is_shown_with_its_numbers_on_the_test_split(run: Path) -> None:
    lines = summary(RunDirectory(run))
    assert any("1,234 test galaxies" in line for line in lines)
    others = ["0.500", "0.100", "0.001"]  # log loss, difference to the SVM, and its p
    rows = [re.findall(r"\d\.\d{3}", line) for line in lines]
    assert [row for row in rows if row] == [
        ["0.900", "0.850", "0.940", "0.810", *others],
        ["0.880", "0.830", "0.920", "0.799", *others],
        ["0.871", "0.820", "0.910", "0.900", *others],
        ["0.600", "0.550", "0.650", "0.250", *others],
    ]
    assert [line for line in lines if "SVM" in line and "0.871" in line]


def test_stages_stand_in_the_order_they_run_with_seconds_and_rate(run: Path) -> None:
    lines = [line.split() for line in summary(RunDirectory(run))]
    rows = [words for words in lines if words and words[0] in MANIFESTS]
    seconds = {"simulate": "10", "augment": "5", "train": "95", "extract": "2", "classify": "62", "predict": "8"}
    assert rows == [[stage, seconds[stage], *RATES[stage].split()] for stage in seconds]


def test_only_what_is_there_is_pointed_at(run: Path) -> None:
    (run / "report").mkdir()
    (run / "report" / "index.html").touch()
    lines = [line.strip() for line in summary(RunDirectory(run))]
    assert str(run / "report" / "index.html") in lines
    assert str(run / "metrics.json") in lines
    assert str(run / "catalogue.csv") not in lines


def test_metrics_of_an_older_version_are_named_as_such(run: Path) -> None:
    (run / "metrics.json").write_text(json.dumps({"splits": {"test": {"svm": {}}}}))
    with pytest.raises(UserError, match=r"metrics.json: of an older version. Run .* classify again"):
        summary(RunDirectory(run))


def test_a_run_without_metrics_has_its_stages_alone(run: Path) -> None:
    (run / "manifests" / "classify.json").unlink()
    text = "\n".join(summary(RunDirectory(run)))
    assert "accuracy" not in text
    assert "3,200 views/s" in text


def test_what_augment_made_is_told_with_the_shares_of_every_split(tmp_path: Path) -> None:
    (tmp_path / "preview.png").touch()
    (tmp_path / "quarantine").mkdir()
    manifest = {
        "rate": rate(4000.4, "views"),
        "other_files": 2,
        "label_rule": "argmax",
        "counts": {
            "images": 1203,
            "galaxies": 1200,
            "quarantined": 3,
            "left_out": 0,
            "views": {"train": 16_000, "test": 3_200},
        },
        "quarantined_by_reason": {"empty file": 2, "no label": 1},
        "galaxies_by_class": {"train": {"smooth": 600, "featured": 400}, "test": {"smooth": 50, "featured": 150}},
        "class_shares": {
            "train": {"smooth": 0.6, "featured": 0.4},
            "test": {"smooth": 0.25, "featured": 0.75},
            "all": {"smooth": 650 / 1200, "featured": 550 / 1200},
        },
    }
    assert augmented(RunDirectory(tmp_path), manifest) == [
        "1,203 images: 19,200 views of 1,200 galaxies (4,000 views/s). Quarantined: 3.",
        "  2  empty file",
        "  1  no label",
        "  Passed over, as no image's name ends like theirs: 2.",
        "",
        "                     train              test               all",
        "smooth         600  60.00%        50  25.00%       650  54.17%",
        "featured       400  40.00%       150  75.00%       550  45.83%",
        "galaxies     1,000               200             1,200",
        "",
        "Look at:",
        f"  {tmp_path}/preview.png",
        f"  {tmp_path}/quarantine",
        f"  {tmp_path}/views",
    ]


def predict_manifest(**changes: int) -> dict:
    counts = {"images": 2000, "classified": 1990, "quarantined": 10, "under_min_confidence": 0, "taken_over": 0}
    return {
        "rate": rate(500, "images"),
        "duration_s": 3.98,
        "counts": counts | {"dropped": 0} | changes,
        "classes": {"smooth": 1500, "featured": 490},
        "left_out": [],
    }


def rate_rows(*rows: tuple[float, float, float | None]) -> list[dict]:
    return [dict(zip(("min_confidence", "share", "accuracy"), row, strict=True)) for row in rows]


def test_what_predict_made_is_told_with_its_cost(tmp_path: Path) -> None:
    (tmp_path / "catalogue.fits").touch()
    job = PredictJob(run=tmp_path, new_images="sky")
    assert predicted(job, predict_manifest(), cores=4) == [
        "2,000 images: 490 featured, 1,500 smooth, 10 that could not be read (the catalogue says why).",
        "1,990 classified in 4 s, 500 images/s.",
        # 1,000,000 / 500 s on 4 cores
        "At that rate a million images take 2 core hours, on these cores.",
        "",
        "Look at:",
        f"  {tmp_path}/catalogue.fits",
    ]


def test_the_cost_is_not_reckoned_from_a_few_images(tmp_path: Path) -> None:
    manifest = predict_manifest(taken_over=1950, dropped=3) | {"rate": None, "left_out": ["catalogue.fits"]}
    lines = predicted(PredictJob(run=tmp_path, new_images="sky"), manifest, cores=4)
    assert lines[1:] == [
        "Taken over from the catalogue before, as they have not changed: 1,950.",
        "No longer in the catalogue, as they are not in this folder: 3.",
        "Too many rows for catalogue.fits: read the Parquet files in catalogue/.",
        "40 classified in 4 s.",
        "",
        "Look at:",
    ]


@pytest.mark.parametrize(
    ("least", "views", "said"),
    [
        (0.9, 16, "by mean of 16 views, 70.0% reach 0.9; of those 97.0% are classified right."),
        (0.93, 16, "by mean of 16 views, 70.0% reach 0.9; of those 97.0% are classified right."),
        (0.9, 1, "by one view, 60.0% reach 0.9; of those 95.0% are classified right."),
        (0.99, 16, None),
    ],
)
def test_what_a_least_confidence_leaves_is_told(tmp_path: Path, least: float, views: int, said: str | None) -> None:
    of_mean16 = rate_rows((0.0, 1.0, 0.9), (0.9, 0.7, 0.97), (0.99, 0.0, None))
    test = {"cnn_mean16": {"by_confidence": of_mean16}, "cnn_view0": {"by_confidence": rate_rows((0.9, 0.6, 0.95))}}
    test["svm_mean16"] = {"f1": {}}
    (tmp_path / "metrics.json").write_text(json.dumps({"splits": {"test": test}}))
    settings = PredictSettings(min_confidence=least, predict_views=views)
    job = PredictJob(run=tmp_path, new_images="sky", predict=settings)
    manifest = predict_manifest(under_min_confidence=590)
    lines = predicted(job, manifest | {"classes": {"smooth": 1400}}, cores=4)
    assert lines[0].startswith(f"2,000 images: 1,400 smooth, 590 below --min-confidence {least:g}, 10 that could not")
    told = [line for line in lines if line.startswith("Among")]
    assert told == ([f"Among the test galaxies, {said}"] if said else [])
