"""A step: the gradient of all ranks' views, what is learned how fast, and the average of the weights."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare

from galaxyspark.dataset.read import Batch
from galaxyspark.network.learner import turned
from galaxyspark.network.ranks import start_horovod
from tests.network.learner_process import SIZES, batch_of, inputs_of, small_learner

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def one_rank() -> None:
    threads = torch.get_num_threads()
    start_horovod()
    torch.set_num_threads(threads)
    assert hvd.size() == 1


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("ranks") / "steps.pt"
    command = [sys.executable, "-m", "galaxyspark.horovodrun", "-np", "2", sys.executable]
    command += ["-m", "tests.network.learner_process", str(file)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    completed = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert completed.returncode == 0, completed.stderr
    return torch.load(file, weights_only=True)


def joined_batch() -> Batch:
    batches = [batch_of(rank) for rank in range(len(SIZES))]
    fields = ("images", "classes", "votes")
    return Batch(*(np.concatenate([getattr(batch, field) for batch in batches]) for field in fields))


def test_every_view_counts_the_same_whichever_rank_has_it(of_two_ranks: dict[str, Any]) -> None:
    """Two ranks with 6 and 2 views have the gradient that one process has of all 8."""
    alone = small_learner(max_gradient_norm=0.0, turn_views=False)
    alone.step(joined_batch(), sum(SIZES), 0, rate=1.0, stop=False)
    for name, weight in alone.network.named_parameters():
        scale = float(weight.grad.abs().max())
        torch.testing.assert_close(of_two_ranks["gradients"][name], weight.grad, rtol=0, atol=0.02 * scale, msg=name)


def test_ranks_turn_views_each_in_their_own_way(of_two_ranks: dict[str, Any]) -> None:
    first, second = of_two_ranks["turned"]
    assert first.shape == second.shape
    assert (first != second).any()
    images = batch_of(1).images
    assert all(view.numpy().tobytes() in symmetries(image) for view, image in zip(second, images, strict=True))


def test_the_rate_grows_with_the_root_of_the_number_of_ranks(of_two_ranks: dict[str, Any]) -> None:
    assert of_two_ranks["rates"] == [pytest.approx(1e-3 * math.sqrt(2))]


def test_frozen_layers_leave_no_trace_in_the_optimizer_on_two_ranks_either(of_two_ranks: dict[str, Any]) -> None:
    assert of_two_ranks["learned"] == ["fc.weight", "fc.bias"]


def test_pretrained_layers_learn_slower_and_vectors_do_not_decay() -> None:
    ours = small_learner(weights="imagenet", pretrained_rate=0.2, weight_decay=0.3)
    ours.step(joined_batch(), sum(SIZES), 0, rate=0.5, stop=False)
    names = {id(weight): name for name, weight in ours.network.named_parameters()}
    found = {
        names[id(weight)]: (group["lr"], group["weight_decay"])
        for group in ours.optimizer.param_groups
        for weight in group["params"]
    }
    assert found == {
        "conv1.weight": (pytest.approx(1e-4), 0.3),
        "conv1.bias": (pytest.approx(1e-4), 0.0),
        "fc.weight": (pytest.approx(5e-4), 0.3),
        "fc.bias": (pytest.approx(5e-4), 0.0),
    }


def test_gradients_are_scaled_down_to_the_largest_norm_allowed() -> None:
    ours, clipped = small_learner(max_gradient_norm=0.0), small_learner(max_gradient_norm=0.01)
    for each in (ours, clipped):
        each.step(joined_batch(), sum(SIZES), 0, rate=1.0, stop=False)
    whole = torch.cat([weight.grad.flatten() for weight in ours.network.parameters()])
    scaled = torch.cat([weight.grad.flatten() for weight in clipped.network.parameters()])
    assert float(whole.norm()) > 0.01
    torch.testing.assert_close(scaled, whole * 0.01 / whole.norm(), rtol=1e-3, atol=1e-6)


def symmetries(image: NDArray[Any]) -> list[bytes]:
    """The eight of a square, by numpy."""
    return [np.rot90(side, turns).tobytes() for side in (image, image[:, ::-1]) for turns in range(4)]


def test_each_symmetry_of_a_square_comes_about_as_often() -> None:
    image = np.random.default_rng(1).integers(0, 256, (5, 5, 3), np.uint8)
    torch.manual_seed(1)
    images = torch.from_numpy(np.stack([image] * 4_000))
    as_decoded_on_gpu = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert turned(as_decoded_on_gpu).is_contiguous()
    views = turned(images)
    assert views.is_contiguous()
    found = Counter(view.numpy().tobytes() for view in views)
    assert set(found) == set(symmetries(image))
    assert chisquare(list(found.values())).pvalue > 0.001


def test_views_are_turned_otherwise_in_each_step_and_the_same_when_it_is_made_again() -> None:
    batch = joined_batch()
    first, again, next_step = inputs_of(small_learner(turn_views=True), batch, [0, 0, 1])
    for image, view in zip(batch.images, first, strict=True):
        assert view.tobytes() in symmetries(image)
    assert (first == again).all()
    assert (first != next_step).any()


def test_views_stay_as_they_are_where_that_is_asked_for() -> None:
    (seen,) = inputs_of(small_learner(turn_views=False), joined_batch(), [0])
    assert (seen == joined_batch().images).all()


def test_the_average_forgets_a_tenth_a_step_at_first_and_then_as_its_decay_says() -> None:
    ours = small_learner(ema_decay=0.15)
    expected = None
    for number in range(3):
        ours.step(joined_batch(), sum(SIZES), number, rate=1.0, stop=False)
        now = ours.network.fc.weight.detach().clone()
        # min(0.15, (1 + n) / (10 + n)) for n = 1, 2: 0.15 both times; the first weights are taken as they are.
        expected = now if expected is None else 0.15 * expected + 0.85 * now
        torch.testing.assert_close(ours.judged.fc.weight, expected, rtol=1e-5, atol=1e-7)
