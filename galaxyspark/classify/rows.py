"""Images to rows of the catalogue: what a Spark worker runs, without Spark and without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galaxyspark.classify.calibration import log_of, with_temperature
from galaxyspark.classify.fitted import FittedClassifier
from galaxyspark.classify.outliers import OutlierScore
from galaxyspark.features.inference import Inference, Runtime, infer
from galaxyspark.galaxyzoo.tree import VOTE_FIELDS
from galaxyspark.views.augment import ViewRecipe, make_views
from galaxyspark.views.reading import UnreadableImageError

NOT_FINITE = "the network gave numbers that are not finite"


@dataclass(frozen=True)
class Model:
    """What a worker needs beside the network to classify images.

    Attributes:
        classes: Names by position.
        recipe: How views are made.
        num_views: Of each image, from view 0 on.
        temperature: Of the network's mean probabilities.
        svm: The SVM.
        outlier_score: How strange an image is.
        with_votes: Whether the network has learned votes.
    """

    classes: tuple[str, ...]
    recipe: ViewRecipe
    num_views: int
    temperature: float
    svm: FittedClassifier
    outlier_score: OutlierScore
    with_votes: bool

    def columns(self) -> dict[str, str]:
        """Names and types of the columns of ``catalogue_rows``."""
        numbers = [f"probability_{name}" for name in self.classes]
        numbers += [f"svm_probability_{name}" for name in self.classes]
        numbers += ["entropy", "agreement", "outlier_score", *(VOTE_FIELDS.values() if self.with_votes else ())]
        texts = dict.fromkeys(("galaxy_id", "class_cnn", "class_svm"), "string")
        last = {"path": "string", "quarantine_reason": "string", "features": "array<float>"}
        last |= {"length": "long", "modified": "long"}
        return texts | dict.fromkeys(numbers, "float") | last


def catalogue_rows(images_pdf: pd.DataFrame, runtime: Runtime, model: Model) -> pd.DataFrame:
    """Classify some images.

    Args:
        images_pdf: Columns galaxy_id, path, content (bytes of the image file), length, modified.
        runtime: The network.
        model: What else it takes.

    Returns:
        One row an image: galaxy_id, path; class_cnn and class_svm; probability_<class> and svm_probability_<class> (0
        to 1, calibrated); entropy in bits; agreement, the share of the views that the network puts into class_cnn
        (missing with one view); outlier_score, see ``OutlierScore``; Class1_1 to Class11_6, the votes; features, the
        mean over the views; quarantine_reason, null where the image was classified and otherwise the only thing known.
    """
    views, reasons = [], []
    for galaxy_id, content in zip(images_pdf["galaxy_id"], images_pdf["content"], strict=True):
        of_image, reason = _views_or_reason(content, galaxy_id, model.recipe, model.num_views)
        views += of_image
        reasons.append(reason)
    rows_pdf = images_pdf.drop(columns="content").reset_index(drop=True)
    rows_pdf["quarantine_reason"] = pd.Series(reasons, dtype=object)
    readable = rows_pdf.index[rows_pdf["quarantine_reason"].isna()]
    if views:
        inference = infer(runtime, views)
        finite = np.isfinite(_by_image(inference.features, model)).all(axis=(1, 2))
        rows_pdf.loc[readable[~finite], "quarantine_reason"] = NOT_FINITE
        said_pdf = pd.DataFrame(_columns(_of_images(inference, finite, model), model), index=readable[finite])
        rows_pdf = rows_pdf.join(said_pdf)
    rows_pdf = rows_pdf.reindex(columns=list(model.columns()))
    for name, of_type in model.columns().items():
        if of_type not in ("float", "long"):  # Arrow takes NaN for a number
            rows_pdf[name] = rows_pdf[name].astype(object).mask(rows_pdf[name].isna(), None)
    return rows_pdf


def _columns(inference: Inference, model: Model) -> dict[str, Any]:
    """What is said of images whose views were looked at one after the other."""
    of_views, features = _by_image(inference.probabilities, model), _by_image(inference.features, model)
    cnn = with_temperature(log_of(of_views.mean(axis=1)), model.temperature)
    svm = model.svm.probabilities(features)
    classes, chosen = np.array(model.classes, dtype=object), cnn.argmax(axis=1)
    agreement = (of_views.argmax(axis=2) == chosen[:, None]).mean(axis=1)
    columns: dict[str, Any] = {"class_cnn": classes[chosen], "class_svm": classes[svm.argmax(axis=1)]}
    for position, name in enumerate(model.classes):
        columns |= {f"probability_{name}": cnn[:, position], f"svm_probability_{name}": svm[:, position]}
    columns["entropy"] = -(cnn * np.log2(np.maximum(cnn, 1e-12))).sum(axis=1)
    columns["agreement"] = agreement if model.num_views > 1 else np.nan
    columns["outlier_score"] = model.outlier_score(features[:, 0])
    if inference.votes is not None:
        columns |= dict(zip(VOTE_FIELDS.values(), _by_image(inference.votes, model).mean(axis=1).T, strict=True))
    columns["features"] = list(features.mean(axis=1))
    return columns


def _by_image(values: NDArray[Any], model: Model) -> NDArray[Any]:
    """Rows of views, one image after the other, as (images, views, length)."""
    return values.reshape(-1, model.num_views, values.shape[1])


def _of_images(inference: Inference, chosen: NDArray[np.bool_], model: Model) -> Inference:
    """The views of the images that are chosen."""
    rows = chosen.repeat(model.num_views)
    votes = None if inference.votes is None else inference.votes[rows]
    return Inference(inference.features[rows], inference.probabilities[rows], votes)


def _views_or_reason(
    content: bytes, galaxy_id: str, recipe: ViewRecipe, num_views: int
) -> tuple[list[bytes], str | None]:
    try:
        return make_views(content, galaxy_id, recipe, range(num_views)), None
    except UnreadableImageError as problem:
        return [], str(problem)
