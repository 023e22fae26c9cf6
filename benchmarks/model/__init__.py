"""A model of the whole job, from a million galaxies to ten thousand million, out of what the other benchmarks measured.

It is linear: a stage takes a fixed time, a time for each galaxy in which no task runs, and core seconds that the cores
share. What was not measured is an assumption, and a flag. The tables replace those in docs/scaling.md.
"""

from benchmarks.model.bench import main

__all__ = ["main"]
