"""The stages ``augment`` and ``extract`` on 1, 2 and 4 executors, and on 1, 4 and 16 times the galaxies.

On a Spark standalone cluster on this machine. Each worker, its executor and Python worker with it, has an equal share
of a core, by a control group, so that as many as there are do not exceed the machine and the driver has what is left.
Every run is started as a user starts it; what it did is read from Spark's event log.
"""

from benchmarks.growth.bench import main

__all__ = ["main"]
