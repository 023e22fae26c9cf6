"""A standalone cluster: started, stopped, half killed; and the pipeline's stages on it, compared with local ones."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark
import pytest

from benchmarks.hosts import apart
from benchmarks.processes import free_port
from galaxyspark.cluster import Daemon, start, status
from galaxyspark.errors import UserError
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import ClusterJob
from tests.dataset.digest import differences, digest
from tests.test_security import CREDENTIALS, SPARK_CREDENTIALS, files_with

ROOT = Path(__file__).parent.parent
SPARK_HOME = Path(pyspark.__file__).parent
HIDDEN = sorted({ROOT, Path(sys.prefix).resolve().parent})  # this checkout, and the one whose .venv it uses
GALAXIES = ["--num-galaxies", 60, "--num-unlabelled", 6]
VIEWS = ["--view-size-px", 48, "--split-fractions", 0.6, 0.2, 0.2]
TRAINING = ["--weights", "none", "--network", "resnet18", "--epochs", 1]


@dataclass(frozen=True)
class Cluster:
    """A cluster with ports of its own.

    Attributes:
        directory: With its pids and logs.
        port: The master's.
        web_port: Of the master's page.
        submit: Runs ./submit.sh.
        host: The master's address.
    """

    directory: Path
    port: int
    web_port: int
    submit: Callable[..., subprocess.CompletedProcess[str]]
    host: str = "127.0.0.1"

    def __call__(self, action: str, *flags: object) -> str:
        """``./submit.sh cluster ACTION``; what it says."""
        place = ["--directory", self.directory, "--host", self.host, "--port", self.port, "--web-port", self.web_port]
        completed = self.submit("cluster", action, *place, *flags)
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return completed.stdout

    def pids(self) -> dict[str, int]:
        return {file.stem: int(file.read_text().split()[0]) for file in self.directory.glob("*.pid")}

    def profile(self, **changed: object) -> Path:
        """The cluster's own profile with some settings changed, named as in ``spark__executor__cores``."""
        text = (self.directory / "standalone.conf").read_text()
        file = self.directory.with_name(f"{len(list(self.directory.parent.glob('*.conf')))}.conf")
        file.write_text(text + "".join(f"{name.replace('__', '.')} {value}\n" for name, value in changed.items()))
        return file

    def worker(self, spark: Path, host: str, directory: Path, cores: int = 1) -> tuple[list[str], dict[str, str]]:
        """The command and the environment of a worker that is not started by ``cluster start``.

        Args:
            spark: Where it finds Spark.
            host: Its address.
            directory: Empty, for its executors. The profile with the secret is put there.
            cores: That it offers.
        """
        profile = directory / "standalone.conf"
        shutil.copy(self.directory / "standalone.conf", profile)
        command = [str(spark / "bin" / "spark-class"), "org.apache.spark.deploy.worker.Worker", "--host", host]
        command += ["--webui-port", "0", "--cores", str(cores), "--memory", "1g", "--work-dir", str(directory)]
        command += ["--properties-file", str(profile), f"spark://{self.host}:{self.port}"]
        environment = {name: os.environ[name] for name in ("HOME", "JAVA_HOME") if name in os.environ}
        environment |= {"PATH": "/usr/bin:/bin", "SPARK_HOME": str(spark), "SPARK_LOCAL_IP": host}
        return command, environment

    def wait_for(self, workers: int, *started: tuple[subprocess.Popen[bytes], Path]) -> None:
        """Wait until so many have found the master, unless one of the processes, each with its log, has ended."""
        deadline = time.monotonic() + 60
        while f"{workers} workers" not in self("status"):
            for process, log in started:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()


@pytest.fixture
def cluster(tmp_path: Path, run_submit: Callable[..., subprocess.CompletedProcess[str]]) -> Iterator[Cluster]:
    """Not started yet; stopped in the end."""
    cluster = Cluster(tmp_path / "a cluster", free_port(), free_port(), run_submit)
    yield cluster
    cluster("stop")


def test_a_pid_file_of_another_process_is_not_taken_for_a_daemon(tmp_path: Path) -> None:
    daemon = Daemon("master", tmp_path)
    us = psutil.Process()
    daemon.pid_file.write_text(f"{us.pid} {us.create_time()}")
    assert daemon.process() == us
    daemon.pid_file.write_text(f"{us.pid} {us.create_time() - 60}")  # of before a reboot
    assert daemon.process() is None
    assert not daemon.stop()
    assert status(ClusterJob(action="status", directory=tmp_path, web_port=free_port())) == []


def test_a_port_that_is_taken_and_memory_that_is_not_there_are_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}: cannot be had at 127.0.0.1 \(Address already in use\)"):
            start(ClusterJob(action="start", directory=tmp_path / "cluster", port=port))
    with pytest.raises(UserError, match=r"2 workers of 10000000 MB: more than half of this machine's"):
        start(ClusterJob(action="start", directory=tmp_path / "cluster", memory_mb=10_000_000))
    assert not (tmp_path / "cluster").exists()


@pytest.mark.slow
def test_a_cluster_is_started_mended_and_stopped(cluster: Cluster) -> None:
    assert f"The master is spark://127.0.0.1:{cluster.port}, with 2 workers" in cluster("start")
    pids = cluster.pids()
    assert sorted(pids) == ["master", "worker-1", "worker-2"]
    for pid in pids.values():
        listening = [c.laddr.ip for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert "2 workers, 0 of 2 cores in use, jobs: 0" in cluster("status")
    cluster("start")
    assert cluster.pids() == pids

    os.kill(pids["worker-2"], signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pids["worker-1"])], 0.5)
    assert "worker-2  has ended" in cluster("status")
    cluster("start")
    mended = cluster.pids()
    assert mended["worker-2"] != pids["worker-2"]
    assert (mended["master"], mended["worker-1"]) == (pids["master"], pids["worker-1"])

    assert cluster("stop") == "Stopped: worker-2, worker-1, master\n"
    assert not any(psutil.pid_exists(pid) for pid in mended.values())
    assert cluster("stop") == "Stopped: nothing; no cluster runs.\n"
    assert "No cluster runs" in cluster("status")


@pytest.fixture(scope="module")
def local_run(tmp_path_factory: pytest.TempPathFactory, run_submit) -> Path:  # type: ignore[no-untyped-def]
    """A run on one machine, from galaxies to features and a catalogue."""
    run = tmp_path_factory.mktemp("local") / "a run"
    flags = ["--run", run, *GALAXIES, *VIEWS, *TRAINING]
    flags += ["--octaves", 1, "--dream-steps", 1, "--dream-size-px", 64]
    completed = run_submit("pipeline", *flags)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return run


def features(run: Path) -> pa.Table:
    return pq.read_table(run / "features").sort_by([("galaxy_id", "ascending"), ("view", "ascending")])


def catalogue(run: Path) -> list[str]:
    return (run / "catalogue.csv").read_text().splitlines()


def events_of(cluster: Cluster) -> dict[str, object]:
    """Settings for a job whose events are kept beside the cluster."""
    events = cluster.directory.with_name("events")
    events.mkdir(exist_ok=True)
    return {"spark__eventLog__enabled": "true", "spark__eventLog__compress": "false",
            "spark__eventLog__dir": events.as_uri()}  # fmt: skip


@pytest.mark.slow
def test_the_whole_pipeline_on_a_cluster_is_that_of_one_machine(
    cluster: Cluster, local_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    cluster("start")
    run = tmp_path / "on the cluster"
    with_secrets = {name.replace(".", "__"): value for name, value in SPARK_CREDENTIALS.items()}
    profile = cluster.profile(**with_secrets, **events_of(cluster))
    flags = ["--run", run, "--profile", profile, *GALAXIES, *VIEWS, *TRAINING]
    flags += ["--octaves", 1, "--dream-steps", 1, "--dream-size-px", 64]
    completed = cluster.submit("pipeline", *flags)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert differences(digest(run), digest(local_run)) == []
    assert [line.split(",")[0] for line in catalogue(run)] == [line.split(",")[0] for line in catalogue(local_run)]
    # Four stages on Spark, and both workers had an executor in each.
    for worker in ("worker-1", "worker-2"):
        assert len(list((cluster.directory / worker).glob("app-*/*"))) == 4

    by_ranks = cluster.submit("train", "-np", 2, "--launcher", "spark", "--run", run, "--profile", profile, *TRAINING)
    assert by_ranks.returncode == 0, by_ranks.stdout + by_ranks.stderr
    assert "views/s on 2 ranks" in by_ranks.stdout

    # No credential in run, report, event logs, the workers' logs, or on the terminal; nor the cluster's own secret.
    profile.unlink()
    own = cluster.directory / "standalone.conf"
    assert own.stat().st_mode & 0o077 == 0
    shown = completed.stdout + completed.stderr + by_ranks.stdout + by_ranks.stderr
    for text in ("canary", own.read_text().split()[-1]):
        assert text not in shown
        assert [path for path in files_with(text, tmp_path) if path != own] == []


@pytest.mark.slow
def test_a_job_without_the_secret_or_without_encryption_is_turned_away(cluster: Cluster, tmp_path: Path) -> None:
    cluster("start", "--workers", 1)
    profiles = [
        cluster.profile(spark__authenticate="false"),
        cluster.profile(spark__authenticate__secret="0" * 64),
        cluster.profile(spark__network__crypto__enabled="false"),
    ]
    flags = ["--run", tmp_path / "run", "--num-galaxies", 2, "--num-unlabelled", 1, "--profile"]
    # At once: Spark tries for a minute.
    with ThreadPoolExecutor() as threads:
        tries = list(threads.map(lambda profile: cluster.submit("simulate", *flags, profile), profiles))
    for refused in tries:
        assert refused.returncode != 0
        assert "Traceback" not in refused.stdout + refused.stderr
    assert not (tmp_path / "run").exists()
    assert not list((cluster.directory / "worker-1").glob("app-*"))
    accepted = cluster.submit("simulate", *flags, cluster.profile())
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr


@pytest.fixture
def bare_worker(cluster: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose one worker sees neither this checkout nor its virtual environment, from an empty directory."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root, to hide the checkout from a worker")
    cluster("start", "--workers", 0)
    spark, empty = tmp_path / "spark", tmp_path / "empty"
    spark.mkdir()
    empty.mkdir()
    log = tmp_path / "worker.log"
    command, environment = cluster.worker(spark, cluster.host, empty, cores=2)
    checked = ["bash", "-c", f"! ls '{sys.prefix}' && exec \"$@\"", "worker", *command]
    hidden = apart(checked, empty, HIDDEN, {SPARK_HOME: spark})
    with open(log, "wb") as output:
        process = subprocess.Popen(hidden, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        cluster.wait_for(1, (process, log))
        yield cluster
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_a_worker_without_checkout_and_packages_does_its_part(bare_worker: Cluster, local_run: Path, tmp_path) -> None:
    archive, unpacked = tmp_path / "environment.tar.gz", tmp_path / "environment"
    packed = bare_worker.submit("pack", "--output", archive)
    assert packed.returncode == 0, packed.stderr
    unpacked.mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", unpacked], check=True)
    # Spark brings the archive and unpacks it; or it is there already, which is quicker.
    shipped = {"spark__archives": f"{archive}#environment", "spark__pyspark__python": "./environment/bin/python"}
    there = {"spark__pyspark__python": f"{unpacked}/bin/python"}
    run = tmp_path / "a run"
    shutil.copytree(local_run, run, symlinks=True)
    # The last stage first: each would make those after it outdated.
    for stage, environment in (("predict", there), ("extract", there), ("augment", shipped)):
        both_cores = {"spark__executor__cores": 2, "spark__pyspark__driver__python": sys.executable}
        profile = bare_worker.profile(**both_cores, **environment)
        flags = ["--profile", profile, "--config", run / "settings" / "pipeline.yaml", "--run", run]
        completed = bare_worker.submit(stage, *flags)
        assert completed.returncode == 0, completed.stdout + completed.stderr
        assert RunDirectory(run).manifest(stage)["id"] != RunDirectory(local_run).manifest(stage)["id"]
    assert differences(digest(run), digest(local_run)) == []
    assert features(run).equals(features(local_run))
    assert catalogue(run) == catalogue(local_run)
