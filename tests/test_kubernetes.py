"""The Dockerfile and the pods, by linters: nothing here runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

CONF = Path(__file__).parent.parent / "conf"
PODS = CONF / "kubernetes"


def objects_in(name: str) -> list[dict]:
    return list(yaml.safe_load_all((PODS / name).read_text()))


def test_the_dockerfile_has_no_faults_that_hadolint_knows() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    completed = subprocess.run([hadolint, PODS / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stdout) == (0, "")


@pytest.mark.parametrize("name", ["executor.yaml", "driver.yaml"])
def test_kubernetes_knows_every_field(name: str) -> None:
    objects, version = objects_in(name), kubernetes_validate.latest_version()
    assert "Pod" in {described["kind"] for described in objects}
    for described in objects:
        kubernetes_validate.validate(described, version, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(described | {"metadata": {"nmae": "misspelt"}}, version, strict=True)


def test_driver_executors_and_profile_name_the_same_pod_image_and_disk() -> None:
    lines = (CONF / "spark" / "kubernetes.conf").read_text().splitlines()
    profile = dict(line.split(maxsplit=1) for line in lines if line.startswith("spark."))
    driver, (executor,) = objects_in("driver.yaml")[-1], objects_in("executor.yaml")
    assert profile["spark.kubernetes.driver.pod.name"] == driver["metadata"]["name"]
    assert profile["spark.kubernetes.container.image"] == driver["spec"]["containers"][0]["image"]
    assert profile["spark.kubernetes.executor.podTemplateFile"] == "conf/kubernetes/executor.yaml"
    assert executor["spec"]["volumes"] == driver["spec"]["volumes"]
    mounts = [pod["spec"]["containers"][0]["volumeMounts"] for pod in (driver, executor)]
    assert mounts[0] == mounts[1]
