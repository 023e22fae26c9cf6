"""A run behind a URL, such as in an object store, where nothing can be renamed at once.

Each attempt at a stage writes below a name of its own, ``stages/<stage>-<time>-<id>/``, and nothing of it is moved. The
manifest alone, ``manifests/<stage>.json``, says which attempt is the published one, and it is replaced as a whole: a
reader finds the old stage or the new one. What it replaces is removed then. An attempt that was killed is named by no
manifest; later attempts remove it when it is a week old, as nothing tells it from one that is still running.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from typing_extensions import override

from galaxyspark.errors import UserError
from galaxyspark.settings import STAGES
from galaxyspark.storage import Place, Staging, Storage, filesystem_of

_TIME = "%Y%m%dT%H%M%S"
_ATTEMPT = re.compile(r"stages/\w+-(\d{8}T\d{6})-\w+")
_MAY_STILL_RUN = timedelta(days=7)


class ObjectStorage(Storage):
    """The run behind a URL; see ``storage.Storage``."""

    def __init__(self, url: str) -> None:
        """Point at a URL, where nothing need be.

        Raises:
            UserError: It is no URL of a place for a run, no package for it is installed, or it cannot be reached.
        """
        if re.match(r"s3n?://", url):
            raise UserError(f"--run {url}: Spark's name for it is s3a://...")
        if url.startswith("hdfs:") and not re.match(r"hdfs://[^/]+:\d+/", url):
            raise UserError(f"--run {url}: name the namenode and its port too, hdfs://HOST:PORT/...")
        self.root: Place = url.rstrip("/")
        self._files, self._base = filesystem_of(self.root)
        try:
            self.exists()
        except Exception as error:  # every kind of storage has its own
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"--run {url}: cannot be reached ({reason}). Are address and credentials right?") from None
        self._copied: set[Path] = set()
        self._kept: dict[Path, float] = {}

    @override
    def exists(self) -> bool:
        return bool(self._files.exists(self._base))

    @override
    def place(self, name: str) -> str:
        return f"{self.root}/{self._where(name)}"

    @override
    def path(self, name: str) -> Path:
        where = self._where(name)
        copy = _copies() / hashlib.sha256(str(self.root).encode()).hexdigest()[:12] / where
        if self._copied.isdisjoint([copy, *copy.parents]):
            self._fetch(f"{self._base}/{where}", copy)
            self._copied.add(copy)
        return copy

    @override
    def has(self, name: str) -> bool:
        return bool(self._files.exists(f"{self._base}/{self._where(name)}"))

    @override
    def keep(self, name: str) -> None:
        copy, remote = self.path(name), f"{self._base}/{name}"
        files = [copy] if copy.is_file() else [path for path in copy.rglob("*") if path.is_file()]
        changed = {file: file.stat().st_mtime for file in files}
        for file, modified in sorted(changed.items(), key=itemgetter(1)):  # what says of others how far they are, last
            if self._kept.get(file) != modified:
                self._put(file, f"{remote}/{file.relative_to(copy)}" if file != copy else remote)
                self._kept[file] = modified
        # Only what this process has known: another may write there too.
        for file in [file for file in self._kept if file.is_relative_to(copy) and file not in changed]:
            with suppress(FileNotFoundError):
                self._files.rm_file(f"{remote}/{file.relative_to(copy)}")
            del self._kept[file]

    @override
    def manifest(self, stage: str) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = json.loads(self._files.cat_file(f"{self._base}/manifests/{stage}.json"))
        except FileNotFoundError:
            return None
        if not _ATTEMPT.fullmatch(content.get("attempt", "")):
            raise UserError(f"{self.root}: was published on a disk, by renaming. Name it by its path there.")
        return content

    @override
    def is_running(self, stage: str) -> bool:
        return False  # which cannot be known

    @override
    def leftovers(self, stage: str) -> list[str]:
        return []  # nor can this

    @override
    @contextmanager
    def only_one(self, stage: str) -> Iterator[None]:
        yield  # each attempt has a place of its own; who publishes last is who is read

    @override
    def begin(self, stage: str) -> Staging:
        self._remove_old_attempts(stage)
        attempt = f"stages/{stage}-{datetime.now(UTC).strftime(_TIME)}-{uuid.uuid4().hex[:8]}"
        directory = Path(tempfile.mkdtemp(prefix=f"galaxyspark-{stage}-"))
        return Staging(directory, attempt, str(self.root))

    @override
    def outputs(self, staging: Staging) -> list[str]:
        local = {path.name for path in staging.directory.iterdir()}
        return sorted(local | set(self._names(staging.attempt)))

    @override
    def publish(self, stage: str, staging: Staging) -> None:
        before = self.manifest(stage)
        for file in sorted(path for path in staging.directory.rglob("*") if path.is_file()):
            self._put(file, f"{self._base}/{staging.attempt}/{file.relative_to(staging.directory)}")
        self._put(staging.path(f"manifests/{stage}.json"), f"{self._base}/manifests/{stage}.json")
        if before:
            with suppress(Exception):  # the new one stands; what is left is removed when it is a week old
                self._remove(before["attempt"])

    @override
    def end(self, staging: Staging) -> None:
        shutil.rmtree(staging.directory, ignore_errors=True)
        stage = staging.attempt.removeprefix("stages/").partition("-")[0]
        with suppress(Exception):  # of a storage that is gone there is an error already
            if (self.manifest(stage) or {}).get("attempt") != staging.attempt:
                self._remove(staging.attempt)

    def _where(self, name: str) -> str:
        """What a published name is called below the root: part of its stage's attempt."""
        for stage in STAGES:
            manifest = self.manifest(stage)
            if manifest and (name.partition("/")[0] in manifest["outputs"] or name == f"settings/{stage}.yaml"):
                return f"{manifest['attempt']}/{name}"
        return name

    def _names(self, directory: str) -> list[str]:
        """What lies in a directory of the run, by name."""
        try:
            found = self._files.ls(f"{self._base}/{directory}", detail=False)
        except FileNotFoundError:
            return []
        names = (path.rstrip("/").removeprefix(f"{self._base}/{directory}").strip("/") for path in found)
        return [name for name in names if name]

    def _list(self, path: str) -> list[str]:
        try:
            found = self._files.find(path)
        except FileNotFoundError:
            return []
        return [file for file in found if not file.endswith("/")]  # which Spark leaves for directories

    def _fetch(self, path: str, copy: Path) -> None:
        for file in self._list(path):
            if ".." in file.split("/"):
                raise UserError(f"{file}: not of galaxyspark: it would be copied to another place.")
            target = copy / file.removeprefix(path).lstrip("/") if file != path else copy
            target.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(file, str(target))
            modified = self._files.modified(file).timestamp()
            os.utime(target, (modified, modified))
            self._kept[target] = target.stat().st_mtime

    def _put(self, file: Path, path: str) -> None:
        """Replace a file as a whole: object stores do so of themselves, elsewhere it is renamed."""
        if "s3a" in self._files.protocol:
            self._files.put_file(str(file), path)
            return
        directory, _, name = path.rpartition("/")
        temporary = f"{directory}/.{name}.{uuid.uuid4().hex[:8]}"
        self._files.makedirs(directory, exist_ok=True)
        self._files.put_file(str(file), temporary)
        self._files.mv(temporary, path, overwrite=True)

    def _remove(self, attempt: str) -> None:
        if self._files.exists(f"{self._base}/{attempt}"):
            self._files.rm(f"{self._base}/{attempt}", recursive=True)

    def _remove_old_attempts(self, stage: str) -> None:
        published = (self.manifest(stage) or {}).get("attempt")
        for name in self._names("stages"):
            found = _ATTEMPT.fullmatch(f"stages/{name}")
            if not found or found[0] == published or not name.startswith(f"{stage}-"):
                continue
            if datetime.strptime(found[1], _TIME).replace(tzinfo=UTC) < datetime.now(UTC) - _MAY_STILL_RUN:
                self._remove(found[0])


@cache
def _copies() -> Path:
    """Where this process has its copies, until it ends."""
    directory = tempfile.mkdtemp(prefix="galaxyspark-copies-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)
