"""The Task protocol, and loading a task by name: built in, or from a user's file.

A user's class needs `params`, `data` and `model`, but no base class; it is constructed without arguments. `loss`
defaults to cross-entropy, `metrics` to accuracy for class targets.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from inspect import Parameter, isclass, signature
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, NoReturn, Protocol

from torch import Tensor, nn

from labbench.errors import InputError, did_you_mean
from labbench.params.param import Param
from labbench.records import Config
from labbench.train.data.dataset import Data
from labbench.train.data.loading import Datasets
from labbench.train.failures import error_location
from labbench.train.rng import Purpose, generator_seed, seeded_generators
from labbench.train.tasks.attributes import TaskAttributes
from labbench.train.tasks.builtin import TASKS
from labbench.train.tasks.import_context import imports_of, open_modules
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.optional_parts import OptionalParts, read_optional_parts
from labbench.train.tasks.wrong_objects import data_error, model_error


class Task(Protocol):
    """Data, model, loss and metrics as functions of a config."""

    @property
    def params(self) -> Mapping[str, Param]:
        """Parameters of the task, in addition to the training loop's (`labbench.params.param.TRAINING`)."""

    def data(self, config: Config, /) -> Data | Datasets:
        """Return the data on the CPU.

        Random generators are seeded equally for every run: all see the same data.

        `Datasets` are read sample by sample on demand, in worker processes.
        """

    def model(self, config: Config, /) -> nn.Module:
        """Return a new model on the CPU.

        Random generators are seeded with the run's seed.

        The task has the attributes that `data` left; attributes set in `model` belong to the run.
        """

    @property
    def loss(self) -> Callable[..., Tensor]:
        """`loss(outputs, targets)` or `loss(outputs, targets, config)`: one loss per sample, shape (N,).

        In the config, numbers declared with `per_run=True` are 0-dimensional tensors; other values are unchanged.
        """

    @property
    def metrics(self) -> Callable[..., Mapping[str, Tensor]]:
        """`metrics(outputs, targets)` or `metrics(outputs, targets, config)`: further metrics by name.

        Each is one number or boolean per sample, shape (N,).
        """


def make_data(task: Task, config: Config) -> Data | Datasets:
    """Return the task's data, with generators seeded equally for every run.

    Raises:
        InputError: If the task returns neither `Data` nor `Datasets`.
    """
    with seeded_generators(generator_seed(0, Purpose.DATA)), attributes_of(task).during_data():
        data: Any = task.data(config)
    if not isinstance(data, Data | Datasets):
        raise data_error(data)
    return data


def make_model(task: Task, config: Config) -> nn.Module:
    """Return a new model, with generators seeded by the run's seed.

    The task gets a copy of the config, which it may change.

    Raises:
        InputError: If the task does not return an `nn.Module`.
    """
    with seeded_generators(generator_seed(config["seed"], Purpose.WEIGHTS)), attributes_of(task).during_model():
        model: Any = task.model(dict(config))
    if not isinstance(model, nn.Module):
        raise model_error(model)
    return model


@dataclass(frozen=True)
class FileTask:
    """A user's task, with defaults for omitted parts."""

    params: Mapping[str, Param]
    data: Callable[[Config], Data | Datasets]
    model: Callable[[Config], nn.Module]
    loss: Callable[..., Tensor]
    metrics: Callable[..., Mapping[str, Tensor]]
    attributes: TaskAttributes = field(default_factory=lambda: TaskAttributes(SimpleNamespace()))
    """Attributes of the user's object."""
    optional: OptionalParts = field(default_factory=OptionalParts)


def attributes_of(task: Task) -> TaskAttributes:
    """Return the attributes of a task.

    A built-in task has none that change.
    """
    return task.attributes if isinstance(task, FileTask) else TaskAttributes(SimpleNamespace())


def optional_parts(task: Task) -> OptionalParts:
    """Return the optional parts of a task; a built-in task has none."""
    return task.optional if isinstance(task, FileTask) else OptionalParts()


def reads_attributes(task: Task) -> bool:
    """Return True if the loss, its penalty or the metrics may read the task's attributes.

    Plain functions cannot; methods and other callables may.
    """
    parts = loss_functions(task)
    return isinstance(task, FileTask) and not all(isinstance(each, FunctionType) for each in parts)


def loss_functions(task: Task) -> list[Callable[..., Any]]:
    """Return the functions of a task that are called in each step: loss, metrics and penalty."""
    penalty = optional_parts(task).penalty
    return [task.loss, task.metrics, *([] if penalty is None else [penalty])]


def load_task(name: str) -> Task:
    """Return the task `name`: built in, or `/path/file.py:Class`.

    Its functions can import from its folder only within `imports_of(name)`.

    Raises:
        InputError: If there is no such task, its file cannot be imported, or the class lacks a part of a task.
    """
    if name in TASKS:
        return TASKS[name]()
    path, colon, class_name = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        if name.endswith(".py"):
            raise InputError(f"task {name}: name the class of the task in this file, {Path(name).name}:CLASS")
        hint = did_you_mean(name, TASKS) or f"; use a built-in task ({', '.join(TASKS)}) or FILE.py:CLASS"
        raise InputError(f"no task {name!r}{hint}")
    with imports_of(name):
        return _make_task(_import_file(Path(path)), class_name, Path(path))


class _UncachedLoader(SourceFileLoader):
    """Loader that always compiles the source.

    Python takes cached bytecode for current if size and second of modification agree: a number edited within a second
    would train with its old value.
    """

    def path_stats(self, path: str) -> NoReturn:
        raise OSError(f"{path!r} is compiled each time")


def _import_file(file: Path) -> ModuleType:
    """Import the file as a module, in its import context."""
    if not file.is_file():
        raise InputError(f"no such task file: {file}")
    name = f"labbench_task_{file.stem}"
    spec = spec_from_file_location(name, file, loader=_UncachedLoader(name, str(file)))
    assert spec is not None  # never None for a .py file
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        is_relative = isinstance(error, ImportError) and "no known parent package" in str(error)
        hint = "; a task's file belongs to no package: import its neighbours without the dot" if is_relative else ""
        raise InputError(f"cannot import {error_location(error, file)}{hint}") from error
    return module


def _make_task(module: ModuleType, name: str, file: Path) -> Task:
    """Construct the task of class `name` and check its parts."""
    task_class: Any = getattr(module, name, None)
    if not isclass(task_class):
        classes = [key for key, value in vars(module).items() if isclass(value) and value.__module__ == module.__name__]
        raise InputError(f"{file} has no class {name!r}; it has {', '.join(classes) or 'none'}")
    try:
        instance: Any = task_class()
    except (Exception, SystemExit) as error:  # a user's class may raise anything
        raise InputError(f"cannot construct {name}(): {error_location(error, file)}") from error
    missing = [part for part, is_present in _required_parts(instance).items() if not is_present]
    if missing:
        raise InputError(f"{name} in {file} lacks {' and '.join(missing)}")
    for key, value in instance.params.items():
        if not isinstance(value, Param):
            raise InputError(f"{name}.params[{key!r}] in {file} must be a labbench.Param, not {value!r}")
    optional = read_optional_parts(instance, f"{name} in {file}")
    loss, metrics = getattr(instance, "loss", cross_entropy), getattr(instance, "metrics", accuracy)
    for part, function in (("loss", loss), ("metrics", metrics), ("epoch_metrics", optional.epoch_metrics or metrics)):
        _require_known_parameters(f"{name}.{part} in {file}", function, ("outputs", "targets"), ("config",))
    if optional.penalty is not None:
        _require_known_parameters(f"{name}.penalty in {file}", optional.penalty, ("model",), ("inputs", "config"))
    attributes = TaskAttributes(instance, open_modules())
    return FileTask(instance.params, instance.data, instance.model, loss, metrics, attributes, optional)


@lru_cache(maxsize=64)
def takes_config(function: Callable[..., Any]) -> bool:
    """Return True if a function of a task has a parameter `config`."""
    return takes("config", function)


@lru_cache(maxsize=64)
def takes(parameter: str, function: Callable[..., Any]) -> bool:
    """Return True if a function of a task has a parameter of this name."""
    return parameter in _parameters(function)


def _require_known_parameters(
    name: str, function: Callable[..., Any], positional: Sequence[str], optional: Sequence[str]
) -> None:
    """Raise InputError if a function needs more than its positional and its optional arguments."""
    for parameter in list(_parameters(function).values())[len(positional) :]:
        is_variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.name not in optional and parameter.default is parameter.empty and not is_variadic:
            *others, last = (*positional, *optional)
            raise InputError(
                f"{name} needs `{parameter.name}`: it is called with {', '.join(others)} and {last} alone; "
                "give the parameter a default or remove it"
            )


def _parameters(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    try:
        return signature(function).parameters
    except (TypeError, ValueError):  # a function written in C has no signature
        return {}


def _required_parts(instance: object) -> dict[str, bool]:
    """Return the required parts of a task, each with True if the object has it."""
    return {
        "params (a dict of labbench.Param)": isinstance(getattr(instance, "params", None), Mapping),
        "data(self, config)": callable(getattr(instance, "data", None)),
        "model(self, config)": callable(getattr(instance, "model", None)),
    }
