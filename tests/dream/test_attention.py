"""Grad-CAM against the paper's formula by hand, and the picture that is made of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from galaxyspark.dream.ascent import Picture, to_pixels
from galaxyspark.dream.attention import attention, attention_layer, beside_attention
from galaxyspark.dream.goals import DreamNetwork

MakeNetwork = Callable[..., DreamNetwork]


def by_hand(network: DreamNetwork, layer: str, picture: Picture, position: int) -> Tensor:
    """Equations 1 and 2 of Selvaraju et al. 2017, of the log odds, from hooks; shape (height, width)."""
    caught = []
    hook = network.trunk.get_submodule(layer).register_forward_hook(lambda _, __, output: caught.append(output))
    mean, std = (torch.tensor(colour).view(3, 1, 1) for colour in (network.card.pixel_mean, network.card.pixel_std))
    logits = network.network.network((to_pixels(picture).requires_grad_() - mean) / std)[1][0].double()
    hook.remove()
    others = [other for other in range(len(logits)) if other != position]
    (gradient,) = torch.autograd.grad(logits[position] - logits[others].logsumexp(dim=0), caught[0])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    places = (weights * caught[0]).sum(dim=1, keepdim=True).relu()
    fine = interpolate(places, picture.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    return (fine / fine.max()).detach()


@pytest.mark.parametrize(
    ("name", "layer"), [("resnet18", "layer2.0"), ("resnet18", "layer4.1"), ("googlenet", "inception4e")]
)
def test_it_is_grad_cam(
    name: str, layer: str, make_network: MakeNetwork, galaxy_picture: Picture, other_picture: Picture
) -> None:
    network = make_network(name)
    pictures = [galaxy_picture, other_picture, galaxy_picture]
    found = attention(network, layer, np.stack(pictures), [0, 1, 2])
    assert (found.shape, found.dtype) == ((3, 64, 64), np.float32)
    some = 0
    for picture, position, of_picture in zip(pictures, (0, 1, 2), found, strict=True):
        expected = by_hand(network, layer, picture, position)
        if expected.isfinite().all():
            np.testing.assert_allclose(of_picture, expected, atol=1e-3)
            some += 1
        else:  # nothing speaks for the class
            assert not of_picture.any()
    assert some


def test_the_layer_is_the_deepest_with_eight_places(make_network: MakeNetwork) -> None:
    layers = {size_px: attention_layer(make_network("googlenet"), size_px) for size_px in (64, 112, 224)}
    assert layers == {64: "inception3b", 112: "inception3b", 224: "inception4e"}
    assert attention_layer(make_network("resnet18"), 256) == "layer4.1"
    assert attention_layer(make_network("resnet18"), 8) == "conv1"  # none is fine enough


def test_colours_lie_over_the_right_half_where_attention_is(galaxy_picture: Picture) -> None:
    places = np.zeros((8, 8), np.float32)
    places[:4, :4] = 1
    both = beside_attention(galaxy_picture, places)
    assert both.shape == (64, 128, 3)
    left, right = both[:, :64], both[:, 64:]
    np.testing.assert_array_equal(left, galaxy_picture)
    np.testing.assert_array_equal(right[40:, 40:], galaxy_picture[40:, 40:])
    assert right[:24, :24].mean(axis=(0, 1)) == pytest.approx(
        0.4 * galaxy_picture[:24, :24].mean(axis=(0, 1)) + 0.6 * np.array([252, 255, 164]), abs=1
    )
