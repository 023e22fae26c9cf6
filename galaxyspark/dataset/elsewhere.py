"""Files of a storage elsewhere, whose failures are told from damage of the file.

What reads shards takes every ``OSError`` for damage, and leaves out what is damaged. But the timeouts and refusals of a
storage are such errors too, and they pass: the task is to fail, and be done again.
"""

from __future__ import annotations

import io
from typing import BinaryIO

_BUFFER_BYTES = 2**20


class StorageFailedError(RuntimeError):
    """The storage did not give what is there."""


def buffered(file: BinaryIO) -> io.BufferedReader:
    """The same file, read a megabyte at a time, whose storage fails by ``StorageFailedError``."""
    return io.BufferedReader(_Elsewhere(file), _BUFFER_BYTES)


class _Elsewhere(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._file.seek(offset, whence)
        return self._file.tell()  # HDFS's own seek does not say where it is

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            content = self._file.read(len(buffer))
        except OSError as error:
            raise StorageFailedError(str(error) or type(error).__name__) from error
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
