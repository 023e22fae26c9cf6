"""Which split a galaxy belongs to: a hash of its id decides, so every view of it is in one split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SPLITS = ("train", "validation", "test")


def split_of(galaxy_id: str, fractions: Sequence[float]) -> str:
    """The split of a galaxy.

    Args:
        galaxy_id: As text; nothing else, not even the seed, decides.
        fractions: Shares of train, validation and test; they add up to 1.

    Returns:
        One of ``SPLITS``.
    """
    digest = hashlib.blake2b(galaxy_id.encode(), digest_size=8).digest()
    position = int.from_bytes(digest, "little") / 2**64
    if position < fractions[0]:
        return "train"
    return "validation" if position < fractions[0] + fractions[1] else "test"
