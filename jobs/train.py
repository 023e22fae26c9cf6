"""Horovod job: fine-tune GoogLeNet on the views of a run. Start it with horovodrun -np N python jobs/train.py."""

from galaxyspark.command_line import run_job
from galaxyspark.network.training import train
from galaxyspark.settings import TrainJob


def main(job: TrainJob) -> None:
    manifest = train(job)
    if manifest:
        chosen = manifest["training"]["chosen"]
        print(
            f"Chose epoch {chosen['epoch']}: validation accuracy {chosen['accuracy']:.3f} "
            f"of {chosen['num_galaxies']} galaxies. "
            f"{manifest['rate']['per_s']:,.0f} views/s on {manifest['ranks']} ranks."
        )


if __name__ == "__main__":
    run_job(TrainJob, main)
