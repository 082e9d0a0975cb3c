"""Normalization layers of a stack equal torch's to 1e-10 in float64: outputs, gradients and running statistics."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn, vmap
from torch.func import functional_call

from labbench.train.engine.cpu.vmap_normalization import stack_normalizations

RUNS, SAMPLES, CHANNELS = 3, 5, 4

LAYERS: dict[str, Any] = {
    "batch norm": lambda: nn.BatchNorm2d(CHANNELS, momentum=0.3),
    "batch norm without statistics": lambda: nn.BatchNorm2d(CHANNELS, track_running_stats=False),
    "batch norm without weights": lambda: nn.BatchNorm2d(CHANNELS, affine=False),
    "group norm": lambda: nn.GroupNorm(2, CHANNELS),
    "instance norm": lambda: nn.GroupNorm(CHANNELS, CHANNELS),
    "layer norm of images": lambda: nn.GroupNorm(1, CHANNELS, eps=1e-3),
    "group norm without weights": lambda: nn.GroupNorm(2, CHANNELS, affine=False),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("samples_innermost", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_stacked_normalization_equals_torch(name: str, samples_innermost: bool, training: bool) -> None:
    torch.manual_seed(0)
    layers = [LAYERS[name]().double().train(training) for _ in range(RUNS)]
    for layer in layers:
        for tensor in [*layer.parameters(), *layer.buffers()]:
            if tensor.is_floating_point():
                tensor.data.uniform_(0.5, 2)
    inputs = torch.randn(RUNS, SAMPLES, CHANNELS, 3, 2, dtype=torch.float64)
    if samples_innermost:
        inputs = inputs.movedim(1, -1).contiguous().movedim(-1, 1)
    inputs.requires_grad_()
    stack = copy.deepcopy(layers[0])
    stack_normalizations(stack)
    names = [name for name, _ in stack.named_parameters()]
    parameters = {
        name: torch.stack([layer.get_parameter(name) for layer in layers]).detach().requires_grad_() for name in names
    }
    buffers = {
        name: torch.stack([layer.get_buffer(name) for layer in layers]).clone() for name, _ in stack.named_buffers()
    }
    ours = vmap(lambda p, b, x: functional_call(stack, {**p, **b}, (x,)))(parameters, buffers, inputs)
    theirs = torch.stack([layer(inputs[run]) for run, layer in enumerate(layers)])
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    for buffer_name, buffer in buffers.items():
        expected = torch.stack([layer.get_buffer(buffer_name) for layer in layers])
        torch.testing.assert_close(buffer, expected, rtol=1e-10, atol=1e-12)

    weights: Tensor = torch.randn_like(theirs)
    our_gradients = torch.autograd.grad(ours, [inputs, *parameters.values()], weights)
    per_run = [layer.get_parameter(name) for name in names for layer in layers]
    their_inputs, *their_gradients = torch.autograd.grad(theirs, [inputs, *per_run], weights)
    torch.testing.assert_close(our_gradients[0], their_inputs, rtol=1e-10, atol=1e-12)
    for index, gradient in enumerate(our_gradients[1:]):
        stacked = torch.stack(their_gradients[index * RUNS : (index + 1) * RUNS])
        torch.testing.assert_close(gradient, stacked, rtol=1e-10, atol=1e-12)
