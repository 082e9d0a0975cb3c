"""Backpropagation written by hand, through a Sequential of known layers on a CPU: no graph is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from labbench.train.engine.cpu import kernels
from labbench.train.engine.cpu.kernels import ByGraph, Own, Passes
from labbench.train.engine.dropout import Dropout
from labbench.train.engine.freezing import KEPT
from labbench.train.engine.layers import in_order

_QUIET = np.errstate(all="ignore")
"""A run that diverges is told by its loss."""

BATCH_NORMS = nn.BatchNorm1d, nn.BatchNorm2d

FEWEST_SAMPLES = 64
"""Looked at together, where there is no way back: with fewer, starting operations is what takes the time."""


class Backprop:
    """A model forward and back for S runs at a time, whose parameters are not its own."""

    def __init__(self, model: nn.Module, trained: Mapping[str, object], batch_size: int) -> None:
        """`trained` are the parameters that learn, by their names; `batch_size` that of training."""
        self._layers = in_order(model)
        self._trained = trained
        self._passes: list[Passes] = []  # which ones, the inputs of the first call decide
        modules = [layer for layer, _ in self._layers]
        self._returns = [layer in modules[number + 1 :] for number, layer in enumerate(modules)]
        """Of each layer whether the same one comes again further on."""
        crossing = any(isinstance(each, BATCH_NORMS) and each.running_mean is None for each in modules)
        self._together = None if crossing else max(batch_size, FEWEST_SAMPLES)
        """How many held-out samples are looked at together: all, where a layer looks at all of them."""

    def own(self, tensors: Mapping[str, Tensor]) -> list[Own]:
        """By layer, views of those of its tensors (S, ...) that are among these."""
        return [
            {name: tensors[path].detach().numpy() for name, path in paths.items() if path in tensors}
            for _, paths in self._layers
        ]

    @_QUIET
    @torch.no_grad()
    def forward(self, tensors: Sequence[Own], inputs: Tensor) -> Tensor:
        """Inputs (S, N, ...) to outputs (S, N, ...), in training: there is a way back."""
        x = inputs.movedim(1, -1).numpy()
        for number, own in enumerate(tensors):
            x = self._passes_of(number, x).forward(own, x)
        return torch.from_numpy(x).movedim(-1, 1).clone()  # the next call goes through the same memory

    @_QUIET
    @torch.no_grad()
    def infer(self, tensors: Sequence[Own], inputs: Tensor) -> Tensor:
        """The same with no way back, some samples at a time, whose activations stay in the cache."""
        outputs = []
        for part in inputs.split(self._together or inputs.shape[1], dim=1):
            x = part.movedim(1, -1).numpy()
            for number, own in enumerate(tensors):
                x = self._passes_of(number, x).infer(own, x)
            outputs.append(torch.from_numpy(x).movedim(-1, 1).clone())
        for layer in self._passes:
            layer.clear()  # what is left of parts of other sizes
        return torch.cat(outputs, dim=1)

    @_QUIET
    @torch.no_grad()
    def backward(self, tensors: Sequence[Own], gradients: Sequence[Own], gradient: Tensor) -> None:
        """From the gradient of the outputs of the last `forward`, those of the parameters, into `gradients`."""
        back: kernels.Array | None = gradient.movedim(1, -1).contiguous().numpy()
        for number in reversed(range(len(self._passes))):
            if back is None:
                break
            layer, own, of_own = self._passes[number], tensors[number], gradients[number]
            if not self._returns[number]:
                back = layer.backward(own, of_own, back)
                continue
            more = {name: np.empty_like(value) for name, value in of_own.items()}
            back = layer.backward(own, more, back)
            for name, value in more.items():
                of_own[name][...] += value

    def _passes_of(self, number: int, x: kernels.Array) -> Passes:
        """Of the layer of that number; the inputs `x` of the first call decide which they are."""
        before = self._passes
        if number < len(before):
            return before[number]
        # the first that is neither of these leaves something else than the data it was given
        own_memory = any(not isinstance(each, kernels.Flatten | kernels.Dropout) for each in before)
        learns = any(path in self._trained for _, paths in self._layers[: len(before)] for path in paths.values())
        layer, _ = self._layers[len(before)]
        made = by_hand(layer, x.ndim)(layer, in_place=own_memory, passes_back=learns)
        before.append(made)
        return made


def by_hand(layer: nn.Module, dimensions: int) -> type[Passes]:
    """The passes of a layer for inputs of so many dimensions; those that nobody wrote by hand are torch's."""
    match layer, dimensions:
        case nn.Linear(), _ if dimensions >= 3:
            return kernels.Linear
        case nn.Conv2d(), 5 if layer.groups == 1 and set(layer.dilation) == {1} and not isinstance(layer.padding, str):
            return kernels.Convolution
        case nn.BatchNorm1d() | nn.BatchNorm2d(), _ if not hasattr(layer, KEPT):
            return kernels.BatchNorm
        case nn.ReLU(), _:
            return kernels.ReLU
        case Dropout(), _:
            return kernels.Dropout
        case nn.MaxPool2d(), 5:
            return kernels.MaxPool
        case nn.AvgPool2d(), 5:
            return kernels.AvgPool
        case nn.Flatten(start_dim=1, end_dim=-1), _:
            return kernels.Flatten
    return ByGraph
