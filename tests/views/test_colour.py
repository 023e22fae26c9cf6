"""The axes of colour against numpy's own covariance of all pixels at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from galaxyspark.views.colour import ColourSums, principal_axes

ZERO = ColourSums(0, np.zeros(3), np.zeros((3, 3)))


def images(num_images: int = 4) -> list[NDArray[np.uint8]]:
    """BGR images of different sizes whose channels vary together."""
    random = np.random.default_rng(3)
    mixing = np.array([[30, 5, 0], [10, 20, 2], [25, 1, 6]])
    made = []
    for size in range(6, 6 + num_images):
        values = 120 + random.standard_normal((size, 2 * size, 3)) @ mixing.T
        made.append(values.clip(0, 255).astype(np.uint8))
    return made


def sums_of(some: list[NDArray[np.uint8]]) -> ColourSums:
    return sum((ColourSums.of_image(image) for image in some), start=ZERO)


def test_axes_are_those_of_the_covariance_of_all_pixels() -> None:
    rgb = np.concatenate([image.reshape(-1, 3)[:, [2, 1, 0]] for image in images()]).astype(float)
    variances, directions = np.linalg.eigh(np.cov(rgb.T, bias=True))
    axes = np.array(principal_axes(sums_of(images())))
    np.testing.assert_allclose(np.linalg.norm(axes, axis=1), np.sqrt(variances[::-1]), rtol=1e-9)
    alignment = np.abs((axes / np.linalg.norm(axes, axis=1, keepdims=True) * directions.T[::-1]).sum(axis=1))
    np.testing.assert_allclose(alignment, 1, rtol=1e-9)


def test_the_channels_are_told_apart() -> None:
    bgr = np.zeros((10, 10, 3), np.uint8)
    bgr[:, ::2, 2] = 100  # half of the pixels are red: a standard deviation of 50
    axes = np.array(principal_axes(ColourSums.of_image(bgr)))
    np.testing.assert_allclose(np.abs(axes), [[50, 0, 0], [0, 0, 0], [0, 0, 0]], atol=1e-6)


def test_images_of_one_colour_have_axes_without_length() -> None:
    axes = np.array(principal_axes(ColourSums.of_image(np.full((50, 50, 3), (17, 203, 99), np.uint8))))
    np.testing.assert_allclose(axes, 0, atol=1e-4)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_sums_add_up_however_images_are_spread_over_workers(worker_of_image: list[int]) -> None:
    all_images = images(6)
    of_worker = [
        sums_of([image for image, own in zip(all_images, worker_of_image, strict=True) if own == worker])
        for worker in range(3)
    ]
    together = sum(of_worker, start=ZERO)
    pixels = np.concatenate([image.reshape(-1, 3)[:, ::-1] for image in all_images]).astype(int)
    assert together.num_pixels == len(pixels)
    assert together.total == pytest.approx(pixels.sum(axis=0))
    np.testing.assert_array_equal(together.products, pixels.T @ pixels)
