"""Publishing into a run: all of a stage's output or none of it."""

from __future__ import annotations

import json
import os
import platform
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from galaxyspark.errors import UserError
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import SimulateJob, TrainJob, TrainSettings
from galaxyspark.storage import as_url, write_atomically


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "runs" / "a run")


def publish(run: RunDirectory, content: str, stage: str = "train", **manifest: object) -> None:
    """A stage that writes a directory and a file."""
    job = TrainJob(run=run.root, train=TrainSettings(epochs=3))
    with run.stage(stage, job, {"augment": "id of the views"}) as staging:
        staging.path("model").mkdir()
        (staging.path("model") / "weights").write_text(content)
        staging.path("history.jsonl").write_text(content)
        staging.manifest = dict(manifest)


def files(run: RunDirectory) -> set[str]:
    """What is in the run, beside the (empty) locks of its stages."""
    found = (path for path in run.root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(run.root)) for path in found}


EVERYTHING = {"model/weights", "history.jsonl", "manifests/train.json", "settings/train.yaml"}


def test_a_stage_publishes_its_output_manifest_and_settings_and_nothing_else(run: RunDirectory) -> None:
    publish(run, "1", views_per_s=12.5)
    assert files(run) == EVERYTHING
    assert run.path("model").joinpath("weights").read_text() == "1"
    manifest = run.manifest("train")
    assert manifest == json.loads((run.root / "manifests" / "train.json").read_text())
    assert manifest["stage"] == "train"
    assert manifest["inputs"] == {"augment": "id of the views"}
    assert manifest["views_per_s"] == 12.5
    assert manifest["duration_s"] >= 0
    assert manifest["versions"]["python"] == platform.python_version()
    assert manifest["versions"]["torch"] == metadata.version("torch")
    saved = yaml.safe_load((run.root / "settings" / "train.yaml").read_text())
    assert (saved["run"], saved["train"]["epochs"]) == (str(run.root), 3)


def test_a_second_time_replaces_all_of_the_first(run: RunDirectory) -> None:
    publish(run, "1")
    (run.path("model") / "of the first only").touch()
    first = run.manifest("train")["id"]
    publish(run, "2")
    assert files(run) == EVERYTHING
    assert run.path("history.jsonl").read_text() == (run.path("model") / "weights").read_text() == "2"
    assert run.manifest("train")["id"] != first


@pytest.mark.parametrize("error", [ValueError, UserError, KeyboardInterrupt])
def test_a_stage_that_fails_leaves_everything_as_it_was(run: RunDirectory, error: type) -> None:
    publish(run, "1")
    before = run.manifest("train")
    with pytest.raises(error), run.stage("train", TrainJob(run=run.root), {}) as staging:
        staging.path("model").mkdir()
        raise error("broken")
    assert files(run) == EVERYTHING
    assert run.path("history.jsonl").read_text() == "1"
    assert run.manifest("train") == before


def test_a_stage_that_fails_the_first_time_is_not_published(run: RunDirectory) -> None:
    with pytest.raises(ZeroDivisionError), run.stage("train", TrainJob(run=run.root), {}) as staging:
        staging.path("history.jsonl").touch()
        raise ZeroDivisionError
    assert files(run) == set()
    assert run.published() == {}


def test_what_is_not_published_is_refused_with_what_to_run(run: RunDirectory) -> None:
    with pytest.raises(UserError, match="no such run"):
        run.manifest("augment")
    run.root.mkdir(parents=True)
    with pytest.raises(UserError) as error:
        run.manifest("augment")
    assert str(run.root) in str(error.value)
    assert "'augment' has not been published" in str(error.value)
    assert f"./submit.sh augment --run {run.root}" in str(error.value)


@pytest.mark.parametrize("failing", range(1, 12))
def test_publishing_that_fails_at_any_rename_leaves_the_old_output(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    publish(run, "1")
    before = run.manifest("train")
    rename, calls = os.rename, iter(range(1, 100))

    def fail_once(source: Path, target: Path) -> None:
        if next(calls) == failing:
            raise OSError(28, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail_once)
        # Four things move away, the new ones come, and the staged manifest and settings are not renamed in this way.
        expected = pytest.raises(OSError, match="No space") if failing <= 8 else nullcontext()
        with expected:
            publish(run, "2")
    assert files(run) == EVERYTHING
    content = "1" if failing <= 8 else "2"
    assert (run.path("model") / "weights").read_text() == run.path("history.jsonl").read_text() == content
    assert (run.manifest("train") == before) == (failing <= 8)


def test_what_a_stage_no_longer_writes_goes_with_what_it_replaces(run: RunDirectory) -> None:
    with run.stage("train", TrainJob(run=run.root), {}) as staging:
        staging.path("preview.png").touch()
    publish(run, "2")
    assert files(run) == EVERYTHING


def test_leftovers_of_a_killed_attempt_are_removed_but_not_those_of_another_stage(run: RunDirectory) -> None:
    publish(run, "0")
    for leftover in (".staging-train-0123abcd", ".replaced-train-0123abcd", ".staging-extract-0123abcd"):
        (run.root / leftover).mkdir(parents=True)
        (run.root / leftover / "part-0").touch()
    (run.root / ".replaced-train-4567cdef").touch()
    publish(run, "1")
    assert files(run) == EVERYTHING | {".staging-extract-0123abcd/part-0"}


def test_published_stages_come_in_the_order_of_the_pipeline(run: RunDirectory) -> None:
    for stage in ("extract", "simulate", "train"):
        with run.stage(stage, SimulateJob(run=run.root), {}) as staging:
            staging.manifest = {"of": stage}
    assert [(stage, manifest["of"]) for stage, manifest in run.published().items()] == [
        (stage, stage) for stage in ("simulate", "train", "extract")
    ]


def test_a_run_stays_where_it_is_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunDirectory(Path("run"))
    monkeypatch.chdir("/")
    assert run.path("views") == tmp_path / "run" / "views"


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.one_of(st.text(st.characters(codec="utf-8")), st.binary()))
def test_what_is_written_atomically_is_read_back(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "new" / "file"
    write_atomically(file, content)
    assert file.read_bytes() == (content if isinstance(content, bytes) else content.encode("utf-8"))
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_a_write_that_breaks_off_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "file"
    file.write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, "new")
    assert file.read_text() == "old"


def test_a_url_keeps_the_path_as_it_is() -> None:
    assert as_url(Path("/data/a run/50% #1")) == "file:///data/a run/50% #1"


def publish_from(run: RunDirectory, stage: str, **inputs: str) -> str:
    with run.stage(stage, TrainJob(run=run.root), inputs):
        pass
    return run.manifest(stage)["id"]


def test_a_stage_is_refused_where_what_it_had_read_was_replaced(run: RunDirectory) -> None:
    train = publish_from(run, "train", augment=publish_from(run, "augment"))
    publish_from(run, "extract", train=train)
    run.require_current("train", "extract")
    publish_from(run, "train", augment=run.manifest("augment")["id"])
    assert run.outdated() == [("extract", "train")]
    run.require_current("train")
    with pytest.raises(
        UserError, match=r"'train' was run again after 'extract'. .*./submit.sh extract --config '/.*extract.yaml'"
    ):
        run.require_current("train", "extract")


def test_two_processes_do_not_publish_one_stage_at_a_time(run: RunDirectory) -> None:
    with run.stage("train", TrainJob(run=run.root), {}) as first:
        with pytest.raises(UserError, match="another process is running stage 'train' in this run"):
            publish_from(run, "train")
        publish_from(run, "extract")
        (first.path("model")).mkdir()
    assert run.path("model").is_dir()


@pytest.mark.parametrize("path", ["runs/a#2", "runs/[a]", "runs/what?", "runs/*"])
def test_a_run_has_no_characters_that_spark_and_petastorm_give_a_meaning(path: str) -> None:
    with pytest.raises(UserError, match="--run .*: must be without any of"):
        RunDirectory(Path(path))


def test_a_run_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a directory"):
        RunDirectory(tmp_path / "file")
