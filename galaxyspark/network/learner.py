"""A network and how one step of all ranks makes it better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa  # noqa: F401  (before torch, as petastorm asks)

import horovod.torch as hvd  # isort: skip
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from galaxyspark.dataset.read import Batch
from galaxyspark.network.compiled_layers import with_compiled_layers
from galaxyspark.network.devices import to_device
from galaxyspark.network.networks import ARCHITECTURES, build_network, heads_of, outputs_of_heads, to_input
from galaxyspark.network.objectives import Objective
from galaxyspark.settings import TrainSettings


class NotFiniteError(Exception):
    """The loss or the gradient of a step is not a finite number; the weights are as they were before."""


@dataclass(frozen=True)
class Step:
    """What all ranks know after a step.

    Attributes:
        loss: Mean over the views of all ranks.
        stop: Whether a rank was asked to stop.
    """

    loss: float
    stop: bool


class Learner:
    """The network, its optimizer and its average over the steps, on one rank."""

    def __init__(self, settings: TrainSettings, objective: Objective, seed: int, device: torch.device) -> None:
        """Build the network and take the weights of rank 0.

        Raises:
            UserError: The weights that training is to start from cannot be had.
        """
        self.settings, self.objective, self.seed, self.device = settings, objective, seed, device
        self.architecture = ARCHITECTURES[settings.network]
        torch.manual_seed(seed)
        # Inputs are channels-last, weights are not: as fast, and Horovod takes contiguous tensors only.
        self.network = build_network(settings.network, objective.num_outputs, settings.weights).to(device)
        if device.type == "cpu":
            with_compiled_layers(self.network)
        self.heads = {id(weight) for weight in heads_of(settings.network, self.network)}
        self.peak_rate = settings.learning_rate * math.sqrt(hvd.size())
        self.optimizer = self._optimizer()
        hvd.broadcast_parameters(self.network.state_dict(), root_rank=0)
        self.average = AveragedModel(self.network, multi_avg_fn=self._average, use_buffers=True)
        self.freeze(False)

    def _optimizer(self) -> Any:
        return hvd.DistributedOptimizer(self._adamw(), named_parameters=self.network.named_parameters())

    def _adamw(self) -> torch.optim.Optimizer:
        """AdamW, its weights in groups: new or pretrained, with weight decay or, as all vectors are, without."""
        pretrained = 1.0 if self.settings.weights == "none" else self.settings.pretrained_rate
        groups: dict[tuple[bool, bool], list[Tensor]] = {}
        for weight in self.network.parameters():
            groups.setdefault((id(weight) in self.heads, weight.ndim > 1), []).append(weight)
        return torch.optim.AdamW(
            [
                {
                    "params": weights,
                    "new": new,
                    "rate": 1.0 if new else pretrained,
                    "weight_decay": self.settings.weight_decay if decays else 0.0,
                }
                for (new, decays), weights in groups.items()
            ],
            lr=self.peak_rate,
            fused=True,
        )

    def _average(self, averaged: Any, current: Any, num_averaged: Any) -> None:
        """Exponential moving average, in place, that at first forgets faster than its decay would let it."""
        steps = int(num_averaged)
        decay = min(self.settings.ema_decay, (1 + steps) / (10 + steps))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - decay)
        else:  # the number of batches seen
            torch._foreach_copy_(averaged, current)

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and published: the average where there is one, up to date on rank 0 only."""
        return self.average.module if self.settings.ema_decay else self.network

    def freeze(self, frozen: bool) -> None:
        """Let the last layers alone learn, or all: what is frozen gets no gradient, no decay and no new statistics."""
        self.frozen = frozen
        self.network.train()
        for module in self.network.modules():
            own = list(module.parameters(recurse=False))
            for weight in own:
                weight.requires_grad_(not frozen or id(weight) in self.heads)
            if own and not any(weight.requires_grad for weight in own):
                module.eval()

    def step(self, batch: Batch, views_of_all: int, number: int, rate: float, stop: bool) -> Step:
        """One step: its gradient is that of the mean loss over the views of all ranks.

        Args:
            batch: This rank's views.
            views_of_all: How many views all ranks have in this step.
            number: Of the step, from 0 on; what is random depends on the seed, on this and on the rank.
            rate: Learning rate, as a share of its peak.
            stop: Whether this rank was asked to stop.

        Raises:
            NotFiniteError: On all ranks, before the step.
        """
        torch.manual_seed(_seed_of(self.seed, number, hvd.rank()))
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_rate * group["rate"] * rate if group["new"] or not self.frozen else 0.0
        self.optimizer.zero_grad()
        loss = self._loss(batch) * (len(batch.images) * hvd.size() / views_of_all)
        # On the loss's own device: asking a GPU for it here would wait until it has caught up.
        told = hvd.allreduce_async(torch.stack([loss.detach(), torch.full_like(loss, float(stop))]), name="told")
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.synchronize()
        for weight in self.network.parameters():
            if not weight.requires_grad:  # Horovod has made it a gradient of zeros, which Adam would remember
                weight.grad = None
        gradients = [weight.grad for weight in self.network.parameters() if weight.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients))
        mean_loss, stopping = hvd.synchronize(told).tolist()
        if not math.isfinite(mean_loss + norm):
            raise NotFiniteError(_what_is_not_finite(float(loss.detach())))
        if norm > (self.settings.max_gradient_norm or math.inf):
            nn.utils.clip_grads_with_norm_(
                self.network.parameters(), self.settings.max_gradient_norm, torch.tensor(norm)
            )
        with self.optimizer.skip_synchronize():
            self.optimizer.step()
        if hvd.rank() == 0 and self.settings.ema_decay:
            self.average.update_parameters(self.network)
        return Step(mean_loss, stop=stopping > 0)

    def _loss(self, batch: Batch) -> Tensor:
        images, classes, votes = (to_device(array, self.device) for array in (batch.images, batch.classes, batch.votes))
        if self.settings.turn_views:
            images = turned(images)
        inputs = to_input(images, self.architecture.pixel_mean, self.architecture.pixel_std)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            output = self.network(inputs)
        heads = outputs_of_heads(output)
        return torch.stack([weight * self.objective.loss(logits, classes, votes) for logits, weight in heads]).sum()

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on beside its batch."""
        return {name: getattr(self, name).state_dict() for name in ("network", "average", "optimizer")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what ``state_dict`` gave."""
        for name in ("network", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])


def turned(images: Tensor) -> Tensor:
    """Turn every image by one of a square's eight symmetries, at random, each equally likely.

    Quarter turns and flips move pixels without mixing them. They make no difference to what a galaxy is, unless its
    handedness is asked for, which the stored views do not keep either.

    Args:
        images: shape (views, size, size, channels).

    Returns:
        The same shape and type, contiguous: of it come channels-last inputs, others make a network slower.
    """
    symmetry_of = torch.randint(8, (len(images),))
    order = to_device(symmetry_of.argsort(), images.device)
    groups = torch.split(images.index_select(0, order), symmetry_of.bincount(minlength=8).tolist())
    mirrored = [group.flip(1) if symmetry >= 4 else group for symmetry, group in enumerate(groups)]
    result = torch.cat([torch.rot90(group, symmetry % 4, (1, 2)) for symmetry, group in enumerate(mirrored)])
    return result.index_select(0, order.argsort())


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def _what_is_not_finite(loss: float) -> str:
    """Found by all ranks together."""
    losses = hvd.allgather_object(loss)
    broken = [rank for rank, value in enumerate(losses) if not math.isfinite(value)]
    return f"the loss of rank {broken[0]} is {losses[broken[0]]}" if broken else "the gradient is not finite"
