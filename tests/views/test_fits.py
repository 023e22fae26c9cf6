"""FITS files that astropy wrote, against the formula of Lupton et al. 2004 worked here."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from galaxyspark.views.decode import decode_image
from galaxyspark.views.reading import Reading, UnreadableImageError

SKY = (100.0, 200.0, 300.0)
PACKED: dict[str, Callable[[bytes], bytes]] = {"plain": bytes, "gzip": gzip.compress}


def galaxy(height: int = 40, width: int = 50, noise: float = 1.0) -> NDArray[np.float32]:
    """A blue, a middle and a red band: noise of its own on another sky in each, and an off-centre source."""
    y, x = np.mgrid[:height, :width]
    light = 300 * np.exp(-((x - 30) ** 2 + (y - 10) ** 2) / 20)
    random = np.random.default_rng(0)
    bands = [
        sky + colour * light + random.normal(0, noise, light.shape)
        for sky, colour in zip(SKY, (0.3, 1, 2), strict=True)
    ]
    return np.stack(bands).astype(np.float32)


def written(*hdus: fits.hdu.base.ExtensionHDU) -> bytes:
    stream = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(stream)
    return stream.getvalue()


def lupton(flux: NDArray[np.float64], scale: float, softening: float = 8.0) -> NDArray[np.float64]:
    """Pixels of RGB flux above the sky: equation 2 of the paper, with astropy's constants."""
    intensity = flux.mean(axis=0)
    brightness = np.arcsinh(softening * np.maximum(intensity, 0) / scale) * 0.1 / np.arcsinh(0.1 * softening)
    with np.errstate(divide="ignore", invalid="ignore"):
        rgb = np.where(intensity > 0, flux * brightness / intensity, 0).clip(0)
    brightest = np.maximum(rgb.max(axis=0), 1e-9)
    return 255 * np.where(brightest > 1, rgb / brightest, rgb)


@pytest.mark.parametrize("scale", [None, 50.0])
def test_a_cube_becomes_colours_by_the_stretch_of_lupton(scale: float | None) -> None:
    bands = galaxy()
    pixels = decode_image(written(fits.PrimaryHDU(bands)), Reading(fits_scale=scale))
    assert (pixels.shape, pixels.dtype) == ((40, 50, 3), np.uint8)
    flux = (bands - np.median(bands, axis=(1, 2), keepdims=True))[::-1].astype(np.float64)
    # The noise of the mean of three bands of noise 1: 1 / sqrt(3), and half a percent of the pixels are galaxy.
    expected = lupton(flux, scale or 10 / np.sqrt(3))[:, ::-1].transpose(1, 2, 0)[..., ::-1]
    difference = np.abs(pixels - expected)
    assert difference.mean() < 3
    if scale:
        assert difference.max() <= 1.5


def test_the_last_row_is_the_uppermost_and_the_brightest_band_the_colour() -> None:
    pixels = decode_image(written(fits.PrimaryHDU(galaxy())))
    blue, green, red = pixels[39 - 10, 30].astype(int)
    assert red > green > blue > 30
    assert pixels[10, 30].max() < 60


@pytest.mark.parametrize("pack", PACKED)
@pytest.mark.parametrize("kind", ["plane", "cube of one", "extension", "fpack", "integers"])
def test_every_usual_kind_of_file_shows_the_same_plane(kind: str, pack: str) -> None:
    plane = np.round(galaxy()[1])
    image = {
        "plane": [fits.PrimaryHDU(plane)],
        "cube of one": [fits.PrimaryHDU(plane[None])],
        "extension": [fits.PrimaryHDU(), fits.ImageHDU(plane)],
        "fpack": [fits.PrimaryHDU(), fits.CompImageHDU(plane.astype(np.int32), compression_type="RICE_1")],
        "integers": [fits.PrimaryHDU(plane.astype(np.uint16))],
    }[kind]
    pixels = decode_image(PACKED[pack](written(*image)))
    np.testing.assert_array_equal(pixels, decode_image(written(fits.PrimaryHDU(np.stack([plane] * 3)))))
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert pixels[39 - 10, 30, 0] > 100


def test_linear_runs_from_the_sky_to_the_white_that_was_asked_for() -> None:
    plane = np.zeros((20, 20), np.float32)
    plane[:, 15:] = np.linspace(0, 200, 20)[:, None]
    pixels = decode_image(written(fits.PrimaryHDU(plane + 7)), Reading(fits_stretch="linear", fits_scale=100.0))
    expected = np.clip(np.linspace(0, 200, 20) / 100, 0, 1)[::-1] * 255
    np.testing.assert_allclose(pixels[:, 15, 1], expected, atol=1)
    assert pixels[:, :15].max() == 0


def test_planes_are_chosen_by_the_setting() -> None:
    bands = np.concatenate([galaxy(), galaxy()[:2]])
    with pytest.raises(UnreadableImageError, match="FITS cube of 5 planes: --fits-planes must name"):
        decode_image(written(fits.PrimaryHDU(bands)))
    chosen = decode_image(written(fits.PrimaryHDU(bands)), Reading(fits_planes=(4, 1, 0)))
    np.testing.assert_array_equal(chosen, decode_image(written(fits.PrimaryHDU(bands[[0, 1, 4]]))))
    with pytest.raises(UnreadableImageError, match="FITS cube of 5 planes"):
        decode_image(written(fits.PrimaryHDU(bands)), Reading(fits_planes=(5, 1, 0)))


def test_pixels_without_a_value_become_black_and_disturb_nothing_else() -> None:
    bands = galaxy()
    holes = bands.copy()
    holes[:, 20:, :15] = np.nan
    holes[0, 0, 0] = np.inf
    pixels, whole = (decode_image(written(fits.PrimaryHDU(b)), Reading(fits_scale=300.0)) for b in (holes, bands))
    assert pixels[: 40 - 20, :15].max() == 0
    assert np.abs(pixels[:, 20:].astype(int) - whole[:, 20:]).max() <= 8


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (written(fits.PrimaryHDU(galaxy()))[:-4000], "cannot be decoded, or is cut off"),
        (written(fits.PrimaryHDU(galaxy()))[:200], "cannot be decoded, or is cut off"),
        (gzip.compress(written(fits.PrimaryHDU(galaxy())))[:-200], "cannot be decoded, or is cut off"),
        (gzip.compress(b"GalaxyID,label"), "cannot be decoded, or is cut off"),
        (written(fits.PrimaryHDU()), "FITS file without an image"),
        (written(fits.PrimaryHDU(np.full((4, 4), np.nan))), "FITS image without any value"),
        (written(fits.PrimaryHDU(np.zeros((2, 3, 4, 4)))), "FITS image of 4 dimensions"),
        (written(fits.PrimaryHDU(np.zeros(40))), "FITS image of 1 dimensions"),
    ],
    ids=["cut off", "header cut off", "gzip cut off", "no FITS", "no image", "no value", "4 dimensions", "1 dimension"],
)
def test_the_reason_is_what_quarantine_will_say(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        decode_image(content)


def test_a_huge_image_is_refused_by_its_header_alone() -> None:
    header = written(fits.PrimaryHDU(np.zeros((4, 4), np.uint8)))[:2880].decode()
    for axis in ("NAXIS1", "NAXIS2"):
        header = header.replace(f"{axis}  =                    4", f"{axis}  =                30000")
    assert "30000" in header
    with pytest.raises(UnreadableImageError, match="image larger than 16 megapixels"):
        decode_image(header.encode() + bytes(2880))


def test_a_gzip_bomb_is_refused_before_it_is_unpacked_whole() -> None:
    bomb = gzip.compress(bytes(40_000_000))
    with pytest.raises(UnreadableImageError, match="image larger than 2 megapixels"):
        decode_image(bomb, Reading(max_megapixels=2.0))


def test_a_flat_image_is_black() -> None:
    assert decode_image(written(fits.PrimaryHDU(np.full((8, 8), 5.0)))).max() == 0
