"""Fit the SVM and its rivals on the driver and measure them against the network. See --help."""

from galaxyspark.classify.compare import classify
from galaxyspark.command_line import run_job
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import ClassifyJob
from galaxyspark.summary import accuracy_table


def main(job: ClassifyJob) -> None:
    metrics = classify(job)
    for split in metrics["splits"]:
        print("\n" + "\n".join(accuracy_table(metrics, split)))
    print(f"\nLook at:\n  {RunDirectory(job.run).place('metrics.json')}")


if __name__ == "__main__":
    run_job(ClassifyJob, main)
