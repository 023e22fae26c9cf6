"""Real processes behind galaxyspark.quiet, and what of their output arrives."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from galaxyspark import quiet
from galaxyspark.quiet import HorovodsTraceback, clean

QUIET = [sys.executable, "-m", "galaxyspark.quiet"]


def run(*script: str) -> subprocess.CompletedProcess[bytes]:
    """A child that runs the lines of a script, with ``out`` and ``err`` for its streams of bytes."""
    child = "\n".join(["import os, sys, time", "out, err = sys.stdout.buffer, sys.stderr.buffer", *script])
    return subprocess.run([*QUIET, sys.executable, "-c", child], capture_output=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        (b"WARNING: Using incubator modules: jdk.incubator.vector\n", b""),
        (b"[W socket.cpp:601] no address\n", b""),
        (b":: resolving dependencies :: org.apache.spark#spark-submit-parent-d0ea9066;1.0\n", b""),
        (b"\tfound org.apache.hadoop#hadoop-aws;3.4.1 in central\n", b""),
        (b"\t|      default     |   26  |   0   |   0   |   4   ||   22  |   0   |\n", b""),
        (b"downloading https://repo1.maven.org/maven2/hadoop-aws-3.4.1.jar ...\n", None),
        (b"\tat org.apache.spark.deploy.SparkSubmit.main(SparkSubmit.scala)\n", None),
        (b"[0]<stderr>:[W socket.cpp:601] no address\n", b""),
        (b"[0]<stdout>:epoch 1\n", b"epoch 1\n"),
        (b"[0]<stderr>:epoch 1\n", b"epoch 1\n"),
        (b"[1]<stderr>:Traceback\n", b"[1]<stderr>:Traceback\n"),
        (b"[10]<stdout>:x\n", b"[10]<stdout>:x\n"),
        (b"see [0]<stdout>: and WARNING: Using incubator modules\n", None),
        (b"\n", b"\n"),
        (b"", b""),
    ],
)
@pytest.mark.parametrize("redraws", [True, False])
def test_noise_goes_and_everything_else_stays(piece: bytes, shown: bytes | None, redraws: bool) -> None:
    assert clean(piece, redraws) == (piece if shown is None else shown)


@pytest.mark.parametrize("between", [[], ["WARNING: Using incubator modules: x"]])
def test_messages_that_nobody_waits_for_any_more_do_not_end_a_job_with_javas_calls(between: list[str]) -> None:
    """As Spark 4.0.5 printed it when a job ended whose executor had been cut off the network."""
    calls = ["\tat scala.concurrent.impl.Promise.run(Promise.scala:504)", "\tat java.lang.Thread.run(Thread.java:840)"]
    rejected = "java.util.concurrent.RejectedExecutionException: Task Future(<not completed>) rejected from x"
    other = "java.util.concurrent.RejectedExecutionException: Task of another kind"
    text = "\n".join(["before", rejected, calls[0], *between, calls[1], "after", other, *calls])
    assert run(f"err.write({text.encode()!r})").stderr.decode().splitlines() == ["before", "after", other, *calls]


def test_streams_and_status_are_passed_on() -> None:
    completed = run(
        "print('WARNING: Using incubator modules: x', file=sys.stderr)",
        "print('[0]<stdout>:result')",
        "print('[1]<stderr>:trouble', file=sys.stderr)",
        "print('no newline at the end', end='')",
        "sys.exit(7)",
    )
    assert completed.stdout == b"result\nno newline at the end"
    assert completed.stderr == b"[1]<stderr>:trouble\n"
    assert completed.returncode == 7


def test_a_command_that_succeeds_has_status_0() -> None:
    assert run("pass").returncode == 0


def test_a_command_that_was_killed_is_told_of() -> None:
    completed = run("import signal", "os.kill(os.getpid(), signal.SIGKILL)")
    assert completed.returncode == 128 + 9
    assert completed.stderr == b"\nEnded by SIGKILL. What was published before stands; run it again.\n"


def test_a_line_written_in_pieces_is_one_line() -> None:
    completed = run(
        "for piece in (b'WARNING: Using inc', b'ubator modules\\nke', b'pt\\n'):",
        "    out.write(piece); out.flush(); time.sleep(0.05)",
    )
    assert completed.stdout == b"kept\n"


def test_much_output_and_bytes_that_are_no_text_arrive_unchanged() -> None:
    completed = run(
        "out.write(bytes([0, 128, 255, 254]) * 5 + b'\\n')",
        "for number in range(20_000):",
        "    out.write(b'row %d\\n' % number)",
        "    err.write(b'[0]<stderr>:row %d\\n' % number)",
    )
    rows = b"".join(b"row %d\n" % number for number in range(20_000))
    assert completed.stdout == bytes([0, 128, 255, 254]) * 5 + b"\n" + rows
    assert completed.stderr == rows


def test_a_log_keeps_only_the_last_state_of_a_progress_bar() -> None:
    bar = r"'\rtrain:  10%', '\rtrain:  60%', '\rtrain: 100%\n', 'done\n', '\rpredict: 5%', '\rpredict: 9%'"
    completed = run(f"for state in ({bar}):", "    print(state, end='', file=sys.stderr, flush=True)")
    assert completed.stderr == b"train: 100%\ndone\npredict: 9%"


def test_a_terminal_sees_the_progress_bar_move() -> None:
    controller, terminal = pty.openpty()
    child = "import sys; print('\\r 10%', '\\r 60%', '\\r100%', sep='', file=sys.stderr)"
    with subprocess.Popen([*QUIET, sys.executable, "-c", child], stdout=terminal, stderr=terminal) as process:
        process.wait(timeout=30)
    seen = b""
    while select.select([controller], [], [], 0.2)[0]:
        seen += os.read(controller, 4096)
        if b"100%" in seen:
            break
    os.close(terminal)
    os.close(controller)
    assert [state.strip() for state in seen.split(b"\r") if state.strip()] == [b"10%", b"60%", b"100%"]


def test_output_is_not_held_back_until_the_end() -> None:
    child = "import time; print('first', flush=True); time.sleep(30)"
    with subprocess.Popen([*QUIET, sys.executable, "-c", child], stdout=subprocess.PIPE) as process:
        start = time.monotonic()
        assert process.stdout.readline() == b"first\n"
        assert time.monotonic() - start < 15
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) != 0  # and a stopped one stops its command, which would sleep on
        assert process.stdout.read() == b""


def test_a_reader_that_goes_away_does_not_stop_the_command(tmp_path: Path) -> None:
    """As ``| head -1`` does."""
    done = tmp_path / "done"
    child = f"print('x' * 79, '\\n' * 1, end='') or [print('y' * 79) for _ in range(20_000)]; open({str(done)!r}, 'w')"
    with subprocess.Popen([*QUIET, sys.executable, "-c", child], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) == 0
    assert done.exists()


def test_a_long_silence_of_a_redrawn_bar_is_broken_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "_HEARTBEAT_S", 0.0)
    reading, writing = os.pipe()
    os.write(writing, b"train: 1%\rtrain: 2%\r")
    os.close(writing)
    shown = io.BytesIO()
    with open(reading, "rb", buffering=0) as source:
        quiet._pump(source, shown, redraws=False)
    assert shown.getvalue() == b"train: 1%\ntrain: 2%\n"


def test_noise_of_any_rank_goes_and_windows_newlines_stay() -> None:
    assert clean(b"[1]<stderr>:[W socket.cpp:601] no address\n", redraws=False) == b""
    assert run("out.write(b'row\\r\\n')").stdout == b"row\r\n"


def test_horovodruns_own_traceback_is_one_line_and_others_stay() -> None:
    lines = [
        b"Process 1 exit with status code 137.\n",
        b"Traceback (most recent call last):\n",
        b'  File "horovodrun", line 8, in <module>\n',
        b"    sys.exit(run_commandline())\n",
        b"RuntimeError: Horovod detected that one or more processes exited with non-zero status, thus causing ...\n",
        b"Process name: 1\n",
        b"Exit code: 137\n",
        b"Traceback (most recent call last):\n",
        b'  File "jobs/train.py", line 3, in <module>\n',
        b"ValueError: ours\n",
    ]
    traceback = HorovodsTraceback()
    shown = b"".join(traceback.filter(line) for line in lines) + traceback.rest()
    assert shown.splitlines() == [
        b"Process 1 exit with status code 137.",
        b"horovodrun: a rank has ended with an error, so all were ended. The first to end was:",
        b"Process name: 1",
        b"Exit code: 137",
        *(line.rstrip(b"\n") for line in lines[-3:]),
    ]


def test_horovodrun_says_nothing_where_the_ranks_were_asked_to_stop() -> None:
    lines = [
        b"train: Stopped after step 3 of 9, as asked. Run it again to go on.\n",
        b"Process 0 exit with status code 143.\n",
        b"Traceback (most recent call last):\n",
        b"  File launch.py\n",
        b"RuntimeError: Horovod detected that one or more processes exited with non-zero status.\n",
        b"Process name: 0\n",
        b"Exit code: 143\n",
    ]
    traceback = HorovodsTraceback()
    assert b"".join(traceback.filter(line) for line in lines) + traceback.rest() == lines[0]


def test_a_traceback_without_its_end_is_shown() -> None:
    traceback = HorovodsTraceback()
    assert traceback.filter(b"Traceback (most recent call last):\n") == b""
    assert traceback.rest() == b"Traceback (most recent call last):\n"
