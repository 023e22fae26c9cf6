"""Every stage in order, each through spark-submit or horovodrun. See --help."""

from galaxyspark.command_line import run_job
from galaxyspark.pipeline import run_pipeline
from galaxyspark.settings import PipelineJob

if __name__ == "__main__":
    run_job(PipelineJob, run_pipeline)
