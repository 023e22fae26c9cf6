"""The clusters that are disturbed: a master and two workers of one core each, here or on hosts of their own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from benchmarks.chaos.input import MANY_TASKS
from benchmarks.hosts import Host, network
from benchmarks.processes import free_port
from galaxyspark.cluster import SPARK_HOME, Daemon, start, status, stop
from galaxyspark.settings import ClusterJob

_SCRATCH_MB = 256
_START_WITHIN_S = 60
_NETWORK = 78  # of its own, beside the one of the tests


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        profile: The text of its Spark properties file, with its secret.
        workers: The processes of the two workers; the second is the one that is struck.
        scratch: The second's ``spark.local.dir``, on a small disk of its own where this process may make one.
        cut_off: Cuts the second's host off the network, until the stack that it is given ends.
    """

    profile: str
    workers: tuple[psutil.Process, psutil.Process]
    scratch: Path
    cut_off: Callable[[ExitStack], None]


@contextmanager
def cluster_here(directory: Path) -> Iterator[Cluster]:
    """Start a cluster on this machine, and stop it in the end."""
    job = ClusterJob(action="start", directory=directory, port=free_port(), web_port=free_port())
    scratch = directory.with_name("scratch")
    with _small_disk(scratch):
        try:
            start(replace(job, workers=1))
            with _environment(SPARK_LOCAL_DIRS=str(scratch)):
                start(job)
            first, second = (psutil.Process(_pid(directory, number)) for number in (1, 2))
            yield Cluster(_profile(directory), (first, second), scratch, _not_cut_off)
        finally:
            stop(job)


def _not_cut_off(_: ExitStack) -> None:
    raise RuntimeError("this worker has no host of its own")


def _pid(directory: Path, number: int) -> int:
    process = Daemon(f"worker-{number}", directory).process()
    if process is None:
        raise RuntimeError(f"worker-{number} has ended; see {directory}/worker-{number}.log")
    return int(process.pid)


def _profile(directory: Path) -> str:
    return (directory / "standalone.conf").read_text() + MANY_TASKS


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _small_disk(directory: Path) -> Iterator[None]:
    """A directory on a small file system of its own, as root; else a plain one."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SCRATCH_MB}m", "tmpfs", str(directory)]
    mounted = os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", directory], check=False)


@contextmanager
def cluster_on_hosts(directory: Path) -> Iterator[Cluster]:
    """Start a cluster whose workers are on hosts with addresses of their own, and stop it in the end. As root."""
    with network(2, _NETWORK) as hosts:
        job = ClusterJob(
            action="start", directory=directory, host=hosts.address, port=free_port(), web_port=free_port(), workers=0
        )
        try:
            url = start(job)
            first, second = (_start_worker(host, directory, url) for host in hosts.hosts)
            _wait_for_two(job)

            def cut_off(undo: ExitStack) -> None:
                hosts.hosts[1].disconnect()
                undo.callback(hosts.hosts[1].connect)

            yield Cluster(_profile(directory), (first, second), directory, cut_off)
        finally:
            stop(job)


def _start_worker(host: Host, directory: Path, url: str) -> psutil.Process:
    command = [str(SPARK_HOME / "bin" / "spark-class"), "org.apache.spark.deploy.worker.Worker"]
    command += ["--host", host.address, "--webui-port", "0", "--cores", "1", "--memory", "1g"]
    command += ["--work-dir", str(directory / host.name), "--properties-file", str(directory / "standalone.conf"), url]
    environment = os.environ | {"SPARK_HOME": str(SPARK_HOME), "SPARK_LOCAL_IP": host.address}
    process = host.start(command, log=directory / f"{host.name}.log", cwd=directory, env=environment)
    return psutil.Process(process.pid)


def _wait_for_two(job: ClusterJob) -> None:
    deadline = time.monotonic() + _START_WITHIN_S
    while not any(": 2 workers" in line for line in status(job)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the workers have not found the master; see {job.directory}")
        time.sleep(0.2)
