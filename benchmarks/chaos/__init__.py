"""Each stage on a standalone cluster of two workers while something dies, stops or fills up.

Each scenario is a job of its own, started as a user starts it, and disturbed once when a part of its tasks is done.
Measured is what its user sees and how long it takes. What it publishes is compared with what an undisturbed job on the
same kind of cluster has published, row for row.
"""

from benchmarks.chaos.bench import main

__all__ = ["main"]
