"""Spark job: fit the SVM on the driver and measure it against the network. See --help."""

from galaxyspark.classify.compare import classify
from galaxyspark.command_line import run_job
from galaxyspark.settings import ClassifyJob
from galaxyspark.spark import start_session


def main(job: ClassifyJob) -> None:
    metrics = classify(start_session("classify", job.verbose), job)
    for split, classifiers in metrics["splits"].items():
        for name, metric in classifiers.items():
            low, high = metric["accuracy_interval"]
            print(
                f"{split:<11}{name:<17}accuracy {metric['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
                f"  macro-F1 {metric['macro_f1']:.3f}  n {metric['n']:,}"
            )


if __name__ == "__main__":
    run_job(ClassifyJob, main)
