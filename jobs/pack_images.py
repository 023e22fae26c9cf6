"""Spark job: pack a folder of many image files into large Parquet files. See --help."""

from galaxyspark.command_line import run_job
from galaxyspark.dataset.pack import pack_images
from galaxyspark.settings import PackImagesJob
from galaxyspark.spark import start_session


def main(job: PackImagesJob) -> None:
    counts = pack_images(start_session("pack-images", job.verbose), job)
    print(f"{counts['images']:,} images in {counts['shards']:,} Parquet files: {job.packed}")
    if counts["without_content"]:
        print(
            f"{counts['without_content']:,} of them without content: empty, larger than --max-file-mb, unreadable, or "
            "of a format that is not read. Keep their files."
        )


if __name__ == "__main__":
    run_job(PackImagesJob, main)
