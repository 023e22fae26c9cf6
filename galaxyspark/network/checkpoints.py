"""Checkpoints of a training that is under way: written whole or not at all, and read without running any code."""

from __future__ import annotations

import io
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from galaxyspark.errors import UserError
from galaxyspark.storage import write_atomically

_NAME = re.compile(r"step-(\d+)\.pt")


class Checkpoints:
    """The checkpoints in one directory, the newest last."""

    def __init__(self, directory: Path, keep: int) -> None:
        """Point at a directory, which need not be there, of which ``keep`` checkpoints are to be kept."""
        self.directory, self.keep = directory, keep

    def files(self) -> list[Path]:
        """Its checkpoints in the order of their steps."""
        return sorted((path for path in self.directory.glob("step-*.pt") if _NAME.fullmatch(path.name)), key=_step_of)

    def write(self, step: int, content: Mapping[str, Any]) -> None:
        """Write a checkpoint, of tensors and plain values, as of so many steps; then remove those too many.

        So are those of later steps: training has gone on from an earlier one, or counts its steps otherwise.
        """
        for leftover in self.directory.glob(".step-*"):  # of a writer that was killed
            leftover.unlink()
        buffer = io.BytesIO()
        torch.save(dict(content), buffer)
        write_atomically(self.directory / f"step-{step:08d}.pt", buffer.getbuffer())
        kept = [file for file in self.files() if _step_of(file) <= step][-self.keep :]
        for file in self.files():
            if file not in kept:
                file.unlink()

    def newest(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole; what is damaged is passed over, and said so. None where there is none.

        Raises:
            UserError: All of them are damaged.
        """
        files = self.files()
        for file in reversed(files):
            try:
                content = _read(file)
            except Exception as error:  # torch has many for damaged files
                reason = (str(error) or type(error).__name__).splitlines()[0]
                print(f"{file}: passed over, as it is damaged ({reason}).", file=sys.stderr)
                continue
            return content
        if files:
            raise UserError(f"{self.directory}: no checkpoint there can be read. Start over with --no-resume.")
        return None

    def clear(self) -> None:
        """Remove them all."""
        for file in self.files():
            file.unlink()


def _read(file: Path) -> dict[str, Any]:
    """A checkpoint's content; torch alone would not notice that a bit of a weight has flipped."""
    with zipfile.ZipFile(file) as archive:
        if archive.testzip() is not None:
            raise zipfile.BadZipFile("its checksum is wrong")
    content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return content


def _step_of(file: Path) -> int:
    match = _NAME.fullmatch(file.name)
    return int(match[1]) if match else -1
