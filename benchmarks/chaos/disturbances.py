"""What may happen to a cluster, done to a real one: each strikes one of two workers, or the driver."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.chaos.job import WatchedJob

_EXECUTOR = "CoarseGrainedExecutorBackend"
_BLOCK = bytes(2**20)


@dataclass(frozen=True)
class Scene:
    """Where a disturbance strikes.

    Attributes:
        job: The job that is running.
        worker: The worker whose executor is struck.
        scratch: The disk of that worker's ``spark.local.dir``.
        cut_off: Cuts that worker's host off the network, and is undone by the stack that it is given.
    """

    job: WatchedJob
    worker: psutil.Process
    scratch: Path
    cut_off: Callable[[ExitStack], None]

    def executor(self) -> psutil.Process:
        """The JVM of the worker's executor; its Python workers are its children.

        Raises:
            RuntimeError: It has none.
        """
        executors = executors_of(self.worker)
        if not executors:
            raise RuntimeError("the worker has no executor")
        return executors[-1]


def executors_of(worker: psutil.Process) -> list[psutil.Process]:
    """The JVMs of a worker's executors, the newest last."""
    found = [process for process in worker.children(recursive=True) if executor_id(process)]
    return sorted(found, key=psutil.Process.create_time)


def executor_id(process: psutil.Process) -> str:
    """Spark's id of an executor by its command; empty for other processes."""
    with suppress(psutil.NoSuchProcess, ValueError):
        command = process.cmdline()
        if any(_EXECUTOR in word for word in command):
            return command[command.index("--executor-id") + 1]
    return ""


def kill_executor(scene: Scene, _: ExitStack) -> None:
    """As the kernel does where memory runs out."""
    scene.executor().kill()


def kill_worker(scene: Scene, _: ExitStack) -> None:
    """As when a machine fails: the worker, its executor and its Python workers at once."""
    _signal([scene.worker, *scene.worker.children(recursive=True)], signal.SIGKILL)


def pause_executor(scene: Scene, undo: ExitStack) -> None:
    """As on a machine that swaps: the executor and its Python workers stand still."""
    executor = scene.executor()
    family = [executor, *executor.children(recursive=True)]
    _signal(family, signal.SIGSTOP)
    undo.callback(_signal, family, signal.SIGCONT)


def fill_scratch(scene: Scene, undo: ExitStack) -> None:
    """Fill the worker's scratch disk to the last byte.

    Raises:
        RuntimeError: It is no small disk of its own.
    """
    if not os.path.ismount(scene.scratch):
        raise RuntimeError("no file system could be mounted for the scratch disk")
    filling = scene.scratch / "filling"
    undo.callback(filling.unlink)
    with open(filling, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(_BLOCK)


def cut_network(scene: Scene, undo: ExitStack) -> None:
    """As when a cable is drawn: nothing comes from or to the worker's host any more, and nobody is told."""
    scene.cut_off(undo)


def kill_driver(scene: Scene, _: ExitStack) -> None:
    """The JVM of Spark's driver, which is the largest process of the user's own command."""
    scene.job.driver().kill()


def wait_until_gone(executors: list[psutil.Process], within_s: float) -> float:
    """Wait for the end of an application's executors: after how many seconds they were gone.

    Raises:
        RuntimeError: They are still there.
    """
    start = time.monotonic()
    _, alive = psutil.wait_procs(executors, within_s)
    if alive:
        raise RuntimeError(f"executors still run {within_s:g} s after the driver was killed: {alive}")
    return time.monotonic() - start


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


@dataclass(frozen=True)
class Disturbance:
    """What may happen.

    Attributes:
        title: For people.
        strike: Does it, and puts on the stack what undoes it.
        needs_root: Whether only root can arrange it.
        on_hosts: Whether workers need hosts with addresses of their own.
    """

    title: str
    strike: Callable[[Scene, ExitStack], None]
    needs_root: bool = False
    on_hosts: bool = False


DISTURBANCES = {
    "executor-killed": Disturbance("an executor is killed", kill_executor),
    "worker-killed": Disturbance("a worker is killed with its executor", kill_worker),
    "executor-paused": Disturbance("an executor is paused", pause_executor),
    "disk-full": Disturbance("a worker's scratch disk is full", fill_scratch, needs_root=True),
    "network-cut": Disturbance("a worker's network is cut", cut_network, needs_root=True, on_hosts=True),
    "driver-killed": Disturbance("the driver is killed", kill_driver),
}
"""All of them, by the name that ``--scenarios`` takes."""
