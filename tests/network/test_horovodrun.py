"""What our horovodrun tells its ranks, and whom."""

from __future__ import annotations

import json
import os
import subprocess
import sys

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
