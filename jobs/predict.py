"""Spark job: classify new images into a catalogue, one row an image, or look into the catalogue there. See --help."""

from galaxyspark.classify.catalogue import listed, most_like, strangest
from galaxyspark.classify.predict import predict
from galaxyspark.classify.saved import open_classifiers
from galaxyspark.command_line import run_job
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import PredictJob
from galaxyspark.spark import start_session
from galaxyspark.summary import predicted


def main(job: PredictJob) -> None:
    if job.like or job.odd:
        look(job)
    else:
        spark = start_session("predict", job.verbose)
        manifest = predict(spark, job)
        print("\n".join(predicted(job, manifest, spark.sparkContext.defaultParallelism)))


def look(job: PredictJob) -> None:
    run = RunDirectory(job.run)
    run.manifest("predict")
    if job.like:
        scaler = open_classifiers(run.path("classifiers")).outlier_score().pipeline[0]
        print("\n".join(listed(most_like(run.path("catalogue"), job.like, scaler), "similarity")))
    else:
        print("\n".join(listed(strangest(run.path("catalogue"), job.odd), "outlier_score")))


if __name__ == "__main__":
    run_job(PredictJob, main)
