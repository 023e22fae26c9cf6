"""Spark job: make simulated galaxies with votes, laid out as the Galaxy Zoo challenge has them. See --help."""

from galaxyspark.command_line import run_job
from galaxyspark.dataset.simulate import simulate
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import SimulateJob
from galaxyspark.spark import start_session


def main(job: SimulateJob) -> None:
    counts = simulate(start_session("simulate", job.verbose), job)["counts"]
    place = RunDirectory(job.run).place("simulated")
    print(f"{counts['galaxies']:,} galaxies with votes, {counts['unlabelled']:,} without: {place}")


if __name__ == "__main__":
    run_job(SimulateJob, main)
