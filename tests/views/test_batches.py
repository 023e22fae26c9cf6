"""Arrow batches of galaxies that are each of one shade, so that a view tells whose it is."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from galaxyspark.galaxyzoo.splits import SplitRule
from galaxyspark.views.augment import ViewRecipe
from galaxyspark.views.batches import SPREAD, colour_sums_of_batches, reasons_of_batches, views_of_batches
from galaxyspark.views.reading import Reading

RECIPE = ViewRecipe(
    seed=1, size_px=32, field_of_view=0.5, colour_strength=0.0, colour_axes=((0.0,) * 3,) * 3, jpeg_quality=95
)
SPLIT_RULE = SplitRule((0.5, 0.25, 0.25), ends={"class of 20": (0.0, 0.0), "class of 60": (0.0, 1.0)})
ALL_FOR_TRAINING = SplitRule((1.0, 0.0, 0.0))


def image_of(shade: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 50), (shade, shade, shade)).save(stream, kind)
    return stream.getvalue()


def batch_of(contents: dict[int, bytes]) -> pa.RecordBatch:
    columns = {
        "galaxy_id": [str(shade) for shade in contents],
        "label": [f"class of {shade}" for shade in contents],
        "path": [f"/images/{shade}.jpg" for shade in contents],
        "length": [len(content) for content in contents.values()],
    }
    return pa.RecordBatch.from_pydict(columns | {"content": pa.array(list(contents.values()), pa.binary())})


BROKEN = {7: b"", 8: b"text", 9: image_of(9)[:-5], 10: image_of(10, "JPEG")[:200]}
SOUND = {shade: image_of(shade, "JPEG" if shade % 40 else "PNG") for shade in (20, 40, 60, 80, 100)}


def test_every_sound_galaxy_is_repeated_for_its_16_views() -> None:
    mixed = {shade: (SOUND | BROKEN)[shade] for shade in (7, 20, 8, 40, 60, 9, 10, 80, 100)}
    [batch] = views_of_batches([batch_of(mixed)], RECIPE, ALL_FOR_TRAINING)

    assert set(batch.schema.names) == {"galaxy_id", "label", "path", "length", "view", "image", "split"}
    assert batch.schema.field("view").type == pa.int8()
    rows = batch.to_pylist()
    assert [(row["view"], row["galaxy_id"]) for row in rows] == [
        (view, galaxy_id) for view in range(16) for galaxy_id in ("20", "40", "60", "80", "100")
    ]
    for row in rows:
        shade = int(row["galaxy_id"])
        view = Image.open(io.BytesIO(row["image"]))
        assert (view.format, view.size) == ("JPEG", (32, 32))
        np.testing.assert_allclose(np.asarray(view), shade, atol=3)
        assert row["label"] == f"class of {shade}"
        assert (row["path"], row["length"]) == (f"/images/{shade}.jpg", len(SOUND[shade]))
        assert row["split"] == "train"


def test_batches_come_out_by_split_with_the_views_asked_for() -> None:
    batches = [batch_of({20: SOUND[20], 40: SOUND[40]}), batch_of(BROKEN), batch_of({60: SOUND[60], 80: SOUND[80]})]
    made = [batch.to_pydict() for batch in views_of_batches(batches, RECIPE, SPLIT_RULE, num_views=3)]
    for batch in made:
        [split] = set(batch["split"])
        labels = {str(shade): f"class of {shade}" for shade in (20, 40, 60, 80)}
        galaxies = [galaxy_id for galaxy_id, label in labels.items() if SPLIT_RULE.split_of(galaxy_id, label) == split]
        assert batch["galaxy_id"] == galaxies * 3
        assert batch["view"] == [view for view in range(3) for _ in galaxies]
        assert "20" not in galaxies or split == "test"
        assert "60" not in galaxies or split == "validation"
    assert sum(len(batch["view"]) for batch in made) == 4 * 3


@pytest.mark.parametrize("contents", [BROKEN, {}], ids=["all broken", "no rows"])
def test_nothing_comes_of_batches_without_sound_images(contents: dict[int, bytes]) -> None:
    empty = batch_of(contents) if contents else batch_of(SOUND).slice(0, 0)
    assert list(views_of_batches([empty], RECIPE, SPLIT_RULE)) == []
    assert list(views_of_batches([], RECIPE, SPLIT_RULE)) == []


@pytest.mark.parametrize("num_galaxies", [SPREAD, 2 * SPREAD - 1, 2 * SPREAD, 3 * SPREAD + 70])
def test_no_galaxy_comes_twice_in_a_window_where_there_are_enough_of_them(num_galaxies: int) -> None:
    galaxies = {shade: SOUND[20] for shade in range(num_galaxies)}
    shades = list(galaxies)
    batches = [batch_of({s: galaxies[s] for s in shades[start : start + 64]}) for start in range(0, num_galaxies, 64)]
    made = list(views_of_batches(batches, RECIPE, ALL_FOR_TRAINING))
    assert max(batch.num_rows for batch in made) <= 256
    rows = [galaxy_id for batch in made for galaxy_id in batch.column("galaxy_id").to_pylist()]
    assert len(rows) == 16 * num_galaxies == 16 * len(set(rows))
    assert all(len(set(rows[start : start + SPREAD])) == SPREAD for start in range(len(rows) - SPREAD + 1))


def test_every_broken_image_gets_its_reason() -> None:
    [batch] = reasons_of_batches([batch_of(BROKEN | {20: SOUND[20]})], Reading())
    reasons = {row["path"].split("/")[-1].removesuffix(".jpg"): row["reason"] for row in batch.to_pylist()}
    assert {galaxy_id: reasons[galaxy_id] for galaxy_id in ("7", "8", "9", "10")} == {
        "7": "empty file",
        "8": "not a JPEG, PNG or FITS image",
        "9": "truncated image: no end marker",
        "10": "truncated image: no end marker",
    }
    assert "storage" in reasons["20"]
    assert batch.schema.names == ["path", "reason"]


def test_colour_sums_pass_over_broken_images() -> None:
    [batch] = colour_sums_of_batches([batch_of({20: image_of(20), 80: image_of(80)} | BROKEN)], Reading())
    [row] = batch.to_pylist()
    pixels = np.repeat([[20.0] * 3, [80.0] * 3], 2000, axis=0)
    assert row["num_pixels"] == 4000
    np.testing.assert_allclose(row["total"], pixels.sum(axis=0))
    np.testing.assert_allclose(np.reshape(row["products"], (3, 3)), pixels.T @ pixels)


def test_colour_sums_of_broken_images_alone_are_zero() -> None:
    [batch] = colour_sums_of_batches([batch_of(BROKEN)], Reading())
    assert batch.to_pylist() == [{"num_pixels": 0, "total": [0.0] * 3, "products": [0.0] * 9}]
