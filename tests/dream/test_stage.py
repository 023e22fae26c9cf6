"""What the stage publishes, and single pictures, in a run that was published by hand."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from galaxyspark.dream.ascent import Picture
from galaxyspark.dream.galaxies import JudgedGalaxy, galaxy_to_change, read_picture, right_and_wrong
from galaxyspark.dream.goals import LAYERS
from galaxyspark.dream.sheets import safe_names
from galaxyspark.dream.single import asks_for_one, dream_one
from galaxyspark.dream.stage import dream, spread
from galaxyspark.errors import UserError
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import DreamJob, DreamSettings
from galaxyspark.views.augment import ViewRecipe

FEW = DreamSettings(dream_size_px=64, octaves=1, dream_steps=3, jitter_px=1)
CLASSES = ("round", "with/out <b>arms</b>", "with/out <i>arms</i>")
CLASS_FILES = ("round", "with_out_b_arms_b_", "with_out_i_arms_i_")


@pytest.fixture(scope="module")
def dreamt(make_run: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_run(tmp_path_factory.mktemp("dreams") / "a run")
    dream(DreamJob(run=root, dream=FEW))
    return root


@pytest.fixture(scope="module")
def records(dreamt: Path) -> list[dict]:
    return json.loads((dreamt / "dreams" / "dreams.json").read_text())


@pytest.fixture
def image_file(galaxy_picture: Picture, tmp_path: Path) -> Path:
    file = tmp_path / "my galaxy #1.png"
    Image.fromarray(galaxy_picture).save(file)
    return file


def pixels_of(file: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(file))


def test_every_picture_is_there_and_told_of(dreamt: Path, records: list[dict]) -> None:
    names = ["start-galaxy", "start-noise"]
    names += [f"layer-{layer}-from-{start}" for start in ("galaxy", "noise") for layer in spread(LAYERS["resnet18"], 8)]
    names += [f"class-{name}-from-{start}" for start in ("galaxy", "noise") for name in CLASS_FILES]
    names += [f"attention-{number}" for number in range(1, 9)]
    assert [record["file"] for record in records] == [f"{name}.png" for name in names]
    sheets = {"layers.png", "classes.png", "attention.png"}
    assert {file.name for file in (dreamt / "dreams").iterdir()} == {
        *(f"{n}.png" for n in names),
        *sheets,
        "dreams.json",
    }
    for record in records:
        expected = (64, 128, 3) if record["kind"] == "attention" else (64, 64, 3)
        assert pixels_of(dreamt / "dreams" / record["file"]).shape == expected
    assert RunDirectory(dreamt).manifest("dream")["counts"] == {"pictures": len(names)}
    assert RunDirectory(dreamt).outdated() == []


def test_records_say_what_was_asked_and_that_it_grew(records: list[dict]) -> None:
    kinds = {kind: [record for record in records if record["kind"] == kind] for kind in ("layer", "class")}
    assert [record["class"] for record in kinds["class"]] == [*CLASSES, *CLASSES]
    assert {record["layer"] for record in kinds["layer"]} <= set(LAYERS["resnet18"])
    for record in kinds["layer"] + kinds["class"]:
        assert record["after"] > record["before"], record
        assert (record["galaxy_id"] is None) == (record["start"] == "noise")


def test_attention_is_of_galaxies_right_and_wrong(records: list[dict]) -> None:
    shown = [record for record in records if record["kind"] == "attention"]
    of_id = {record["galaxy_id"]: CLASSES[int(record["galaxy_id"]) % 3] for record in shown}
    assert len(of_id) == 8
    assert [record["true_class"] for record in shown] == list(of_id.values())
    right = [record["true_class"] == record["predicted_class"] for record in shown]
    assert right == sorted(right, reverse=True)
    assert 4 <= right.count(True) < 8
    assert all(1 / 3 <= record["probability"] <= 1 for record in shown)


def test_the_left_half_of_attention_is_the_galaxys_view_0(dreamt: Path, records: list[dict]) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(dreamt / "views" / "split=test").to_pylist()
    jpegs = {row["galaxy_id"]: row["image"] for row in rows if row["view"] == 0}
    record = records[-1]
    view = cv2.imdecode(np.frombuffer(jpegs[record["galaxy_id"]], np.uint8), cv2.IMREAD_COLOR)
    shown = pixels_of(dreamt / "dreams" / record["file"])[:, :64]
    assert np.abs(shown.astype(int) - view[..., ::-1]).mean() < 2  # two JPEG decoders


def test_the_seed_decides(dreamt: Path, make_run: Callable[[Path], Path], tmp_path: Path) -> None:
    def contents(root: Path) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (root / "dreams").iterdir()}

    again = make_run(tmp_path / "again")
    dream(DreamJob(run=again, dream=FEW))
    assert contents(again) == contents(dreamt)
    dream(DreamJob(run=again, dream=FEW, seed=2))
    of_noise = "class-round-from-noise.png"
    assert contents(again)[of_noise] != contents(dreamt)[of_noise]


def test_one_picture_leaves_what_the_stage_published(dreamt: Path, image_file: Path, galaxy_picture: Picture) -> None:
    before = {file: file.stat().st_mtime_ns for file in (dreamt / "dreams").iterdir()}
    common = {"run": dreamt, "dream": FEW}
    made = [
        dream_one(DreamJob(**common, layer="layer2.0", image=str(image_file))),
        dream_one(DreamJob(**common, layer="layer2.0", image=str(image_file), guide=str(image_file))),
        dream_one(DreamJob(**common, layer="layer2.0", noise=True)),
        dream_one(DreamJob(**common, dream_class=CLASSES[1])),
    ]
    galaxy_id = next(record["galaxy_id"] for record in json.loads((dreamt / "dreams" / "dreams.json").read_text()))
    assert [file.name for file in made] == [
        "dream-layer2.0-my_galaxy_1.png",
        "dream-layer2.0-my_galaxy_1-guided-by-my_galaxy_1.png",
        "dream-layer2.0-noise.png",
        f"dream-with_out_b_arms_b_-{galaxy_id}.png",
    ]
    assert [pixels_of(file).shape for file in made] == [(64, 64, 3)] * 4
    assert {file.parent for file in made} == {dreamt}
    assert {file: file.stat().st_mtime_ns for file in (dreamt / "dreams").iterdir()} == before
    same = dreamt / "dreams" / "class-with_out_b_arms_b_-from-galaxy.png"
    assert made[3].read_bytes() == same.read_bytes()
    assert not list(dreamt.glob(".*"))


def test_a_picture_is_the_centre_of_the_image_in_rgb(tmp_path: Path) -> None:
    """The middle half of its side, which is red here; the rest is blue."""
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[..., 2] = 255
    pixels[48:152, 98:202] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    recipe = ViewRecipe(1, 64, field_of_view=0.5, colour_strength=0.1, colour_axes=(), jpeg_quality=90)
    for size_px in (80, 224):
        picture = read_picture("--image", str(tmp_path / "image.png"), recipe, size_px)
        np.testing.assert_array_equal(picture, np.broadcast_to([255, 0, 0], (size_px, size_px, 3)))


@pytest.mark.parametrize("flag", ["image", "guide"])
@pytest.mark.parametrize(
    ("content", "complaint"), [(None, r"cannot be read \(No such file"), (b"GIF89a", "not a JPEG, PNG or FITS image")]
)
def test_an_image_that_cannot_be_read_is_named(
    flag: str, content: bytes | None, complaint: str, dreamt: Path, tmp_path: Path
) -> None:
    file = tmp_path / "image.jpg"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=f"^--{flag} {file}: {complaint}"):
        dream_one(DreamJob(run=dreamt, layer="layer2.0", dream=FEW, **{flag: str(file)}))


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"noise": True}, "either --layer or --dream-class"),
        ({"layer": "conv1", "dream_class": "round"}, "either --layer or --dream-class"),
        ({"layer": "conv1", "noise": True, "image": "a.jpg"}, "--image and --noise"),
        ({"dream_class": "round", "guide": "a.jpg"}, "--guide"),
        ({"layer": "conv9"}, "--layer conv9: .*layer4.1"),
        ({"dream_class": "spiral"}, "--dream-class spiral: .*round"),
    ],
)
def test_contradictions_and_unknown_names_are_told(flags: dict, complaint: str, dreamt: Path) -> None:
    job = DreamJob(run=dreamt, dream=FEW, **flags)
    assert asks_for_one(job)
    with pytest.raises(UserError, match=complaint):
        dream_one(job)


def test_without_flags_it_is_the_stage(dreamt: Path) -> None:
    assert not asks_for_one(DreamJob(run=dreamt))


def test_runs_that_are_not_ready_are_refused(make_run: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'augment' has not been published"):
        dream(DreamJob(run=tmp_path))
    root = make_run(tmp_path / "run")
    shutil.rmtree(root / "views" / "split=test")
    with pytest.raises(UserError, match="the test split is empty"):
        dream(DreamJob(run=root, dream=FEW))
    assert not (root / "dreams").exists()


def judged(galaxy_id: str, label: str, predicted: str, probability: float) -> JudgedGalaxy:
    return JudgedGalaxy(galaxy_id, label, np.zeros((8, 8, 3), np.uint8), predicted, probability)


def test_galaxies_are_of_every_class_and_half_of_them_wrong() -> None:
    galaxies = [judged(f"a{n}", "a", "a", 0.9 - n / 100) for n in range(20)]
    galaxies += [judged("b1", "b", "b", 0.5), judged("b2", "b", "a", 0.6), judged("b3", "b", "c", 0.7)]
    galaxies += [judged("a wrong", "a", "c", 0.4)]
    chosen = [galaxy.galaxy_id for galaxy in right_and_wrong(galaxies, 8)]
    assert chosen == ["a0", "b1", "a1", "a2", "a3", "a wrong", "b3", "b2"]
    assert Counter(galaxy.is_right for galaxy in right_and_wrong(galaxies * 2, 8)) == {True: 4, False: 4}
    assert [galaxy.galaxy_id for galaxy in right_and_wrong(galaxies[:2], 8)] == ["a0", "a1"]


def test_the_galaxy_to_change_is_the_surest_right_one_of_no_rare_class() -> None:
    right = [judged(f"a{n}", "a", "a", 0.5 + n / 100) for n in range(5)] + [judged("b", "b", "b", 0.8)]
    wrong = [judged(f"b{n}", "b", "a", 0.9) for n in range(5)]
    rare = [judged("c", "c", "c", 0.99)]
    assert galaxy_to_change(right + wrong + rare).galaxy_id == "b"
    assert galaxy_to_change(wrong + rare).galaxy_id == "b4"
    assert galaxy_to_change(rare).galaxy_id == "c"


def test_names_are_safe_and_told_apart() -> None:
    texts = ["a/b", "a<b", "a_b-2", "../..", "é", "x" * 300, "x" * 301, ""]
    names = safe_names(texts)
    assert list(names) == texts
    assert len(set(names.values())) == len(texts)
    assert [names["a/b"], names["a<b"]] == ["a_b", "a_b-2"]
    assert all("/" not in name and "<" not in name and len(name) < 50 for name in names.values())


def test_layers_are_spread_from_first_to_last() -> None:
    assert spread("abcdefghijkl", 8) == list("acdfgijl")
    assert spread("abc", 8) == list("abc")


def test_the_command_ends_with_one_message(dreamt: Path, run_submit: Callable) -> None:
    completed = run_submit("dream", "--run", dreamt, "--layer", "inception4c")
    assert completed.returncode == 2
    assert "dream: --layer inception4c: no layer of resnet18" in completed.stderr
    assert "Traceback" not in completed.stderr
