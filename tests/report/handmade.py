"""A finished run whose files are written by hand: small, and every number in it is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galaxyspark.classify.metrics import evaluate
from galaxyspark.galaxyzoo.splits import SPLITS
from galaxyspark.galaxyzoo.tree import QUESTIONS, VOTE_FIELDS
from galaxyspark.summary import CLASSIFIERS

CLASSES = ["smooth", "featured", "artifact"]
SCRIPT = "<script>document.title='broken into'</script>"
INPUTS = {"augment": [], "train": ["augment"], "extract": ["augment", "train"], "classify": ["extract"]}
DURATIONS_S = {
    "simulate": 10.0,
    "augment": 64.0,
    "train": 4_000.0,
    "extract": 8.0,
    "classify": 2.5,
    "predict": 20.0,
}
COSTS = {"training_views": 1234, "fit_s": 12.5, "seconds_a_view": 0.0021}
NUM_WRONG = dict(zip(CLASSIFIERS, range(5, 5 + len(CLASSIFIERS)), strict=True))
"""Each classifier has so many of the first galaxies wrong."""


def make_run(
    root: Path,
    classes: list[str] = CLASSES,
    *,
    num_epochs: int = 3,
    num_galaxies: int = 20,
    votes: bool = False,
    more_wrong: int = 0,
) -> Path:
    """A finished run; of its test galaxies the first half is of the first class, the other half of the second."""
    truth = np.repeat([0, 1], num_galaxies // 2)
    ids = [galaxy_id_of(position) for position in range(len(truth))]
    write_manifests(root, classes)
    write_metrics(root, classes, truth, votes=votes, more_wrong=more_wrong)
    write_history(root, num_epochs)
    write_predictions(root, classes, truth, ids, votes=votes, more_wrong=more_wrong)
    views = [
        {"galaxy_id": ids[galaxy], "view": view, "label": classes[position], "image": jpeg_of(galaxy, view)}
        | dict.fromkeys(VOTE_FIELDS.values(), 0.25)
        for galaxy, position in enumerate(truth)
        for view in range(16)
    ]
    random = np.random.default_rng(1)
    features = [
        {
            "galaxy_id": galaxy_id,
            "view": 0,
            "split": "test",
            "features": (random.normal(size=8) + 5 * position).tolist(),
        }
        for galaxy_id, position in zip(ids, truth, strict=True)
    ]
    write_rows(root / "views" / "split=test", views)
    write_rows(root / "features", features)
    write_rows(root / "quarantine", [{"galaxy_id": "999", "path": f"file:/{SCRIPT}.jpg", "reason": "empty file"}])
    return root


def galaxy_id_of(position: int) -> str:
    """Its id; that of galaxy 3 would break into the page if it were not escaped."""
    return f"{SCRIPT}.jpg" if position == 3 else f"{position:04d}"


def jpeg_of(galaxy: int, view: int) -> bytes:
    """A view of 48 px in a colour of its own: blue counts views in steps of 16, green galaxies in steps of 5."""
    pixels = np.full((48, 48, 3), (16 * view, 5 * galaxy % 256, 128), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def write_rows(directory: Path, rows: list[dict[str, Any]]) -> None:
    directory.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), directory / "part-0.parquet")


def write_text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def write_history(root: Path, num_epochs: int) -> None:
    rows = [
        {
            "epoch": e,
            "step": 9 * e,
            "train_loss": 2 / e,
            "num_galaxies": 20,
            "loss": 1 / e,
            "accuracy": 0.5 + e / 20,
            "best": e < 3,
        }
        for e in range(1, num_epochs + 1)
    ]
    write_text(root / "history.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def probabilities_of(
    name: str, truth: np.ndarray[Any, Any], num_classes: int, more_wrong: int = 0
) -> np.ndarray[Any, Any]:
    """What a classifier says: the wrong ones of the first two classes for its first galaxies; surer and surer."""
    num_wrong, said = NUM_WRONG[name] + more_wrong, truth.copy()
    said[:num_wrong] = 1 - said[:num_wrong]
    sure = np.linspace(0.55, 0.98, len(truth))[:, None]
    rest = (1 - sure) / max(1, num_classes - 1)
    return np.where(np.eye(num_classes)[said] == 1, sure, rest)


def write_predictions(
    root: Path, classes: list[str], truth: np.ndarray[Any, Any], ids: list[str], *, votes: bool, more_wrong: int
) -> None:
    columns: dict[str, Any] = {
        "split": ["test"] * len(truth),
        "galaxy_id": ids,
        "label": [classes[position] for position in truth],
        "outlier_score": np.linspace(-1, 4, len(truth)),
    }
    columns |= {name: list(probabilities_of(name, truth, len(classes), more_wrong)) for name in CLASSIFIERS}
    if votes:
        random = np.random.default_rng(2)
        columns |= {name: list(random.random((len(truth), 37)).astype(np.float32)) for name in ("votes", "true_votes")}
    pq.write_table(pa.table(columns), root / "predictions.parquet")


def write_metrics(
    root: Path, classes: list[str], truth: np.ndarray[Any, Any], *, votes: bool = False, more_wrong: int = 0
) -> None:
    said = {name: probabilities_of(name, truth, len(classes), more_wrong) for name in CLASSIFIERS}
    of_split = {name: evaluate(truth, probabilities, classes) for name, probabilities in said.items()}
    of_split["cnn_view0"]["against_svm"] = {"difference": -0.05, "p_value": 0.5}
    by_question = {str(question.number): question.number / 100 for question in QUESTIONS}
    rmse = {"view0": 0.15, "mean16": 0.1234, "by_question": by_question} if votes else None
    metrics = {
        "classes": classes,
        "epoch": 2,
        "classifiers": {"svm": COSTS | {"kernel": "rbf", "c": 0.1}, "random_forest": COSTS | {"chosen": "300 trees"}},
        "network": {"seconds_a_view": 0.004, "votes_rmse": {"test": rmse, "validation": rmse}},
        "splits": {"test": of_split, "validation": of_split},
    }
    write_text(root / "metrics.json", json.dumps(metrics))


def write_manifests(root: Path, classes: list[str]) -> None:
    of_class = dict(zip(classes, (6, 2, 0), strict=False))
    counts: dict[str, Any] = {
        "simulate": {"galaxies": 90, "unlabelled": 10},
        "augment": {"images": 25, "galaxies": 24, "quarantined": 1, "views": dict.fromkeys(SPLITS, 128)},
        "extract": {"views": 2_400},
        "predict": {"images": 5, "classified": 4, "quarantined": 1},
    }
    extra: dict[str, Any] = {
        "augment": {"galaxies_by_class": dict.fromkeys(SPLITS, of_class)},
    }
    rates = {"simulate": (10, "galaxies"), "augment": (6, "views"), "train": (57.9, "views"), "extract": (300, "views")}
    rates["predict"] = (0.25, "images")
    for stage, duration_s in DURATIONS_S.items():
        manifest = {
            "stage": stage,
            "id": f"id of {stage}",
            "published": "2026-01-02T03:04:05+00:00",
            "duration_s": duration_s,
            "rate": dict(zip(("per_s", "unit"), rates[stage], strict=True)) if stage in rates else None,
            "inputs": {name: f"id of {name}" for name in INPUTS.get(stage, [])},
            "versions": {"galaxyspark": "0.1.0"},
            "counts": counts.get(stage, {}),
        }
        write_text(root / "manifests" / f"{stage}.json", json.dumps(manifest | extra.get(stage, {})))
        write_text(root / "settings" / f"{stage}.yaml", f"run: {root}\nseed: 7\nimages: {SCRIPT}\n")
