"""Spark job: turn the views of a run into features and class probabilities. See --help."""

from galaxyspark.command_line import run_job
from galaxyspark.features.extract import extract
from galaxyspark.settings import ExtractJob
from galaxyspark.spark import start_session


def main(job: ExtractJob) -> None:
    manifest = extract(start_session("extract", job.verbose), job)
    views, seconds = manifest["counts"]["views"], manifest["duration_s"]
    print(f"Features of {views:,} views in {seconds:.0f} s ({views / seconds:,.0f} views/s).")


if __name__ == "__main__":
    run_job(ExtractJob, main)
