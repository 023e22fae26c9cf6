"""Where a run stands, by what its stages have published: what is done, from what and when, and what comes next."""

from __future__ import annotations

import json
import shlex
import shutil
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from galaxyspark.errors import UserError
from galaxyspark.network.progress import SETTINGS_TO_GO_ON_WITH, Progress, unfinished_training
from galaxyspark.report.wording import date, duration
from galaxyspark.run_directory import RunDirectory, duration_s
from galaxyspark.settings import STAGES
from galaxyspark.summary import CLASSIFIERS, format_rate

State = Literal["done", "outdated", "running", "stopped", "not yet"]
Manifest = Mapping[str, Any]

_COLUMNS = ("stage", "state", "published", "ago", "took", "rate")
_PIPELINE = "settings/pipeline.yaml"
_LOOK_AT = ("report/index.html", "catalogue.csv", "metrics.json")


@dataclass(frozen=True)
class StageStatus:
    """Where one stage of a run stands.

    Attributes:
        stage: Its name.
        state: outdated: what it has read was replaced since; stopped: begun, not running now, and not published.
        manifest: As it was published, perhaps by an older version; empty where nothing is published.
        remarks: What is to be said of the state.
        going_on: Whether there is a training that was stopped, which train would go on with.
    """

    stage: str
    state: State
    manifest: Manifest
    remarks: tuple[str, ...] = ()
    going_on: bool = False


def show_status(root: Path) -> list[str]:
    """Lines for the terminal: a table of the stages, how good the network is, and the command to run next.

    Raises:
        UserError: There is no such run.
    """
    run = RunDirectory(root)
    if not run.exists():
        start = f"./submit.sh pipeline --images DIR --labels CSV --run {shlex.quote(str(run.root))}"
        raise UserError(f"{run.root}: no such run. {start} starts one.")
    statuses = stage_statuses(run)
    return [str(run.root), "", *_table(statuses), *_headline(run), "", *next_steps(run, statuses)]


def stage_statuses(run: RunDirectory) -> list[StageStatus]:
    """Where every stage of a run stands, in the order of the pipeline; without ``simulate`` where it has no part."""
    # In this order: a stage that publishes meanwhile still counts as running.
    running = {stage for stage in STAGES if run.is_running(stage)}
    published = run.published()
    outdated = _outdated(run, published)
    training = unfinished_training(run, published.get("augment", {}).get("id"))
    statuses = [
        _status(run, stage, published, outdated, stage in running, training if stage == "train" else None)
        for stage in STAGES
    ]
    has_simulate = _is_simulated(statuses)
    return [status for status in statuses if status.stage != "simulate" or has_simulate]


def next_steps(run: RunDirectory, statuses: Sequence[StageStatus]) -> list[str]:
    """The command for the first stage that is not done; where all are, what to look at."""
    unfinished = [status for status in statuses if status.state != "done"]
    # That a later training was stopped leaves what was published before as it is.
    later = [_command_for(run, status, statuses) for status in statuses if status.state == "done" and status.going_on]
    also = ["or, to go on with the training that was stopped:", *later] if later else []
    if not unfinished:
        found = [run.place(name) for name in _LOOK_AT if run.has(name)]
        return ["All is done. Look at:", *(f"  {path}" for path in found), *also]
    first, has_pipeline = unfinished[0], run.has(_PIPELINE)
    if first.state == "running":
        return [f"Next: wait for {first.stage}, which is running."]
    if first.stage == "simulate" and first.state == "not yet":
        if has_pipeline:
            return ["Next:", _command(run, "pipeline", _config(run, _PIPELINE))]
        own = _command(run, "augment", "--images DIR --labels CSV")
        return ["Next, with galaxies of your own:", own, "or with simulated ones:", _command(run, "simulate")]
    lines = ["Next:", _command_for(run, first, statuses)]
    if has_pipeline and len(unfinished) > 1:
        # A training that has begun goes on with its own settings, which may not be the pipeline's.
        start, how = (unfinished[1], "and then") if first.going_on else (first, "or this, and")
        everything = f"--start-at {start.stage} {_config(run, _PIPELINE)}"
        lines += [f"{how} all that comes after it:", _command(run, "pipeline", everything)]
    return lines + also


def _status(
    run: RunDirectory,
    stage: str,
    published: Mapping[str, Manifest],
    outdated: Mapping[str, Sequence[str]],
    is_running: bool,
    training: tuple[Progress, float] | None,
) -> StageStatus:
    where = f"{training[0].where}; the newest checkpoint is {_span(time.time() - training[1])} old" if training else ""
    broke_off = bool(run.leftovers(stage))
    remarks: list[str] = []
    if is_running:
        remarks += ["what was published before stays until it ends"] if stage in published else []
        remarks += [where] if training else []
    else:
        remarks += outdated.get(stage, ())
        if broke_off or training:
            how = "broke off" if broke_off else "was stopped"
            remarks.append(f"a later attempt {how}" if stage in published else f"{how}, nothing is published")
        if training:
            has_settings = run.has(SETTINGS_TO_GO_ON_WITH)
            settings = SETTINGS_TO_GO_ON_WITH if has_settings else "the same settings"
            remarks.append(f"with {settings} it goes on from {where}")
    state = _state(stage in published, stage in outdated, is_running, broke_off or bool(training))
    return StageStatus(stage, state, published.get(stage, {}), tuple(remarks), training is not None)


def _state(is_published: bool, is_outdated: bool, is_running: bool, has_begun: bool) -> State:
    if is_running:
        return "running"
    if is_published:
        return "outdated" if is_outdated else "done"
    return "stopped" if has_begun else "not yet"


def _outdated(run: RunDirectory, published: Mapping[str, Manifest]) -> dict[str, list[str]]:
    """Why stages are outdated, by stage: what they have read was replaced, or is outdated itself."""
    replaced = run.outdated()
    reasons: dict[str, list[str]] = {}
    for stage, manifest in published.items():
        inputs = [earlier for earlier in STAGES if earlier in manifest.get("inputs", {})]
        again = [earlier for earlier in inputs if (stage, earlier) in replaced]
        outdated = [earlier for earlier in inputs if earlier in reasons and earlier not in again]
        if again or outdated:
            reasons[stage] = [f"run again since: {', '.join(again)}"] if again else []
            reasons[stage] += [f"built on what is outdated: {', '.join(outdated)}"] if outdated else []
    return reasons


def _is_simulated(statuses: Sequence[StageStatus]) -> bool:
    """Whether the run is of galaxies that it has simulated, or may become so."""
    simulate, augment = (
        next(status for status in statuses if status.stage == name) for name in ("simulate", "augment")
    )
    images = augment.manifest.get("inputs", {}).get("images")
    if images is not None:
        return simulate.state != "not yet" and str(images).endswith("/simulated/images")
    return simulate.state != "not yet" or augment.state == "not yet"


# What the terminal shows


def _table(statuses: Sequence[StageStatus]) -> list[str]:
    """A row for each stage, and under it what it was made from and what is to be said of it."""
    rows = [_COLUMNS, *(_cells(status) for status in statuses)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines = [shown[0]]
    for row, status in zip(shown[1:], statuses, strict=True):
        lines.append(row)
        for text in (from_what(status.stage, status.manifest), *status.remarks):
            lines += _indented(text, widths[0] + 2)
    return lines


def _cells(status: StageStatus) -> tuple[str, ...]:
    manifest = status.manifest
    published = manifest.get("published")
    return (
        status.stage,
        status.state,
        date(published) if published else "",
        _span(time.time() - datetime.fromisoformat(published).timestamp()) if published else "",
        duration(duration_s(manifest)) if "duration_s" in manifest else "",
        format_rate(manifest.get("rate")),
    )


def _span(seconds: float) -> str:
    """Roughly how long: 40 s, 44 min, 3 h, 5 days."""
    if seconds < 100:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.0f} days"


def _indented(text: str, indent: int) -> list[str]:
    width = shutil.get_terminal_size().columns
    blank = " " * indent
    return textwrap.wrap(
        text, width, initial_indent=blank, subsequent_indent=blank, break_long_words=False, break_on_hyphens=False
    )


def from_what(stage: str, manifest: Manifest) -> str:
    """What a stage was made from and what it has made, in a line; empty where its manifest does not tell."""
    try:
        return _FROM_WHAT.get(stage, _counts)(manifest)
    except (AttributeError, KeyError, TypeError, ValueError):  # of a version that wrote other manifests
        return ""


def _counts(manifest: Manifest) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in manifest["counts"].items())


def _simulated(manifest: Manifest) -> str:
    return f"{manifest['counts']['galaxies']:,} galaxies with votes, {manifest['counts']['unlabelled']:,} without"


def _augmented(manifest: Manifest) -> str:
    counts = manifest["counts"]
    images = f"{counts['images']:,} images, {counts['quarantined']:,} quarantined"
    made = f"{sum(counts['views'].values()):,} views of {counts['galaxies']:,} galaxies"
    return f"{images}: {made}; from {_from_here(manifest['inputs']['images'])}"


def _trained(manifest: Manifest) -> str:
    training = manifest["training"]
    ranks = "1 rank" if manifest["ranks"] == 1 else f"{manifest['ranks']} ranks"
    chosen = f"epoch {training['chosen']['epoch']}, validation accuracy {training['chosen']['accuracy']:.3f}"
    cut_short = f" (ended by {manifest['cut_short_by']})" if manifest.get("cut_short_by") else ""
    steps = f"{training['steps']:,} steps{cut_short}"
    return f"{training['settings']['network']}, {steps}, {ranks}: {chosen}"


def _extracted(manifest: Manifest) -> str:
    return f"{manifest['counts']['views']:,} views, by {manifest['runtime']} in {manifest['precision']}"


def _classified(manifest: Manifest) -> str:
    svm = manifest["svm"]
    return f"{svm['training_views']:,} training views; SVM with {svm['kernel']} kernel and C {svm['c']:g}"


def _predicted(manifest: Manifest) -> str:
    counts = manifest["counts"]
    made = f"{counts['classified']:,} classified, {counts['quarantined']:,} quarantined"
    return f"{counts['images']:,} images: {made}; from {_from_here(manifest['inputs']['new_images'])}"


def _from_here(path: str) -> str:
    return path.removeprefix(f"{Path.cwd()}/")


_FROM_WHAT: dict[str, Callable[[Manifest], str]] = {
    "simulate": _simulated,
    "augment": _augmented,
    "train": _trained,
    "extract": _extracted,
    "classify": _classified,
    "predict": _predicted,
    "report": lambda manifest: manifest["page"],
}


def _headline(run: RunDirectory) -> list[str]:
    """The network's accuracy on the test galaxies, as far as metrics.json, perhaps of an older version, has it."""
    name = "cnn_mean16"
    try:
        metric = json.loads(run.path("metrics.json").read_text())["splits"]["test"][name]
        low, high = metric["accuracy_interval"]
        accuracy = f"accuracy {metric['accuracy']:.3f} (95%: {low:.3f}-{high:.3f})"
        return ["", f"{CLASSIFIERS[name]}: {accuracy} on {metric['n']:,} test galaxies"]
    except (FileNotFoundError, KeyError):
        return []


def _command_for(run: RunDirectory, status: StageStatus, statuses: Sequence[StageStatus]) -> str:
    """The command that runs a stage: with what it goes on with, the last time's settings, the pipeline's, or flags."""
    if status.going_on and run.has(SETTINGS_TO_GO_ON_WITH):
        settings = yaml.safe_load(run.path(SETTINGS_TO_GO_ON_WITH).read_text())
        # What of these submit.sh takes from the command line alone.
        launcher = " --launcher spark" if settings["launcher"] == "spark" else ""
        return _command(run, f"train -np {settings['ranks']}{launcher}", _config(run, SETTINGS_TO_GO_ON_WITH))
    ranks = status.manifest.get("ranks")
    if status.stage == "train" and not ranks and run.has(_PIPELINE):
        ranks = yaml.safe_load(run.path(_PIPELINE).read_text()).get("ranks")
    # Settings tell submit.sh nothing of ranks.
    stage = f"{status.stage} -np {ranks}" if ranks else status.stage
    for file in filter(run.has, (f"settings/{status.stage}.yaml", _PIPELINE)):
        return _command(run, stage, _config(run, file))
    flags = {"augment": "--images DIR --labels CSV", "predict": "--new-images DIR"}
    if any(other.stage == "simulate" for other in statuses):
        simulated = shlex.quote(str(run.place("simulated")))
        flags = {
            "augment": f"--images {simulated}/images --labels {simulated}/labels.csv",
            "predict": f"--new-images {simulated}/unlabelled",
        }
    return _command(run, stage, flags.get(status.stage, ""))


def _command(run: RunDirectory, command: str, flags: str = "") -> str:
    # Settings of a run that was copied or moved name the old place.
    return f"  ./submit.sh {' '.join(filter(None, (command, flags)))} --run {shlex.quote(str(run.root))}"


def _config(run: RunDirectory, file: str) -> str:
    return f"--config {shlex.quote(str(run.place(file)))}"
