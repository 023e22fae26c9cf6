"""Ray Data writes what the stage augment writes: ids, votes, splits and the very bytes of the views."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from benchmarks.ray_data import RayData, ray_python
from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.simulation import encode_jpeg, galaxy_ids, simulate_galaxy
from galaxyspark.galaxyzoo.splits import SPLITS, SplitRule
from galaxyspark.galaxyzoo.tree import ID_COLUMN, MORPHOLOGY_CLASSES, VOTE_COLUMNS
from galaxyspark.views.augment import NUM_VIEWS, ViewRecipe, make_views

SEED = 2
# A class of its own share: its galaxies are not where those of the other classes at their places are.
SPLIT_RULE = SplitRule((0.5, 0.25, 0.25), ends={"smooth": (0.2, 0.4)})
AXES = ((50.0, 48.0, 40.0), (8.0, 0.0, -9.0), (2.0, -4.0, 2.0))
RECIPE = ViewRecipe(seed=1, size_px=64, field_of_view=0.5, colour_strength=0.1, colour_axes=AXES, jpeg_quality=90)


@pytest.fixture(scope="module")
def ray() -> Iterator[RayData]:
    with RayData() as started:
        yield started


@pytest.fixture
def jpegs(tmp_path: Path) -> dict[str, bytes]:
    """Galaxy's id -> its JPEG; as files they lie in ``a run/images``, their votes in ``a run/labels.csv``."""
    simulated = {galaxy_id: simulate_galaxy(galaxy_id, SEED) for galaxy_id in galaxy_ids(8, SEED)}
    directory = tmp_path / "a run"  # a space in the path must not matter
    (directory / "images").mkdir(parents=True)
    with open(directory / "labels.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow([ID_COLUMN, *VOTE_COLUMNS])
        rows.writerows([galaxy_id, *galaxy.votes] for galaxy_id, galaxy in simulated.items())
    contents = {galaxy_id: encode_jpeg(galaxy.image) for galaxy_id, galaxy in simulated.items()}
    for galaxy_id, content in contents.items():
        (directory / "images" / f"{galaxy_id}.jpg").write_bytes(content)
    return contents


def run(ray: RayData, directory: Path, output: Path) -> Path:
    return ray.run(directory / "images", directory / "labels.csv", RECIPE, SPLIT_RULE, output)


@pytest.mark.slow
def test_it_writes_the_same_views_in_the_same_splits(ray: RayData, jpegs: dict[str, bytes], tmp_path: Path) -> None:
    rows = pq.read_table(run(ray, tmp_path / "a run", tmp_path / "a run")).to_pylist()

    views = {(row["galaxy_id"], row["view"]): row["image"] for row in rows}
    assert len(rows) == len(views) == NUM_VIEWS * len(jpegs)
    for galaxy_id, jpeg in jpegs.items():
        assert [views[galaxy_id, view] for view in range(NUM_VIEWS)] == make_views(jpeg, galaxy_id, RECIPE)
    assert {row["split"] for row in rows} == set(SPLITS)
    for row in rows:
        assert row["split"] == SPLIT_RULE.split_of(row["galaxy_id"], row["label"])
        votes = simulate_galaxy(row["galaxy_id"], SEED).votes
        assert row["label"] == MORPHOLOGY_CLASSES[votes[:3].argmax()]
        written = [row[column.replace(".", "_")] for column in VOTE_COLUMNS]
        np.testing.assert_array_equal(written, votes.astype(np.float32))


@pytest.mark.slow
def test_its_files_are_like_those_of_the_stage(
    ray: RayData, jpegs: dict[str, bytes], tmp_path: Path, augmented_run: Path
) -> None:
    ours, theirs = augmented_run / "views", run(ray, tmp_path / "a run", tmp_path)

    assert {path.name for path in theirs.iterdir()} == {path.name for path in ours.glob("split=*")}
    [our_file, *_], [their_file, *_] = (sorted(path.rglob("*.parquet")) for path in (ours, theirs))
    our_columns, their_columns = (
        {field.name: field.type for field in pq.read_schema(file)} for file in (our_file, their_file)
    )
    assert our_columns == their_columns
    assert pq.read_metadata(their_file).row_group(0).column(0).compression == "UNCOMPRESSED"


@pytest.mark.slow
def test_what_ray_said_of_a_failure_is_shown_and_nothing_of_ray_stays(jpegs: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "a run" / "images" / "100000.jpg").write_bytes(b"of a galaxy without a label")
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(RuntimeError, match="1 of . images have no label"), RayData() as ray:
        processes = set(psutil.Process().children(recursive=True)) - before
        sockets = [socket for process in processes for socket in process.net_connections("tcp")]
        run(ray, tmp_path / "a run", tmp_path)

    listening = {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert len(listening) > 0
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []


def test_an_environment_is_made_once_and_again_where_pip_had_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_command(command: tuple[str, ...], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if "venv" in command:
            (Path(command[-1]) / "bin").mkdir(parents=True)
            (Path(command[-1]) / "bin" / "python").touch()
        return subprocess.CompletedProcess(command, int(len(commands) == 2), "No matching distribution")

    commands: list[tuple[str, ...]] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", run_command)

    with pytest.raises(UserError, match="No matching distribution"):
        ray_python()
    python = ray_python()
    assert ray_python() == python

    assert python.is_relative_to(tmp_path / "galaxyspark" / "bench")
    assert len(commands) == 4
    assert commands[:2] == commands[2:]
    assert f"numpy=={np.__version__}" in commands[1]
    assert capsys.readouterr().err.count(str(python.parents[1])) == 2
