"""The stage ``report``: what a run found, on one HTML page that needs no network, its figures, and its numbers as JSON.

Reads published files only. Where the files of a part are missing, the template says so in its place.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.splits import SPLITS
from galaxyspark.galaxyzoo.tree import QUESTIONS
from galaxyspark.report import wording
from galaxyspark.report.drawing import PALETTE, Drawing
from galaxyspark.report.dreams import read_dreams
from galaxyspark.report.feature_map import choose_for_map, interactive_map, place, read_features
from galaxyspark.report.figures import (
    draw_accuracy,
    draw_confusion,
    draw_loss,
    draw_map,
    draw_reliability,
    draw_share_classified,
)
from galaxyspark.report.galaxies import JudgedGalaxies, choose_galleries, describe, read_judged_galaxies
from galaxyspark.report.original import ORIGINAL
from galaxyspark.report.pictures import smaller
from galaxyspark.report.records import (
    Learning,
    collect_versions,
    read_learning,
    read_quarantine,
    read_settings,
    stage_times,
)
from galaxyspark.report.vote_figures import draw_tree, draw_vote_scatter
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import ReportJob
from galaxyspark.summary import CLASSIFIERS, NAMES, read_metrics, what_cut_training_short

_TEMPLATES = Path(__file__).parent / "templates"
_PREVIEW_PX = 1_600
_SHOWN = ("cnn_mean16", "svm_mean16")


def write_report(job: ReportJob) -> dict[str, Any]:
    """Write ``report/index.html`` of a run, its figures as PNG and SVG, and all of its numbers as ``numbers.json``.

    Returns:
        The manifest that was published with them.

    Raises:
        UserError: Nothing has been published in this run yet.
    """
    run = RunDirectory(job.run)
    published = {stage: manifest for stage, manifest in run.published().items() if stage != "report"}
    if not run.exists():
        raise UserError(f"{run.root}: no such run.")
    if not published:
        raise UserError(
            f"{run.root}: nothing is published there yet. ./submit.sh pipeline --run {run.root} makes a run."
        )
    inputs = {stage: manifest["id"] for stage, manifest in published.items()}
    with run.stage("report", job, inputs) as staging:
        parts = collect(run, published, job.seed)
        drawings = [drawing for name in ("confusions", "curves", "confidence", "votes") for drawing in parts[name]]
        drawings += [parts["map"]] if parts["map"] else []
        directory = staging.path("report")
        directory.mkdir()
        (directory / "index.html").write_text(render("page.html", **parts), encoding="utf-8")
        (directory / "numbers.json").write_text(json.dumps(numbers_of(parts), indent=1), encoding="utf-8")
        for drawing in drawings:
            for ending, content in drawing.files.items():
                (directory / f"{drawing.name}{ending}").write_bytes(content)
        staging.manifest = {"page": "report/index.html", "figures": [drawing.name for drawing in drawings]}
    return staging.manifest


def collect(run: RunDirectory, published: Mapping[str, Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """Everything the template needs of a run."""
    metrics, not_measured = _metrics(run, published)
    learning = read_learning(run, published)
    galaxies = read_judged_galaxies(run.path("predictions.parquet"), metrics["classes"]) if metrics else None
    return {
        "run": run.root,
        "name": Path(run.root).name,
        "published": published,
        "augment": published.get("augment"),
        "cut_short": what_cut_training_short(published.get("train", {})),
        "trained": published.get("train", {}).get("training"),
        "outdated": outdated(run),
        "metrics": metrics,
        "not_measured": not_measured,
        "classes": metrics["classes"] if metrics else [],
        "test": metrics["splits"]["test"] if metrics else None,
        "learning": learning,
        "confusions": draw_confusions(metrics) if metrics else [],
        "curves": draw_curves(learning),
        "confidence": draw_confidence(metrics["splits"]["test"]) if metrics else [],
        "votes_command": _votes_command(run, published.get("train", {}).get("ranks")),
        "votes": draw_votes(metrics, galaxies, seed) if metrics else [],
        "dreams": read_dreams(run.path("dreams")),
        "preview": smaller(run.path("preview.png"), _PREVIEW_PX),
        "times": stage_times(published),
        "quarantine": read_quarantine(run),
        "settings": read_settings(run, published),
        "versions": collect_versions(published),
        **collect_galaxies(run, galaxies, seed),
    }


def _votes_command(run: RunDirectory, ranks: int | None) -> str:
    """Trains as before, but on votes. Settings of a run that was copied or moved name the old place."""
    settings, place = (shlex.quote(str(path)) for path in (run.place("settings/train.yaml"), run.root))
    with_ranks = f"train -np {ranks}" if ranks else "train"
    return f"./submit.sh {with_ranks} --config {settings} --objective votes --run {place}"


def _metrics(run: RunDirectory, published: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any] | None, str]:
    """The content of metrics.json; or None, and what is to be said where an older version wrote it, or it is gone."""
    if "classify" not in published:
        return None, ""
    try:
        return read_metrics(run), ""
    except UserError as error:
        return None, str(error)


def collect_galaxies(run: RunDirectory, galaxies: JudgedGalaxies | None, seed: int) -> dict[str, Any]:
    """Galleries, map, and the facts that the page's script has of every galaxy in them; None where nothing is there."""
    if galaxies is None:
        return {"galaxies": None, "galleries": None, "map": None, "num_on_map": 0, "has_pictures": False, "facts": {}}
    galleries = choose_galleries(galaxies, seed)
    in_galleries = [position for gallery in galleries for position in gallery.positions]
    on_map = choose_for_map(galaxies, seed)
    features = read_features(run.path("features"), galaxies.ids[on_map])
    places = None if features is None else place(features, seed)
    if places is None:
        on_map = on_map[:0]
    views = run.path("views/split=test")
    facts: dict[str, Any] = {
        "classes": galaxies.classes,
        "questions": [
            {"number": each.number, "text": each.text, "answers": each.answers, "positions": each.positions}
            for each in QUESTIONS
        ],
        "galaxies": describe(galaxies, in_galleries, on_map.tolist(), views),
        "map": None if places is None else interactive_map(galaxies, on_map, places),
    }
    drawn_map = None
    if places is not None:
        truth, right = galaxies.truth[on_map], galaxies.right[on_map]
        drawn_map = draw_map("map", "What looks alike to the network", places, truth, right, galaxies.classes)
    return {
        "galaxies": galaxies,
        "galleries": galleries,
        "map": drawn_map,
        "num_on_map": len(on_map),
        "has_pictures": views.is_dir(),
        "facts": facts,
    }


def numbers_of(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Every number of the page, for those who would compute with them; pictures left out."""
    galaxies = parts["facts"].get("galaxies", {})
    told = {
        galaxy_id: {name: value for name, value in galaxy.items() if name not in ("picture", "views")}
        for galaxy_id, galaxy in galaxies.items()
    }
    places = {
        galaxy_id: (x, y)
        for trace in (parts["facts"].get("map") or {"data": []})["data"]
        for galaxy_id, x, y in zip(trace.get("customdata", ()), trace["x"], trace["y"], strict=False)
    }
    return {
        "metrics": parts["metrics"],
        "learning": dataclasses.asdict(parts["learning"]),
        "objectives": parts["published"].get("train", {}).get("objectives"),
        "stages": [dataclasses.asdict(time) for time in parts["times"]],
        "counts": {stage: manifest["counts"] for stage, manifest in parts["published"].items() if "counts" in manifest},
        "galaxies_by_class": (parts["augment"] or {}).get("galaxies_by_class"),
        "original": dataclasses.asdict(ORIGINAL) | {"accuracy": ORIGINAL.accuracy},
        "galleries": {
            gallery.title: parts["galaxies"].ids[gallery.positions].tolist() for gallery in parts["galleries"] or ()
        },
        "galaxies": told,
        "map": places,
        "dreams": [
            {"heading": heading, "name": picture.name, "told": picture.told}
            for heading, pictures in (parts["dreams"] or {}).items()
            for picture in pictures
        ],
        "quarantined_by_reason": (parts["augment"] or {}).get("quarantined_by_reason"),
        "settings": {stage: text for stage, (_, text) in parts["settings"].items()},
        "versions": parts["versions"],
    }


def outdated(run: RunDirectory) -> list[tuple[str, str]]:
    """As ``RunDirectory.outdated``; the report there was before is about to be replaced."""
    return [(stage, earlier) for stage, earlier in run.outdated() if stage != "report"]


def render(template: str, **parts: Any) -> str:
    """Fill in a template; every text is escaped, the SVG of the figures and Plotly's own script excepted."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: list[Callable[..., str]] = [wording.percent, wording.points, wording.thousandths, wording.number]
    filters += [wording.duration, wording.rate, wording.date]
    environment.filters |= {each.__name__: each for each in filters}
    return environment.get_template(template).render(
        classifiers=CLASSIFIERS,
        names=NAMES,
        original=ORIGINAL,
        splits=SPLITS,
        palette=PALETTE,
        shown=_SHOWN,
        plotly=plotly_script(),
        **parts,
    )


def plotly_script() -> str:
    """Plotly's JavaScript as its Python package brings it along, 5 MB."""
    from plotly.offline import get_plotlyjs  # takes a second to load

    return get_plotlyjs()


def draw_confusions(metrics: Mapping[str, Any]) -> list[Drawing]:
    """The confusion matrices on test galaxies, and the original pipeline's where it had the same classes."""
    classes, test = metrics["classes"], metrics["splits"]["test"]
    drawings = [
        draw_confusion(f"confusion_{name}", CLASSIFIERS[name], test[name]["confusion"], classes)
        for name in ("cnn_mean16", "svm_mean16", "cnn_view0")
    ]
    if tuple(classes) == ORIGINAL.classes:
        title = "Original pipeline, other data set"
        drawings.insert(2, draw_confusion("confusion_original", title, ORIGINAL.confusion, classes))
    return drawings


def draw_curves(learning: Learning) -> list[Drawing]:
    """Loss and accuracy over the epochs; nothing where there are fewer than two."""
    if len(learning.history) < 2:
        return []
    return [
        draw_loss("learning_loss", "Loss", learning.history, learning.chosen_epoch),
        draw_accuracy("learning_accuracy", "Accuracy on validation galaxies", learning.history, learning.chosen_epoch),
    ]


def draw_confidence(test: Mapping[str, Any]) -> list[Drawing]:
    """The reliability diagram, and accuracy against the share classified."""
    return [
        draw_reliability("reliability", "Reliability", test, CLASSIFIERS),
        draw_share_classified("share_classified", "Accuracy against share classified", test, CLASSIFIERS),
    ]


def draw_votes(metrics: Mapping[str, Any], galaxies: JudgedGalaxies | None, seed: int) -> list[Drawing]:
    """The decision tree and the scatter of the votes; nothing of a network that has learned none."""
    rmse = metrics["network"]["votes_rmse"]["test"]
    if rmse is None:
        return []
    drawings = [draw_tree("votes_tree", "Error of the votes by question", rmse["by_question"])]
    if galaxies is not None and galaxies.votes is not None and galaxies.true_votes is not None:
        chosen = choose_for_map(galaxies, seed)
        votes, true_votes = galaxies.votes[chosen], galaxies.true_votes[chosen]
        title = f"Votes of {len(chosen):,} test galaxies, network against volunteers"
        drawings.append(draw_vote_scatter("votes_scatter", title, votes, true_votes, rmse["by_question"]))
    return drawings
