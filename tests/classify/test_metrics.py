"""Metrics against textbook formulas and counts made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from galaxyspark.classify.metrics import evaluate

CLASSES = ("smooth", "featured", "artifact")
PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60)


def metrics_of(pairs: list[tuple[int, int]]) -> dict:
    truth, predicted = np.array(pairs, dtype=np.int64).T
    return evaluate(truth, predicted, CLASSES)


@pytest.mark.parametrize(("right", "total"), [(0, 1), (0, 10), (3, 10), (81, 263), (263, 263), (2700, 3000)])
def test_the_interval_is_wilsons(right: int, total: int) -> None:
    metrics = metrics_of([(0, 0)] * right + [(0, 1)] * (total - right))
    z, p = 1.959963984540054, right / total
    middle = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    assert metrics["accuracy"] == p
    assert metrics["accuracy_interval"] == pytest.approx([middle - half, middle + half], abs=1e-9)


def test_wilsons_interval_of_newcombes_published_example() -> None:
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662."""
    metrics = metrics_of([(0, 0)] * 81 + [(0, 1)] * 182)
    assert metrics["accuracy_interval"] == pytest.approx([0.2553, 0.3662], abs=5e-5)


def test_a_small_case_by_hand() -> None:
    """smooth: 2 of 3 found, 2 of 3 so called right. featured: 2 of 3, 2 of 4. artifact: 0 of 1, none called so."""
    metrics = metrics_of([(0, 0), (0, 0), (0, 1), (1, 1), (1, 1), (1, 0), (2, 1)])
    assert metrics["n"] == 7
    assert metrics["accuracy"] == pytest.approx(4 / 7)
    assert metrics["confusion"] == [[2, 1, 0], [1, 2, 0], [0, 1, 0]]
    assert metrics["recall"] == pytest.approx({"smooth": 2 / 3, "featured": 2 / 3, "artifact": 0})
    f1 = [2 / 3, 2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3), 0]
    assert metrics["macro_f1"] == pytest.approx(sum(f1) / 3)


def test_a_class_that_does_not_occur_has_no_recall_and_does_not_count() -> None:
    metrics = metrics_of([(0, 0), (0, 0), (1, 1), (1, 2)])
    assert metrics["recall"] == {"smooth": 1.0, "featured": 0.5, "artifact": None}
    assert metrics["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert metrics["confusion"] == [[2, 0, 0], [0, 1, 1], [0, 0, 0]]


@settings(deadline=None, max_examples=50)
@given(PAIRS)
def test_metrics_agree_with_counting_and_with_sklearn(pairs: list[tuple[int, int]]) -> None:
    metrics = metrics_of(pairs)
    assert metrics["confusion"] == [[pairs.count((row, column)) for column in range(3)] for row in range(3)]
    truth, predicted = zip(*pairs, strict=True)
    occurring = sorted(set(truth))
    _, recall, f1, _ = precision_recall_fscore_support(truth, predicted, labels=occurring, zero_division=0)
    assert metrics["macro_f1"] == pytest.approx(f1.mean())
    assert {name: value for name, value in metrics["recall"].items() if value is not None} == pytest.approx(
        {CLASSES[position]: value for position, value in zip(occurring, recall, strict=True)}
    )
    low, high = metrics["accuracy_interval"]
    assert 0 <= low <= metrics["accuracy"] <= high <= 1


@settings(deadline=None, max_examples=50)
@given(PAIRS, st.permutations(range(3)))
def test_the_order_of_the_classes_does_not_matter(pairs: list[tuple[int, int]], order: list[int]) -> None:
    metrics = metrics_of(pairs)
    renamed = metrics_of([(order[true], order[predicted]) for true, predicted in pairs])
    for name in ("n", "accuracy", "accuracy_interval", "macro_f1"):
        assert metrics[name] == pytest.approx(renamed[name])
    for position, name in enumerate(CLASSES):
        assert metrics["recall"][name] == renamed["recall"][CLASSES[order[position]]]
