"""Splits in which each class has its own shares, as far as whole galaxies allow."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from galaxyspark.galaxyzoo.splits import SplitRule, position_of


def stratified(rule: SplitRule, labelled_df: DataFrame) -> SplitRule:
    """The rule with ``ends`` for each class: the places of its own galaxies below which its shares lie.

    Classes of more than some thousand galaxies have their shares to 1 in 10,000 galaxies, smaller ones exactly:
    each share of training, and of training and validation together, is rounded up to a whole galaxy.

    Args:
        rule: Fractions and seed.
        labelled_df: Columns ``galaxy_id`` and ``label`` of all galaxies that are to be shared out.
    """
    seed = rule.seed

    @F.pandas_udf("double")  # type: ignore[attr-defined,untyped-decorator]
    def position(galaxy_ids: pd.Series) -> pd.Series:
        return galaxy_ids.map(lambda galaxy_id: position_of(galaxy_id, seed))

    shares = [rule.fractions[0], rule.fractions[0] + rule.fractions[1]]
    ends_df = labelled_df.groupBy("label").agg(F.percentile_approx(position("galaxy_id"), shares).alias("ends"))
    # The galaxy at the end of a share belongs to it.
    ends = {label: (math.nextafter(train, 1), math.nextafter(both, 1)) for label, (train, both) in ends_df.collect()}
    return replace(rule, ends=ends)
