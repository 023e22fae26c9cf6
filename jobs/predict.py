"""Spark job: classify new images into a catalogue, one row an image. See --help."""

from galaxyspark.classify.predict import predict
from galaxyspark.command_line import run_job
from galaxyspark.settings import PredictJob
from galaxyspark.spark import start_session
from galaxyspark.summary import format_rate


def main(job: PredictJob) -> None:
    manifest = predict(start_session("predict", job.verbose), job)
    counts = manifest["counts"]
    shares = ", ".join(f"{count:,} {name}" for name, count in sorted(manifest["classes"].items()))
    print(
        f"{counts['images']:,} images ({format_rate(manifest['rate'])}): {shares}; "
        f"{counts['quarantined']:,} could not be read.\n"
        f"Catalogue: {job.run}/catalogue.csv and {job.run}/catalogue (Parquet)"
    )


if __name__ == "__main__":
    run_job(PredictJob, main)
