"""Training on two real Horovod ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from galaxyspark.network.model import load_card


@pytest.fixture(scope="module")
def manifests(finished_run: Path) -> dict:
    directory = finished_run / "manifests"
    return {stage: json.loads((directory / f"{stage}.json").read_text()) for stage in ("augment", "train")}


@pytest.fixture(scope="module")
def history(finished_run: Path) -> list[dict]:
    return [json.loads(line) for line in (finished_run / "history.jsonl").read_text().splitlines()]


def test_validation_counts_the_whole_split_on_two_ranks(finished_run: Path, history: list[dict]) -> None:
    validation_pdf = pd.read_parquet(finished_run / "views" / "split=validation", columns=["view"])
    assert [row["num_galaxies"] for row in history] == [int((validation_pdf["view"] == 0).sum())] * 2


def test_ranks_make_the_same_number_of_steps(history: list[dict], manifests: dict) -> None:
    """Shards are unequal; an epoch is all training views over what all ranks take in one step, rounded up."""
    per_epoch = -(-manifests["augment"]["counts"]["views"]["train"] // (16 * 2))
    assert [row["step"] for row in history] == [per_epoch, 2 * per_epoch]
    assert manifests["train"]["ranks"] == 2


def test_the_published_model_is_the_best_epochs_checkpoint(finished_run: Path, history: list[dict]) -> None:
    card = load_card(finished_run / "model")
    best = max(row["accuracy"] for row in history)
    assert card.training["chosen"]["accuracy"] == best
    published = load_file(finished_run / "model" / "weights.safetensors")
    checkpoint = load_file(finished_run / "checkpoints" / f"epoch-{card.training['chosen']['epoch']:03d}.safetensors")
    assert published.keys() == checkpoint.keys()
    assert all(torch.equal(published[name], checkpoint[name]) for name in published)


def test_the_card_says_what_the_weights_expect(finished_run: Path, manifests: dict) -> None:
    card = load_card(finished_run / "model")
    assert card.classes == tuple(manifests["augment"]["classes"])
    assert (card.recipe.size_px, card.colour_order, card.network) == (48, "RGB", "googlenet")
    assert card.training["augment"] == manifests["augment"]["id"]
