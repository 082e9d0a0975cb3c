"""Normalization layers of a stack equal torch's to 1e-10 in float64: outputs, gradients and running statistics."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from helpers.stacked_layers import assert_stack_equals_layers, image_batches
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
    inputs = image_batches(RUNS, SAMPLES, CHANNELS, 3, 2, samples_innermost=samples_innermost)
    stack = copy.deepcopy(layers[0])
    stack_normalizations(stack)
    assert_stack_equals_layers(stack, layers, inputs)
