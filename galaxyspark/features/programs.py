"""From a published model to a program for the runtime that is asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from galaxyspark.features.inference import Program
from galaxyspark.features.torch_runtime import PixelNetwork, TorchProgram
from galaxyspark.network.card import ModelCard
from galaxyspark.settings import Precision, RuntimeName


def make_program(
    card: ModelCard,
    state: dict[str, Tensor],
    runtime: RuntimeName,
    precision: Precision,
    on_gpus: bool = False,
    gpu_decoding: bool = False,
) -> Program:
    """Prepare a network for a runtime.

    Args:
        card: Of the model.
        state: Its weights.
        runtime: torch, openvino, or auto: torch where there are GPUs, else OpenVINO.
        precision: To compute with; see the programs.
        on_gpus: Whether the workers have GPUs, if this process has none.
        gpu_decoding: Whether GPUs are to decode views too.
    """
    if runtime == "auto":
        runtime = "torch" if on_gpus or torch.cuda.is_available() else "openvino"
    if runtime == "torch":
        return TorchProgram(card, state, precision, gpu_decoding)
    from galaxyspark.features.openvino_runtime import convert

    return convert(PixelNetwork(card, state), card.recipe.size_px, precision)
