"""The memory of a process that computes with many large arrays."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt(3)


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for what is asked for next, as far as it can be told to (glibc's can).

    Unasked it hands every large array back to the system, which then has to clear the next one's pages: on a CPU a
    fifth of the time of a training step and more, and some percent of that of making views.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
