"""horovodrun, but for five things: python -m galaxyspark.horovodrun.

Its parser takes flags of the command that it is to run for abbreviations of its own, and gives up where they are
ambiguous: ``--network`` could be ``--network-interface``. It kills ranks five seconds after it has asked them to end,
or, where the shell is bash, without asking: too soon for a slow step and its checkpoint. It writes all of its
environment, credentials too, into commands that everybody on the machine can read. And it reaches other hosts by an ssh
that trusts any host key, waits forever for a host that has gone, and leaves ranks running there when it is ended. Where
there is one other host only, it may have its rank look for the launcher on the loopback interface.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress
from functools import partialmethod
from typing import Any

import psutil
from horovod.runner.common.util import env, safe_shell_exec
from horovod.runner.driver import driver_service
from horovod.runner.launch import run_commandline
from horovod.runner.util import network, remote

_NO_SSH = "could not connect to some hosts via ssh"  # as Horovod says it
_GRACE_S = 60
# What ranks are given in their commands. Those on this machine inherit the rest.
_FOR_ALL_RANKS = ("HOROVOD_", "NCCL_", "OMP_", "PYTHON", "GALAXYSPARK_")
# On a terminal of its own a rank is told (SIGHUP) when ssh ends. A host is given up after 15 s of silence. Whether a
# host's key is known is for the user's ssh to say; no question is asked.
_SSH = (
    "ssh -n -tt -o LogLevel=ERROR -o BatchMode=yes -o PasswordAuthentication=no -o ConnectTimeout=10 "
    "-o ServerAliveInterval=5 -o ServerAliveCountMax=3"
)
_probed_interfaces = driver_service.get_common_interfaces
_end_shell_and_children = safe_shell_exec.terminate_executor_shell_and_children


def _end_rank(pid: int) -> None:
    """Ask the rank to end, wait, and leave what then remains to Horovod.

    Args:
        pid: Of the shell that has started the rank; or of the rank itself, where the shell has become it.
    """
    with suppress(psutil.NoSuchProcess):
        shell = psutil.Process(pid)
        ranks = shell.children() or [shell]
        for rank in ranks:
            rank.terminate()
        deadline = time.monotonic() + _GRACE_S
        while any(map(_is_running, ranks)):
            if time.monotonic() > deadline:
                return _end_shell_and_children(pid)
            time.sleep(0.05)


def _is_running(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


# Horovod calls it in processes of its own, which import this module too.
safe_shell_exec.terminate_executor_shell_and_children = _end_rank
env.IGNORE_REGEXES.add(f"(?!{'|'.join(_FOR_ALL_RANKS)})")
remote.SSH_COMMAND_PREFIX = _SSH


def _common_interfaces(settings: Any, hosts: list[str], others: list[str], *cache: Any) -> set[str] | None:
    """The interfaces by which all hosts reach each other; one host reaches itself by the loopback interface too."""
    probed = _probed_interfaces(settings, hosts, others, *cache)
    if not others or not probed:
        return probed  # type: ignore[no-any-return]
    found: set[str] = set(probed) - network.get_local_intfs()
    if not found:
        sys.exit("horovodrun: no network interface by which all hosts reach each other. Name it: --network-interface.")
    return found


driver_service.get_common_interfaces = _common_interfaces


def main() -> None:
    """Do what horovodrun does, without abbreviations, and without a traceback where a host cannot be reached."""
    argparse.ArgumentParser.__init__ = partialmethod(  # type: ignore[method-assign, assignment]
        argparse.ArgumentParser.__init__, allow_abbrev=False
    )
    try:
        run_commandline()
    except RuntimeError as error:
        if _NO_SSH not in str(error):
            raise
        sys.exit(f"horovodrun: {error}. Try each: ssh HOST true must need neither password nor answer.")


if __name__ == "__main__":
    main()
