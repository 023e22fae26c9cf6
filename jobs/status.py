"""Job without Spark: show which stages of a run are done, and what comes next. See --help."""

import sys

from galaxyspark.command_line import run_job
from galaxyspark.settings import StatusJob
from galaxyspark.status import show_status


def main(job: StatusJob) -> None:
    print("\n".join(show_status(job.run)))


if __name__ == "__main__":
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        sys.argv.insert(1, "--run")  # of all commands this is the one to be typed again and again
    run_job(StatusJob, main)
