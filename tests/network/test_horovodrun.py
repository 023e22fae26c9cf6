"""What our horovodrun tells its ranks, and whom."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from horovod.runner.util.remote import get_remote_command

import galaxyspark.horovodrun  # noqa: F401  (changes Horovod's commands)
from benchmarks.hosts import SSHD, Ssh, network, why_not

# A rank says all commands that everybody on the machine can read: its own and those of the processes that started it.
RANK = """
import json, os, psutil
us = psutil.Process()
commands = [process.cmdline() for process in (us, *us.parents())]
wanted = ("AWS_SECRET_ACCESS_KEY", "OMP_NUM_THREADS", "HOROVOD_RANK")
print("told:" + json.dumps([commands, {name: os.environ[name] for name in wanted}]))
"""


def test_no_command_has_credentials_and_ranks_here_have_them_all_the_same() -> None:
    environment = os.environ | {"AWS_SECRET_ACCESS_KEY": "canary", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "galaxyspark.horovodrun", "-np", "1", sys.executable, "-c", RANK]
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert completed.returncode == 0, completed.stderr
    commands, known = json.loads(completed.stdout.partition("told:")[2].splitlines()[0])
    assert known == {"AWS_SECRET_ACCESS_KEY": "canary", "OMP_NUM_THREADS": "1", "HOROVOD_RANK": "0"}
    assert "HOROVOD_RANK=0" in str(commands)  # they are the commands that could have it
    assert "canary" not in str(commands)


@pytest.mark.skipif(bool(why_not()) or not SSHD.exists(), reason=why_not() or f"there is no {SSHD}")
def test_another_host_is_reached_where_its_key_is_known_and_only_there(tmp_path: Path) -> None:
    with network(1, number=80) as joined:
        ssh, (host,) = Ssh(tmp_path), joined.hosts
        ssh.listen(host)
        shell = {"shell": True, "env": ssh.environment, "capture_output": True, "text": True}
        command = get_remote_command("hostname", host.address)
        known = subprocess.run(command, timeout=60, check=False, **shell)
        assert (known.returncode, known.stdout.strip(), known.stderr) == (0, host.name, "")
        (tmp_path / "known_hosts").write_text("")
        stranger = subprocess.run(command, timeout=60, check=False, **shell)
        assert stranger.returncode != 0
        assert "Host key verification failed" in stranger.stdout + stranger.stderr
        assert (tmp_path / "known_hosts").read_text() == ""
