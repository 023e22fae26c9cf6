"""Compiled layers against torch's own, in float64 where rounding matters."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import googlenet, resnet18

from galaxyspark.network import compiled_layers
from galaxyspark.network.compiled_layers import CompiledMaxPool, normalised_relu, with_compiled_layers

EPSILON = 2.0**-8  # of bfloat16, rounded to the nearest


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Two, whatever the machine has: sums of both have to meet."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def random_values(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.bfloat16().contiguous(memory_format=torch.channels_last)


def norm_of(channels: int) -> nn.BatchNorm2d:
    """Its weights of either sign, its statistics not those of the start."""
    norm = nn.BatchNorm2d(channels, eps=0.001)
    for number, values in enumerate((norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var)):
        values.copy_(random_values(channels, 1, 1, 1, seed=number).flatten().float())
    norm.running_var.abs_()
    return norm


def assert_as_torchs(norm: nn.BatchNorm2d, inputs: Tensor, gradient: Tensor) -> None:
    """Outputs, the gradients of inputs and weights, and the running statistics."""
    exact, exact_inputs = copy.deepcopy(norm).double(), inputs.detach().double().requires_grad_()
    inputs = inputs.detach().requires_grad_()
    normalised = exact(exact_inputs)
    # Where rounding decides what ReLU lets through, both are right.
    gradient = gradient * (normalised.abs() > 1e-3)
    outputs, exact_outputs = normalised_relu([norm], [inputs]), functional.relu(normalised)
    assert outputs.dtype == torch.bfloat16
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(outputs.double(), exact_outputs, rtol=EPSILON, atol=1e-4)
    outputs.backward(gradient)
    exact_outputs.backward(gradient.double())
    found = {"inputs": inputs.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    expected = {"inputs": exact_inputs.grad, "weight": exact.weight.grad, "bias": exact.bias.grad}
    for name, value in expected.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(found[name].double(), value, rtol=EPSILON, atol=2e-3 * scale, msg=name)
    for name, value in exact.named_buffers():
        torch.testing.assert_close(norm.get_buffer(name).to(value.dtype), value, rtol=1e-5, atol=1e-6, msg=name)


def test_setup_has_compiled_them() -> None:
    assert compiled_layers.WHY_MISSING is None


@settings(deadline=None)
@given(st.integers(2, 4), st.integers(1, 30).map(lambda half: 2 * half), st.integers(1, 12), st.integers(1, 12))
def test_normalised_relu_is_as_torchs(views: int, channels: int, height: int, width: int) -> None:
    shape = (views, channels, height, width)
    assert_as_torchs(norm_of(channels), random_values(*shape), random_values(*shape, seed=1))


def test_some_channels_of_a_tensor_are_normalised_as_alone() -> None:
    inputs, gradient = random_values(3, 64, 9, 7), random_values(3, 64, 9, 7, seed=1)
    assert_as_torchs(norm_of(24), inputs[:, 16:40], gradient[:, 40:])


def test_several_are_joined_along_the_channels() -> None:
    together, alone = ([norm_of(16), norm_of(40), norm_of(8)] for _ in range(2))
    inputs = [random_values(3, norm.num_features, 9, 7, seed=norm.num_features).requires_grad_() for norm in together]
    copies = [values.detach().clone().requires_grad_() for values in inputs]
    outputs = normalised_relu(together, inputs)
    expected = torch.cat([normalised_relu([norm], [values]) for norm, values in zip(alone, copies, strict=True)], dim=1)
    assert outputs.equal(expected)
    gradient = random_values(*outputs.shape, seed=1)
    outputs.backward(gradient)
    expected.backward(gradient)
    for ours, theirs in zip(inputs, copies, strict=True):
        assert ours.grad.equal(theirs.grad)
    for norm, other in zip(together, alone, strict=True):
        assert norm.weight.grad.equal(other.weight.grad)
        assert norm.bias.grad.equal(other.bias.grad)
        assert norm.running_mean.equal(other.running_mean)


def test_memory_of_another_order_is_normalised_too() -> None:
    inputs, gradient = (random_values(3, 8, 9, 7, seed=seed).contiguous() for seed in range(2))
    assert_as_torchs(norm_of(8), inputs, gradient)


def test_more_rows_than_float32_can_sum() -> None:
    shape = (2, 2, 2048, 1024)
    assert_as_torchs(norm_of(2), 1 + random_values(*shape) / 64, random_values(*shape, seed=1))


@pytest.mark.parametrize("far", [90.0, -3e4])
def test_the_variance_keeps_its_digits_whatever_the_mean_and_the_first_pixel(far: float) -> None:
    inputs = 128 + random_values(8, 16, 64, 64).sign()
    inputs[0, ::2, 0, 0] = far
    norm, exact = nn.BatchNorm2d(16, momentum=1.0), nn.BatchNorm2d(16, momentum=1.0).double()
    normalised_relu([norm], [inputs])
    exact(inputs.double())
    torch.testing.assert_close(norm.running_mean.double(), exact.running_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(norm.running_var.double(), exact.running_var, rtol=1e-5, atol=0)


def test_the_variance_of_equal_values_is_not_less_than_zero() -> None:
    norm = nn.BatchNorm2d(2, momentum=1.0)
    normalised_relu([norm], [torch.full((2, 2, 300, 301), 1.7, dtype=torch.bfloat16)])
    assert norm.running_var.tolist() == pytest.approx([0.0, 0.0], abs=1e-7)
    assert (norm.running_var >= 0).all()


def test_the_same_inputs_give_the_same_bits() -> None:
    inputs = random_values(4, 48, 20, 20)
    first, second = (normalised_relu([norm_of(48)], [inputs]) for _ in range(2))
    assert first.equal(second)


def test_frozen_statistics_stay() -> None:
    norm = norm_of(16).eval()
    before = copy.deepcopy(norm.state_dict())
    inputs = random_values(2, 16, 5, 5)
    expected = functional.relu(norm(inputs))
    assert normalised_relu([norm], [inputs]).equal(expected)
    assert all(value.equal(before[name]) for name, value in norm.state_dict().items())


def test_one_value_has_no_variance() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        normalised_relu([norm_of(16)], [random_values(1, 16, 1, 1)])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_not_lost(bad: float) -> None:
    inputs = random_values(2, 32, 6, 6)
    inputs[1, 3, 2, 2] = bad
    outputs = normalised_relu([norm_of(32)], [inputs])
    assert outputs[:, 3].isnan().any()
    assert CompiledMaxPool(3, 1, 1)(outputs)[:, 3].isnan().any()
    assert outputs[:, 4].isfinite().all()


windows = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2)).filter(
    lambda window: 2 * window[2] <= window[0]
)


@settings(deadline=None)
@given(st.integers(32, 70), st.integers(4, 12), st.integers(4, 12), windows, st.booleans())
def test_pools_are_as_torchs(
    channels: int, height: int, width: int, window: tuple[int, int, int], ceil_mode: bool
) -> None:
    """With whole numbers, of which windows have equal ones, of either sign."""
    inputs = (
        random_values(2, channels, height, width).round() + 0.0
    ).requires_grad_()  # without -0, which is less here
    exact = inputs.detach().double().requires_grad_()
    outputs = CompiledMaxPool(*window, ceil_mode=ceil_mode)(inputs)
    expected = nn.MaxPool2d(*window, ceil_mode=ceil_mode)(exact)
    assert outputs.double().equal(expected)
    gradient = random_values(*outputs.shape, seed=1)
    outputs.backward(gradient)
    expected.backward(gradient.double())
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad.double(), exact.grad, rtol=EPSILON, atol=1e-6)


def test_what_a_pool_cannot_take_is_refused() -> None:
    with pytest.raises(RuntimeError, match="32 channels"):
        CompiledMaxPool(3)(random_values(2, 16, 8, 8))


def step(network: nn.Module, inputs: Tensor, classes: Tensor) -> float:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = network(inputs)
    heads = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    loss = torch.stack([functional.cross_entropy(head.float(), classes) for head in heads]).sum()
    loss.backward()
    return loss.item()


@pytest.mark.parametrize("build", [googlenet, resnet18])
def test_a_network_learns_as_torchvisions(build: Callable[..., nn.Module]) -> None:
    """Loss, gradients and running statistics of a step, no farther from float64 than torch's own bfloat16 is."""
    torch.manual_seed(0)
    arguments = {"num_classes": 3} | ({"init_weights": True} if build is googlenet else {})
    plain = build(weights=None, **arguments).train()
    for module in plain.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    ours = with_compiled_layers(copy.deepcopy(plain))
    exact = copy.deepcopy(plain)
    inputs = torch.randn(8, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    classes = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    losses = [step(network, inputs, classes) for network in (plain, ours)]
    with torch.autocast("cpu", enabled=False):
        outputs = exact.double()(inputs.double())
    heads = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    expected = sum(functional.cross_entropy(head, classes) for head in heads)
    expected.backward()
    errors = [abs(loss - expected.item()) for loss in losses]
    assert errors[1] < 2 * errors[0] + 0.01

    def distances(network: nn.Module) -> float:
        squares = [
            float(((a.grad - b.grad).norm() / b.grad.norm()) ** 2)
            for a, b in zip(network.parameters(), exact.parameters(), strict=True)
            if float(b.grad.norm()) > 1e-6
        ]
        return math.sqrt(sum(squares) / len(squares))

    assert distances(ours) < 1.2 * distances(plain)
    for (name, found), value in zip(ours.named_buffers(), exact.buffers(), strict=True):
        assert (found - value).double().norm() <= 0.05 * value.double().norm() + 1e-3, name


def test_what_has_another_type_is_torchvisions() -> None:
    torch.manual_seed(0)
    plain = googlenet(weights=None, num_classes=3, init_weights=True, dropout=0.0, dropout_aux=0.0).train()
    ours = with_compiled_layers(copy.deepcopy(plain))
    inputs = torch.randn(2, 3, 64, 64)
    assert all(a.equal(b) for a, b in zip(ours(inputs), plain(inputs), strict=True))
    assert all(a.equal(b) for a, b in zip(ours.state_dict().values(), plain.state_dict().values(), strict=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours.eval()(inputs).equal(plain.eval()(inputs))


def test_a_frozen_network_keeps_its_statistics_and_only_its_last_layer_learns() -> None:
    torch.manual_seed(0)
    plain = googlenet(weights=None, num_classes=3, init_weights=True, dropout=0.0, dropout_aux=0.0).train()
    for module in plain.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.eval().requires_grad_(False)
    ours = with_compiled_layers(copy.deepcopy(plain))
    before = copy.deepcopy(ours.state_dict())
    inputs, classes = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
    assert step(ours, inputs, classes) == pytest.approx(step(plain, inputs, classes), abs=0.02)
    assert all(value.equal(before[name]) for name, value in ours.state_dict().items())
    torch.testing.assert_close(ours.fc.weight.grad, plain.fc.weight.grad, rtol=0.05, atol=1e-3)


def test_pools_of_other_kinds_stay_torchs() -> None:
    pools = [nn.MaxPool2d(3, dilation=2), nn.MaxPool2d((3, 2)), nn.MaxPool2d(2, return_indices=True), nn.MaxPool2d(2)]
    types = [type(module) for module in with_compiled_layers(nn.Sequential(*pools))]
    assert types == [nn.MaxPool2d, nn.MaxPool2d, nn.MaxPool2d, CompiledMaxPool]


def test_a_copy_has_weights_of_its_own() -> None:
    ours = with_compiled_layers(googlenet(weights=None, num_classes=3, init_weights=True)).train()
    copied = copy.deepcopy(ours)
    before = copy.deepcopy(ours.state_dict())
    step(copied, torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0]))
    assert all(value.equal(before[name]) for name, value in ours.state_dict().items())
    assert not copied.conv1.bn.running_mean.equal(before["conv1.bn.running_mean"])


def test_where_nothing_was_compiled_a_network_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_layers, "WHY_MISSING", "for a test")
    network = googlenet(weights=None, num_classes=3, init_weights=True)
    types = [type(module) for module in network.modules()]
    assert [type(module) for module in with_compiled_layers(network).modules()] == types
