"""Where a network computes: on a GPU where there is one, else on the processor."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from galaxyspark.errors import UserError


def device_of(gpu: int | None) -> torch.device:
    """The GPU with this number, from now on this process's own; None: the first, or the processor where there is none.

    Raises:
        UserError: torch sees no GPU with this number here.
    """
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu is None and not num_gpus:
        return torch.device("cpu")
    number = gpu or 0
    if number >= num_gpus:
        raise UserError(
            f"GPU {number} on {platform.node()}: torch can use {num_gpus} GPUs there. Each rank or task needs one, and "
            f"NVIDIA's driver must be new enough for CUDA {torch.version.cuda}."
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def to_device(array: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """An array as a tensor on a device; to a GPU it is copied while the processor goes on."""
    tensor = torch.as_tensor(array)
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


class GpuDecoder:
    """Decodes views on a GPU while the network trains there, called by one thread that is not the network's.

    Not run on a GPU yet. Memory goes back to the stream in which it was asked for: in one stream with the network, the
    decoder, which works in streams of torchvision's own, could write over views that are still to be read.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, jpegs: Sequence[bytes]) -> Tensor:
        """As ``decode_on``, done when it returns."""
        with torch.cuda.stream(self.stream):
            views = decode_on(self.device, jpegs)
        self.stream.synchronize()
        views.record_stream(torch.cuda.default_stream(self.device))
        return views


def decode_on(device: torch.device, jpegs: Sequence[bytes]) -> Tensor:
    """Decode views by torchvision, on a GPU by nvJPEG.

    Returns:
        uint8 pixels 0-255 on the device, shape (views, size, size, 3), colour order RGB.
    """
    files = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
    images: list[Tensor] = decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
    return torch.stack(images).permute(0, 2, 3, 1)
