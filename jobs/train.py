"""Horovod job: train a network on the views of a run. Start it with horovodrun -np N python jobs/train.py."""

import os
import sys
from pathlib import Path
from typing import Any

from galaxyspark.command_line import run_job
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import TrainJob
from galaxyspark.summary import what_cut_training_short


def main(given: TrainJob) -> None:
    job = given.with_absolute_paths()
    if job.launcher == "spark" and not job.check:
        from galaxyspark.network.executors import train_on_executors
        from galaxyspark.spark import start_session

        manifest: dict[str, Any] | None = train_on_executors(start_session("train", job.verbose), job)
    else:
        from galaxyspark.network.training import train

        manifest = train(job)
    if manifest:
        run, chosen = RunDirectory(given.run), manifest["training"]["chosen"]
        cut_short = what_cut_training_short(manifest)
        if cut_short:
            print(f"Training was {cut_short}.")
        tensorboard = os.path.relpath(Path(sys.executable).with_name("tensorboard"))
        ranks = "rank" if manifest["ranks"] == 1 else "ranks"
        rmse = "" if chosen["rmse"] is None else f"RMSE of votes {chosen['rmse']:.4f}, "
        print(
            f"Chose epoch {chosen['epoch']}: validation loss {chosen['loss']:.3f}, accuracy {chosen['accuracy']:.3f}, "
            f"macro-F1 {chosen['macro_f1']:.3f}, {rmse}of {chosen['num_galaxies']:,} galaxies. "
            f"{manifest['rate']['per_s']:,.0f} views/s on {manifest['ranks']} {ranks}.\n"
            f"Look at:\n  {run.place('model/card.json')}\n  {tensorboard} --logdir {run.place('tensorboard')}"
        )


if __name__ == "__main__":
    run_job(TrainJob, main)
