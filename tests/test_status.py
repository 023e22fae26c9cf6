"""Where a run stands: states of real stages, also of such that run, or were killed, in other processes."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from galaxyspark.command_line import parse, to_yaml
from galaxyspark.network.progress import Progress, write_progress
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import (
    STAGES,
    AugmentJob,
    PipelineJob,
    PredictJob,
    RunSettings,
    SimulateJob,
    TrainJob,
    TrainSettings,
)
from galaxyspark.status import from_what, show_status, stage_statuses

ROOT = Path(__file__).parent.parent
HOLD = """
import sys
from pathlib import Path
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import RunSettings
with RunDirectory(Path(sys.argv[1])).stage(sys.argv[2], RunSettings(run=Path(sys.argv[1])), {}) as staging:
    staging.path("half of it").touch()
    print("running", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "a run")
    run.root.mkdir()
    return run


@pytest.fixture
def hold(run: RunDirectory) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a process that is in the middle of a stage until its input ends."""
    started: list[subprocess.Popen[str]] = []

    def hold(stage: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(run.root), stage]
        process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def publish(run: RunDirectory, stage: str, *reads: str, job: RunSettings | None = None, **manifest: object) -> None:
    """Run a stage that reads what the stages ``reads`` have published."""
    inputs = {earlier: run.manifest(earlier)["id"] for earlier in reads}
    inputs |= {name: getattr(job, name) for name in ("images", "new_images") if hasattr(job, name)}
    with run.stage(stage, job or RunSettings(run=run.root), inputs) as staging:
        staging.manifest = manifest


def publish_some(run: RunDirectory) -> None:
    publish(run, "augment", job=AugmentJob(run=run.root, images="/sky/images", labels="/sky/votes.csv"))
    publish(run, "train", "augment", job=TrainJob(run=run.root, train=TrainSettings(epochs=7)), ranks=3)
    publish(run, "extract", "augment", "train")
    publish(run, "classify", "extract")


def states(run: RunDirectory) -> dict[str, str]:
    return {status.stage: status.state for status in stage_statuses(run)}


def remarks(run: RunDirectory, stage: str) -> list[str]:
    [found] = [status for status in stage_statuses(run) if status.stage == stage]
    return list(found.remarks)


def commands(lines: Sequence[str]) -> list[list[str]]:
    """The commands that are proposed, as a shell takes them apart."""
    return [shlex.split(line) for line in lines if line.startswith("  ./submit.sh")]


def row(lines: Sequence[str], stage: str) -> list[str]:
    [found] = [line for line in lines if line.startswith(f"{stage} ")]
    return re.split(r"  +", found)


def test_in_an_empty_directory_nothing_is_done_and_both_ways_to_begin_are_shown(run: RunDirectory) -> None:
    assert states(run) == dict.fromkeys(STAGES, "not yet")
    own, simulated = commands(show_status(run.root))
    assert own[:2] == ["./submit.sh", "augment"]
    assert parse(AugmentJob, own[2:]) == AugmentJob(run=run.root, images="DIR", labels="CSV")
    assert simulated[:2] == ["./submit.sh", "simulate"]
    assert parse(SimulateJob, simulated[2:]) == SimulateJob(run=run.root)


def test_a_run_of_ones_own_images_has_no_simulated_galaxies(run: RunDirectory) -> None:
    publish_some(run)
    done = ("augment", "train", "extract", "classify")
    assert states(run) == {stage: "done" if stage in done else "not yet" for stage in STAGES if stage != "simulate"}


@pytest.mark.parametrize(("stages", "images"), [([], "/another/simulated/images"), (["simulate"], "/sky/images")])
def test_neither_has_one_that_took_those_of_another_run_or_turned_to_ones_own(
    stages: list[str], images: str, run: RunDirectory
) -> None:
    for stage in stages:
        publish(run, stage)
    publish(run, "augment", job=AugmentJob(run=run.root, images=images, labels="/sky/votes.csv"))
    assert "simulate" not in states(run)


def test_a_simulated_run_goes_on_with_its_own_galaxies_even_when_it_was_moved(run: RunDirectory) -> None:
    publish(run, "simulate")
    [augment] = commands(show_status(run.root))
    job = parse(AugmentJob, augment[2:])
    simulated = run.path("simulated")
    assert (job.images, job.labels) == (f"{simulated}/images", f"{simulated}/labels.csv")
    publish(run, "augment", job=job)
    moved = run.root.rename(run.root.with_name("moved"))
    assert states(RunDirectory(moved))["simulate"] == "done"


def test_what_builds_on_a_stage_that_was_run_again_is_outdated_and_so_is_what_builds_on_that(
    run: RunDirectory,
) -> None:
    publish_some(run)
    publish(run, "train", "augment")
    assert [states(run)[stage] for stage in ("augment", "train", "extract", "classify")] == [
        "done",
        "done",
        "outdated",
        "outdated",
    ]
    assert remarks(run, "extract") == ["run again since: train"]
    assert remarks(run, "classify") == ["built on what is outdated: extract"]
    publish(run, "extract", "augment", "train")
    assert remarks(run, "classify") == ["run again since: extract"]


def test_an_outdated_stage_is_to_be_run_with_its_settings_and_ranks_where_the_run_lies_now(run: RunDirectory) -> None:
    publish_some(run)
    publish(run, "augment", job=AugmentJob(run=run.root, images="/sky/images", labels="/sky/votes.csv"))
    moved = run.root.rename(run.root.with_name("another's run"))
    [train] = commands(show_status(moved))
    assert train[:4] == ["./submit.sh", "train", "-np", "3"]
    assert parse(TrainJob, train[4:]) == TrainJob(run=moved, train=TrainSettings(epochs=7))


def test_a_pipeline_can_be_gone_on_with(run: RunDirectory) -> None:
    publish_some(run)
    pipeline = PipelineJob(run=run.root, images="i", labels="l", new_images="/sky/new", seed=5)
    (run.path("settings") / "pipeline.yaml").write_text(yaml.safe_dump({"new_images": "/sky/new", "seed": 5}))
    stage, everything = commands(show_status(run.root))
    assert stage[1] == "predict"
    assert parse(PredictJob, stage[2:]) == PredictJob(run=run.root, new_images="/sky/new", seed=5)
    job = parse(PipelineJob, everything[2:])
    assert (job.run, job.start_at, job.new_images, job.seed) == (run.root, "predict", "/sky/new", pipeline.seed)


def test_a_training_that_the_pipeline_did_not_come_to_has_the_pipelines_ranks(run: RunDirectory) -> None:
    publish(run, "augment")
    job = PipelineJob(run=run.root, images="i", labels="l", ranks=3)
    (run.path("settings") / "pipeline.yaml").write_text(to_yaml(job))
    assert commands(show_status(run.root))[0][:4] == ["./submit.sh", "train", "-np", "3"]


def test_a_stage_runs_as_long_as_its_process_holds_the_lock_and_has_stopped_when_that_was_killed(
    run: RunDirectory, hold: Callable[[str], subprocess.Popen[str]]
) -> None:
    publish(run, "augment", job=AugmentJob(run=run.root, images="/sky/images", labels="/sky/votes.csv"))
    assert states(run)["train"] == "not yet"
    process = hold("train")
    assert states(run)["train"] == "running"
    assert show_status(run.root)[-1] == "Next: wait for train, which is running."
    process.kill()
    process.wait()
    assert states(run)["train"] == "stopped"
    assert remarks(run, "train") == ["broke off, nothing is published"]
    assert [command[1] for command in commands(show_status(run.root))] == ["train"]
    publish(run, "train", "augment")
    assert (states(run)["train"], remarks(run, "train")) == ("done", [])


def test_what_was_published_before_stays_in_force_while_a_stage_runs_again_and_when_that_is_killed(
    run: RunDirectory, hold: Callable[[str], subprocess.Popen[str]]
) -> None:
    publish_some(run)
    process = hold("classify")
    assert (states(run)["classify"], remarks(run, "classify")) == (
        "running",
        ["what was published before stays until it ends"],
    )
    assert row(show_status(run.root), "classify")[2].endswith("UTC")
    process.kill()
    process.wait()
    assert (states(run)["classify"], remarks(run, "classify")) == ("done", ["a later attempt broke off"])


def test_to_look_changes_nothing_in_the_run(
    run: RunDirectory, hold: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    publish_some(run)
    hold("train")

    def everything() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (run.root, *run.root.rglob("*"))}

    before = everything()
    show_status(run.root)
    assert everything() == before


def test_who_looks_keeps_no_stage_from_starting(run: RunDirectory) -> None:
    publish(run, "extract")
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            run.is_running("extract")

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(30):
            publish(run, "extract")
    finally:
        ended.set()
        watcher.join()
    assert states(run)["extract"] == "done"


def write_checkpoint(run: RunDirectory, step: int, job: TrainJob | None = None, **other: Any) -> None:
    told: dict[str, Any] = {"views": run.manifest("augment")["id"], "finished": False} | other
    progress = Progress(**told, step=step, steps_per_epoch=100, total_steps=3_000, history=[])
    write_progress(run.path("checkpoints"), progress, job or TrainJob(run=run.root))


def test_a_training_that_was_asked_to_stop_is_shown_with_how_far_it_has_come(run: RunDirectory) -> None:
    publish(run, "augment", job=AugmentJob(run=run.root, images="/sky/images", labels="/sky/votes.csv"))
    write_checkpoint(run, 250)
    assert states(run)["train"] == "stopped"
    progress = (
        r"with checkpoints/settings.yaml it goes on from epoch 3 of 30, step 250 of 3,000; "
        r"the newest checkpoint is \d s old"
    )
    stopped, where = remarks(run, "train")
    assert stopped == "was stopped, nothing is published"
    assert re.fullmatch(progress, where)
    publish(run, "train", "augment")
    assert (states(run)["train"], remarks(run, "train")[0]) == ("done", "a later attempt was stopped")
    settings = str(run.path("checkpoints/settings.yaml"))
    extract, go_on = commands(show_status(run.root))
    assert extract[1] == "extract"
    assert go_on == ["./submit.sh", "train", "-np", "2", "--config", settings, "--run", str(run.root)]


def test_a_training_that_was_stopped_goes_on_with_its_own_settings_and_ranks(run: RunDirectory) -> None:
    publish(run, "augment", job=AugmentJob(run=run.root, images="/sky/images", labels="/sky/votes.csv"))
    publish(run, "train", "augment", ranks=2)
    publish(run, "augment", job=AugmentJob(run=run.root, images="/sky/images", labels="/sky/votes.csv"))
    settings = PipelineJob(run=run.root, images="/sky/images", labels="/sky/votes.csv", train=TrainSettings(epochs=9))
    run.path("settings/pipeline.yaml").write_text(to_yaml(settings))
    asked = TrainJob(run=run.root, ranks=3, train=TrainSettings(weights="none", epochs=7, resume=False))
    write_checkpoint(run, 250, asked)
    lines = show_status(run.root)
    command, afterwards = commands(lines)
    assert command[:5] == ["./submit.sh", "train", "-np", "3", "--config"]
    again = parse(TrainJob, command[4:])
    # To resume is not as it was asked for: that would start over.
    assert again == dataclasses.replace(asked, train=TrainSettings(weights="none", epochs=7, resume=True))
    assert lines[-2] == "and then all that comes after it:"
    assert afterwards[:4] == ["./submit.sh", "pipeline", "--start-at", "extract"]


def test_a_training_in_executors_goes_on_there(run: RunDirectory) -> None:
    publish(run, "augment", job=AugmentJob(run=run.root, images="/sky/images", labels="/sky/votes.csv"))
    write_checkpoint(run, 250, TrainJob(run=run.root, ranks=2, launcher="spark"))
    [command] = commands(show_status(run.root))
    assert command[:7] == ["./submit.sh", "train", "-np", "2", "--launcher", "spark", "--config"]


@pytest.mark.parametrize("ranks", [None, 2])
def test_of_a_checkpoint_of_an_older_version_settings_and_ranks_are_those_published(
    ranks: int | None, run: RunDirectory
) -> None:
    publish(run, "augment", job=AugmentJob(run=run.root, images="/sky/images", labels="/sky/votes.csv"))
    if ranks:
        publish(run, "train", "augment", ranks=ranks)
        publish(run, "augment", job=AugmentJob(run=run.root, images="/sky/images", labels="/sky/votes.csv"))
    write_checkpoint(run, 250)
    run.path("checkpoints/settings.yaml").unlink()
    expected = ["-np", str(ranks), "--config", f"{run.root}/settings/train.yaml"] if ranks else []
    assert commands(show_status(run.root)) == [["./submit.sh", "train", *expected, "--run", str(run.root)]]
    assert remarks(run, "train")[-1].startswith("with the same settings it goes on from epoch 3 of 30")


def test_a_running_training_is_shown_with_how_far_it_has_come(
    run: RunDirectory, hold: Callable[[str], subprocess.Popen[str]]
) -> None:
    publish(run, "augment", job=AugmentJob(run=run.root, images="/sky/images", labels="/sky/votes.csv"))
    hold("train")
    assert remarks(run, "train") == []
    write_checkpoint(run, 100)
    [where] = remarks(run, "train")
    assert where.startswith("epoch 1 of 30, step 100 of 3,000; the newest checkpoint is")


@pytest.mark.parametrize("other", [{"finished": True}, {"views": "others, replaced since"}])
def test_checkpoints_that_training_would_not_go_on_from_are_not_its_progress(run: RunDirectory, other: dict) -> None:
    publish(run, "augment", job=AugmentJob(run=run.root, images="/sky/images", labels="/sky/votes.csv"))
    write_checkpoint(run, 250, **other)
    assert (states(run)["train"], remarks(run, "train")) == ("not yet", [])


def test_a_finished_run_says_how_good_it_is_and_what_to_look_at(run: RunDirectory) -> None:
    for stage in STAGES:
        publish(run, stage)
    metric = {"n": 1234, "accuracy": 0.9123, "accuracy_interval": [0.8641, 0.952]}
    metrics = {"splits": {"test": {"cnn_mean16": metric, "svm_mean16": {}}}}
    run.path("metrics.json").write_text(json.dumps(metrics))
    run.path("catalogue.csv").touch()
    lines = show_status(run.root)
    assert lines[-3:] == [
        "All is done. Look at:",
        f"  {run.path('catalogue.csv')}",
        f"  {run.path('metrics.json')}",
    ]
    [headline] = [line for line in lines if "1,234 test galaxies" in line]
    assert headline == "CNN, mean of 16 views: accuracy 0.912 (95%: 0.864-0.952) on 1,234 test galaxies"


@pytest.mark.parametrize(
    ("ago", "shown"),
    [
        (timedelta(seconds=40), "40 s"),
        (timedelta(minutes=44, seconds=10), "44 min"),
        (timedelta(hours=3, minutes=5), "3 h"),
        (timedelta(days=5, hours=1), "5 days"),
        (timedelta(seconds=-40), "0 s"),  # the clock of another machine
    ],
)
def test_a_row_says_when_how_long_and_how_fast(run: RunDirectory, ago: timedelta, shown: str) -> None:
    published = datetime.now(UTC) - ago
    rate = {"per_s": 1379.3, "unit": "views"}
    publish(run, "augment", published=published.isoformat(), duration_s=92.0, rate=rate, counts={})
    found = row(show_status(run.root), "augment")
    assert found[:3] == ["augment", "done", published.strftime("%Y-%m-%d %H:%M UTC")]
    number, unit = shown.split()
    assert found[3].endswith(f" {unit}")
    assert abs(int(found[3].split()[0]) - int(number)) <= 1  # a second or two may have passed
    assert found[4:] == ["1 min 32 s", "1,379 views/s"]


COUNTS = {
    "augment": {"counts": {"images": 1203, "galaxies": 1200, "quarantined": 3, "views": {"train": 19000, "test": 200}}},
    "train": {
        "ranks": 2,
        "training": {
            "settings": {"network": "resnet18"},
            "steps": 2945,
            "chosen": {"epoch": 4, "accuracy": 0.8886},
        },
    },
    "extract": {"counts": {"views": 18384}, "runtime": "openvino", "precision": "bfloat16"},
    "classify": {"svm": {"training_views": 6672, "kernel": "rbf", "c": 0.1}},
}


def publish_with_counts(run: RunDirectory) -> None:
    publish(run, "augment", job=AugmentJob(run=run.root, images="/sky/images", labels="l"), **COUNTS["augment"])
    for stage in ("train", "extract", "classify"):
        publish(run, stage, **COUNTS[stage])
    counts = {"images": 100, "classified": 99, "quarantined": 1}
    publish(run, "predict", job=PredictJob(run=run.root, new_images="/sky/new"), counts=counts)
    publish(run, "report", page="report/index.html")


def test_what_cut_training_short_stands_beside_its_steps() -> None:
    told = from_what("train", COUNTS["train"] | {"cut_short_by": "--max-minutes 10"})
    assert told == "resnet18, 2,945 steps (ended by --max-minutes 10), 2 ranks: epoch 4, validation accuracy 0.889"


def test_under_each_row_stands_what_the_stage_was_made_from(run: RunDirectory, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    publish_with_counts(run)
    lines = [line.strip() for line in show_status(run.root)]
    for expected in (
        "1,203 images, 3 quarantined: 19,200 views of 1,200 galaxies; from /sky/images",
        "resnet18, 2,945 steps, 2 ranks: epoch 4, validation accuracy 0.889",
        "18,384 views, by openvino in bfloat16",
        "6,672 training views; SVM with rbf kernel and C 0.1",
        "100 images: 99 classified, 1 quarantined; from /sky/new",
        "report/index.html",
    ):
        assert expected in lines


def test_no_line_of_the_table_is_wider_than_the_terminal(run: RunDirectory, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    publish_with_counts(run)
    images = "/archive/of-cutouts/" + "-".join(["survey"] * 6)
    publish(run, "augment", job=AugmentJob(run=run.root, images=images, labels="l"), **COUNTS["augment"])
    publish(run, "train", "augment", duration_s=37_800.0, rate={"per_s": 1234.5, "unit": "galaxies"}, **COUNTS["train"])
    lines = show_status(run.root)
    table = lines[2 : lines.index("Next:")]
    assert max(map(len, table)) <= 80
    assert any(images in line for line in table)
    assert "10 h 30 min" in "\n".join(table)
    assert "validation accuracy 0.889" in " ".join(" ".join(table).split())


@pytest.mark.parametrize("content", [{}, {"inputs": {}}, {"counts": 5, "rate": None, "svm": "rbf", "training": []}])
def test_manifests_of_older_versions_may_lack_anything(run: RunDirectory, content: dict) -> None:
    run.path("manifests").mkdir()
    for stage in STAGES:
        (run.path("manifests") / f"{stage}.json").write_text(json.dumps(content))
    run.path("metrics.json").write_text(json.dumps({"splits": {"test": {"svm_mean16": {}, "cnn_mean16": {}}}}))
    lines = show_status(run.root)
    assert [row(lines, stage)[1] for stage in STAGES if stage in states(run)] == ["done"] * len(states(run))


def test_the_command_takes_the_run_by_itself(run: RunDirectory, run_submit, run_command) -> None:
    publish_some(run)
    shown = [run_submit("status", run.root), run_submit("status", "--verbose", run.root)]
    shown.append(run_command("python", ROOT / "jobs" / "status.py", run.root))
    for completed in shown:
        assert (completed.returncode, completed.stderr) == (0, "")
        assert row(completed.stdout.splitlines(), "train")[1] == "done"
        assert commands(completed.stdout.splitlines())[0][1] == "predict"


def test_a_directory_that_is_not_there_is_one_message_and_status_2(run_submit, tmp_path: Path) -> None:
    completed = run_submit("status", tmp_path / "nowhere")
    assert completed.returncode == 2
    assert f"status: {tmp_path}/nowhere: no such run" in completed.stderr
    assert "Traceback" not in completed.stderr
    assert not (tmp_path / "nowhere").exists()


def test_without_a_run_the_usage_is_shown(run_submit) -> None:
    completed = run_submit("status")
    assert completed.returncode == 2
    assert "Run directory." in completed.stdout + completed.stderr
    assert "Traceback" not in completed.stdout + completed.stderr


def test_it_starts_without_what_takes_seconds_to_load() -> None:
    script = "import sys, galaxyspark.status; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    slow = {"torch", "horovod", "pyspark", "pyarrow", "matplotlib", "sklearn", "numpy", "cv2"}
    assert not slow & set(loaded.stdout.split())
