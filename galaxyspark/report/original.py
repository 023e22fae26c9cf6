"""What is known of the pipeline that galaxyspark redoes: J. Caineta's, one machine, Caffe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class OriginalPipeline:
    """Its results and times.

    Attributes:
        classes: Names of its classes.
        confusion: Counts of its test galaxies, a row for each true class, a column for each predicted one.
        durations: What it took, by the stage that does the same here.
    """

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    durations: Mapping[str, str]

    @property
    def num_galaxies(self) -> int:
        """Galaxies it was tested on."""
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        """Share of them it classified right, 0 to 1."""
        return sum(row[position] for position, row in enumerate(self.confusion)) / self.num_galaxies

    @property
    def commonest_share(self) -> float:
        """Share of the commonest true class, 0 to 1: the accuracy of always naming that class."""
        return max(map(sum, self.confusion)) / self.num_galaxies


ORIGINAL = OriginalPipeline(
    classes=("smooth", "featured", "artifact"),
    confusion=((826, 490, 0), (433, 1233, 0), (53, 38, 0)),
    durations={
        "train": "10.5 h",
        "extract": "about 1 h, with classify",
        "classify": "about 1 h, with extract",
        "predict": "12 s an image",
    },
)
