"""Which split a galaxy belongs to: a hash of its id decides, so every view of it is in one split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SPLITS = ("train", "validation", "test")


def split_of(galaxy_id: str, fractions: Sequence[float], seed: int = 0) -> str:
    """The split of a galaxy; nothing but these decides, so that further galaxies move none.

    Args:
        galaxy_id: As text.
        fractions: Shares of train, validation and test; they add up to 1.
        seed: Another gives other splits of the same shares; at least 0, below 2^128.

    Returns:
        One of ``SPLITS``.
    """
    digest = hashlib.blake2b(galaxy_id.encode(), digest_size=8, salt=seed.to_bytes(16, "little")).digest()
    position = int.from_bytes(digest, "little") / 2**64
    if position < fractions[0]:
        return "train"
    return "validation" if position < fractions[0] + fractions[1] else "test"
