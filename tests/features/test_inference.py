"""Encoded views to features and probabilities, against PIL and torchvision in single precision."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import GoogLeNet

from galaxyspark.features.inference import Classifier
from galaxyspark.network.model import ModelCard
from galaxyspark.views.augment import ViewRecipe

CARD = ModelCard(
    classes=("smooth", "featured", "artifact"),
    recipe=ViewRecipe(
        seed=1, size_px=64, field_of_view=1.0, colour_strength=0.0, colour_axes=((0.0,) * 3,) * 3, jpeg_quality=95
    ),
    training={},
    versions={},
    network="googlenet",
    objective="classes",
    pixel_mean=(127.5, 127.5, 127.5),
    pixel_std=(127.5, 127.5, 127.5),
)


@pytest.fixture(scope="module")
def original() -> GoogLeNet:
    """A network whose batch statistics and last layer make different images different."""
    torch.manual_seed(4)
    network = GoogLeNet(num_classes=3, aux_logits=True, transform_input=False, init_weights=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(2 * torch.rand(4, 3, 64, 64) - 1)
        network.fc.weight.mul_(0.2)
        network.fc.bias.copy_(torch.tensor([0.5, 0.0, -0.5]))
    return network.eval()


@pytest.fixture(scope="module")
def classifier(original: GoogLeNet) -> Classifier:
    return Classifier(CARD, original.state_dict(), num_threads=1)


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    """Views of very different colours and textures: a mix-up of channels or of rows shows."""
    random = np.random.default_rng(6)
    files = []
    for colour in ((255, 20, 0), (0, 20, 255), (200, 200, 200), (10, 160, 30), (0, 0, 0)):
        pixels = np.array(colour) * random.uniform(0.3, 1, (64, 64, 1))
        stream = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=95)
        files.append(stream.getvalue())
    return files


@torch.no_grad()
def test_inference_is_torchvisions_own_within_half_precision(
    original: GoogLeNet, classifier: Classifier, jpegs: list[bytes]
) -> None:
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    inputs = torch.stack([transform(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs])
    pooled: list[torch.Tensor] = []
    hook = original.dropout.register_forward_hook(lambda _, inputs, __: pooled.append(inputs[0]))
    logits = original(inputs)
    hook.remove()
    features = pooled[0].numpy()

    inference = classifier.infer(jpegs)
    assert inference.features.shape == (5, 1024)
    assert (inference.features.dtype, inference.probabilities.dtype) == (np.float32, np.float32)
    distances = np.linalg.norm(inference.features[:, None] - features[None], axis=2)
    np.testing.assert_array_equal(distances.argmin(axis=1), range(5))
    assert (distances.diagonal() < 0.05 * np.linalg.norm(features, axis=1)).all()
    np.testing.assert_allclose(inference.probabilities, torch.softmax(logits, dim=1), atol=0.01)
    np.testing.assert_allclose(inference.probabilities.sum(axis=1), 1, atol=1e-5)


def test_a_view_does_not_depend_on_those_beside_it(classifier: Classifier, jpegs: list[bytes]) -> None:
    together = classifier.infer(jpegs[::-1])
    for position, jpeg in enumerate(jpegs[::-1]):
        alone = classifier.infer([jpeg])
        np.testing.assert_allclose(alone.probabilities[0], together.probabilities[position], atol=0.01)
        assert np.linalg.norm(alone.features[0] - together.features[position]) < 0.03 * np.linalg.norm(alone.features)
