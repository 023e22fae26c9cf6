"""A network run by OpenVINO on the processor. A worker that runs one never imports torch."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from galaxyspark.features.inference import Inference
from galaxyspark.views.decode import decode_views

BATCH_VIEWS = 16
"""Views that a program is given at once: OpenVINO is fastest where it knows their number beforehand."""


@dataclass(frozen=True)
class OpenVinoProgram:
    """A network in OpenVINO's own form.

    Attributes:
        graph: XML.
        weights: float32, as the graph has them.
        precision: To compute with: bfloat16 where the processor has it, or float32.
    """

    graph: bytes
    weights: bytes
    precision: str

    def load(self, num_threads: int, gpu: int | None = None) -> OpenVinoRuntime:
        """Compile it for this processor; a GPU is left alone."""
        core = openvino.Core()
        has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        settings = {
            "INFERENCE_NUM_THREADS": num_threads,
            "NUM_STREAMS": 1,
            # Else the threads of all workers would sit on the same first cores.
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bfloat16" and has_bfloat16 else "f32",
        }
        model = core.read_model(self.graph, openvino.Tensor(np.frombuffer(self.weights, np.uint8)))
        return OpenVinoRuntime(core.compile_model(model, "CPU", settings))


class OpenVinoRuntime:
    """A compiled program."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled

    def decode(self, jpegs: Sequence[bytes]) -> NDArray[np.uint8]:
        """As ``Runtime`` has it."""
        return decode_views(jpegs)

    def __call__(self, images: NDArray[np.uint8]) -> Inference:
        """As ``Runtime`` has it."""
        parts = [self._run(images[start : start + BATCH_VIEWS]) for start in range(0, len(images), BATCH_VIEWS)]
        return Inference(*(np.concatenate(outputs) for outputs in zip(*parts, strict=True)))

    def _run(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Up to ``BATCH_VIEWS`` of them; the rest of the batch is left black."""
        batch = images
        if len(images) < BATCH_VIEWS:
            batch = np.zeros((BATCH_VIEWS, *images.shape[1:]), np.uint8)
            batch[: len(images)] = images
        # OpenVINO writes the next batch into the same memory.
        return [output[: len(images)].copy() for output in self.compiled(batch).values()]


def convert(network: Any, size_px: int, precision: str) -> OpenVinoProgram:
    """A program of a ``PixelNetwork``, by tracing it; some seconds of work, for the driver.

    Args:
        network: From uint8 images (views, size_px, size_px, 3), RGB, to the fields of ``Inference``.
        size_px: Side of the views.
        precision: bfloat16 or float32.
    """
    import torch  # where programs are run there is none

    images = torch.zeros((BATCH_VIEWS, size_px, size_px, 3), dtype=torch.uint8)
    with torch.inference_mode(), warnings.catch_warnings(action="ignore"):  # that a trace has constants
        model = openvino.convert_model(network, example_input=images, input=tuple(images.shape))
    with tempfile.TemporaryDirectory() as directory:
        graph, weights = Path(directory, "network.xml"), Path(directory, "network.bin")
        openvino.serialize(model, graph, weights)
        return OpenVinoProgram(graph.read_bytes(), weights.read_bytes(), precision)
