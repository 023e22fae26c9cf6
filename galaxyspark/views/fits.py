"""FITS images to 8-bit colours, as surveys hand them out: one plane, or a cube with a plane a band.

Source of the stretch: Lupton et al. 2004 (PASP 116, 133), as astropy has it.
"""

from __future__ import annotations

import gzip
import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from galaxyspark.views.reading import Reading, UnreadableImageError, check_size

if TYPE_CHECKING:
    from astropy.io import fits

_GZIP_START = b"\x1f\x8b"
FITS_STARTS = (b"SIMPLE  =", _GZIP_START)
"""First bytes of a FITS file, plain or compressed by gzip. (fpack's .fits.fz files start as plain ones do.)"""

_NOISES_OF_SCALE = 10
_WHITE_PERCENTILE = 99.5


def decode_fits(content: bytes, reading: Reading) -> NDArray[np.uint8]:
    """Decode the first image of a FITS file; the sky becomes black, the last row the uppermost.

    Args:
        content: The file's bytes: plain, or compressed by gzip or fpack.
        reading: Limits and stretch.

    Returns:
        Pixels 0-255, shape (height, width, 3), colour order BGR. One plane becomes grey. Pixels without a value (NaN)
        become black.

    Raises:
        UnreadableImageError: Not a FITS image of one plane or of planes that ``reading`` can make colours of, larger
            than it allows, cut off, or without any value.
    """
    # Only who has FITS files waits for astropy to be loaded.
    from astropy.io import fits

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(io.BytesIO(_unpacked(content, reading)), memmap=False, lazy_load_hdus=True) as hdus:
                images = (hdu for hdu in hdus if hdu.is_image and hdu.header.get("NAXIS", 0) > 0)
                planes = _planes(next(images, None), reading)
    except UnreadableImageError:
        raise
    except Exception:  # astropy raises whatever its parsers raise: OSError, TypeError, VerifyError, zlib.error, ...
        raise UnreadableImageError("FITS image cannot be decoded, or is cut off") from None
    rgb = _to_rgb(_above_sky(planes), reading)
    return np.ascontiguousarray(rgb[::-1, :, ::-1])


def _unpacked(content: bytes, reading: Reading) -> bytes:
    """What is in a gzip file, up to where it would be larger than any image allowed; other files as they are."""
    if not content.startswith(_GZIP_START):
        return content
    # Pixels of up to 8 bytes, and as much again for headers.
    max_bytes = int(16e6 * reading.max_megapixels)
    unpacked = gzip.GzipFile(fileobj=io.BytesIO(content)).read(max_bytes + 1)
    if len(unpacked) > max_bytes:
        raise UnreadableImageError(f"image larger than {reading.max_megapixels:g} megapixels")
    return unpacked


def _planes(hdu: fits.ImageHDU | None, reading: Reading) -> NDArray[np.float32]:
    """Red, green and blue flux, shape (3, height, width), of an image checked by its header before it is decoded."""
    if hdu is None:
        raise UnreadableImageError("FITS file without an image")
    if len(hdu.shape) not in (2, 3):
        raise UnreadableImageError(f"FITS image of {len(hdu.shape)} dimensions, not two or three with a plane a band")
    num_planes, height, width = (1, *hdu.shape)[-3:]
    check_size(width, height, reading.max_megapixels / 4)
    if num_planes * height * width > reading.max_megapixels * 1e6:
        raise UnreadableImageError(f"FITS cube larger than {reading.max_megapixels:g} megapixels in all of its planes")
    if num_planes == 1:
        chosen = (0, 0, 0)
    elif reading.fits_planes is None and num_planes == 3:
        chosen = (2, 1, 0)
    elif reading.fits_planes is not None and max(reading.fits_planes) < num_planes:
        chosen = reading.fits_planes
    else:
        raise UnreadableImageError(f"FITS cube of {num_planes} planes: --fits-planes must name its red, green and blue")
    return hdu.data.reshape(num_planes, height, width)[list(chosen)].astype(np.float32)


def _above_sky(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Flux above the median of each plane, 0 where there is no value."""
    values = np.where(np.isfinite(planes), planes, np.nan)
    if np.isnan(values).all(axis=(1, 2)).any():
        raise UnreadableImageError("FITS image without any value")
    return np.nan_to_num(values - np.nanmedian(values, axis=(1, 2), keepdims=True))


def _to_rgb(flux: NDArray[np.float32], reading: Reading) -> NDArray[np.uint8]:
    """Flux of red, green and blue above the sky, shape (3, height, width), to pixels (height, width, 3), RGB."""
    from astropy.visualization import LinearStretch, LuptonAsinhStretch, ManualInterval, make_lupton_rgb, make_rgb

    intensity = flux.mean(axis=0)
    # 1.4826 times the median deviation is the standard deviation of normal noise, whatever bright sources there are.
    noise = 1.4826 * float(np.median(np.abs(intensity - np.median(intensity))))
    brightest = float(intensity.max())
    if brightest <= 0:
        return np.zeros((*intensity.shape, 3), dtype=np.uint8)
    if reading.fits_stretch == "linear":
        white = reading.fits_scale or float(np.percentile(intensity, _WHITE_PERCENTILE)) or brightest
        return make_rgb(*flux, interval=ManualInterval(0, white), stretch=LinearStretch())
    scale = reading.fits_scale or _NOISES_OF_SCALE * noise or brightest / _NOISES_OF_SCALE
    with np.errstate(divide="ignore", invalid="ignore"):  # astropy divides by an intensity of 0 and then passes over it
        return make_lupton_rgb(*flux, stretch_object=LuptonAsinhStretch(scale, reading.fits_softening))
