"""What a network learns: the class of question 1, or the votes for all 37 answers of the decision tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from galaxyspark.errors import UserError
from galaxyspark.galaxyzoo.tree import MORPHOLOGY_CLASSES, QUESTIONS, VOTE_COLUMNS
from galaxyspark.network.devices import to_device
from galaxyspark.settings import TrainSettings

_ANSWERS = [len(question.answers) for question in QUESTIONS]


class Objective(Protocol):
    """From a network's outputs to a loss, to classes and to votes.

    Attributes:
        num_outputs: Length of the logits.
    """

    num_outputs: int

    def loss(self, logits: Tensor, classes: Tensor, votes: Tensor) -> Tensor:
        """The mean loss to train by, a scalar.

        Args:
            logits: float32, shape (views, num_outputs).
            classes: int64 positions of the true classes, shape (views,).
            votes: float32 shares in [0, 1], shape (views, 37); (views, 0) where the labels came without.
        """

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of the classes, shape (views, classes), from logits of shape (views, num_outputs)."""

    def votes(self, logits: Tensor) -> Tensor | None:
        """Vote shares, shape (views, 37), that obey the tree; None where they are not learned."""


class ClassesObjective:
    """Cross-entropy on the class, softened and weighted."""

    def __init__(self, class_weights: Sequence[float], label_smoothing: float = 0.0) -> None:
        self.num_outputs = len(class_weights)
        self.class_weights = torch.tensor(class_weights, dtype=torch.float32)
        self.label_smoothing = label_smoothing

    def loss(self, logits: Tensor, classes: Tensor, votes: Tensor) -> Tensor:
        """Mean over the views of their cross-entropy in nats times their class's weight."""
        losses = nn.functional.cross_entropy(logits, classes, label_smoothing=self.label_smoothing, reduction="none")
        return (losses * to_device(self.class_weights, logits.device)[classes]).mean()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax."""
        return torch.softmax(logits, dim=1)

    def votes(self, logits: Tensor) -> None:
        """A class says nothing of votes."""
        return None


class VotesObjective:
    """Squared error of the votes, which the challenge's score is the root of; the class is question 1's answer."""

    num_outputs = len(VOTE_COLUMNS)

    def loss(self, logits: Tensor, classes: Tensor, votes: Tensor) -> Tensor:
        """Mean over the views of the squared errors of their 37 votes, added up."""
        return (votes_of_logits(logits) - votes).square().sum(dim=1).mean()

    def probabilities(self, logits: Tensor) -> Tensor:
        """The votes for question 1's answers, in the order of the classes."""
        return votes_of_logits(logits)[:, : len(MORPHOLOGY_CLASSES)]

    def votes(self, logits: Tensor) -> Tensor:
        """The votes."""
        return votes_of_logits(logits)


def votes_of_logits(logits: Tensor) -> Tensor:
    """Votes that obey the decision tree whatever the logits are.

    The answers to a question share out, by softmax, the volunteers who were asked it, and these follow from the
    answers that lead there.

    Args:
        logits: float32, shape (..., 37), in the order of ``VOTE_COLUMNS``.

    Returns:
        Shares of all volunteers in [0, 1], of the same shape.
    """
    columns: dict[str, Tensor] = {}
    for question, own in zip(QUESTIONS, torch.split(logits, _ANSWERS, dim=-1), strict=True):
        shares = torch.softmax(own, dim=-1)
        if question.asked_after:  # questions that were answered before, in the order of the tree
            asked = torch.stack([columns[name] for name in question.asked_after]).sum(dim=0)
            shares = shares * asked.unsqueeze(-1)
        columns.update(zip(question.columns, shares.unbind(dim=-1), strict=True))
    return torch.stack([columns[name] for name in VOTE_COLUMNS], dim=-1)


def class_weights(galaxies: Mapping[str, int], power: float) -> list[float]:
    """Weights that let rare classes count for more.

    Args:
        galaxies: Class -> its galaxies in the training split, in the order of the logits.
        power: 0 counts every galaxy the same, 1 every class.

    Returns:
        A weight for each class, proportional to (1 / galaxies) ** power; the mean over all galaxies is 1. A class
        without galaxies gets 0, as it has nothing to count.
    """
    raw = {name: count**-power if count else 0.0 for name, count in galaxies.items()}
    mean = sum(raw[name] * count for name, count in galaxies.items()) / sum(galaxies.values())
    return [weight / mean for weight in raw.values()]


def make_objective(settings: TrainSettings, data: dict[str, Any]) -> Objective:
    """What is to be learned from the views of a manifest.

    Raises:
        UserError: They have no votes, or only one class.
    """
    if settings.objective == "votes":
        if data["label_rule"] is None:
            raise UserError(
                "--objective votes: the views have classes, but no votes. Augment with labels in the challenge's "
                "format (37 vote columns), or train with --objective classes."
            )
        return VotesObjective()
    if settings.best_by == "rmse":
        raise UserError("--best-by rmse: votes are learned with --objective votes only.")
    galaxies = data["galaxies_by_class"]["train"]
    if sum(count > 0 for count in galaxies.values()) < 2:
        raise UserError("All training galaxies are of one class: there is nothing to tell apart. Check the labels.")
    weights = class_weights({name: galaxies.get(name, 0) for name in data["classes"]}, settings.class_balance)
    return ClassesObjective(weights, settings.label_smoothing)
