"""Spark job: decode every image and write its 16 views as petastorm Parquet. See --help."""

from galaxyspark.command_line import run_job
from galaxyspark.dataset.write import augment
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import AugmentJob
from galaxyspark.spark import start_session
from galaxyspark.summary import augmented


def main(job: AugmentJob) -> None:
    manifest = augment(start_session("augment", job.verbose), job)
    print("\n".join(augmented(RunDirectory(job.run), manifest)))


if __name__ == "__main__":
    run_job(AugmentJob, main)
