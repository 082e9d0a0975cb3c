"""The configs of the runs of a stack as the task's `loss` and `metrics` read them.

A number that is one value a run (`Param(..., per_run=True)`) is a tensor: 0-dimensional wherever the task sees it, of
the dtype in which the models are trained for floats, int64 for ints, bool for truth values. In a stack vmap maps it
over runs, so that it broadcasts. All other values are as they stand in the config.
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
from labbench.train.tasks.task import Task, takes_config

DTYPES = {"int": torch.int64, "bool": torch.bool}
"""By type of a parameter; floats have the dtype of the models."""


class LossConfig(Mapping[str, Any]):
    """The config of a run inside `loss` or `metrics`; read-only."""

    def __init__(self, values: Mapping[str, Any], differing: Collection[str] = ()) -> None:
        """`differing` are the keys without a value that serves all runs of the stack."""
        self._values, self._differing = values, differing

    def __getitem__(self, key: str) -> Any:
        if key in self._differing:
            raise LabbenchError(f"`{key}` in its loss or metrics is no number, and differs between the runs")
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._values, *self._differing))

    def __len__(self) -> int:
        return len(self._values) + len(self._differing)


@dataclass(frozen=True)
class LossConfigs:
    """The configs of S runs, stacked."""

    shared: Mapping[str, Any] = field(default_factory=dict)
    """Values of all runs."""
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    """Values of each run by key, shape (S,)."""
    differing: Collection[str] = ()
    """Keys whose values differ and are no numbers, such as `optimizer`."""

    def rows(self, rows: slice) -> LossConfigs:
        """Return the configs of some of the runs."""
        return LossConfigs(self.shared, {key: values[rows] for key, values in self.columns.items()}, self.differing)

    def config(self, numbers: Mapping[str, Tensor]) -> LossConfig:
        """Return the config of one run, given its own numbers, shape () each."""
        return LossConfig({**self.shared, **numbers}, self.differing)

    def first(self) -> LossConfig:
        """Return the config of the first run."""
        return self.config({key: values[0] for key, values in self.columns.items()})


def loss_configs(task: Task, configs: Sequence[Config], dtype: torch.dtype, device: torch.device) -> LossConfigs:
    """Stack the configs of runs for a task whose `loss` or `metrics` takes them; for others there is nothing to do."""
    if not (takes_config(task.loss) or takes_config(task.metrics)):
        return LossConfigs()
    params = all_params(task.params)
    shared: dict[str, Any] = {}
    columns: dict[str, Tensor] = {}
    differing = []
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [config.get(key) for config in configs]
        if all(_is_number(params.get(key), value) for value in values):
            columns[key] = torch.tensor(values, dtype=DTYPES.get(params[key].type, dtype), device=device)
        elif all(type(value) is type(values[0]) and value == values[0] for value in values):
            shared[key] = values[0]
        else:
            differing.append(key)
    return LossConfigs(shared, columns, differing)


def separating_values(task: Task, config: Config) -> dict[str, Hashable]:
    """Return the values that runs of one stack must share, so that `loss` and `metrics` read each run's own.

    These are the task's parameters that are no numbers or not declared as one value a run. Empty for a task that reads
    no config.
    """
    if not (takes_config(task.loss) or takes_config(task.metrics)):
        return {}
    params = all_params(task.params)
    loops = TRAINING.keys() - set(own_keys(params))
    return {
        key: repr(value) for key, value in config.items() if key not in loops and not _is_number(params.get(key), value)
    }


def _is_number(param: Param | None, value: Any) -> bool:
    """Return True for a value of a run that can be a tensor."""
    return param is not None and param.per_run and param.type in ("int", "float", "bool") and value is not None
