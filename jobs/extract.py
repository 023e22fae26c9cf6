"""Spark job: turn the views of a run into features and class probabilities. See --help."""

from galaxyspark.command_line import run_job
from galaxyspark.features.extract import extract
from galaxyspark.galaxyzoo.splits import SPLITS
from galaxyspark.settings import ExtractJob
from galaxyspark.spark import start_session
from galaxyspark.summary import format_rate
from galaxyspark.views.augment import NUM_VIEWS


def main(job: ExtractJob) -> None:
    manifest = extract(start_session("extract", job.verbose), job)
    if set(job.extract.splits) != set(SPLITS) or set(job.extract.other_views) != set(range(NUM_VIEWS)):
        print("Not for classify, which needs all splits, and all 16 views of validation and test galaxies.")
    print(f"Features of {manifest['counts']['views']:,} views: {format_rate(manifest['rate'])}.")


if __name__ == "__main__":
    run_job(ExtractJob, main)
