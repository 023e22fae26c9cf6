"""Views against PIL's own crop, against dots whose place is worked out by hand, and against scipy's distributions."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from galaxyspark.views import augment
from galaxyspark.views.augment import MAX_SHIFT, MAX_ZOOM, Perturbation, ViewRecipe, make_views, perturbation_of
from galaxyspark.views.reading import UnreadableImageError

AXES = ((10.0, 20.0, 0.0), (0.0, 0.0, -40.0), (4.0, 4.0, 4.0))


def recipe(**changes: object) -> ViewRecipe:
    plain = {"seed": 1, "size_px": 64, "field_of_view": 0.5, "colour_strength": 0.0, "colour_axes": AXES}
    return ViewRecipe(**(plain | {"jpeg_quality": 100} | changes))


def png(pixels: NDArray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


def read(view: bytes) -> NDArray[np.float64]:
    return np.asarray(Image.open(io.BytesIO(view)), dtype=np.float64)


def waves(width: int, height: int, length: float) -> NDArray[np.float64]:
    """Grey, as JPEG keeps colour at half the resolution only; half a pixel's shift along an axis is easily seen."""
    y, x = 2 * np.pi / length * np.mgrid[:height, :width]
    return np.repeat((128 + 60 * np.sin(x) + 60 * np.cos(1.1 * y))[:, :, None], 3, axis=2)


def dot(width: int, height: int, x: float, y: float) -> NDArray[np.float64]:
    """A round dot of 250 at (x, y), pixel (0, 0) being the centre of the first pixel."""
    rows, columns = np.mgrid[:height, :width]
    return 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3**2))


def centre_of_light(light: NDArray[np.float64]) -> complex:
    """x + iy, in pixels from the centre of a square image, y upwards."""
    light = np.where(light > 40, light, 0)
    rows, columns = np.mgrid[: light.shape[0], : light.shape[1]]
    centre = (light.shape[0] - 1) / 2
    return complex((light * (columns - centre)).sum(), (light * (centre - rows)).sum()) / light.sum()


@pytest.fixture
def perturb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Perturbation], None]:
    """Give every view the same perturbation."""
    return lambda perturbation: monkeypatch.setattr(augment, "perturbation_of", lambda *_: perturbation)


@pytest.mark.parametrize("field_of_view", [0.5, 0.83, 1.0])
@pytest.mark.parametrize(("width", "height"), [(424, 424), (211, 211), (300, 201), (201, 300), (90, 64)])
def test_view_0_is_the_centre_of_the_image_as_pil_cuts_it_out(width: int, height: int, field_of_view: float) -> None:
    side = field_of_view * min(width, height)
    image = waves(width, height, length=side / 5)
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    expected = Image.open(io.BytesIO(png(image))).resize((64, 64), Image.Resampling.BILINEAR, box)
    [view] = make_views(png(image), "7", recipe(field_of_view=field_of_view), [0])
    assert np.abs(read(view) - np.asarray(expected)).mean() < 2  # half a pixel off makes it about 12


@pytest.mark.parametrize(
    "perturbation",
    [
        Perturbation(),
        Perturbation(rotation_rad=0.4),
        Perturbation(rotation_rad=2.5, zoom=1.25),
        Perturbation(rotation_rad=5.9, zoom=0.8, shift=(0.05, -0.03)),
        Perturbation(shift=(0.04, 0.06)),
        Perturbation(mirrored=True),
        Perturbation(mirrored=True, zoom=1.2, shift=(0.02, 0.05)),
    ],
)
@pytest.mark.parametrize(("width", "height", "x", "y"), [(200, 200, 120, 90), (261, 181, 118, 110), (150, 241, 66, 95)])
def test_a_dot_appears_where_hand_calculation_puts_it(
    perturb: Callable, perturbation: Perturbation, width: int, height: int, x: int, y: int
) -> None:
    perturb(perturbation)
    [view] = make_views(png(np.stack([dot(width, height, x, y)] * 3, axis=2)), "7", recipe(field_of_view=0.7), [3])

    side = min(width, height)
    place = complex(x - (width - 1) / 2, (height - 1) / 2 - y)  # from the image's centre, y upwards
    place -= side * complex(perturbation.shift[0], -perturbation.shift[1])
    place *= np.exp(1j * perturbation.rotation_rad)  # counter-clockwise
    if perturbation.mirrored:
        place = complex(-place.real, place.imag)
    place *= perturbation.zoom * 64 / (0.7 * side)
    assert abs(centre_of_light(read(view)[:, :, 1]) - place) < 0.35


def test_three_dots_show_each_views_zoom_and_whether_it_is_mirrored() -> None:
    def signed_area(corners: list[complex]) -> float:
        first, second, third = corners
        return ((second - first).conjugate() * (third - first)).imag / 2

    corners = [(80, 110), (125, 105), (95, 78)]
    before = signed_area([complex(x, -y) for x, y in corners]) * (64 / (0.8 * 200)) ** 2
    images = [png(np.stack([dot(200, 200, x, y)] * 3, axis=2)) for x, y in corners]
    views_of_images = zip(*(make_views(image, "7", recipe(field_of_view=0.8)) for image in images), strict=True)
    for number, views in enumerate(views_of_images):
        perturbation = perturbation_of(1, "7", number)
        after = signed_area([centre_of_light(read(view)[:, :, 1]) for view in views])
        expected = before * perturbation.zoom**2 * (-1 if perturbation.mirrored else 1)
        assert after == pytest.approx(expected, rel=0.03)
    assert number == 15


@pytest.mark.parametrize("shade", [0, 130, 255])
def test_no_view_has_dark_corners(shade: int) -> None:
    for view in make_views(png(np.full((100, 80, 3), shade)), "7", recipe(field_of_view=1.0)):
        np.testing.assert_allclose(read(view), shade, atol=2)


@pytest.mark.parametrize(
    ("strength", "weights", "rgb"),
    [
        (1.0, (1.0, 0.0, 0.0), (110, 120, 100)),
        (0.5, (0.0, 1.0, 0.0), (100, 100, 80)),
        (2.0, (1.0, 0.5, -1.0), (112, 132, 52)),  # 100 + 2 (10 - 4, 20 - 4, -20 - 4)
        (2.0, (10.0, -10.0, 0.0), (255, 255, 255)),  # 300, 500 and 900: as bright as can be
        (2.0, (-10.0, 10.0, 0.0), (0, 0, 0)),
        (0.0, (9.0, 9.0, 9.0), (100, 100, 100)),
    ],
)
def test_colour_is_shifted_by_the_weighted_rgb_axes(
    perturb: Callable, strength: float, weights: tuple[float, ...], rgb: tuple[int, ...]
) -> None:
    perturb(Perturbation(colour=weights))
    [view] = make_views(png(np.full((90, 90, 3), 100)), "7", recipe(colour_strength=strength), [1])
    np.testing.assert_allclose(read(view).mean(axis=(0, 1)), rgb, atol=1.5)


@pytest.mark.parametrize("content", [b"", b"text", png(waves(30, 30, 5))[:-20]])
def test_an_unreadable_image_has_no_views(content: bytes) -> None:
    with pytest.raises(UnreadableImageError):
        make_views(content, "7", recipe())


def test_a_view_does_not_depend_on_what_else_is_made() -> None:
    content = png(waves(120, 110, 9))
    views = make_views(content, "7", recipe(colour_strength=0.5))
    assert views == make_views(content, "7", recipe(colour_strength=0.5))
    assert [views[11], views[2], views[2]] == make_views(content, "7", recipe(colour_strength=0.5), [11, 2, 2])
    assert len(set(views)) == 16


def test_another_process_makes_the_same_bytes() -> None:
    script = (
        "import hashlib, sys; from galaxyspark.views.augment import *; "
        f"print(hashlib.sha256(b''.join(make_views(sys.stdin.buffer.read(), '7', {recipe()!r}))).hexdigest())"
    )
    content = png(waves(70, 80, 9))
    environment = os.environ | {"PYTHONHASHSEED": "12"}
    other = subprocess.run([sys.executable, "-c", script], input=content, capture_output=True, env=environment)
    here = hashlib.sha256(b"".join(make_views(content, "7", recipe()))).hexdigest()
    assert other.stdout.decode().strip() == here, other.stderr.decode()


@settings(deadline=None, max_examples=50)
@given(st.integers(0), st.text())
def test_view_0_is_never_perturbed(seed: int, galaxy_id: str) -> None:
    assert perturbation_of(seed, galaxy_id, 0) == Perturbation(0.0, False, 1.0, (0.0, 0.0), (0.0, 0.0, 0.0))


@settings(deadline=None)
@given(st.integers(0), st.text(), st.integers(1, 15))
def test_perturbations_stay_in_their_ranges(seed: int, galaxy_id: str, view: int) -> None:
    perturbation = perturbation_of(seed, galaxy_id, view)
    assert perturbation == perturbation_of(seed, galaxy_id, view)
    assert 0 <= perturbation.rotation_rad < 2 * np.pi
    assert 1 / 1.3 <= perturbation.zoom <= 1.3
    assert max(abs(amount) for amount in perturbation.shift) <= 4 / 424


def test_seed_galaxy_and_view_each_change_the_perturbation() -> None:
    keys = [(seed, galaxy_id, view) for seed in (1, 11) for galaxy_id in ("1", "11", "1/1") for view in range(1, 16)]
    assert len({perturbation_of(*key) for key in keys}) == len(keys)


def test_perturbations_have_the_distributions_they_claim() -> None:
    drawn = [perturbation_of(1, str(galaxy), view) for galaxy in range(100_000, 100_200) for view in range(1, 11)]
    quantities = {
        "rotation": ([p.rotation_rad / (2 * np.pi) for p in drawn], "uniform"),
        "log zoom": ([(np.log(p.zoom) / np.log(MAX_ZOOM) + 1) / 2 for p in drawn], "uniform"),
        **{f"shift {i}": ([(p.shift[i] / MAX_SHIFT + 1) / 2 for p in drawn], "uniform") for i in range(2)},
        **{f"colour {i}": ([p.colour[i] for p in drawn], "norm") for i in range(3)},
    }
    for name, (values, distribution) in quantities.items():
        assert stats.kstest(values, distribution).pvalue > 1e-3, name
    assert stats.binomtest(sum(p.mirrored for p in drawn), len(drawn)).pvalue > 1e-3
    correlations = np.corrcoef([values for values, _ in quantities.values()]) - np.eye(len(quantities))
    assert np.abs(correlations).max() < 4 / np.sqrt(len(drawn))
