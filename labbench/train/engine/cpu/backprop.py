"""Backpropagation written by hand, through a Sequential of known layers on a CPU: no graph is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from labbench.train.engine.cpu import kernels
from labbench.train.engine.cpu.kernels import AutogradKernel, LayerArrays, LayerKernel
from labbench.train.engine.dropout import SeededDropout
from labbench.train.engine.freezing import EVAL_MODE_ATTRIBUTE
from labbench.train.engine.layers import list_layers

_NO_FLOAT_WARNINGS = np.errstate(all="ignore")
"""A run that diverges is told by its loss."""

BATCH_NORMS = nn.BatchNorm1d, nn.BatchNorm2d

MIN_EVALUATION_SAMPLES = 64
"""Looked at together, where there is no way back: with fewer, starting operations is what takes the time."""


class Backprop:
    """A model forward and back for S runs at a time, whose parameters are not its own."""

    def __init__(self, model: nn.Module, trained: Mapping[str, object], batch_size: int) -> None:
        """`trained` are the parameters that learn, by their names; `batch_size` that of training."""
        self._layers = list_layers(model)
        self._trained = trained
        self._kernels: list[LayerKernel] = []  # which ones, the inputs of the first call decide
        modules = [layer for layer, _ in self._layers]
        self._is_repeated = [layer in modules[number + 1 :] for number, layer in enumerate(modules)]
        """Of each layer whether the same one comes again further on."""
        crossing = any(isinstance(each, BATCH_NORMS) and each.running_mean is None for each in modules)
        self._evaluation_samples = None if crossing else max(batch_size, MIN_EVALUATION_SAMPLES)
        """How many held-out samples are looked at together: all, where a layer looks at all of them."""

    def layer_arrays(self, tensors: Mapping[str, Tensor]) -> list[LayerArrays]:
        """By layer, views of those of its tensors (S, ...) that are among these."""
        return [
            {name: tensors[path].detach().numpy() for name, path in paths.items() if path in tensors}
            for _, paths in self._layers
        ]

    @_NO_FLOAT_WARNINGS
    @torch.no_grad()
    def forward(self, tensors: Sequence[LayerArrays], inputs: Tensor) -> Tensor:
        """Inputs (S, N, ...) to outputs (S, N, ...), in training: there is a way back."""
        x = inputs.movedim(1, -1).numpy()
        for number, arrays in enumerate(tensors):
            x = self._kernel(number, x).forward(arrays, x)
        return torch.from_numpy(x).movedim(-1, 1).clone()  # the next call goes through the same memory

    @_NO_FLOAT_WARNINGS
    @torch.no_grad()
    def infer(self, tensors: Sequence[LayerArrays], inputs: Tensor) -> Tensor:
        """The same with no way back, some samples at a time, whose activations stay in the cache."""
        outputs = []
        for part in inputs.split(self._evaluation_samples or inputs.shape[1], dim=1):
            x = part.movedim(1, -1).numpy()
            for number, arrays in enumerate(tensors):
                x = self._kernel(number, x).infer(arrays, x)
            outputs.append(torch.from_numpy(x).movedim(-1, 1).clone())
        for layer in self._kernels:
            layer.clear()  # what is left of parts of other sizes
        return torch.cat(outputs, dim=1)

    @_NO_FLOAT_WARNINGS
    @torch.no_grad()
    def backward(self, tensors: Sequence[LayerArrays], gradients: Sequence[LayerArrays], gradient: Tensor) -> None:
        """From the gradient of the outputs of the last `forward`, those of the parameters, into `gradients`."""
        back: kernels.Array | None = gradient.movedim(1, -1).contiguous().numpy()
        for number in reversed(range(len(self._kernels))):
            if back is None:
                break
            layer, arrays, of_own = self._kernels[number], tensors[number], gradients[number]
            if not self._is_repeated[number]:
                back = layer.backward(arrays, of_own, back)
                continue
            more = {name: np.empty_like(value) for name, value in of_own.items()}
            back = layer.backward(arrays, more, back)
            for name, value in more.items():
                of_own[name][...] += value

    def _kernel(self, number: int, x: kernels.Array) -> LayerKernel:
        """Of the layer of that number; the inputs `x` of the first call decide which they are."""
        before = self._kernels
        if number < len(before):
            return before[number]
        # the first that is neither of these leaves something else than the data it was given
        own_memory = any(not isinstance(each, kernels.Flatten | kernels.Dropout) for each in before)
        learns = any(path in self._trained for _, paths in self._layers[: len(before)] for path in paths.values())
        layer, _ = self._layers[len(before)]
        made = choose_kernel(layer, x.ndim)(layer, in_place=own_memory, needs_input_grad=learns)
        before.append(made)
        return made


def choose_kernel(layer: nn.Module, dimensions: int) -> type[LayerKernel]:
    """The passes of a layer for inputs of so many dimensions; those that nobody wrote by hand are torch's."""
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
