"""The profiles in conf/spark, read by Spark itself and held against Spark's own register of settings."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pyspark
import pytest
from py4j.java_gateway import JavaObject
from pyspark.errors import IllegalArgumentException
from pyspark.sql import SparkSession

ROOT = Path(__file__).parent.parent
PROFILES = ("local", "standalone", "yarn", "kubernetes")
ADDITIONS = ("s3a",)
# Spark reads these by their text and keeps no entry of them in its register.
UNREGISTERED = {
    "spark.master",
    "spark.network.crypto.cipher",
    "spark.network.crypto.authEngineVersion",
    "spark.shuffle.io.connectionTimeout",
}
OPEN_ENDED = re.compile(
    r"spark\.((executorEnv|kubernetes\.executor\.secretKeyRef)\.[A-Z_]+"
    r"|(executor|task|worker)\.resource\.gpu\.amount|(executor|worker)\.resource\.gpu\.(discoveryScript|vendor))"
)


@pytest.fixture(scope="module")
def register(spark: SparkSession) -> JavaObject:
    """Spark's register of settings, with those of core, SQL, YARN and Kubernetes in it."""
    jvm = spark._jvm
    for jar in sorted((Path(pyspark.__file__).parent / "jars").glob("spark-*.jar")):
        for name in zipfile.ZipFile(jar).namelist():
            if re.search(r"(/config/[^/]*|/Config|SQLConf)\$\.class$", name):
                jvm.java.lang.Class.forName(name.removesuffix(".class").replace("/", "."))
    return getattr(getattr(jvm.org.apache.spark.internal.config, "ConfigEntry$"), "MODULE$")


@pytest.fixture
def read(spark: SparkSession, register: JavaObject, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Reads a profile as spark-submit does: its settings, and what is wrong with them."""

    def read(text: str) -> SimpleNamespace:
        file = tmp_path / "profile.conf"
        file.write_text(text)
        found = spark._jvm.org.apache.spark.util.Utils.getPropertiesFromFile(str(file))
        settings = {pair._1(): pair._2() for pair in (found.toList().apply(i) for i in range(found.size()))}
        return SimpleNamespace(settings=settings, problems=list(problems(spark, register, settings)))

    return read


def problems(spark: SparkSession, register: JavaObject, settings: dict[str, str]):  # type: ignore[no-untyped-def]
    """Settings that Spark does not know, or whose values it does not take."""
    conf = spark._jvm.org.apache.spark.SparkConf(False)
    for key, value in settings.items():
        entry = register.findEntry(key)
        if entry is None:
            if key not in UNREGISTERED and not OPEN_ENDED.fullmatch(key):
                yield f"unknown: {key}"
            continue
        try:
            conf.set(key, value).get(entry)
        except IllegalArgumentException as error:
            yield f"{key} {value}: {error}"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("with_optional", [False, True], ids=["as it is", "with what is commented out"])
def test_spark_knows_every_setting_of_a_profile_and_takes_its_value(read, profile: str, with_optional: bool) -> None:
    text = (ROOT / "conf" / "spark" / f"{profile}.conf").read_text()
    if with_optional:
        text = text.replace("\n#spark.", "\nspark.")
    found = read(text)
    assert found.problems == []
    # Spark's own parser has seen every line that is no comment.
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(found.settings) == len(lines)
    for name in ("driver.memory", "python.worker.reuse", "executorEnv.OMP_NUM_THREADS", "speculation"):
        assert f"spark.{name}" in found.settings


@pytest.mark.parametrize("profile", ["standalone", "yarn", "kubernetes"])
def test_connections_between_executors_are_silent_for_half_a_minute_at_most(
    spark: SparkSession, read, profile: str
) -> None:
    """As the part of Spark that asks other executors for blocks has it of the profile."""
    jvm = spark._jvm
    conf = jvm.org.apache.spark.SparkConf(False)
    for key, value in read((ROOT / "conf" / "spark" / f"{profile}.conf").read_text()).settings.items():
        conf.set(key, value)
    of_blocks = getattr(getattr(jvm.org.apache.spark.network.netty, "SparkTransportConf$"), "MODULE$")
    asked = of_blocks.fromSparkConf(conf, "shuffle", 1, jvm.scala.Option.empty(), jvm.scala.Option.empty())
    assert (asked.connectionTimeoutMs(), asked.connectionCreationTimeoutMs()) == (30_000, 30_000)


@pytest.mark.parametrize("addition", ADDITIONS)
def test_spark_knows_every_setting_that_is_added_to_a_profile(read, addition: str) -> None:
    text = (ROOT / "conf" / "spark" / f"{addition}.conf").read_text()
    found = read(text)
    # Hadoop has no register: its names are those of hadoop-aws' documentation. Classes are those of the packages.
    elsewhere = re.compile(r"unknown: spark\.hadoop\.fs\.s3a\.|spark\.sql\S+ org\.apache\.spark\.internal\.io\.cloud\.")
    assert [problem for problem in found.problems if not elsewhere.match(problem)] == []
    assert len(found.settings) == len([line for line in text.splitlines() if line and not line.startswith("#")])


def test_what_is_added_to_a_profile_must_be_there(run_submit) -> None:
    completed = run_submit("augment", "--profile", "local,s4a", "--run", "x")
    assert completed.returncode == 2
    assert "s4a.conf is none" in completed.stderr


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("spark.executer.memory 1g", "unknown: spark.executer.memory"),
        ("spark.sql.shuffle.partition 8", "unknown: spark.sql.shuffle.partition"),
        ("spark.kubernetes.executor.podTemplate x.yaml", "unknown: spark.kubernetes.executor.podTemplate"),
        ("spark.executor.resource.gpus.amount 1", "unknown: spark.executor.resource.gpus.amount"),
        ("spark.driver.memory much", "spark.driver.memory much: "),
        ("spark.speculation ja", "spark.speculation should be boolean, but was ja"),
    ],
)
def test_what_is_misspelt_is_found(read, line: str, problem: str) -> None:
    (found,) = read(f"spark.master local[1]\n{line}\n").problems
    assert problem in found


@pytest.mark.parametrize("profile", PROFILES)
def test_what_there_is_to_size_is_explained(profile: str) -> None:
    comments = re.findall(r"^# .*", (ROOT / "conf" / "spark" / f"{profile}.conf").read_text(), re.MULTILINE)
    cluster_only = (
        () if profile == "local" else ("Cores of an executor", "0.4 GB for each", "One GPU for each executor")
    )
    for words in ("Arrow batch", "Python worker keeps", "must not start threads", "attempt", *cluster_only):
        assert any(words in comment for comment in comments), words


def test_a_profile_that_is_not_there_is_one_message(run_submit) -> None:
    completed = run_submit("augment", "--profile", "standalnoe", "--run", "x")
    assert completed.returncode == 2
    assert completed.stderr.strip() == (
        "submit.sh: --profile 'standalnoe': there is no such file, and no standalnoe.conf in conf/spark."
    )


def test_a_profile_of_ones_own_is_what_spark_gets(run_submit, tmp_path: Path) -> None:
    profile, events = tmp_path / "my own.conf", tmp_path / "events"
    events.mkdir()
    text = (ROOT / "conf" / "spark" / "local.conf").read_text()
    text += f"spark.eventLog.enabled true\nspark.eventLog.compress false\nspark.eventLog.dir {events.as_uri()}\n"
    profile.write_text(text.replace("maxRecordsPerBatch 64", "maxRecordsPerBatch 32"))
    flags = ["--num-galaxies", 2, "--num-unlabelled", 1, "--profile", profile]
    completed = run_submit("simulate", "--run", tmp_path / "run", *flags)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    logged = "".join(path.read_text() for path in events.rglob("events_*"))
    assert '"spark.sql.execution.arrow.maxRecordsPerBatch":"32"' in logged
    assert '"spark.sql.execution.arrow.maxRecordsPerBatch":"64"' not in logged
