"""The decision tree against rows the challenge published and against the challenge's own header."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from galaxyspark.galaxyzoo.tree import MORPHOLOGY_CLASSES, QUESTIONS, VOTE_COLUMNS, largest_violation

# Rows of the challenge's solutions; each question on a line of its own.
PUBLISHED_ROWS: dict[str, list[list[float]]] = {
    "100008": [
        [0.383147, 0.616853, 0], [0, 0.616853], [0.038452149, 0.578400851], [0.418397819, 0.198455181],
        [0, 0.104752126, 0.512100874, 0], [0.054453, 0.945547], [0.201462524, 0.181684476, 0],
        [0, 0.0272265, 0, 0.0272265, 0, 0, 0], [0, 0, 0], [0.279952491, 0.138445328, 0],
        [0, 0.092885571, 0, 0, 0, 0.325512248],
    ],
    "100123": [
        [0.462492, 0.456033, 0.081475], [0, 0.456033], [0, 0.456033], [0, 0.456033],
        [0, 0, 0.456033, 0], [0.687647, 0.312353], [0.388157511, 0.074334489, 0],
        [0, 0, 0, 0.213858217, 0.473788783, 0, 0], [0, 0, 0], [0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ],
    "100134": [
        [0.021834, 0.976952, 0.001214], [0.021750859, 0.955201141], [0.313076726, 0.642124415],
        [0.546490632, 0.408710509],
        [0.160096487, 0.760687801, 0.034416852, 0], [0.611499, 0.388501], [0.010917, 0.010917, 0],
        [0, 0.032377038, 0.064143188, 0.4502247, 0, 0.032377038, 0.032377038], [0, 0, 0.021750859],
        [0.207252747, 0.152044077, 0.187193808],
        [0, 0.054649063, 0.081973595, 0.081973595, 0, 0.327894379],
    ],
    "100143": [
        [0.269843, 0.730157, 0], [0.730157, 0], [0, 0], [0, 0],
        [0, 0, 0, 0], [0.410635, 0.589365], [0, 0, 0.269843],
        [0, 0, 0.034116788, 0, 0.136878196, 0.239640016, 0], [0.56142867, 0, 0.16872833], [0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ],
    "100445": [
        [0.186593, 0.796066, 0.017341], [0, 0.796066], [0, 0.796066], [0.355462575, 0.440603425],
        [0.135023142, 0.405012111, 0.220226086, 0.03580466], [0.262162, 0.737838], [0, 0.186593, 0],
        [0.074903354, 0, 0.074903354, 0.074903354, 0, 0.037451677, 0], [0, 0, 0],
        [0.141345783, 0.214116792, 0],
        [0, 0.164982622, 0, 0, 0, 0.190479953],
    ],
    "135453": [
        [0.360342, 0.098619, 0.541039], [0, 0.098619], [0, 0.098619], [0, 0.098619],
        [0, 0, 0, 0.098619], [0.12106, 0.87894], [0.256566747, 0.103775253, 0],
        [0, 0, 0.12106, 0, 0, 0, 0], [0, 0, 0], [0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ],
}  # fmt: skip

PUBLISHED_HEADER = (
    "Class1.1,Class1.2,Class1.3,Class2.1,Class2.2,Class3.1,Class3.2,Class4.1,Class4.2,Class5.1,Class5.2,Class5.3,"
    "Class5.4,Class6.1,Class6.2,Class7.1,Class7.2,Class7.3,Class8.1,Class8.2,Class8.3,Class8.4,Class8.5,Class8.6,"
    "Class8.7,Class9.1,Class9.2,Class9.3,Class10.1,Class10.2,Class10.3,Class11.1,Class11.2,Class11.3,Class11.4,"
    "Class11.5,Class11.6"
)


def published_votes(galaxy_id: str) -> NDArray[np.float64]:
    return np.concatenate([np.array(answers, dtype=np.float64) for answers in PUBLISHED_ROWS[galaxy_id]])


def test_columns_are_the_challenges_header() -> None:
    assert ",".join(VOTE_COLUMNS) == PUBLISHED_HEADER


def test_every_question_has_as_many_answers_as_a_published_row() -> None:
    for row in PUBLISHED_ROWS.values():
        assert [len(question.answers) for question in QUESTIONS] == [len(answers) for answers in row]


def test_classes_are_the_answers_to_the_first_question() -> None:
    assert MORPHOLOGY_CLASSES == ("smooth", "featured", "artifact")


def test_a_question_is_asked_only_after_earlier_ones() -> None:
    for question in QUESTIONS:
        for column in question.asked_after:
            assert int(column.removeprefix("Class").split(".")[0]) < question.number


@pytest.mark.parametrize("galaxy_id", PUBLISHED_ROWS)
def test_published_votes_obey_the_tree(galaxy_id: str) -> None:
    assert largest_violation(published_votes(galaxy_id)) < 1e-5


def test_violations_of_many_rows_are_found_row_by_row() -> None:
    rows = np.stack([published_votes(galaxy_id) for galaxy_id in PUBLISHED_ROWS])
    rows[3, VOTE_COLUMNS.index("Class9.2")] += 0.25

    violations = largest_violation(rows)

    assert violations.shape == (6,)
    assert violations[3] == pytest.approx(0.25, abs=1e-5)
    assert np.delete(violations, 3).max() < 1e-5


@pytest.mark.parametrize("column", VOTE_COLUMNS)
def test_a_changed_vote_is_noticed_whatever_its_column(column: str) -> None:
    votes = published_votes("100134")
    votes[VOTE_COLUMNS.index(column)] += 0.1

    assert largest_violation(votes) == pytest.approx(0.1, abs=1e-5)


def test_single_precision_votes_are_compared_in_double_precision() -> None:
    violation = largest_violation(published_votes("100008").astype(np.float32))

    assert violation.dtype == np.float64
    assert violation < 1e-5
