"""Job without Spark: a Spark standalone cluster on this machine. See --help."""

from galaxyspark.cluster import start, status, stop
from galaxyspark.command_line import run_job
from galaxyspark.settings import ClusterJob


def main(job: ClusterJob) -> None:
    if job.action == "start":
        url = start(job)
        profile = "standalone" if job.directory == ClusterJob.directory else job.directory / "standalone.conf"
        print(f"The master is {url}, with {job.workers} workers; its page is http://{job.host}:{job.web_port}.")
        print(f"Now: ./submit.sh pipeline --profile {profile} --run runs/NAME ...")
        print("At the end: ./submit.sh cluster stop")
    elif job.action == "stop":
        print("Stopped: " + (", ".join(stop(job)) or "nothing; no cluster runs."))
    else:
        print("\n".join(status(job)) or "No cluster runs. Start one: ./submit.sh cluster start")


if __name__ == "__main__":
    run_job(ClusterJob, main)
