"""A Spark standalone cluster on this machine, of the Spark that pip has installed: a master and some workers.

Each is a process of its own, with ``NAME.pid`` and ``NAME.log`` in the cluster's directory. A pid file holds when its
process was started too, so that one which a crash or a reboot has left behind is known for what it is. There too
lies ``standalone.conf``, the profile that jobs find them by, with the secret by which all know each other.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, STDOUT
from typing import Any

import psutil
import pyspark

from galaxyspark.errors import UserError
from galaxyspark.settings import ClusterJob

PROFILES = Path(__file__).parent.parent / "conf" / "spark"
SPARK_HOME = Path(pyspark.__file__).parent
_START_WITHIN_S = 90
_STOP_WITHIN_S = 20
_DAEMON_MEMORY = "512m"


@dataclass(frozen=True)
class Daemon:
    """The master, or a worker.

    Attributes:
        name: ``master``, ``worker-1`` and so on.
        directory: The cluster's, with the pid and log files.
    """

    name: str
    directory: Path

    @property
    def log(self) -> Path:
        """What it has said since it was last started."""
        return self.directory / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        """Its pid and, in seconds since 1970, when that process was started."""
        return self.directory / f"{self.name}.pid"

    def process(self) -> psutil.Process | None:
        """The process, where it runs."""
        with suppress(OSError, ValueError, psutil.NoSuchProcess):
            pid, started = self.pid_file.read_text().split()
            process = psutil.Process(int(pid))
            if abs(process.create_time() - float(started)) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def start(self, command: list[str], host: str) -> None:
        """Start it in the background, unless it runs.

        Args:
            command: Spark's class and its arguments.
            host: The address to listen at.
        """
        if self.process():
            return
        environment = {
            # Jobs bring their code with them.
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "SPARK_HOME": str(SPARK_HOME),
            "SPARK_CONF_DIR": str(PROFILES),
            "SPARK_LOCAL_IP": host,
            "SPARK_DAEMON_MEMORY": _DAEMON_MEMORY,
        }
        with open(self.log, "wb") as log:
            process = psutil.Popen(
                [str(SPARK_HOME / "bin" / "spark-class"), *command],
                cwd=self.directory,
                env=environment,
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                start_new_session=True,
            )
        self.pid_file.write_text(f"{process.pid} {process.create_time()}")

    def stop(self) -> bool:
        """End it, and the executors that it has started; whether it ran."""
        process = self.process()
        if process:
            family = [process, *process.children(recursive=True)]
            process.terminate()
            _, alive = psutil.wait_procs(family, _STOP_WITHIN_S)
            for survivor in alive:
                with suppress(psutil.NoSuchProcess):
                    survivor.kill()
        self.pid_file.unlink(missing_ok=True)
        return process is not None


def start(job: ClusterJob) -> str:
    """Start what does not run yet of the cluster, and wait until all workers have found the master.

    Returns:
        The master's URL.

    Raises:
        UserError: A port is taken, the memory does not suffice, or a process has ended.
    """
    directory = job.directory.absolute()
    master, workers = Daemon("master", directory), _workers(job)
    _check_memory(job)
    if not master.process():
        _check_port("--port", job.host, job.port)
        _check_port("--web-port", job.host, job.web_port)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    url = f"spark://{job.host}:{job.port}"
    profile = _profile(job, directory, url)
    master.start(
        ["org.apache.spark.deploy.master.Master", "--host", job.host]
        + ["--port", str(job.port), "--webui-port", str(job.web_port), "--properties-file", str(profile)],
        job.host,
    )
    for worker in workers:
        worker.start(
            ["org.apache.spark.deploy.worker.Worker", "--host", job.host, "--webui-port", "0"]
            + ["--cores", str(job.cores), "--memory", f"{job.memory_mb}m"]
            + ["--work-dir", str(directory / worker.name), "--properties-file", str(profile), url],
            job.host,
        )
    _wait_for_workers(job, [master, *workers])
    return url


def stop(job: ClusterJob) -> list[str]:
    """End the cluster, workers first, and forget its secret: the names of those that ran."""
    stopped = [daemon.name for daemon in _known(job.directory) if daemon.stop()]
    (job.directory / "standalone.conf").unlink(missing_ok=True)
    return stopped


def status(job: ClusterJob) -> list[str]:
    """What runs of the cluster, a line each; nothing where nothing was started."""
    lines = []
    for daemon in reversed(_known(job.directory)):
        process = daemon.process()
        lines.append(f"{daemon.name:9} " + (f"runs, pid {process.pid}" if process else f"has ended: {daemon.log}"))
    state = _state(job)
    if state:
        lines.append(
            f"{state['url']}: {state['aliveworkers']} workers, {state['coresused']} of {state['cores']} cores in use, "
            f"jobs: {len(state['activeapps'])}"
        )
    return lines


def _workers(job: ClusterJob) -> list[Daemon]:
    return [Daemon(f"worker-{number}", job.directory.absolute()) for number in range(1, job.workers + 1)]


def _known(directory: Path) -> list[Daemon]:
    """All that were started and not stopped, the master last."""
    names = sorted((file.stem for file in directory.absolute().glob("*.pid")), reverse=True)
    return [Daemon(name, directory.absolute()) for name in names]


def _profile(job: ClusterJob, directory: Path, url: str) -> Path:
    """The profile ``standalone`` for this cluster, made where there is none, with a secret that others cannot read."""
    profile = directory / "standalone.conf"
    if profile.exists():
        return profile
    own = {
        "spark.master": url,
        "spark.driver.host": job.host,
        "spark.driver.bindAddress": job.host,
        "spark.authenticate.secret": secrets.token_hex(32),
    }
    # Of a setting that stands there twice, Spark takes the last.
    lines = "".join(f"{name} {value}\n" for name, value in own.items())
    with open(os.open(profile, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write((PROFILES / "standalone.conf").read_text() + "# This cluster's own.\n" + lines)
    return profile


def _check_memory(job: ClusterJob) -> None:
    needed_mb = job.workers * job.memory_mb
    there_mb = psutil.virtual_memory().total // 2**20
    if needed_mb > there_mb // 2:
        raise UserError(
            f"{job.workers} workers of {job.memory_mb} MB: more than half of this machine's {there_mb} MB, and Python "
            "needs as much again. Ask for fewer --workers or less --memory-mb."
        )


def _check_port(flag: str, host: str, port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise UserError(f"{flag} {port}: cannot be had at {host} ({error.strerror}).") from None


def _wait_for_workers(job: ClusterJob, daemons: list[Daemon]) -> None:
    deadline = time.monotonic() + _START_WITHIN_S
    while True:
        state = _state(job)
        if state and state["aliveworkers"] >= job.workers:
            return
        for daemon in daemons:
            if not daemon.process():
                raise UserError(f"{daemon.name} has ended; see {daemon.log}:\n{_last_lines(daemon.log)}", 1)
        if time.monotonic() > deadline:
            raise UserError(f"the workers have not found the master in {_START_WITHIN_S} s; see {daemons[-1].log}.", 1)
        time.sleep(0.2)


def _state(job: ClusterJob) -> dict[str, Any] | None:
    """What the master says of itself; None where none answers."""
    try:
        with urllib.request.urlopen(f"http://{job.host}:{job.web_port}/json/", timeout=5) as answer:
            state: dict[str, Any] = json.load(answer)
            return state
    except (OSError, ValueError):
        return None


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:])
