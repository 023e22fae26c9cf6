"""Which split a galaxy belongs to: a hash of its id decides, with strata its class too; all its views are in one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

SPLITS = ("train", "validation", "test")


def position_of(galaxy_id: str, seed: int = 0) -> float:
    """Where a galaxy lies from 0 to below 1: uniform, and independent of any other galaxy's place.

    Args:
        galaxy_id: As text.
        seed: Another gives other places; at least 0, below 2^128.
    """
    digest = hashlib.blake2b(galaxy_id.encode(), digest_size=8, salt=seed.to_bytes(16, "little")).digest()
    return int.from_bytes(digest, "little") / 2**64


@dataclass(frozen=True)
class SplitRule:
    """How galaxies are shared out.

    Attributes:
        fractions: Shares of train, validation and test; they add up to 1.
        seed: Of the galaxies' places; see ``position_of``.
        ends: Class -> places at which its training and its validation galaxies end. A class that is not among them has
            the ends of ``fractions``: there nothing but a galaxy's id decides, and further galaxies move none.
    """

    fractions: tuple[float, float, float]
    seed: int = 0
    ends: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def split_of(self, galaxy_id: str, label: str) -> str:
        """The split of a galaxy of a class, one of ``SPLITS``."""
        position = position_of(galaxy_id, self.seed)
        train_end, validation_end = self.ends_of(label)
        if position < train_end:
            return "train"
        return "validation" if position < validation_end else "test"

    def ends_of(self, label: str) -> tuple[float, float]:
        """The places, 0 to 1, at which training and validation end for a class."""
        return self.ends.get(label, (self.fractions[0], self.fractions[0] + self.fractions[1]))
