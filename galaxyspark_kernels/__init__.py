"""Layers in C++, ``torch.ops.galaxyspark``, for networks that learn on processors; ImportError where not compiled.

A package beside the other: Spark brings galaxyspark to executors as a zip file, from which no library can be loaded.
"""

from pathlib import Path

import torch

_LIBRARY = Path(__file__).with_name("library.so")

try:
    torch.ops.load_library(_LIBRARY)  # type: ignore[no-untyped-call]
except OSError as error:  # it is missing, or compiled for another torch or processor
    raise ImportError(str(error)) from error
