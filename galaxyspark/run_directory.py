"""The run directory: where each stage finds its input, and how it publishes its output.

A stage writes all of its output, its manifest and its settings into a staging directory inside the run and publishes
by rename. The old manifest, ``manifests/<stage>.json``, is the first to go and the new one the last to come: a stage
without a manifest has not been published, and its output is refused. What was moved away is kept until then, so that
publishing that breaks off is undone: at once after an error, by the next attempt after a kill. What else a killed stage
leaves behind is removed by the next attempt too.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shlex
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from galaxyspark import __version__
from galaxyspark.command_line import to_yaml
from galaxyspark.errors import UserError
from galaxyspark.settings import STAGES, RunSettings

_VERSIONS_OF = ("pyspark", "petastorm", "pyarrow", "numpy", "torch", "torchvision", "horovod", "scikit-learn")
_NOT_IN_PATHS = re.compile(r"[#?*\[\]{}\\]")


@dataclass
class Staging:
    """An unpublished stage.

    Attributes:
        directory: Where to write.
        manifest: What is to be published beside the duration and the versions.
        handled: How many of what the stage handled, such as ``(16_000, "views")``; the manifest gets the rate.
    """

    directory: Path
    manifest: dict[str, Any] = field(default_factory=dict)
    handled: tuple[int, str] | None = None

    def path(self, name: str) -> Path:
        """Where to write the output that is to be ``RUN/<name>``."""
        return self.directory / name


class RunDirectory:
    """One run of the pipeline on disk."""

    def __init__(self, root: Path) -> None:
        """Point at a run.

        Raises:
            UserError: The path is a URL, a file, or has characters that Spark or petastorm give a meaning of their own.
        """
        if _NOT_IN_PATHS.search(str(root)) or re.match(r"\w+:/", str(root)):
            raise UserError(f"--run {root}: must be a plain path, without any of # ? * [ ] {{ }} \\ and no URL.")
        if root.exists() and not root.is_dir():
            raise UserError(f"--run {root}: is a file, not a directory.")
        self.root = root.absolute()

    def path(self, name: str) -> Path:
        """Where the published ``name`` (``views``, ``model``, ``metrics.json``, ...) lies."""
        return self.root / name

    def manifest(self, stage: str) -> dict[str, Any]:
        """The manifest of a published stage.

        Raises:
            UserError: The stage has not been published in this run.
        """
        file = self._manifest_file(stage)
        if not self.root.exists():
            raise UserError(f"{self.root}: no such run.")
        if not file.is_file():
            raise UserError(
                f"{self.root}: stage '{stage}' has not been published in this run. "
                f"Run it first: ./submit.sh {stage} --run {self.root} ..."
            )
        content: dict[str, Any] = json.loads(file.read_text())
        return content

    def published(self) -> dict[str, dict[str, Any]]:
        """The manifests of all published stages, in the order of the pipeline."""
        return {stage: self.manifest(stage) for stage in STAGES if self._manifest_file(stage).is_file()}

    def outdated(self) -> list[tuple[str, str]]:
        """Pairs (stage, earlier stage) where the stage has read another output than is published now."""
        published = self.published()
        return [
            (stage, earlier)
            for stage, manifest in published.items()
            for earlier, read_id in manifest.get("inputs", {}).items()
            if earlier in STAGES and published.get(earlier, {}).get("id") != read_id
        ]

    def require_current(self, *stages: str) -> None:
        """Refuse to build on stages that were not run again after what they had read was replaced.

        Raises:
            UserError: It names the stage to run again; or one of the stages has not been published.
        """
        for stage in stages:
            self.manifest(stage)
        for stage, earlier in self.outdated():
            if stage in stages:
                settings = shlex.quote(f"{self.root}/settings/{stage}.yaml")
                raise UserError(
                    f"{self.root}: stage '{earlier}' was run again after '{stage}'. "
                    f"Run it again too: ./submit.sh {stage} --config {settings}"
                )

    def is_running(self, stage: str) -> bool:
        """Whether a process is at the stage now. Asking leaves no trace, and keeps no stage from starting."""
        try:
            with open(self._lock_file(stage)) as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def leftovers(self, stage: str) -> list[Path]:
        """What a stage that runs has not published yet, or one that was killed has left."""
        patterns = (f".staging-{stage}-*", f".replaced-{stage}-*")
        return [path for pattern in patterns for path in self.root.glob(pattern)]

    @contextmanager
    def _only_one(self, stage: str) -> Iterator[None]:
        """Hold the lock of a stage: two processes must not publish the same one at a time."""
        file = self._lock_file(stage)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = open(file, "w")  # noqa: SIM115  (closed below, after what the lock is for)
        except OSError as error:
            raise UserError(f"--run {self.root}: cannot write there ({error.strerror}).") from None
        with lock:
            if not _locked(lock):
                raise UserError(f"{self.root}: another process is running stage '{stage}' in this run.")
            yield

    @contextmanager
    def stage(self, name: str, settings: RunSettings, inputs: Mapping[str, str]) -> Iterator[Staging]:
        """Run the body with a staging directory and publish what it wrote there when it ends without an error.

        Args:
            name: The stage, one of ``STAGES``.
            settings: Saved with the run: in the manifest and as ``settings/<stage>.yaml``.
            inputs: What the stage reads: the ``id`` of the manifests of earlier stages, paths of images and labels.
        """
        with self._only_one(name):
            self._undo_publishing(name)
            self._remove_leftovers(name)
            staging = Staging(self.root / f".staging-{name}-{uuid.uuid4().hex[:8]}")
            staging.directory.mkdir()
            start = time.perf_counter()
            try:
                yield staging
                self._describe(name, staging, settings, inputs, time.perf_counter() - start)
                self._publish(name, staging.directory)
            finally:
                _remove(staging.directory)

    def _describe(
        self, stage: str, staging: Staging, settings: RunSettings, inputs: Mapping[str, str], duration_s: float
    ) -> None:
        """Write the manifest and the settings into the staging directory, where they will lie in the run."""
        outputs = sorted(path.name for path in staging.directory.iterdir())
        count, unit = staging.handled or (0, "")
        staging.manifest = {
            "stage": stage,
            "id": uuid.uuid4().hex,
            "published": datetime.now(UTC).isoformat(timespec="seconds"),
            "duration_s": round(duration_s, 2),
            "rate": {"per_s": count / duration_s, "unit": unit} if staging.handled else None,
            "inputs": dict(inputs),
            "outputs": outputs,
            "versions": versions(),
            **staging.manifest,
        }
        write_atomically(staging.path(f"settings/{stage}.yaml"), to_yaml(settings))
        write_atomically(staging.path(f"manifests/{stage}.json"), json.dumps(staging.manifest, indent=2))

    def _publish(self, stage: str, staging: Path) -> None:
        manifest = f"manifests/{stage}.json"
        new = _published_names(staging / manifest, stage)
        old = _published_names(self.root / manifest, stage)
        replaced = self.root / f".replaced-{stage}-{uuid.uuid4().hex[:8]}"
        try:
            for name in [manifest, *new, *(name for name in old if name not in new)]:
                _move_if_there(self.root / name, replaced / name)
            for name in [*new, manifest]:
                _move_if_there(staging / name, self.root / name)
        except BaseException:
            self._undo_publishing(stage)
            raise
        self._remove_leftovers(stage)

    def _undo_publishing(self, stage: str) -> None:
        """Bring back what was published before, if publishing broke off; if this breaks off too, it can be repeated."""
        manifest = f"manifests/{stage}.json"
        if (self.root / manifest).exists():
            return
        for staging in self.root.glob(f".staging-{stage}-*"):
            for name in _published_names(staging / manifest, stage):
                if not (staging / name).exists():
                    _move_if_there(self.root / name, staging / name)
        for replaced in self.root.glob(f".replaced-{stage}-*/"):
            moved = [path.name for path in replaced.iterdir() if path.name not in ("manifests", "settings")]
            for name in [*moved, f"settings/{stage}.yaml", manifest]:
                _move_if_there(replaced / name, self.root / name)

    def _remove_leftovers(self, stage: str) -> None:
        for leftover in self.leftovers(stage):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def _manifest_file(self, stage: str) -> Path:
        return self.root / "manifests" / f"{stage}.json"

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


def _remove(directory: Path) -> None:
    """Remove a directory into which tasks of a failed Spark job may still be writing for a moment."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.25)


def _published_names(manifest: Path, stage: str) -> list[str]:
    """What a manifest says was published with it, as paths from the root; nothing where there is no manifest."""
    if not manifest.is_file():
        return []
    return [*json.loads(manifest.read_text()).get("outputs", []), f"settings/{stage}.yaml"]


def _move_if_there(source: Path, target: Path) -> None:
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)


def write_atomically(file: Path, content: str | bytes | memoryview) -> None:
    """Write a file so that a reader sees the old content or the new, never a part: temporary file, fsync, rename."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    with open(temporary, "wb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)


def file_url(path: Path) -> str:
    """The path as Spark and petastorm take it: neither of them undoes the quoting of ``Path.as_uri``."""
    return f"file://{path}"


def versions() -> dict[str, str]:
    """Versions of what the results depend on, by package name."""
    return {
        "galaxyspark": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _VERSIONS_OF},
    }
