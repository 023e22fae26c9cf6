"""The two objectives against formulas written out here; votes obey the tree whatever a network says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from galaxyspark.galaxyzoo.tree import MORPHOLOGY_CLASSES, VOTE_COLUMNS, largest_violation
from galaxyspark.network.objectives import ClassesObjective, VotesObjective, class_weights, votes_of_logits

NO_VOTES = torch.empty(4, 0)


@given(arrays.arrays(np.float32, (3, 37), elements=st.floats(-80, 80, width=32)))
def test_votes_obey_the_tree_for_any_output(logits: np.ndarray) -> None:
    votes = votes_of_logits(torch.from_numpy(logits)).numpy()
    assert votes.min() >= 0
    assert votes.max() <= 1
    assert largest_violation(votes).max() < 1e-5


def test_equal_outputs_share_out_evenly_along_the_tree() -> None:
    """By hand: a third answers 'featured', half of these 'not edge-on', half of these 'spiral', ..."""
    votes = dict(zip(VOTE_COLUMNS, votes_of_logits(torch.zeros(37)).tolist(), strict=True))
    for column, share in {
        "Class1.2": 1 / 3,
        "Class2.2": 1 / 6,
        "Class4.1": 1 / 12,
        "Class11.2": 1 / 72,
        "Class6.1": 1 / 2,
        "Class8.4": 1 / 14,
        "Class7.3": 1 / 9,
        "Class9.1": 1 / 18,
    }.items():
        assert votes[column] == pytest.approx(share, rel=1e-6), column


def test_any_votes_of_the_tree_can_be_learned() -> None:
    """The logarithms of a volunteer crowd's own shares are logits that give them back."""
    logits = torch.randn(5, 37, generator=torch.Generator().manual_seed(3))
    votes = votes_of_logits(logits)
    torch.testing.assert_close(votes_of_logits(votes.log()), votes)


def test_the_loss_of_votes_is_the_challenges_score_squared() -> None:
    logits, truth = torch.randn(4, 37), votes_of_logits(torch.randn(4, 37))
    errors = votes_of_logits(logits).numpy() - truth.numpy()
    rmse = np.sqrt(np.mean(errors**2))
    loss = VotesObjective().loss(logits, torch.zeros(4, dtype=torch.long), truth)
    assert float(loss) / 37 == pytest.approx(rmse**2, rel=1e-5)


def test_the_class_is_question_1s_answer_with_most_votes() -> None:
    logits = torch.randn(50, 37)
    probabilities = VotesObjective().probabilities(logits)
    assert probabilities.shape == (50, len(MORPHOLOGY_CLASSES))
    assert torch.equal(probabilities.argmax(1), logits[:, :3].argmax(1))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(50))


def test_unweighted_and_unsmoothed_the_loss_is_cross_entropy() -> None:
    logits, classes = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    by_hand = -np.mean(
        [np.log(np.exp(row[c]) / np.exp(row).sum()) for row, c in zip(logits.numpy(), classes, strict=True)]
    )
    loss = ClassesObjective([1.0, 1.0, 1.0]).loss(logits, classes, NO_VOTES)
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)


def test_a_views_loss_counts_by_its_class_not_by_its_batch() -> None:
    """So that batches of ranks can be averaged; torch's own weighted mean divides by the weights in the batch."""
    logits, classes = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    objective = ClassesObjective([0.5, 4.0], label_smoothing=0.1)
    whole = objective.loss(logits, classes, NO_VOTES)
    parts = [objective.loss(logits[part], classes[part], NO_VOTES) for part in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=5).filter(any), st.floats(0, 1))
def test_class_weights_have_mean_1_over_the_galaxies(counts: list[int], power: float) -> None:
    galaxies = {str(number): count for number, count in enumerate(counts)}
    weights = class_weights(galaxies, power)
    assert sum(w * c for w, c in zip(weights, counts, strict=True)) == pytest.approx(sum(counts))
    assert all((weight == 0) == (count == 0) for weight, count in zip(weights, counts, strict=True))


def test_class_weights_by_hand() -> None:
    assert class_weights({"a": 900, "b": 100}, 0) == pytest.approx([1, 1])
    assert class_weights({"a": 900, "b": 100}, 1) == pytest.approx([1000 / 1800, 1000 / 200])
    rare, common = class_weights({"a": 100, "b": 900}, 0.5)
    assert rare / common == pytest.approx(3)
