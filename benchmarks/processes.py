"""The memory of the processes that a job on Spark consists of, and ports for servers of one's own."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Mapping

import psutil

_LOOK_EVERY_S = 0.5


def peaks_until_the_end(job: subprocess.Popen[bytes], look: Callable[[], Mapping[str, float]]) -> dict[str, int]:
    """The largest figure of each kind that was seen, twice a second, until the job has ended."""
    peaks: dict[str, float] = {}
    while job.poll() is None:
        for name, figure in look().items():
            peaks[name] = max(peaks.get(name, 0.0), figure)
        time.sleep(_LOOK_EVERY_S)
    return {name: round(figure) for name, figure in peaks.items()}


def memory_mb(ancestor: psutil.Process) -> dict[str, float]:
    """Resident memory of the processes that this one has started, in MB.

    Returns:
        ``driver_jvm``, ``driver_python``, ``largest_executor_jvm``, ``largest_worker`` (of the Python workers), as far
        as there are any, and ``all_processes``.
    """
    seen = {"all_processes": 0.0}
    try:
        processes = ancestor.children(recursive=True)
    except psutil.NoSuchProcess:  # it has just ended
        return {}
    for process in processes:
        try:
            role, megabytes = _role(" ".join(process.cmdline())), process.memory_info().rss / 2**20
        except psutil.Error:
            continue
        seen["all_processes"] += megabytes
        if role:
            seen[role] = max(seen.get(role, 0.0), megabytes)
    return seen


def _role(command: str) -> str | None:
    if "pyspark.daemon" in command:
        return "largest_worker"
    if "CoarseGrainedExecutorBackend" in command:
        return "largest_executor_jvm"
    if command.split(" ")[0].endswith("java"):
        return "driver_jvm" if "deploy.SparkSubmit" in command else None
    if "/jobs/" in command and "galaxyspark.quiet" not in command:
        return "driver_python"
    return None


def free_port() -> int:
    """A port at which nobody listens now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
