"""Real ranks that are killed, asked to stop, or meet a number that is none; and ranks in Spark's executors."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from galaxyspark.network.checkpoints import Checkpoints

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
FLAGS = ["--weights", "none", "--network", "resnet18", "--epochs", "3", "--batch-size", "64", "--no-resume"]
_ENDS_WITHIN_S = 30
_DEADLINE_S = 200


@pytest.fixture
def run(augmented_run: Path, tmp_path: Path) -> Path:
    """A run with the views of another."""
    run = tmp_path / "a run"
    (run / "manifests").mkdir(parents=True)
    (run / "manifests" / "augment.json").write_text((augmented_run / "manifests" / "augment.json").read_text())
    (run / "views").symlink_to(augmented_run / "views")
    return run


class Training:
    """``./submit.sh train`` on two ranks, with a checkpoint after every step."""

    def __init__(self, run: Path, *flags: str) -> None:
        self.run = run
        self.terminal = run / "terminal.txt"
        environment = os.environ | {"GALAXYSPARK_READY": "1", "OMP_NUM_THREADS": "1"}
        command = [str(ROOT / "submit.sh"), "train", "-np", "2", "--run", str(run), *flags]
        with open(self.terminal, "wb") as terminal:
            self.process = subprocess.Popen(
                command, stdout=terminal, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def ranks(self) -> list[psutil.Process]:
        """The processes that train, rank 0 first."""
        ranks = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if child.name().startswith("python") and "HOROVOD_RANK" in child.environ():
                    ranks[int(child.environ()["HOROVOD_RANK"])] = child
        return [ranks[rank] for rank in sorted(ranks)]

    def wait_for_step(self, step: int) -> None:
        """Wait until a checkpoint of this step, or of a later one, is there."""
        deadline = time.monotonic() + _DEADLINE_S
        while not any(int(f.stem[5:]) >= step for f in Checkpoints(self.run / "checkpoints", 1).files()):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def end(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(_DEADLINE_S)

    def said(self) -> str:
        """All that a user has seen."""
        return self.terminal.read_text(errors="replace")


@pytest.fixture
def start(run: Path) -> Iterator[Callable[..., Training]]:
    """Starts trainings, and ends all that is left of them."""
    started: list[Training] = []

    def start(*flags: str) -> Training:
        started.append(Training(run, *flags))
        return started[-1]

    yield start
    for training in started:
        with suppress(ProcessLookupError):
            os.killpg(training.process.pid, signal.SIGKILL)


def newest(run: Path) -> dict:
    found = Checkpoints(run / "checkpoints", keep=2).newest()
    assert found is not None
    return found


def test_all_ranks_make_the_steps_that_fit_into_the_time_by_the_clock_of_one(
    run: Path, start: Callable[..., Training]
) -> None:
    flags = ["--weights", "none", "--network", "resnet18", "--epochs", "1000", "--batch-size", "16"]
    training = start(*flags, "--max-minutes", "0.2")
    assert training.end() == 0, training.said()
    content = newest(run)
    assert content["finished"]
    assert f"Training was ended by --max-minutes 0.2 after {content['step']:,} of the " in training.said()
    assert content["history"][-1]["step"] == content["step"] >= 20
    assert abs(content["training_s"] - 12) < 20 * content["training_s"] / content["step"]


def test_a_killed_rank_ends_all_and_a_rerun_ends_as_if_nothing_had_happened(
    run: Path, start: Callable[..., Training]
) -> None:
    undisturbed = start(*FLAGS)
    assert undisturbed.end() == 0, undisturbed.said()
    assert "Training was ended" not in undisturbed.said()
    expected = newest(run)
    shutil.rmtree(run / "checkpoints")

    killed = start(*FLAGS, "--checkpoint-minutes", "1e-6")
    killed.wait_for_step(3)
    ranks = killed.ranks()
    assert len(ranks) == 2
    ranks[1].kill()
    at = time.monotonic()
    assert killed.end() != 0
    assert time.monotonic() - at < _ENDS_WITHIN_S
    assert not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks)
    assert "Process name: 1\nExit code: 137\n" in killed.said()
    assert "Traceback" not in killed.said()
    assert not list(run.glob(".staging-*/model"))
    stopped_at = newest(run)["step"]
    assert 3 <= stopped_at < expected["step"]

    resumed = start(*FLAGS[:-1])
    assert resumed.end() == 0, resumed.said()
    assert f"Going on after step {stopped_at} of {expected['step']}." in resumed.said()
    found = newest(run)
    assert [row["accuracy"] for row in found["history"]] == [row["accuracy"] for row in expected["history"]]
    for name, value in expected["learner"]["network"].items():
        if "running" not in name:  # each rank has its own; rank 0's are compared by accuracy
            torch.testing.assert_close(found["learner"]["network"][name], value, rtol=1e-5, atol=1e-6, msg=name)


def terminate(training: Training) -> None:
    """As ``kill PID`` does."""
    training.process.send_signal(signal.SIGTERM)


def press_ctrl_c(training: Training) -> None:
    """A terminal sends it to all processes in the foreground."""
    os.killpg(training.process.pid, signal.SIGINT)


@pytest.mark.parametrize("ask_to_stop", [terminate, press_ctrl_c])
def test_who_asks_a_training_to_stop_gets_a_checkpoint_of_the_step(
    ask_to_stop: Callable[[Training], None], run: Path, start: Callable[..., Training]
) -> None:
    training = start(*FLAGS, "--epochs", "500", "--checkpoint-minutes", "1e-6")
    training.wait_for_step(3)
    ask_to_stop(training)
    assert training.end() != 0
    said = training.said()
    assert "Stopped after step" in said, said
    assert "Traceback" not in said
    assert "ended with an error" not in said
    step = newest(run)["step"]
    assert f"Stopped after step {step} of" in said


def test_a_loss_that_is_no_number_on_one_rank_stops_all_before_the_step(
    run: Path, start: Callable[..., Training]
) -> None:
    spoil_votes(run)
    training = start(*FLAGS, "--objective", "votes")
    assert training.end() == 1, training.said()
    assert "the loss of rank 1 is nan. Stopped before it; the last checkpoint is kept." in training.said()
    assert not (run / "model").exists()


def spoil_votes(run: Path) -> None:
    """Give every galaxy in a row group of rank 1 votes that are no numbers."""
    views = (run / "views").resolve()
    (run / "views").unlink()
    for source in views.rglob("*"):
        target = run / "views" / source.relative_to(views)
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    second = sorted((run / "views" / "split=train").glob("*.parquet"))[1]
    table = pq.read_table(second, partitioning=None)
    votes = pa.array(np.full(len(table), np.nan, np.float32))
    position = table.schema.get_field_index("Class2_1")
    pq.write_table(table.set_column(position, table.schema.field(position), votes), second)


@pytest.mark.slow
def test_ranks_in_sparks_executors_publish_the_same_model(run: Path, start: Callable[..., Training]) -> None:
    by_horovodrun = start(*FLAGS)
    assert by_horovodrun.end() == 0, by_horovodrun.said()
    expected = newest(run)["learner"]["network"]
    command = [BIN / "spark-submit", "--master", "local-cluster[2,1,1024]", "--conf", "spark.ui.enabled=false"]
    command += [ROOT / "jobs" / "train.py", "--run", run.name, *FLAGS, "--launcher", "spark", "--ranks", "2"]
    environment = os.environ | {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    environment |= {"SPARK_HOME": str(Path(__import__("pyspark").__file__).parent)}
    completed = subprocess.run(
        list(map(str, command)),
        cwd=run.parent,
        capture_output=True,
        text=True,
        timeout=400,
        env=environment,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "views/s on 2 ranks" in completed.stdout
    found = newest(run)["learner"]["network"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
