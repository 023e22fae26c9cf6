"""Bytes to pixels, on files that PIL wrote."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from galaxyspark.views.decode import decode_image, decode_views, encode_jpeg
from galaxyspark.views.reading import UnreadableImageError

KINDS = {"jpeg": {"format": "JPEG"}, "progressive": {"format": "JPEG", "progressive": True}, "png": {"format": "PNG"}}


CMYK = "CMYK image: its colours depend on the printer it was made for"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    return np.stack([128 + 100 * np.sin(x / 9), 120 + 90 * np.cos(y / 7), (x + y) % 256 * 0.5], 2).astype(np.uint8)


def written(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


def read_by_pil(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("shape", [(1, 1), (7, 31), (40, 3), (64, 64)])
def test_a_png_comes_back_exactly_in_bgr(shape: tuple[int, int]) -> None:
    rgb = noise(*shape)
    np.testing.assert_array_equal(decode_image(written(Image.fromarray(rgb), format="PNG")), rgb[:, :, ::-1])


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA"])
def test_every_kind_of_opaque_png_becomes_three_channels(mode: str) -> None:
    content = written(Image.fromarray(smooth(20, 30)).convert(mode), format="PNG")
    np.testing.assert_array_equal(decode_image(content), read_by_pil(content)[:, :, ::-1])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_has_the_pixels_that_pil_reads(mode: str, options: dict) -> None:
    content = written(Image.fromarray(smooth(51, 70)).convert(mode), format="JPEG", **options)
    difference = decode_image(content)[:, :, ::-1].astype(int) - read_by_pil(content)
    assert np.abs(difference).max() <= 3


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(list(KINDS)), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99), st.floats(0, 1))
def test_a_file_cut_off_anywhere_is_refused(kind: str, height: int, width: int, seed: int, share: float) -> None:
    content = written(Image.fromarray(noise(height, width, seed)), **KINDS[kind])
    cut_off = content[: min(int(share * len(content)), len(content) - 1)]
    with pytest.raises(UnreadableImageError, match=r"^(empty file|not a JPEG, PNG or FITS image|truncated image: .*)$"):
        decode_image(cut_off)


@pytest.mark.parametrize("kind", KINDS)
def test_no_length_of_a_cut_off_file_passes(kind: str) -> None:
    content = written(Image.fromarray(smooth(24, 24)), **KINDS[kind])
    for length in range(len(content)):
        with pytest.raises(UnreadableImageError):
            decode_image(content[:length])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_changed_byte_of_a_png_never_yields_other_pixels(data: st.DataObject) -> None:
    rgb = noise(9, 11)
    content = bytearray(written(Image.fromarray(rgb), format="PNG"))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        pixels = decode_image(bytes(content))
    except UnreadableImageError:
        return
    np.testing.assert_array_equal(pixels, rgb[:, :, ::-1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", [b"\0" * 100, b"\n", b"\r\n"])
def test_padding_after_the_end_does_no_harm(kind: str, padding: bytes) -> None:
    content = written(Image.fromarray(smooth(20, 20)), **KINDS[kind])
    np.testing.assert_array_equal(decode_image(content + padding), decode_image(content))


def transparent(mode: str) -> Image.Image:
    """A picture of which one pixel can be seen through."""
    image = Image.fromarray(smooth(8, 8)).convert("RGBA")
    image.putpixel((3, 3), (9, 9, 9, 254 if mode != "RGB" else 255))
    if mode == "P":
        image = image.convert("RGB").quantize(8)
        image.putpixel((2, 2), 3)
        return image
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["grey", "colour"])
def test_samples_of_16_bits_become_their_upper_8(mode: str) -> None:
    values = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    channels = values if mode == "grey" else np.stack([values, values[::-1], values.T], axis=2)
    content = cv2.imencode(".png", channels)[1].tobytes()
    expected = np.repeat(channels[:, :, None], 3, axis=2) if mode == "grey" else channels
    np.testing.assert_array_equal(decode_image(content), expected >> 8)


@pytest.mark.parametrize(("side_px", "expected"), [(129, 256), (128, 128), (65, 128), (40, 64), (1, 32), (None, 256)])
def test_a_jpeg_is_decoded_at_the_smallest_size_that_is_enough(side_px: float | None, expected: int) -> None:
    """Compared with PIL's reduction of the whole picture, which averages over the same pixels."""
    picture = Image.fromarray(smooth(256, 256))
    pixels = decode_image(written(picture, format="JPEG", quality=98), side_px=side_px)
    assert pixels.shape == (expected, expected, 3)
    averaged = np.asarray(picture.reduce(256 // expected), dtype=int)[..., ::-1]
    difference = np.abs(pixels.astype(int) - averaged)
    # Where the sawtooth of one channel jumps the two filters differ; elsewhere by a few grey levels.
    assert np.median(difference) <= 3
    assert decode_image(written(picture, format="PNG"), side_px=side_px).shape == (256, 256, 3)


def test_a_jpeg_whose_side_cannot_be_halved_exactly_is_decoded_whole() -> None:
    content = written(Image.fromarray(smooth(250, 253)), format="JPEG")
    assert decode_image(content, side_px=10).shape == (250, 253, 3)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG_START + b"\0\0\0\x0d" + header + struct.pack(">I", zlib.crc32(header)) + PNG_END


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"GalaxyID,label\n1,smooth\n", "not a JPEG, PNG or FITS image"),
        (b"\0" * 1000, "not a JPEG, PNG or FITS image"),
        (written(Image.fromarray(smooth(8, 8)), format="GIF"), "not a JPEG, PNG or FITS image"),
        (written(Image.fromarray(smooth(8, 8)), format="BMP"), "not a JPEG, PNG or FITS image"),
        (written(Image.fromarray(smooth(8, 8)), format="JPEG")[:40] + b"\xff\xd9", "image cannot be decoded"),
        (png_header(100_000, 100_000), "image larger than 64 megapixels"),
        (png_header(9_000, 9_000), "image larger than 64 megapixels"),
        (png_header(33_000, 2), "image larger than 32766 px on a side"),
        (png_header(0, 5), "image cannot be decoded"),
        (written(Image.fromarray(smooth(8, 8)).convert("CMYK"), format="JPEG"), CMYK),
        (written(transparent("RGBA"), format="PNG"), "image with transparent pixels"),
        (written(transparent("LA"), format="PNG"), "image with transparent pixels"),
        (written(transparent("P"), format="PNG", transparency=3), "image with transparent pixels"),
        (written(transparent("RGB"), format="PNG", transparency=(9, 9, 9)), "image with transparent pixels"),
    ],
    ids=["empty", "text", "zeros", "gif", "bmp", "only a header", "decompression bomb", "large", "long", "no pixels"]
    + ["cmyk", "alpha", "grey alpha", "transparent colour of a palette", "transparent colour"],
)
def test_the_reason_is_what_quarantine_will_say(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError) as error:
        decode_image(content)
    assert str(error.value) == reason


def test_a_jpeg_of_ours_is_read_by_pil_and_closer_the_higher_its_quality() -> None:
    rgb = smooth(64, 48)
    errors, sizes = [], []
    for quality in (20, 60, 95):
        content = encode_jpeg(rgb[:, :, ::-1].copy(), quality)
        image = Image.open(io.BytesIO(content))
        assert (image.format, image.size, image.mode) == ("JPEG", (48, 64), "RGB")
        errors.append(np.abs(np.asarray(image).astype(int) - rgb).mean())
        sizes.append(len(content))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 2
    assert sizes == sorted(sizes)


def test_views_are_decoded_to_rgb_in_their_order() -> None:
    jpegs = [encode_jpeg(np.full((32, 32, 3), (0, 5 * shade, 255), np.uint8), 95) for shade in range(40)]
    views = decode_views(jpegs)
    assert views.shape == (40, 32, 32, 3)
    assert views.dtype == np.uint8
    assert np.abs(views.astype(int) - np.stack([read_by_pil(jpeg) for jpeg in jpegs])).max() <= 3
    np.testing.assert_allclose(views[:, 16, 16], [(255, 5 * shade, 0) for shade in range(40)], atol=4)
