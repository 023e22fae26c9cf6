"""The stage ``report``: what a run found, on one HTML page that needs no network, and its figures as PNG.

Reads published files only. Where the files of a part are missing, the template says so in its place.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from galaxyspark.galaxyzoo.splits import SPLITS
from galaxyspark.report.figures import PALETTE, Drawing, draw_accuracy, draw_confusion, draw_loss
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import STAGES, ReportJob
from galaxyspark.summary import CLASSIFIERS, NAMES, difference, read_metrics

GALLERY_GALAXIES = 6
"""Galaxies of a class in the gallery."""
GALLERY_VIEWS = 8
"""Views of a galaxy in the gallery, from view 0 on."""
QUARANTINE_ROWS = 20
"""Quarantined images that are listed."""

_GALLERY_CHARACTERS = 3_000_000
_TEMPLATE = "page.html"


@dataclass(frozen=True)
class OriginalPipeline:
    """What is known of the pipeline that galaxyspark redoes: J. Caineta's, one machine, Caffe.

    Attributes:
        classes: Names of its classes.
        confusion: Counts of its test galaxies, a row for each true class, a column for each predicted one.
        durations: What it took, by the stage that does the same here.
    """

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    durations: Mapping[str, str]

    @property
    def num_galaxies(self) -> int:
        """Galaxies it was tested on."""
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        """Share of them it classified right, 0 to 1."""
        return sum(row[position] for position, row in enumerate(self.confusion)) / self.num_galaxies

    @property
    def commonest_share(self) -> float:
        """Share of the commonest true class, 0 to 1: the accuracy of always naming that class."""
        return max(map(sum, self.confusion)) / self.num_galaxies


ORIGINAL = OriginalPipeline(
    classes=("smooth", "featured", "artifact"),
    confusion=((826, 490, 0), (433, 1233, 0), (53, 38, 0)),
    durations={
        "train": "10.5 h",
        "extract": "about 1 h, with classify",
        "classify": "about 1 h, with extract",
        "predict": "12 s an image",
    },
)


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
    def original(self) -> str:
        """What the original pipeline took for the same; empty where that is not known."""
        return ORIGINAL.durations.get(self.stage, "")


@dataclass(frozen=True)
class GalleryGalaxy:
    """A test galaxy in the gallery.

    Attributes:
        galaxy_id: As text.
        label: Its true class.
        predicted: The network's class, from the mean of the probabilities over all its views.
        probability: Of that class, 0 to 1.
        images: Its views, each a data URI of a JPEG.
    """

    galaxy_id: str
    label: str
    predicted: str
    probability: float
    images: tuple[str, ...]


@dataclass(frozen=True)
class Gallery:
    """Test galaxies drawn at random, by class, and how many had to be left out to keep the page small."""

    by_class: Mapping[str, Sequence[GalleryGalaxy]]
    num_left_out: int


def write_report(job: ReportJob) -> dict[str, Any]:
    """Write ``report/index.html`` of a run, and each of its figures as ``report/<name>.png``.

    Returns:
        The manifest that was published with them.

    Raises:
        UserError: The classifiers have not been measured yet.
    """
    run = RunDirectory(job.run)
    run.manifest("classify")
    published = {stage: manifest for stage, manifest in run.published().items() if stage != "report"}
    inputs = {stage: manifest["id"] for stage, manifest in published.items()}
    with run.stage("report", job, inputs) as staging:
        metrics = read_metrics(run)
        history = read_history(run)
        confusions = draw_confusions(metrics)
        curves = draw_curves(history, metrics["epoch"])
        html = render(
            metrics=metrics,
            history=history,
            confusions=confusions,
            curves=curves,
            gallery=make_gallery(run, metrics["classes"], job.seed),
            run=run.root,
            published=published,
            outdated=outdated(run),
            times=[stage_time(stage, published.get(stage)) for stage in STAGES if stage != "report"],
            quarantine=read_quarantine(run),
            settings=read_settings(run, published),
            versions=collect_versions(published),
        )
        directory = staging.path("report")
        directory.mkdir()
        (directory / "index.html").write_text(html, encoding="utf-8")
        for drawing in (*confusions, *curves):
            (directory / f"{drawing.name}.png").write_bytes(drawing.png)
        staging.manifest = {"page": "report/index.html", "figures": [d.name for d in (*confusions, *curves)]}
    return staging.manifest


def outdated(run: RunDirectory) -> list[tuple[str, str]]:
    """As ``RunDirectory.outdated``; the report there was before is about to be replaced."""
    return [(stage, earlier) for stage, earlier in run.outdated() if stage != "report"]


def render(**parts: Any) -> str:
    """Fill in the template; every text is escaped, the SVG of the figures excepted."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "duration": duration,
        "rate": rate,
        "date": date,
        "difference": difference,
    }
    return environment.get_template(_TEMPLATE).render(
        classifiers=CLASSIFIERS,
        names=NAMES,
        original=ORIGINAL,
        splits=SPLITS,
        palette=PALETTE,
        gallery_views=GALLERY_VIEWS,
        **parts,
    )


def percent(share: float | None) -> str:
    """A share of 1 with one decimal, such as 82.7%; a dash for none."""
    return "–" if share is None else f"{share:.1%}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 9.3 s, 1 min 52 s, 10 h 30 min."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def date(timestamp: str) -> str:
    """A manifest's timestamp, which is in UTC, to the minute."""
    return datetime.fromisoformat(timestamp).strftime("%Y-%m-%d %H:%M UTC")


def rate(per_second: float) -> str:
    """A rate, or what one takes, with three digits or all those before the point."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def read_history(run: RunDirectory) -> list[dict[str, Any]]:
    """The rows of history.jsonl, one an epoch; none where the file is not there."""
    file = run.path("history.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def draw_confusions(metrics: Mapping[str, Any]) -> list[Drawing]:
    """The confusion matrices on test galaxies, and the original pipeline's where it had the same classes."""
    classes, test = metrics["classes"], metrics["splits"]["test"]
    drawings = [
        draw_confusion(f"confusion_{name}", CLASSIFIERS[name], test[name]["confusion"], classes)
        for name in ("cnn_mean16", "svm_mean16")
    ]
    if tuple(classes) == ORIGINAL.classes:
        title = "Original pipeline, other data set"
        drawings.append(draw_confusion("confusion_original", title, ORIGINAL.confusion, classes))
    return drawings


def draw_curves(history: Sequence[Mapping[str, Any]], chosen_epoch: int) -> list[Drawing]:
    """Loss and accuracy over the epochs; nothing where there are fewer than two."""
    if len(history) < 2:
        return []
    return [
        draw_loss("learning_loss", "Loss", history, chosen_epoch),
        draw_accuracy("learning_accuracy", "Accuracy on validation galaxies", history, chosen_epoch),
    ]


def stage_time(stage: str, manifest: Mapping[str, Any] | None) -> StageTime:
    """Duration and rate of a stage, as far as its manifest tells."""
    if manifest is None:
        return StageTime(stage, None)
    rate = manifest["rate"] or {"per_s": None, "unit": ""}
    return StageTime(stage, manifest["duration_s"], rate["per_s"], rate["unit"])


def make_gallery(run: RunDirectory, classes: Sequence[str], seed: int) -> Gallery | None:
    """Galaxies of the test split with some of their views, as many as a page of 5 MB has room for.

    Every class gets its first galaxy before any gets its second. None where views or features are not there.
    """
    features, views = run.path("features"), run.path("views") / "split=test"
    if not features.is_dir() or not views.is_dir():
        return None
    drawn = draw_galaxies(features, classes, seed)
    in_turns = [ids[turn] for turn in range(GALLERY_GALAXIES) for ids in drawn.values() if turn < len(ids)]
    probabilities, images = mean_probabilities(features, in_turns), view_images(views, in_turns)
    label_of = {galaxy_id: label for label, ids in drawn.items() for galaxy_id in ids}
    by_class: dict[str, list[GalleryGalaxy]] = {name: [] for name in classes}
    num_characters = num_shown = 0
    for galaxy_id in in_turns:
        num_characters += sum(map(len, images[galaxy_id]))
        if num_characters > _GALLERY_CHARACTERS:
            break
        best = int(probabilities[galaxy_id].argmax())
        probability = float(probabilities[galaxy_id][best])
        galaxy = GalleryGalaxy(galaxy_id, label_of[galaxy_id], classes[best], probability, images[galaxy_id])
        by_class[galaxy.label].append(galaxy)
        num_shown += 1
    return Gallery(by_class, len(in_turns) - num_shown)


def draw_galaxies(features: Path, classes: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Ids of up to ``GALLERY_GALAXIES`` test galaxies of each class, drawn at random."""
    first_views = (ds.field("split") == "test") & (ds.field("view") == 0)
    table = _read_rows(features, ["galaxy_id", "label"], first_views)
    ids_of: dict[str, list[str]] = {name: [] for name in classes}
    for row in sorted(table, key=lambda row: row["galaxy_id"]):
        if row["label"] in ids_of:  # features of other labels than those measured: the page says they are outdated
            ids_of[row["label"]].append(row["galaxy_id"])
    generator = random.Random(seed)
    return {name: generator.sample(ids, min(len(ids), GALLERY_GALAXIES)) for name, ids in ids_of.items()}


def mean_probabilities(features: Path, galaxy_ids: Sequence[str]) -> dict[str, Any]:
    """Class probabilities by galaxy, the mean over its extracted views: arrays of shape (classes,)."""
    rows = _read_rows(features, ["galaxy_id", "probabilities"], ds.field("galaxy_id").isin(galaxy_ids))
    of_views: dict[str, list[list[float]]] = {galaxy_id: [] for galaxy_id in galaxy_ids}
    for row in rows:
        of_views[row["galaxy_id"]].append(row["probabilities"])
    return {galaxy_id: np.mean(views, axis=0) for galaxy_id, views in of_views.items()}


def view_images(views: Path, galaxy_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The first ``GALLERY_VIEWS`` views by galaxy, as data URIs."""
    wanted = ds.field("galaxy_id").isin(galaxy_ids) & (ds.field("view") < GALLERY_VIEWS)
    uris: dict[str, list[str]] = {galaxy_id: [] for galaxy_id in galaxy_ids}
    for row in sorted(_read_rows(views, ["galaxy_id", "view", "image"], wanted), key=lambda row: row["view"]):
        uris[row["galaxy_id"]].append(f"data:image/jpeg;base64,{base64.b64encode(row['image']).decode()}")
    return {galaxy_id: tuple(of_galaxy) for galaxy_id, of_galaxy in uris.items()}


def read_quarantine(run: RunDirectory) -> list[dict[str, str]] | None:
    """The first ``QUARANTINE_ROWS`` quarantined images: galaxy_id, path, reason. None without a file."""
    directory = run.path("quarantine")
    if not directory.is_dir():
        return None
    rows = _read_rows(directory, ["galaxy_id", "path", "reason"])
    return sorted(rows, key=lambda row: row["galaxy_id"])[:QUARANTINE_ROWS]


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


def _read_rows(directory: Path, columns: Sequence[str], where: Any = None) -> list[dict[str, Any]]:
    dataset = ds.dataset(directory, format="parquet")
    rows: list[dict[str, Any]] = dataset.to_table(columns=list(columns), filter=where).to_pylist()
    return rows
