"""Job without Spark: pictures of what a run's network responds to, or one such picture. See --help."""

from galaxyspark.command_line import run_job
from galaxyspark.dream.single import asks_for_one, dream_one
from galaxyspark.dream.stage import SHEETS, dream
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import DreamJob


def main(job: DreamJob) -> None:
    if asks_for_one(job):
        files = [dream_one(job)]
    else:
        dream(job)
        files = [RunDirectory(job.run).place(f"dreams/{name}") for name in SHEETS.values()]
    print("\nLook at:", *files, sep="\n  ")


if __name__ == "__main__":
    run_job(DreamJob, main)
