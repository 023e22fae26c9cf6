"""Job without Spark: show which stages of a run are done, and what comes next. See --help."""

from galaxyspark.command_line import run_job
from galaxyspark.settings import StatusJob
from galaxyspark.status import show_status


def main(job: StatusJob) -> None:
    print("\n".join(show_status(job.run)))


if __name__ == "__main__":
    run_job(StatusJob, main)
