"""Servers of this machine's own, started for tests: MinIO for S3, and HDFS and YARN of Hadoop's jar for tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pyspark
import pytest

from benchmarks.processes import free_port

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "galaxyspark" / "tests"
MINIO = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
MAVEN = "https://repo1.maven.org/maven2"
MINICLUSTER = (
    "org/apache/hadoop/hadoop-client-minicluster/3.4.1/hadoop-client-minicluster-3.4.1.jar",
    "junit/junit/4.13.2/junit-4.13.2.jar",
    "org/mockito/mockito-core/2.28.2/mockito-core-2.28.2.jar",
)
# What YARN needs, and Hadoop's jar for tests does not bring: keys of its own, and XML, which Java has no more.
FOR_YARN = (
    *(f"org/bouncycastle/{name}-jdk18on/1.78.1/{name}-jdk18on-1.78.1.jar" for name in ("bcprov", "bcpkix", "bcutil")),
    "javax/xml/bind/jaxb-api/2.3.1/jaxb-api-2.3.1.jar",
    "javax/activation/javax.activation-api/1.2.0/javax.activation-api-1.2.0.jar",
    "com/sun/xml/bind/jaxb-core/2.3.0.1/jaxb-core-2.3.0.1.jar",
    "com/sun/xml/bind/jaxb-impl/2.3.1/jaxb-impl-2.3.1.jar",
)
USER, PASSWORD = "galaxyspark-test", "minio-password-of-the-test"
_YARN = "org.apache.hadoop.yarn.server"
_OF_RESOURCE_MANAGER = ("admin", "scheduler", "resource-tracker")
_DEADLINE_S = 120


@contextmanager
def s3_server(directory: Path) -> Iterator[str]:
    """MinIO; yields its endpoint."""
    address = f"127.0.0.1:{free_port()}"
    environment = os.environ | {"MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": PASSWORD, "MINIO_BROWSER": "off"}
    command = [str(_minio()), "server", "--quiet", "--address", address, str(directory / "objects")]
    with _server(command, directory / "minio.log", environment, lambda: _answers(f"http://{address}")):
        yield f"http://{address}"


@contextmanager
def hdfs_server(directory: Path) -> Iterator[str]:
    """A namenode and a datanode in one process; yields the URL of the root."""
    port, details = free_port(), directory / "details.json"
    command = [*_java(MINICLUSTER), f"-Dtest.build.data={directory}", "org.apache.hadoop.test.MiniDFSClusterManager"]
    command += ["-format", "-datanodes", "1"]
    command += ["-nnport", str(port), "-writeDetails", str(details)]
    with _server(command, directory / "hdfs.log", dict(os.environ), details.exists):
        yield f"hdfs://127.0.0.1:{port}"


@contextmanager
def yarn_cluster(directory: Path) -> Iterator[Path]:
    """YARN: a resource manager and a node manager of 8 GB; yields the directory of its configuration."""
    web = f"127.0.0.1:{free_port()}"
    (directory / "hadoop").mkdir()
    properties = {
        **{f"yarn.resourcemanager.{name}.address": f"127.0.0.1:{free_port()}" for name in _OF_RESOURCE_MANAGER},
        "yarn.resourcemanager.address": f"127.0.0.1:{free_port()}",
        "yarn.resourcemanager.webapp.address": web,
        "yarn.resourcemanager.scheduler.class": f"{_YARN}.resourcemanager.scheduler.fifo.FifoScheduler",
        "yarn.scheduler.minimum-allocation-mb": 256,
        **{f"yarn.nodemanager.{name}address": "127.0.0.1:0" for name in ("", "localizer.", "webapp.")},
        **{f"yarn.nodemanager.{name}-dirs": directory / name for name in ("local", "log")},
        "yarn.nodemanager.resource.memory-mb": 8192,
        "yarn.nodemanager.vmem-check-enabled": "false",
        "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": 99,
    }
    listed = "".join(
        f"<property><name>{name}</name><value>{value}</value></property>" for name, value in properties.items()
    )
    (directory / "hadoop" / "yarn-site.xml").write_text(f"<configuration>{listed}</configuration>")
    java = _java(MINICLUSTER + FOR_YARN, directory / "hadoop")
    with ExitStack() as stack:
        for name, num_nodes in (("ResourceManager", 0), ("NodeManager", 1)):
            command, is_ready = [*java, f"{_YARN}.{name.lower()}.{name}"], partial(_has_nodes, web, num_nodes)
            stack.enter_context(_server(command, directory / f"{name}.log", dict(os.environ), is_ready))
        yield directory / "hadoop"


def _has_nodes(web: str, number: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{web}/ws/v1/cluster/metrics", timeout=5) as answer:
            return bool(json.load(answer)["activeNodes"] == number)
    except OSError:
        return False


def _java(jars: Sequence[str], *places: Path) -> list[str]:
    """Java with some jars, Spark's, which have Hadoop's client, and directories of configuration."""
    paths = [*places, *map(_downloaded, jars), Path(pyspark.__file__).parent / "jars" / "*"]
    return ["java", "-Xmx512m", "--add-opens=java.base/java.lang=ALL-UNNAMED", "-cp", ":".join(map(str, paths))]


@contextmanager
def _server(command: list[str], log: Path, environment: dict[str, str], is_ready: Callable[[], bool]) -> Iterator[None]:
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=log.parent, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + _DEADLINE_S
        while not is_ready():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/minio/health/live", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _minio() -> Path:
    """The server: installed, or built once as a Go module and kept."""
    found, built = shutil.which("minio"), CACHE / "minio"
    if found:
        return Path(found)
    if not built.exists():
        if not shutil.which("go"):
            pytest.skip("neither minio nor Go to build it with")
        subprocess.run(["go", "install", MINIO], env=os.environ | {"GOBIN": str(CACHE)}, check=True, timeout=1800)
    return built


def _downloaded(jar: str) -> Path:
    file = CACHE / Path(jar).name
    if not file.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        try:
            urllib.request.urlretrieve(f"{MAVEN}/{jar}", file.with_suffix(".part"))
        except OSError as error:
            pytest.skip(f"{jar}: cannot be downloaded ({error})")
        file.with_suffix(".part").rename(file)
    return file
