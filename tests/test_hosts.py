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

from benchmarks.hosts import Network, network
from galaxyspark.errors import UserError
from galaxyspark.run_directory import RunDirectory
from tests.dataset.digest import differences, digest
from tests.test_cluster import HIDDEN, SPARK_HOME, VIEWS, Cluster, catalogue, events_of, features, free_port

NUMBER = 77

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hosts() -> Iterator[Network]:
    try:
        with network(2, NUMBER) as hosts:
            yield hosts
    except UserError as error:
        pytest.skip(str(error))


@dataclass(frozen=True)
class Workers:
    """A master on this machine, and a worker in each of two hosts.

    Attributes:
        cluster: The master's; no worker sees its directory.
        python: An environment as it would be installed on every host.
        archive: The same, to be shipped.
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
    moved = {SPARK_HOME: installed / "spark", driver / "environment": installed / "environment"}
    for directory in (driver, shared, *moved, *moved.values()):
        directory.mkdir(parents=True, exist_ok=True)
    archive = driver / "environment.tar.gz"
    packed = run_submit("pack", "--output", archive)
    assert packed.returncode == 0, packed.stderr
    subprocess.run(["tar", "-xzf", archive, "-C", driver / "environment"], check=True)

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
    assert catalogue(run) == catalogue(finished_run)
