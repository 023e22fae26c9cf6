"""Encoded views to features and probabilities, against PIL and torchvision in single precision."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import GoogLeNet

from galaxyspark.features.inference import Inference, Runtime, infer
from galaxyspark.features.openvino_runtime import OpenVinoProgram
from galaxyspark.features.programs import make_program
from galaxyspark.features.torch_runtime import TorchProgram
from galaxyspark.galaxyzoo.tree import largest_violation
from galaxyspark.network.card import ModelCard
from galaxyspark.network.devices import decode_on
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


@pytest.fixture(scope="module", params=["torch float32", "torch bfloat16", "openvino float32", "openvino bfloat16"])
def named_runtime(request: pytest.FixtureRequest, original: GoogLeNet) -> tuple[str, Runtime]:
    name, precision = request.param.split()
    # As Spark sends it to its workers.
    program = pickle.loads(pickle.dumps(make_program(CARD, original.state_dict(), name, precision)))
    return precision, program.load(num_threads=1)


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    """Views of very different colours and textures: a mix-up of channels or of rows shows."""
    random = np.random.default_rng(6)
    files = []
    colours = ((255, 20, 0), (0, 20, 255), (200, 200, 200), (10, 160, 30), (0, 0, 0))
    for colour in 4 * colours:  # more than OpenVINO takes at once
        pixels = np.array(colour) * random.uniform(0.3, 1, (64, 64, 1))
        stream = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=95)
        files.append(stream.getvalue())
    return files


@pytest.fixture(scope="module")
def expected(original: GoogLeNet, jpegs: list[bytes]) -> Inference:
    """By torchvision alone, in float32."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    inputs = torch.stack([transform(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs])
    pooled: list[torch.Tensor] = []
    hook = original.dropout.register_forward_hook(lambda _, inputs, __: pooled.append(inputs[0]))
    with torch.no_grad():
        logits = original(inputs)
    hook.remove()
    return Inference(pooled[0].numpy(), torch.softmax(logits, dim=1).numpy())


def cosines(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(others, axis=1)
    return (features * others).sum(axis=1) / lengths


def test_every_runtime_says_what_torchvision_says(
    named_runtime: tuple[str, Runtime], expected: Inference, jpegs: list[bytes]
) -> None:
    precision, runtime = named_runtime
    inference = infer(runtime, jpegs)
    assert inference.features.shape == (len(jpegs), 1024)
    assert (inference.features.dtype, inference.probabilities.dtype) == (np.float32, np.float32)
    assert inference.votes is None
    least, tolerance = {"float32": (0.99999, 1e-3), "bfloat16": (0.999, 0.03)}[precision]
    assert cosines(inference.features, expected.features).min() > least
    np.testing.assert_allclose(inference.probabilities, expected.probabilities, atol=tolerance)
    np.testing.assert_allclose(inference.probabilities.sum(axis=1), 1, atol=1e-5)


def test_a_view_does_not_depend_on_those_beside_it(named_runtime: tuple[str, Runtime], jpegs: list[bytes]) -> None:
    _, runtime = named_runtime
    together = infer(runtime, jpegs[::-1])
    for position, jpeg in list(enumerate(jpegs[::-1]))[::4]:
        alone = infer(runtime, [jpeg])
        np.testing.assert_allclose(alone.probabilities[0], together.probabilities[position], atol=0.03)
        assert cosines(alone.features, together.features[[position]])[0] > 0.999


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_votes_obey_the_tree_and_hold_the_probabilities(name: str, jpegs: list[bytes]) -> None:
    torch.manual_seed(2)
    state = GoogLeNet(num_classes=37, aux_logits=True, transform_input=False, init_weights=False).state_dict()
    runtime = make_program(replace(CARD, objective="votes"), state, name, "float32").load(num_threads=1)
    inference = infer(runtime, jpegs)
    assert inference.votes.shape == (len(jpegs), 37)
    assert largest_violation(inference.votes).max() < 1e-5
    np.testing.assert_allclose(inference.votes[:, :3], inference.probabilities)


def test_torchvision_decodes_views_as_pillow_does(jpegs: list[bytes]) -> None:
    """The way to nvJPEG, as far as it goes on a processor."""
    decoded = decode_on(torch.device("cpu"), jpegs)
    expected = np.stack([np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs])
    assert (decoded.shape, decoded.dtype) == (expected.shape, torch.uint8)
    assert np.abs(decoded.numpy().astype(int) - expected).max() <= 2


def test_without_a_gpu_openvino_is_chosen_and_with_one_torch(original: GoogLeNet) -> None:
    programs = {
        on_gpus: make_program(CARD, original.state_dict(), "auto", "bfloat16", on_gpus) for on_gpus in (False, True)
    }
    assert isinstance(programs[True], TorchProgram)
    assert isinstance(programs[False], TorchProgram if torch.cuda.is_available() else OpenVinoProgram)


def test_a_worker_that_runs_openvino_does_without_torch(original: GoogLeNet, tmp_path: Path) -> None:
    file = tmp_path / "program.pickle"
    file.write_bytes(pickle.dumps(make_program(CARD, original.state_dict(), "openvino", "float32")))
    code = (
        "import pickle, sys; runtime = pickle.load(open(sys.argv[1], 'rb')).load(1); import numpy as np; "
        "runtime(np.zeros((3, 64, 64, 3), np.uint8)); print('torch' in sys.modules)"
    )
    completed = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "False"
