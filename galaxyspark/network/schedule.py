"""How many steps training makes, and how fast it learns at each."""

from __future__ import annotations

import math
from dataclasses import dataclass

WARM_UP_SHARE = 0.1


@dataclass
class Plan:
    """How many steps are left to make: the epochs asked for, or what fits into the time allowed."""

    steps_per_epoch: int
    total_steps: int

    @property
    def epochs(self) -> int:
        """Epochs to run; the last one is cut short where the time does not allow for all of it."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def fit_into(self, seconds_left: float, seconds_per_step: float, steps_done: int) -> None:
        """Cut the plan down to the time left."""
        fitting = steps_done + max(1, int(seconds_left / seconds_per_step))
        self.total_steps = min(self.total_steps, fitting)

    def learning_rate_factor(self, step: int) -> float:
        """Linear warm-up over the first tenth of the steps, then half a cosine down to 0."""
        warm_up = max(1, int(WARM_UP_SHARE * self.total_steps))
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, self.total_steps - warm_up))))
