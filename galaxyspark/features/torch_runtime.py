"""A network run by torch, on the GPU where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from galaxyspark.errors import UserError
from galaxyspark.features.inference import Inference
from galaxyspark.memory import keep_freed_memory
from galaxyspark.network.card import ModelCard
from galaxyspark.network.devices import decode_on, device_of, to_device
from galaxyspark.network.model import load_network, objective_of
from galaxyspark.network.networks import FeatureNetwork, to_input
from galaxyspark.settings import Precision
from galaxyspark.views.decode import decode_views

_BATCH_VIEWS = 64
_MOST_VIEWS_ON_GPU = 1_024


class PixelNetwork(nn.Module):
    """From pixels to everything the network says, normalisation included."""

    def __init__(self, card: ModelCard, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.card, self.objective = card, objective_of(card)
        self.network = FeatureNetwork(card.network, load_network(card, state))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """uint8 images (views, size, size, 3) -> float32 features, probabilities and, where it has learned them, votes.

        Shapes (views, 1024 in GoogLeNet), (views, classes) and (views, 37).
        """
        features, logits = self.network(to_input(images, self.card.pixel_mean, self.card.pixel_std))
        with torch.autocast(images.device.type, enabled=False):
            probabilities, votes = self.objective.probabilities(logits), self.objective.votes(logits)
        return (features, probabilities) if votes is None else (features, probabilities, votes)


@dataclass(frozen=True)
class TorchProgram:
    """A network as torch has it.

    Attributes:
        card: What it is.
        state: Its weights.
        precision: To compute with.
        gpu_decoding: Whether a GPU decodes views too.
    """

    card: ModelCard
    state: dict[str, Tensor]
    precision: Precision
    gpu_decoding: bool = False

    def load(self, num_threads: int, gpu: int | None = None) -> TorchRuntime:
        """Build the network in this process.

        Raises:
            UserError: torch sees no GPU with this number here.
        """
        device, network = device_of(gpu), PixelNetwork(self.card, self.state)
        return TorchRuntime(network, num_threads, self.precision, device, self.gpu_decoding)


class TorchRuntime:
    """Channels-last, and in bfloat16 but for the last layer; some views at a time, as memory is not endless."""

    def __init__(
        self,
        network: PixelNetwork,
        num_threads: int,
        precision: Precision,
        device: torch.device,
        gpu_decoding: bool = False,
    ) -> None:
        keep_freed_memory()
        torch.set_num_threads(num_threads)
        self.device, self.network, self.half = device, network.to(device), precision == "bfloat16"
        self.gpu_decoding = gpu_decoding and device.type == "cuda"
        self.batch_views = _BATCH_VIEWS
        if self.device.type == "cuda":
            view_bytes = self.bytes_of_view()
            free_bytes, _ = torch.cuda.mem_get_info(self.device)
            self.batch_views = fitting_batch(free_bytes, view_bytes)

    def decode(self, jpegs: Sequence[bytes]) -> NDArray[np.uint8] | Tensor:
        """As ``Runtime`` has it."""
        return decode_on(self.device, jpegs) if self.gpu_decoding else decode_views(jpegs)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8] | Tensor) -> Inference:
        """As ``Runtime`` has it.

        Raises:
            UserError: The device's memory does not suffice for a single view.
        """
        parts, done = [], 0
        while done < len(images):
            batch = images[done : done + self.batch_views]
            part = self._run_if_it_fits(batch)
            if part is None:
                self._take_smaller_batches(len(batch))
            else:
                parts.append(part)
                done += len(batch)
        return Inference(*(torch.cat(outputs).cpu().numpy() for outputs in zip(*parts, strict=True)))

    @torch.inference_mode()
    def bytes_of_view(self) -> int:
        """What all layers put out for one view, in bytes: more than is in memory at any one time."""
        size_px, sizes = self.network.card.recipe.size_px, []

        def note_size(_: nn.Module, __: Any, output: Tensor) -> None:
            sizes.append(output.nbytes)

        layers = [module for module in self.network.modules() if not list(module.children())]
        with ExitStack() as hooks:
            for layer in layers:
                hooks.callback(layer.register_forward_hook(note_size).remove)
            self._run(np.zeros((1, size_px, size_px, 3), np.uint8))
        return sum(sizes)

    def _run_if_it_fits(self, images: NDArray[np.uint8] | Tensor) -> tuple[Tensor, ...] | None:
        try:
            return self._run(images)
        except torch.OutOfMemoryError:
            return None

    def _run(self, images: NDArray[np.uint8] | Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
            return self.network(to_device(images, self.device))  # type: ignore[no-any-return]

    def _take_smaller_batches(self, too_many: int) -> None:
        """Go on with half as many views at a time, now that the memory of those that were too many is free again."""
        if too_many == 1:
            size_px = self.network.card.recipe.size_px
            raise UserError(
                f"{self.device}: a view of {size_px} px does not fit into its free memory. Is another process using it?"
            )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.batch_views = too_many // 2


def fitting_batch(free_bytes: int, view_bytes: int) -> int:
    """Views to run at a time on a GPU: a power of two that takes half of its free memory at most, from 1 to 1,024.

    The other half is for what libraries need for their work, and for whoever shares the GPU.

    Args:
        free_bytes: Of the GPU's memory.
        view_bytes: That one view takes.
    """
    fitting = max(1, free_bytes // (2 * view_bytes))
    return int(min(_MOST_VIEWS_ON_GPU, 2 ** (fitting.bit_length() - 1)))
