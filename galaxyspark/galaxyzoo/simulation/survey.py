"""How the survey records light and publishes it: seeing, photon noise, SDSS's colour stretch and JPEGs."""

from __future__ import annotations

from functools import lru_cache

import cv2
import galsim
import numpy as np
from numpy.typing import NDArray

from galaxyspark.galaxyzoo.simulation.light import SKY_NANOMAGGIES_PER_PX, Map
from galaxyspark.galaxyzoo.simulation.population import PIXEL_SCALE_ARCSEC, FrameEdge, Scene

IMAGE_SIZE_PX = 424
"""Side of a challenge frame."""

ELECTRONS_PER_NANOMAGGY = np.array([800.0, 940.0, 750.0], dtype=np.float32)
"""In g, r, i for SDSS's 54 s (Gunn et al. 1998: about 2000 counts at 20th magnitude, gain 4 to 5)."""

FULL_WELL_ELECTRONS = 300_000.0
"""Where the CCDs saturate (Gunn et al. 1998)."""

DISPLAY_WEIGHTS = np.array([5.3, 3.5, 3.15], dtype=np.float32)
"""Weights of g, r, i in blue, green and red, that give noise of about equal height in the three."""

STRETCH_KNEE = 0.35
"""Weighted nanomaggies per pixel where the asinh stretch turns from linear to logarithmic."""

STRETCH_SLOPE = 128.0
"""Grey levels per weighted nanomaggy on the linear, faint side."""

SKY_GREY_LEVELS = np.array([1.8, 2.2, 0.6], dtype=np.float32)
"""Mean levels the sky is put at in red, green and blue, before the noise is cut off at black."""

SKY_GREY_SCATTER = 1.2
"""Standard deviation of those levels from frame to frame, as the sky is not subtracted perfectly."""

BAND_OFFSET_PX = 0.18
"""Standard deviation of the bands' misalignment, which gives SDSS images their coloured rims."""

SURVEY_JPEG_QUALITY = 80
"""SDSS serves its colour mosaics as JPEG; the challenge's frames were resampled from those."""


def observe(light: Map, scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Photograph a scene as SDSS would and enlarge it to a challenge frame.

    Args:
        light: Nanomaggies per pixel in g, r, i, shape (size_px, size_px, 3), as ``draw_light`` returns it.
        scene: The scene it was drawn from, for the seeing and missing data.
        rng: Source of photon noise.

    Returns:
        RGB in 0..255, shape (424, 424, 3).
    """
    blurred = cv2.filter2D(light, -1, _seeing_kernel(round(scene.seeing_arcsec, 2)), borderType=cv2.BORDER_REFLECT)
    exposure = _register(_expose(np.asarray(blurred, np.float32), rng), rng)
    sky_grey_levels = SKY_GREY_LEVELS + SKY_GREY_SCATTER * np.float32(rng.normal())
    image = _colour_image(exposure, sky_grey_levels)
    if isinstance(scene.artifact, FrameEdge):
        image[_missing(scene.artifact, scene.size_px)] = 0
    mosaic = decode_jpeg(encode_jpeg(image, SURVEY_JPEG_QUALITY))
    return np.asarray(cv2.resize(mosaic, (IMAGE_SIZE_PX, IMAGE_SIZE_PX), interpolation=cv2.INTER_CUBIC), np.uint8)


def encode_jpeg(image_rgb: NDArray[np.uint8], quality: int = 95) -> bytes:
    """Encode an RGB image, shape (height, width, 3), as JPEG. The challenge's own files have quality 75."""
    _, encoded = cv2.imencode(".jpg", image_rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()


def decode_jpeg(jpeg: bytes) -> NDArray[np.uint8]:
    """Decode a colour JPEG to RGB, shape (height, width, 3)."""
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], np.uint8)


@lru_cache(maxsize=256)
def _seeing_kernel(fwhm_arcsec: float) -> Map:
    """The point spread function on 31 x 31 survey pixels, unit sum."""
    kernel = galsim.Moffat(beta=3.0, fwhm=fwhm_arcsec).drawImage(
        nx=31, ny=31, scale=PIXEL_SCALE_ARCSEC, method="no_pixel", dtype=np.float32
    )
    return np.asarray(kernel.array / kernel.array.sum(), dtype=np.float32)


def _register(exposure: Map, rng: np.random.Generator) -> Map:
    """Resample the bands, whose pixels lie differently on the sky, onto one grid, not quite precisely."""
    size = exposure.shape[:2]
    registered = np.empty_like(exposure)
    phase = rng.uniform(-0.5, 0.5, size=2)
    for band in range(3):
        shift_x, shift_y = phase + rng.normal(0.0, BAND_OFFSET_PX, size=2)
        motion = np.array([[1.0, 0.0, shift_x], [0.0, 1.0, shift_y]], dtype=np.float32)
        registered[..., band] = cv2.warpAffine(exposure[..., band], motion, size, borderMode=cv2.BORDER_REFLECT)
    return registered


def _expose(light: Map, rng: np.random.Generator) -> Map:
    """Add the sky's and the source's photon noise, saturate, and take the mean sky off again."""
    electrons = (light + SKY_NANOMAGGIES_PER_PX) * ELECTRONS_PER_NANOMAGGY
    electrons += np.sqrt(electrons) * rng.standard_normal(electrons.shape, dtype=np.float32)
    recorded = np.minimum(electrons, FULL_WELL_ELECTRONS) / ELECTRONS_PER_NANOMAGGY
    return np.asarray(recorded - SKY_NANOMAGGIES_PER_PX, dtype=np.float32)


def _colour_image(exposure: Map, sky_grey_levels: Map) -> NDArray[np.uint8]:
    """The colour-preserving asinh stretch of Lupton et al. 2004, with i, r, g as red, green, blue."""
    rgb = (exposure * DISPLAY_WEIGHTS)[..., ::-1] + sky_grey_levels / STRETCH_SLOPE
    intensity = np.maximum(rgb.mean(axis=2, keepdims=True), 1e-3)
    rgb = rgb * (STRETCH_SLOPE * STRETCH_KNEE * np.arcsinh(intensity / STRETCH_KNEE) / intensity)
    return np.asarray(np.clip(rgb, 0.0, 255.0), dtype=np.uint8)


def _missing(edge: FrameEdge, size_px: int) -> NDArray[np.bool_]:
    y, x = (np.indices((size_px, size_px)) + 0.5) / size_px - 0.5
    angle = np.radians(edge.angle_deg)
    return np.asarray(x * np.cos(angle) + y * np.sin(angle) > edge.distance)
