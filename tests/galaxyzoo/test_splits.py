"""Which split a galaxy falls into."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2_contingency

from galaxyspark.galaxyzoo.splits import SPLITS, split_of

IDS = [str(galaxy_id) for galaxy_id in range(100_000, 120_000)]


@pytest.mark.parametrize("fractions", [(0.9, 0.05, 0.05), (0.7, 0.15, 0.15), (1 / 3, 1 / 3, 1 / 3), (0.02, 0.18, 0.8)])
def test_splits_have_their_shares(fractions: tuple[float, float, float]) -> None:
    split_of_id = [split_of(galaxy_id, fractions) for galaxy_id in IDS]
    assert set(split_of_id) == set(SPLITS)
    for split, fraction in zip(SPLITS, fractions, strict=True):
        assert binomtest(split_of_id.count(split), len(IDS), fraction).pvalue > 1e-3


@pytest.mark.parametrize(("fractions", "split"), [((1, 0, 0), "train"), ((0, 1, 0), "validation"), ((0, 0, 1), "test")])
def test_a_share_of_one_takes_all(fractions: tuple[float, float, float], split: str) -> None:
    assert {split_of(galaxy_id, fractions) for galaxy_id in IDS[:2000]} == {split}


@settings(deadline=None)
@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_training_share_never_moves_a_training_galaxy_out(galaxy_id: str, one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    if split_of(galaxy_id, (smaller, (1 - smaller) / 2, (1 - smaller) / 2)) == "train":
        assert split_of(galaxy_id, (larger, (1 - larger) / 2, (1 - larger) / 2)) == "train"


def test_another_seed_splits_independently_of_the_first() -> None:
    fractions = (0.5, 0.2, 0.3)
    counts = Counter((split_of(galaxy_id, fractions), split_of(galaxy_id, fractions, seed=1)) for galaxy_id in IDS)
    table = [[counts[one, other] for other in SPLITS] for one in SPLITS]
    assert chi2_contingency(table).pvalue > 1e-3
    assert [sum(row) / len(IDS) for row in zip(*table, strict=True)] == pytest.approx(fractions, abs=0.015)


def test_without_a_seed_the_hash_is_that_of_the_id_alone() -> None:
    """Runs from before there was a seed keep their splits."""
    position = int.from_bytes(hashlib.blake2b(b"100000", digest_size=8).digest(), "little") / 2**64
    for share, split in ((position - 0.01, "test"), (position + 0.01, "train")):
        assert split_of("100000", (share, 0.0, 1 - share)) == split_of("100000", (share, 0.0, 1 - share), 0) == split


def test_every_worker_finds_the_same_split() -> None:
    script = (
        "import json, sys; from galaxyspark.galaxyzoo.splits import split_of; "
        "print(json.dumps([split_of(galaxy_id, (0.4, 0.3, 0.3)) for galaxy_id in json.load(sys.stdin)]))"
    )
    names = [*IDS[:300], "J1213+14", "ngc 1300", "Ω"]
    other = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(names),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "5"},
    )
    assert json.loads(other.stdout) == [split_of(name, (0.4, 0.3, 0.3)) for name in names]
