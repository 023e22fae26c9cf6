"""The principal axes of colour in a set of images, along which views are perturbed.

Source: Krizhevsky, Sutskever and Hinton 2012, section 4.1 ("fancy PCA").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ColourSums:
    """Sums over pixels, which add up over images and workers.

    Attributes:
        num_pixels: Number of pixels.
        total: Sum of RGB values (0-255), shape (3,), float64.
        products: Sum of outer products of RGB values, shape (3, 3), float64.
    """

    num_pixels: int
    total: NDArray[np.float64]
    products: NDArray[np.float64]

    @classmethod
    def of_image(cls, image: NDArray[np.uint8]) -> ColourSums:
        """The sums over one image: pixels 0-255, shape (height, width, 3), colour order BGR."""
        rgb = image.reshape(-1, 3)[:, ::-1].astype(np.float64)
        return cls(len(rgb), rgb.sum(axis=0), rgb.T @ rgb)

    def __add__(self, other: ColourSums) -> ColourSums:
        return ColourSums(self.num_pixels + other.num_pixels, self.total + other.total, self.products + other.products)


def principal_axes(sums: ColourSums) -> tuple[tuple[float, float, float], ...]:
    """Three RGB vectors in pixel values (0-255), longest first, each as long as one standard deviation along it.

    Each points to where red, green and blue together grow: a solver's choice of sign must not decide.
    """
    mean = sums.total / sums.num_pixels
    covariance = sums.products / sums.num_pixels - np.outer(mean, mean)
    variances, directions = np.linalg.eigh(covariance)
    directions = directions * np.where(directions.sum(axis=0) < 0, -1, 1)
    axes = np.sqrt(np.maximum(variances, 0)) * directions
    return tuple(tuple(float(value) for value in axes[:, axis]) for axis in (2, 1, 0))  # type: ignore[misc]
