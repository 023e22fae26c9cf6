"""After which step a training goes on whose epochs have another number of steps now."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxyspark.network.starting_point import step_to_go_on_after

STEPS_PER_EPOCH = st.integers(1, 500)


@pytest.mark.parametrize(
    ("step", "per_epoch", "now", "expected"),
    [
        (50, 100, 50, 25),
        (250, 100, 50, 125),
        (100, 100, 50, 50),
        (101, 100, 50, 51),
        (1, 100, 3, 1),
        (99, 100, 3, 2),
        (7, 9, 1, 1),
    ],
)
def test_it_is_at_the_same_share_of_the_epoch(step: int, per_epoch: int, now: int, expected: int) -> None:
    assert step_to_go_on_after({"step": step, "steps_per_epoch": per_epoch}, now) == expected


@given(st.integers(0, 5_000), STEPS_PER_EPOCH, STEPS_PER_EPOCH)
def test_no_epoch_is_begun_again_and_none_is_left_out(step: int, per_epoch: int, now: int) -> None:
    epochs, steps = divmod(step, per_epoch)
    goes_on_after = step_to_go_on_after({"step": step, "steps_per_epoch": per_epoch}, now)
    if steps and now > 1:
        assert epochs * now < goes_on_after < (epochs + 1) * now
    else:
        assert goes_on_after == (epochs + (steps > 0)) * now
    assert abs(goes_on_after / now - step / per_epoch) <= 1 / now


@given(st.integers(0, 5_000), STEPS_PER_EPOCH)
def test_with_the_same_steps_it_is_the_same_step(step: int, per_epoch: int) -> None:
    assert step_to_go_on_after({"step": step, "steps_per_epoch": per_epoch}, per_epoch) == step
