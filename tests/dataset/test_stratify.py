"""Splits in which each class has its shares."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from galaxyspark.dataset.stratify import stratified
from galaxyspark.galaxyzoo.splits import SPLITS, SplitRule, position_of

COUNTS = {"one": 1, "few": 3, "artifact": 28, "edge-on": 150, "featured": 2_000, "smooth": 30_000}


def labelled_df(spark: SparkSession) -> DataFrame:
    """Ids that say nothing of the class beside it, which has as many galaxies as ``COUNTS`` says."""
    labels = np.repeat(list(COUNTS), list(COUNTS.values()))
    return spark.createDataFrame(pd.DataFrame({"galaxy_id": np.arange(len(labels)).astype(str), "label": labels}))


def test_each_class_has_its_shares(spark: SparkSession) -> None:
    galaxies_df = labelled_df(spark)
    rule = stratified(SplitRule((0.7, 0.15, 0.15), seed=2), galaxies_df)
    assert (rule.fractions, rule.seed, set(rule.ends)) == ((0.7, 0.15, 0.15), 2, set(COUNTS))
    galaxies = [tuple(row) for row in galaxies_df.collect()]
    counts = Counter((label, rule.split_of(galaxy_id, label)) for galaxy_id, label in galaxies)
    for label, count in COUNTS.items():
        # Whole galaxies, rounded up as the rule says; in large classes one in 10,000 may be off.
        train, both = math.ceil(Fraction(7, 10) * count), math.ceil(Fraction(85, 100) * count)
        expected = dict(zip(SPLITS, (train, both - train, count - both), strict=True))
        for split in SPLITS:
            assert abs(counts[label, split] - expected[split]) <= count // 5_000, (label, split)

    # Within a class the splits follow one another in the order of places, as without strata.
    places = defaultdict(lambda: defaultdict(list))
    for galaxy_id, label in galaxies:
        places[label][rule.split_of(galaxy_id, label)].append(position_of(galaxy_id, 2))
    for of_class in places.values():
        order = [place for split in SPLITS for place in sorted(of_class[split])]
        assert order == sorted(order)


def test_partitions_make_no_difference(spark: SparkSession) -> None:
    galaxies_df = labelled_df(spark)
    rule = SplitRule((0.9, 0.05, 0.05))
    assert stratified(rule, galaxies_df.coalesce(1)) == stratified(rule, galaxies_df.repartition(5))
