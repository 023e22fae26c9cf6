"""Spark job: classify new images into a catalogue, one row an image, or look into the catalogue there. See --help."""

from galaxyspark.classify.look import look
from galaxyspark.classify.predict import predict
from galaxyspark.command_line import run_job
from galaxyspark.settings import PredictJob
from galaxyspark.spark import start_session
from galaxyspark.summary import predicted


def main(job: PredictJob) -> None:
    if job.like or job.odd:
        print("\n".join(look(job)))
    else:
        spark = start_session("predict", job.verbose)
        manifest = predict(spark, job)
        print("\n".join(predicted(job, manifest, spark.sparkContext.defaultParallelism)))


if __name__ == "__main__":
    run_job(PredictJob, main)
