"""How many steps training makes, and how fast it learns at each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

WARM_UP_SHARE = 0.1


@dataclass
class Plan:
    """How many steps to make: those of the epochs asked for, or as many of them as fit into the time allowed.

    Attributes:
        steps_per_epoch: Of all ranks together, each of which has a batch in it.
        asked_steps: Those of the epochs asked for.
        total_steps: Those planned, at first the ones asked for.
    """

    steps_per_epoch: int
    asked_steps: int
    total_steps: int = field(init=False)

    def __post_init__(self) -> None:
        self.total_steps = self.asked_steps

    @property
    def epochs(self) -> int:
        """Epochs to run; the last one is cut short where the time does not allow for all of it."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def fit_into(self, seconds_left: float, seconds_per_step: float, steps_done: int) -> None:
        """Plan as many further steps as fit into the time left, and never more than were asked for."""
        self.total_steps = min(self.asked_steps, steps_done + max(0, int(seconds_left / seconds_per_step)))

    def learning_rate_factor(self, step: int) -> float:
        """Linear warm-up over the first tenth of the steps, then half a cosine down to 0."""
        warm_up = max(1, int(WARM_UP_SHARE * self.total_steps))
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, self.total_steps - warm_up))))
