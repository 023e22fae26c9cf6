"""The pipeline on hosts with addresses of their own, which share the run directory and nothing else. As root."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.hosts import SSHD, Network, Ssh, network, why_not
from benchmarks.processes import free_port
from benchmarks.training_hosts import Training, ranks_in, seconds_until_gone
from galaxyspark.network.progress import read_progress
from galaxyspark.run_directory import RunDirectory
from tests.dataset.digest import differences, digest
from tests.test_cluster import HIDDEN, SPARK_HOME, TRAINING, VIEWS, Cluster, catalogue, events_of, features

GONE_WITHIN_S = 120

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=why_not())]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Network]:
    with network(2) as hosts:
        yield hosts


@dataclass(frozen=True)
class Workers:
    """A master on this machine, and a worker in each of two hosts.

    Attributes:
        cluster: The master's; no worker sees its directory.
        python: An environment as it would be installed on every host, with what training needs.
        archive: An environment to be shipped.
        shared: The one directory that driver and workers share.
    """

    cluster: Cluster
    python: Path
    archive: Path
    shared: Path


@pytest.fixture(scope="module")
def workers(
    hosts: Network,
    run_submit: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Workers]:
    """Each worker starts in an empty directory and sees neither checkout, nor ``.venv``, nor the driver's files."""
    base = tmp_path_factory.mktemp("hosts")
    driver, shared, installed = base / "driver", base / "shared", base / "installed"
    moved = {SPARK_HOME: installed / "spark", Path(sys.prefix).resolve(): installed / "environment"}
    for directory in (driver, shared, *moved.values()):
        directory.mkdir(parents=True)
    archive = driver / "environment.tar.gz"
    packed = run_submit("pack", "--output", archive)
    assert packed.returncode == 0, packed.stderr
    cluster = Cluster(driver / "cluster", free_port(), free_port(), run_submit, hosts.address)
    cluster("start", "--workers", 0)
    started = []
    for host in hosts.hosts:
        directory, log = base / host.name, base / f"{host.name}.log"
        directory.mkdir()
        command, environment = cluster.worker(installed / "spark", host.address, directory)
        others = [base / other.name for other in hosts.hosts if other != host]
        process = host.start(
            command, log=log, cwd=directory, env=environment, hidden=[*HIDDEN, driver, *others], moved=moved
        )
        started.append((process, log))
    cluster.wait_for(2, *started)
    yield Workers(cluster, installed / "environment" / "bin" / "python", archive, shared)
    cluster("stop")
    for host in hosts.hosts:
        host.kill()


def executors(events: Path) -> set[str]:
    """The addresses on which executors have ended a task, from Spark's own event log of one application."""
    (log,) = events.glob("*/events_*")
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    return {event["Task Info"]["Host"] for event in logged if event["Event"] == "SparkListenerTaskEnd"}


def test_stages_on_hosts_of_their_own_publish_what_one_machine_does(
    workers: Workers, hosts: Network, finished_run: Path
) -> None:
    run = workers.shared / "a run"
    shutil.copytree(finished_run, run)
    shipped = {
        "spark__archives": f"{workers.archive}#environment",
        "spark__pyspark__python": "./environment/bin/python",
    }
    installed = {"spark__pyspark__python": workers.python}
    inputs = ["--images", run / "simulated" / "images", "--labels", run / "simulated" / "labels.csv", *VIEWS]
    # The last stage first: each would make those after it outdated.
    stages = {
        "predict": (installed, ["--new-images", run / "simulated" / "unlabelled"]),
        "extract": (installed, []),
        "augment": (shipped, inputs),
    }
    for stage, (environment, flags) in stages.items():
        changed = {"spark__pyspark__driver__python": sys.executable} | environment | events_of(workers.cluster)
        profile = workers.cluster.profile(**changed)
        own = run / "settings" / f"{stage}.yaml"
        config = ["--config", own] if own.exists() else []
        completed = workers.cluster.submit(stage, "--profile", profile, *config, "--run", run, *flags)
        assert completed.returncode == 0, completed.stdout + completed.stderr
        events = workers.cluster.directory.with_name("events")
        assert executors(events) == {host.address for host in hosts.hosts}
        shutil.rmtree(events)
        assert RunDirectory(run).manifest(stage)["id"] != RunDirectory(finished_run).manifest(stage)["id"]
    assert differences(digest(run), digest(finished_run)) == []
    assert features(run).equals(features(finished_run))
    assert [line.replace(str(run), "") for line in catalogue(run)] == [
        line.replace(str(finished_run), "") for line in catalogue(finished_run)
    ]


def with_views(run: Path, other: Path) -> Path:
    """A new run with the views of another."""
    shutil.copytree(other / "views", run / "views")
    (run / "manifests").mkdir()
    shutil.copy(other / "manifests" / "augment.json", run / "manifests")
    return run


def test_ranks_train_in_the_executors_of_two_hosts(workers: Workers, hosts: Network, augmented_run: Path) -> None:
    run = with_views(workers.shared / "trained", augmented_run)
    python = {"spark__pyspark__driver__python": sys.executable, "spark__pyspark__python": workers.python}
    profile = workers.cluster.profile(**python, **events_of(workers.cluster))
    flags = ["-np", 2, "--launcher", "spark", "--run", run, "--profile", profile, *TRAINING]
    completed = workers.cluster.submit("train", *flags)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "views/s on 2 ranks" in completed.stdout
    assert executors(profile.with_name("events")) == {host.address for host in hosts.hosts}
    assert (run / "model" / "weights.safetensors").is_file()


@pytest.fixture
def by_ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Network, Ssh]]:
    """Two other hosts, into which ssh leads."""
    if not SSHD.exists():
        pytest.skip(f"there is no {SSHD}")
    with network(2, number=78) as joined:
        ssh = Ssh(tmp_path_factory.mktemp("ssh"))
        for host in joined.hosts:
            ssh.listen(host)
        yield joined, ssh


def test_a_training_whose_host_is_killed_ends_everywhere_and_goes_on_with_fewer_ranks(
    augmented_run: Path, by_ssh: tuple[Network, Ssh], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = with_views(tmp_path_factory.mktemp("training") / "a run", augmented_run)
    joined, ssh = by_ssh
    survivor, lost = joined.hosts
    with Training(run, {survivor: 1, lost: 1}, ssh.environment) as training:
        training.wait_for_step(2)
        assert [ranks_in(host) for host in joined.hosts] == [1, 1]
        lost.kill()
        status, seconds = training.end()
        assert status != 0 and seconds < GONE_WITHIN_S, training.said()
        seconds_until_gone([survivor])
        assert "Traceback" not in training.said()
    before = read_progress(run / "checkpoints")
    assert before

    with Training(run, {survivor: 1}, ssh.environment) as resumed:
        after = resumed.wait_for_step(2)
        # The same share of an epoch, which has other steps now.
        assert after.total_steps
        went_on_at = round(before[0].step * after.steps_per_epoch / before[0].steps_per_epoch)
        assert f"Going on after step {went_on_at:,} of {after.total_steps:,}." in resumed.said()
        assert after.step >= went_on_at + 2
        resumed.stop()
        seconds_until_gone([survivor])
    stopped_at = read_progress(run / "checkpoints")
    assert stopped_at and stopped_at[0].step >= after.step
