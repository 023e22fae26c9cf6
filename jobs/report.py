"""Job without Spark: write the page that shows a run, and its figures. See --help."""

from galaxyspark.command_line import run_job
from galaxyspark.report.page import outdated, write_report
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import ReportJob


def main(job: ReportJob) -> None:
    manifest, run = write_report(job), RunDirectory(job.run)
    for stage, earlier in outdated(run):
        print(f"What {stage} published is not from the present output of {earlier}: run {stage} again.")
    print(f"Open {run.place(manifest['page'])}")


if __name__ == "__main__":
    run_job(ReportJob, main)
