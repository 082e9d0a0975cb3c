"""Convolutions of a stack equal torch's to 1e-10 in float64: outputs and gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn, vmap
from torch.func import functional_call

from helpers.stacked_layers import assert_stack_equals_layers, image_batches
from labbench.train.engine.cpu.vmap_convolution import is_stackable, stack_convolutions

RUNS, SAMPLES, CHANNELS, FILTERS = 3, 5, 2, 4

CASES: list[tuple[type[nn.Module], dict[str, Any]]] = [
    (nn.Conv2d, {"kernel_size": 3, "padding": 1}),
    (nn.Conv2d, {"kernel_size": 3, "stride": 2, "padding": 1}),
    (nn.Conv2d, {"kernel_size": (1, 3), "stride": (2, 1), "padding": (0, 2), "bias": False}),
    (nn.Conv2d, {"kernel_size": 1}),
    (nn.ConvTranspose2d, {"kernel_size": 2, "stride": 2}),
    (nn.ConvTranspose2d, {"kernel_size": (3, 4), "stride": (1, 2), "padding": (1, 2)}),
    (nn.ConvTranspose2d, {"kernel_size": 3, "bias": False}),
]


@pytest.mark.parametrize("samples_innermost", [False, True])
@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_a_stacked_convolution_equals_torch(
    kind: type[nn.Module], settings: dict[str, Any], samples_innermost: bool
) -> None:
    torch.manual_seed(0)
    layers = [kind(CHANNELS, FILTERS, **settings).double() for _ in range(RUNS)]
    inputs = image_batches(RUNS, SAMPLES, CHANNELS, 6, 7, samples_innermost=samples_innermost)
    stack = copy.deepcopy(layers[0])
    assert is_stackable(stack)
    stack_convolutions(stack)
    assert not is_torch_forward(stack)
    assert_stack_equals_layers(stack, layers, inputs)


def is_torch_forward(module: nn.Module) -> bool:
    return "forward" not in vars(module)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 4, 3, groups=2),
        nn.Conv2d(2, 4, 3, dilation=2),
        nn.Conv2d(2, 4, 3, padding="same"),
        nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(2, 4, 3, stride=2, output_padding=1),
        nn.Conv1d(2, 4, 3),
    ],
)
def test_other_convolutions_stay_torchs(layer: nn.Module) -> None:
    stack_convolutions(layer)
    assert is_torch_forward(layer)


def test_a_result_does_not_depend_on_the_number_of_runs() -> None:
    torch.manual_seed(0)
    stack = nn.Conv2d(CHANNELS, FILTERS, 3, padding=1)
    stack_convolutions(stack)
    parameters = {name: torch.randn(8, *p.shape) for name, p in stack.named_parameters()}
    inputs = torch.randn(8, 64, CHANNELS, 8, 8)

    def outputs(runs: int) -> Tensor:
        rows = {name: tensor[:runs] for name, tensor in parameters.items()}
        return vmap(lambda p, x: functional_call(stack, p, (x,)))(rows, inputs[:runs])

    assert torch.equal(outputs(8)[:3], outputs(3))
    assert torch.equal(outputs(8)[:1], outputs(1))


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_diverging_run_overflows_without_a_warning(kind: type[nn.Module]) -> None:
    stack = kind(CHANNELS, FILTERS, kernel_size=3)
    stack_convolutions(stack)
    parameters = {name: torch.full((2, *p.shape), 1e30, requires_grad=True) for name, p in stack.named_parameters()}
    outputs = vmap(lambda p, x: functional_call(stack, p, (x,)))(parameters, torch.full((2, 5, CHANNELS, 6, 6), 1e30))
    outputs.sum().backward()
    assert outputs.isinf().all()
