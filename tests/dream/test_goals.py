"""What networks are asked for, against torchvision's networks with hooks, and against scipy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import logit, softmax
from torch import Tensor

from galaxyspark.dream.ascent import Goal, Picture, ascend, to_pixels
from galaxyspark.dream.goals import LAYERS, DreamNetwork, class_goal, guided_goal, layer_goal, log_odds
from galaxyspark.errors import UserError
from galaxyspark.network.networks import ARCHITECTURES
from galaxyspark.settings import DreamSettings

# Random networks follow their gradient for small steps only, and a shift by a pixel is much to them.
FEW = DreamSettings(octaves=2, dream_steps=8, step_size=0.3, jitter_px=0)
MIDDLE = {
    "googlenet": "inception4a",
    "resnet18": "layer2.1",
    "resnet50": "layer2.1",
    "efficientnet_v2_s": "features.3",
    "convnext_tiny": "features.3",
}

MakeNetwork = Callable[..., DreamNetwork]


def hooked(network: DreamNetwork, pixels: Tensor) -> dict[str, Tensor]:
    """The activations of all layers and the logits, by hooks on the whole network."""
    caught: dict[str, Tensor] = {}
    hooks = [
        network.trunk.get_submodule(layer).register_forward_hook(
            lambda _, __, output, layer=layer: caught.update({layer: output.clone()})
        )
        for layer in network.layers
    ]
    mean, std = (torch.tensor(colour).view(3, 1, 1) for colour in (network.card.pixel_mean, network.card.pixel_std))
    features = network.trunk((pixels - mean) / std)
    for hook in hooks:
        hook.remove()
    return caught | {"logits": network.network.network.last_layer(features)}


@pytest.mark.parametrize("name", list(ARCHITECTURES))
@torch.no_grad()
def test_every_network_has_layers_with_maps(name: str, make_network: MakeNetwork, galaxy_picture: Picture) -> None:
    network, pixels = make_network(name), to_pixels(galaxy_picture)
    expected = hooked(network, pixels)
    sides = []
    for layer in LAYERS[name]:
        activations = network.activations(pixels, layer)
        torch.testing.assert_close(activations, expected[layer], rtol=1e-4, atol=1e-5)
        assert activations.ndim == 4
        sides.append(activations.shape[-1])
    assert len(sides) >= 8
    assert sides == sorted(sides, reverse=True)
    assert sides[0] >= 16 > sides[-1]


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_a_layers_goals_grow(
    name: str, make_network: MakeNetwork, galaxy_picture: Picture, other_picture: Picture
) -> None:
    network = make_network(name)
    check_growth(layer_goal(network, MIDDLE[name]), galaxy_picture)
    check_growth(guided_goal(network, MIDDLE[name], other_picture), galaxy_picture)


@pytest.mark.parametrize("name", ["googlenet", "resnet18", "convnext_tiny"])
def test_a_classs_goal_grows(name: str, make_network: MakeNetwork, galaxy_picture: Picture) -> None:
    network = make_network(name)
    for of_class in network.card.classes:
        check_growth(class_goal(network, of_class), galaxy_picture)


def check_growth(goal: Goal, start: Picture) -> None:
    dream = ascend(start, goal, FEW, seed=1)
    assert dream.after > dream.before
    assert dream.before == pytest.approx(goal(to_pixels(start)).item())
    assert dream.after == pytest.approx(goal(to_pixels(dream.picture)).item())


@torch.no_grad()
def test_a_layers_response_is_half_its_variance(make_network: MakeNetwork, galaxy_picture: Picture) -> None:
    network, pixels = make_network(), to_pixels(galaxy_picture)
    channels = hooked(network, pixels)["layer3.0"][0].flatten(1).double().numpy()
    expected = np.mean([np.var(places) for places in channels]) / 2
    assert layer_goal(network, "layer3.0")(pixels).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("objective", ["classes", "votes"])
@torch.no_grad()
def test_a_classs_response_is_the_log_odds_of_its_probability(
    objective: str, make_network: MakeNetwork, galaxy_picture: Picture
) -> None:
    """Of a network that has learned 37 votes the classes are question 1's answers, its first three logits."""
    network, pixels = make_network("resnet18", objective), to_pixels(galaxy_picture)
    logits = hooked(network, pixels)["logits"].numpy().astype(np.float64)
    assert logits.shape == (1, 37 if objective == "votes" else 3)
    expected = logit(softmax(logits[0, :3]))
    found = [class_goal(network, name)(pixels).item() for name in network.card.classes]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("objective", ["classes", "votes"])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_dreaming_of_a_class_raises_its_probability(
    objective: str, position: int, make_network: MakeNetwork, galaxy_picture: Picture
) -> None:
    network = make_network("resnet18", objective)
    dream = ascend(galaxy_picture, class_goal(network, network.card.classes[position]), FEW, seed=1)
    before, after = network.runtime(np.stack([galaxy_picture, dream.picture])).probabilities[:, position]
    assert after > before + 0.05


def test_log_odds_are_exact_and_have_a_gradient_where_the_network_is_sure() -> None:
    logits = np.array([[0.3, -1.2, 0.5], [30, 0, -3], [2, 60, -5]])
    probabilities = softmax(logits, axis=1)
    expected = np.log(probabilities) - np.log(
        [[row[others].sum() for others in ([1, 2], [0, 2], [0, 1])] for row in probabilities]
    )
    of_torch = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    found = log_odds(of_torch.softmax(dim=1))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.detach().numpy()[0], logit(probabilities[0]), atol=1e-5)
    found[1, 0].backward()
    assert of_torch.grad is not None
    assert of_torch.grad[1, 0].item() == pytest.approx(1)


def test_a_guided_dream_is_more_like_its_guide(
    make_network: MakeNetwork, galaxy_picture: Picture, other_picture: Picture
) -> None:
    """By the angles of its activations to the guide's nearest ones, seen from the guide's mean."""
    network, layer = make_network(), "layer2.1"
    goals = {"guided": guided_goal(network, layer, other_picture), "unguided": layer_goal(network, layer)}
    pictures = {name: ascend(galaxy_picture, goal, FEW, seed=1).picture for name, goal in goals.items()}
    of_guide = places(network, layer, other_picture)
    mean = of_guide.mean(axis=0)
    likeness = {
        name: float((directions(places(network, layer, picture) - mean) @ directions(of_guide - mean).T).max(1).mean())
        for name, picture in (pictures | {"start": galaxy_picture}).items()
    }
    assert likeness["guided"] > likeness["unguided"] + 0.05
    assert likeness["guided"] > likeness["start"]


@torch.no_grad()
def places(network: DreamNetwork, layer: str, picture: Picture) -> NDArray[np.float32]:
    """The activations at every place of the layer's map, shape (places, channels)."""
    return network.activations(to_pixels(picture), layer)[0].flatten(1).T.numpy()


def directions(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_an_unknown_layer_or_class_is_named_with_those_there_are(
    make_network: MakeNetwork, galaxy_picture: Picture
) -> None:
    network = make_network()
    for goal in (
        lambda: layer_goal(network, "inception4c"),
        lambda: guided_goal(network, "inception4c", galaxy_picture),
    ):
        with pytest.raises(UserError, match=r"--layer inception4c: .*resnet18.*: conv1, layer1\.0, .*layer4\.1\.$"):
            goal()
    with pytest.raises(UserError, match=r"--dream-class spiral: .*: round, with/out <b>arms</b>, "):
        class_goal(network, "spiral")
