"""Penalties: terms of the training loss over the weights or the inputs of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn, vmap
from torch.func import functional_call

from labbench.errors import InputError
from labbench.records import Config
from labbench.train.data.samples import Samples, count_samples
from labbench.train.tasks.loss_config import LossConfigs
from labbench.train.tasks.task import Task, optional_parts, takes


def compute_penalty(task: Task, model: nn.Module, inputs: Samples, config: Config) -> Tensor:
    """Return the task's penalty for each sample, shape (N,).

    A penalty that is one number counts for each sample.

    Raises:
        InputError: If the penalty is anything but one real number, or one per sample.
    """
    function, samples = optional_parts(task).penalty, count_samples(inputs)
    assert function is not None
    arguments = {"inputs": inputs, "config": config}
    penalty: Any = function(model, **{name: value for name, value in arguments.items() if takes(name, function)})
    if not isinstance(penalty, Tensor) or penalty.shape not in ((), (samples,)) or penalty.is_complex():
        description = f"shape {tuple(penalty.shape)}" if isinstance(penalty, Tensor) else repr(penalty)
        raise InputError(
            f"the task's penalty must be a tensor of one real number, or of one per sample, shape ({samples},), not "
            f"{description}"
        )
    return penalty.expand(samples)


def calls_model(task: Task) -> bool:
    """Return True if the task's penalty takes the inputs, with which it may call the model."""
    penalty = optional_parts(task).penalty
    return penalty is not None and takes("inputs", penalty)


class StackedPenalty(nn.Module):
    """Penalties of a stack of runs."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        """`model` has the structure of the runs' models."""
        super().__init__()
        self.model, self._task = model, task

    def forward(self, inputs: Samples, config: Config) -> Tensor:
        """Return the penalties of one run, shape (N,)."""
        return compute_penalty(self._task, self.model, inputs, config)

    def of_runs(self, tensors: Mapping[str, Tensor], inputs: Samples, configs: LossConfigs) -> Tensor:
        """Return the penalties of S runs, shape (S, N).

        `tensors` are the parameters and buffers of the runs by name, shape (S, ...); inputs have shape (S, N, ...).
        """

        def of_run(tensors: Mapping[str, Tensor], inputs: Samples, numbers: Mapping[str, Tensor]) -> Tensor:
            named = {f"model.{name}": tensor for name, tensor in tensors.items()}
            penalty: Tensor = functional_call(self, named, (inputs, configs.config(numbers)))
            return penalty

        return vmap(of_run)(dict(tensors), inputs, dict(configs.columns))


def add_gradients(penalties: Tensor, leaves: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
    """Add the gradients of the mean penalties (S, N) with respect to the leaves (S, ...) to `gradients`."""
    shares = torch.full_like(penalties, 1 / penalties.shape[1])
    computed = torch.autograd.grad(penalties, list(leaves.values()), shares, allow_unused=True)
    for gradient, more in zip(gradients.values(), computed, strict=True):
        if more is not None:
            gradient.add_(more)
