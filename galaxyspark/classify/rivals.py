"""What else scikit-learn has for features, to compare the SVM with."""

from __future__ import annotations

from typing import Any

from sklearn.base import ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from galaxyspark.classify.fitted import Features, FittedClassifier, Truth
from galaxyspark.classify.metrics import macro_f1
from galaxyspark.classify.svm import CORES
from galaxyspark.settings import RivalName

_COMPONENTS = 64


def fit_rival(
    name: RivalName,
    train: tuple[Features, Truth],
    validation: tuple[Features, Truth],
    num_classes: int,
    class_weight: str | None,
    seed: int,
) -> tuple[FittedClassifier, dict[str, Any]]:
    """Fit a rival's candidates and keep the one with the best macro-F1 on the validation split.

    Args:
        name: Which rival.
        train: Features (views, 1024 in GoogLeNet) and positions of the classes (views,).
        validation: Likewise.
        num_classes: All there are.
        class_weight: balanced or None; nearest neighbours know none.
        seed: Of what is random in it.

    Returns:
        The classifier, not calibrated yet, and how it was chosen: ``chosen`` and ``validation_macro_f1`` of each.
    """
    fitted = {choice: p.fit(*train) for choice, p in _candidates(name, train[0].shape, class_weight, seed).items()}
    scores = {choice: macro_f1(validation[1], p.predict(validation[0])) for choice, p in fitted.items()}
    best = max(scores, key=lambda choice: scores[choice])
    return FittedClassifier(fitted[best], num_classes), {"chosen": best, "validation_macro_f1": scores}


def _candidates(name: RivalName, shape: tuple[int, ...], class_weight: str | None, seed: int) -> dict[str, Pipeline]:
    """Unfitted pipelines, by what they differ in."""
    machines: dict[str, ClassifierMixin]
    if name == "logistic_regression":
        machines = {
            f"C {c:g}": LogisticRegression(C=c, class_weight=class_weight, max_iter=500) for c in (0.001, 0.01, 0.1)
        }
    elif name == "nearest_neighbours":
        machines = {
            f"{k} neighbours": KNeighborsClassifier(k, weights="distance", algorithm="brute")
            for k in dict.fromkeys(min(k, shape[0]) for k in (5, 15, 45))
        }
    elif name == "random_forest":
        forest = RandomForestClassifier(300, min_samples_leaf=2, class_weight=class_weight, random_state=seed)
        machines = {"300 trees": forest.set_params(n_jobs=CORES)}
    else:
        # On all features it would take longer than all the others together.
        components = PCA(min(_COMPONENTS, *shape), svd_solver="randomized", random_state=seed)
        boosted = HistGradientBoostingClassifier(class_weight=class_weight, early_stopping=False, random_state=seed)
        machines = {f"100 rounds on {components.n_components} components": make_pipeline(components, boosted)}
    return {choice: make_pipeline(StandardScaler(), machine) for choice, machine in machines.items()}
