"""Benchmarks: ``python -m benchmarks NAME`` measures one stage against alternatives that do the same work.

A benchmark is a module ``benchmarks/<name>.py`` with a function ``main(arguments)``, written with ``harness``.
Its last full run is kept in ``benchmarks/results/<name>.json``.
"""
