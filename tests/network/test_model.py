"""A model on disk: written, read back, and not there or not a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchvision.models import GoogLeNet

from galaxyspark.errors import UserError
from galaxyspark.network.card import ModelCard, load_card
from galaxyspark.network.model import load_network, load_weights, save_model
from galaxyspark.views.augment import ViewRecipe

CARD = ModelCard(
    classes=("smooth", "featured", "artifact"),
    recipe=ViewRecipe(
        seed=4,
        size_px=96,
        field_of_view=1 / 3,
        colour_strength=0.1,
        colour_axes=((1.5, 2.25, -3.1), (0.0, 1e-9, 4.0), (7.0, 8.0, 9.0)),
        jpeg_quality=90,
    ),
    training={"chosen": {"epoch": 3, "accuracy": 0.875}, "settings": {"weights": "none"}},
    versions={"torch": "2.1"},
    network="googlenet",
    objective="classes",
    pixel_mean=(127.5, 127.5, 127.5),
    pixel_std=(127.5, 127.5, 127.5),
)


def test_a_model_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = GoogLeNet(num_classes=3, aux_logits=True, transform_input=False, init_weights=False)
    state = network.state_dict() | {"fc.weight": torch.rand(1024, 3).T}  # not contiguous
    save_model(tmp_path / "run" / "model", state, CARD)

    assert load_card(tmp_path / "run" / "model") == CARD
    read = load_weights(tmp_path / "run" / "model")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in state.items())
    loaded = load_network(CARD, read).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_the_card_tells_another_program_what_an_input_is(tmp_path: Path) -> None:
    save_model(tmp_path / "model", {}, CARD)
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    assert card["classes"] == ["smooth", "featured", "artifact"]
    assert (card["network"], card["colour_order"], card["recipe"]["size_px"]) == ("googlenet", "RGB", 96)
    assert [(0 - mean) / std for mean, std in zip(card["pixel_mean"], card["pixel_std"], strict=True)] == [-1] * 3
    assert [(255 - mean) / std for mean, std in zip(card["pixel_mean"], card["pixel_std"], strict=True)] == [1] * 3


def test_who_may_read_the_card_may_read_the_weights(tmp_path: Path) -> None:
    save_model(tmp_path / "model", {"weight": torch.ones(3)}, CARD)
    modes = {file.name: file.stat().st_mode for file in (tmp_path / "model").iterdir()}
    assert modes["weights.safetensors"] == modes["card.json"]


def test_a_published_model_is_not_overwritten(tmp_path: Path) -> None:
    save_model(tmp_path / "model", {}, CARD)
    with pytest.raises(FileExistsError):
        save_model(tmp_path / "model", {}, CARD)


def test_a_missing_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_card(tmp_path / "nowhere")
    assert str(error.value).startswith(f"{tmp_path / 'nowhere' / 'card.json'}: cannot be read (No such file")
    assert "model/ of a run" in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"classes": ["a"]}', '{"classes": 3, "recipe": {}}', "\udcff"], ids=repr
)
def test_a_card_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as error:
        load_card(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'card.json'}: not the card of a model: ")


@pytest.mark.parametrize("content", [None, b"not weights"])
def test_missing_or_damaged_weights_are_named(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"weights.safetensors: cannot be read .*stage train"):
        load_weights(tmp_path)
