"""A training on two hosts, each with an address and a rank of its own, of which one is lost; and how it goes on.

The hosts are network namespaces of this machine, reached by ssh (``benchmarks.hosts``). The host of rank 1 is lost in
two ways: all in it is killed, so that its connections are closed; or its network is cut, so that nobody is told. Each
time the training then goes on with another number of ranks than before, and is at last asked to stop. A checkpoint is
written after every step.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from subprocess import DEVNULL, STDOUT
from typing import Any

import psutil
import tyro

from benchmarks.harness import BenchmarkSettings, report
from benchmarks.hosts import Host, Ssh, network
from benchmarks.pages import markdown, write_table
from benchmarks.views import make_views
from galaxyspark.errors import UserError
from galaxyspark.network.progress import Progress, read_progress
from galaxyspark.settings import AugmentSettings

_DOCS = Path(__file__).parents[1] / "docs" / "chaos.md"
SUBMIT = Path(__file__).parents[1] / "submit.sh"
FLAGS = ("--weights", "none", "--network", "resnet18", "--epochs", "1000", "--batch-size", "16")
_EVERY_STEP = ("--checkpoint-minutes", "1e-6")
_STEPS = 5
_NUM_GALAXIES = 200  # enough for the row groups of three ranks
_NETWORK = 76
_WITHIN_S = 600
_GONE_WITHIN_S = 60


@dataclass(frozen=True, kw_only=True)
class TrainingHostsBenchmark(BenchmarkSettings):
    """Seconds until a training ends that has lost a host, and the step at which it goes on."""

    rounds: int = 1
    """How often each is tried."""


class Training:
    """``./submit.sh train`` on hosts, with a checkpoint after every step."""

    def __init__(self, run: Path, ranks: Mapping[Host, int], environment: Mapping[str, str]) -> None:
        """Start it.

        Args:
            run: With views; what the training says goes to ``terminal.txt``.
            ranks: Host -> number of ranks there.
            environment: As ``Ssh`` has it.
        """
        self.run = run
        self.ranks = ranks
        self.terminal = run / "terminal.txt"
        hosts = ",".join(f"{host.address}:{number}" for host, number in ranks.items())
        command = [str(SUBMIT), "train", "-np", str(sum(ranks.values())), "-H", hosts, "--run", str(run)]
        with open(self.terminal, "wb") as terminal:
            self.process = subprocess.Popen(
                [*command, *FLAGS, *_EVERY_STEP],
                cwd=SUBMIT.parent,
                env=environment,
                stdin=DEVNULL,
                stdout=terminal,
                stderr=STDOUT,
                start_new_session=True,
            )

    def wait_for_step(self, number: int) -> Progress:
        """Wait until this process has started and some steps have been made by it; the newest checkpoint's progress.

        Raises:
            UserError: It has ended, or takes too long.
        """
        deadline = time.monotonic() + _WITHIN_S
        began = time.time()
        first: int | None = None
        while True:
            found = read_progress(self.run / "checkpoints")
            if found and found[1] > began:
                first = found[0].step if first is None else first
                if found[0].step >= first + number:
                    return found[0]
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"no step {number}:\n{self.said()}", 1)
            time.sleep(0.05)

    def end(self) -> tuple[int, float]:
        """Wait for its end; its status, and the seconds that were waited."""
        start = time.monotonic()
        status = self.process.wait(_WITHIN_S)
        return status, time.monotonic() - start

    def stop(self) -> tuple[int, float]:
        """Ask it to stop, and wait."""
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def said(self) -> str:
        """All that a user has seen."""
        return self.terminal.read_text(errors="replace")

    def __enter__(self) -> Training:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what is left of it on this machine."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def ranks_in(host: Host) -> int:
    """How many ranks run in a host."""
    ranks = set()
    for pid in host.pids():
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.name().startswith("python") and "jobs/train.py" in " ".join(process.cmdline()):
                ranks.add(process.environ().get("HOROVOD_RANK"))
    return len(ranks - {None})


def seconds_until_gone(hosts: Sequence[Host]) -> float:
    """Wait until no rank runs in any of the hosts.

    Raises:
        UserError: Some still do after a minute.
    """
    start = time.monotonic()
    while any(ranks_in(host) for host in hosts):
        if time.monotonic() > start + _GONE_WITHIN_S:
            raise UserError(
                f"ranks are left: {[ranks_in(host) for host in hosts]} on {[host.name for host in hosts]}.", 1
            )
        time.sleep(0.05)
    return time.monotonic() - start


def main(arguments: Sequence[str]) -> None:
    """Measure and report; ``arguments`` are flags as ``--help`` lists them."""
    settings = tyro.cli(TrainingHostsBenchmark, args=arguments, prog="bench training_hosts")
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="galaxyspark-bench-") as directory, network(2, _NETWORK) as joined:
        views = AugmentSettings(view_size_px=48, split_fractions=(0.6, 0.2, 0.2))
        run = make_views(Path(directory) / "run", _NUM_GALAXIES, views)
        keys = Path(directory) / "ssh"
        keys.mkdir()
        ssh = Ssh(keys)
        survivor, lost = joined.hosts
        ways: dict[str, tuple[Callable[[], None], dict[Host, int]]] = {
            "killed": (lost.kill, {survivor: 1}),
            "cut off": (lost.disconnect, {survivor: 1, lost: 2}),
        }
        tries = range(1, 2 if settings.quick else settings.rounds + 1)
        for name, number in product(ways, tries):
            for host in joined.hosts:
                host.kill()
                ssh.listen(host)
            told[f"host {name}, try {number}"] = lose_and_go_on(run, ssh, joined.hosts, *ways[name])
    report("training_hosts", (), settings, {"training_hosts": told})
    if not settings.quick and not settings.out:
        write_table(_DOCS, "training_hosts", as_markdown(told))


def as_markdown(told: Mapping[str, Mapping[str, Any]]) -> str:
    """For the docs: a line for each try."""
    header = (
        "what happens",
        "exit status",
        "launcher ends s",
        "other rank ends s",
        "ranks",
        "last step",
        "goes on with",
    )
    rows = [
        (
            name,
            str(figures["status"]),
            str(figures["seconds_until_launcher_ends"]),
            str(figures["seconds_until_other_rank_ends"]),
            str(figures["ranks_before"]),
            figures["steps_before"],
            f"{figures['ranks_after']}: {figures['went_on']}",
        )
        for name, figures in told.items()
    ]
    return markdown([header, *rows])


def lose_and_go_on(
    run: Path, ssh: Ssh, hosts: Sequence[Host], lose: Callable[[], None], ranks: Mapping[Host, int]
) -> dict[str, Any]:
    """Train on two hosts, lose the second, go on with other ranks: the figures."""
    survivor, lost = hosts
    with Training(run, {survivor: 1, lost: 1}, ssh.environment) as training:
        training.wait_for_step(_STEPS)
        lose()
        status, seconds = training.end()
        gone_s = seconds_until_gone([survivor])
    said = training.said().strip().splitlines()
    before = read_progress(run / "checkpoints")
    assert before
    print(f"ended after {seconds:.1f} s", file=sys.stderr)
    lost.kill()
    lost.connect()
    ssh.listen(lost)
    with Training(run, ranks, ssh.environment) as resumed:
        after = resumed.wait_for_step(_STEPS)
        stopped, stop_s = resumed.stop()
        stopped_gone_s = seconds_until_gone(hosts)
    at_last = read_progress(run / "checkpoints")
    assert at_last
    return {
        "seconds_until_launcher_ends": round(seconds, 1),
        "seconds_until_other_rank_ends": round(seconds + gone_s, 1),
        "status": status,
        "message": said[-4:],
        "steps_before": f"{before[0].step} of {before[0].total_steps}",
        "ranks_before": 2,
        "ranks_after": sum(ranks.values()),
        "went_on": next((line for line in resumed.said().splitlines() if "Going on" in line), ""),
        "reached": after.step,
        "stopped": {
            "status": stopped,
            "seconds_until_launcher_ends": round(stop_s, 1),
            "seconds_until_ranks_end": round(stop_s + stopped_gone_s, 1),
            "checkpoint": at_last[0].step,
        },
    }
