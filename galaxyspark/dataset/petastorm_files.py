"""Files behind a URL as petastorm 0.13 wants them: as pyarrow's older kind of file system, which pyarrow 15 dropped."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import IO

from fsspec import AbstractFileSystem

from galaxyspark.storage import filesystem_of

with warnings.catch_warnings(action="ignore"):
    from pyarrow.filesystem import DaskFileSystem


class _Written(io.BytesIO):
    """A file that is written: pyarrow asks where it stands in it, which not all of fsspec's know."""

    def __init__(self, files: AbstractFileSystem, path: str) -> None:
        super().__init__()
        self._files, self._path = files, path

    def close(self) -> None:
        if not self.closed:
            self._files.pipe_file(self._path, self.getvalue())
        super().close()


class FilesBehindUrl(DaskFileSystem):  # type: ignore[misc]
    """What fsspec reads and writes at a URL."""

    def __init__(self, url: str) -> None:
        """Open what the URL's kind needs; see ``storage.filesystem_of``."""
        with warnings.catch_warnings(action="ignore"):
            super().__init__(filesystem_of(url)[0])

    def open(self, path: str, mode: str = "rb") -> IO[bytes]:
        """Open a file; what is written is brought there when it is closed."""
        opened: IO[bytes] = _Written(self.fs, path) if "w" in mode else self.fs.open(path, mode=mode)
        return opened

    def isdir(self, path: str) -> bool:
        """Whether files lie below the path."""
        return bool(self.fs.isdir(path))

    def isfile(self, path: str) -> bool:
        """Whether it is the path of a file."""
        return bool(self.fs.isfile(path))

    def walk(self, path: str) -> Iterator[tuple[str, list[str], list[str]]]:
        """Each directory from the path on: its path, the names of its directories and of its files."""
        for directory, directories, files in self.fs.walk(path):
            # Object stores may hold a directory as an empty file without a name.
            yield directory, sorted(filter(None, directories)), sorted(filter(None, files))


def petastorm_files(url: str) -> FilesBehindUrl | None:
    """What to give to petastorm for a URL; None where it finds the files by itself, on a disk."""
    return None if url.startswith("file:") else FilesBehindUrl(url)
