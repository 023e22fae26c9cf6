"""Runs behind a URL: here a disk's; test_runs_elsewhere.py has an object store and HDFS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from galaxyspark.errors import UserError
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import TrainJob

# Stages a model and is then killed, or told to go on and publish.
WRITER = """
import sys
from pathlib import Path
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import TrainJob

root, content = Path(sys.argv[1]), sys.argv[2]
with RunDirectory(root).stage("train", TrainJob(run=root), {}) as staging:
    staging.path("model").mkdir()
    (staging.path("model") / "weights").write_text(content)
    print("staged", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What the flag --run makes of a file:// URL."""
    return Path(f"file://{tmp_path}/run")


def publish(root: Path, content: str, name: str = "model") -> None:
    with RunDirectory(root).stage("train", TrainJob(run=root), {}) as staging:
        staging.path(name).mkdir()
        (staging.path(name) / "weights").write_text(content)


def weights(root: Path) -> str:
    return (RunDirectory(root).path("model") / "weights").read_text()


@pytest.fixture
def writer(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has staged ``half`` and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), "half"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "staged\n"
    yield process
    process.kill()
    process.communicate()


def attempts(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "run" / "stages").glob("*"))


def test_what_is_published_is_read_back_and_says_where_it_lies(root: Path, tmp_path: Path) -> None:
    publish(root, "first")
    run = RunDirectory(root)
    [attempt] = attempts(tmp_path)
    assert weights(root) == "first"
    assert run.place("model") == f"file://{tmp_path}/run/stages/{attempt}/model"
    assert json.loads((tmp_path / "run" / "manifests" / "train.json").read_text()) == run.manifest("train")
    assert run.path("settings/train.yaml").is_file() and run.has("model/weights") and not run.has("views")


def test_a_second_time_replaces_the_first_also_for_who_has_read_it(root: Path, tmp_path: Path) -> None:
    publish(root, "first")
    reader = RunDirectory(root)
    old = reader.path("model") / "weights"
    publish(root, "second")
    assert (old.read_text(), (reader.path("model") / "weights").read_text()) == ("first", "second")
    assert len(attempts(tmp_path)) == 1


def test_what_a_stage_no_longer_writes_is_gone(root: Path) -> None:
    publish(root, "first")
    publish(root, "second", name="other")
    assert not RunDirectory(root).has("model")


def test_an_error_leaves_the_old_output_and_nothing_else(root: Path, tmp_path: Path) -> None:
    publish(root, "first")
    with pytest.raises(ZeroDivisionError), RunDirectory(root).stage("train", TrainJob(run=root), {}) as staging:
        staging.path("model").mkdir()
        raise ZeroDivisionError
    assert weights(root) == "first"
    assert len(attempts(tmp_path)) == 1


def test_a_killed_writer_changes_nothing_for_readers(root: Path, tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    publish(root, "first")
    before = RunDirectory(root).manifest("train")
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert weights(root) == "first"
    assert RunDirectory(root).manifest("train") == before
    publish(root, "second")
    assert weights(root) == "second"


def test_of_two_writers_the_last_is_read_and_whole(root: Path, writer: subprocess.Popen[str]) -> None:
    publish(root, "meanwhile")
    assert weights(root) == "meanwhile"
    writer.communicate("go on\n")
    assert writer.returncode == 0
    assert weights(root) == "half"


def test_an_attempt_that_nothing_names_is_removed_when_it_is_a_week_old(root: Path, tmp_path: Path) -> None:
    publish(root, "first")
    [published] = attempts(tmp_path)
    ages = {"old": timedelta(days=8), "young": timedelta(days=6)}
    for name, age in ages.items():
        time_of = (datetime.now(UTC) - age).strftime("%Y%m%dT%H%M%S")
        file = tmp_path / "run" / "stages" / f"train-{time_of}-{name}" / "model" / "weights"
        file.parent.mkdir(parents=True)
        file.write_text(name)
    other = tmp_path / "run" / "stages" / "extract-20200101T000000-old" / "features"
    other.mkdir(parents=True)
    (other / "part").touch()
    publish(root, "second")
    left = [name.rpartition("-")[2] for name in attempts(tmp_path)]
    assert "young" in left and published not in attempts(tmp_path)
    assert [name for name in attempts(tmp_path) if name.endswith("-old")] == ["extract-20200101T000000-old"]


def test_what_no_stage_publishes_is_kept_and_what_is_gone_is_removed(root: Path, tmp_path: Path) -> None:
    run = RunDirectory(root)
    directory = run.path("checkpoints")
    directory.mkdir(parents=True)
    for step in (1, 2):
        (directory / f"step-{step}.pt").write_text(str(step))
    run.keep("checkpoints")
    (tmp_path / "run" / "checkpoints" / "another's").touch()
    (directory / "step-1.pt").unlink()
    time.sleep(0.01)
    (directory / "step-2.pt").write_text("changed")
    run.keep("checkpoints")
    kept = {path.name: path.read_text() for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {"step-2.pt": "changed", "another's": ""}
    elsewhere = RunDirectory(root).path("checkpoints")
    assert (elsewhere / "step-2.pt").read_text() == "changed"


def test_only_what_is_asked_for_is_copied(root: Path) -> None:
    with RunDirectory(root).stage("train", TrainJob(run=root), {}) as staging:
        for name in ("large", "small"):
            (staging.path("model") / name).mkdir(parents=True)
            (staging.path("model") / name / "file").write_text(name)
    run = RunDirectory(root)
    small = run.path("model/small")
    assert (small / "file").read_text() == "small" and not (small.parent / "large").exists()
    assert (run.path("model") / "large" / "file").read_text() == "large"


def test_a_run_of_a_disk_and_one_behind_a_url_are_not_taken_for_each_other(root: Path, tmp_path: Path) -> None:
    publish(tmp_path / "disk", "on a disk")
    with pytest.raises(UserError, match="was published on a disk.*by its path"):
        RunDirectory(Path(f"file://{tmp_path}/disk")).published()
    publish(root, "behind a URL")
    with pytest.raises(UserError, match=f"was published behind a URL.*--run file://{tmp_path}/run"):
        RunDirectory(tmp_path / "run").published()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://sky/run", "s3a://"),
        ("hdfs:///run", "HOST:PORT"),
        ("hdfs://namenode/run", "HOST:PORT"),
        ("nothing://sky/run", "cannot be read from Python"),
    ],
)
def test_urls_that_cannot_be_a_run(url: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        RunDirectory(Path(url))


def test_a_storage_that_does_not_answer_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    with pytest.raises(UserError, match=r"--run s3a://sky/run: cannot be reached \(Could not connect"):
        RunDirectory(Path("s3a://sky/run"))
