"""Job without Spark: compare runs on one page. See --help."""

from galaxyspark.command_line import run_job
from galaxyspark.report.comparison import write_comparison
from galaxyspark.settings import CompareJob


def main(job: CompareJob) -> None:
    print(f"Open {write_comparison(job).absolute()}")


if __name__ == "__main__":
    run_job(CompareJob, main)
