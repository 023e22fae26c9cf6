"""Small random networks, and a run without Spark: views of made-up galaxies and a model, published by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from galaxyspark.dream.goals import DreamNetwork
from galaxyspark.network.card import ModelCard
from galaxyspark.network.model import objective_of, save_model
from galaxyspark.network.networks import ARCHITECTURES, build_network, to_input
from galaxyspark.run_directory import RunDirectory
from galaxyspark.settings import AugmentJob, TrainJob
from galaxyspark.views.augment import ViewRecipe
from galaxyspark.views.decode import encode_jpeg

CLASSES = ("round", "with/out <b>arms</b>", "with/out <i>arms</i>")
SIZE_PX = 64
NUM_GALAXIES = 24


def make_card(network: str = "resnet18", objective: str = "classes") -> ModelCard:
    return ModelCard(
        classes=CLASSES,
        recipe=ViewRecipe(
            seed=1, size_px=SIZE_PX, field_of_view=0.5, colour_strength=0.1, colour_axes=(), jpeg_quality=90
        ),
        training={},
        versions={},
        network=network,
        objective=objective,
        pixel_mean=ARCHITECTURES[network].pixel_mean,
        pixel_std=ARCHITECTURES[network].pixel_std,
    )


def random_state(card: ModelCard) -> dict[str, torch.Tensor]:
    """Random weights, with batch statistics of some galaxies, without which deep layers would not tell them apart."""
    torch.manual_seed(3)
    network = build_network(card.network, objective_of(card).num_outputs)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    galaxies = torch.from_numpy(np.stack([galaxy(number) for number in range(NUM_GALAXIES)]))
    with torch.no_grad():
        network.train()(to_input(galaxies, card.pixel_mean, card.pixel_std))
    return network.state_dict()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These pictures are so small that threads wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_network() -> Callable[..., DreamNetwork]:
    """From the names of network and objective to a random network; each is built once."""

    @cache
    def make(network: str = "resnet18", objective: str = "classes") -> DreamNetwork:
        card = make_card(network, objective)
        return DreamNetwork(card, random_state(card))

    return make


def galaxy(number: int) -> NDArray[np.uint8]:
    """A bright ellipse of its own colour, size and direction, on dark noise; RGB."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[-1 : 1 : SIZE_PX * 1j, -1 : 1 : SIZE_PX * 1j]
    angle, long, short = random.uniform(0, np.pi), random.uniform(0.2, 0.5), random.uniform(0.1, 0.2)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    light = np.exp(-((along / long) ** 2) - (across / short) ** 2)
    pixels = 20 + light[..., None] * random.uniform(120, 220, 3) + random.normal(0, 5, (SIZE_PX, SIZE_PX, 3))
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def galaxy_picture() -> NDArray[np.uint8]:
    return galaxy(1)


@pytest.fixture(scope="session")
def other_picture() -> NDArray[np.uint8]:
    """Stripes, quite unlike a galaxy."""
    stripes = 127 + 120 * np.sin(np.arange(SIZE_PX) / 2)
    return np.broadcast_to(stripes[:, None, None], (SIZE_PX, SIZE_PX, 3)).astype(np.uint8)


@pytest.fixture(scope="session")
def make_run() -> Callable[[Path], Path]:
    """Publishes augment and train into a new directory."""

    def make(root: Path) -> Path:
        run = RunDirectory(root)
        root.mkdir(parents=True)
        with run.stage("augment", AugmentJob(run=root, images="i", labels="l"), {}) as staging:
            write_views(staging.path("views"))
        card = make_card()
        inputs = {"augment": run.manifest("augment")["id"]}
        with run.stage("train", TrainJob(run=root), inputs) as staging:
            save_model(staging.path("model"), random_state(card), card)
        return root

    return make


def write_views(directory: Path) -> None:
    """View 0 of every galaxy, and of each a view that is blank: to be passed over."""
    blank = np.zeros((SIZE_PX, SIZE_PX, 3), np.uint8)
    rows = [
        {
            "galaxy_id": f"{number:03d}",
            "view": view,
            "label": CLASSES[number % len(CLASSES)],
            "image": encode_jpeg(blank if view else np.ascontiguousarray(galaxy(number)[..., ::-1]), 95),
        }
        for number in reversed(range(NUM_GALAXIES))
        for view in (0, 1)
    ]
    (directory / "split=test").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), directory / "split=test" / "part-0.parquet")
