"""Results of a captured step in one buffer, so that one copy keeps them, whatever the number of metrics."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from labbench.train.engine.stepper import StepResult


class StepResults:
    """Buffer at a fixed address for losses and metrics, shape (S, N) each."""

    def __init__(self, result: StepResult) -> None:
        """Allocate a buffer for results like `result`."""
        losses, metrics = result
        # the largest dtypes first, so that each tensor starts at a multiple of its own size
        ordered = sorted({"": losses, **metrics}.items(), key=lambda item: -item[1].dtype.itemsize)
        self._layout = {name: (tensor.dtype, tensor.shape) for name, tensor in ordered}
        size = sum(tensor.numel() * tensor.dtype.itemsize for _, tensor in ordered)
        self._bytes = torch.zeros(size, dtype=torch.uint8, device=losses.device)
        self._views = self._typed_views(self._bytes)

    def write(self, result: StepResult) -> None:
        """Write losses and metrics to the buffer."""
        losses, metrics = result
        for name, tensor in {"": losses, **metrics}.items():
            self._views[name].copy_(tensor)

    def copy(self) -> StepResult:
        """Return a copy of the losses and metrics."""
        views = dict(self._typed_views(self._bytes.clone()))
        return views.pop(""), views

    def _typed_views(self, buffer: Tensor) -> Mapping[str, Tensor]:
        views, start = {}, 0
        for name, (dtype, shape) in self._layout.items():
            end = start + prod(shape) * dtype.itemsize
            views[name] = buffer[start:end].view(dtype).view(shape)
            start = end
        return views
