"""Metrics of validation against scikit-learn's, added up over batches in any cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score

from galaxyspark.dataset.read import Batch
from galaxyspark.network.objectives import ClassesObjective, Objective, VotesObjective, votes_of_logits
from galaxyspark.network.validation import Sums, Validation

CLASSES = ("smooth", "featured", "artifact")
IMAGES = np.zeros((0, 1, 1, 3), np.uint8)


def validation_of(logits: torch.Tensor, truth: np.ndarray, votes: np.ndarray, objective: Objective) -> Validation:
    total = Sums(3)
    for part in (slice(0, 7), slice(7, 8), slice(8, None)):  # as batches of several ranks would be
        sums = Sums(3)
        sums.add(logits[part], Batch(IMAGES, truth[part], votes[part]), objective)
        total.values += sums.values
    return total.validation(CLASSES)


@pytest.mark.parametrize("occurring", [3, 2])
def test_metrics_of_classes_are_scikit_learns(occurring: int) -> None:
    random = np.random.default_rng(2)
    truth = random.integers(0, occurring, 60)
    logits = torch.from_numpy(random.normal(size=(60, 3)).astype(np.float32))
    found = validation_of(logits, truth, np.empty((60, 0), np.float32), ClassesObjective([1.0] * 3))
    predicted, labels = logits.argmax(1).numpy(), list(range(occurring))
    assert found.num_galaxies == 60
    assert found.accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert found.macro_f1 == pytest.approx(f1_score(truth, predicted, labels=labels, average="macro"))
    assert found.loss == pytest.approx(log_loss(truth, torch.softmax(logits.double(), 1), labels=[0, 1, 2]), rel=1e-5)
    recall = recall_score(truth, predicted, labels=labels, average=None)
    assert list(found.recall.values()) == pytest.approx([*recall, *[None] * (3 - occurring)])
    assert found.rmse is None


def test_the_rmse_is_pooled_over_all_cells() -> None:
    logits = torch.randn(20, 37)
    votes = votes_of_logits(torch.randn(20, 37)).numpy()
    found = validation_of(logits, votes[:, :3].argmax(1), votes, VotesObjective())
    assert found.rmse == pytest.approx(np.sqrt(np.mean((votes_of_logits(logits).numpy() - votes) ** 2)), rel=1e-5)
    assert found.accuracy == pytest.approx(np.mean(logits[:, :3].argmax(1).numpy() == votes[:, :3].argmax(1)))
