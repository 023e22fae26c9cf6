"""Metrics against textbook formulas and counts made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss, precision_recall_fscore_support

from galaxyspark.classify.metrics import evaluate, paired, votes_rmse

CLASSES = ("smooth", "featured", "artifact")
PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60)


def metrics_of(pairs: list[tuple[int, int]]) -> dict:
    truth, predicted = np.array(pairs, dtype=np.int64).T
    return evaluate(truth, np.eye(3)[predicted], CLASSES)


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
    assert list(metrics["f1"].values()) == pytest.approx(f1)


def test_a_class_that_does_not_occur_has_no_recall_and_does_not_count() -> None:
    metrics = metrics_of([(0, 0), (0, 0), (1, 1), (1, 2)])
    assert metrics["recall"] == {"smooth": 1.0, "featured": 0.5, "artifact": None}
    assert metrics["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert metrics["confusion"] == [[2, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert metrics["f1"] == pytest.approx({"smooth": 1.0, "featured": 2 / 3, "artifact": 0.0})
    assert metrics_of([(0, 0)])["f1"] == {"smooth": 1.0, "featured": None, "artifact": None}


@settings(deadline=None, max_examples=50)
@given(PAIRS)
def test_metrics_agree_with_counting_and_with_sklearn(pairs: list[tuple[int, int]]) -> None:
    metrics = metrics_of(pairs)
    assert metrics["confusion"] == [[pairs.count((row, column)) for column in range(3)] for row in range(3)]
    truth, predicted = zip(*pairs, strict=True)
    occurring = sorted(set(truth))
    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, labels=occurring, zero_division=0)
    assert metrics["macro_f1"] == pytest.approx(f1.mean())
    assert {name: value for name, value in metrics["recall"].items() if value is not None} == pytest.approx(
        {CLASSES[position]: value for position, value in zip(occurring, recall, strict=True)}
    )
    for position, value in zip(occurring, precision, strict=True):
        assert metrics["precision"][CLASSES[position]] == (pytest.approx(value) if position in predicted else None)
    for row, percent in zip(metrics["confusion"], metrics["confusion_percent"], strict=True):
        assert percent == (pytest.approx([100 * count / sum(row) for count in row]) if sum(row) else [None] * 3)
    low, high = metrics["accuracy_interval"]
    assert 0 <= low <= metrics["accuracy"] <= high <= 1


def test_bootstrap_intervals_are_those_of_galaxies_drawn_anew() -> None:
    pairs = [(0, 0)] * 60 + [(0, 1)] * 12 + [(1, 1)] * 30 + [(1, 0)] * 9 + [(2, 2)] * 4 + [(2, 0)] * 3
    truth, predicted = np.array(pairs).T
    drawn = np.random.default_rng(8).integers(len(pairs), size=(3000, len(pairs)))
    expected = {
        "accuracy": [(truth[rows] == predicted[rows]).mean() for rows in drawn],
        "macro_f1": [
            f1_score(truth[rows], predicted[rows], labels=np.unique(truth[rows]), average="macro", zero_division=0)
            for rows in drawn[:1000]
        ],
    }
    for name, interval in metrics_of(pairs)["bootstrap"].items():
        assert interval == pytest.approx(np.percentile(expected[name], (2.5, 97.5)).tolist(), abs=0.02)


def test_log_loss_is_sklearns() -> None:
    random = np.random.default_rng(3)
    probabilities, truth = random.dirichlet((1, 1, 1), 40), random.integers(3, size=40)
    expected = log_loss(truth, probabilities, labels=range(3))
    assert evaluate(truth, probabilities, CLASSES)["log_loss"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    # Twice the tail of a binomial distribution with p = 1/2, by hand.
    [(0, 0, 1.0), (3, 3, 1.0), (1, 6, 2 * (1 + 7) / 2**7), (8, 0, 2 / 2**8), (2, 7, 2 * (1 + 9 + 36) / 2**9)],
)
def test_mcnemars_exact_test(only_first: int, only_second: int, p_value: float) -> None:
    both_right, both_wrong = 5, 4
    truth = np.zeros(both_right + both_wrong + only_first + only_second, dtype=int)
    first = [0] * both_right + [1] * both_wrong + [0] * only_first + [1] * only_second
    second = [0] * both_right + [2] * both_wrong + [1] * only_first + [0] * only_second
    result = paired(truth, np.eye(3)[first], np.eye(3)[second])
    assert result["p_value"] == pytest.approx(p_value)
    assert result["difference"] == pytest.approx((only_first - only_second) / len(truth))


def test_votes_are_scored_over_all_cells_together() -> None:
    votes = np.zeros((2, 37), np.float32)
    true_votes = votes.copy()
    true_votes[0, 0], true_votes[1, 5] = 0.3, 0.4
    # The mean over the columns of each one's root would be (0.3 + 0.4) / sqrt(2) / 37 = 0.0134.
    assert votes_rmse(votes, true_votes) == pytest.approx(math.sqrt(0.25 / 74))


@settings(deadline=None, max_examples=50)
@given(PAIRS, st.permutations(range(3)))
def test_the_order_of_the_classes_does_not_matter(pairs: list[tuple[int, int]], order: list[int]) -> None:
    metrics = metrics_of(pairs)
    renamed = metrics_of([(order[true], order[predicted]) for true, predicted in pairs])
    for name in ("n", "accuracy", "accuracy_interval", "macro_f1"):
        assert metrics[name] == pytest.approx(renamed[name])
    for position, name in enumerate(CLASSES):
        assert metrics["recall"][name] == renamed["recall"][CLASSES[order[position]]]
