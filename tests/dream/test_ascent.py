"""Gradient ascent on goals whose answer is known, and on a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from galaxyspark.dream.ascent import ascend, to_pixels
from galaxyspark.dream.goals import DreamNetwork, layer_goal
from galaxyspark.settings import DreamSettings

PLAIN = DreamSettings(octaves=1, dream_steps=1, step_size=2, jitter_px=0, smoothing_px=0)


def red_not_blue(pixels: Tensor) -> Tensor:
    return (pixels[:, 0] - pixels[:, 2]).mean()


def test_a_step_changes_pixels_by_its_size_on_average() -> None:
    """The gradient is the same for all red values, its opposite for all blue ones, and 0 for green."""
    start = np.full((40, 50, 3), 100, np.uint8)
    dream = ascend(start, red_not_blue, PLAIN, seed=1)
    np.testing.assert_array_equal(dream.picture, np.broadcast_to([103, 100, 97], (40, 50, 3)))
    assert dream.picture.dtype == np.uint8
    assert (dream.before, dream.after) == pytest.approx((0, 6))


@pytest.mark.parametrize("smoothing_px", [0, 1.5])
def test_pixels_stay_in_their_range(smoothing_px: float) -> None:
    settings = dataclasses.replace(PLAIN, dream_steps=100, octaves=3, jitter_px=4, smoothing_px=smoothing_px)
    dream = ascend(np.full((64, 64, 3), 100, np.uint8), red_not_blue, settings, seed=1)
    np.testing.assert_array_equal(dream.picture, np.broadcast_to([255, 100, 0], (64, 64, 3)))


def test_the_picture_is_shifted_back_after_each_step(galaxy_picture: NDArray[np.uint8]) -> None:
    """A goal of each pixel by itself does not see the jitter, so nothing of it may be left."""

    def brighter(pixels: Tensor) -> Tensor:
        return pixels.square().mean()

    still = ascend(galaxy_picture, brighter, PLAIN, seed=1)
    shaken = ascend(galaxy_picture, brighter, dataclasses.replace(PLAIN, jitter_px=9), seed=1)
    np.testing.assert_array_equal(shaken.picture, still.picture)
    assert (still.picture != galaxy_picture).any()


def test_octaves_go_from_coarse_to_the_size_of_the_start() -> None:
    seen = []

    def record(pixels: Tensor) -> Tensor:
        seen.append(tuple(pixels.shape))
        return pixels.mean()

    settings = dataclasses.replace(PLAIN, octaves=3, octave_scale=1.5, dream_steps=2)
    ascend(np.zeros((90, 60, 3), np.uint8), record, settings, seed=1)
    sizes = [(40, 32), (60, 40), (90, 60)]  # 60 / 1.5**2 = 27 would be too small
    assert seen[:6] == [(1, 3, *size) for size in sizes for _ in range(2)]


def test_detail_of_the_start_is_kept(other_picture: NDArray[np.uint8]) -> None:
    """Coarse octaves must not blur it: where no pixel may change, the start comes back."""
    dream = ascend(other_picture, lambda pixels: 0 * pixels.sum(), dataclasses.replace(PLAIN, octaves=4), seed=1)
    np.testing.assert_array_equal(dream.picture, other_picture)


def test_smoothing_takes_single_pixels_out_of_the_gradient() -> None:
    """A goal that asks for a chequerboard gets it, unless the gradient is smoothed."""
    signs = to_pixels(np.indices((64, 64)).sum(axis=0)[..., None].repeat(3, axis=2).astype(np.uint8) % 2 * 2) - 1

    def chequered(pixels: Tensor) -> Tensor:
        return (pixels * signs).mean()

    start = np.full((64, 64, 3), 100, np.uint8)
    sharp = ascend(start, chequered, PLAIN, seed=1)
    middle = np.s_[8:-8, 8:-8]
    assert set(np.unique(sharp.picture)) == {98, 102}
    tilted = dataclasses.replace(PLAIN, smoothing_px=2)
    smooth = ascend(start, lambda pixels: chequered(pixels) + pixels.mean(), tilted, seed=1)
    assert set(np.unique(smooth.picture[middle])) == {102}


def test_the_seed_decides(make_network: Callable[..., DreamNetwork], galaxy_picture: NDArray[np.uint8]) -> None:
    goal = layer_goal(make_network(), "layer2.0")
    settings = DreamSettings(octaves=2, dream_steps=2)
    first, second, other = (ascend(galaxy_picture, goal, settings, seed).picture.tobytes() for seed in (1, 1, 2))
    assert first == second
    assert first != other
