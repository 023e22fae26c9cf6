"""What the stage ``dream`` has published, for the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galaxyspark.report.pictures import smaller

_PICTURE_PX = {"start": 200, "layer": 200, "class": 200, "attention": 400}


@dataclass(frozen=True)
class DreamPicture:
    """A picture.

    Attributes:
        name: What is in it.
        told: What is to be said of it.
        image: As a data URI.
        is_pair: Whether it is two pictures side by side.
    """

    name: str
    told: str
    image: str
    is_pair: bool


def read_dreams(dreams: Path) -> dict[str, list[DreamPicture]] | None:
    """The pictures of ``dreams/`` by heading, in the order they were made. None where there are none."""
    index = dreams / "dreams.json"
    if not index.is_file():
        return None
    pictures: dict[str, list[DreamPicture]] = {}
    starts: dict[str, DreamPicture] = {}
    for record in json.loads(index.read_text()):
        image = smaller(dreams / record["file"], _PICTURE_PX[record["kind"]])
        picture = DreamPicture(*_caption(record), image, is_pair=record["kind"] == "attention")
        if record["kind"] == "start":
            starts[record["start"]] = picture
        else:
            before = [starts[record["start"]]] if record.get("start") in starts else []
            pictures.setdefault(_heading(record), before).append(picture)
    return pictures


def _heading(record: Mapping[str, Any]) -> str:
    if record["kind"] == "attention":
        return f"Where it looked in view 0 for the class it chose by that view alone (Grad-CAM of {record['layer']})"
    start = "noise" if record["start"] == "noise" else f"galaxy {record['galaxy_id']}"
    if record["kind"] == "layer":
        return f"What its layers respond to, from shallow to deep, beginning with {start}"
    return f"What a class looks like to it, beginning with {start}"


def _caption(record: Mapping[str, Any]) -> tuple[str, str]:
    if record["kind"] == "start":
        return "the beginning", "noise" if record["start"] == "noise" else str(record["galaxy_id"])
    if record["kind"] != "attention":
        return record[record["kind"]], f"{record['before']:.3g} before, {record['after']:.3g} after"
    verdict = "right" if record["predicted_class"] == record["true_class"] else f"wrong: it is {record['true_class']}"
    return record["galaxy_id"], f"{record['predicted_class']}, {record['probability']:.0%} uncalibrated ({verdict})"
