"""Job without Spark: write the page that shows a run, and its figures. See --help."""

from galaxyspark.command_line import run_job
from galaxyspark.report.page import write_report
from galaxyspark.settings import ReportJob


def main(job: ReportJob) -> None:
    manifest = write_report(job)
    print(f"Open {job.run.absolute() / manifest['page']}")


if __name__ == "__main__":
    run_job(ReportJob, main)
