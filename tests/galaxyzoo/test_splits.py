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

from galaxyspark.galaxyzoo.splits import SPLITS, SplitRule, position_of

ANY = "any class"
IDS = [str(galaxy_id) for galaxy_id in range(100_000, 120_000)]


@pytest.mark.parametrize("fractions", [(0.9, 0.05, 0.05), (0.7, 0.15, 0.15), (1 / 3, 1 / 3, 1 / 3), (0.02, 0.18, 0.8)])
def test_splits_have_their_shares(fractions: tuple[float, float, float]) -> None:
    split_of_id = [SplitRule(fractions).split_of(galaxy_id, ANY) for galaxy_id in IDS]
    assert set(split_of_id) == set(SPLITS)
    for split, fraction in zip(SPLITS, fractions, strict=True):
        assert binomtest(split_of_id.count(split), len(IDS), fraction).pvalue > 1e-3


@pytest.mark.parametrize(("fractions", "split"), [((1, 0, 0), "train"), ((0, 1, 0), "validation"), ((0, 0, 1), "test")])
def test_a_share_of_one_takes_all(fractions: tuple[float, float, float], split: str) -> None:
    assert {SplitRule(fractions).split_of(galaxy_id, ANY) for galaxy_id in IDS[:2000]} == {split}


@settings(deadline=None)
@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_training_share_never_moves_a_training_galaxy_out(galaxy_id: str, one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    few, many = (SplitRule((share, (1 - share) / 2, (1 - share) / 2)) for share in (smaller, larger))
    if few.split_of(galaxy_id, ANY) == "train":
        assert many.split_of(galaxy_id, ANY) == "train"


def test_another_seed_splits_independently_of_the_first() -> None:
    fractions = (0.5, 0.2, 0.3)
    rules = SplitRule(fractions), SplitRule(fractions, seed=1)
    counts = Counter(tuple(rule.split_of(galaxy_id, ANY) for rule in rules) for galaxy_id in IDS)
    table = [[counts[one, other] for other in SPLITS] for one in SPLITS]
    assert chi2_contingency(table).pvalue > 1e-3
    assert [sum(row) / len(IDS) for row in zip(*table, strict=True)] == pytest.approx(fractions, abs=0.015)


def test_without_a_seed_the_hash_is_that_of_the_id_alone() -> None:
    """Runs from before there was a seed keep their splits."""
    position = int.from_bytes(hashlib.blake2b(b"100000", digest_size=8).digest(), "little") / 2**64
    for share, split in ((position - 0.01, "test"), (position + 0.01, "train")):
        assert SplitRule((share, 0.0, 1 - share)).split_of("100000", ANY) == split
        assert SplitRule((share, 0.0, 1 - share), seed=0).split_of("100000", ANY) == split


def test_every_worker_finds_the_same_place() -> None:
    script = (
        "import json, sys; from galaxyspark.galaxyzoo.splits import position_of; "
        "print(json.dumps([position_of(galaxy_id) for galaxy_id in json.load(sys.stdin)]))"
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
    assert json.loads(other.stdout) == [position_of(name) for name in names]


def test_a_class_with_ends_of_its_own_has_them_and_no_other_class_has() -> None:
    rule = SplitRule((0.5, 0.2, 0.3), ends={"artifact": (0.1, 0.4)})
    for galaxy_id in IDS[:2000]:
        place = position_of(galaxy_id)
        of_artifact = "train" if place < 0.1 else "validation" if place < 0.4 else "test"
        assert rule.split_of(galaxy_id, "artifact") == of_artifact
        assert rule.split_of(galaxy_id, "smooth") == SplitRule((0.5, 0.2, 0.3)).split_of(galaxy_id, "smooth")
