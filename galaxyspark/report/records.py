"""What the stages have left in the run beside numbers of accuracy: history, times, quarantine, settings, versions."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import yaml
from PIL import Image

from galaxyspark.network.progress import unfinished_training
from galaxyspark.report.original import ORIGINAL
from galaxyspark.report.pictures import data_uri
from galaxyspark.run_directory import RunDirectory, duration_s
from galaxyspark.settings import STAGES

QUARANTINE_ROWS = 20
"""Quarantined images that are listed."""

_THROUGH_ALL_IMAGES = ("augment", "extract")
_EXAMPLES_OF_A_REASON = 6
_MOST_PIXELS = 64_000_000
_PICTURE_PX = 96


@dataclass(frozen=True)
class StageTime:
    """How long a stage took.

    Attributes:
        stage: Its name.
        duration_s: Seconds from reading its input to publishing, of a training those of all its sittings; None where it
            is not in this run.
        rate: What it handled a second, None where that is not known.
        unit: Of what the rate counts, such as views.
        images_per_s: Images it went through a second; None where that is not known, or it goes through them repeatedly.
    """

    stage: str
    duration_s: float | None
    rate: float | None = None
    unit: str = ""
    images_per_s: float | None = None

    @property
    def original(self) -> str:
        """What the original pipeline took for the same; empty where that is not known."""
        return ORIGINAL.durations.get(self.stage, "")


@dataclass(frozen=True)
class Quarantined:
    """An image that could not be used.

    Attributes:
        galaxy_id: As text.
        path: Of its file, as Spark writes it.
        reason: Why.
        picture: What can be seen of it, as a data URI; empty where nothing can.
    """

    galaxy_id: str
    path: str
    reason: str
    picture: str


@dataclass(frozen=True)
class Learning:
    """How the network has learned.

    Attributes:
        history: A row for each epoch that is over, as in history.jsonl.
        chosen_epoch: Whose weights are the best so far; 0 before the first epoch's end.
        stopped: How far a training has come that has not ended, in words; empty where it has.
    """

    history: list[dict[str, Any]]
    chosen_epoch: int = 0
    stopped: str = ""


def read_learning(run: RunDirectory, published: Mapping[str, Mapping[str, Any]]) -> Learning:
    """By history.jsonl; where no training has ended yet, by the newest checkpoint's progress."""
    file = run.path("history.jsonl")
    if file.is_file():
        history, stopped = [json.loads(line) for line in file.read_text().splitlines()], ""
    elif found := unfinished_training(run, published.get("augment", {}).get("id")):
        history, stopped = found[0].history, found[0].where
    else:
        return Learning([])
    return Learning(history, max((row["epoch"] for row in history if row["best"]), default=0), stopped)


def stage_times(published: Mapping[str, Mapping[str, Any]]) -> list[StageTime]:
    """Duration and rate of every stage but the report, as far as the manifests tell."""
    num_galaxies = published.get("augment", {}).get("counts", {}).get("galaxies")
    return [_stage_time(stage, published.get(stage), num_galaxies) for stage in STAGES if stage != "report"]


def _stage_time(stage: str, manifest: Mapping[str, Any] | None, num_galaxies: int | None) -> StageTime:
    if manifest is None:
        return StageTime(stage, None)
    rate = manifest.get("rate") or {"per_s": None, "unit": ""}
    if rate["unit"] in ("images", "galaxies"):
        images_per_s = rate["per_s"]
    elif stage in _THROUGH_ALL_IMAGES and num_galaxies:
        images_per_s = num_galaxies / manifest["duration_s"]
    else:
        images_per_s = None
    return StageTime(stage, duration_s(manifest), rate["per_s"], rate["unit"], images_per_s)


def read_quarantine(run: RunDirectory) -> list[Quarantined] | None:
    """Some quarantined images, first a few of each reason, ``QUARANTINE_ROWS`` at most. None without a file."""
    directory = run.path("quarantine")
    if not directory.is_dir():
        return None
    table = ds.dataset(directory, format="parquet").to_table(columns=["galaxy_id", "path", "reason"])
    rows_pdf = table.to_pandas().sort_values(["reason", "galaxy_id"])
    rows_pdf = rows_pdf.groupby("reason").head(_EXAMPLES_OF_A_REASON).head(QUARANTINE_ROWS)
    return [Quarantined(**row, picture=_picture(row["path"])) for row in rows_pdf.to_dict("records")]


def _picture(path: str) -> str:
    """What can be seen of an image on this machine's disks, as far as it is one that a browser shows."""
    file = Path(re.sub("^file:/+", "/", path))  # Spark does not quote what stands behind it
    if not file.is_file():
        return ""
    try:
        with Image.open(file, formats=("JPEG", "PNG")) as image:
            if image.width * image.height > _MOST_PIXELS:
                return ""
            image.draft("RGB", (_PICTURE_PX, _PICTURE_PX))
            image.thumbnail((_PICTURE_PX, _PICTURE_PX))
            content = io.BytesIO()
            image.convert("RGB").save(content, "JPEG", quality=80)
    except Exception:  # Pillow has many for broken images, and these are such
        return ""
    return data_uri(content.getvalue())


def read_settings(run: RunDirectory, stages: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Seed and whole text of the settings file of each stage."""
    files = {stage: run.path(f"settings/{stage}.yaml") for stage in stages}
    texts = {stage: file.read_text() for stage, file in files.items() if file.is_file()}
    return {stage: (yaml.safe_load(text)["seed"], text) for stage, text in texts.items()}


def collect_versions(published: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Every version by package: more than one where stages ran with different ones."""
    versions: dict[str, list[str]] = {}
    for manifest in published.values():
        for package, version in manifest.get("versions", {}).items():
            versions.setdefault(package, [])
            if version not in versions[package]:
                versions[package].append(version)
    return versions
