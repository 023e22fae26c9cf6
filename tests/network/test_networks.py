"""The networks as built here against torchvision's own, and every way in which weights cannot be had."""

from __future__ import annotations

import copy
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision import transforms
from torchvision.models import GoogLeNet, GoogLeNet_Weights, get_model_weights

from galaxyspark.errors import UserError
from galaxyspark.network.networks import (
    ARCHITECTURES,
    FeatureNetwork,
    build_network,
    heads_of,
    outputs_of_heads,
    to_input,
)

HEADS = {"fc", "aux1.fc2", "aux2.fc2"}


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.from_numpy(np.random.default_rng(5).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def original() -> GoogLeNet:
    """Torchvision's GoogLeNet for 3 classes, in eval mode, with batch statistics that make its output differ by image.

    It takes what ImageNet's preset gives, and turns it into -1 to 1 itself.
    """
    torch.manual_seed(2)
    network = GoogLeNet(num_classes=3, aux_logits=True, transform_input=False, init_weights=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(2 * torch.rand(4, 3, 64, 64) - 1)
    network.transform_input = True
    return network.eval()


@pytest.fixture(scope="module")
def file(original: GoogLeNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "three classes.safetensors"
    save_file(original.state_dict(), file)
    return file


def as_input(pixels: Tensor) -> Tensor:
    return to_input(pixels, ARCHITECTURES["googlenet"].pixel_mean, ARCHITECTURES["googlenet"].pixel_std)


def is_head(name: str) -> bool:
    return name.rpartition(".")[0] in HEADS


@torch.no_grad()
def test_logits_are_those_of_torchvision_on_imagenets_own_preset(original: GoogLeNet, pixels: Tensor) -> None:
    preset = GoogLeNet_Weights.IMAGENET1K_V1.transforms()
    to_preset = transforms.Compose([transforms.ToTensor(), transforms.Normalize(preset.mean, preset.std)])
    expected = original(torch.stack([to_preset(image.numpy()) for image in pixels]))
    assert expected.std(dim=0).min() > 0.01  # the images are told apart

    network = copy.deepcopy(original)
    network.transform_input = False
    features, logits = FeatureNetwork("googlenet", network)(as_input(pixels))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert features.shape == (3, 1024)
    torch.testing.assert_close(features @ original.fc.weight.T + original.fc.bias, expected, rtol=1e-4, atol=1e-4)


def test_input_is_what_torchvisions_transforms_make(pixels: Tensor) -> None:
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    inputs = as_input(pixels)
    torch.testing.assert_close(inputs, torch.stack([transform(image.numpy()) for image in pixels]))
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    every_value = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(-1, -1, -1, 3)
    assert (as_input(every_value).min(), as_input(every_value).max()) == (-1, 1)


@torch.no_grad()
def test_from_scratch_there_are_two_auxiliary_heads() -> None:
    with torch.device("meta"):  # shapes alone
        output = build_network("googlenet", 7, "none").train()(torch.zeros(2, 3, 64, 64))
    assert [head.shape for head in output] == [(2, 7)] * 3


def test_a_file_of_as_many_classes_is_taken_whole(original: GoogLeNet, file: Path) -> None:
    state = build_network("googlenet", 3, str(file)).state_dict()
    assert state.keys() == original.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in original.state_dict().items())


@pytest.mark.parametrize("source", ["file", "imagenet"])
def test_weights_of_other_classes_keep_all_but_the_last_layers(
    source: str, original: GoogLeNet, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "imagenet":  # the weights lie in torch's cache, as after a download
        cached = tmp_path / "hub" / "checkpoints" / Path(GoogLeNet_Weights.IMAGENET1K_V1.url).name
        cached.parent.mkdir(parents=True)
        torch.save(original.state_dict(), cached)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    state = build_network("googlenet", 5, str(file) if source == "file" else "imagenet").state_dict()
    for name, value in original.state_dict().items():
        if is_head(name):
            assert (state[name].shape[0], value.shape[0]) == (5, 3)
        else:
            assert torch.equal(state[name], value), name
    fresh = [state[f"{head}.weight"] for head in HEADS]
    assert all(weight.std() > 0 for weight in fresh)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file"),
        (b"", "not a safetensors file"),
        (b"\x80\x04 a pickle, or a download that broke off", "not a safetensors file"),
        ({"fc.weight": torch.zeros(3, 1024)}, "not weights of googlenet"),
        ({"conv1.conv.weight": torch.zeros(64, 1, 7, 7)}, "not weights of googlenet"),
    ],
    ids=["missing", "empty", "other format", "other network", "other shape"],
)
def test_a_file_that_cannot_be_used_is_named_with_what_to_do(
    content: bytes | dict[str, Tensor] | None, complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "some weights.safetensors"
    if isinstance(content, dict):
        save_file(content, file)
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as error, torch.device("meta"):
        build_network("googlenet", 3, str(file))
    assert str(error.value).startswith(f"--weights {file}: {complaint}")
    assert "--weights none" in str(error.value)


def test_a_directory_is_no_file_of_weights(tmp_path: Path) -> None:
    said = "--weights .*: a directory without model/weights.safetensors"
    with pytest.raises(UserError, match=said), torch.device("meta"):
        build_network("googlenet", 3, str(tmp_path))


@pytest.mark.parametrize(
    "failure",
    [
        URLError("Temporary failure in name resolution"),
        TimeoutError("timed out"),
        ConnectionResetError(104, "Connection reset by peer"),
        RuntimeError("invalid hash value"),
    ],
)
def test_without_network_imagenet_is_one_message_that_offers_none(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(UserError) as error, torch.device("meta"):
        build_network("googlenet", 3, "imagenet")
    message = str(error.value)
    assert message.startswith("--weights imagenet: ")
    assert str(failure) in message
    assert "--weights none" in message
    assert "\n" not in message
    assert error.value.__suppress_context__


def test_the_directory_of_a_run_stands_for_its_model(original: GoogLeNet, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save_file(original.state_dict(), tmp_path / "model" / "weights.safetensors")
    state = build_network("googlenet", 3, str(tmp_path)).state_dict()
    assert all(torch.equal(state[name], value) for name, value in original.state_dict().items())


@pytest.mark.parametrize("name", list(ARCHITECTURES))
@torch.no_grad()
def test_every_network_gives_logits_and_the_features_they_are_made_of(name: str, pixels: Tensor) -> None:
    torch.manual_seed(1)
    network = build_network(name, 5).eval()
    inputs = to_input(pixels, ARCHITECTURES[name].pixel_mean, ARCHITECTURES[name].pixel_std)
    expected = network(inputs)
    last = network.get_submodule(ARCHITECTURES[name].last_layers[0])
    features, logits = FeatureNetwork(name, network)(inputs)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(last(features), expected, rtol=1e-4, atol=1e-4)
    widths = {"googlenet": 1024, "resnet18": 512, "resnet50": 2048, "efficientnet_v2_s": 1280, "convnext_tiny": 768}
    assert features.shape[1] == widths[name]


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "googlenet"])
def test_the_normalisation_is_that_of_torchvisions_published_weights(name: str) -> None:
    preset = get_model_weights(name).IMAGENET1K_V1.transforms()
    assert ARCHITECTURES[name].pixel_mean == pytest.approx([255 * mean for mean in preset.mean])
    assert ARCHITECTURES[name].pixel_std == pytest.approx([255 * std for std in preset.std])


def test_auxiliary_heads_weigh_three_tenths_each() -> None:
    with torch.device("meta"):
        networks = {name: build_network(name, 3).train() for name in ("googlenet", "resnet18")}
        weights = {name: [w for _, w in outputs_of_heads(n(torch.zeros(2, 3, 64, 64)))] for name, n in networks.items()}
    assert weights == {"googlenet": [1.0, 0.3, 0.3], "resnet18": [1.0]}


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        (
            "googlenet",
            {
                "fc",
                "aux1.conv.conv",
                "aux1.conv.bn",
                "aux1.fc1",
                "aux1.fc2",
                "aux2.conv.conv",
                "aux2.conv.bn",
                "aux2.fc1",
                "aux2.fc2",
            },
        ),
        ("resnet50", {"fc"}),
        ("convnext_tiny", {"classifier.2"}),
    ],
)
def test_what_is_learned_anew_is_the_last_layer_and_the_auxiliary_heads(name: str, heads: set[str]) -> None:
    with torch.device("meta"):
        network = build_network(name, 3)
    new = {id(weight) for weight in heads_of(name, network)}
    assert {key.rpartition(".")[0] for key, weight in network.named_parameters() if id(weight) in new} == heads
