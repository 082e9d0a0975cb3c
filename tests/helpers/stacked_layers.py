"""Comparison of a stacked layer with the layers of its runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn, vmap
from torch.func import functional_call


def image_batches(*shape: int, samples_innermost: bool) -> Tensor:
    """Return random inputs (S, N, C, H, W) in float64 that require gradients, in one of two memory layouts."""
    inputs = torch.randn(*shape, dtype=torch.float64)
    if samples_innermost:
        inputs = inputs.movedim(1, -1).contiguous().movedim(-1, 1)
    return inputs.requires_grad_()


def assert_stack_equals_layers(stack: nn.Module, layers: Sequence[nn.Module], inputs: Tensor) -> None:
    """Compare outputs, buffers and gradients of `stack`, mapped over runs, with those of one layer per run.

    Args:
        stack: Module whose forward works inside `vmap`.
        layers: The layers of S runs, in float64; `forward` updates their buffers.
        inputs: Inputs, shape (S, N, ...).
    """
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
    for name, buffer in buffers.items():
        expected = torch.stack([layer.get_buffer(name) for layer in layers])
        torch.testing.assert_close(buffer, expected, rtol=1e-10, atol=1e-12)

    weights = torch.randn_like(theirs)
    our_gradients = torch.autograd.grad(ours, [inputs, *parameters.values()], weights)
    per_run = [layer.get_parameter(name) for name in names for layer in layers]
    their_inputs, *their_gradients = torch.autograd.grad(theirs, [inputs, *per_run], weights)
    torch.testing.assert_close(our_gradients[0], their_inputs, rtol=1e-10, atol=1e-12)
    for index, gradient in enumerate(our_gradients[1:]):
        stacked = torch.stack(their_gradients[index * len(layers) : (index + 1) * len(layers)])
        torch.testing.assert_close(gradient, stacked, rtol=1e-10, atol=1e-12)
