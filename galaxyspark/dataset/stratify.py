"""Splits in which a class has its own shares, as far as whole galaxies allow."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from galaxyspark.galaxyzoo.splits import SplitRule, position_of

MAX_GALAXIES = 10_000
"""Of a class of more, chance gives each split its share to half a percent of the class (one standard deviation)."""


def stratified(rule: SplitRule, labelled_df: DataFrame) -> SplitRule:
    """The rule with ``ends`` for every class of at most ``MAX_GALAXIES``, by the places of its own galaxies.

    Args:
        rule: Fractions and seed.
        labelled_df: Columns ``galaxy_id`` and ``label`` of the galaxies to share out, each once; those whose image
            turns out to be unreadable count too.
    """
    counts_df = labelled_df.groupBy("label").count()
    labels = [row["label"] for row in counts_df.where(F.col("count") <= MAX_GALAXIES).collect()]
    places: dict[str, list[float]] = defaultdict(list)
    for row in labelled_df.where(F.col("label").isin(labels)).select("label", "galaxy_id").collect():
        places[row["label"]].append(position_of(row["galaxy_id"], rule.seed))
    return replace(rule, ends={label: ends_of(places[label], rule.fractions) for label in sorted(places)})


def ends_of(places: Iterable[float], fractions: tuple[float, float, float]) -> tuple[float, float]:
    """The places at which the training and the validation galaxies of a class end.

    Training, and training and validation together, are rounded up to a whole galaxy; but of three galaxies or more,
    each split has at least one.
    """
    in_order = sorted(places)
    count = len(in_order)
    # 0.9 + 0.05 is a little more than 0.95, which is not to be rounded up.
    train, both = (math.ceil(round(share * count, 6)) for share in (fractions[0], fractions[0] + fractions[1]))
    if count >= 3:
        both = min(max(both, 2), count - 1)
        train = min(train, both - 1)
    beyond = [*in_order, 1.0]
    return beyond[train], beyond[both]
