"""Where runs lie: places, paths on a disk or URLs that Spark and fsspec both understand, and what each kind must do."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from galaxyspark.errors import UserError

if TYPE_CHECKING:
    import pyarrow.dataset as ds

Place = Path | str
"""A path, or the URL of what lies elsewhere."""

_SCHEME = re.compile(r"(\w+):/+")


def as_url(place: Place) -> str:
    """A place as Spark and petastorm take it: neither of them undoes the quoting of ``Path.as_uri``."""
    return place if isinstance(place, str) else f"file://{place}"


def url_in(path: Path) -> str | None:
    """The URL that was made into a path, which folds slashes; None for a path that is none."""
    scheme = _SCHEME.match(str(path))
    if not scheme:
        return None
    return f"{scheme[1]}://{'/' if scheme[1] == 'file' else ''}{str(path)[scheme.end() :]}"


def filesystem_of(place: Place) -> tuple[AbstractFileSystem, str]:
    """What reads and writes at a place, and what the place is called there.

    Credentials and endpoints come from the environment, as the storage's own tools take them (``AWS_ACCESS_KEY_ID``,
    ``AWS_ENDPOINT_URL``, ``HADOOP_CONF_DIR``, ...).

    Raises:
        UserError: No package for this kind of URL is installed.
    """
    if isinstance(place, Path) or place.startswith("file:///"):
        return LocalFileSystem(), str(place).removeprefix("file://")
    scheme = place.partition("://")[0]
    if scheme == "hdfs":  # fsspec's own asks for Hadoop's C library
        fsspec.register_implementation("hdfs", "hdfs_native.fsspec.HdfsFileSystem", clobber=True)
    # What other processes have written since must be seen.
    options = {"use_listings_cache": False} if scheme.startswith("s3") else {}
    try:
        filesystem, path = fsspec.core.url_to_fs(place, **options)
    except (ImportError, ValueError, RuntimeError) as error:
        raise UserError(f"{place}: cannot be read from Python: {error}") from None
    return filesystem, path.rstrip("/")


def open_dataset(place: Place) -> ds.Dataset:
    """Parquet files below a place, as pyarrow sees them."""
    import pyarrow.dataset as ds  # takes a while, and whoever only asks for a run's status needs none

    filesystem, path = filesystem_of(place)
    options: dict[str, Any] = {} if isinstance(filesystem, LocalFileSystem) else {"filesystem": filesystem}
    return ds.dataset(path, format="parquet", **options)


def write_atomically(file: Path, content: str | bytes | memoryview) -> None:
    """Write a file so that a reader sees the old content or the new, never a part: temporary file, fsync, rename."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    with open(temporary, "wb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)


@dataclass
class Staging:
    """An unpublished stage.

    Attributes:
        directory: On this machine's disk: what this process writes.
        attempt: What the attempt is called in a run that is no directory; there Spark writes. Empty on a disk.
        root: Of such a run.
        manifest: What is to be published beside the duration and the versions.
        handled: How many of what the stage handled, such as ``(16_000, "views")``; the manifest gets the rate.
    """

    directory: Path
    attempt: str = ""
    root: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    handled: tuple[int, str] | None = None

    def path(self, name: str) -> Path:
        """Where this process is to write the output that is to be ``RUN/<name>``."""
        return self.directory / name

    def place(self, name: str) -> Place:
        """Where Spark's executors are to write it."""
        return f"{self.root}/{self.attempt}/{name}" if self.attempt else self.directory / name


class Storage(Protocol):
    """What keeps a run: a disk, or what is reached by a URL.

    Attributes:
        root: The run, as people name it.
    """

    root: Place

    def exists(self) -> bool:
        """Whether there is anything of the run."""

    def place(self, name: str) -> Place:
        """Where the published ``name`` lies, for Spark and petastorm, and to show to people."""

    def path(self, name: str) -> Path:
        """The published ``name`` on this machine's disk, copied there if need be; nothing is there if it is nowhere."""

    def has(self, name: str) -> bool:
        """Whether the run has it."""

    def keep(self, name: str) -> None:
        """Bring to the run what was written to ``path(name)``, of no stage's publishing, and remove what is gone."""

    def manifest(self, stage: str) -> dict[str, Any] | None:
        """The manifest of a published stage; None where it is not published."""

    def is_running(self, stage: str) -> bool:
        """Whether a process is at the stage now, as far as can be known. Asking leaves no trace."""

    def leftovers(self, stage: str) -> Sequence[Place]:
        """What a stage that runs has not published yet, or one that was killed has left, as far as can be known."""

    def only_one(self, stage: str) -> AbstractContextManager[None]:
        """Keep others from the stage while the body runs, where that can be done."""

    def begin(self, stage: str) -> Staging:
        """Undo and remove what earlier attempts have left, and make room for a new one."""

    def outputs(self, staging: Staging) -> list[str]:
        """Names of what the attempt has written so far."""

    def publish(self, stage: str, staging: Staging) -> None:
        """Replace what was published by what was staged, settings and manifest included; all of it or nothing."""

    def end(self, staging: Staging) -> None:
        """Remove what is still staged, after publishing or an error."""
