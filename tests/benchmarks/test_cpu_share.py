"""A share of a core, by what a busy process gets of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from benchmarks.growth.cpu_share import cpu_share

BUSY = "while True: pass"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a control group")
def test_a_process_and_what_it_starts_get_their_share_together_and_it_is_counted() -> None:
    name = f"galaxyspark-test-{os.getpid()}"
    with cpu_share(name, 0.2) as share:
        # A shell that waits for a word: it is in the group before it starts anything.
        waiting = ["sh", "-c", 'read word; exec "$0" -c "$1"', sys.executable, CHILD]
        process = subprocess.Popen(waiting, stdin=subprocess.PIPE)
        assert process.stdin
        share.take(process.pid)
        start = time.monotonic()
        process.stdin.write(b"go\n")
        process.stdin.close()
        time.sleep(3)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(family) == 2
        used = [each.cpu_times() for each in family]
        elapsed = time.monotonic() - start
        counted_s = share.used_s()
        for each in family:
            each.kill()
        process.wait(10)
    by_processes_s = sum(times.user + times.system for times in used)
    assert 0.05 * elapsed < by_processes_s <= 0.2 * elapsed + 0.1
    assert counted_s == pytest.approx(by_processes_s, abs=0.15)
    assert not share.limits.exists() and not share.counts.exists()
