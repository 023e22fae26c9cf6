"""Runs a command and keeps known noise of Spark, petastorm and Horovod off the terminal: python -m galaxyspark.quiet.

Progress bars redraw their line with a carriage return. On a terminal they pass; a log file gets their last state, and
a line every half minute on the way there. The exit status is the command's.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import IO

_NOISE = (
    b"WARNING: Using incubator modules",
    b"Cache cleanup complete.",
    b"Using Spark's default log4j profile",
    b"[W socket.cpp",
    b"Setting default log level to",
    b"To adjust logging level use",
)
# What Spark's fetching of packages (spark.jars.packages) says; that it downloads one is shown.
_IVY = re.compile(
    rb"Ivy Default Cache|The jars for the packages|SLF4J: |\S+#\S+ added as a dependency|:: (?:loading|resol|retriev)"
    rb"|\t(?::: |confs: |found |\S+#\S+;|-{9}|\||\d+ artifacts )"
)
_RANK = re.compile(rb"^\[(\d+)\]<(?:stdout|stderr)>:")
_TRACEBACK = b"Traceback (most recent call last):"
_HOROVOD_ENDED = b"RuntimeError: Horovod detected that one or more processes exited"
_WHICH_ENDED = b"Process name: "
_STOPPED_AS_ASKED = re.compile(rb"(?:Exit code: 143|Process \d+ exit with status code 143\.)\s*$")
_REJECTED = b"java.util.concurrent.RejectedExecutionException: Task Future(<not completed>) rejected"
_PIECE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)")
_HEARTBEAT_S = 30.0


def clean(piece: bytes, redraws: bool) -> bytes:
    """What to show of a piece of output that ends with a newline or a carriage return; empty for noise."""
    rank = _RANK.match(piece)
    text = piece[rank.end() :] if rank else piece
    if text.startswith(_NOISE) or _IVY.match(text) or (piece.endswith(b"\r") and not redraws):
        return b""
    return text if rank and rank.group(1) == b"0" else piece


class HorovodsTraceback:
    """Holds a traceback back until its last line, and drops horovodrun's, which only says that a rank has ended.

    What horovodrun says after it, which rank was the first and its exit status, passes, unless it was asked to end.
    """

    def __init__(self) -> None:
        self.held: list[bytes] = []

    def filter(self, piece: bytes) -> bytes:
        """What to show once this piece has come."""
        if piece.startswith(_TRACEBACK):
            self.held.append(piece)
            return b""
        if self.held and piece.startswith((b"  ", _WHICH_ENDED)):
            self.held.append(piece)
            return b""
        held, self.held = self.held, []
        if _STOPPED_AS_ASKED.match(piece):
            return b""
        if held and piece.startswith(_HOROVOD_ENDED):
            self.held = [b"horovodrun: a rank has ended with an error, so all were ended. The first to end was:\n"]
            return b""
        return b"".join(held) + piece

    def rest(self) -> bytes:
        """What is still held when there is no more to come."""
        return b"".join(self.held)


class RejectedFutures:
    """Drops the error, with its stack, that Spark prints where it stops while an executor owes an answer.

    Spark's threads that would have dealt with it have ended; a lost executor never answers.
    """

    def __init__(self) -> None:
        self.inside = False

    def filter(self, piece: bytes) -> bytes:
        """What to show of a piece that is not empty."""
        self.inside = piece.startswith(_REJECTED) or (self.inside and piece.startswith(b"\tat "))
        return b"" if self.inside else piece


def _pump(source: IO[bytes], target: IO[bytes], redraws: bool) -> None:
    """Pass the source on until it ends. In a log a bar that is redrawn for long shows a line now and then."""
    pending = b""
    traceback = HorovodsTraceback()
    filters = (RejectedFutures().filter, traceback.filter)
    shown_at = time.monotonic()
    while block := os.read(source.fileno(), 4096):
        pending += block
        end = 0
        for match in _PIECE.finditer(pending):
            piece = match.group()
            end = match.end()
            if piece.endswith(b"\r") and not redraws and time.monotonic() - shown_at > _HEARTBEAT_S:
                piece = piece[:-1] + b"\n"
                shown_at = time.monotonic()
            _write(target, _filtered(clean(piece, redraws), filters))
        pending = pending[end:]
    _write(target, _filtered(clean(pending, redraws=True), filters) + traceback.rest())


def _filtered(piece: bytes, filters: Iterable[Callable[[bytes], bytes]]) -> bytes:
    """What filters leave of a piece; none sees one of which nothing is left."""
    for keep in filters:
        piece = piece and keep(piece)
    return piece


def _write(target: IO[bytes], text: bytes) -> None:
    """Write at once. Where nobody reads any more (``| head``), the command must still be able to finish."""
    try:
        target.write(text)
        target.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), target.fileno())


def main(command: list[str]) -> int:
    """Run the command and return its exit status; of one that was killed, as shells have it, which is said."""
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
    status = process.wait()
    if status >= 0:
        return status
    name = signal.Signals(-status).name
    print(f"\nEnded by {name}. What was published before stands; run it again.", file=sys.stderr)
    return 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
