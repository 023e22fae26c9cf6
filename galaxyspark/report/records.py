"""What the stages have left in the run beside numbers of accuracy: history, times, quarantine, settings, versions."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pyarrow.dataset as ds
import yaml
from PIL import Image

from galaxyspark.network.progress import read_progress
from galaxyspark.report.original import ORIGINAL
from galaxyspark.report.pictures import data_uri
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import STAGES
from galaxyspark.views.augment import NUM_VIEWS

QUARANTINE_ROWS = 20
"""Quarantined images that are listed."""

_MOST_PIXELS = 64_000_000
_PICTURE_PX = 96


@dataclass(frozen=True)
class StageTime:
    """How long a stage took.

    Attributes:
        stage: Its name.
        duration_s: Seconds from reading its input to publishing; None where it is not in this run.
        rate: What it handled a second, None where that is not known.
        unit: Of what the rate counts, such as views.
    """

    stage: str
    duration_s: float | None
    rate: float | None = None
    unit: str = ""

    @property
    def images_per_s(self) -> float | None:
        """Images a second, an image being 16 views where views are counted; None where nothing is known."""
        if not self.rate:
            return None
        return self.rate / NUM_VIEWS if self.unit == "views" else self.rate

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


def read_learning(run: RunDirectory) -> Learning:
    """By history.jsonl; where no training has ended yet, by the newest checkpoint's progress."""
    file = run.path("history.jsonl")
    if file.is_file():
        history, stopped = [json.loads(line) for line in file.read_text().splitlines()], ""
    elif found := read_progress(run.path("checkpoints")):
        history, stopped = found[0].history, found[0].where
    else:
        return Learning([])
    return Learning(history, max((row["epoch"] for row in history if row["best"]), default=0), stopped)


def stage_times(published: Mapping[str, Mapping[str, Any]]) -> list[StageTime]:
    """Duration and rate of every stage but the report, as far as the manifests tell."""
    return [_stage_time(stage, published.get(stage)) for stage in STAGES if stage != "report"]


def _stage_time(stage: str, manifest: Mapping[str, Any] | None) -> StageTime:
    if manifest is None:
        return StageTime(stage, None)
    rate = manifest["rate"] or {"per_s": None, "unit": ""}
    return StageTime(stage, manifest["duration_s"], rate["per_s"], rate["unit"])


def read_quarantine(run: RunDirectory) -> list[Quarantined] | None:
    """The first ``QUARANTINE_ROWS`` quarantined images by id. None without a file."""
    directory = run.path("quarantine")
    if not directory.is_dir():
        return None
    table = ds.dataset(directory, format="parquet").to_table(columns=["galaxy_id", "path", "reason"])
    rows = table.sort_by("galaxy_id").slice(0, QUARANTINE_ROWS).to_pylist()
    return [Quarantined(**row, picture=_picture(row["path"])) for row in rows]


def _picture(path: str) -> str:
    """What can be seen of an image on this machine's disks, as far as it is one that a browser shows."""
    url = urlparse(path)
    file = Path(unquote(url.path))
    if url.scheme not in ("", "file") or not file.is_file():
        return ""
    try:
        with Image.open(file, formats=("JPEG", "PNG")) as image:
            if image.width * image.height > _MOST_PIXELS:
                return ""
            image.draft("RGB", (_PICTURE_PX, _PICTURE_PX))
            image.thumbnail((_PICTURE_PX, _PICTURE_PX))
            content = io.BytesIO()
            image.convert("RGB").save(content, "JPEG", quality=80)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises for broken images
        return ""
    return data_uri(content.getvalue())


def read_settings(run: RunDirectory, stages: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Seed and whole text of the settings file of each stage."""
    texts = {stage: (run.path("settings") / f"{stage}.yaml").read_text() for stage in stages}
    return {stage: (yaml.safe_load(text)["seed"], text) for stage, text in texts.items()}


def collect_versions(published: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Every version by package: more than one where stages ran with different ones."""
    versions: dict[str, list[str]] = {}
    for manifest in published.values():
        for package, version in manifest["versions"].items():
            versions.setdefault(package, [])
            if version not in versions[package]:
                versions[package].append(version)
    return versions
