"""horovodrun, but for one thing: python -m galaxyspark.horovodrun.

Its parser takes flags of the command that it is to run for abbreviations of its own, and gives up where they are
ambiguous: ``--network`` could be ``--network-interface``.
"""

from __future__ import annotations

import argparse
from functools import partialmethod

from horovod.runner.launch import run_commandline


def main() -> None:
    """Do what horovodrun does, without abbreviations."""
    argparse.ArgumentParser.__init__ = partialmethod(  # type: ignore[method-assign, assignment]
        argparse.ArgumentParser.__init__, allow_abbrev=False
    )
    run_commandline()


if __name__ == "__main__":
    main()
