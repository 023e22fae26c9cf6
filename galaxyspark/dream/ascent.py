"""Gradient ascent on a picture: it is changed step by step until a network responds strongly to it.

After Mordvintsev, Olah and Tyka 2015 ("Inceptionism"): octaves from coarse to fine, jitter, and steps of one size,
whatever the gradient's, along the smoothed gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur, resize

from galaxyspark.settings import DreamSettings

Picture = NDArray[np.uint8]
"""Pixels 0-255, shape (height, width, 3), colour order RGB."""

Goal = Callable[[Tensor], Tensor]
"""From pixels (float32 0-255, shape (1, 3, height, width), RGB) to the number to make large, a scalar."""

_LEAST_SIDE_PX = 32
_LEAST_GRADIENT = 1e-12


@dataclass(frozen=True)
class Dream:
    """A picture that was changed, and what for.

    Attributes:
        picture: Of the start's shape.
        before: What the goal was of the start,
        after: and what it is of the picture.
    """

    picture: Picture
    before: float
    after: float


def ascend(start: Picture, goal: Goal, settings: DreamSettings, seed: int) -> Dream:
    """Change a picture until a goal is large.

    What was added in one octave is scaled up and goes into the next, where the start itself has its finer details back.

    Args:
        start: The picture to begin with.
        goal: What to make large.
        settings: How the picture is changed.
        seed: Of the jitter.
    """
    random = torch.Generator().manual_seed(seed)
    original = to_pixels(start)
    detail = torch.zeros_like(original)
    pixels = original
    for size in _sizes_of_octaves(start, settings):
        base = resize(original, size, antialias=True)
        pixels = base + resize(detail, size, antialias=True)
        for _ in range(settings.dream_steps):
            pixels = _step(pixels, goal, settings, random)
        detail = pixels - base
    picture = _to_picture(pixels)
    return Dream(picture, before=_value(goal, start), after=_value(goal, picture))


def to_pixels(picture: Picture) -> Tensor:
    """The picture as a goal takes it: float32 0-255, shape (1, 3, height, width)."""
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float()


def _to_picture(pixels: Tensor) -> Picture:
    return pixels[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()


@torch.no_grad()
def _value(goal: Goal, picture: Picture) -> float:
    return goal(to_pixels(picture)).item()


def _sizes_of_octaves(start: Picture, settings: DreamSettings) -> Iterator[list[int]]:
    """Height and width in pixels, from the coarsest octave to the start's own."""
    for octave in reversed(range(settings.octaves)):
        yield [max(_LEAST_SIDE_PX, round(side / settings.octave_scale**octave)) for side in start.shape[:2]]


def _step(pixels: Tensor, goal: Goal, settings: DreamSettings, random: torch.Generator) -> Tensor:
    """One step uphill, on a picture that is shifted before it and back after it."""
    jitter_px = settings.jitter_px
    shift = torch.randint(-jitter_px, jitter_px + 1, (2,), generator=random).tolist()
    shifted = pixels.roll(shift, dims=(2, 3)).requires_grad_()
    (gradient,) = torch.autograd.grad(goal(shifted), shifted)
    if settings.smoothing_px:
        gradient = gaussian_blur(gradient, 2 * round(3 * settings.smoothing_px) + 1, settings.smoothing_px)
    change = settings.step_size * gradient / gradient.abs().mean().clamp(min=_LEAST_GRADIENT)
    return (shifted.detach() + change).clamp(0, 255).roll([-along for along in shift], dims=(2, 3))
