"""Several runs on one page: their metrics side by side, paired tests, learning curves, and where they disagree."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from galaxyspark.classify.metrics import paired
from galaxyspark.errors import UserError
from galaxyspark.report.figures import draw_runs
from galaxyspark.report.galaxies import JudgedGalaxies, as_block, read_judged_galaxies, read_pictures
from galaxyspark.report.page import render
from galaxyspark.report.records import StageTime, read_learning, stage_times
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import STAGES, CompareJob
from galaxyspark.storage import Place, write_atomically
from galaxyspark.summary import CLASSIFIERS, read_metrics

MOST_GALAXIES = 36
"""Galaxies on which runs differ that are shown."""

_NOT_COMPARED = ("run", "verbose", "check", "launcher")


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs.

    Attributes:
        name: Of its directory; with more of the path where another has the same.
        root: Where it lies.
        metrics: The content of metrics.json.
        history: Rows of history.jsonl.
        times: Of its stages.
        settings: Value by ``<stage>.<setting>``, as text.
        galaxies: The test galaxies and what the network says of them.
        probabilities: Of every classifier, shape (galaxies, classes), in the order of ``galaxies``.
    """

    name: str
    root: Place
    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    times: dict[str, StageTime]
    settings: dict[str, str]
    galaxies: JudgedGalaxies
    probabilities: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Shared:
    """The test galaxies that two runs or more have in common, with the same true class.

    Attributes:
        ids: As text.
        positions: For each run, where each of them stands among its test galaxies; shape (galaxies,).
        num_other_class: Ids that all runs have too, but not with the same true class.
    """

    ids: NDArray[np.str_]
    positions: list[NDArray[np.int64]]
    num_other_class: int


def write_comparison(job: CompareJob) -> Path:
    """Write one page, and its numbers as JSON beside it.

    Returns:
        The page's file.

    Raises:
        UserError: It is one run only, one has not been measured, or its classes are not those of the first.
    """
    _check(job)
    runs = [open_run(root, name) for root, name in zip(job.runs, unlike_names(job.runs), strict=True)]
    for run in runs[1:]:
        if run.metrics["classes"] != runs[0].metrics["classes"]:
            raise UserError(
                f"{run.root}: has the classes {', '.join(run.metrics['classes'])}, but {runs[0].root} has "
                f"{', '.join(runs[0].metrics['classes'])}. Only runs of the same classes can be compared."
            )
    shared = galaxies_in_common(runs)
    compared, settings = compare_classifiers(runs, shared), differing_settings(runs)
    differing = differing_positions(runs, shared)
    html = render(
        "comparison.html",
        runs=runs,
        compared=compared,
        shared=shared,
        num_shared=len(shared.ids),
        curves=draw_curves(runs),
        differing_settings=settings,
        stages=[stage for stage in STAGES if any(stage in run.times for run in runs)],
        facts=describe_differing(runs, shared, differing[:MOST_GALAXIES]),
        map=None,
        num_differing=len(differing),
    )
    write_atomically(job.output, html)
    numbers = {
        "runs": {run.name: _numbers_of(run) for run in runs},
        "shared_test_galaxies": len(shared.ids),
        "compared": compared,
        "differing_galaxies": shared.ids[differing].tolist(),
        "differing_settings": settings,
    }
    write_atomically(job.output.with_suffix(".json"), json.dumps(numbers, indent=1))
    return job.output


def _check(job: CompareJob) -> None:
    if len(job.runs) < 2:
        raise UserError("name two runs at least: ./submit.sh compare runs/A runs/B")
    if job.output.suffix != ".html" or job.output.is_dir():
        raise UserError(f"--output {job.output}: is to be a page, a file whose name ends with .html")
    if not job.output.absolute().parent.is_dir():
        raise UserError(f"--output {job.output}: there is no directory {job.output.parent}.")


def _numbers_of(run: ComparedRun) -> dict[str, Any]:
    times = [asdict(time) for time in run.times.values()]
    return {"root": str(run.root), "metrics": run.metrics, "history": run.history, "stages": times}


def open_run(root: Path, name: str) -> ComparedRun:
    """Read what is compared of a run.

    Raises:
        UserError: It has not been measured, or by an older version.
    """
    run = RunDirectory(root)
    run.manifest("classify")
    metrics = read_metrics(run)
    published = run.published()
    predictions = run.path("predictions.parquet")
    galaxies = read_judged_galaxies(predictions, metrics["classes"])
    if galaxies is None:
        raise UserError(f"{predictions}: is missing. Run the stage classify again.")
    return ComparedRun(
        name,
        run.root,
        metrics,
        read_learning(run, published).history,
        {time.stage: time for time in stage_times(published) if time.duration_s is not None},
        read_flat_settings(run, published),
        galaxies,
        read_probabilities(predictions),
    )


def unlike_names(roots: Sequence[Path]) -> list[str]:
    """The runs' names: as much of the end of each path as tells it from the others."""
    parts = [root.resolve().parts for root in roots]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError("The same run is named twice; compare it with another.")


def read_probabilities(predictions: Path) -> dict[str, NDArray[np.float64]]:
    """What every classifier says of the test galaxies, in the order of their ids: shape (galaxies, classes) each."""
    names = [name for name in CLASSIFIERS if name in pq.read_schema(predictions).names]
    table = pq.read_table(predictions, columns=["galaxy_id", *names], filters=ds.field("split") == "test")
    table = table.sort_by("galaxy_id")
    return {name: as_block(table[name]) for name in names}


def read_flat_settings(run: RunDirectory, stages: Mapping[str, Any]) -> dict[str, str]:
    """Every setting of the stages by ``<stage>.<setting>``, as text, but for where and how a job runs."""
    flat: dict[str, str] = {}
    for stage in stages:
        content = yaml.safe_load((run.path(f"settings/{stage}.yaml")).read_text())
        for name, value in content.items():
            of_section = value if isinstance(value, dict) else {name: value}
            flat |= {f"{stage}.{key}": _as_text(each) for key, each in of_section.items() if key not in _NOT_COMPARED}
    return flat


def _as_text(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def differing_settings(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """Settings of the stages that all runs have, where they are not the same, with the value in each run.

    A dash stands for a setting that a run's version did not have.
    """
    in_all = set.intersection(*(set(run.times) for run in runs))
    names = sorted({name for run in runs for name in run.settings if name.partition(".")[0] in in_all})
    values = {name: [run.settings.get(name, "–") for run in runs] for name in names}
    return {name: of_runs for name, of_runs in values.items() if len(set(of_runs)) > 1}


def galaxies_in_common(runs: Sequence[ComparedRun]) -> Shared:
    """The test galaxies that are in all runs with the same true class."""
    labels = [dict(zip(run.galaxies.ids.tolist(), run.galaxies.truth.tolist(), strict=True)) for run in runs]
    in_all = [each for each in labels[0] if all(each in other for other in labels[1:])]
    ids = [each for each in in_all if all(other[each] == labels[0][each] for other in labels[1:])]
    places = [{galaxy_id: place for place, galaxy_id in enumerate(run.galaxies.ids.tolist())} for run in runs]
    positions = [np.array([of_run[each] for each in ids], dtype=np.int64) for of_run in places]
    return Shared(np.array(ids, dtype=str), positions, len(in_all) - len(ids))


def compare_classifiers(runs: Sequence[ComparedRun], shared: Shared) -> dict[str, list[dict[str, Any] | None]]:
    """By classifier, for each run: its metrics on all of its test galaxies, and ``against_first`` on the shared ones.

    None where a run has not the classifier. ``against_first`` has the difference of the accuracies to the first
    run's and the p of McNemar's exact test; there is none in the first run itself, nor without shared galaxies.
    """
    truth = runs[0].galaxies.truth[shared.positions[0]]
    compared: dict[str, list[dict[str, Any] | None]] = {}
    for name in CLASSIFIERS:
        if not any(name in run.probabilities for run in runs):
            continue
        compared[name] = []
        for number, run in enumerate(runs):
            if name not in run.probabilities:
                compared[name].append(None)
                continue
            metric = run.metrics["splits"]["test"][name]
            told = {key: metric[key] for key in ("n", "accuracy", "accuracy_interval", "macro_f1", "log_loss")}
            told["expected_calibration_error"] = metric["calibration"]["expected_calibration_error"]
            if number and name in runs[0].probabilities and len(truth):
                own = run.probabilities[name][shared.positions[number]]
                told["against_first"] = paired(truth, own, runs[0].probabilities[name][shared.positions[0]])
            compared[name].append(told)
    return compared


def differing_positions(runs: Sequence[ComparedRun], shared: Shared) -> NDArray[np.int64]:
    """Which of the shared galaxies the networks put into different classes, the surest first."""
    said = np.array([run.galaxies.predicted[own] for run, own in zip(runs, shared.positions, strict=True)])
    sure = np.array([run.galaxies.confidence[own] for run, own in zip(runs, shared.positions, strict=True)])
    differ = np.flatnonzero((said != said[0]).any(axis=0))
    return differ[np.argsort(-sure.min(axis=0)[differ], kind="stable")]


def describe_differing(runs: Sequence[ComparedRun], shared: Shared, chosen: NDArray[np.int64]) -> dict[str, Any]:
    """What the page's script has of some of the shared galaxies."""
    pictures: dict[str, dict[str, Any]] = {}
    for run in runs:  # the first that still has its views
        pictures = pictures or read_pictures(
            RunDirectory(Path(run.root)).path("views/split=test"), shared.ids[chosen], shared.ids[:0]
        )
    classes = runs[0].galaxies.classes
    galaxies = {}
    for position in chosen:
        galaxy_id = str(shared.ids[position])
        galaxies[galaxy_id] = {
            "label": classes[runs[0].galaxies.truth[shared.positions[0][position]]],
            "said": [
                run.galaxies.said(own[position], run.name) for run, own in zip(runs, shared.positions, strict=True)
            ],
            **pictures.get(galaxy_id, {"picture": "", "views": ""}),
            "votes": None,
        }
    return {"classes": classes, "questions": [], "galaxies": galaxies, "map": None}


def draw_curves(runs: Sequence[ComparedRun]) -> list[Any]:
    """Validation accuracy and loss of all runs over each other; nothing where none has two epochs."""
    histories = {run.name: run.history for run in runs}
    if all(len(history) < 2 for history in histories.values()):
        return []
    return [
        draw_runs("compared_accuracy", "Accuracy on validation galaxies", histories, "accuracy"),
        draw_runs("compared_loss", "Loss on validation galaxies (nats)", histories, "loss"),
    ]
