"""Spark job: decode every image and write its 16 views as petastorm Parquet. See --help."""

from galaxyspark.command_line import run_job
from galaxyspark.dataset.write import augment
from galaxyspark.settings import AugmentJob
from galaxyspark.spark import start_session
from galaxyspark.summary import format_rate


def main(job: AugmentJob) -> None:
    manifest = augment(start_session("augment", job.verbose), job)
    counts = manifest["counts"]
    views = sum(counts["views"].values())
    print(
        f"{counts['images']:,} images: {views:,} views ({format_rate(manifest['rate'])}), "
        f"{counts['quarantined']:,} of the images quarantined."
    )


if __name__ == "__main__":
    run_job(AugmentJob, main)
