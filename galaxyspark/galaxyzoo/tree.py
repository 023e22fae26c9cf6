"""The Galaxy Zoo 2 decision tree as the Kaggle challenge asks it: 11 questions, 37 answers, one vote column each.

A volunteer starts at question 1 and is led on by each answer. The challenge publishes, for every answer, the share
of all volunteers who gave it, so the answers to a question add up to the share of volunteers who were asked it.

Source: Willett et al. 2013 (MNRAS 435, 2835), table 2; the challenge's own description of its columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ID_COLUMN = "GalaxyID"


@dataclass(frozen=True)
class Question:
    """One question of the tree.

    Attributes:
        number: 1 to 11.
        text: What the volunteer is asked.
        answers: Answers in the order of their columns ``Class<number>.1``, ``Class<number>.2``, ...
        asked_after: Vote columns whose shares add up to the share of volunteers asked this question; empty where
            everyone counts. (The challenge rescales question 6 to everyone, stars included.)
    """

    number: int
    text: str
    answers: tuple[str, ...]
    asked_after: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The vote columns of the answers, such as ``("Class1.1", "Class1.2", "Class1.3")``."""
        return tuple(f"Class{self.number}.{answer}" for answer in range(1, len(self.answers) + 1))

    @property
    def positions(self) -> list[int]:
        """Where the votes for its answers stand among the 37 of ``VOTE_COLUMNS``, from 0."""
        return [_POSITION[column] for column in self.columns]


QUESTIONS: tuple[Question, ...] = (
    Question(1, "Smooth, or with features or a disk?", ("smooth", "featured", "artifact")),
    Question(2, "A disk seen edge-on?", ("yes", "no"), ("Class1.2",)),
    Question(3, "A bar through the centre?", ("yes", "no"), ("Class2.2",)),
    Question(4, "A spiral pattern?", ("yes", "no"), ("Class2.2",)),
    Question(5, "How prominent is the bulge?", ("none", "just noticeable", "obvious", "dominant"), ("Class2.2",)),
    Question(6, "Anything odd?", ("yes", "no")),
    Question(7, "How round is it?", ("completely round", "in between", "cigar-shaped"), ("Class1.1",)),
    Question(
        8,
        "What is odd?",
        ("ring", "lens or arc", "disturbed", "irregular", "other", "merger", "dust lane"),
        ("Class6.1",),
    ),
    Question(9, "What shape has the edge-on bulge?", ("rounded", "boxy", "none"), ("Class2.1",)),
    Question(10, "How tightly wound are the arms?", ("tight", "medium", "loose"), ("Class4.1",)),
    Question(11, "How many arms?", ("1", "2", "3", "4", "more than 4", "cannot tell"), ("Class4.1",)),
)

VOTE_COLUMNS: tuple[str, ...] = tuple(column for question in QUESTIONS for column in question.columns)
"""The 37 vote columns in the challenge's order: ``Class1.1`` to ``Class11.6``."""

VOTE_FIELDS: dict[str, str] = {column: column.replace(".", "_") for column in VOTE_COLUMNS}
"""Vote column of the challenge -> field of the dataset, where a dot would need quoting: Class1.1 -> Class1_1."""

MORPHOLOGY_CLASSES: tuple[str, ...] = QUESTIONS[0].answers
"""The classes a galaxy is sorted into, in the order of question 1: smooth, featured, artifact."""

_POSITION = {column: position for position, column in enumerate(VOTE_COLUMNS)}


def largest_violation(votes: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far votes are from obeying the tree.

    Args:
        votes: Vote shares in [0, 1], shape (..., 37), in the order of ``VOTE_COLUMNS``.

    Returns:
        Shape (...): the largest absolute difference, over the 11 questions, between the sum of a question's answers
        and the share of volunteers who were asked it. The challenge's own rows stay below 1e-5.
    """
    shares = np.asarray(votes, dtype=np.float64)
    differences = []
    for question in QUESTIONS:
        given = shares[..., question.positions].sum(axis=-1)
        asked = sum(shares[..., _POSITION[column]] for column in question.asked_after) if question.asked_after else 1.0
        differences.append(np.abs(given - asked))
    return np.max(differences, axis=0)
