"""Simulated galaxies in the form of the Galaxy Zoo challenge: SDSS-like colour frames with volunteers' votes.

A frame is made in four steps, one module each: ``population`` draws what is in it, ``light`` draws that as
surface brightness, ``survey`` observes it, and ``volunteers`` lets a panel answer the questions of the
decision tree.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxyspark.galaxyzoo.simulation.light import draw_light
from galaxyspark.galaxyzoo.simulation.population import ARTIFACT_SHARE, KIND_SHARES, draw_scene
from galaxyspark.galaxyzoo.simulation.survey import IMAGE_SIZE_PX, encode_jpeg, observe
from galaxyspark.galaxyzoo.simulation.volunteers import draw_votes

__all__ = [
    "ARTIFACT_SHARE",
    "IMAGE_SIZE_PX",
    "KIND_SHARES",
    "SimulatedGalaxy",
    "encode_jpeg",
    "galaxy_ids",
    "simulate_galaxy",
]

FIRST_ID, LAST_ID = 100_000, 999_999
"""The challenge numbers its galaxies with six digits."""


@dataclass(frozen=True)
class SimulatedGalaxy:
    """A simulated frame and its truth.

    Attributes:
        image: RGB in 0..255, uint8, shape (424, 424, 3).
        votes: Vote shares in [0, 1], float64, shape (37,), in the order of ``tree.VOTE_COLUMNS``.
        kind: What was drawn, one of the keys of ``KIND_SHARES``.
    """

    image: NDArray[np.uint8]
    votes: NDArray[np.float64]
    kind: str


def simulate_galaxy(galaxy_id: str, seed: int) -> SimulatedGalaxy:
    """Simulate one galaxy; ``galaxy_id`` and ``seed`` (0 or more) alone decide the result, anywhere."""
    digest = hashlib.sha256(galaxy_id.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:16], "big")])
    scene = draw_scene(rng)
    image = observe(draw_light(scene, rng), scene, rng)
    return SimulatedGalaxy(image=image, votes=draw_votes(scene, rng), kind=scene.galaxy.kind)


def galaxy_ids(num_galaxies: int, seed: int) -> list[str]:
    """Draw distinct six-digit ids, ``"100000"`` to ``"999999"``, in random order.

    Raises:
        ValueError: If more ids are asked for than there are, or fewer than none.
    """
    available = LAST_ID - FIRST_ID + 1
    if not 0 <= num_galaxies <= available:
        raise ValueError(f"There are {available} six-digit galaxy ids; {num_galaxies} were asked for")
    drawn = np.random.default_rng(seed).choice(available, size=num_galaxies, replace=False)
    return [str(FIRST_ID + number) for number in drawn]
