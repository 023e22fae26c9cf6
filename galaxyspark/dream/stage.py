"""The stage ``dream``: pictures of what the layers and classes of a run's network respond to, and of where it looks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from galaxyspark.dream.ascent import Goal, Picture, ascend
from galaxyspark.dream.attention import attention, attention_layer, beside_attention
from galaxyspark.dream.galaxies import (
    JudgedGalaxy,
    galaxy_to_change,
    judged_galaxies,
    noise,
    resized,
    right_and_wrong,
)
from galaxyspark.dream.goals import DreamNetwork, class_goal, layer_goal, open_network
from galaxyspark.dream.sheets import Captioned, draw_sheet, encode_png, in_rows, safe_names, shortened
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import DreamJob

NUM_LAYERS = 8
"""Layers to dream of, from the first to the last."""
NUM_GALAXIES = 8
"""Galaxies whose attention is shown."""

SHEETS = {"layer": "layers.png", "class": "classes.png", "attention": "attention.png"}
"""The sheet on which all pictures of a kind are."""

_TITLES = {
    "layer": "Changed until a layer responds strongly\nBefore and after: half the variance of its activations",
    "class": "Changed until the network sees a class\nBefore and after: the log odds of the class",
    "attention": "Where the network looked for the class it chose\nBright is what spoke for it: Grad-CAM of {layer}",
}
_COLUMNS = 9
_COLUMNS_OF_ATTENTION = 4


@dataclass(frozen=True)
class Start:
    """What a dream begins with.

    Attributes:
        name: ``galaxy`` or ``noise``.
        picture: The picture itself.
        galaxy_id: Of the galaxy; None for noise.
    """

    name: str
    picture: Picture
    galaxy_id: str | None = None

    @property
    def caption(self) -> str:
        """In words."""
        return self.name if self.galaxy_id is None else f"galaxy\n{shortened(self.galaxy_id)}"


@dataclass
class Album:
    """The pictures of a run as they are made: each is written at once.

    Attributes:
        directory: Where to write them.
        records: What each of them is, as ``dreams.json`` is to have it.
    """

    directory: Path
    records: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, picture: Picture, **facts: Any) -> None:
        """Write ``<name>.png`` and remember what it is."""
        file = f"{name}.png"
        (self.directory / file).write_bytes(encode_png(picture))
        self.records.append({"file": file, **facts})


def dream(job: DreamJob) -> dict[str, Any]:
    """Write ``dreams/`` of a run: pictures, three sheets of them, and ``dreams.json``, which says what each picture is.

    Returns:
        The manifest that was published with it.

    Raises:
        UserError: The views or the model are not there, or the test split is empty.
    """
    run = RunDirectory(job.run)
    data, model = run.manifest("augment"), run.manifest("train")
    run.require_current("train")
    with run.stage("dream", job, {"augment": data["id"], "train": model["id"]}) as staging:
        album = Album(staging.path("dreams"))
        album.directory.mkdir()
        network = open_network(run)
        galaxies = judged_galaxies(run, network)
        _add_dreams(album, network, _starts(galaxies, job), job)
        _add_attention(album, network, right_and_wrong(galaxies, NUM_GALAXIES), job.dream.dream_size_px)
        (album.directory / "dreams.json").write_text(json.dumps(album.records, indent=2))
        staging.handled = len(album.records), "pictures"
        staging.manifest = {"counts": {"pictures": len(album.records)}}
    return staging.manifest


def _starts(galaxies: Sequence[JudgedGalaxy], job: DreamJob) -> list[Start]:
    galaxy, size_px = galaxy_to_change(galaxies), job.dream.dream_size_px
    picture = resized(galaxy.picture, size_px)
    return [Start("galaxy", picture, galaxy.galaxy_id), Start("noise", noise(size_px, job.seed))]


def _add_dreams(album: Album, network: DreamNetwork, starts: Sequence[Start], job: DreamJob) -> None:
    """Dream of some layers and of all classes from every start."""
    goals = {
        "layer": {layer: layer_goal(network, layer) for layer in spread(network.layers, NUM_LAYERS)},
        "class": {name: class_goal(network, name) for name in network.card.classes},
    }
    for start in starts:
        album.add(f"start-{start.name}", start.picture, kind="start", start=start.name, galaxy_id=start.galaxy_id)
    num_pictures = len(starts) * sum(map(len, goals.values()))
    with tqdm(desc="dream", unit="picture", total=num_pictures, mininterval=1.0) as bar:
        for kind, of_kind in goals.items():
            rows = [row for start in starts for row in _add_row(album, kind, of_kind, start, job, bar)]
            draw_sheet(album.directory / SHEETS[kind], _TITLES[kind], rows)


def spread(layers: Sequence[str], count: int) -> list[str]:
    """So many of the layers at most, evenly from the first to the last."""
    positions = np.linspace(0, len(layers) - 1, min(count, len(layers))).round().astype(int)
    return [layers[position] for position in positions]


def _add_row(
    album: Album, kind: str, goals: Mapping[str, Goal], start: Start, job: DreamJob, bar: tqdm
) -> list[Sequence[Captioned]]:
    """Dream of all goals of a kind from one start; the same pictures for the sheet, in rows that fit on it."""
    pictures = [(start.caption, start.picture)]
    for name, plain in safe_names(goals).items():
        dreamed = ascend(start.picture, goals[name], job.dream, job.seed)
        facts = {kind: name, "start": start.name, "galaxy_id": start.galaxy_id}
        response = {"before": dreamed.before, "after": dreamed.after}
        album.add(f"{kind}-{plain}-from-{start.name}", dreamed.picture, kind=kind, **facts, **response)
        pictures.append((f"{shortened(name)}\n{dreamed.before:.3g} to {dreamed.after:.3g}", dreamed.picture))
        bar.update()
    return in_rows(pictures, _COLUMNS)


def _add_attention(album: Album, network: DreamNetwork, galaxies: Sequence[JudgedGalaxy], size_px: int) -> None:
    """Show where the network looked in each of the galaxies, at the size it was trained on."""
    pictures = np.stack([galaxy.picture for galaxy in galaxies])
    layer = attention_layer(network, pictures.shape[1])
    positions = [network.card.classes.index(galaxy.predicted) for galaxy in galaxies]
    maps = attention(network, layer, pictures, positions)
    captioned = []
    for number, (galaxy, of_places) in enumerate(zip(galaxies, maps, strict=True), 1):
        picture = beside_attention(resized(galaxy.picture, size_px), of_places)
        facts = {"layer": layer, "galaxy_id": galaxy.galaxy_id, "true_class": galaxy.label}
        said = {"predicted_class": galaxy.predicted, "probability": galaxy.probability}
        album.add(f"attention-{number}", picture, kind="attention", **facts, **said)
        captioned.append((_caption(galaxy), picture))
    title = _TITLES["attention"].format(layer=layer)
    draw_sheet(album.directory / SHEETS["attention"], title, in_rows(captioned, _COLUMNS_OF_ATTENTION))


def _caption(galaxy: JudgedGalaxy) -> str:
    verdict = "right" if galaxy.is_right else f"wrong: it is {shortened(galaxy.label)}"
    said = f"{shortened(galaxy.predicted)}, {galaxy.probability:.2f}"
    return f"{shortened(galaxy.galaxy_id)}\n{said} ({verdict})"
