"""Means over samples of what a task measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from labbench.errors import InputError
from labbench.train.tasks import Task


def losses_of(task: Task, outputs: Any, targets: Tensor) -> Tensor:
    """The task's loss of each sample: (N,). Raises InputError where it is anything else."""
    return _checked("loss", task.loss(outputs, targets), len(targets))


def metrics_of(task: Task, outputs: Any, targets: Tensor) -> dict[str, Tensor]:
    """The task's metrics of each sample: (N,) each. Raises InputError where one is anything else."""
    metrics = task.metrics(outputs, targets)
    return {name: _checked(f"metric {name!r}", values, len(targets)) for name, values in metrics.items()}


def _checked(what: str, values: Tensor, samples: int) -> Tensor:
    if values.shape != (samples,):
        shape = tuple(values.shape)
        raise InputError(
            f"the task's {what} must give one number a sample, shape ({samples},), not {shape}; "
            "in torch's own losses that is reduction='none', then a mean over the other dimensions"
        )
    return values


class Means:
    """Running means, kept on the device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._samples = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Values of some more samples, each (N,): the same names every time."""
        for name, value in values.items():
            wide = torch.float32 if value.device.type == "mps" else torch.float64  # Metal has no float64
            total = value.detach().sum(dtype=wide)
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._samples += len(next(iter(values.values()), ()))

    def read(self, prefix: str) -> dict[str, float]:
        """The means by name, `prefix` before it."""
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values())).tolist()  # the one copy from device to host
        return {prefix + name: total / self._samples for name, total in zip(self._sums, sums, strict=True)}
