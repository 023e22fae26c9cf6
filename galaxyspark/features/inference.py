"""What a trained network says of views, and what it takes to run one. Neither Spark nor torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Inference:
    """What the network says of some views.

    Attributes:
        features: float32, shape (views, 1024 in GoogLeNet): the pooled layer before the last.
        probabilities: float32 0 to 1, shape (views, classes), each row adding up to 1.
        votes: float32 0 to 1, shape (views, 37), of a network that has learned them; else None.
    """

    features: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    votes: NDArray[np.float32] | None = None


class Runtime(Protocol):
    """A network that is loaded."""

    def decode(self, jpegs: Sequence[bytes]) -> Any:
        """The pixels of encoded views, where the runtime likes them best."""

    def __call__(self, images: Any) -> Inference:
        """Run it on what ``decode`` gives, or on uint8 pixels 0-255, shape (views, size, size, 3), colour order RGB."""


class Program(Protocol):
    """A network prepared for one of the runtimes: a value to send to workers."""

    def load(self, num_threads: int, gpu: int | None = None) -> Runtime:
        """Load it into this process, to compute with so many threads or, where the runtime can, on this GPU."""


def infer(runtime: Runtime, jpegs: Sequence[bytes]) -> Inference:
    """Run a network on encoded views (JPEG, of the size the network was trained on)."""
    return runtime(runtime.decode(jpegs))
