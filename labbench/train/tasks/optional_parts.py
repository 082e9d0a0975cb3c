"""Optional parts of a user's task: metrics of a whole split, parameter groups, its own optimizer and scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from labbench.errors import InputError
from labbench.records import Config

SIZES = ("evaluation_batch_size", "microbatch_size")
"""Parts that are numbers of samples; all others but `train_metrics` are methods."""


@dataclass(frozen=True)
class OptionalParts:
    """Parts that a task may have; None if it does not."""

    epoch_metrics: Callable[..., Mapping[str, Any]] | None = None
    """`epoch_metrics(outputs, targets)` or `epoch_metrics(outputs, targets, config)`: metrics of a whole split.

    It is called once per epoch and run with all outputs and targets of the split, and returns numbers by name.
    """
    parameter_groups: Callable[[nn.Module, Config], list[dict[str, Any]]] | None = None
    """`parameter_groups(model, config)`: torch's parameter groups, with learning rates and weight decays."""
    optimizer: Callable[[list[Any], Config], torch.optim.Optimizer] | None = None
    """`optimizer(params, config)`: a torch optimizer of these parameters or parameter groups."""
    scheduler: Callable[[torch.optim.Optimizer, Config], Any] | None = None
    """`scheduler(optimizer, config)`: a torch scheduler, or a dict of it with "interval" and "monitor"."""
    penalty: Callable[..., Any] | None = None
    """`penalty(model)`, with `inputs` and `config` if named: a term of the training loss, a number or (N,)."""
    evaluation_batch_size: int | None = None
    """Number of samples per forward pass in evaluations."""
    microbatch_size: int | None = None
    """Number of samples per forward and backward pass; the gradients of a batch add up."""

    train_metrics: Literal["train", "eval"] = "train"
    """Mode in which the metrics of the training data are measured: in each step, or after each epoch in eval mode."""

    @property
    def reason_to_loop(self) -> str | None:
        """Reason why runs of the task cannot be stacked, or None."""
        for name in ("parameter_groups", "optimizer", "microbatch_size"):
            if getattr(self, name) is not None:
                return f"the task has its own {name}"
        return None


def read_optional_parts(instance: object, name: str) -> OptionalParts:
    """Return the optional parts of a user's task `instance`; `name` names it in errors.

    Raises:
        InputError: A part has the wrong type.
    """
    parts: dict[str, Any] = {part.name: getattr(instance, part.name, part.default) for part in fields(OptionalParts)}
    for part, value in parts.items():
        if part == "train_metrics":
            if value not in ("train", "eval"):
                raise InputError(f'{name}.train_metrics must be "train" or "eval", not {value!r}')
            continue
        if value is None or (callable(value) and part not in SIZES):
            continue
        if part not in SIZES:
            raise InputError(f"{name}.{part} must be a method, not {value!r}")
        if type(value) is not int or value < 1:
            raise InputError(f"{name}.{part} must be an integer of at least 1, not {value!r}")
    return OptionalParts(**parts)


@torch.no_grad()
def compute_epoch_metrics(
    function: Callable[..., Mapping[str, Any]], outputs: Any, targets: Any, **keywords: Any
) -> dict[str, float]:
    """Return the metrics of a split by name, given the outputs and targets of all of its N samples, shape (N, ...).

    Raises:
        InputError: The function returns anything but a dict of numbers, or a metric named `loss`.
    """
    metrics: Any = function(outputs, targets, **keywords)
    if not isinstance(metrics, Mapping):
        raise InputError(f"the task's epoch_metrics(...) must return a dict of numbers, not {type(metrics).__name__}")
    if "loss" in metrics:
        raise InputError("the task's epoch_metrics(...) returns a metric named 'loss', which is reserved: rename it")
    return {name: _as_number(name, value) for name, value in metrics.items()}


def _as_number(name: str, value: Any) -> float:
    try:
        return value.item() if isinstance(value, Tensor) and value.numel() == 1 else float(value)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"the task's epoch metric {name!r} must be one number, not {type(value).__name__}; give each entry of a "
            "matrix a name of its own"
        ) from None


def make_parameter_groups(parts: OptionalParts, model: nn.Module, config: Config) -> list[Any]:
    """Return the parameters of a model, or the task's groups of them.

    Raises:
        InputError: The groups are no list of dicts with `params`, or leave out a trained parameter.
    """
    if parts.parameter_groups is None:
        return list(model.parameters())
    groups: Any = parts.parameter_groups(model, dict(config))
    if not isinstance(groups, list | tuple) or not all(isinstance(g, dict) and "params" in g for g in groups):
        raise InputError(
            'the task\'s parameter_groups(model, config) must return a list of dicts like {"params": [...], "lr": 0.1}'
        )
    groups = [
        group | {"params": [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])}
        for group in groups
    ]
    grouped = {id(parameter) for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in grouped:
            raise InputError(
                f"the task's parameter_groups(model, config) leaves out {name}: add it to a group, or freeze it in "
                "model(config) with requires_grad_(False)"
            )
    return [group for group in groups if group["params"]]
