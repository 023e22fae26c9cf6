"""Whole runs in an object store and on HDFS, real ones: published, killed, gone on with, and compared with a disk's."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec
import psutil
import pyarrow.dataset
import pytest
import s3fs
from fsspec import AbstractFileSystem
from petastorm import make_reader
from pyarrow.fs import FSSpecHandler, PyFileSystem, S3FileSystem

from galaxyspark.dataset.petastorm_files import petastorm_files
from tests.dataset.digest import differences, digest, rows_of
from tests.servers import PASSWORD, USER, hdfs_server, s3_server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
VIEWS = ["--view-size-px", 48, "--split-fractions", 0.6, 0.2, 0.2]
TRAINING = ["--weights", "none", "--network", "resnet18", "--batch-size", 16]
DREAMS = ["--dream-size-px", 64, "--octaves", 1, "--dream-steps", 1]
_DEADLINE_S = 900


@dataclass(frozen=True)
class Store:
    """A server with a place for runs.

    Attributes:
        root: URL below which runs may lie.
        profile: What --profile is to say.
        environment: Where the server is, and who may use it.
        files: What reads it as fsspec does.
        arrow: What pyarrow reads it by.
    """

    root: str
    profile: str
    environment: dict[str, str]
    files: AbstractFileSystem
    arrow: pyarrow.fs.FileSystem

    def submit(self, *words: object) -> str:
        """Run ./submit.sh to its end; what a user sees."""
        process = self.start(*words)
        shown = process.communicate(timeout=_DEADLINE_S)[0]
        assert process.returncode == 0, shown
        return shown

    def start(self, *words: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(ROOT / "submit.sh"), *map(str, words)],
            env=os.environ | self.environment | {"GALAXYSPARK_READY": "1", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def path(self, url: str) -> str:
        return self.files._strip_protocol(url)

    def manifest(self, run: str, stage: str) -> dict[str, object]:
        return json.loads(self.files.cat_file(self.path(f"{run}/manifests/{stage}.json")))

    def rows(self, run: str) -> list[tuple[object, ...]]:
        views = f"{run}/{self.manifest(run, 'augment')['attempt']}/views"
        path = self.path(views)
        return rows_of(pyarrow.dataset.dataset(path, format="parquet", filesystem=self.arrow, partitioning="hive"))


@contextmanager
def minio(directory: Path) -> Iterator[Store]:
    with s3_server(directory) as endpoint:
        environment = {"AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": PASSWORD, "AWS_ENDPOINT_URL": endpoint}
        files = s3fs.S3FileSystem(key=USER, secret=PASSWORD, endpoint_url=endpoint, use_listings_cache=False)
        files.mkdir("sky")
        arrow = S3FileSystem(access_key=USER, secret_key=PASSWORD, endpoint_override=endpoint)
        yield Store("s3a://sky", "local,s3a", environment | {"AWS_REGION": "us-east-1"}, files, arrow)


@contextmanager
def hdfs(directory: Path) -> Iterator[Store]:
    with hdfs_server(directory) as root:
        fsspec.register_implementation("hdfs", "hdfs_native.fsspec.HdfsFileSystem", clobber=True)
        files = fsspec.core.url_to_fs(f"{root}/runs")[0]
        yield Store(f"{root}/runs", "local", {}, files, PyFileSystem(FSSpecHandler(files)))


@pytest.fixture(scope="module", params=[minio, hdfs])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with request.param(tmp_path_factory.mktemp("server")) as store:
        yield store


@pytest.fixture(scope="module")
def pipeline(store: Store) -> tuple[str, str]:
    """A run that went through every stage, and what the terminal showed."""
    run = f"{store.root}/whole"
    galaxies = ["--num-galaxies", 60, "--num-unlabelled", 6, "--predict-views", 2, "--epochs", 1]
    flags = [*galaxies, *VIEWS, *TRAINING, *DREAMS]
    return run, store.submit("pipeline", "--profile", store.profile, "--run", run, *flags)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        assert process.poll() is None, f"ended before {what}: {process.communicate()[0]}"
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def kill(process: subprocess.Popen[str]) -> None:
    """All of it at once, as when the power fails."""
    family = psutil.Process(process.pid).children(recursive=True)
    for member in [*family, process]:
        os.kill(member.pid, signal.SIGKILL)
    process.wait()


def test_a_run_elsewhere_is_that_of_a_disk(
    store: Store, pipeline: tuple[str, str], spark: object, augmented_run: Path
) -> None:
    """The fixture has the same seed and galaxies; only views are compared, since Parquet files have random names."""
    run, shown = pipeline
    assert differences(store.rows(run), digest(augmented_run)) == []
    report = f"{run}/{store.manifest(run, 'report')['attempt']}/report/index.html"
    assert report in shown and store.files.exists(store.path(report))
    catalogue = f"{run}/{store.manifest(run, 'predict')['attempt']}/catalogue.csv"
    assert len(store.files.cat_file(store.path(catalogue)).splitlines()) == 1 + 6
    assert "All is done." in store.submit("status", run)


def test_petastorm_reads_the_views_there(store: Store, pipeline: tuple[str, str], augmented_run: Path) -> None:
    run, _ = pipeline
    views = f"{run}/{store.manifest(run, 'augment')['attempt']}/views"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        with make_reader(views, reader_pool_type="dummy", num_epochs=1, filesystem=petastorm_files(views)) as reader:
            shapes = [row.image.shape for row in reader]
    assert shapes == [(48, 48, 3)] * 16 * 60


def test_nothing_of_an_attempt_is_left_but_what_is_published(store: Store, pipeline: tuple[str, str]) -> None:
    run, _ = pipeline
    found = {path.split("/stages/")[1].split("/")[0] for path in store.files.find(store.path(f"{run}/stages"))}
    stages = ("simulate", "augment", "train", "extract", "classify", "predict", "dream", "report")
    assert found == {str(store.manifest(run, stage)["attempt"]).removeprefix("stages/") for stage in stages}
    assert [path for path in store.files.find(store.path(run)) if "_temporary" in path or "__magic" in path] == []


def test_credentials_are_in_none_of_its_files(store: Store, pipeline: tuple[str, str]) -> None:
    run, shown = pipeline
    assert PASSWORD not in shown
    files = [path for path in store.files.find(store.path(run)) if not path.endswith((".parquet", ".jpg", ".png"))]
    assert len(files) > 20
    assert [path for path in files if PASSWORD.encode() in store.files.cat_file(path)] == []


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_shards_there_make_the_same_views_as_files(
    store: Store, pipeline: tuple[str, str], tmp_path: Path, kind: str
) -> None:
    whole, _ = pipeline
    simulated = f"{whole}/{store.manifest(whole, 'simulate')['attempt']}/simulated"
    shards, run = f"{store.root}/{kind}", f"{store.root}/of_{kind}"
    if kind == "parquet":
        pack = ["pack-images", "--profile", store.profile, "--images", f"{simulated}/images", "--packed", shards]
        store.submit(*pack, "--shard-mb", 0.2)
    else:
        tar_images(store, f"{simulated}/images", tmp_path / "images.tar")
        store.files.put_file(str(tmp_path / "images.tar"), store.path(f"{shards}/images.tar"))
    augment = ["augment", "--profile", store.profile, "--run", run, "--images", shards]
    store.submit(*augment, "--labels", f"{simulated}/labels.csv", *VIEWS)
    assert differences(store.rows(run), store.rows(whole)) == []


def tar_images(store: Store, images: str, file: Path) -> None:
    with tarfile.open(file, "w") as tar:
        for path in store.files.find(store.path(images)):
            content = store.files.cat_file(path)
            member = tarfile.TarInfo(Path(path).name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_a_killed_writer_leaves_the_published_views_and_the_next_one_replaces_them(
    store: Store, pipeline: tuple[str, str], tmp_path: Path
) -> None:
    whole, _ = pipeline
    simulated = f"{whole}/{store.manifest(whole, 'simulate')['attempt']}/simulated"
    run = f"{store.root}/killed"
    augment = ["augment", "--profile", store.profile, "--run", run, "--images", f"{simulated}/images"]
    augment += ["--labels", f"{simulated}/labels.csv", *VIEWS]
    store.submit(*augment)
    published, rows = store.manifest(run, "augment"), store.rows(run)

    killed = store.start(*augment)
    wait_for(lambda: len(attempts(store, run)) == 2, killed, "the second attempt has begun to write")
    kill(killed)
    assert store.manifest(run, "augment") == published
    assert differences(store.rows(run), rows) == []

    store.submit(*augment)
    assert store.manifest(run, "augment")["id"] != published["id"]
    assert differences(store.rows(run), rows) == []


def attempts(store: Store, run: str) -> set[str]:
    """As far as there are files of theirs, unfinished uploads included."""
    return {path.split("/stages/")[1].split("/")[0] for path in store.files.find(store.path(f"{run}/stages"))}


def test_training_that_was_killed_goes_on_from_the_store(store: Store, pipeline: tuple[str, str]) -> None:
    run, _ = pipeline
    train = ["train", "-np", 1, "--run", run, *TRAINING, "--epochs", 4, "--no-resume", "--seed", 2]
    before = store.manifest(run, "train")["id"]
    killed = store.start(*train)
    wait_for(lambda: bool(newer_checkpoints(store, run, before)), killed, "the new training has a checkpoint")
    kill(killed)
    assert store.manifest(run, "train")["id"] == before
    shown = store.submit(*[word for word in train if word != "--no-resume"])
    assert "Going on after step" in shown
    assert store.manifest(run, "train")["id"] != before


def newer_checkpoints(store: Store, run: str, train_id: object) -> bool:
    try:
        progress = json.loads(store.files.cat_file(store.path(f"{run}/checkpoints/progress.json")))  # the last to come
    except (FileNotFoundError, ValueError):
        return False
    return not progress["finished"] and progress["step"] > 0
