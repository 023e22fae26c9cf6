"""Layers compiled for training on processors, in place of torchvision's: the same weights, results and names of both.

Torch's layers do one thing each and go over memory for it, which is what a step waits for between convolutions. These
do what GoogLeNet has in a row at once. Convolutions stay torch's, which is to say oneDNN's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torchvision.models.googlenet import BasicConv2d, Inception

WHY_MISSING: str | None = None
"""Why the compiled layers cannot be used; None where they can."""

try:
    import galaxyspark_kernels  # noqa: F401  (makes torch.ops.galaxyspark)
except ImportError as error:
    WHY_MISSING = str(error)


def with_compiled_layers(network: nn.Module) -> nn.Module:
    """The network itself, its blocks and pools turned into those of this file, where set-up has compiled them.

    They are used in training, for bfloat16 on a processor; for all else they do what they did before.
    """
    if WHY_MISSING is None:
        for module in network.modules():
            if not isinstance(module, nn.MaxPool2d) or _can_pool(module):
                module.__class__ = _COMPILED.get(type(module), type(module))
    return network


def normalised_relu(norms: Sequence[nn.BatchNorm2d], inputs: Sequence[Tensor]) -> Tensor:
    """ReLU of batch normalisations, whose running statistics are moved as torch does, joined along the channels.

    Args:
        norms: With weights and running statistics in float32.
        inputs: One for each, shape (views, channels, height, width), with an even number of channels; they may be some
            channels of a tensor.

    Returns:
        shape (views, all channels, height, width), of the inputs' type.
    """
    pairs = list(zip(norms, inputs, strict=True))
    if not all(norm.training and _fits(values) and values[:, 0].numel() > 1 for norm, values in pairs):
        outputs = [functional.relu(norm(values), inplace=True) for norm, values in pairs]
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]
    for norm in norms:
        norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    weights, biases = ([getattr(norm, name) for norm in norms] for name in ("weight", "bias"))
    return _NormalisedRelu.apply(norms, *inputs, *weights, *biases)  # type: ignore[no-untyped-call]


class CompiledConvolution(BasicConv2d):  # type: ignore[misc]
    """Convolution, batch normalisation, ReLU."""

    def forward(self, inputs: Tensor) -> Tensor:
        """As torchvision's."""
        return normalised_relu([self.bn], [self.conv(inputs)])


class CompiledInception(Inception):  # type: ignore[misc]
    """An inception block whose three convolutions of one pixel that take the block's input are one convolution."""

    def forward(self, inputs: Tensor) -> Tensor:
        """As torchvision's."""
        if not (self.training and _fits(inputs)):
            return super().forward(inputs)
        weights = [block.conv.weight for block in (self.branch1, self.branch2[0], self.branch3[0])]
        joint = functional.conv2d(inputs, torch.cat(weights))
        one, two, three = torch.split(joint, [len(weight) for weight in weights], dim=1)
        last = self.branch1, self.branch2[1], self.branch3[1], self.branch4[1]
        outputs = [
            one,
            self.branch2[1].conv(normalised_relu([self.branch2[0].bn], [two])),
            self.branch3[1].conv(normalised_relu([self.branch3[0].bn], [three])),
            self.branch4[1].conv(self.branch4[0](inputs)),
        ]
        return normalised_relu([block.bn for block in last], outputs)


class CompiledMaxPool(nn.MaxPool2d):
    """Max pooling that keeps where a maximum was in one byte of eight."""

    def forward(self, inputs: Tensor) -> Tensor:
        """As torch's, of 32 channels or more and in square windows of at most 16 x 16 pixels that are not dilated."""
        if not (self.training and _fits(inputs)):
            return super().forward(inputs)
        height, width = super().forward(torch.empty_like(inputs, device="meta")).shape[2:]
        window = (self.kernel_size, self.stride, self.padding)
        return _MaxPool.apply(inputs, window, (height, width))  # type: ignore[no-untyped-call]


_COMPILED: dict[type, type] = {
    BasicConv2d: CompiledConvolution,
    Inception: CompiledInception,
    nn.MaxPool2d: CompiledMaxPool,
}


def _can_pool(pool: nn.MaxPool2d) -> bool:
    return isinstance(pool.kernel_size, int) and pool.dilation == 1 and not pool.return_indices


def _fits(inputs: Tensor) -> bool:
    return inputs.dtype == torch.bfloat16 and inputs.device.type == "cpu"


class _NormalisedRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, norms: Sequence[nn.BatchNorm2d], *tensors: Tensor) -> Tensor:
        """The tensors are all inputs, then all weights, then all biases."""
        inputs = tensors[: len(norms)]
        channels = [values.shape[1] for values in inputs]
        views, _, *size = inputs[0].shape
        outputs = torch.empty(views, sum(channels), *size, dtype=inputs[0].dtype, memory_format=torch.channels_last)
        kept = [
            torch.ops.galaxyspark.batch_norm_relu(
                values, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps, output
            )
            for norm, values, output in zip(norms, inputs, torch.split(outputs, channels, dim=1), strict=True)
        ]
        ctx.save_for_backward(*inputs, *kept)
        ctx.channels = channels
        return outputs

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, kept = ctx.saved_tensors[: len(ctx.channels)], ctx.saved_tensors[len(ctx.channels) :]
        backward = torch.ops.galaxyspark.batch_norm_relu_backward
        gradients = map(backward, torch.split(gradient, ctx.channels, dim=1), inputs, kept)
        of_inputs, of_weights, of_biases = zip(*gradients, strict=True)
        return None, *of_inputs, *of_weights, *of_biases


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, window: tuple[int, int, int], pooled: tuple[int, int]) -> Tensor:
        outputs, places = torch.ops.galaxyspark.max_pool(inputs, *window, *pooled)
        ctx.save_for_backward(places)
        ctx.window, ctx.size = window, inputs.shape[2:]
        return outputs

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return torch.ops.galaxyspark.max_pool_backward(gradient, *ctx.saved_tensors, *ctx.window, *ctx.size), None, None
