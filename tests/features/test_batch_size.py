"""How many views a GPU is given at a time, and what happens where they are too many; on the processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from galaxyspark.errors import UserError
from galaxyspark.features.torch_runtime import PixelNetwork, TorchRuntime, fitting_batch
from galaxyspark.network.networks import build_network
from tests.features.test_inference import CARD

GIB = 2**30


@pytest.fixture
def runtime() -> TorchRuntime:
    torch.manual_seed(1)
    network = PixelNetwork(CARD, build_network("googlenet", len(CARD.classes)).state_dict())
    return TorchRuntime(network, 1, "float32", torch.device("cpu"))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (20, 64, 64, 3), np.uint8)


def no_more_than(most: int):  # type: ignore[no-untyped-def]
    """What to put before a network that has memory for so many views."""

    def check(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if len(inputs[0]) > most:
            raise torch.OutOfMemoryError(f"no memory for {len(inputs[0])} views")

    return check


@pytest.mark.parametrize(
    ("free_bytes", "view_bytes", "expected"),
    [
        (16 * GIB, 10 * 2**20, 512),  # half of it holds 819
        (80 * GIB, 10 * 2**20, 1_024),  # half of it holds 4,096
        (2 * GIB, GIB, 1),
        (1, GIB, 1),
    ],
)
def test_a_batch_takes_half_of_the_free_memory_at_most(free_bytes: int, view_bytes: int, expected: int) -> None:
    assert fitting_batch(free_bytes, view_bytes) == expected


@given(st.integers(0, 2**40), st.integers(1, 2**36))
def test_a_batch_is_the_largest_power_of_two_that_fits(free_bytes: int, view_bytes: int) -> None:
    batch = fitting_batch(free_bytes, view_bytes)
    assert batch in [2**power for power in range(11)]
    assert batch == 1 or 2 * batch * view_bytes <= free_bytes
    assert batch == 1_024 or 4 * batch * view_bytes > free_bytes


def test_what_a_view_is_said_to_take_holds_what_torch_allocates(runtime: TorchRuntime, images: np.ndarray) -> None:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        runtime(images)
    changes = [event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    peak_bytes = np.cumsum(changes).max() / len(images)
    assert peak_bytes < runtime.bytes_of_view() < 20 * peak_bytes


def test_batches_are_halved_until_they_fit(runtime: TorchRuntime, images: np.ndarray) -> None:
    expected = runtime(images)
    runtime.network.register_forward_pre_hook(no_more_than(6))
    for _ in range(2):
        inference = runtime(images)
        np.testing.assert_allclose(inference.features, expected.features, atol=1e-5)
        np.testing.assert_allclose(inference.probabilities, expected.probabilities, atol=1e-5)
        assert runtime.batch_views == 5  # of 20


def test_a_view_that_does_not_fit_is_one_message(runtime: TorchRuntime, images: np.ndarray) -> None:
    runtime.network.register_forward_pre_hook(no_more_than(0))
    with pytest.raises(UserError, match="cpu: a view of 64 px does not fit into its free memory"):
        runtime(images)
