"""Network namespaces as hosts: real packets between them, as root."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.hosts import Host, Network, network, why_not
from galaxyspark.errors import UserError

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

NUMBER = 79
SERVER = [sys.executable, "-m", "http.server", "8000", "--bind"]


@pytest.fixture
def two_hosts() -> Iterator[Network]:
    with network(2, NUMBER) as hosts:
        yield hosts


def run(host: Host, log: Path, *command: str, **flags: object) -> str:
    """Run a command to its end; what it said."""
    host.start(command, log=log, **flags).wait(30)  # type: ignore[arg-type]
    return log.read_text()


def reached(address: str, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            socket.create_connection((address, 8000), 1).close()
            return True
        except OSError:
            time.sleep(0.1)
    return False


def test_a_host_has_a_name_and_an_address_and_sees_no_hidden_directory(two_hosts: Network, tmp_path: Path) -> None:
    first, second = two_hosts.hosts
    assert [host.address for host in two_hosts.hosts] == [f"10.{NUMBER}.0.11", f"10.{NUMBER}.0.12"]
    assert run(first, tmp_path / "name", "hostname") == f"{first.name}\n"
    assert run(second, tmp_path / "resolved", "getent", "ahostsv4", first.name).split()[0] == first.address

    secret, elsewhere = tmp_path / "a directory" / "secret", tmp_path / "else where"
    secret.parent.mkdir()
    elsewhere.mkdir()
    secret.write_text("of the driver")
    mounts = {"hidden": [secret.parent], "moved": {secret.parent: elsewhere}}
    seen = run(first, tmp_path / "seen", "find", str(secret.parent), str(elsewhere), "-type", "f", **mounts)
    assert seen == f"{elsewhere / 'secret'}\n"
    assert not (elsewhere / "secret").exists()  # here
    assert socket.gethostname() != first.name


def test_a_host_can_be_cut_off_and_joined_again(two_hosts: Network, tmp_path: Path) -> None:
    host = two_hosts.hosts[0]
    process = host.start([*SERVER, host.address], log=tmp_path / "log", cwd=tmp_path)
    assert reached(host.address, within_s=20), (tmp_path / "log").read_text()
    host.disconnect()
    assert not reached(host.address, within_s=2)
    assert process.poll() is None
    host.connect()
    assert reached(host.address, within_s=20)


def test_killing_a_host_ends_its_processes_and_no_other(two_hosts: Network, tmp_path: Path) -> None:
    first, second = (host.start(["sleep", "60"], log=tmp_path / host.name) for host in two_hosts.hosts)
    while not all(host.pids() for host in two_hosts.hosts):
        time.sleep(0.01)
    two_hosts.hosts[0].kill()
    assert first.wait(5) == -signal.SIGKILL
    assert two_hosts.hosts[0].pids() == []
    assert second.poll() is None


def test_what_a_killed_process_has_left_is_removed_by_the_next(tmp_path: Path) -> None:
    script = (
        "import os, pathlib\nfrom benchmarks.hosts import network\n"
        f"with network(2, {NUMBER}) as hosts:\n"
        f"    process = hosts.hosts[1].start(['sleep', '60'], log=pathlib.Path({str(tmp_path / 'log')!r}))\n"
        "    print(process.pid, flush=True)\n"
        "    input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2],
    ) as process:  # fmt: skip
        assert process.stdout is not None
        sleeper = process.stdout.readline()
        with pytest.raises(UserError, match="another process has hosts in it"), network(1, NUMBER):
            pass
        process.kill()
    assert psutil.pid_exists(int(sleeper))
    with network(1, NUMBER) as hosts:
        assert f"galaxy{NUMBER}-2" not in links()
        assert hosts.hosts[0].pids() == []
    assert f"galaxy{NUMBER}" not in links()
    assert not list(Path("/etc/netns").glob(f"galaxy{NUMBER}-*"))
    assert not is_running(int(sleeper))


def links() -> str:
    return " ".join(os.listdir("/sys/class/net"))


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
