"""What is published is whole or absent, never mixed, and what was published before outlives an attempt that fails."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import TrainJob
from tests.dataset.digest import differences, digest
from tests.dataset.job_process import JobProcess, started_augment


@pytest.fixture
def published_run(undisturbed, tmp_path: Path) -> Path:
    """A copy of the undisturbed run, for an overwrite that is."""
    return Path(shutil.copytree(undisturbed.run, tmp_path / "a run"))


def manifest_of(run: Path) -> bytes:
    return (run / "manifests" / "augment.json").read_bytes()


def leftovers(run: Path) -> list[str]:
    """What stages keep in a run while they work. (Parquet's own hidden files are deeper down.)"""
    return sorted(
        str(path.relative_to(run)) for place in (".", "manifests", "settings") for path in run.glob(f"{place}/.*")
    )


@pytest.mark.slow
@pytest.mark.parametrize("victim", [JobProcess.driver, JobProcess.java], ids=["Python driver", "JVM"])
def test_a_driver_killed_in_mid_job_leaves_the_old_views_and_the_next_run_replaces_them(
    victim, published_run: Path, undisturbed, undisturbed_of_seed_2, many_galaxies: Path, tmp_path: Path
) -> None:
    before = manifest_of(published_run)
    with started_augment(published_run, many_galaxies, tmp_path, seed=2) as job:
        job.wait_for_a_worker_at_work()
        victim(job).kill()
        assert job.wait() != 0
        job.wait_until_all_processes_are_gone()
    assert manifest_of(published_run) == before
    assert differences(digest(published_run), undisturbed.rows) == []

    with started_augment(published_run, many_galaxies, tmp_path, seed=2) as job:
        assert job.wait() == 0, job.shown()
        job.wait_until_all_processes_are_gone()
    assert manifest_of(published_run) != before
    assert differences(digest(published_run), undisturbed_of_seed_2.rows) == []
    assert leftovers(published_run) == []


@pytest.fixture
def run_on_a_full_disk(undisturbed, tmp_path: Path) -> Iterator[Path]:
    """A copy of the undisturbed run on a file system of its own, which has room for a part of a second one only."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    pages = sum(-(-path.stat().st_size // 4096) for path in undisturbed.run.rglob("*"))
    options = f"size={4096 * pages + 2**20}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"root cannot mount a file system here: {mounted.stderr}")
    try:
        yield Path(shutil.copytree(undisturbed.run, disk / "a run"))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_said_in_plain_words_and_leaves_the_old_views(
    run_on_a_full_disk: Path, undisturbed, many_galaxies: Path, tmp_path: Path
) -> None:
    before = manifest_of(run_on_a_full_disk)
    with started_augment(run_on_a_full_disk, many_galaxies, tmp_path, seed=2) as job:
        assert job.wait() != 0
        job.wait_until_all_processes_are_gone()
    assert manifest_of(run_on_a_full_disk) == before
    assert differences(digest(run_on_a_full_disk), undisturbed.rows) == []
    assert leftovers(run_on_a_full_disk) == []
    # Spark has its say too, but not Python's stack of calls, and one line is for the person.
    assert re.search("^augment: .*No space left on device", job.shown(), re.MULTILINE), job.shown()
    assert "Traceback" not in job.shown()
    assert "Py4JJavaError" not in job.shown()


@pytest.mark.slow
def test_of_two_runs_at_a_time_one_publishes_and_the_other_says_why_not(
    published_run: Path, undisturbed_of_seed_2, many_galaxies: Path, tmp_path: Path
) -> None:
    with started_augment(published_run, many_galaxies, tmp_path, seed=2) as first:
        first.wait_for_a_worker_at_work()
        held = first.workers()
        for worker in held:
            worker.suspend()  # so that the first is in the middle of it for as long as the second takes
        with started_augment(published_run, many_galaxies, tmp_path, seed=3) as second:
            assert second.wait() == 2, second.shown()
        assert first.submitted.poll() is None
        for worker in held:
            worker.resume()
        assert first.wait() == 0, first.shown()
    noise = "WARNING: Using incubator modules"  # of the JVM, which submit.sh keeps off the terminal
    said = [line for line in second.shown().splitlines() if line and not line.startswith(noise)]
    assert said == [f"augment: {published_run}: another process is running stage 'augment' in this run."]
    assert differences(digest(published_run), undisturbed_of_seed_2.rows) == []
    assert leftovers(published_run) == []


CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}
"""What Python announces before it changes a directory; os.rename is os.replace too, and os.remove is os.unlink."""


def kill_before_change(number: int) -> None:
    """From now on SIGKILL ends this process before the n-th change that it makes to the disk."""
    num_changes = count(1)

    def kill(event: str, details: tuple[Any, ...]) -> None:
        changes = event in CHANGES or (event == "open" and details[2] & (os.O_WRONLY | os.O_RDWR))
        if changes and next(num_changes) == number:
            print(f"change {number}: {event} {details[:2]}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)


def publish(root: Path, content: str, kill_before: int = 0) -> None:
    """Publish a small stage of a directory and a file."""
    with RunDirectory(root).stage("train", TrainJob(run=root), {}) as staging:
        staging.path("model").mkdir()
        for name in ("weights", "card"):
            (staging.path("model") / name).write_text(content)
        staging.path("history.jsonl").write_text(content)
        staging.manifest = {"content": content}
        if kill_before:
            kill_before_change(kill_before)


def start_in_vain(root: Path, kill_before: int = 0) -> None:
    """The same stage, which this time has nothing to publish: it fails at once."""
    if kill_before:
        kill_before_change(kill_before)
    with suppress(ZeroDivisionError), RunDirectory(root).stage("train", TrainJob(run=root), {}):
        raise ZeroDivisionError


def is_killed(function: Callable[..., None], *arguments: object) -> bool:
    """Call a function in a process of its own: whether that was killed."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def contents(root: Path) -> dict[str, str | None]:
    """Of every published output, and what the manifest says it is; None where there is none."""
    manifest = RunDirectory(root).published().get("train", {})
    outputs = {name: root / name for name in ("model/weights", "model/card", "history.jsonl")}
    found = {name: file.read_text() if file.exists() else None for name, file in outputs.items()}
    return found | {"manifest": manifest.get("content")}


def is_mixed(found: dict[str, str | None]) -> bool:
    return len(set(found.values())) > 1


@pytest.mark.parametrize("before", ["old", None])
def test_publishing_killed_anywhere_is_all_old_or_all_new_when_the_stage_starts_again(
    before: str | None, tmp_path: Path
) -> None:
    mixed_at_once, mixed_afterwards, left_over = {}, {}, {}
    for kill_before in count(1):
        root = tmp_path / str(kill_before)
        if before:
            publish(root, before)
        if not is_killed(publish, root, "new", kill_before):
            assert set(contents(root).values()) == {"new"}
            break
        # Without a manifest the outputs are refused by whoever wants to read them, so they may be anything.
        if is_mixed(found := contents(root)) and found["manifest"]:
            mixed_at_once[kill_before] = found
        start_in_vain(root)
        if is_mixed(found := contents(root)) or (before and not found["manifest"]):
            mixed_afterwards[kill_before] = found
        publish(root, "newest")
        assert set(contents(root).values()) == {"newest"}
        if leftovers(root):
            left_over[kill_before] = leftovers(root)
    assert kill_before > 5, "publishing takes more changes than that"
    assert (mixed_at_once, mixed_afterwards, left_over) == ({}, {}, {})


@pytest.mark.slow
def test_mending_that_is_killed_anywhere_too_is_done_by_the_start_after_it(tmp_path: Path) -> None:
    mixed = {}
    for kill_publishing_before in count(1):
        killed = tmp_path / str(kill_publishing_before)
        publish(killed, "old")
        if not is_killed(publish, killed, "new", kill_publishing_before):
            break
        for kill_mending_before in count(1):
            root = tmp_path / f"{kill_publishing_before}, {kill_mending_before}"
            shutil.copytree(killed, root)
            if not is_killed(start_in_vain, root, kill_mending_before):
                break
            start_in_vain(root)
            if is_mixed(found := contents(root)) or not found["manifest"]:
                mixed[root.name] = found
    assert kill_publishing_before > 5, "publishing takes more changes than that"
    assert mixed == {}
