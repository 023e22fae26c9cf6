"""Runs a command and keeps known noise of Spark, petastorm and Horovod off the terminal: python -m galaxyspark.quiet.

Progress bars redraw their line with a carriage return. On a terminal they pass; in a log file only their last state
is kept. The exit status is the command's.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from typing import IO

_NOISE = (
    b"WARNING: Using incubator modules",
    b"Cache cleanup complete.",
    b"Using Spark's default log4j profile",
    b"[W socket.cpp",
)
_FIRST_RANK = re.compile(rb"^\[0\]<(stdout|stderr)>:")
_PIECE = re.compile(rb"[^\r\n]*[\r\n]")


def clean(piece: bytes, redraws: bool) -> bytes:
    """What to show of a piece of output that ends with a newline or a carriage return; empty for noise."""
    piece = _FIRST_RANK.sub(b"", piece)
    if piece.startswith(_NOISE) or (piece.endswith(b"\r") and not redraws):
        return b""
    return piece


def _pump(source: IO[bytes], target: IO[bytes], redraws: bool) -> None:
    pending = b""
    while block := os.read(source.fileno(), 4096):
        pending += block
        end = 0
        for match in _PIECE.finditer(pending):
            target.write(clean(match.group(), redraws))
            end = match.end()
        pending = pending[end:]
        target.flush()
    target.write(clean(pending, redraws=True))
    target.flush()


def main(command: list[str]) -> int:
    """Run the command and return its exit status."""
    columns, lines = shutil.get_terminal_size()
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": str(lines), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the command too, which then ends
    pumps = [
        threading.Thread(target=_pump, args=(source, target.buffer, target.isatty()))
        for source, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
    ]
    for pump in pumps:
        pump.start()
    for pump in pumps:
        pump.join()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
