"""A run on a disk: output is staged inside the run and published by rename.

The old manifest, ``manifests/<stage>.json``, is the first to go and the new one the last to come: a stage without a
manifest has not been published, and its output is refused. What was moved away is kept until then, so that publishing
that breaks off is undone: at once after an error, by the next attempt after a kill. What else a killed stage leaves
behind is removed by the next attempt too.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from typing_extensions import override

from galaxyspark.errors import UserError
from galaxyspark.storage import Place, Staging, Storage


class DiskStorage(Storage):
    """The run in a directory; see ``storage.Storage``."""

    def __init__(self, root: Path) -> None:
        """Point at a directory, which need not be there.

        Raises:
            UserError: It is a file.
        """
        if root.exists() and not root.is_dir():
            raise UserError(f"--run {root}: is a file, not a directory.")
        self.root: Place = root.absolute()
        self._root = root.absolute()

    @override
    def exists(self) -> bool:
        return self._root.exists()

    @override
    def place(self, name: str) -> Place:
        return self._root / name

    @override
    def path(self, name: str) -> Path:
        return self._root / name

    @override
    def has(self, name: str) -> bool:
        return (self._root / name).exists()

    @override
    def keep(self, name: str) -> None:
        pass  # it lies there already

    @override
    def manifest(self, stage: str) -> dict[str, Any] | None:
        file = self._manifest_file(stage)
        if not file.is_file():
            return None
        content: dict[str, Any] = json.loads(file.read_text())
        if "attempt" in content:
            raise UserError(f"{self.root}: was published behind a URL. Name it so: --run file://{self.root}")
        return content

    @override
    def is_running(self, stage: str) -> bool:
        try:
            with open(self._lock_file(stage)) as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @override
    def leftovers(self, stage: str) -> list[Path]:
        patterns = (f".staging-{stage}-*", f".replaced-{stage}-*")
        return [path for pattern in patterns for path in self._root.glob(pattern)]

    @override
    @contextmanager
    def only_one(self, stage: str) -> Iterator[None]:
        """Hold the lock of a stage: two processes must not publish the same one at a time."""
        file = self._lock_file(stage)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = open(file, "w")  # noqa: SIM115  (closed below, after what the lock is for)
        except OSError as error:
            raise UserError(f"--run {self._root}: cannot write there ({error.strerror}).") from None
        with lock:
            if not _locked(lock):
                raise UserError(f"{self._root}: another process is running stage '{stage}' in this run.")
            yield

    @override
    def begin(self, stage: str) -> Staging:
        self._undo_publishing(stage)
        self._remove_leftovers(stage)
        directory = self._root / f".staging-{stage}-{uuid.uuid4().hex[:8]}"
        directory.mkdir()
        return Staging(directory)

    @override
    def outputs(self, staging: Staging) -> list[str]:
        return sorted(path.name for path in staging.directory.iterdir())

    @override
    def publish(self, stage: str, staging: Staging) -> None:
        staged = staging.directory
        manifest = f"manifests/{stage}.json"
        new = _published_names(staged / manifest, stage)
        old = _published_names(self._root / manifest, stage)
        replaced = self._root / f".replaced-{stage}-{uuid.uuid4().hex[:8]}"
        try:
            for name in [manifest, *new, *(name for name in old if name not in new)]:
                _move_if_there(self._root / name, replaced / name)
            for name in [*new, manifest]:
                _move_if_there(staged / name, self._root / name)
        except BaseException:
            self._undo_publishing(stage)
            raise
        self._remove_leftovers(stage)

    @override
    def end(self, staging: Staging) -> None:
        # Tasks of a failed Spark job may still be writing there for a moment.
        for _ in range(20):
            shutil.rmtree(staging.directory, ignore_errors=True)
            if not staging.directory.exists():
                return
            time.sleep(0.25)

    def _undo_publishing(self, stage: str) -> None:
        """Bring back what was published before, if publishing broke off; if this breaks off too, it can be repeated."""
        manifest = f"manifests/{stage}.json"
        if (self._root / manifest).exists():
            return
        for staging in self._root.glob(f".staging-{stage}-*"):
            for name in _published_names(staging / manifest, stage):
                if not (staging / name).exists():
                    _move_if_there(self._root / name, staging / name)
        for replaced in self._root.glob(f".replaced-{stage}-*/"):
            moved = [path.name for path in replaced.iterdir() if path.name not in ("manifests", "settings")]
            for name in [*moved, f"settings/{stage}.yaml", manifest]:
                _move_if_there(replaced / name, self._root / name)

    def _remove_leftovers(self, stage: str) -> None:
        for leftover in self.leftovers(stage):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def _manifest_file(self, stage: str) -> Path:
        return self._root / "manifests" / f"{stage}.json"

    def _lock_file(self, stage: str) -> Path:
        return self._manifest_file(stage).with_suffix(".lock")


def _locked(lock: IO[str]) -> bool:
    """Take a stage's lock, unless a process runs the stage. Who only asks whether one does has it for a moment too."""
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        else:
            return True
    return False


def _published_names(manifest: Path, stage: str) -> list[str]:
    """What a manifest says was published with it, as paths from the root; nothing where there is no manifest."""
    if not manifest.is_file():
        return []
    return [*json.loads(manifest.read_text()).get("outputs", []), f"settings/{stage}.yaml"]


def _move_if_there(source: Path, target: Path) -> None:
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
