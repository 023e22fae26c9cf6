"""Splits in which each class has its shares."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from galaxyspark.dataset.stratify import MAX_GALAXIES, ends_of, stratified
from galaxyspark.galaxyzoo.splits import SPLITS, SplitRule, position_of


def counts_of(num_galaxies: int, fractions: tuple[float, float, float]) -> tuple[int, ...]:
    """Galaxies of train, validation and test where they lie at even distances."""
    places = [(number + 0.5) / num_galaxies for number in range(num_galaxies)]
    train_end, validation_end = ends_of(reversed(places), fractions)
    train, both = (sum(place < end for place in places) for end in (train_end, validation_end))
    return train, both - train, num_galaxies - both


@pytest.mark.parametrize(
    ("num_galaxies", "fractions", "expected"),
    [
        (28, (0.7, 0.15, 0.15), (20, 4, 4)),  # 19.6, 4.2, 4.2
        (682, (0.7, 0.15, 0.15), (478, 102, 102)),
        (60, (0.9, 0.05, 0.05), (54, 3, 3)),  # 0.9 + 0.05 is 0.9500000000000001
        (220, (0.9, 0.05, 0.05), (198, 11, 11)),
        (20, (0.55, 0.3, 0.15), (11, 6, 3)),
        (10, (0.9, 0.05, 0.05), (8, 1, 1)),
        (3, (0.9, 0.05, 0.05), (1, 1, 1)),
        (3, (0.01, 0.01, 0.98), (1, 1, 1)),
        (2, (0.9, 0.05, 0.05), (2, 0, 0)),
        (1, (0.01, 0.01, 0.98), (1, 0, 0)),
    ],
)
def test_shares_in_whole_galaxies(
    num_galaxies: int, fractions: tuple[float, float, float], expected: tuple[int, int, int]
) -> None:
    assert counts_of(num_galaxies, fractions) == expected


@given(st.integers(3, 500), st.integers(1, 98), st.data())
def test_no_split_is_empty_and_none_is_off_by_more_than_two(count: int, train: int, data: st.DataObject) -> None:
    validation = data.draw(st.integers(1, 99 - train))
    fractions = (train / 100, validation / 100, (100 - train - validation) / 100)
    counts = counts_of(count, fractions)
    assert min(counts) >= 1
    assert all(abs(of_split - count * share) < 2 for of_split, share in zip(counts, fractions, strict=True))


def test_each_class_has_its_shares_but_a_large_one(spark: SparkSession) -> None:
    sizes = {"one": 1, "artifact": 28, "featured": 2_000, "smooth": MAX_GALAXIES + 1}
    labels = np.repeat(list(sizes), list(sizes.values()))
    ids = np.random.default_rng(1).permutation(len(labels)).astype(str)
    galaxies_df = spark.createDataFrame(pd.DataFrame({"galaxy_id": ids, "label": labels}))
    fractions = (0.7, 0.15, 0.15)
    rule = stratified(SplitRule(fractions, seed=2), galaxies_df)
    assert (rule.fractions, rule.seed, set(rule.ends)) == (fractions, 2, {"one", "artifact", "featured"})
    assert rule == stratified(SplitRule(fractions, seed=2), galaxies_df.repartition(5))

    split_of = {galaxy_id: rule.split_of(galaxy_id, label) for galaxy_id, label in zip(ids, labels, strict=True)}
    counts = Counter((label, split_of[galaxy_id]) for galaxy_id, label in zip(ids, labels, strict=True))
    found = {label: tuple(counts[label, split] for split in SPLITS) for label in sizes}
    assert (found["one"], found["artifact"], found["featured"]) == ((1, 0, 0), (20, 4, 4), (1_400, 300, 300))
    assert found["smooth"][2] == pytest.approx(0.15 * sizes["smooth"], abs=150)
    # In a class the splits follow one another in the order of places, as they do without strata.
    in_order = [split_of[galaxy_id] for galaxy_id in sorted(ids[labels == "featured"], key=lambda i: position_of(i, 2))]
    assert in_order == [split for split in SPLITS for _ in range(found["featured"][SPLITS.index(split)])]
