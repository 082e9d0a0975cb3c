"""What is trained: the Task protocol, and a task by its name, built in or from a user's own file.

A user's class needs `params`, `data` and `model`, inherits from nothing, and is made without arguments. It may leave
out `loss` (then cross-entropy) and `metrics` (then accuracy where targets are classes).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from inspect import Parameter, isclass, signature
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, Protocol

from torch import Tensor, nn

from labbench.errors import InputError, did_you_mean
from labbench.params.param import Param
from labbench.records import Config
from labbench.train.data.dataset import Data
from labbench.train.data.loading import Datasets
from labbench.train.rng import Purpose, generator_seed, seeded_generators
from labbench.train.tasks.attributes import TaskAttributes
from labbench.train.tasks.builtin import TASKS
from labbench.train.tasks.import_context import imports_of
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.user_errors import error_location


class Task(Protocol):
    """Model, data and loss, as functions of a config."""

    @property
    def params(self) -> Mapping[str, Param]:
        """What can be set, besides what the training loop takes (`labbench.params.param.TRAINING`)."""

    def data(self, config: Config, /) -> Data | Datasets:
        """The data, on the CPU. Generators are seeded alike for every run: all see the same data.

        `Datasets` are read sample by sample as they are needed, in processes beside the training.
        """

    def model(self, config: Config, /) -> nn.Module:
        """A new model, on the CPU. Generators are seeded with the run's own seed.

        The task has the attributes that `data` left; those that `model` sets are the run's own.
        """

    @property
    def loss(self) -> Callable[..., Tensor]:
        """`loss(outputs, targets)` or `loss(outputs, targets, config)`: one number a sample, shape (N,).

        In the config, numbers declared with `per_run=True` are 0-dimensional tensors, all else is as the grid has it.
        """

    @property
    def metrics(self) -> Callable[..., Mapping[str, Tensor]]:
        """`metrics(outputs, targets)` or `metrics(outputs, targets, config)`: further measures by name.

        Each is one number (or truth value) a sample, shape (N,).
        """


def make_data(task: Task, config: Config) -> Data | Datasets:
    """The task's data, with every generator in the same state whatever the run."""
    with seeded_generators(generator_seed(0, Purpose.DATA)), attributes_of(task).during_data():
        data: Any = task.data(config)
    if not isinstance(data, Data | Datasets):
        raise InputError(
            f"the task's data(config) must return a labbench.Data or labbench.Datasets, not {type(data).__name__}"
        )
    return data


def make_model(task: Task, config: Config) -> nn.Module:
    """A new model of the task, its weights drawn under the run's own seed."""
    with seeded_generators(generator_seed(config["seed"], Purpose.WEIGHTS)), attributes_of(task).during_model():
        model: Any = task.model(config)
    if not isinstance(model, nn.Module):
        raise InputError(f"the task's model(config) must return a torch.nn.Module, not {type(model).__name__}")
    return model


@dataclass(frozen=True)
class FileTask:
    """A task of a user's own, with what it leaves out filled in."""

    params: Mapping[str, Param]
    data: Callable[[Config], Data | Datasets]
    model: Callable[[Config], nn.Module]
    loss: Callable[..., Tensor]
    metrics: Callable[..., Mapping[str, Tensor]]
    attributes: TaskAttributes = field(default_factory=lambda: TaskAttributes(SimpleNamespace()))
    """Those that the user's object sets on itself."""


def attributes_of(task: Task) -> TaskAttributes:
    """Return the attributes that a task sets on itself; a built-in task has none that change."""
    return task.attributes if isinstance(task, FileTask) else TaskAttributes(SimpleNamespace())


def reads_attributes(task: Task) -> bool:
    """Return True where the loss or the metrics may depend on the task's attributes: they are no plain functions."""
    return isinstance(task, FileTask) and not all(isinstance(each, FunctionType) for each in (task.loss, task.metrics))


def load_task(name: str) -> Task:
    """The task called `name`: a built-in one, or `/path/file.py:Class`.

    What its functions call may import from its folder only within `imports_of(name)`. Raises InputError, which says
    what is missing or where the file fails.
    """
    if name in TASKS:
        return TASKS[name]()
    path, colon, class_name = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        if name.endswith(".py"):
            raise InputError(f"task {name}: say which class in it, {Path(name).name}:CLASS")
        hint = did_you_mean(name, TASKS) or f"; built in: {', '.join(TASKS)}; or FILE.py:CLASS"
        raise InputError(f"no task {name!r}{hint}")
    with imports_of(name):
        return _make_task(_import_file(Path(path)), class_name, Path(path))


def _import_file(file: Path) -> ModuleType:
    """Run the file as a module, in its import context."""
    if not file.is_file():
        raise InputError(f"no such task file: {file}")
    spec = spec_from_file_location(f"labbench_task_{file.stem}", file)
    assert spec is not None  # as for any .py file
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        raise InputError(f"cannot import {error_location(error, file)}") from error
    return module


def _make_task(module: ModuleType, name: str, file: Path) -> Task:
    """The task that the class `name` of the user's module makes, checked for its parts."""
    found: Any = getattr(module, name, None)
    if not isclass(found):
        own = [key for key, value in vars(module).items() if isclass(value) and value.__module__ == module.__name__]
        raise InputError(f"{file} has no class {name!r}; it has {', '.join(own) or 'none'}")
    try:
        given: Any = found()
    except (Exception, SystemExit) as error:  # the same
        raise InputError(f"cannot make {name}(): {error_location(error, file)}") from error
    lacking = [part for part, there in _required_parts(given).items() if not there]
    if lacking:
        raise InputError(f"{name} in {file} lacks {' and '.join(lacking)}")
    for key, value in given.params.items():
        if not isinstance(value, Param):
            raise InputError(f"{name}.params[{key!r}] in {file} must be a labbench.Param, not {value!r}")
    loss, metrics = getattr(given, "loss", cross_entropy), getattr(given, "metrics", accuracy)
    for part, function in (("loss", loss), ("metrics", metrics)):
        _require_known_parameters(f"{name}.{part} in {file}", function)
    return FileTask(given.params, given.data, given.model, loss, metrics, TaskAttributes(given))


@lru_cache(maxsize=64)
def takes_config(function: Callable[..., Any]) -> bool:
    """Return True for a `loss` or `metrics` that has a parameter called `config`."""
    return "config" in _parameters(function)


def _require_known_parameters(place: str, function: Callable[..., Any]) -> None:
    """Refuse a `loss` or `metrics` that needs more than the outputs, the targets and the config."""
    for parameter in list(_parameters(function).values())[2:]:
        is_variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.name != "config" and parameter.default is parameter.empty and not is_variadic:
            raise InputError(f"{place} needs `{parameter.name}`: it is called with outputs, targets and config alone")


def _parameters(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    try:
        return signature(function).parameters
    except (TypeError, ValueError):  # a function written in C has no signature
        return {}


def _required_parts(given: object) -> dict[str, bool]:
    return {
        "params (a dict of labbench.Param)": isinstance(getattr(given, "params", None), Mapping),
        "data(self, config)": callable(getattr(given, "data", None)),
        "model(self, config)": callable(getattr(given, "model", None)),
    }
