"""Hosts on one machine: network namespaces, each with an address of its own, that a bridge joins. Linux, as root.

What crosses from host to host really crosses a network, which can be cut; a file is shared only where a host sees it. A
process in a host has a mount and a hostname namespace of its own too. Processors, memory and disks are the machine's.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, STDOUT

from galaxyspark.errors import UserError

_FILES_OF_HOSTS = Path("/etc/netns")  # where ip netns exec looks for what a namespace sees in /etc
_LOCKS = Path("/run")
SSHD = Path("/usr/sbin/sshd")
"""Where Debian has it."""
_NEEDED_BY_SSHD = Path("/run/sshd")
_SSH_WITHIN_S = 20
# Arguments: source and target of each mount, --, directory, command.
_APART = """
while [ "$1" != -- ]; do
  if [ "$1" = none ]; then mount -t tmpfs none "$2"; else mount --bind "$1" "$2"; fi
  shift 2
done
cd "$2"
shift 2
exec "$@"
"""


def apart(
    command: Sequence[str], cwd: Path, hidden: Sequence[Path] = (), moved: Mapping[Path, Path] | None = None
) -> list[str]:
    """A command that sees some directories empty, and others elsewhere. Needs root and util-linux.

    Args:
        command: What is to be run.
        cwd: Where.
        hidden: Directories that it sees empty.
        moved: Directory -> another, which must be there, at which it is seen too; also where the first is hidden.
    """
    mounts = [*(moved or {}).items(), *(("none", place) for place in hidden)]
    places = [str(place) for mount in mounts for place in mount]
    return ["unshare", "--mount", "bash", "-euc", _APART, "apart", *places, "--", str(cwd), *command]


@dataclass(frozen=True)
class Host:
    """A network namespace.

    Attributes:
        name: Its hostname, and the name of its namespace and of its end of the bridge.
        address: Its IPv4 address, at which all other hosts reach it.
    """

    name: str
    address: str

    def start(
        self,
        command: Sequence[str],
        *,
        log: Path,
        cwd: Path = Path("/"),
        env: Mapping[str, str] | None = None,
        hidden: Sequence[Path] = (),
        moved: Mapping[Path, Path] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command in this host, in the background; its children are in this host too.

        Args:
            command: The program and its arguments.
            log: File for what it says; its directory is there.
            cwd: Its directory.
            env: Its environment; without one, that of this process.
            hidden: Directories that it sees empty.
            moved: As ``apart`` has it.
        """
        inside = ["ip", "netns", "exec", self.name, "unshare", "--uts"]
        named = ["bash", "-euc", 'hostname "$1"; shift; exec "$@"', "host", self.name]
        with open(log, "ab") as output:
            return subprocess.Popen(
                [*inside, *named, *apart(command, cwd, hidden, moved)],
                env=env,
                stdin=DEVNULL,
                stdout=output,
                stderr=STDOUT,
                start_new_session=True,
            )

    def pids(self) -> list[int]:
        """The processes in this host."""
        return [int(pid) for pid in _ip("netns", "pids", self.name).split()]

    def kill(self) -> None:
        """Kill every process in this host. The others are told: the kernel closes connections."""
        while pids := self.pids():  # some may start others meanwhile
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def disconnect(self) -> None:
        """Cut this host off, as when a cable is drawn. Nobody is told; addresses and processes stay."""
        _ip("link", "set", self.name, "down")

    def connect(self) -> None:
        """Undo ``disconnect``."""
        _ip("link", "set", self.name, "up")


@dataclass(frozen=True)
class Network:
    """Some hosts and this machine, which is none of them, on one bridge.

    Attributes:
        interface: The name of the network interface, in every host and on this machine.
        address: This machine's, for a driver and a master.
        hosts: All reach each other and this machine, and nothing else.
    """

    interface: str
    address: str
    hosts: tuple[Host, ...]


def why_not() -> str:
    """Why this process can make no hosts here, whatever it is asked for; empty where it can."""
    missing = [program for program in ("ip", "unshare", "hostname") if not shutil.which(program)]
    if missing:
        return f"there is no {', '.join(missing)} (Debian: apt-get install iproute2 util-linux hostname)"
    if os.geteuid() != 0:
        return "that needs root"
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() or "unshare failed" if tried.returncode else ""


@contextmanager
def network(num_hosts: int, number: int = 77) -> Iterator[Network]:
    """Make hosts; in the end kill what runs in them and remove them, also those that a killed process has left.

    Args:
        num_hosts: 1 to 200, with the addresses 10.NUMBER.0.11 and up.
        number: Of the network, 10.NUMBER.0.0/24, this machine being 10.NUMBER.0.1. Two networks at a time need two.

    Raises:
        UserError: Not root, a program is missing, no right to make interfaces, or another process has this network.
    """
    if reason := why_not():
        raise UserError(f"no hosts on this machine: {reason}.")
    name = f"galaxy{number}"
    with _held(number):
        _remove(name)
        try:
            yield _make(name, f"10.{number}.0", num_hosts)
        finally:
            _remove(name)


class Ssh:
    """A way by ssh from this machine into hosts, with keys of its own. Nothing of the user's ssh is read or written.

    Attributes:
        environment: That of this process, with this ``ssh`` first in the path.
    """

    def __init__(self, directory: Path) -> None:
        """Make the keys, in an empty directory whose path has no blanks.

        Raises:
            UserError: There is no sshd.
        """
        if not SSHD.exists():
            raise UserError(f"no {SSHD} (Debian: apt-get install openssh-server).")
        self._directory = directory
        for name in ("host_key", "user_key"):
            file = str(directory / name)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
        public_key = (directory / "host_key.pub").read_text()
        (directory / "known_hosts").write_text(f"* {public_key}")
        (directory / "config").write_text(
            f"IdentityFile {directory}/user_key\nIdentitiesOnly yes\nUserKnownHostsFile {directory}/known_hosts\n"
        )
        wrapper = directory / "bin" / "ssh"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {directory}/config "$@"\n')
        wrapper.chmod(0o755)
        self.environment = os.environ | {"PATH": f"{wrapper.parent}:{os.environ['PATH']}"}

    def listen(self, host: Host) -> None:
        """Start an sshd in a host, and wait until it answers."""
        _NEEDED_BY_SSHD.mkdir(exist_ok=True)
        options = {
            "ListenAddress": host.address,
            "HostKey": self._directory / "host_key",
            "AuthorizedKeysFile": self._directory / "user_key.pub",
            "PidFile": "none",
            "StrictModes": "no",  # the keys lie where others may write, but only until the end of a test
        }
        given = [argument for name, value in options.items() for argument in ("-o", f"{name}={value}")]
        log = self._directory / f"{host.name}.log"
        daemon = host.start([str(SSHD), "-D", "-e", "-f", "/dev/null", *given], log=log)
        deadline = time.monotonic() + _SSH_WITHIN_S
        try_it = ["ssh", host.address, "true"]
        while subprocess.run(try_it, env=self.environment, capture_output=True, check=False).returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"no ssh into {host.name}:\n{log.read_text()}", 1)


@contextmanager
def _held(number: int) -> Iterator[None]:
    """Hold the network's lock, which the kernel gives back where this process is killed."""
    with open(_LOCKS / f"galaxyspark-network-{number}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"network 10.{number}.0.0/24: another process has hosts in it; use another.") from None
        yield


def _make(name: str, prefix: str, num_hosts: int) -> Network:
    address = f"{prefix}.1"
    _ip("link", "add", name, "type", "bridge")
    _ip("address", "add", f"{address}/24", "dev", name)
    _ip("link", "set", name, "up")
    hosts = tuple(Host(f"{name}-{count}", f"{prefix}.{10 + count}") for count in range(1, num_hosts + 1))
    names = "127.0.0.1 localhost\n" + "".join(f"{host.address} {host.name}\n" for host in hosts)
    for host in hosts:
        _add(host, name, names)
    return Network(name, address, hosts)


def _add(host: Host, bridge: str, names: str) -> None:
    """Make a host, with ``names`` as its /etc/hosts."""
    files = _FILES_OF_HOSTS / host.name
    files.mkdir(parents=True, exist_ok=True)
    (files / "hosts").write_text(names)
    _ip("netns", "add", host.name)
    _ip("link", "add", host.name, "type", "veth", "peer", "name", bridge, "netns", host.name)
    _ip("link", "set", host.name, "master", bridge, "up")
    for interface in ("lo", bridge):
        _ip("-netns", host.name, "link", "set", interface, "up")
    _ip("-netns", host.name, "address", "add", f"{host.address}/24", "dev", bridge)


def _remove(name: str) -> None:
    """Remove a network, whatever there is of it."""
    for line in _ip("netns", "list").splitlines():
        host = Host(line.split()[0], "")
        if host.name.startswith(f"{name}-"):
            host.kill()
            _ip("netns", "delete", host.name)
            shutil.rmtree(_FILES_OF_HOSTS / host.name, ignore_errors=True)
            _remove_link(host.name)
    _remove_link(name)


def _remove_link(name: str) -> None:
    with suppress(UserError):  # of a namespace that has gone already
        _ip("link", "delete", name)


def _ip(*arguments: str) -> str:
    """Run iproute2's ``ip``; what it says.

    Raises:
        UserError: It failed, as it does in a container that must not make interfaces.
    """
    completed = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if completed.returncode:
        raise UserError(f"ip {' '.join(arguments)}: {completed.stderr.strip()}", 1)
    return completed.stdout
