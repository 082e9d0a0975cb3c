"""Recurrent layers of a stack equal torch's to 1e-10 in float64: outputs, final states and gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn, vmap
from torch.func import functional_call

from labbench.train.engine.recurrent import stack_recurrent_layers

RUNS, SAMPLES, STEPS, INPUTS, HIDDEN = 3, 4, 5, 3, 6

LAYERS = {"GRU": nn.GRU, "LSTM": nn.LSTM, "RNN": nn.RNN}
SETTINGS: list[dict[str, Any]] = [
    {"batch_first": True},
    {"num_layers": 2},
    {"bidirectional": True, "num_layers": 2, "batch_first": True},
    {"bias": False},
]


def flatten(results: Any) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else [leaf for part in results for leaf in flatten(part)]


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", [*LAYERS, "ReLU"])
def test_a_stacked_layer_equals_torch(name: str, settings: dict[str, Any], with_state: bool) -> None:
    torch.manual_seed(0)
    settings = {**settings, **({"nonlinearity": "relu"} if name == "ReLU" else {})}
    kind = LAYERS.get(name, nn.RNN)
    layers = [kind(INPUTS, HIDDEN, **settings).double() for _ in range(RUNS)]
    shape = (SAMPLES, STEPS, INPUTS) if settings.get("batch_first") else (STEPS, SAMPLES, INPUTS)
    inputs = torch.randn(RUNS, *shape, dtype=torch.float64, requires_grad=True)
    directions = settings.get("num_layers", 1) * (2 if settings.get("bidirectional") else 1)
    state = torch.randn(RUNS, directions, SAMPLES, HIDDEN, dtype=torch.float64, requires_grad=True)
    leaves = [inputs, state] if with_state else [inputs]
    stack = copy.deepcopy(layers[0])
    stack_recurrent_layers(stack)
    parameters = {n: torch.stack([dict(layer.named_parameters())[n] for layer in layers]).detach().requires_grad_()
                  for n, _ in stack.named_parameters()}  # fmt: skip

    def arguments(inputs: Tensor, state: Tensor) -> tuple[Any, ...]:
        if not with_state:
            return (inputs,)
        return inputs, (state, 2 * state) if name == "LSTM" else state

    ours = vmap(lambda p, x, h: functional_call(stack, p, arguments(x, h)))(parameters, inputs, state)
    theirs = [flatten(layer(*arguments(inputs[run], state[run]))) for run, layer in enumerate(layers)]
    expected = [torch.stack(parts) for parts in zip(*theirs, strict=True)]
    for our_result, their_result in zip(flatten(ours), expected, strict=True):
        torch.testing.assert_close(our_result, their_result, rtol=1e-10, atol=1e-12)

    weights = [torch.randn_like(result) for result in expected]
    our_gradients = torch.autograd.grad(flatten(ours), [*leaves, *parameters.values()], weights)
    per_run = [parameter for layer in layers for parameter in layer.parameters()]
    their_gradients = torch.autograd.grad(expected, [*leaves, *per_run], weights)
    count = len(leaves)
    for our_gradient, their_gradient in zip(our_gradients[:count], their_gradients[:count], strict=True):
        torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-10, atol=1e-12)
    for index, our_gradient in enumerate(our_gradients[count:]):
        stacked = torch.stack(their_gradients[count + index :: len(parameters)])
        torch.testing.assert_close(our_gradient, stacked, rtol=1e-10, atol=1e-12)
