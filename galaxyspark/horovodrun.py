"""horovodrun, but for two things: python -m galaxyspark.horovodrun.

Its parser takes flags of the command that it is to run for abbreviations of its own, and gives up where they are
ambiguous: ``--network`` could be ``--network-interface``. And it kills ranks five seconds after it has asked them to
end, or, where the shell is bash, without asking: too soon for a slow step and its checkpoint.
"""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from functools import partialmethod

import psutil
from horovod.runner.common.util import safe_shell_exec
from horovod.runner.launch import run_commandline

_GRACE_S = 60
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


def main() -> None:
    """Do what horovodrun does, without abbreviations."""
    argparse.ArgumentParser.__init__ = partialmethod(  # type: ignore[method-assign, assignment]
        argparse.ArgumentParser.__init__, allow_abbrev=False
    )
    run_commandline()


if __name__ == "__main__":
    main()
