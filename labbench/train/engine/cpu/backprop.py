"""Backpropagation through a Sequential of supported layers on a CPU, without an autograd graph.

Reverse-mode differentiation as in Rumelhart, Hinton & Williams (1986): each layer kernel maps d loss / d outputs to
d loss / d inputs and to the gradients of its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from labbench.train.engine.cpu import kernels
from labbench.train.engine.cpu.kernels import AutogradKernel
from labbench.train.engine.cpu.layer_kernel import NO_FLOAT_WARNINGS, Array, LayerArrays, LayerKernel
from labbench.train.engine.dropout import SeededDropout
from labbench.train.engine.freezing import EVAL_MODE_ATTRIBUTE
from labbench.train.engine.layers import list_layers

BATCH_NORMS = nn.BatchNorm1d, nn.BatchNorm2d

MIN_EVALUATION_SAMPLES = 64
"""Minimum number of samples per part of an evaluation; with fewer, most of the time is spent starting operations."""


class Backprop:
    """Forward and backward passes of a model for S runs.

    The caller passes the parameters to each call. One instance serves all tiles of a stack, one after another, so that
    its buffers are reused.
    """

    def __init__(self, model: nn.Module, trained: Mapping[str, object], batch_size: int) -> None:
        """Choose kernels for `model` in the first call of `forward` or `infer`.

        `trained` has the names of the trained parameters as keys, `batch_size` is the size of a training batch.
        """
        self._layers = list_layers(model)
        self._trained = trained
        self._kernels: list[LayerKernel] = []  # chosen in the first call, by its inputs
        modules = [layer for layer, _ in self._layers]
        self._is_reused_later = [layer in modules[index + 1 :] for index, layer in enumerate(modules)]
        """True for a layer that also comes later in the Sequential; its gradients are summed."""
        mixes_samples = any(isinstance(layer, BATCH_NORMS) and layer.running_mean is None for layer in modules)
        self._evaluation_samples = None if mixes_samples else max(batch_size, MIN_EVALUATION_SAMPLES)
        """Samples per part of an evaluation; None to evaluate all at once, if a layer mixes samples in eval mode."""

    def layer_arrays(self, tensors: Mapping[str, Tensor]) -> list[LayerArrays]:
        """Return numpy views of each layer's tensors, shape (S, ...).

        The keys of `tensors` are paths in the model; those that no layer has are ignored.
        """
        return [
            {name: tensors[path].detach().numpy() for name, path in paths.items() if path in tensors}
            for _, paths in self._layers
        ]

    @NO_FLOAT_WARNINGS
    @torch.no_grad()
    def forward(self, tensors: Sequence[LayerArrays], inputs: Tensor) -> Tensor:
        """Return outputs (S, N, ...) for inputs (S, N, ...) in training mode.

        Saves the values that `backward` needs.
        """
        x = inputs.movedim(1, -1).numpy()  # (S, ..., N)
        for index, arrays in enumerate(tensors):
            x = self._get_kernel(index, x).forward(arrays, x)
        return torch.from_numpy(x).movedim(-1, 1).clone()  # the next call overwrites the buffer

    @NO_FLOAT_WARNINGS
    @torch.no_grad()
    def infer(self, tensors: Sequence[LayerArrays], inputs: Tensor) -> Tensor:
        """Return outputs (S, N, ...) for inputs (S, N, ...) in eval mode, without a backward pass.

        Samples are processed in parts whose activations fit in the cache.
        """
        outputs = []
        for part in inputs.split(self._evaluation_samples or inputs.shape[1], dim=1):
            x = part.movedim(1, -1).numpy()  # (S, ..., samples)
            for index, arrays in enumerate(tensors):
                x = self._get_kernel(index, x).infer(arrays, x)
            outputs.append(torch.from_numpy(x).movedim(-1, 1).clone())
        for layer in self._kernels:
            layer.clear()  # buffers for parts of another size
        return torch.cat(outputs, dim=1)

    @NO_FLOAT_WARNINGS
    @torch.no_grad()
    def backward(self, tensors: Sequence[LayerArrays], gradients: Sequence[LayerArrays], grad_output: Tensor) -> None:
        """Write d loss / d parameters, given d loss / d outputs.

        Call it after `forward`, whose outputs have the shape of `grad_output`, (S, N, ...). The arrays in `gradients`
        have the shapes of the parameters, (S, ...).
        """
        grad: Array | None = grad_output.movedim(1, -1).contiguous().numpy()  # (S, ..., N)
        for index in reversed(range(len(self._kernels))):
            if grad is None:
                break
            layer, arrays, layer_gradients = self._kernels[index], tensors[index], gradients[index]
            if not self._is_reused_later[index]:
                grad = layer.backward(arrays, layer_gradients, grad)
                continue
            summands = {name: np.empty_like(value) for name, value in layer_gradients.items()}
            grad = layer.backward(arrays, summands, grad)
            for name, value in summands.items():
                layer_gradients[name][...] += value

    def _get_kernel(self, index: int, x: Array) -> LayerKernel:
        """Return the kernel of a layer, made in the first call.

        The first call chooses the kernel's class by its inputs x (S, ..., N).
        """
        existing = self._kernels
        if index < len(existing):
            return existing[index]
        # flatten and dropout may return their inputs, so after them x may still share memory with the data
        x_is_buffer = any(not isinstance(kernel, kernels.Flatten | kernels.Dropout) for kernel in existing)
        has_trained_below = any(
            path in self._trained for _, paths in self._layers[: len(existing)] for path in paths.values()
        )
        layer, _ = self._layers[len(existing)]
        kernel = choose_kernel(layer, x.ndim)(layer, in_place=x_is_buffer, needs_input_grad=has_trained_below)
        existing.append(kernel)
        return kernel


def choose_kernel(layer: nn.Module, dimensions: int) -> type[LayerKernel]:
    """Return the kernel class of a layer for inputs with this number of dimensions.

    Layers without a hand-written kernel use `AutogradKernel`.
    """
    match layer, dimensions:
        case nn.Linear(), _ if dimensions >= 3:
            return kernels.Linear
        case nn.Conv2d(), 5 if layer.groups == 1 and set(layer.dilation) == {1} and not isinstance(layer.padding, str):
            return kernels.Convolution
        case nn.BatchNorm1d() | nn.BatchNorm2d(), _ if not hasattr(layer, EVAL_MODE_ATTRIBUTE):
            return kernels.BatchNorm
        case nn.ReLU(), _:
            return kernels.ReLU
        case SeededDropout(), _:
            return kernels.Dropout
        case nn.MaxPool2d(), 5:
            return kernels.MaxPool
        case nn.AvgPool2d(), 5:
            return kernels.AvgPool
        case nn.Flatten(start_dim=1, end_dim=-1), _:
            return kernels.Flatten
    return AutogradKernel
