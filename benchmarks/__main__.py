"""Run one benchmark: ``python -m benchmarks NAME [flags]``."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import benchmarks
from galaxyspark.command_line import quiet_libraries
from galaxyspark.errors import UserError

_HELPERS = ("harness", "hosts", "kernels", "pages", "processes", "ray_data", "views")
_SPARK_SETTINGS = Path(__file__).parents[1] / "conf" / "spark" / "local.conf"


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark that the first argument names; the others are its flags.

    Returns:
        The exit status: 2 without the name of a benchmark, or where the flags cannot be used.
    """
    modules = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    names = [name for name in modules if name not in ("__main__", *_HELPERS) and not name.endswith("_worker")]
    if not arguments or arguments[0] not in names:
        given = f"no benchmark '{arguments[0]}'." if arguments else "which benchmark?"
        print(f"bench: {given} There are: {', '.join(sorted(names))}.", file=sys.stderr)
        return 2
    quiet_libraries(verbose=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped, as after Ctrl-C
    # Sessions are as submit.sh makes them for the jobs.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--properties-file {shlex.quote(str(_SPARK_SETTINGS))} pyspark-shell"
    name, *flags = arguments
    try:
        importlib.import_module(f"benchmarks.{name}").main(flags)
    except UserError as error:
        print(f"bench {name}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
