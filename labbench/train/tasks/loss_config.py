"""The configs that a task's `loss`, `metrics` and `penalty` receive, for a single run and for a stack.

A number declared with `Param(..., per_run=True)` is a tensor, 0-dimensional in the task's code: floats in the dtype of
the models, ints as int64, booleans as bool. In a stack, vmap maps it over the runs, so that it broadcasts. All other
values are unchanged.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from labbench.errors import LabbenchError
from labbench.params.param import TRAINING, Param, all_params, own_keys
from labbench.records import Config
from labbench.train.host_copies import to_device
from labbench.train.tasks.task import Task, loss_functions, takes_config

DTYPES = {"int": torch.int64, "bool": torch.bool}
"""Dtype of a parameter's tensor, by the parameter's type; floats have the dtype of the models."""


class LossConfig(Mapping[str, Any]):
    """Read-only config of a run inside `loss` or `metrics`."""

    def __init__(self, values: Mapping[str, Any], differing: Collection[str] = ()) -> None:
        """`differing` are the keys that have no common value in the stack and cannot be tensors."""
        self._values, self._differing = values, differing

    def __getitem__(self, key: str) -> Any:
        if key in self._differing:
            raise LabbenchError(f"`{key}` in its loss or metrics is not a number and differs between the runs")
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._values, *self._differing))

    def __len__(self) -> int:
        return len(self._values) + len(self._differing)


@dataclass(frozen=True)
class LossConfigs:
    """Configs of S runs, stacked."""

    shared: Mapping[str, Any] = field(default_factory=dict)
    """Values common to all runs."""
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    """Values per run by key, shape (S,)."""
    differing: Collection[str] = ()
    """Keys with different values that are not numbers, such as `optimizer`."""

    def rows(self, rows: slice) -> LossConfigs:
        """Return the configs of a slice of the runs."""
        return LossConfigs(self.shared, {key: values[rows] for key, values in self.columns.items()}, self.differing)

    def config(self, numbers: Mapping[str, Tensor]) -> LossConfig:
        """Return the config of one run, given its numbers, shape () each."""
        return LossConfig({**self.shared, **numbers}, self.differing)

    def first(self) -> LossConfig:
        """Return the config of the first run."""
        return self.config({key: values[0] for key, values in self.columns.items()})


def loss_configs(task: Task, configs: Sequence[Config], dtype: torch.dtype, device: torch.device) -> LossConfigs:
    """Stack the configs of runs.

    Return an empty `LossConfigs` if none of `loss`, `metrics` and `penalty` takes a config.
    """
    if not any(map(takes_config, loss_functions(task))):
        return LossConfigs()
    params = all_params(task.params)
    shared: dict[str, Any] = {}
    columns: dict[str, Tensor] = {}
    differing = []
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [config.get(key) for config in configs]
        if all(_is_number(params.get(key), value) for value in values):
            columns[key] = to_device(torch.tensor(values, dtype=DTYPES.get(params[key].type, dtype)), device)
        elif all(type(value) is type(values[0]) and value == values[0] for value in values):
            shared[key] = values[0]
        else:
            differing.append(key)
    return LossConfigs(shared, columns, differing)


def separating_values(task: Task, config: Config) -> dict[str, Hashable]:
    """Return the values that must be equal in a stack, so that `loss` and `metrics` read their run's.

    These are the task's parameters that are not numbers or not declared with `per_run=True`. Empty if none of `loss`,
    `metrics` and `penalty` takes a config.
    """
    if not any(map(takes_config, loss_functions(task))):
        return {}
    params = all_params(task.params)
    loop_keys = TRAINING.keys() - set(own_keys(params))
    return {
        key: repr(value)
        for key, value in config.items()
        if key not in loop_keys and not _is_number(params.get(key), value)
    }


def _is_number(param: Param | None, value: Any) -> bool:
    """Return True for a value that can be a tensor."""
    return param is not None and param.per_run and param.type in ("int", "float", "bool") and value is not None
