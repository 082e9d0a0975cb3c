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
    with torch.no_grad():
        metrics = task.metrics(outputs, targets)
    if "loss" in metrics:
        raise InputError("the task's metrics have one called 'loss': that is what its loss() gives, name it otherwise")
    return {name: _checked(f"metric {name!r}", values, len(targets)) for name, values in metrics.items()}


def _checked(what: str, values: Any, samples: int) -> Tensor:
    if isinstance(values, Tensor) and values.shape == (samples,):
        return values
    given = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else repr(values)
    raise InputError(
        f"the task's {what} must be a tensor of one number a sample, shape ({samples},), not {given}; "
        "torch's own losses give that with reduction='none' and a mean over any further dimensions"
    )


class Means:
    """Values a sample, kept on the device until their means are read."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Values of some more samples, each (N,)."""
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)

    def read(self, prefix: str) -> dict[str, float]:
        """The means by name, `prefix` before it."""
        if not self._values:
            return {}
        means = torch.stack([_mean(torch.cat(values)) for values in self._values.values()])
        return dict(zip([prefix + name for name in self._values], means.tolist(), strict=True))  # one copy to the host


def _mean(values: Tensor) -> Tensor:
    return values.mean(dtype=torch.float32 if values.device.type == "mps" else torch.float64)  # Metal has no float64
