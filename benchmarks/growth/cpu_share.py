"""A share of a core for a process and all that it starts, by a control group of Linux (version 1 or 2), as root."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from galaxyspark.errors import UserError

_PERIOD_US = 100_000
_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class CpuShare:
    """A control group.

    Attributes:
        limits: Its directory that limits processor time.
        counts: Its directory that counts it; version 1 may have another one for that.
        version: Of control groups, 1 or 2.
    """

    limits: Path
    counts: Path
    version: int

    def take(self, pid: int) -> None:
        """Put a process into the group; what it starts from now on is there too."""
        for directory in {self.limits, self.counts}:
            (directory / "cgroup.procs").write_text(str(pid))

    def used_s(self) -> float:
        """Seconds of processor time that the group has used since it was made."""
        if self.version == 1:
            return int((self.counts / "cpuacct.usage").read_text()) / 1e9
        lines = (self.counts / "cpu.stat").read_text().splitlines()
        return int(dict(line.split() for line in lines)["usage_usec"]) / 1e6


@contextmanager
def cpu_share(name: str, cores: float) -> Iterator[CpuShare]:
    """A group that may use so many cores, such as 0.4, until the body ends; its processes must have ended then.

    Raises:
        UserError: This process may not make one.
    """
    try:
        share = _make(name, cores)
    except OSError as error:
        raise UserError(
            f"a control group for a share of a core cannot be made in {_ROOT} ({error.strerror}). Run it as root, on "
            "Linux. (Pinning executors to whole cores is no way round it: it would take more cores than executors.)"
        ) from None
    try:
        yield share
    finally:
        for directory in {share.limits, share.counts}:
            _remove(directory)


def _make(name: str, cores: float) -> CpuShare:
    quota_us = round(cores * _PERIOD_US)
    if (_ROOT / "cgroup.controllers").exists():
        share = CpuShare(_ROOT / name, _ROOT / name, 2)
        (_ROOT / "cgroup.subtree_control").write_text("+cpu")
        share.limits.mkdir(exist_ok=True)
        (share.limits / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        return share
    share = CpuShare((_ROOT / "cpu").resolve() / name, (_ROOT / "cpuacct").resolve() / name, 1)
    for directory in {share.limits, share.counts}:
        directory.mkdir(exist_ok=True)
    (share.limits / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
    (share.limits / "cpu.cfs_quota_us").write_text(str(quota_us))
    return share


def _remove(directory: Path) -> None:
    """Linux removes a group once the last of its processes is gone for good, which takes a moment."""
    for _ in range(50):
        with suppress(OSError):
            directory.rmdir()
            return
        time.sleep(0.1)
