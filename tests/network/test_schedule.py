"""The plan of steps and its schedule of learning rates, against torch's own schedulers and by hand."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxyspark.network.schedule import Plan

STEPS = st.integers(1, 3000)


@pytest.mark.parametrize(("total", "warm_up"), [(20, 2), (45, 4), (300, 30)])
def test_the_schedule_is_torchs_linear_warm_up_and_cosine(total: int, warm_up: int) -> None:
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    ours = torch.optim.lr_scheduler.LambdaLR(
        torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0), Plan(7, total).learning_rate_factor
    )
    with warnings.catch_warnings(action="ignore"):
        linear = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / warm_up, total_iters=warm_up - 1)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - warm_up)
        torchs = torch.optim.lr_scheduler.SequentialLR(optimizer, [linear, cosine], milestones=[warm_up])
        for step in range(total):
            assert ours.get_last_lr() == pytest.approx(torchs.get_last_lr(), rel=1e-6), step
            for schedule in (ours, torchs):
                schedule.optimizer.step()
                schedule.step()


@settings(deadline=None)
@given(STEPS)
def test_the_rate_rises_to_its_peak_and_then_falls_but_never_to_nothing(total: int) -> None:
    factors = [Plan(10, total).learning_rate_factor(step) for step in range(total)]
    peak = factors.index(1.0)
    assert peak <= 0.1 * total
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert min(factors) > 0


@pytest.mark.parametrize(("total", "epochs"), [(1, 1), (10, 1), (11, 2), (100, 10)])
def test_the_last_epoch_may_be_cut_short(total: int, epochs: int) -> None:
    assert Plan(steps_per_epoch=10, asked_steps=total).epochs == epochs


@pytest.mark.parametrize(
    ("seconds_left", "total", "epochs"),
    [
        (30.0, 27, 3),  # 12 done and 15 of 2 s
        (31.9, 27, 3),
        (1e6, 100, 10),  # as planned
        (176.0, 100, 10),
        (174.0, 99, 10),
        (1.0, 12, 2),
        (-50.0, 12, 2),
    ],
)
def test_a_plan_is_cut_down_to_the_time(seconds_left: float, total: int, epochs: int) -> None:
    plan = Plan(steps_per_epoch=10, asked_steps=100)
    plan.fit_into(seconds_left, seconds_per_step=2.0, steps_done=12)
    assert (plan.total_steps, plan.epochs) == (total, epochs)


@settings(deadline=None)
@given(STEPS, st.floats(-100, 1e5), st.floats(1e-3, 100), st.data())
def test_a_cut_plan_fits_and_is_never_longer(total: int, left: float, per_step: float, data: st.DataObject) -> None:
    done = data.draw(st.integers(0, total))
    plan = Plan(10, total)
    plan.fit_into(left, per_step, done)
    assert done <= plan.total_steps <= total
    more = plan.total_steps - done
    assert more * per_step <= max(left, 0) * (1 + 1e-9)
    assert plan.total_steps == total or (more + 1) * per_step > left * (1 - 1e-9)


def test_a_plan_grows_again_where_there_is_more_time_than_was_thought() -> None:
    plan = Plan(steps_per_epoch=10, asked_steps=40)
    for seconds_per_step, total in [(2.0, 30), (4.0, 20), (1.5, 36), (1.0, 40)]:
        plan.fit_into(40.0, seconds_per_step, steps_done=10)
        assert plan.total_steps == total
