"""Classifiers on disk, without pickle: skops' files, and a card that says what they are and what their bytes add up to.

skops' format names the types it holds before anything of them is made; what is not on our list is not loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile

import skops.io
from pydantic import TypeAdapter, ValidationError
from sklearn.pipeline import Pipeline

from galaxyspark.classify.calibration import Temperatures
from galaxyspark.classify.fitted import FittedClassifier
from galaxyspark.classify.outliers import OutlierScore
from galaxyspark.errors import UserError

_CARD, _OUTLIERS = "card.json", "outliers"
# What skops does not trust by itself: plain arrays of numbers, with no code of their own.
_TRUSTED = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
_AGAIN = "Run the stage classify again."


@dataclass(frozen=True, kw_only=True)
class ClassifiersCard:
    """What the files are and what they expect.

    Attributes:
        classes: Names by position, of the network and of every classifier.
        model: The id of the training whose network the features come from.
        num_features: Length of the features.
        network_temperature: Of the network's probabilities, of ``view0`` and of ``mean16``, the mean over 16 views.
        temperatures: Of each classifier, see ``Temperatures``; ``<name>.skops`` is its pipeline.
        outlier_median, outlier_spread: See ``OutlierScore``; ``outliers.skops`` is its pipeline.
        sha256: Of each file.
        versions: Of the packages they were made with.
    """

    classes: tuple[str, ...]
    model: str
    num_features: int
    network_temperature: dict[str, float]
    temperatures: dict[str, Temperatures]
    outlier_median: float
    outlier_spread: float
    sha256: dict[str, str]
    versions: dict[str, str]


@dataclass(frozen=True)
class SavedClassifiers:
    """The ``classifiers/`` of a run.

    Attributes:
        directory: Where they lie.
        card: What they are.
    """

    directory: Path
    card: ClassifiersCard

    def classifier(self, name: str) -> FittedClassifier:
        """One of them.

        Raises:
            UserError: It is not there, not what was saved, or holds types that none of ours has.
        """
        pipeline = self._pipeline(name)
        return FittedClassifier(pipeline, len(self.card.classes), self.card.temperatures[name])

    def outlier_score(self) -> OutlierScore:
        """The outlier score; errors as of ``classifier``."""
        return OutlierScore(self._pipeline(_OUTLIERS), self.card.outlier_median, self.card.outlier_spread)

    def _pipeline(self, name: str) -> Pipeline:
        file = self.directory / f"{name}.skops"
        if not file.is_file():
            raise UserError(f"{file}: no such file; run the stage classify first.")
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.card.sha256.get(file.name):
            raise UserError(f"{file}: is not the file that was saved: its SHA-256 is not the card's. {_AGAIN}")
        return load_pipeline(content, file)


def load_pipeline(content: bytes, file: Path) -> Pipeline:
    """A fitted pipeline from skops' format.

    Raises:
        UserError: It is damaged, or holds types that no pipeline of ours has.
    """
    try:
        foreign = set(skops.io.get_untrusted_types(data=content)) - set(_TRUSTED)
    except (BadZipFile, KeyError, ValueError) as error:
        raise UserError(f"{file}: not a classifier in skops' format ({error}). {_AGAIN}") from None
    if foreign:
        raise UserError(
            f"{file}: holds types that no classifier of ours has: {', '.join(sorted(foreign))}. Not loaded."
        )
    pipeline: Pipeline = skops.io.loads(content, trusted=list(_TRUSTED))
    return pipeline


def save_classifiers(
    directory: Path,
    classifiers: Mapping[str, FittedClassifier],
    outliers: OutlierScore,
    *,
    classes: tuple[str, ...],
    model: str,
    num_features: int,
    network_temperature: dict[str, float],
    versions: dict[str, str],
) -> None:
    """Write pipelines and card into a new directory; arguments are as ``ClassifiersCard`` has them."""
    directory.mkdir(parents=True)
    pipelines = {name: fitted.pipeline for name, fitted in classifiers.items()} | {_OUTLIERS: outliers.pipeline}
    sha256 = {}
    for name, pipeline in pipelines.items():
        content = skops.io.dumps(pipeline)
        (directory / f"{name}.skops").write_bytes(content)
        sha256[f"{name}.skops"] = hashlib.sha256(content).hexdigest()
    card = ClassifiersCard(
        classes=classes,
        model=model,
        num_features=num_features,
        network_temperature=network_temperature,
        temperatures={name: fitted.temperatures for name, fitted in classifiers.items()},
        outlier_median=outliers.median,
        outlier_spread=outliers.spread,
        sha256=sha256,
        versions=versions,
    )
    (directory / _CARD).write_text(json.dumps(asdict(card), indent=2))


def open_classifiers(directory: Path) -> SavedClassifiers:
    """The classifiers of a run; the files are read when they are asked for.

    Raises:
        UserError: The card is missing or not one of this version.
    """
    file = directory / _CARD
    try:
        return SavedClassifiers(directory, TypeAdapter(ClassifiersCard).validate_json(file.read_bytes()))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}). {_AGAIN}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{file}: not the card of classifiers: {first['loc']} {first['msg']}. {_AGAIN}") from None
