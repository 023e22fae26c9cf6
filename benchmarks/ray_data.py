"""Ray Data at the work of the stage ``augment``: the same views of the same images, in an environment of Ray's own.

Ray wants a newer Arrow than petastorm, so it gets a virtual environment in the user's cache, made once. A process
there, ``ray_data_worker``, starts Ray and waits for requests: a line of JSON on its stdin for each, a line on its
stdout for the reply. So neither the start of Ray nor that of its workers is part of a run after the first.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.splits import SplitRule
from galaxyspark.views.augment import ViewRecipe

RAY_VERSION = "2.60.0"
_ARROW_VERSION = "25.0.1"  # 26 needs numpy 2, which its wheel does not say
_AS_OURS = ("numpy", "pandas", "opencv-python-headless", "simplejpeg", "Pillow", "astropy")
"""What Ray Data and galaxyspark.views import: in the versions that galaxyspark itself runs on."""

_ROOT = Path(__file__).parents[1]
_REQUIREMENTS = _ROOT / "conf" / "setup" / "requirements.txt"
_WORKER = Path(__file__).with_name("ray_data_worker.py")
_LINES_SHOWN = 25
_STOP_S = 30.0

_SETTINGS = {
    "PYTHONPATH": str(_ROOT),
    "OMP_NUM_THREADS": "1",  # a worker a core, each on one thread
    "RAY_worker_niceness": "0",  # else 15: the other alternatives do not stand back either
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without clusters Ray listens on the loopback interface only; its flag for the node's address does not see to that.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


class RayData:
    """Ray, started, for as long as the context lasts."""

    def __enter__(self) -> Self:
        """Make Ray's environment where there is none, and start Ray.

        Raises:
            UserError: The environment cannot be made.
            RuntimeError: Ray does not start.
        """
        python = ray_python()
        with ExitStack() as resources:
            # Ray keeps sockets and logs there; the path of a socket must be short.
            directory = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="ray-")))
            self._log = directory / "stderr"
            with open(self._log, "w") as log:
                self._process = subprocess.Popen(
                    [python, _WORKER, directory],
                    env=os.environ | _SETTINGS,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,
                )
            resources.callback(self._stop)
            self._reply()
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop Ray and everything it has started."""
        self._resources.close()

    def run(self, images: Path, labels: Path, recipe: ViewRecipe, split_rule: SplitRule, directory: Path) -> Path:
        """Make the views of all images and write them as Parquet, with the columns and the partitions of the stage.

        Args:
            images: Folder of images, all of them readable and labelled.
            labels: CSV in the challenge's format.
            recipe: What all views have in common.
            split_rule: Which split a galaxy belongs to.
            directory: Where to write; it must not hold a dataset yet.

        Returns:
            The dataset's directory, below ``directory``.

        Raises:
            RuntimeError: Ray failed; the message ends with what it said.
        """
        request = {
            "images": str(images),
            "labels": str(labels),
            # The worker has the same classes from the same checkout.
            "recipe": base64.b64encode(pickle.dumps(recipe)).decode(),
            "split_rule": base64.b64encode(pickle.dumps(split_rule)).decode(),
            "dataset": str(directory / "views"),
        }
        with suppress(BrokenPipeError):  # where it has ended, the missing reply tells
            print(json.dumps(request), file=self._process.stdin, flush=True)
        return Path(self._reply()["dataset"])

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"Ray Data failed. The last it said:\n{_last_lines(self._log.read_text())}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _stop(self) -> None:
        """End the process by ending its input; it then shuts Ray down. Kill what is left where it hangs or failed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()


def ray_python() -> Path:
    """The Python of Ray's environment, which is made now where there is none, half of one, or one of other versions.

    Raises:
        UserError: It cannot be made; the message ends with what pip said.
    """
    name = f"ray-{RAY_VERSION}-python{sys.version_info.major}.{sys.version_info.minor}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "galaxyspark" / "bench" / name
    packages = _packages()
    ready = directory / ".ready"
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.parent / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it
        python = directory / "bin" / "python"
        if not (python.exists() and ready.exists() and ready.read_text().split() == packages):
            print(f"Making Ray's environment (850 MB, once), {directory} ...", file=sys.stderr)
            shutil.rmtree(directory, ignore_errors=True)
            _call(sys.executable, "-m", "venv", str(directory))
            _call(str(python), "-m", "pip", "install", "--disable-pip-version-check", *packages)
            ready.write_text("\n".join(packages))
            print("Ray's environment is ready.", file=sys.stderr)
    return python


def _packages() -> list[str]:
    """What to install, in exact versions."""
    versions = dict(re.findall(r"^([\w.-]+)==(\S+)", _REQUIREMENTS.read_text().lower(), re.MULTILINE))
    as_ours = [f"{name}=={versions[name.lower()]}" for name in _AS_OURS]
    return [f"ray[data]=={RAY_VERSION}", f"pyarrow=={_ARROW_VERSION}", *as_ours]


def _call(*command: str) -> None:
    completed = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if completed.returncode:
        raise UserError(
            f"Ray's environment cannot be made: {' '.join(command)} failed. It needs the network (PyPI) and 850 MB in "
            f"the user's cache; mend that and start again. The last it said:\n{_last_lines(completed.stdout)}"
        )


def _last_lines(text: str) -> str:
    return "\n".join(deque(text.splitlines(), _LINES_SHOWN))
