"""Job without Spark: pack an environment for executors that do not see .venv. See --help."""

from galaxyspark.command_line import run_job
from galaxyspark.packing import pack_environment
from galaxyspark.settings import PackJob


def main(job: PackJob) -> None:
    pack_environment(job.output)
    print(f"{job.output}: {job.output.stat().st_size / 1e6:,.0f} MB. The profiles in conf/spark say how to use it.")


if __name__ == "__main__":
    run_job(PackJob, main)
