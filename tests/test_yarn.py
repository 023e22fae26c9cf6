"""Stages on YARN, of one node: the profile's settings, but for the size of this machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyspark
import pytest

from galaxyspark.run_directory import RunDirectory
from tests.dataset.digest import differences, digest
from tests.servers import yarn_cluster
from tests.test_cluster import TRAINING, VIEWS, catalogue, features
from tests.test_hosts import with_views

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
# Spark's jars are on the nodes already.
SMALL = {
    "executor.instances": 2,
    "executor.cores": 1,
    "executor.memory": "1g",
    "executor.memoryOverhead": "2g",
    "driver.memory": "1g",
    "yarn.am.memory": "512m",
    "yarn.jars": f"local:{Path(pyspark.__file__).parent}/jars/*",
}


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The profile ``yarn`` for two small executors; ``HADOOP_CONF_DIR`` names a cluster that runs."""
    directory = tmp_path_factory.mktemp("yarn")
    with yarn_cluster(directory) as configuration, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HADOOP_CONF_DIR", str(configuration))
        own = SMALL | {"yarn.stagingDir": directory.as_uri()}
        small = "".join(f"spark.{name} {value}\n" for name, value in own.items())
        file = directory / "yarn.conf"
        file.write_text((ROOT / "conf" / "spark" / "yarn.conf").read_text() + small)
        yield file


def test_stages_on_yarn_publish_what_one_machine_does(
    profile: Path, run_submit: Callable[..., subprocess.CompletedProcess[str]], finished_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "a run"
    shutil.copytree(finished_run, run)
    simulated = run / "simulated"
    # The last stage first: each would make those after it outdated.
    stages = {
        "predict": ["--new-images", simulated / "unlabelled"],
        "extract": [],
        "augment": ["--images", simulated / "images", "--labels", simulated / "labels.csv", *VIEWS],
    }
    for stage, flags in stages.items():
        own = run / "settings" / f"{stage}.yaml"
        config = ["--config", own] if own.exists() else []
        completed = run_submit(stage, "--profile", profile, *config, "--run", run, *flags)
        assert completed.returncode == 0, completed.stdout + completed.stderr
        assert RunDirectory(run).manifest(stage)["id"] != RunDirectory(finished_run).manifest(stage)["id"]
    assert differences(digest(run), digest(finished_run)) == []
    assert features(run).equals(features(finished_run))
    assert [line.replace(str(run), "") for line in catalogue(run)] == [
        line.replace(str(finished_run), "") for line in catalogue(finished_run)
    ]


def test_ranks_train_in_yarns_containers(
    profile: Path, run_submit: Callable[..., subprocess.CompletedProcess[str]], augmented_run: Path, tmp_path: Path
) -> None:
    run = with_views(tmp_path / "trained", augmented_run)
    completed = run_submit("train", "-np", 2, "--launcher", "spark", "--profile", profile, "--run", run, *TRAINING)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "views/s on 2 ranks" in completed.stdout
    assert (run / "model" / "weights.safetensors").is_file()
