"""Servers of this machine's own, started for tests: MinIO for S3, and HDFS and YARN of Hadoop's mini cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
# What YARN needs for keys of its own, and the mini cluster does not bring.
BOUNCY_CASTLE = tuple(
    f"org/bouncycastle/{name}-jdk18on/1.78.1/{name}-jdk18on-1.78.1.jar" for name in ("bcprov", "bcpkix", "bcutil")
)
_YARN = {
    "yarn.minicluster.yarn.nodemanager.resource.memory-mb": 8192,
    "yarn.scheduler.minimum-allocation-mb": 256,
    "yarn.nodemanager.vmem-check-enabled": "false",
    "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": 99,
    "yarn.nodemanager.localizer.address": "127.0.0.1:0",
}
USER, PASSWORD = "galaxyspark-test", "minio-password-of-the-test"
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
    command = [*_hadoop(directory, "test.MiniDFSClusterManager"), "-format", "-datanodes", "1"]
    command += ["-nnport", str(port), "-writeDetails", str(details)]
    with _server(command, directory / "hdfs.log", dict(os.environ), details.exists):
        yield f"hdfs://127.0.0.1:{port}"


@contextmanager
def yarn_cluster(directory: Path) -> Iterator[Path]:
    """YARN with two nodes, and a HDFS, in one process; yields the directory of its configuration."""
    configuration, written = directory / "hadoop", directory / "written.xml"
    command = [*_hadoop(directory, "mapreduce.MiniHadoopClusterManager"), "-format", "-nodemanagers", "2"]
    command += ["-writeConfig", str(written), *(f"-D{name}={value}" for name, value in _YARN.items())]
    with _server(command, directory / "yarn.log", dict(os.environ), lambda: _is_whole(written)):
        configuration.mkdir()
        for name in ("core-site.xml", "yarn-site.xml"):
            shutil.copy(written, configuration / name)
        yield configuration


def _is_whole(configuration: Path) -> bool:
    return configuration.exists() and configuration.read_text().rstrip().endswith("</configuration>")


def _hadoop(directory: Path, manager: str) -> list[str]:
    """The command that starts a mini cluster whose files are in a directory."""
    jars = [*(_downloaded(jar) for jar in MINICLUSTER + BOUNCY_CASTLE), Path(pyspark.__file__).parent / "jars" / "*"]
    command = ["java", "-Xmx1g", f"-Dtest.build.data={directory}", "-cp", ":".join(map(str, jars))]
    return [*command, f"org.apache.hadoop.{manager}"]


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
